"""What SOCI adds to `pulumi up` of a new EKS cluster, beside waiting for its nodes.

    pulumi stack export | .venv/bin/python scripts/bench/critical_path.py

The engine notes in the state when each resource was there. Counted are the seconds from the last node group
to the installer's DaemonSet, which is there when every node is verified, and what of SOCI was there before
that and so cost no time. It says something of a stack that one `pulumi up` has made.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
INSTALLER = "soci:index:SociInstaller$"  # in the URN of what is below it


@dataclass(frozen=True)
class Path:
    """The end of an update.

    Attributes:
        begin: when its first resource was there.
        nodes: when the last node group was.
        before: names of SOCI's resources that were there before the nodes.
        after: name and seconds after the nodes of those that came later, in their order.
    """

    begin: datetime
    nodes: datetime
    before: Sequence[str]
    after: Sequence[tuple[str, float]]

    @property
    def added_s(self) -> float:
        """Seconds from the nodes to the DaemonSet."""
        return self.after[-1][1] if self.after else 0.0


def path_of(state: Mapping[str, Any]) -> Path:
    """The end of the update that made a stack (the JSON of `pulumi stack export`).

    Raises:
        ValueError: it has no node group of EKS, or no installer.
    """
    made = [item for item in state["deployment"].get("resources", ()) if item.get("created")]
    times = {item["urn"]: datetime.fromisoformat(item["created"]) for item in made}
    nodes = [times[item["urn"]] for item in made if item["type"] == NODE_GROUP]
    ends = [times[item["urn"]] for item in made if item["type"] == DAEMON_SET and INSTALLER in item["urn"]]
    if not nodes or not ends:
        raise ValueError("the stack has no node group of EKS, or no installer")
    own = sorted(
        (times[urn], urn.rpartition("::")[2]) for urn in times if INSTALLER in urn and times[urn] <= ends[0]
    )
    return Path(
        min(times.values()),
        max(nodes),
        [name for at, name in own if at <= max(nodes)],
        [(name, (at - max(nodes)).total_seconds()) for at, name in own if at > max(nodes)],
    )


def page(path: Path) -> Iterator[str]:
    """What people read."""
    waited = (path.nodes - path.begin).total_seconds()
    added = f"To SOCI on every node: {path.added_s:.2f} s more."
    yield f"From the first resource to the nodes: {waited:.2f} s. {added}"
    yield f"There before the nodes, at no cost: {', '.join(path.before) or 'nothing'}."
    for name, seconds in path.after:
        yield f"{seconds:8.2f} s after the nodes: {name}"


def main() -> None:
    try:
        path = path_of(json.load(sys.stdin))
    except (ValueError, KeyError) as error:
        sys.exit(f"critical_path.py: {error}. Remedy: pulumi stack export of a stack with soci:cluster eks")
    print("\n".join(page(path)))


if __name__ == "__main__":
    main()
