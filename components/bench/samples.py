"""Figures of cold starts, and what follows from several of them. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Json = dict[str, Any]

WHOLE_SHARE = 0.95  # of an image's bytes, which a pull of all of it moves at least when nothing was there


@dataclass(frozen=True)
class Phases:
    """Seconds from the moment in which the API server has the pod; None for what was not seen."""

    scheduled_s: float | None = None
    pulling_s: float | None = None
    pulled_s: float | None = None
    created_s: float | None = None
    started_s: float | None = None
    first_line_s: float | None = None
    ready_s: float | None = None


@dataclass(frozen=True)
class Sample:
    """One cold start. Times are in seconds.

    Attributes:
        pull_s: what the kubelet says that the pull took.
        ready_s: from the pod's creation to its ready line.
        moved_bytes: what the node received meanwhile.
        peak_bytes_per_second: of its fastest half second.
        fuse_mounts: layers that a SOCI daemon of the node serves lazily at the end, and did not before.
        load: of the node in the last minute, at the end.
        phases: when what had happened.
    """

    pull_s: float
    ready_s: float
    moved_bytes: int
    peak_bytes_per_second: float
    fuse_mounts: int
    load: float
    phases: Phases

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Sample":
        figures = {name: value for name, value in content.items() if name != "phases"}
        return cls(**figures, phases=Phases(**content["phases"]))


@dataclass(frozen=True)
class Workload:
    """What is started: by which name people know it, with which command, and how much it reads.

    Attributes:
        name: for tables.
        image: its name for each mode; see `arms.Arm.mode`. The empty mode stands for all others.
        command: of the container; empty for the image's own.
        ready: text of the line that says that it is ready; empty for its first line.
        needed_bytes: compressed bytes of what it reads; None when that is not known.
        image_bytes: compressed bytes of the image's layers; 0 when that is not known.
    """

    name: str
    image: Mapping[str, str]
    command: Sequence[str] = ()
    ready: str = ""
    needed_bytes: int | None = None
    image_bytes: int = 0

    def image_for(self, mode: str) -> str:
        return self.image.get(mode) or self.image[""]


@dataclass(frozen=True)
class Advised:
    """What `soci-index advise` said of a workload over a link.

    Attributes:
        way: the way of loading that it chose, in its words.
        expected_s: when it expects the workload to be ready.
        image: what is started so.
        node: where, when it is not the arm's own node; else empty.
    """

    way: str
    expected_s: float
    image: str
    node: str = ""


@dataclass(frozen=True)
class Link:
    """The way between registry and nodes, and what was measured of it (bytes a second; 0 before)."""

    name: str
    bytes_per_second: float = 0.0
    connection_bytes_per_second: float = 0.0


def median(values: Iterable[float | None]) -> float | None:
    """The median of those that are there; None of none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def median_ready(samples: Sequence[Sample]) -> float | None:
    return median(sample.ready_s for sample in samples)


def floor_s(needed_bytes: int | None, bytes_per_second: float, empty_pod_s: float | None) -> float | None:
    """The least time to ready: the link's time for the bytes that are needed, after an empty pod's start.

    None when one of the three is not known.
    """
    if needed_bytes is None or not bytes_per_second or empty_pod_s is None:
        return None
    return needed_bytes / bytes_per_second + empty_pod_s


def amplification(moved_bytes: float | None, needed_bytes: int | None) -> float | None:
    """Bytes moved for each byte needed; None where nothing is needed, or it is not known how much."""
    return moved_bytes / needed_bytes if moved_bytes is not None and needed_bytes else None


def ratio(reference_s: float | None, measured_s: float | None) -> float | None:
    """How many times sooner than the reference; below 1 it is later."""
    return reference_s / measured_s if reference_s is not None and measured_s else None


def moves_reads_alone(sample: Sample, image_bytes: int) -> bool:
    """Whether a cold start need not move the image's layers: it is lazily loaded, or nobody knows them."""
    return bool(sample.fuse_mounts or not image_bytes)


def is_cold(sample: Sample, image_bytes: int, needed_bytes: int | None = None) -> bool:
    """Whether the bytes that moved prove that nothing of the image was on the node: a lazily loaded one moves
    what it reads, any other one its layers."""
    if moves_reads_alone(sample, image_bytes):
        return sample.moved_bytes > WHOLE_SHARE * (needed_bytes or 0)
    return sample.moved_bytes >= WHOLE_SHARE * image_bytes


def phase_lengths(samples: Sequence[Sample]) -> dict[str, float]:
    """The median seconds that each phase took, in their order; those that were not seen are left out.

    The pull is the kubelet's own figure: its events carry whole seconds, and come a little later.
    """
    found: dict[str, float] = {}
    lengths = {
        "scheduled": lambda sample: sample.phases.scheduled_s,
        "until the pull": lambda sample: _between(sample.phases.pulling_s, sample.phases.scheduled_s),
        "pull": lambda sample: sample.pull_s,
        "container created": lambda sample: _between(sample.phases.created_s, sample.phases.pulled_s),
        "started": lambda sample: _between(sample.phases.started_s, sample.phases.created_s),
        "first line": lambda sample: _between(sample.phases.first_line_s, sample.phases.started_s),
        "reads": lambda sample: _between(sample.ready_s, sample.phases.first_line_s),
    }
    for name, length in lengths.items():
        if (value := median(length(sample) for sample in samples)) is not None:
            found[name] = max(0.0, value)
    return found


def _between(later: float | None, earlier: float | None) -> float | None:
    return later - earlier if later is not None and earlier is not None else None
