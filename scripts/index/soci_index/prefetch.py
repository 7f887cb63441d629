"""Prefetch lists: which spans of a layer nodes fetch before a container starts.

Sources: soci-snapshotter, soci/prefetch.go and soci_index.go (buildPrefetchLayer); ztoc/fbs/ztoc.fbs,
ztoc/compression (gzip_zinfo.h, tar_zinfo.fbs): what a zTOC holds; flatbuffers' encoding of tables.
"""

import bisect
import json
import posixpath
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/vnd.amazon.soci.prefetch.v1+json"
_WINDOW = 32 << 10  # of gzip, kept with each checkpoint
_CHECKPOINT = 8 + 8 + 1 + _WINDOW
_UNCOMPRESSED = 2


@dataclass(frozen=True)
class Content:
    """What a zTOC says of its layer.

    Attributes:
        files: path without a slash before it -> offset and size in the unpacked tar.
        starts: of each span, the offset at which it begins there.
    """

    files: Mapping[str, tuple[int, int]]
    starts: Sequence[int]

    def span_at(self, offset: int) -> int:
        """The number of the span that holds an offset of the unpacked tar."""
        return max(bisect.bisect_right(self.starts, offset) - 1, 0)


def read(ztoc: bytes) -> Content:
    """What a zTOC holds.

    Raises:
        ValueError: it is none.
    """
    try:
        root = _Table.root(ztoc)
        entries = [
            (_clean(entry.text(0)), entry.text(1), (entry.long(2), entry.long(3)), _clean(entry.text(4)))
            for entry in root.table(4).tables(0)
        ]
        files: dict[str, tuple[int, int]] = {}
        for name, kind, where, link in entries:
            # Unlike soci, a hard link stands for the bytes that it links to.
            files.setdefault(name, files.get(link, where) if kind == "hardlink" else where)
        return Content(files, _starts(root.table(5), root.long(3)))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no zTOC ({error})") from error


def artifacts(
    layers: Sequence[tuple[str, Content]], paths: Iterable[str]
) -> tuple[dict[str, bytes], list[str]]:
    """The prefetch lists of an image's layers, by the layer's digest; and the paths that no layer has.

    A file is that of the topmost layer that has it.

    Args:
        layers: digest and content of those with a zTOC, the lowest first.
        paths: of files in the image.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    missing = []
    for path in paths:
        name = _clean(path)
        for digest, content in reversed(layers):
            if name in content.files:
                offset, size = content.files[name]
                first, last = content.span_at(offset), content.span_at(offset + size)
                spans.setdefault(digest, []).append((first, max(first, last)))
                break
        else:
            missing.append(path)
    made = {digest: _artifact(_merged(spans[digest])) for digest, _ in layers if digest in spans}
    return made, missing


def _artifact(spans: Iterable[tuple[int, int]]) -> bytes:
    content = {
        "version": "1.0",
        "prefetch_spans": [{"start_span": first, "end_span": last} for first, last in spans],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same spans, each once and in order; those beside each other are one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def _clean(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _starts(compression: "_Table", unpacked_bytes: int) -> list[int]:
    checkpoints = compression.bytes(3)
    if compression.byte(0, default=1) == _UNCOMPRESSED:
        span_bytes = _Table.root(checkpoints).long(1)
        return list(range(0, max(unpacked_bytes, 1), span_bytes))
    (count,) = struct.unpack_from("<i", checkpoints)
    # In the older form the first one, which begins at 0, is left out.
    is_older = len(checkpoints) == 12 + (count - 1) * _CHECKPOINT
    kept = count - is_older
    starts = [
        struct.unpack_from("<q", checkpoints, 12 + number * _CHECKPOINT + 8)[0] for number in range(kept)
    ]
    return [0, *starts] if is_older else starts


@dataclass(frozen=True)
class _Table:
    """A table in a flatbuffer: at its place, before which it says where its fields are."""

    data: bytes
    place: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def _field(self, number: int) -> int:
        """Where a field is; 0 for one that is left out."""
        entries = self.place - self._read("<i", self.place)
        if 4 + 2 * number >= self._read("<H", entries):
            return 0
        offset = self._read("<H", entries + 4 + 2 * number)
        return self.place + offset if offset else 0

    def _read(self, kind: str, place: int) -> Any:
        return struct.unpack_from(kind, self.data, place)[0]

    def _target(self, number: int) -> int:
        place = self._field(number)
        return place + self._read("<I", place) if place else 0

    def long(self, number: int) -> int:
        place = self._field(number)
        return self._read("<q", place) if place else 0

    def byte(self, number: int, default: int) -> int:
        place = self._field(number)
        return self._read("<b", place) if place else default

    def bytes(self, number: int) -> bytes:
        place = self._target(number)
        return self.data[place + 4 : place + 4 + self._read("<I", place)] if place else b""

    def text(self, number: int) -> str:
        return self.bytes(number).decode("utf-8", "surrogateescape")

    def table(self, number: int) -> "_Table":
        return _Table(self.data, self._target(number))

    def tables(self, number: int) -> list["_Table"]:
        place = self._target(number)
        count = self._read("<I", place) if place else 0
        places = [place + 4 + 4 * index for index in range(count)]
        return [_Table(self.data, entry + self._read("<I", entry)) for entry in places]
