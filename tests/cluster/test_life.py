"""For life: after whatever happens to a node, every image that is there starts, or is pulled anew.

`make life` runs every cell and writes .lab/life.json; without --full some are run, one for each cause.
"""

import json
from collections.abc import Iterator

import pytest
from lab_client import REPOSITORY

from tests.cluster import life

RESULTS = REPOSITORY / ".lab" / "life.json"
QUICK = [
    ("daemon killed", "a running pod"),
    ("daemon killed, registry away", "a completed pod"),
    ("reboot, registry away", "a crashing pod"),
    ("containerd's configuration rewritten, and restarted", "nobody"),
]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, dict]]:
    found: dict[str, dict] = {}
    yield found
    good = [cell for cell in found.values() if "heal_s" in cell]
    summary = {
        "cells": len(found),
        "failed": len(found) - len(good),
        "poisoned": sum("poisoned" in cell for cell in found.values()),
        "unnamed": sum("unnamed" in cell for cell in found.values()),
        "slowest_heal_s": max((cell["heal_s"] for cell in good), default=0),
        "slowest_truth_s": max((cell["truth_s"] for cell in good), default=0),
        "each": found,
    }
    if request.config.getoption("--full"):
        RESULTS.write_text(json.dumps(summary, indent=1) + "\n")


def chosen(event: str, holder: str) -> list[pytest.MarkDecorator]:
    return [] if (event, holder) in QUICK else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("event", "holder"),
    [
        pytest.param(*cell, marks=chosen(*cell), id=f"{cell[0]} - {cell[1]}".replace("'", ""))
        for cell in life.CELLS
    ],
)
def test_an_image_starts_again_whatever_happened(
    api, request: pytest.FixtureRequest, results: dict[str, dict], event: str, holder: str
) -> None:
    """A poisoned image was there for the kubelet and started nothing, for good, without a word."""
    # Only what changes the stack has to put it back.
    stack = request.getfixturevalue("stack") if event in life.CHANGES else None
    cell = results[f"{event} - {holder}"] = {}
    try:
        cell |= life.run(api, stack, event, holder)
    except life.PoisonedError as error:
        cell["poisoned"] = str(error)
        raise
    except life.UnnamedError as error:
        cell["unnamed"] = str(error)
        raise
