#!/usr/bin/env python3
"""Show a run of scripts/bench/independence.py in the documents: its table in docs/advice.md, and its picture.

Usage: independence_result.py [RESULT]   (RESULT, such as .lab/independence.json, is copied to docs/ first)
"""

import json
import shutil
import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts" / "bench")]

from between import between  # noqa: E402 (found through the path above)

RESULT = REPOSITORY / "docs" / "independence.json"
DOCUMENT = REPOSITORY / "docs" / "advice.md"


def measured() -> dict:
    return json.loads(RESULT.read_text(encoding="utf-8"))


def section(content: dict) -> str:
    """The part of docs/advice.md on a result (the content of .lab/independence.json)."""
    local, floor = statistics.median(content["local_s"]), content["floor_s"]
    lines = [
        "![What the background fetch gives and costs](independence.svg)",
        "",
        f"Over {content['link_mbit']} Mbit/s, medians of {len(content['local_s'])} cold starts: the image of",
        f"{content['image_bytes'] / 1e6:.0f} MB is wholly on the node {local:.1f} s after its pod's start,",
        f"**{local / floor:.2f} times** the least that the link allows ({floor:.1f} s).",
        "",
        "| who reads | with the fetch | without | loses |",
        "|---|---|---|---|",
    ]
    for name, taken in content["readers"].items():
        fetched, without = (statistics.median(taken[kind]) for kind in ("fetched", "not fetched"))
        lines.append(f"| {name} | {fetched:.2f} s | {without:.2f} s | {_loss(content['lost'][name])} |")
    return "\n".join(lines)


def _loss(share: float) -> str:
    if round(share, 2) == 0:
        return "nothing"
    return f"{share:.0%}" if share > 0 else f"gains {-share:.0%}"


def with_section(document: str, content: dict) -> str:
    """A document (its text) whose part between the independence markers is the section."""
    return between(document, "independence", section(content))


def main() -> None:
    import independence

    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], RESULT)
    content = measured()
    independence.draw(independence.Measured.from_json(content), RESULT.parent)
    DOCUMENT.write_text(with_section(DOCUMENT.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main()
