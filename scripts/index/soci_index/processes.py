"""The programs that run for us: none outlives the run, however it ends."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE_SECONDS = 5


class StoppedError(Exception):
    """The run is being ended."""


class Children:
    """The processes of a run. They are of sessions of their own: a terminal's Ctrl-C is ours to hand on."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # a signal may end the run while a program is started

    def start(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program; the streams and file descriptors as subprocess.Popen has them.

        Raises:
            StoppedError: the run is being ended.
            OSError: it cannot be started.
        """
        with self._lock:
            if self.is_stopped:
                raise StoppedError
            started = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
            )
            self._running.add(started)
            return started

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit status.

        Raises:
            StoppedError: the run is being ended, and with it the process.
        """
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        if self.is_stopped:
            raise StoppedError
        return status

    def run(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, str]:
        """Exit status, standard output and standard error of a program; raises what `start` raises."""
        process = self.start(command, environment)
        output, errors = process.communicate()
        return self.wait(process), output, errors.decode("utf-8", "replace")

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process that is of no use any more."""
        if process.poll() is None:
            process.kill()
            process.wait()
        with self._lock:
            self._running.discard(process)

    def stop(self) -> None:
        """Start nothing any more, and end what runs: kindly first."""
        with self._lock:
            self.is_stopped = True
            running = list(self._running)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in running:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def ending_by_signals(stop: Callable[[], None]) -> Generator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, once; `stop` is called before that."""

    def end(number: int, frame: object) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_IGN)
        stop()
        raise KeyboardInterrupt

    old = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
