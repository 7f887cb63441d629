"""Which files of a mounted overlay are opened, and which of their bytes were read: fanotify and mincore.

fanotify (7) tells of each first open of a file, also of one that is then only mapped. Which of its bytes were
read is asked of the page cache at the end, for a mapped library, too: the kernel keeps what a FUSE layer gave
it (SOCI opens with FOPEN_KEEP_CACHE). A file whose layer was unpacked on the node is in the page cache from
that on, and seems to be read as a whole.
"""

import ctypes
import errno
import os
import resource
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InstallError

MOST_FILES = 20_000  # each is an open file, a kilobyte or two of the pod's memory
EVENT_BYTES = 1 << 12  # taken at once: at most 170 open files
ROUNDS = 64
MOST_BYTES = 64 << 30  # of a file whose pages are looked at; a sparse one may say that it has exabytes
SPARE_FILES = 256  # that this process opens besides: those of the events, logs, programs
PAGE = os.sysconf("SC_PAGE_SIZE")
WINDOW = 1 << 30  # bytes of a file that are asked about at once: one byte a page

# linux/fanotify.h
_CLOEXEC, _NONBLOCK, _UNLIMITED_MARKS = 0x1, 0x2, 0x20
_ADD, _IGNORED, _FILE_SYSTEM, _IGNORED_STAYS = 0x1, 0x20, 0x100, 0x40
_OPEN, _OVERFLOW = 0x20, 0x4000
_EVENT = struct.Struct("=IBBHQii")
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | 0o100000  # O_LARGEFILE, which Python has as 0
_READ, _SHARED, _FAILED = 0x1, 0x1, ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class FileRead:
    """A file that was opened. ``path`` is absolute in the container; ``ranges`` are the bytes that were read,
    from and up to, in whole pages; ``milliseconds`` since the container's files were mounted."""

    path: str
    size: int
    milliseconds: int
    ranges: tuple[tuple[int, int], ...]


class FileReads:
    """The first opens of the files of one overlay, from here on until it is closed.

    Args:
        mount_point: where it is mounted on the node: how paths of files begin before the container has made
            it its root.
        path: how this process gets there.

    Raises:
        InstallError: the kernel has no fanotify, or does not let this process use it.
        OSError: the overlay is not there (any more).
    """

    def __init__(self, mount_point: str, path: str) -> None:
        self._libc = _library()
        self._prefix = f"{mount_point.rstrip('/')}/"
        self._queue = self._libc.fanotify_init(_CLOEXEC | _NONBLOCK | _UNLIMITED_MARKS, _FILE_FLAGS)
        if self._queue < 0:
            cause = f"the kernel does not tell which files are opened: {_last_error()}"
            raise InstallError("reads", cause, "see to CONFIG_FANOTIFY, and that the pod is privileged")
        self._files: dict[tuple[int, int], tuple[int, str, float]] = {}  # to file, path, time
        may_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        is_unlimited = may_open == resource.RLIM_INFINITY
        self._most = MOST_FILES if is_unlimited else min(MOST_FILES, may_open - SPARE_FILES)
        self.is_complete = True  # nothing had to be left out
        if self._mark(_ADD | _FILE_SYSTEM, -100, path.encode()):
            error = OSError(ctypes.get_errno(), _last_error(), path)
            os.close(self._queue)
            raise error
        self.start = time.monotonic()

    def fileno(self) -> int:
        """For poll: readable when files were opened."""
        return self._queue

    def collect(self) -> None:
        """Take note of what was opened since, or of some of it, where more is opened than this reads."""
        for _ in range(ROUNDS):
            try:
                events = os.read(self._queue, EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # the event that would have been one open file too many is gone
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self.is_complete = False
                continue
            for mask, file in _events(events):
                if mask & _OVERFLOW or file < 0:
                    self.is_complete = False
                else:
                    self._opened(file)

    def reads(self) -> list[FileRead]:
        """The files in the order of their first opens, with what was read of each so far."""
        return [
            FileRead(path, size, round((at - self.start) * 1000), tuple(_cached(self._libc, file, size)))
            for file, path, at in self._files.values()
            if (size := os.fstat(file).st_size)
        ]

    def close(self) -> None:
        """Stop; nothing is left behind."""
        os.close(self._queue)
        for file, _, _ in self._files.values():
            os.close(file)
        self._files.clear()

    def _opened(self, file: int) -> None:
        found = os.fstat(file)
        key = (found.st_dev, found.st_ino)
        if key not in self._files and (len(self._files) >= self._most or found.st_size > MOST_BYTES):
            self.is_complete = False
            os.close(file)
            return
        # No second event of it: a file that is opened all the time costs nothing. The mark pins its inode.
        self._mark(_ADD | _IGNORED | _IGNORED_STAYS, file, None)
        if key in self._files:
            os.close(file)
            return
        path = os.readlink(f"/proc/self/fd/{file}").removesuffix(" (deleted)")
        if path.startswith(self._prefix):
            path = path[len(self._prefix) - 1 :]
        self._files[key] = (file, path, time.monotonic())

    def _mark(self, flags: int, file: int, path: bytes | None) -> int:
        return self._libc.fanotify_mark(self._queue, flags, _OPEN, file, path)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    number, size, address, offset = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int64
    library.fanotify_mark.argtypes = (number, ctypes.c_uint, ctypes.c_uint64, number, ctypes.c_char_p)
    library.mmap.argtypes = (address, size, number, number, number, offset)
    library.mmap.restype = address
    library.munmap.argtypes = (address, size)
    library.mincore.argtypes = (address, size, address)
    return library


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def _events(text: bytes) -> Iterator[tuple[int, int]]:
    """Mask and file of each event."""
    at = 0
    while at < len(text):
        length, _, _, _, mask, file, _ = _EVENT.unpack_from(text, at)
        yield mask, file
        at += length


def _cached(library: ctypes.CDLL, file: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that are in the page cache."""
    begin = -1
    for at in range(0, size, WINDOW):
        for number, page in enumerate(_pages(library, file, at, min(WINDOW, size - at))):
            is_there, place = page & 1, at + number * PAGE
            if is_there and begin < 0:
                begin = place
            elif not is_there and begin >= 0:
                yield begin, place
                begin = -1
    if begin >= 0:
        yield begin, size


def _pages(library: ctypes.CDLL, file: int, at: int, length: int) -> bytes:
    """A byte for each page: whether it is in the page cache; none where the kernel does not say."""
    address = library.mmap(None, length, _READ, _SHARED, file, at)
    if address == _FAILED:
        return b""
    pages = ctypes.create_string_buffer(-(-length // PAGE))
    failed = library.mincore(address, length, pages)
    library.munmap(address, length)
    return b"" if failed else pages.raw
