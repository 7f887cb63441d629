"""What SOCI adds to an update, by the times in a stack's state."""

from typing import Any

import critical_path
import pytest

URN = "urn:pulumi:dev::soci::soci:index:SociCluster${}::{}"


def made(kind: str, name: str, second: float, below: str = "") -> dict[str, Any]:
    """A resource that was there at that second."""
    urn = URN.format(f"{below}{kind}", name)
    return {"urn": urn, "type": kind, "created": f"2026-11-28T05:00:{second:09.6f}Z"}


def state(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"deployment": {"resources": [*resources, {"urn": "urn:pulumi:dev::soci::x::y", "type": "x"}]}}


CLUSTER = made("aws:eks/cluster:Cluster", "cluster", 1)
NODES = [made(critical_path.NODE_GROUP, "cpu", 20), made(critical_path.NODE_GROUP, "gpu", 30)]
SPACE = made("kubernetes:core/v1:Namespace", "namespace", 12, critical_path.INSTALLER)
PROGRAM = made("kubernetes:core/v1:ConfigMap", "program", 30.25, critical_path.INSTALLER)
DAEMONS = made(critical_path.DAEMON_SET, "daemon-set", 30.75, critical_path.INSTALLER)


def test_what_comes_after_the_last_nodes_is_what_is_added():
    path = critical_path.path_of(state(CLUSTER, *NODES, DAEMONS, PROGRAM, SPACE))
    assert path.added_s == pytest.approx(0.75)
    assert path.before == ["namespace"]
    assert path.after == [("program", pytest.approx(0.25)), ("daemon-set", pytest.approx(0.75))]
    first, *_ = critical_path.page(path)
    assert first == "From the first resource to the nodes: 29.00 s. To SOCI on every node: 0.75 s more."


def test_the_daemon_set_of_somebody_else_is_not_the_installers():
    others = made(critical_path.DAEMON_SET, "others", 55)
    assert critical_path.path_of(state(CLUSTER, *NODES, DAEMONS, others)).added_s == pytest.approx(0.75)


@pytest.mark.parametrize("resources", [(CLUSTER, *NODES), (CLUSTER, DAEMONS), ()])
def test_a_stack_without_nodes_or_installer_says_nothing(resources):
    with pytest.raises(ValueError, match="no node group of EKS, or no installer"):
        critical_path.path_of(state(*resources))
