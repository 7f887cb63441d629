"""The list of failure modes and the tests that cover them.

The list is failure_modes.toml; a test covers an entry by ``@pytest.mark.failure_mode(number)``: directly, in
its module's ``pytestmark`` or on one of its parameters.
"""

import ast
import tomllib
from pathlib import Path

TESTS = Path(__file__).parent
LIST = TESTS / "failure_modes.toml"


def load() -> dict[int, dict]:
    """Number to entry: area, behaviour, threads, and perhaps why it is untested."""
    return {entry["number"]: entry for entry in tomllib.loads(LIST.read_text())["failure"]}


def covered() -> dict[int, list[str]]:
    """Number to the tests that are marked with it, as ``path::name``, whichever stage they belong to."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        tests = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        marked = {test.name: _numbers(test.decorator_list) for test in tests}
        for node in tree.body:
            names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
            if isinstance(node, ast.Assign) and "pytestmark" in names:
                marked = {name: numbers | _numbers([node.value]) for name, numbers in marked.items()}
        for name, numbers in marked.items():
            for number in sorted(numbers):
                found.setdefault(number, []).append(f"{path.relative_to(TESTS.parent)}::{name}")
    return found


def _numbers(expressions: list[ast.expr]) -> set[int]:
    """The arguments of every ``failure_mode(...)`` call in ``expressions``."""
    calls = (
        node for expression in expressions for node in ast.walk(expression) if isinstance(node, ast.Call)
    )
    return {
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "failure_mode"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }
