"""Which module of the components needs which."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
MODULES = {
    ".".join(path.relative_to(COMPONENTS).with_suffix("").parts): path for path in COMPONENTS.rglob("*.py")
}


def needed_by(module: str) -> set[str]:
    """The modules that one imports anywhere, also in a function or for its annotations alone."""
    package = module.split(".")[:-1]
    found = set()
    for one in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(one, ast.ImportFrom) and one.level:
            base = package[: len(package) - one.level + 1]
            names = [one.module] if one.module else [alias.name for alias in one.names]
            found |= {".".join([*base, name]) for name in names}
    return found


def test_no_module_needs_itself_through_others() -> None:
    """What stands in a circle can only be understood, and changed, together."""
    graph = {module: needed_by(module) for module in MODULES}
    assert graph["cluster"] >= {"installer", "settings"}
    assert graph["bench.arms"] >= {"doctor", "bench.node_session"}
    assert set().union(*graph.values()) <= MODULES.keys()
    TopologicalSorter(graph).prepare()  # a circle raises CycleError, which names its modules
