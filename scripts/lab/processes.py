"""Background processes of the lab: started once, recorded, ended only while they are the recorded ones."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from settings import LabError


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None when there is no such live process.

    Pid and start time together name a process for good, while a pid alone may be reused (proc(5), field 22).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def children(pid: int) -> list[int]:
    """Return the pids of the process's children; empty when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_init(pid: int) -> bool:
    """Return whether the process is PID 1 of a PID namespace below this one."""
    try:
        numbers = re.search(r"^NSpid:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False
    return bool(numbers) and numbers[1].split()[1:] == ["1"]


def kill(pid: int, with_signal: signal.Signals | int) -> None:
    """Send the signal; a process that has just ended is no error."""
    try:
        os.kill(pid, with_signal)
    except ProcessLookupError:
        pass


class Processes:
    """The processes recorded below the lab's state directory: run/<name>.json and log/<name>.log."""

    def __init__(self, state: Path) -> None:
        self.records = state / "run"
        self.logs = state / "log"

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> int:
        """Start the command in a session of its own and return its pid.

        One that runs already is left alone, unless its command is another: then it is replaced.
        """
        running = self.pid(name)
        if running and self._record(name)["command"] == command:
            return running
        if running:
            self.stop(name)
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                cwd="/",
                start_new_session=True,
            )
        record = {"pid": process.pid, "start": start_time(process.pid), "command": command}
        (self.records / f"{name}.json").write_text(json.dumps(record))
        return process.pid

    def pid(self, name: str) -> int | None:
        """Return the pid of the recorded process; None when it is not running (any more)."""
        record = self._record(name)
        alive = bool(record) and record["start"] is not None and start_time(record["pid"]) == record["start"]
        return record["pid"] if alive else None

    def _record(self, name: str) -> dict:
        try:
            return json.loads((self.records / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}

    def names(self) -> list[str]:
        """Return the names of everything recorded, running or not."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def stop(self, name: str, grace_s: float = 5) -> None:
        """End the recorded process, by SIGKILL when SIGTERM has not done it within grace_s seconds."""
        for with_signal, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5)):
            pid = self.pid(name)
            if pid is None:
                break
            kill(pid, with_signal)
            deadline = time.monotonic() + patience_s
            while self.pid(name) and time.monotonic() < deadline:
                time.sleep(0.05)
        if self.pid(name):
            raise LabError(f"{name} does not end, not even by SIGKILL; its log is in {self.logs}")
        self.forget(name)

    def forget(self, name: str) -> None:
        """Drop the record of a process that has ended."""
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def last_words(self, name: str, lines: int = 12) -> str:
        """Return the end of the process's log, for error messages."""
        try:
            text = (self.logs / f"{name}.log").read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])
