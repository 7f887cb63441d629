"""The node's images at the switch: what starts under the new snapshotter, and how it comes to.

The kubelet takes an image for present although its layers are unpacked for the old snapshotter only.
containerd then unpacks them again from its content store, unless they were discarded there
(discard_unpacked_layers, the default of EKS). Such layers still lie unpacked on the node's disk and are
carried over to soci (see carry.py), with the registry down and without anybody's credentials. An image that
is neither complete nor unpacked, such as one that another SOCI daemon loaded lazily, is forgotten by
containerd at the switch, so that the kubelet pulls it again.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import detect, slots
from .carry import FROM, Layers
from .ctr import Ctr
from .errors import InstallError

KEPT_FREE = 0.15  # the kubelet begins to evict pods below it (imagefs.available)
FETCH_SECONDS = 30
BLOBS_READ_PER_IMAGE = 100  # indexes and manifests; one for two dozen platforms names half as many
DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]+")  # the host script reads them as words of a line


@dataclass(frozen=True)
class ImagePlan:
    """What the switch does about images."""

    pause: str
    imports_pause: bool = False  # from the archive that this kind of node has of it
    carry_over: tuple[Layers, ...] = ()
    bytes_to_copy: int = 0


def with_tag(image: str) -> str:
    """The name under which containerd stores an image: with its tag, even if the configuration has none."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else image + ":latest"


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The names of an image's snapshots, lowest first (OCI image specification, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else ""
        chains.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id)
    return tuple(chains)


def plan(
    ctr: Ctr,
    pause: str,
    registry_directories: list[str],
    *,
    pause_archive: str,
    is_switch: bool,
    snapshotter: str,
) -> ImagePlan:
    """Decide for each image on the node how it starts after the switch from ``snapshotter``.

    ``pause`` is the sandbox image; ``pause_archive`` is where the node may have an archive of it, or empty.

    Only the sandbox image is ever fetched: it needs no credentials, while those of other images are the
    kubelet's and the pods'.

    Raises:
        InstallError: an image that starts today could not start after the switch. Nothing is changed.
    """
    name = with_tag(pause)
    if not is_switch:
        return ImagePlan(name)
    found = ctr.images(snapshotter)
    lost = {image: state for image, state in found.items() if not state.is_complete}
    is_needed = name in lost or name not in found
    imports = is_needed and bool(pause_archive) and ctr.host.exists(pause_archive)
    if is_needed and not imports:
        hosts = ("--hosts-dir", registry_directories[0]) if registry_directories else ()
        if ctr.succeeds("content", "fetch", *hosts, name, timeout=FETCH_SECONDS):
            label = ("io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned")
            ctr.run("images", "label", name, *label)
            lost.pop(name, None)
        elif snapshotter != FROM or name not in lost or not lost[name].is_unpacked:
            raise InstallError(
                "pause-image",
                f"the content of the sandbox image {name} is not on the node and cannot be fetched",
                "make the image reachable without credentials",
            )
    if snapshotter in (slots.FIRST.name, slots.SECOND.name):
        return ImagePlan(name, imports)
    unpacked = {state.digest for state in lost.values() if state.is_unpacked}
    if unpacked and snapshotter != FROM:
        raise InstallError(
            "images",
            f"layers of {len(unpacked)} images exist only for the snapshotter {snapshotter}",
            f"use fresh nodes; layers are carried over from {FROM} only",
        )
    pause_first = sorted(
        unpacked, key=lambda digest: (name not in lost or lost[name].digest != digest, digest)
    )
    there = _snapshots(ctr) if unpacked else frozenset()
    carried = {digest: layers for digest in pause_first if (layers := _layers(ctr, digest, there))}
    size = _bytes_to_copy(ctr, sorted({chain for layers in carried.values() for chain in layers.chains}))
    room = max(0, ctr.host.free_bytes(slots.FIRST.data, KEPT_FREE))
    if size > room:
        raise InstallError(
            "images",
            f"layers need {size >> 20} MiB, {slots.FIRST.data} has room for {room >> 20} MiB",
            "free disk space (15 % have to stay free), or use fresh nodes",
        )
    return ImagePlan(name, imports, tuple(carried.values()), size)


def _snapshots(ctr: Ctr) -> frozenset[str]:
    """The names of all unpacked layers."""
    lines = ctr.run("snapshots", "--snapshotter", FROM, "ls").splitlines()
    if not lines:
        raise InstallError("images", "containerd does not list its layers", "try again")
    return frozenset(line.split()[0] for line in lines if line.strip())


def _layers(ctr: Ctr, digest: str, there: frozenset[str]) -> Layers | None:
    """The layers of the image with the manifest or index ``digest``, of the platform that is unpacked here;
    None when that cannot be found out."""
    try:
        for manifest in _manifests(ctr, digest):
            config = manifest["config"]["digest"]
            diff_ids = _json(ctr, config)["rootfs"]["diff_ids"]
            if diff_ids and all(DIGEST.fullmatch(digest) for digest in (config, *diff_ids)):
                layers = Layers(config, chain_ids(diff_ids))
                if there.issuperset(layers.chains):
                    return layers
    except (LookupError, TypeError, AttributeError, RecursionError):
        pass  # whatever an image's author wrote there must not keep the node from its install
    return None


def _manifests(ctr: Ctr, digest: str) -> Iterator[dict[str, Any]]:
    todo = [digest]
    for _ in range(BLOBS_READ_PER_IMAGE):
        if not todo:
            return
        content = _json(ctr, todo.pop(0))
        if "config" in content:
            yield content
        # Of the other platforms' manifests containerd keeps the descriptor only.
        todo += [str(entry["digest"]) for entry in content.get("manifests", ())]


def _json(ctr: Ctr, digest: str) -> dict[str, Any]:
    try:
        return json.loads(ctr.run("content", "get", digest) or "{}")
    except ValueError:
        return {}


def _bytes_to_copy(ctr: Ctr, chains: Sequence[str]) -> int:
    """Room that the layers take at their new place: none below one mount point, where they are linked."""
    places = {detect.mount_point_of(ctr.host, path) for path in (ctr.root, slots.FIRST.data)}
    if not chains or len(places) == 1:
        return 0
    usage = ctr.run("snapshots", "--snapshotter", FROM, "usage", "-b", *chains)
    sizes = dict(line.split()[:2] for line in usage.splitlines()[1:])
    if not sizes.keys() >= set(chains):
        raise InstallError("images", "containerd does not say how large the images' layers are", "try again")
    return sum(int(sizes[chain]) for chain in chains)


def workload_containers(ctr: Ctr, own_namespace: str) -> list[str]:
    """Running containers of pods that are neither the cluster's own nor the installer's."""
    label = 'labels."io.kubernetes.pod.namespace"'
    is_container = 'labels."io.cri-containerd.kind"==container'  # a pod's sandbox is one, too, for containerd
    query = ",".join([is_container, label, f"{label}!=kube-system", f"{label}!={own_namespace}"])
    of_workloads = set(ctr.ask("containers", "ls", "-q", query).split())
    if not of_workloads:
        return []
    tasks = [line.split() for line in ctr.ask("tasks", "ls").splitlines()]
    running = {words[0] for words in tasks if words and words[-1] == "RUNNING"}
    return sorted(of_workloads & running)
