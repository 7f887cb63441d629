"""The node, seen from the pod: its files below /host, its commands through PID 1's namespaces."""

import contextlib
import fcntl
import os
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ERROR_BYTES = 16 << 10
ENTER_HOST = ("nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "--")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOCK_POLL_SECONDS = 0.2
NETWORK = 0x40000000  # CLONE_NEWNET; Python has os.setns since 3.12

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """How a host command ended."""

    code: int
    output: str
    error: str

    @property
    def last_error(self) -> str:
        """The last line of its errors, else its status."""
        return (self.error.strip().splitlines() or [f"status {self.code}"])[-1]


Environment = Mapping[str, str]
Runner = Callable[[Sequence[str], str, float, Environment | None], Result]


def run_on_host(
    command: Sequence[str], text: str = "", timeout: float = 60, environment: Environment | None = None
) -> Result:
    """Run ``command`` in the host's namespaces; 127 when it is missing, 124 when it overran ``timeout``.

    Of its errors the last `ERROR_BYTES` are kept: a copy of a layer can have one for each of its files.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                [*ENTER_HOST, *command],
                check=False,
                input=text,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                timeout=timeout,
                env=None if environment is None else {"PATH": PATH, **environment},
            )
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{command[0]} did not end in {timeout:g} s")
        except FileNotFoundError as error:
            return Result(127, "", str(error))
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_BYTES))
        return Result(done.returncode, done.stdout, errors.read().decode(errors="replace"))


def in_network_of(pid: int, work: Callable[[], T]) -> T:
    """What ``work`` returns, in a thread that is in the network of a process; raises what it raises."""
    import ctypes  # these two, and what they import, are a megabyte that no idle process needs
    from concurrent.futures import Future

    outcome: Future[T] = Future()

    def enter() -> None:
        try:
            with open(f"/proc/{pid}/ns/net") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), NETWORK):
                    raise OSError(ctypes.get_errno(), "the node's network cannot be entered")
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            outcome.set_exception(error)

    # Nobody waits for it at the pod's end.
    threading.Thread(target=enter, daemon=True).start()
    return outcome.result()


class Host:
    """Files and commands of one node. ``root`` is where its root directory is mounted."""

    def __init__(self, root: Path = Path("/host"), runner: Runner = run_on_host) -> None:
        self.root = root
        self._runner = runner

    def run(
        self, *command: str, text: str = "", timeout: float = 60, environment: Environment | None = None
    ) -> Result:
        """Run a command on the host, ``text`` on its standard input. ``environment`` stands in the place of
        the pod's; unlike words of the command, it is in no process list."""
        return self._runner(command, text, timeout, environment)

    def path(self, path: str) -> Path:
        """Where this process finds the host's ``path``."""
        return self.root / path.lstrip("/")

    def exists(self, path: str) -> bool:
        return self.path(self.resolve(path)).exists()

    def in_network(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, in a thread that is in the node's network: a proxy at the node's loopback is
        reached from nowhere else."""
        return in_network_of(1, work)

    def read(self, path: str) -> bytes | None:
        """The content of a host file; None when there is no such file."""
        try:
            return self.path(self.resolve(path)).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ProcessLookupError):
            return None

    def read_text(self, path: str) -> str:
        """The content of a host file as text; empty when there is no such file."""
        return (self.read(path) or b"").decode(errors="replace")

    def environment_of(self, pid: int) -> dict[str, str] | None:
        """The variables that a process was started with; None when they cannot be seen, as those of one that
        ends."""
        try:
            content = self.read(f"/proc/{pid}/environ")
        except OSError:
            content = None
        pairs = (entry.partition("=") for entry in (content or b"").decode(errors="replace").split("\0"))
        return {name: value for name, is_pair, value in pairs if name and is_pair} or None

    def is_in_memory(self, path: str) -> bool:
        """Whether an absolute path without symbolic links, which need not exist, is in a file system of the
        node that is never on a disk."""
        best, kind = "", ""
        for line in self.read_text("/proc/1/mountinfo").splitlines():
            words, _, tail = line.partition(" - ")
            point = words.split(" ")[4:5]
            if point and len(point[0]) >= len(best) and f"{path}/".startswith(f"{point[0].rstrip('/')}/"):
                best, kind = point[0], tail.split(" ")[0]  # of two on one place the later one counts
        return kind in ("tmpfs", "ramfs")

    def resolve(self, path: str) -> str:
        """The host's ``path`` with symbolic links followed inside the host's root, as the host sees it."""
        done: list[str] = []
        todo = [part for part in reversed(path.split("/")) if part]
        for _ in range(1000):
            if not todo:
                break
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = self.root.joinpath(*done, part)
            if here.is_symlink():
                target = os.readlink(here)
                if target.startswith("/"):
                    done = []
                todo.extend(piece for piece in reversed(target.split("/")) if piece)
            else:
                done.append(part)
        return "/" + "/".join(done)

    def mode_and_owner(self, path: str) -> tuple[str, str]:
        """Permission bits (octal) and ``uid:gid`` of a host file; of a new root file when it is missing."""
        try:
            found = self.path(path).stat()
        except FileNotFoundError:
            return "0644", "0:0"
        return f"{stat.S_IMODE(found.st_mode):04o}", f"{found.st_uid}:{found.st_gid}"

    def changed_at(self, path: str) -> float | None:
        """When a host file was changed last (its ctime), in seconds since 1970; None when it is not seen."""
        try:
            return self.path(self.resolve(path)).stat().st_ctime
        except OSError:
            return None

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write one of the installer's own host files: wholly old or wholly new, whatever happens."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".new")
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # another installer may be at work
            temporary.unlink(missing_ok=True)
            # Nobody else ever reads it, if nobody else may.
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(target)
            with contextlib.suppress(OSError):  # not every file system knows it
                os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def locked(
        self, path: str, seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> Generator[None]:
        """Hold the lock of a host file, which the host script takes, too.

        Raises:
            TimeoutError: somebody else held it for ``seconds``.
        """
        deadline = time.monotonic() + seconds
        with self.path(path).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{path} is held by another") from None
                sleep(LOCK_POLL_SECONDS)
            yield

    def _existing(self, path: str) -> Path:
        """``path``, or its nearest existing parent."""
        place = self.path(self.resolve(path))
        while not place.exists():
            place = place.parent
        return place

    def free_bytes(self, path: str, kept: float = 0.0) -> int:
        """Free bytes of the file system that holds ``path`` or its nearest existing parent, less ``kept`` (a
        fraction of the whole)."""
        found = os.statvfs(self._existing(path))
        return int((found.f_bavail - kept * found.f_blocks) * found.f_frsize)

    def is_read_only(self, path: str) -> bool:
        """Whether the file system of ``path``, or of its nearest existing parent, is mounted read-only."""
        return bool(os.statvfs(self._existing(path)).f_flag & os.ST_RDONLY)


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` survive a power cut."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
