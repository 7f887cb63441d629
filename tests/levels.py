"""At which level a case of a test runs, where cases have different ones."""

from collections.abc import Container

import pytest


def marks_of(case: object, quick: Container[object], slow: Container[object]) -> list[pytest.MarkDecorator]:
    """The marks of a case: none where it is quick, `slow`, or `full` where it is of neither."""
    if case in quick:
        return []
    return [pytest.mark.slow if case in slow else pytest.mark.full]
