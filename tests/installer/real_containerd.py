"""What real containerd daemons make of an edited configuration."""

import functools
from dataclasses import dataclass

import binaries
from agent import containerd_config, detect, slots
from agent.plan import Plan
from agent.transaction import File

from tests.fakes.node import run_here


@dataclass(frozen=True)
class Change:
    """A configuration before and after our edit: its text, and what containerd makes of it."""

    text: str
    new_text: str
    before: dict[containerd_config.Path, object]
    after: dict[containerd_config.Path, object]

    def keys(self) -> set[containerd_config.Path]:
        """The keys that changed effect, other than the loaded files and what is below our proxy plugin."""
        keys = containerd_config.difference(self.before, self.after)
        return {key for key in keys if key[:2] != containerd_config.proxy() and key != ("imports",)}


@functools.cache
def containerd(series: str) -> tuple[str, tuple[int, ...]]:
    """The program of a series, built first when it is not in the cache, and its version."""
    program = str(binaries.build(f"containerd-{series}") / "containerd")
    return program, detect.parse_version(run_here([program, "--version"]).output)


def shared_file(plan: Plan) -> File:
    """containerd's own file among those of the plan."""
    (file,) = [file for file in plan.files if file.role.is_read_by_containerd]
    return file


def assert_only_the_wanted_keys(change: Change) -> None:
    table = containerd_config.image_table(change.after)
    assert change.after[*table, "snapshotter"] == "soci"
    assert change.after[*table, "disable_snapshot_annotations"] is False
    assert change.after[*containerd_config.proxy(), "type"] == "snapshot"
    assert change.after[*containerd_config.proxy(), "address"] == slots.FIRST.socket
    assert change.after[*containerd_config.proxy(), "exports", "root"] == slots.FIRST.data
    # A pod with hostUsers: false; containerd 1.7 runs none.
    mapping = ["remap-ids"] if table == containerd_config.CRI_2 else None
    assert (change.after.get((*containerd_config.proxy(), "capabilities")) or None) == mapping
    assert change.keys() <= {(*table, "snapshotter"), (*table, "disable_snapshot_annotations")}
