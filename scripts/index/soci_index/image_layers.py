"""The layers of an image in a registry: what is where in them, kept by digest."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import oci
from .assemble import is_soci_index, normal_platform, platform_text
from .errors import SociIndexError
from .image_reader import platform_of
from .layer_files import LayerFiles, read_layer
from .layers import Kind, kind_of
from .oci import Json
from .references import Reference
from .registry import Registry, refusal


@dataclass(frozen=True)
class ImageLayers:
    """The layers of one platform of an image, from the lowest, and whether each can have a zTOC."""

    layers: tuple[LayerFiles, ...]
    indexable: tuple[bool, ...]


def read(
    registry: Registry,
    source: Reference,
    platform: tuple[str, str, str, str],
    cache: Path,
    say: Callable[[str], None] = lambda text: None,
) -> ImageLayers:
    """Read an image's layers through, those that are not known yet.

    Args:
        registry: where it is.
        source: its name.
        platform: a normal one.
        cache: a directory that keeps what was read.
        say: is told of each layer that is read.

    Raises:
        SociIndexError: it cannot be read, or has no such platform.
    """
    manifest = _manifest(registry, source, platform)
    found = []
    for layer in manifest.get("layers") or []:
        is_readable = kind_of(layer, 0) is Kind.INDEXABLE
        found.append(
            (_known(registry, source, layer, cache, say) if is_readable else _opaque(layer), is_readable)
        )
    if not found:
        raise SociIndexError(f"{source.name} has no layers", "name a container image")
    return ImageLayers(tuple(files for files, _ in found), tuple(readable for _, readable in found))


def _manifest(registry: Registry, source: Reference, platform: tuple[str, str, str, str]) -> Json:
    root, content = registry.manifest(source, source.digest or source.tag)
    parsed = json.loads(content)
    there = []
    if root.get("mediaType") not in oci.INDEX_TYPES:
        of = platform_of(registry, source, parsed["config"])
        if normal_platform(of)[:2] == platform[:2]:
            return parsed
        there.append(platform_text(of))
    for descriptor in parsed.get("manifests") or []:
        of = descriptor.get("platform") or {}
        if is_soci_index(descriptor):
            continue
        if normal_platform(of) == platform:
            return json.loads(registry.manifest(source, str(descriptor["digest"]))[1])
        there.append(platform_text(of))
    wanted = "/".join(part for part in platform[:3] if part)
    raise SociIndexError(
        f"{source.name} has no platform {wanted}", f"--platform with one of {', '.join(there)}"
    )


def _known(
    registry: Registry, source: Reference, layer: Json, cache: Path, say: Callable[[str], None]
) -> LayerFiles:
    digest = str(layer["digest"])
    place = cache / "layers" / f"{oci.hex_of(digest)}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found = LayerFiles.from_json(place.read_text())
        with contextlib.suppress(OSError):
            os.utime(place)  # used, for `ztocs.prune`
        return found
    say(f"reading layer {digest[7:19]} ({int(layer['size']) / 1e6:.0f} MB)")
    found = _fetched(registry, source, digest)
    if found.compressed_bytes != int(layer["size"]):
        cause = f"layer {digest} of {source.name} has {found.compressed_bytes} bytes, not {layer['size']}"
        raise SociIndexError(cause, "run this again; see to the registry")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            file.write(found.to_json())
        Path(file.name).rename(place)
    except OSError as error:
        raise SociIndexError(
            f"{cache} cannot be written ({error})", "--cache with another directory"
        ) from error
    return found


def _fetched(registry: Registry, source: Reference, digest: str) -> LayerFiles:
    with tempfile.TemporaryFile() as errors:
        fetch = registry.open_blob(source, digest, errors)
        assert fetch.stdout is not None
        problem = None
        try:
            with fetch.stdout:
                found = read_layer(fetch.stdout, digest)
        except SociIndexError as error:  # also when oras wrote only a part of it
            problem = error
        except BaseException:
            registry.children.end(fetch)
            raise
        if registry.children.wait(fetch):
            errors.seek(0)
            raise refusal(source, errors.read().decode("utf-8", "replace"))
        if problem:
            raise problem
        return found


def _opaque(layer: Json) -> LayerFiles:
    """A layer that is not looked into; unpacked it is taken for twice as large."""
    size = int(layer.get("size", 0))
    return LayerFiles(str(layer.get("digest", "")), size, 2 * size, {}, (), ((0, 0),))
