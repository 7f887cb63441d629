"""What came of each image, for people and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from .errors import printable
from .oci import Json


class Status(Enum):
    """What came of an image; the value is what people read."""

    INDEXED = "indexed"
    PRESENT = "present"
    NOTHING = "nothing"
    FAILED = "failed"


@dataclass
class Skipped:
    """A layer without a zTOC, and why."""

    layer: str
    bytes: int
    why: str


@dataclass
class Platform:
    """One platform of an image: its SOCI index, or why it has none."""

    name: str
    index: str = ""
    why: str = ""
    ztocs: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of one image.

    Attributes:
        image: as the user named it.
        target: what carries the index.
        digest: of the target.
        made: zTOCs made in this run; `kept`: those that were there.
        read_bytes: of layers, from the registry.
        pushed_bytes: of zTOCs, SOCI indexes and manifests.
    """

    image: str
    status: Status = Status.FAILED
    target: str = ""
    digest: str = ""
    platforms: list[Platform] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    made: int = 0
    kept: int = 0
    read_bytes: int = 0
    pushed_bytes: int = 0
    seconds: float = 0.0

    def to_json(self) -> Json:
        """For programs."""
        return {
            "image": self.image,
            "status": self.status.value,
            "target": self.target,
            "digest": self.digest,
            "platforms": [
                {
                    "platform": platform.name,
                    "index": platform.index,
                    "why": platform.why,
                    "ztocs": platform.ztocs,
                    "skipped": [vars(layer) for layer in platform.skipped],
                }
                for platform in self.platforms
            ],
            "notes": self.notes,
            "problem": self.problem,
            "ztocsMade": self.made,
            "ztocsKept": self.kept,
            "readBytes": self.read_bytes,
            "pushedBytes": self.pushed_bytes,
            "seconds": round(self.seconds, 3),
        }


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 when every image has its index or needs none, 1 when some failed."""
    return int(any(outcome.status is Status.FAILED for outcome in outcomes))


def page(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What people read: a row for each image, then what is to be said of each."""
    header = ("IMAGE", "RESULT", "PLATFORMS", "ZTOCS", "READ", "PUSHED", "TIME", "INDEXED IMAGE")
    rows = [header, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for outcome in outcomes:
        for text in _sentences(outcome):
            yield printable(f"{outcome.image}: {text}")


def size(count: float) -> str:
    """A number of bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _row(outcome: Outcome) -> tuple[str, ...]:
    with_index = sum(bool(platform.index) for platform in outcome.platforms)
    return (
        outcome.image,
        outcome.status.value,
        f"{with_index} of {len(outcome.platforms)}" if outcome.platforms else "-",
        f"{outcome.made} made, {outcome.kept} kept" if outcome.made or outcome.kept else "-",
        size(outcome.read_bytes) if outcome.read_bytes else "-",
        size(outcome.pushed_bytes) if outcome.pushed_bytes else "-",
        f"{outcome.seconds:.1f} s",
        outcome.target or "-",
    )


def _sentences(outcome: Outcome) -> Iterator[str]:
    if outcome.problem:
        yield outcome.problem
    for platform in outcome.platforms:
        if platform.why:
            yield f"{platform.name}: {platform.why}"
        reasons: dict[str, list[Skipped]] = {}
        for layer in platform.skipped:
            reasons.setdefault(layer.why, []).append(layer)
        for why, layers in reasons.items():
            total = size(sum(layer.bytes for layer in layers))
            word = "layer" if len(layers) == 1 else "layers"
            yield f"{platform.name}: {len(layers)} {word} of {total} without a zTOC: {why}"
    yield from outcome.notes
