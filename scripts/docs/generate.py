#!/usr/bin/env python3
"""Write every file, and every part of one, that is made from something else (`make generate`).

Usage: generate.py
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY)]
if __name__ == "__main__":
    # The package without its __init__.py, which imports what is written here: it may be missing or wrong.
    bare = ModuleType("components")
    bare.__path__ = [str(REPOSITORY / "components")]
    sys.modules["components"] = bare

import bench_result  # noqa: E402 (found through the path above)
import doctor_table  # noqa: E402
import eks_checks_table  # noqa: E402
import independence_result  # noqa: E402
import life_table  # noqa: E402
import managed_files_table  # noqa: E402
import node_checks_table  # noqa: E402
import nodes_table  # noqa: E402
import pass_through_table  # noqa: E402
import recorded  # noqa: E402
import result_picture  # noqa: E402
import settings_texts  # noqa: E402
from between import between  # noqa: E402

Generator = Callable[[str], str]


def _settings_table(document: str) -> str:
    return between(document, "configuration", settings_texts.table())


def _measured() -> dict:
    return recorded.load(result_picture.RESULTS)


# What is generated: a file of the repository, and its new text made of its old one.
GENERATED: list[tuple[str, Generator]] = [
    ("Pulumi.yaml", lambda text: between(text, "configuration", settings_texts.project_block(), "# {}")),
    ("components/arguments.py", lambda _: settings_texts.arguments_module()),
    (
        "scripts/installer/agent/settings.py",
        lambda text: between(text, "settings", settings_texts.node_fields(), "    # {}"),
    ),
    (
        "tests/fakes/settings.py",
        lambda text: between(text, "settings", settings_texts.node_defaults(), "    # {}"),
    ),
    ("README.md", _settings_table),
    ("docs/configuration.md", _settings_table),
    ("docs/configuration.md", lambda text: between(text, "pass-through", pass_through_table.table())),
    ("docs/image-index.md", lambda text: between(text, "settings", settings_texts.index_table())),
    ("docs/doctor.md", lambda text: between(text, "doctor", doctor_table.table())),
    ("docs/eks-checks.md", lambda text: between(text, "eks-checks", eks_checks_table.table())),
    ("docs/nodes.md", lambda text: between(text, "nodes", nodes_table.table())),
    ("docs/operations.md", lambda text: between(text, "node-checks", node_checks_table.table())),
    ("docs/security.md", lambda text: between(text, "managed-files", managed_files_table.table())),
    ("docs/reliability.md", lambda text: life_table.with_section(text, life_table.measured())),
    ("docs/advice.md", lambda text: independence_result.with_section(text, independence_result.measured())),
    ("docs/performance.md", lambda text: bench_result.with_section(text, bench_result.measured())),
    ("README.md", lambda text: result_picture.with_section(text, _measured())),
    ("docs/pod-start.svg", lambda _: result_picture.picture(_measured())),
]


def main() -> None:
    for name, generator in GENERATED:
        path = REPOSITORY / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            new = generator(old)
        except ValueError as error:
            sys.exit(f"{name}: {error}")
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{name}: written")


if __name__ == "__main__":
    main()
