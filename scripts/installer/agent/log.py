"""The pod's log: one JSON object a line, with the step that is at work; and how long each step took."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime


class Log:
    """Writes lines with the fields time (UTC), node, step and message; keeps the seconds of each step."""

    def __init__(
        self,
        node: str,
        write: Callable[[str], object] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._write = write
        self._clock = clock
        self._started: float | None = None
        self._seconds: dict[str, float] = {}
        self.step = ""

    def __call__(self, message: str) -> None:
        """One line about the present step."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "node": self._node, "step": self.step, "message": message}
        self._write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stderr.flush()

    def begin(self, step: str, message: str = "begins") -> None:
        """Enter a step; the one before has ended."""
        self._end()
        self.step, self._started = step, self._clock()
        self(message)

    def add(self, steps: Iterable[tuple[str, float]]) -> None:
        """Steps that were done elsewhere during the present one, each with its seconds, instead of it."""
        self._started = None
        for step, seconds in steps:
            self.step = step
            self._seconds[step] = self._seconds.get(step, 0.0) + seconds
            self(f"took {seconds:.3f} s")

    def seconds(self) -> dict[str, float]:
        """Seconds of each step so far, in order."""
        self._end()
        return dict(self._seconds)

    def _end(self) -> None:
        if self._started is not None:
            elapsed = self._clock() - self._started
            self._seconds[self.step] = self._seconds.get(self.step, 0.0) + elapsed
        self._started = None


def in_words(seconds: dict[str, float]) -> str:
    """The steps and their seconds in one line."""
    return ", ".join(f"{step} {taken:.2f} s" for step, taken in seconds.items())
