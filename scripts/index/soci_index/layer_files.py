"""What is where in a layer: its files by their place in the unpacked tar, and how that place compresses.

A SOCI span covers so many bytes of the tar, so this says which spans a file lies in, whatever their size.
"""

import io
import json
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, cast

from .errors import SociIndexError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"  # image-spec, layer.md
_BLOCK = 1 << 20
_MARK_BYTES = 256 << 10  # of the tar between two marks


@dataclass(frozen=True)
class LayerFiles:
    """The content of one layer.

    Attributes:
        digest: of the blob.
        compressed_bytes: of the blob.
        unpacked_bytes: of the tar.
        files: absolute path -> offset and size in the tar; regular files and hard links to them.
        removed: paths that the layer takes away from those below; with a slash at the end, what is in one.
        marks: unpacked and compressed offset, growing, from (0, 0) on.
    """

    digest: str
    compressed_bytes: int
    unpacked_bytes: int
    files: Mapping[str, tuple[int, int]]
    removed: tuple[str, ...]
    marks: tuple[tuple[int, int], ...]

    def compressed_at(self, offset: int) -> int:
        """About where in the blob an offset of the tar is."""
        after = bisect_right(self.marks, (offset, self.compressed_bytes))
        low = self.marks[after - 1]
        high = self.marks[after] if after < len(self.marks) else (self.unpacked_bytes, self.compressed_bytes)
        if high[0] <= low[0]:
            return high[1]
        return low[1] + (high[1] - low[1]) * (min(offset, high[0]) - low[0]) // (high[0] - low[0])

    def compressed_between(self, begin: int, end: int) -> int:
        """About how many bytes of the blob a part of the tar is."""
        return max(0, self.compressed_at(min(end, self.unpacked_bytes)) - self.compressed_at(begin))

    def takes_away(self, path: str) -> bool:
        """Whether a file of a layer below is not seen through this one."""
        return any(path == gone or path.startswith(f"{gone.rstrip('/')}/") for gone in self.removed)

    def to_json(self) -> str:
        """For the cache."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "LayerFiles":
        """What `to_json` wrote. Raises ValueError, LookupError or TypeError when it is something else."""
        found = json.loads(text)
        return cls(
            str(found["digest"]),
            int(found["compressed_bytes"]),
            int(found["unpacked_bytes"]),
            {str(path): (int(place[0]), int(place[1])) for path, place in found["files"].items()},
            tuple(map(str, found["removed"])),
            tuple((int(mark[0]), int(mark[1])) for mark in found["marks"]),
        )


def read_layer(
    content: IO[bytes], digest: str, moved: Callable[[int], None] = lambda count: None
) -> LayerFiles:
    """Read a layer's blob through, once.

    Args:
        content: the blob.
        digest: by which it is known.
        moved: hears of the bytes as they come.

    Raises:
        SociIndexError: it is no tar, or compressed with something else than gzip.
    """
    files: dict[str, tuple[int, int]] = {}
    removed: list[str] = []
    try:
        plain = _Unpacked(content, moved)
        with tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|", bufsize=_BLOCK) as tar:
            for member in tar:
                path = str(PurePosixPath("/", member.name))
                if PurePosixPath(path).name.startswith(WHITEOUT):
                    removed.append(_taken_away(path))
                elif member.isreg():
                    files[path] = (member.offset_data, member.size)
                elif member.islnk():
                    target = str(PurePosixPath("/", member.linkname))
                    if target in files:
                        files[path] = files[target]
        while plain.read(_BLOCK):  # the padding behind the last file
            pass
    except (tarfile.TarError, zlib.error, EOFError) as error:
        cause = f"layer {digest} cannot be read ({error})"
        raise SociIndexError(cause, "build the image again, with gzip layers") from error
    return LayerFiles(
        digest, plain.compressed_bytes, plain.unpacked_bytes, files, tuple(removed), tuple(plain.marks)
    )


def _taken_away(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/" if name == OPAQUE else f"{folder}/{name.removeprefix(WHITEOUT)}"


class _Unpacked(io.RawIOBase):
    """A blob's tar, to be read in order, and where in the blob it was."""

    def __init__(self, content: IO[bytes], moved: Callable[[int], None]) -> None:
        super().__init__()
        self.compressed_bytes = self.unpacked_bytes = 0
        self.marks = [(0, 0)]
        self._content, self._moved = content, moved
        self._rest = b""  # compressed, not yet unpacked
        self._ready = b""  # unpacked, not yet read
        self._gzip: zlib._Decompress | None = None
        self._begin = self._fetch(4)
        if self._begin.startswith(ZSTD):
            raise zlib.error("compressed with zstd, which SOCI cannot read in parts")
        self._is_gzip = self._begin.startswith(GZIP)
        self._rest = self._begin

    def read(self, size: int = -1, /) -> bytes:
        while len(self._ready) < size and (more := self._more()):
            self._ready += more
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def _fetch(self, size: int) -> bytes:
        block = self._content.read(size)
        self.compressed_bytes += len(block)
        self._moved(len(block))
        return block

    def _more(self) -> bytes:
        block = self._rest or self._fetch(1 << 16)
        self._rest = b""
        if not block:
            if self._gzip and not self._gzip.eof:
                raise EOFError("it ends in the middle")
            return b""
        if not self._is_gzip:
            return self._came(block)
        if self._gzip is None or self._gzip.eof:
            self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        found = self._gzip.decompress(block)
        self._rest = self._gzip.unused_data.lstrip(b"\0") if self._gzip.eof else b""
        return self._came(found) or self._more()

    def _came(self, found: bytes) -> bytes:
        self.unpacked_bytes += len(found)
        if self.unpacked_bytes - self.marks[-1][0] >= _MARK_BYTES:
            self.marks.append((self.unpacked_bytes, self.compressed_bytes - len(self._rest)))
        return found
