"""The programs that run in the cluster, as the files of a ConfigMap: the installer's (agent, host script and
settings.json), and soci-index."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from . import settings

# A ConfigMap may hold 1 MiB; what is left is for its metadata and for growth of settings.json.
MAX_PROGRAM_BYTES = 900 * 1024
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Program:
    """A program that travels with this package.

    Attributes:
        title: what it is called in refusals.
        packaged: its directory in the installed package.
        source: its directory in the repository.
        patterns: which of its files it consists of.
        needed: files without which it is none.
    """

    title: str
    packaged: Path
    source: Path
    patterns: tuple[str, ...]
    needed: frozenset[str]

    @property
    def directory(self) -> Path:
        """Where it is: inside the installed package, or in the repository."""
        return self.packaged if self.packaged.is_dir() else self.source

    def files(self, directory: Path | None = None) -> dict[str, str]:
        """Path below the program's directory -> text.

        Raises:
            pulumi.RunError: the program is not there, or too large for a ConfigMap.
        """
        root = directory or self.directory
        found = sorted(path for pattern in self.patterns for path in root.glob(pattern))
        files = [path for path in found if path.is_file()]
        program = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
        size = sum(len(text.encode()) for text in program.values())
        if not self.needed <= set(program):
            raise pulumi.RunError(f"{self.title} is not in {root}. Remedy: install the package again")
        if size > MAX_PROGRAM_BYTES or len({key_of(path) for path in program}) < len(program):
            raise pulumi.RunError(
                f"{root} cannot be a ConfigMap: {size} bytes, {len(program)} files. Remedy: install again"
            )
        return program


INSTALLER = Program(
    "the installer's program",
    _HERE / "_installer",
    _HERE.parent / "scripts" / "installer",
    ("agent/*.py", "host/*.sh", "[!.]*"),
    frozenset({"agent/__main__.py", "host/00-head.sh"}),
)
INDEX = Program(
    "the program soci-index",
    _HERE.parent / "soci_index",
    _HERE.parent / "scripts" / "index" / "soci_index",
    ("*.py",),
    frozenset({"__main__.py"}),
)


def config_map_data(files: Mapping[str, str]) -> dict[str, str]:
    """The data of the ConfigMap that holds these files."""
    return {key_of(path): text for path, text in files.items()}


def config_map_items(paths: Iterable[str]) -> list[k8s.core.v1.KeyToPathArgsDict]:
    """The items of a volume that puts the ConfigMap's files at these paths."""
    return [{"key": key_of(path), "path": path} for path in paths]


def key_of(path: str) -> str:
    """The ConfigMap key of a file of a program (keys cannot hold a slash)."""
    return path.rpartition("/")[2]


def node_settings(chosen: settings.Settings, digests: Mapping[str, str]) -> str:
    """settings.json: what the agent on the node needs to know."""
    content = {
        item.name: settings.plain(getattr(chosen, item.name))
        for item in fields(settings.Settings)
        if settings.declaration(item).scope is settings.Scope.NODE
    }
    content["sha256"] = dict(digests)
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
