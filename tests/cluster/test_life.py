"""For life: after whatever happens to a node, every image that is there starts, or is pulled anew.

`make life` runs every cell and writes .lab/life.json; `make test` has one, `make slow` one a cause.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from statistics import median
from typing import Any

import lab_client
import pytest
from settings import REGISTRY

from tests.cluster import lazy_images, life
from tests.cluster.life_events import EVENTS, Stage
from tests.cluster.looks import SOCI_NODES
from tests.cluster.registries import trusted_registry
from tests.levels import marks_of

RESULTS = lab_client.LAB_DIRECTORY / "life.json"
OTHER = "life/other"
SLOW = [
    ("daemon killed", "a running pod"),
    ("daemon killed, registry away", "a completed pod"),
    ("reboot, registry away", "a crashing pod"),
    ("containerd's configuration rewritten, and restarted", "nobody"),
]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, dict]]:
    """By cell: the seconds of each node, or what was poisoned or unnamed; empty when it failed otherwise."""
    found: dict[str, dict] = {}
    yield found
    if request.config.getoption("--full"):
        RESULTS.write_text(json.dumps(summary(found), indent=1) + "\n")


def summary(found: dict[str, dict]) -> dict[str, Any]:
    """The cells, counted, with the slowest and the median seconds of a node; day and load of the end."""
    seconds = [of_node for cell in found.values() for of_node in cell.get("nodes", {}).values()]
    result: dict[str, Any] = {
        "day": f"{date.today()}",
        "load": round(os.getloadavg()[2], 1),
        "cells": len(found),
        "failed": sum("nodes" not in cell for cell in found.values()),
        "poisoned": sum("poisoned" in cell for cell in found.values()),
        "unnamed": sum("unnamed" in cell for cell in found.values()),
    }
    for kind in ("heal_s", "truth_s", "told_s"):
        taken = [entry[kind] for entry in seconds if kind in entry]
        result |= {f"slowest_{kind}": max(taken, default=0), f"median_{kind}": median(taken or [0])}
    return result | {"each": found}


@pytest.fixture(scope="module")
def stage(api) -> Iterator[Stage]:
    lazy_images.push(OTHER)
    registry = trusted_registry()
    yield Stage(api, SOCI_NODES, registry, f"{REGISTRY}/{OTHER}:1")
    registry.close()


@pytest.mark.parametrize(
    ("event", "holder"),
    [
        pytest.param(*cell, marks=marks_of(cell, (), SLOW), id=f"{cell[0]} - {cell[1]}".replace("'", ""))
        for cell in life.CELLS
    ],
)
def test_an_image_starts_again_whatever_happened(
    stage: Stage, request: pytest.FixtureRequest, results: dict[str, dict], event: str, holder: str
) -> None:
    """A poisoned image was there for the kubelet and started nothing, for good, without a word."""
    # Only what changes the stack has to put it back.
    stack = request.getfixturevalue("stack") if EVENTS[event].changes_stack else None
    here = replace(stage, nodes=list(life.HOLDERS[holder].nodes), stack=stack)
    cell = results[f"{event} - {holder}"] = {}
    try:
        cell["nodes"] = life.run(here, EVENTS[event], life.HOLDERS[holder])
    except life.PoisonedError as error:
        cell["poisoned"] = str(error)
        raise
    except life.UnnamedError as error:
        cell["unnamed"] = str(error)
        raise
