"""How each image of a node is served: lazily, whole, in parallel, or not at all.

Pure functions over what containerd's client printed and over JSON of its content store, and the one that
reads these. Of a snapshot without files of its own (``snapshots usage`` counts no inode) SOCI says that it is
remote: it was committed without its content (soci-snapshotter 0.16.1, snapshot.go, Usage and commit).
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .daemon_metrics import Fetched
from .images import chain_ids

INDEX = "com.amazon.soci.index-digest"  # on a manifest that `soci convert` has written

LAZY, WHOLE, PARALLEL, DEAD, UNKNOWN = "lazy", "whole", "parallel", "dead", "unknown"

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")

Blob = Callable[[str], Mapping[str, Any]]  # digest to JSON; empty when it is not there


@dataclass(frozen=True)
class Layer:
    """One layer: its size is that of the compressed blob. ``state`` is one of those above."""

    digest: str
    size: int
    media_type: str
    state: str


@dataclass(frozen=True)
class Image:
    """One image of the node under the names that people use; ``layers`` is empty when they are not known."""

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    is_unpacked: bool  # for the slot's snapshotter
    index: str = ""  # the digest of its own SOCI index, of version 2
    others_indexed: bool = False  # it has such indexes for other platforms

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def registry(self) -> str:
        """The host that the name begins with, as it is written."""
        return self.name.partition("/")[0]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    def of(self, state: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.state == state)

    @property
    def is_lazy(self) -> bool:
        return bool(self.of(LAZY) or self.of(DEAD))


def labels(listed: str) -> dict[str, dict[str, str]]:
    """Digest to labels, from ``ctr content ls``."""
    found = {}
    for line in listed.splitlines()[1:]:
        words = line.split("\t")
        pairs = (label.partition("=") for label in words[-1].split(","))
        found[words[0].strip()] = {key: value for key, _, value in pairs}
    return found


def names_by_digest(listed: str) -> dict[str, tuple[str, ...]]:
    """Digest to the names of the image, from ``ctr images ls``; those with a tag first."""
    found: dict[str, list[str]] = {}
    for words in (line.split() for line in listed.splitlines()[1:]):
        if len(words) > 2:
            found.setdefault(words[2], []).append(words[0])
    return {digest: tuple(sorted(names, key=_is_identifier)) for digest, names in found.items()}


def _is_identifier(name: str) -> tuple[bool, bool]:
    """Beside a name with a tag an image has the kubelet's identifier and its digest."""
    return name.startswith("sha256:"), "@" in name


def remote_keys(usage: str) -> dict[str, bool]:
    """Snapshot to whether it is remote, from ``ctr snapshots usage -b``."""
    lines = (line.split() for line in usage.splitlines()[1:])
    return {words[0]: words[1:] == ["0", "0"] for words in lines if len(words) == 3}


def committed(listed: str) -> list[str]:
    """The keys of the layers, from ``ctr snapshots ls``."""
    lines = (line.split() for line in listed.splitlines()[1:])
    return [words[0] for words in lines if len(words) in (2, 3) and words[-1] == "Committed"]


@dataclass(frozen=True)
class Snapshots:
    """What is known of the layers in a slot's directory."""

    snapshotter: str
    remote: Mapping[str, bool]  # chain ID to whether the layer is lazily loaded
    not_mounted: Collection[str] = ()  # chain IDs of those that the daemon could not mount at its start
    parallel: Collection[str] = ()  # digests of layers that SOCI pulled whole, over many connections


def images(
    names: Mapping[str, Sequence[str]],
    content: Mapping[str, Mapping[str, str]],
    blob: Blob,
    snapshots: Snapshots,
) -> list[Image]:
    """Every image of the node, by the first of its names; one whose manifest cannot be read has no layers.

    Args:
        names: the names of each digest of an image.
        content: the labels of each blob in containerd's content store.
        blob: reads a blob of JSON.
        snapshots: the layers of the slot in use.
    """
    found = []
    for digest, of_digest in names.items():
        manifest, config = manifest_of(digest, content, snapshots.snapshotter)
        is_unpacked = _unpacked(snapshots.snapshotter) in content.get(config, {})
        try:
            read = blob(manifest)
            layers = _layers(read, blob(config), snapshots if is_unpacked else None)
            index = str((read.get("annotations") or {}).get(INDEX, ""))
            siblings = blob(digest).get("manifests", ())
            others = any(INDEX in (entry.get("annotations") or {}) for entry in siblings)
        except (LookupError, TypeError, AttributeError, ValueError):  # an image's author wrote it
            layers, index, others = (), "", False
        found.append(Image(tuple(of_digest), layers, is_unpacked, index, others and not index))
    return sorted(found, key=lambda image: image.name)


def _layers(
    manifest: Mapping[str, Any], config: Mapping[str, Any], snapshots: Snapshots | None
) -> tuple[Layer, ...]:
    chains = chain_ids(config["rootfs"]["diff_ids"])
    return tuple(
        Layer(
            str(entry["digest"]),
            int(entry["size"]),
            str(entry["mediaType"]),
            _state(chain, str(entry["digest"]), snapshots) if snapshots else UNKNOWN,
        )
        for entry, chain in zip(manifest["layers"], chains, strict=True)
    )


def _state(chain: str, digest: str, snapshots: Snapshots) -> str:
    if chain not in snapshots.remote:
        return UNKNOWN
    if not snapshots.remote[chain]:
        return PARALLEL if digest in snapshots.parallel else WHOLE
    return DEAD if chain in snapshots.not_mounted else LAZY


def _unpacked(snapshotter: str) -> str:
    return f"containerd.io/gc.ref.snapshot.{snapshotter}"


def manifest_of(digest: str, content: Mapping[str, Mapping[str, str]], snapshotter: str) -> tuple[str, str]:
    """Manifest and configuration of the platform that this node has of an image: of several, the one that is
    unpacked. By containerd's own labels, so that no blob has to be read."""
    pairs = list(_manifests(digest, content, set()))
    unpacked = [pair for pair in pairs if _unpacked(snapshotter) in content.get(pair[1], {})]
    return next(iter(unpacked or pairs), ("", ""))


def _manifests(
    digest: str, content: Mapping[str, Mapping[str, str]], seen: set[str]
) -> Iterator[tuple[str, str]]:
    if digest in seen or digest not in content:
        return
    seen.add(digest)
    config = content[digest].get("containerd.io/gc.ref.content.config", "")
    if config in content:
        yield digest, config
    for key, value in content[digest].items():
        if key.startswith("containerd.io/gc.ref.content.m."):
            yield from _manifests(value, content, seen)


def names_of_one_image(
    names: Mapping[str, Sequence[str]], content: Mapping[str, Mapping[str, str]]
) -> list[set[str]]:
    """The names that are one image to the kubelet: those of one configuration, as an image and the same with
    an index of its own. containerd calls the image of a container by the first of them in its own order
    (internal/cri: toContainerdImage, and the image store's update).

    Args:
        names: the names of each digest of an image.
        content: the labels of each blob in containerd's content store.
    """
    found: dict[str, set[str]] = {}
    for digest, of_digest in names.items():
        configurations = [config for _, config in _manifests(digest, content, set())]
        for key in configurations or [digest]:
            found.setdefault(key, set()).update(of_digest)
    return list(found.values())


def described(
    image: Image, why: str, local_layers: Collection[str] | None, fetched: Fetched
) -> dict[str, object]:
    """An image for the report.

    Args:
        image: as it was found.
        why: the reason that it is not loaded lazily, if that is known.
        local_layers: digests of lazily loaded layers that are wholly on the node; None where the daemon does
            not tell.
        fetched: what the daemon tells of what it has fetched.
    """
    lazy = image.of(LAZY)
    whole = image.of(WHOLE) + image.of(PARALLEL)
    return {
        "image": image.name,
        "names": [name for name in image.names if not name.startswith("sha256:")],
        "served": served(image),
        "layers": len(image.layers),
        "lazyLayers": len(lazy),
        "bytes": image.size,
        "lazyBytes": sum(layer.size for layer in lazy),
        "localBytes": None
        if local_layers is None
        else sum(layer.size for layer in lazy if layer.digest in local_layers),
        "wholeBytes": sum(layer.size for layer in whole),
        "movedBytes": _moved(image, lazy, whole, fetched.sizes),
        "inBackground": not fetched.in_background.isdisjoint(layer.digest for layer in lazy),
        "why": why,
    }


def _moved(
    image: Image, lazy: Sequence[Layer], whole: Sequence[Layer], fetched: Mapping[str, int]
) -> int | None:
    """Bytes of the layers that came to the node; None where they are not known of each layer."""
    is_known = image.layers and len(lazy) + len(whole) == len(image.layers)
    if not is_known or any(layer.digest not in fetched for layer in lazy):
        return None
    return sum(layer.size for layer in whole) + sum(fetched[layer.digest] for layer in lazy)


def served(image: Image) -> str:
    """In a word, how the image is served."""
    if image.of(DEAD):
        return "broken"
    if not image.is_unpacked:
        return "not unpacked"
    if image.is_lazy:
        return LAZY
    if not image.layers or image.of(UNKNOWN):
        return UNKNOWN
    return PARALLEL if image.of(PARALLEL) else WHOLE


def registries(found: Iterable[Image]) -> list[str]:
    """The hosts of the registries that images are named after."""
    names = {image.registry for image in found if "/" in image.name}
    return sorted(name for name in names if _HOST.fullmatch(name))


def read_json(text: bytes | None) -> dict[str, Any]:
    """A JSON object; empty when it is none."""
    try:
        found = json.loads(text or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
