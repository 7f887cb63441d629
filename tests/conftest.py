"""Options of every stage."""

import pytest

from tests.fault_report import Outcomes

# Helpers explain a failed assertion as test modules do.
pytest.register_assert_rewrite("tests.cluster", "tests.engine", "tests.fakes", "tests.faults")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="every version and every fault point, also slow tests"
    )
    parser.addoption(
        "--stride",
        type=int,
        metavar="N",
        help="every N-th fault point; default: every 61st, with --full every one",
    )
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the resource graphs of the examples anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--full"):
        config.pluginmanager.register(Outcomes())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked slow run with --full only (`make faults`); without it pytest counts them as deselected."""
    if config.getoption("--full"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
