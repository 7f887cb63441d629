"""The result for people, as tables, and for programs, as JSON. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .arms import ADVISED, LABELS, LAZY, LAZY_1MIB, LAZY_PREFETCH, OVERLAYFS, REFERENCES, TUNED, Arm
from .measurement import Result
from .samples import (
    Advised,
    Json,
    Link,
    Sample,
    Workload,
    amplification,
    floor_s,
    median,
    median_ready,
    phase_lengths,
    ratio,
)

LAZY_MODES = (LAZY, LAZY_1MIB, LAZY_PREFETCH)
SLOWER = 1.10  # of a reference: from here on a mode is called slower


def cells(result: Result) -> list[Json]:
    """A row for each workload and link: as advised, else with the soonest of SOCI's modes that were measured.

    `ratio` is plain overlayfs's median ready time over that of this mode, `tuned_ratio` that of containerd's
    own tuned pull; `floor_s` the link's time for the needed bytes plus the soonest start of an empty pod on
    that node.
    """
    return [_cell(result, *key) for key in dict.fromkeys((work, link) for work, link, _ in result.samples)]


def _cell(result: Result, work: str, link: str) -> Json:
    arms = {
        mode: samples for (w, where, mode), samples in result.samples.items() if (w, where) == (work, link)
    }
    soci = {mode: samples for mode, samples in arms.items() if mode not in REFERENCES and samples}
    soonest = min(soci, key=lambda name: median_ready(soci[name]) or 0.0, default="")
    mode = ADVISED if ADVISED in soci else soonest
    advised = result.advice.get((work, link))
    chosen = soci.get(mode, [])
    plain, tuned = median_ready(arms.get(OVERLAYFS, [])), median_ready(arms.get(TUNED, []))
    ready, moved = median_ready(chosen), median(sample.moved_bytes for sample in chosen)
    workload = result.workloads[work]
    floor = cell_floor(result, workload, link, mode)
    return {
        "read": work,
        "link": link,
        "mode": mode,
        "advised_way": advised.way if advised else "",
        "expected_ready_s": advised.expected_s if advised else None,
        "overlayfs_ready_s": plain,
        "tuned_ready_s": tuned,
        "soci_ready_s": ready,
        "ratio": ratio(plain, ready),
        "tuned_ratio": ratio(tuned, ready),
        "floor_s": floor,
        "over_floor": ratio(ready, floor),
        "moved_bytes": moved,
        "needed_bytes": workload.needed_bytes,
        "amplification": amplification(moved, workload.needed_bytes),
        "fuse_mounts": median(sample.fuse_mounts for sample in chosen),
        "without_lazy_layer": [
            name
            for name, samples in arms.items()
            if name in LAZY_MODES and not any(sample.fuse_mounts for sample in samples)
        ],
        "samples": {name: len(samples) for name, samples in arms.items()},
        "ready_s": {name: median_ready(samples) for name, samples in arms.items()},
        "worst_ready_s": {name: max(sample.ready_s for sample in samples) for name, samples in arms.items()},
        "phases_s": {name: phase_lengths(samples) for name, samples in arms.items()},
    }


def link_rate(result: Result, link: str) -> float:
    """Bytes a second of a link: what a measurement of it gave, else the fastest half second of a sample."""
    measured = result.links.get(link, Link(link)).bytes_per_second
    peaks = [
        sample.peak_bytes_per_second
        for (_, where, _), samples in result.samples.items()
        if where == link
        for sample in samples
    ]
    return measured or max(peaks, default=0.0)


def cell_floor(result: Result, workload: Workload, link: str, mode: str) -> float | None:
    """The least time to ready of a workload over a link, on the node of the mode there."""
    advised = result.advice.get((workload.name, link))
    own = advised.node if advised and mode == ADVISED else ""
    node = own or next((arm.node for arm in result.arms if arm.mode == mode), "")
    empty = min(result.empty_pods.get(node, ()), default=None)
    return floor_s(workload.needed_bytes, link_rate(result, link), empty)


def to_json(result: Result, environment: Mapping[str, Any]) -> Json:
    """The whole result: `cells`, with what they were worked out of."""
    return {
        "cells": cells(result),
        "environment": {**environment, "nodes": result.nodes},
        "arms": [asdict(arm) for arm in result.arms],
        "links": [
            asdict(link) | {"used_bytes_per_second": link_rate(result, link.name)}
            for link in result.links.values()
        ],
        "empty_pods_s": result.empty_pods,
        "workloads": [asdict(workload) for workload in result.workloads.values()],
        "advice": [
            {"read": work, "link": link, **asdict(advised)} for (work, link), advised in result.advice.items()
        ],
        "samples": [
            {"read": work, "link": link, "mode": mode, **sample.to_json()}
            for (work, link, mode), samples in result.samples.items()
            for sample in samples
        ],
        "failures": result.failures,
    }


def from_json(content: Mapping[str, Any]) -> Result:
    """A result that was written before, to go on with it."""
    result = Result(
        workloads={entry["name"]: Workload(**entry) for entry in content["workloads"]},
        empty_pods={node: list(seconds) for node, seconds in content["empty_pods_s"].items()},
        nodes=dict(content["environment"]["nodes"]),
        arms=[Arm(**entry) for entry in content["arms"]],
        failures=list(content["failures"]),
    )
    for entry in content["links"]:
        link = {key: value for key, value in entry.items() if key != "used_bytes_per_second"}
        result.links[link["name"]] = Link(**link)
    for entry in content.get("advice", ()):
        result.advice[entry["read"], entry["link"]] = Advised(
            entry["way"], entry["expected_s"], entry["image"], entry["node"]
        )
    for entry in content["samples"]:
        sample = {key: value for key, value in entry.items() if key not in ("read", "link", "mode")}
        key = (entry["read"], entry["link"], entry["mode"])
        result.samples.setdefault(key, []).append(Sample.from_json(sample))
    return result


# For people


def page(result: Result) -> Iterator[str]:
    """What people read: ready times, what SOCI's soonest mode did, where the time went, and who loses."""
    rows = cells(result)
    for table in (ready_times(rows), soonest(rows), phases(rows)):
        yield from table
        yield ""
    yield from lazily(rows)
    yield from verdicts(rows)
    for failure in result.failures:
        yield f"No sample: {failure}"


def ready_times(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of the median time to ready of every arm in each cell, and of the floor."""
    modes = [mode for mode in LABELS if any(mode in row["ready_s"] for row in rows)]
    yield from _table(
        ("READS", "LINK", *(LABELS[mode] for mode in modes), "FLOOR"),
        [
            (
                row["read"],
                row["link"],
                *(_seconds(row["ready_s"].get(mode)) for mode in modes),
                _seconds(row["floor_s"]),
            )
            for row in rows
        ],
    )


def soonest(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of what was advised in each cell, else of SOCI's soonest mode: its ratios and what it moved."""
    yield from _table(
        (
            "READS",
            "LINK",
            "ADVISED" if any(row["advised_way"] for row in rows) else "SOONEST OF SOCI",
            "TO OVERLAYFS",
            "TO TUNED",
            "OVER FLOOR",
            "MOVED",
            "NEEDED",
            "AMPLIFIED",
            "FUSE",
        ),
        [
            (
                row["read"],
                row["link"],
                row["advised_way"] or LABELS.get(row["mode"], "-"),
                _times(row["ratio"]),
                _times(row["tuned_ratio"]),
                _times(row["over_floor"]),
                _megabytes(row["moved_bytes"]),
                _megabytes(row["needed_bytes"]),
                _times(row["amplification"]),
                "-" if row["fuse_mounts"] is None else f"{row['fuse_mounts']:.0f}",
            )
            for row in rows
        ],
    )


def phases(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of where the time of each arm went."""
    names = list(
        dict.fromkeys(name for row in rows for lengths in row["phases_s"].values() for name in lengths)
    )
    yield from _table(
        ("READS", "LINK", "ARM", *(name.upper() for name in names)),
        [
            (row["read"], row["link"], LABELS[mode], *(_seconds(lengths.get(name)) for name in names))
            for row in rows
            for mode, lengths in row["phases_s"].items()
        ],
    )


def verdicts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """In words: where SOCI wins, and where it loses, by how much: what was advised, and each of its modes."""
    measured = [row for row in rows if row["ratio"] is not None or row["tuned_ratio"] is not None]
    which = "As advised, at" if any(row["mode"] == ADVISED for row in measured) else "At"
    twice = [row for row in measured if _least(row) >= 2]
    yield f"{which} least twice as soon as every reference: {len(twice)} of {len(measured)} cells."
    if advised := [row for row in measured if row["mode"] == ADVISED]:
        kept = [row for row in advised if _least(row) >= 1 / SLOWER]
        yield (
            f"As advised, never more than {SLOWER:.2f} times the time of a reference: {len(kept)} of "
            f"{len(advised)} cells."
        )
    for row in rows:
        where = f"{row['read']} over {row['link']}"
        for mode in row["without_lazy_layer"]:
            yield f"No layer was loaded lazily, {where}, {LABELS[mode]}: soci-doctor says why."
        references = {mode: row["ready_s"][mode] for mode in REFERENCES if row["ready_s"].get(mode)}
        if not references:
            continue
        best = min(references.values())
        answers = [mode for mode in row["ready_s"] if mode not in REFERENCES]
        slow = [
            f"{LABELS[mode]} {row['ready_s'][mode] / best:.2f} times the time"
            for mode in answers
            if row["ready_s"][mode] and row["ready_s"][mode] > SLOWER * best
        ]
        if slow:
            reference = LABELS[min(references, key=lambda mode: references[mode])]
            floor = f"; the floor is {_seconds(row['floor_s'])}" if row["mode"] == ADVISED else ""
            yield f"Slower than {reference}, {where}: {', '.join(slow)}{floor}."


def lazily(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What lazy loading as such gives at its best, where something is read: pull and ready."""
    found = []
    for row in rows:
        pulls = {mode: lengths.get("pull") for mode, lengths in row["phases_s"].items()}
        ready, pull = (ratio(of.get(OVERLAYFS), of.get(LAZY)) for of in (row["ready_s"], pulls))
        if row["needed_bytes"] and ready and pull:
            found.append((ready, pull, row))
    if not found:
        return
    ready, pull, row = max(found, key=lambda entry: entry[0])
    over = ratio(row["ready_s"][LAZY], row["floor_s"])
    floor = f", {over:.2f} times the floor" if over else ""
    gain = f"pull {pull:.1f}x and ready {ready:.1f}x as soon as overlayfs{floor}"
    yield f"{LABELS[LAZY]}, {row['read']} over {row['link']}: {gain}."


def _least(row: Mapping[str, Any]) -> float:
    return min(value for value in (row["ratio"], row["tuned_ratio"]) if value is not None)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f} MB"
