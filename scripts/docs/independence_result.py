#!/usr/bin/env python3
"""Show a run of scripts/bench/independence.py in the documents: its table in docs/advice.md, and its picture.

Usage: independence_result.py [RESULT]   (RESULT, such as .lab/independence.json, is copied to docs/ first)
"""

import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts" / "bench")]

import recorded  # noqa: E402 (found through the path above)
from between import between  # noqa: E402
from independence_figures import NODES, Measured, draw  # noqa: E402

RESULT = REPOSITORY / "docs" / "independence.json"
DOCUMENT = REPOSITORY / "docs" / "advice.md"


def measured() -> Measured:
    """The run that the documents show."""
    return Measured.from_json(recorded.load(RESULT))


def with_section(text: str, run: Measured) -> str:
    """The document with the part on a run."""
    return between(text, "independence", section(run))


def section(run: Measured) -> str:
    """The part of docs/advice.md on a run."""
    local, floor = run.median_local_s, run.floor_s
    lines = [
        "![What the background fetch gives and costs](independence.svg)",
        "",
        f"Over {run.link}, medians of {len(run.local_s)} cold starts: the image of",
        f"{run.image_bytes / 1e6:.0f} MB is wholly on the node {local:.1f} s after its pod's start,",
        f"**{local / floor:.2f} times** the least that the link allows ({floor:.1f} s).",
        "",
        "| who reads | with the fetch | without | loses |",
        "|---|---|---|---|",
    ]
    for name, taken in run.readers.items():
        fetched, without = (statistics.median(taken[kind]) for kind in NODES)
        lines.append(f"| {name} | {fetched:.2f} s | {without:.2f} s | {_loss(run.lost(name))} |")
    return "\n".join(lines)


def _loss(share: float) -> str:
    if round(share, 2) == 0:
        return "nothing"
    return f"{share:.0%}" if share > 0 else f"gains {-share:.0%}"


def main() -> None:
    run = Measured.from_json(recorded.take(RESULT))
    draw(run, RESULT.parent)
    recorded.rewrite(DOCUMENT, lambda text: with_section(text, run))


if __name__ == "__main__":
    main()
