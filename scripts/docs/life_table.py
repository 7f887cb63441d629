#!/usr/bin/env python3
"""Show a run of `make life` in docs/reliability.md.

Usage: life_table.py [RESULT]     (RESULT, such as .lab/life.json, becomes docs/life.json first)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recorded
from between import between

REPOSITORY = Path(__file__).resolve().parents[2]
RESULT = REPOSITORY / "docs" / "life.json"
DOCUMENT = REPOSITORY / "docs" / "reliability.md"
KINDS = {
    "told_s": "the node said that it does not serve, where others turned it away",
    "heal_s": "a new pod of the image had started",
    "truth_s": "the last news in what the node says, which is that it serves",
}


def measured() -> dict[str, Any]:
    return recorded.load(RESULT)


def section(content: Mapping[str, Any]) -> str:
    """The part of docs/reliability.md on a result (the content of .lab/life.json)."""
    counts = (
        f"{content['failed']} failed; an image was there and started nothing in {content['poisoned']}, "
        f"something was broken without a word in {content['unnamed']}"
    )
    times = [
        f"| {of} | {content[f'median_{kind}']} | {content[f'slowest_{kind}']} |" for kind, of in KINDS.items()
    ]
    return "\n".join(
        [
            f"{content['cells']} cells ({content['day']}, at a load of {content['load']}): {counts}.",
            "Seconds of each node, from the end of the cause; 0 for what came before that:",
            "",
            "| until | median | slowest |",
            "|---|---|---|",
            *times,
            "",
            "Each cell's seconds until a new pod had started, of its slower node:",
            "",
            *table(content["each"]),
        ]
    )


def table(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Events by holders, as the rows of a Markdown table; empty where there is no such cell.

    Args:
        cells: by `EVENT - HOLDER`, `nodes` with the seconds of each, or what went wrong.
    """
    by_event: dict[str, dict[str, str]] = {}
    for name, cell in cells.items():
        event, _, holder = name.partition(" - ")
        by_event.setdefault(event, {})[holder] = _in_words(cell)
    holders = list(dict.fromkeys(holder for row in by_event.values() for holder in row))
    rows = [[event, *(row.get(holder, "") for holder in holders)] for event, row in by_event.items()]
    return [f"| {' | '.join(row)} |" for row in (["", *holders], ["---"] * (len(holders) + 1), *rows)]


def _in_words(cell: Mapping[str, Any]) -> str:
    if "nodes" in cell:
        return f"{max(seconds['heal_s'] for seconds in cell['nodes'].values()):.1f}"
    return next((word for word in ("poisoned", "unnamed") if word in cell), "failed")


def with_section(document: str, content: Mapping[str, Any]) -> str:
    """A document (its text) whose part between the life markers is the section."""
    return between(document, "life", section(content))


def main() -> None:
    content = recorded.take(RESULT)
    recorded.rewrite(DOCUMENT, lambda text: with_section(text, content))


if __name__ == "__main__":
    main()
