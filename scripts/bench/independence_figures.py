"""What a run of independence.py measured: its figures, table and picture."""

import statistics
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from components.bench import plots

NODES = {"fetched": "fetching", "not fetched": "not-fetching"}  # with a background fetch, and without
BARS: plots.Kinds = {
    "fetched": ("with the background fetch", "#2f7d4f"),
    "not fetched": ("without", "#9aa5b1"),
}


@dataclass
class Measured:
    """Seconds: of each reader on each node, and until the image was wholly local."""

    link_mbit: int
    image_bytes: int
    bytes_per_second: float = 0.0
    empty_pod_s: float = 0.0
    local_s: list[float] = field(default_factory=list)
    readers: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Measured":
        """What `to_json` wrote."""
        return cls(**{each.name: content[each.name] for each in fields(cls)})

    @property
    def link(self) -> str:
        return f"{self.link_mbit} Mbit/s"

    @property
    def floor_s(self) -> float:
        """The link's time for the image, after an empty pod's start."""
        return self.image_bytes / self.bytes_per_second + self.empty_pod_s

    def lost(self, reader: str) -> float:
        """Which share of its time without a background fetch a reader takes more with it."""
        fetched, not_fetched = (statistics.median(self.readers[reader][kind]) for kind in NODES)
        return fetched / not_fetched - 1

    def rows(self) -> list[dict[str, Any]]:
        """For a picture: when the image was wholly local, with its floor, and each reader."""
        local = {"read": "wholly local", "ready_s": {"fetched": self.median_local_s}, "floor_s": self.floor_s}
        readers = [
            {
                "read": name.replace(", ", ",\n"),
                "ready_s": {kind: statistics.median(seconds) for kind, seconds in taken.items()},
                "floor_s": None,
            }
            for name, taken in self.readers.items()
        ]
        return [{"link": self.link, **row} for row in (local, *readers)]

    @property
    def median_local_s(self) -> float:
        return statistics.median(self.local_s)

    def table(self) -> str:
        local = self.median_local_s
        times = local / self.floor_s
        lines = [
            f"wholly local after {local:.1f} s, {times:.2f} times the floor of {self.floor_s:.1f} s",
            "",
            f"{'reader':<34}{'fetched':>10}{'not fetched':>14}{'loses':>9}",
        ]
        for name, taken in self.readers.items():
            seconds = [f"{statistics.median(taken[kind]):.2f} s" for kind in NODES]
            lines.append(f"{name:<34}{seconds[0]:>10}{seconds[1]:>14}{self.lost(name):>8.0%}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        figures = {"floor_s": self.floor_s, "lost": {name: self.lost(name) for name in self.readers}}
        return {**vars(self), **figures}


def draw(measured: Measured, directory: Path) -> list[Path]:
    """Draw it into a directory; the files."""
    title = "What the background fetch gives and costs: seconds"
    return plots.draw(measured.rows(), title, directory / "independence", BARS)
