"""The program that runs on the nodes, as the files of a ConfigMap: agent, host script and settings.json."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pulumi

from . import settings

# A ConfigMap may hold 1 MiB; what is left is for its metadata and for growth of settings.json.
MAX_PROGRAM_BYTES = 900 * 1024


def node_settings(chosen: settings.Settings, digests: Mapping[str, str]) -> str:
    """settings.json: what the agent on the node needs to know."""
    content = {
        item.name: settings.plain(getattr(chosen, item.name))
        for item in fields(settings.Settings)
        if settings.declaration(item).scope is settings.Scope.NODE
    }
    content["sha256"] = dict(digests)
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def key_of(path: str) -> str:
    """The ConfigMap key of a file of the program (keys cannot hold a slash)."""
    return path.rpartition("/")[2]


def program_directory() -> Path:
    """Where the program that runs on the nodes is: inside the installed package, or beside it in the
    repository."""
    here = Path(__file__).resolve().parent
    packaged = here / "_installer"
    return packaged if packaged.is_dir() else here.parent / "scripts" / "installer"


def embedded_files(directory: Path | None = None) -> dict[str, str]:
    """The program that runs on the nodes: path below /opt/soci-cluster -> text.

    Raises:
        pulumi.RunError: the program is not there, or too large for a ConfigMap.
    """
    root = directory or program_directory()
    found = sorted(path for pattern in ("agent/*.py", "host/*.sh", "[!.]*") for path in root.glob(pattern))
    files = [path for path in found if path.is_file()]
    program = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
    size = sum(len(text.encode()) for text in program.values())
    if not {"agent/__main__.py", "host/00-head.sh"} <= set(program):
        raise pulumi.RunError(f"the installer's program is not in {root}. Remedy: install the package again")
    if size > MAX_PROGRAM_BYTES or len({key_of(path) for path in program}) < len(program):
        raise pulumi.RunError(
            f"{root} cannot be a ConfigMap: {size} bytes, {len(program)} files. Remedy: install again"
        )
    return program
