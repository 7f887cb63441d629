"""The cache: directories made once, under names that say what they are made from, and never changed."""

import contextlib
import fcntl
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from settings import cache_directory


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cache's directory of that name; when it does not exist, make(path) has to create it at path.

    Safe to call from several processes at once: one makes it, the others wait. What fails or is interrupted
    leaves nothing behind under the name.
    """
    directory = cache_directory() / name
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(directory.parent / f"{directory.name}.lock"):
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
                make(Path(scratch) / "made")
                (Path(scratch) / "made").rename(directory)
    return directory


@contextlib.contextmanager
def _lock(path: Path) -> Generator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
