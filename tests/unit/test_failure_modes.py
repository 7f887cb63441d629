"""Every known failure mode has a test that names it, or a reason why it has none."""

from tests import failure_modes


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
