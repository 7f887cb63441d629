"""The folders that tests import from, side by side on one path."""

import sys
import tomllib
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SETTINGS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
ROOTS = SETTINGS["pytest"]["ini_options"]["pythonpath"]


def names(root: Path) -> set[str]:
    """The modules and packages that a root gives."""
    modules = {path.stem for path in root.glob("*.py")}
    return modules | {path.parent.name for path in root.glob("*/__init__.py")} - {"__main__"}


def test_no_name_stands_in_two_roots_or_hides_one_of_the_standard_library():
    counted = Counter(name for root in ROOTS for name in names(REPOSITORY / root))
    assert [name for name, count in counted.items() if count > 1] == []
    assert counted.keys() & (sys.stdlib_module_names - {"__main__"}) == set()


def test_types_are_checked_with_the_roots_that_tests_run_with():
    assert SETTINGS["ty"]["environment"]["root"] == ROOTS
