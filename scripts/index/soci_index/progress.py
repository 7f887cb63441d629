"""What a user sees while layers are worked on: bars on a terminal, a line for each layer elsewhere."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TextIO

from .outcome import size

REDRAW_SECONDS = 0.2
BAR = 24


@dataclass
class _Layer:
    name: str
    total: int
    moved: int = 0
    begun: float = field(default_factory=time.monotonic)


class Progress:
    """Of one run; several threads tell it."""

    def __init__(self, stream: TextIO = sys.stderr, is_quiet: bool = False) -> None:
        self._stream, self._is_quiet = stream, is_quiet
        self._draws = not is_quiet and stream.isatty()
        self._layers: list[_Layer] = []
        self._lines = 0
        self._drawn = 0.0
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._say(text)

    @contextlib.contextmanager
    def layer(self, image: str, digest: str, total: int) -> Generator[Callable[[int], None]]:
        """A layer is worked on for as long as the block runs, whose value hears of bytes that have come."""
        known = _Layer(f"{image} {digest[7:19]}", total)

        def moved(count: int) -> None:
            with self._lock:
                known.moved += count
                self._draw()

        with self._lock:
            self._layers.append(known)
        is_done = False
        try:
            yield moved
            is_done = True
        finally:
            with self._lock:
                self._layers.remove(known)
                seconds = time.monotonic() - known.begun
                if is_done:
                    self._say(f"{known.name}  {size(known.total)}  zTOC made in {seconds:.1f} s")
                self._draw(now=True)

    def _say(self, text: str) -> None:
        if self._is_quiet:
            return
        self._erase()
        print(f"soci-index: {text}", file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._lines:
            self._stream.write(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _draw(self, now: bool = False) -> None:
        if not self._draws or (not now and time.monotonic() - self._drawn < REDRAW_SECONDS):
            return
        self._drawn = time.monotonic()
        self._erase()
        width = shutil.get_terminal_size().columns - 1
        for layer in self._layers:
            share = layer.moved / layer.total if layer.total else 1
            bar = "#" * round(BAR * share)
            self._stream.write(f"[{bar:{BAR}}] {share:4.0%} {size(layer.total)}  {layer.name}"[:width] + "\n")
        self._lines = len(self._layers)
        self._stream.flush()
