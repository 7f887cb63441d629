"""A real overlay as containerd mounts a container's files, and a process whose root it is."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path


class Overlay:
    """Files on a disk, none of them in memory; `mount` makes them a container's root, at `mount_point`."""

    def __init__(self, folder: Path, name: str, files: Mapping[str, bytes]) -> None:
        self.folder = folder
        self.mount_point = folder / "k8s.io" / name / "rootfs"
        for path in (*(folder / part for part in ("lower", "upper", "work")), self.mount_point):
            path.mkdir(parents=True)
        for path, content in files.items():
            target = folder / "lower" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            with target.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def mount(self) -> None:
        options = f"lowerdir={self.folder}/lower,upperdir={self.folder}/upper,workdir={self.folder}/work"
        command = ["mount", "-t", "overlay", "-o", options, "overlay", str(self.mount_point)]
        subprocess.run(command, check=True)

    def unmount(self) -> None:
        """Fails while a file of it is open."""
        if self.mount_point.is_mount():
            subprocess.run(["umount", str(self.mount_point)], check=True)

    def run(self, work: Callable[[], object]) -> None:
        """Do the work in a process that has it as its root, and wait for its end."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.chroot(self.mount_point)
                os.chdir("/")
                work()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


@contextlib.contextmanager
def overlay(files: Mapping[str, bytes], name: str = "c1") -> Generator[Overlay]:
    """One that is not mounted yet, and is gone afterwards."""
    # Not in a tmpfs, whose files are always in memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        made = Overlay(Path(folder), name, files)
        try:
            yield made
        finally:
            made.unmount()
