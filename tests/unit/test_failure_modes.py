"""Every known failure mode has a test that names it, or a reason why it has none."""

import pytest

from tests import failure_modes, fault_report


def test_every_failure_mode_has_a_test_or_a_reason() -> None:
    covered = failure_modes.covered()
    entries = failure_modes.load()
    assert [
        number for number in entries if number not in covered and not entries[number].get("untested")
    ] == []


def test_a_covered_failure_mode_gives_no_reason_against_tests() -> None:
    covered = failure_modes.covered()
    assert [
        number for number, entry in failure_modes.load().items() if number in covered and "untested" in entry
    ] == []


def test_no_test_names_an_unknown_failure_mode() -> None:
    assert set(failure_modes.covered()) <= set(failure_modes.load())


def test_the_list_is_complete_and_in_order() -> None:
    assert list(failure_modes.load()) == list(range(1, 51))


def outcome(name: str, outcome: str) -> pytest.TestReport:
    return pytest.TestReport(name, ("", 0, ""), {}, outcome, None, "call")  # ty: ignore[invalid-argument-type]


def test_a_test_that_failed_with_one_of_its_parameters_failed() -> None:
    found = fault_report.Outcomes()
    for result in ("passed", "failed", "skipped"):
        found.pytest_runtest_logreport(outcome(f"a.py::test[{result}]", result))
        found.pytest_runtest_logreport(outcome("a.py::other", "passed"))
    assert found.found == {"a.py::test": "failed", "a.py::other": "passed"}


def test_a_failure_mode_says_what_each_of_its_tests_came_to() -> None:
    number, (name, *others) = next(iter(failure_modes.covered().items()))
    tests = fault_report.by_mode({name: "passed"})[str(number)]["tests"]
    assert tests == {name: "passed", **dict.fromkeys(others, "not run")}
