"""Which module of the components needs which."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
MODULES = {path.stem: path for path in COMPONENTS.glob("*.py")}


def needed_by(module: str) -> set[str]:
    """The modules that one imports anywhere, also in a function or for its annotations alone."""
    tree = ast.walk(ast.parse(MODULES[module].read_text()))
    imports = [statement for statement in tree if isinstance(statement, ast.ImportFrom) and statement.level]
    return {name for one in imports for name in ([one.module] if one.module else [a.name for a in one.names])}


def test_no_module_needs_itself_through_others() -> None:
    """What stands in a circle can only be understood, and changed, together."""
    graph = {module: needed_by(module) for module in MODULES}
    assert graph["cluster"] >= {"installer", "settings"}
    assert set().union(*graph.values()) <= MODULES.keys()
    TopologicalSorter(graph).prepare()  # a circle raises CycleError, which names its modules
