"""Faults at generated points of the node transaction: at some of them, or with --full at every one.

The full run, `make faults`, writes .lab/faults.json and prints it in short.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "installer"), str(REPOSITORY / "scripts" / "installer")]

import harness  # noqa: E402

from tests import failure_modes  # noqa: E402

QUICK_STRIDE = 61
REPORT = REPOSITORY / ".lab" / "faults.json"


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[harness.Node]]:
    """A node per processor, on which nobody installed anything."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(harness.node()) for _ in range(os.cpu_count() or 1)]


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every how manieth point is tried."""
    return 1 if request.config.getoption("--full") else QUICK_STRIDE


def report() -> dict:
    """The content of faults.json."""
    ended = harness.TALLY.ended
    tests = failure_modes.covered()
    modes = {
        str(number): {"behaviour": entry["behaviour"], "tests": tests.get(number, [])}
        | ({"untested": entry["untested"]} if "untested" in entry else {})
        for number, entry in failure_modes.load().items()
    }
    return {
        "points": ended.total(),
        "ended_old": ended["old"],
        "ended_new": ended["new"],
        "ended_bad": ended["bad"],
        "slowest_rollback_s": round(max(harness.TALLY.rollback_seconds, default=0.0), 2),
        "failure_modes": modes,
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts; in a full run also the file."""
    if not harness.TALLY.ended:
        return
    found = report()
    terminalreporter.write_line(
        f"faults: {found['points']} points, ended old {found['ended_old']}, new {found['ended_new']}, "
        f"bad {found['ended_bad']}; slowest way back {found['slowest_rollback_s']} s"
    )
    if terminalreporter.config.getoption("--full"):
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(found, indent=1) + "\n")
        covered = sum(bool(mode["tests"]) for mode in found["failure_modes"].values())
        terminalreporter.write_line(
            f"faults: {covered} of {len(found['failure_modes'])} failure modes have a test; see {REPORT}"
        )
