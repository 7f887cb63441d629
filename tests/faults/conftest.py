"""Faults at generated points of the node transaction: at some, with --slow at more, with --full at all.

The counts stand in the last lines, of a full run in .lab/faults.json too.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests import fault_report
from tests.fakes.fixtures import node  # noqa: F401
from tests.faults import harness

QUICK_STRIDE, SLOW_STRIDE = 481, 61


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[harness.FaultNode]]:
    """A node per processor, on which nobody installed anything."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(harness.node()) for _ in range(os.cpu_count() or 1)]


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every how manieth point is tried."""
    option = request.config.getoption
    of_level = 1 if option("--full") else SLOW_STRIDE if option("--slow") else QUICK_STRIDE
    return option("--stride") or of_level


def counts() -> dict[str, float]:
    """What was struck, and how it ended."""
    ended = harness.TALLY.ended
    return {
        "points": ended.total(),
        "ended_old": ended["old"],
        "ended_new": ended["new"],
        "ended_bad": ended["bad"],
        "slowest_rollback_s": round(max(harness.TALLY.rollback_seconds, default=0.0), 2),
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not harness.TALLY.ended:
        return
    found = counts()
    terminalreporter.write_line(
        f"faults: {found['points']} points, ended old {found['ended_old']}, new {found['ended_new']}, "
        f"bad {found['ended_bad']}; slowest rollback {found['slowest_rollback_s']} s"
    )
    if terminalreporter.config.getoption("--full"):
        fault_report.add(found)
