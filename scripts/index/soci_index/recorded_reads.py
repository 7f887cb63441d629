"""What a container read until it was ready, and in which layers that is."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SociIndexError
from .layer_files import LayerFiles

Json = dict[str, Any]


@dataclass(frozen=True)
class FileRead:
    """A file that was opened; `ranges` are the bytes that were read, from and up to."""

    path: str
    size: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def bytes(self) -> int:
        return sum(end - begin for begin, end in self.ranges)


@dataclass(frozen=True)
class Recording:
    """The reads of one start, in the order of the files' first opens.

    Attributes:
        seconds: from the mount of the container's files to the end of the recording.
        ended_by: line, ready, seconds or input.
        is_complete: whether the node could follow everything.
        lazy_layers: how many layers were loaded lazily: only of these the ranges are exact.
        cores: of the node; 0 where it is not known.
        architecture: of the node, as OCI names it; empty where it is not known.
        containerd: the version of the node's; empty where it is not known.
        discards: whether that discards unpacked layers; None where it is not known.
    """

    files: tuple[FileRead, ...]
    seconds: float
    ended_by: str
    is_complete: bool = True
    lazy_layers: int = 0
    cores: int = 0
    architecture: str = ""
    containerd: tuple[int, ...] = ()
    discards: bool | None = None


@dataclass(frozen=True)
class LayerRead:
    """A part of a layer's tar that was read."""

    layer: int
    begin: int
    end: int


def parse(found: Json) -> Recording:
    """A recording, as the installer's pod says it (agent/reads.py) and as it is kept in a file.

    Raises:
        SociIndexError: it is something else.
    """
    try:
        files = tuple(
            FileRead(
                str(file["path"]),
                int(file["size"]),
                tuple((int(begin), int(end)) for begin, end in file["ranges"]),
            )
            for file in found["files"]
        )
        return Recording(
            files,
            float(found["seconds"]),
            str(found["endedBy"]),
            bool(found["isComplete"]),
            int(found["lazyLayers"]),
            max(0, int(found.get("cores", 0))),
            str(found.get("architecture", "")),
            tuple(int(part) for part in str(found.get("containerd", "")).split(".") if part),
            discards if isinstance(discards := found.get("discardsUnpackedLayers"), bool) else None,
        )
    except (LookupError, TypeError, ValueError) as error:
        cause = f"this is no recording of reads ({error!r})"
        raise SociIndexError(cause, "record the reads again with --node") from error


def load(path: Path) -> Recording:
    """A recording that was kept.

    Raises:
        SociIndexError: it cannot be read.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise SociIndexError(
            f"{path} cannot be read ({error})", "record the reads again with --node"
        ) from error


def owner(path: str, layers: Sequence[LayerFiles]) -> int | None:
    """The layer whose file is seen at a path, by its number from the lowest; None for none."""
    for number in range(len(layers) - 1, -1, -1):
        if path in layers[number].files:
            return number
        if layers[number].takes_away(path):
            return None
    return None


def in_layers(files: Iterable[FileRead], layers: Sequence[LayerFiles]) -> list[LayerRead]:
    """The parts of layers that these reads are, in their order; files of no layer, such as those that the
    container wrote itself, are left out."""
    found = []
    for file in files:
        number = owner(file.path, layers)
        if number is not None:
            offset, size = layers[number].files[file.path]
            found += [
                LayerRead(number, offset + begin, offset + min(end, size))
                for begin, end in file.ranges
                if begin < size
            ]
    return found
