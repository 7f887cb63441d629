"""Options of every stage."""

import pytest

from tests.fault_report import Outcomes

QUICK, SLOW = "quick", "slow"

# Helpers explain a failed assertion as test modules do.
pytest.register_assert_rewrite("tests.cluster", "tests.engine", "tests.fakes", "tests.faults")


def pytest_addoption(parser: pytest.Parser) -> None:
    level = parser.getgroup("level", "which tests run; by default those that `make test` runs")
    level.addoption("--slow", action="store_true", help="the slow ones alone, which CI runs besides")
    level.addoption(
        "--full", action="store_true", help="all, in every version and at every fault point (hours)"
    )
    parser.addoption(
        "--stride",
        type=int,
        metavar="N",
        help="every N-th fault point; default: every 481st, with --slow every 61st, with --full every one",
    )
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the resource graphs of the examples anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--slow") and config.getoption("--full"):
        raise pytest.UsageError("--full has the slow tests, too: give one of --slow and --full")
    if config.getoption("--full"):
        config.pluginmanager.register(Outcomes())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the level; pytest counts the others as deselected."""
    if config.getoption("--full"):
        return
    wanted = SLOW if config.getoption("--slow") else QUICK
    left_out = [item for item in items if wanted not in levels(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if wanted in levels(item)]


def levels(item: pytest.Item) -> set[str]:
    """At which levels a test runs without --full. A test with a stride runs at both, at points of its own."""
    if item.get_closest_marker("full"):
        return set()
    if item.get_closest_marker("slow"):
        return {SLOW}
    return {QUICK, SLOW} if "stride" in getattr(item, "fixturenames", ()) else {QUICK}
