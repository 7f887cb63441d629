"""An engine that is killed while AWS makes the cluster or its nodes, and credentials that end meanwhile.

What AWS was making is not in the state, and AWS knows no owner. The way on is that of docs/operations.md.
"""

import json
from typing import Any

import pytest

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import INSTALLER, FakeNodes
from tests.engine.project_stack import Stack
from tests.waiting import wait_for

CLUSTER = "interrupted"
DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
LONG = 600  # seconds, of which the engine sees the first
PATIENCE_S = 90
EXPIRED = "operation error EKS: api error ExpiredTokenException: The security token included is expired"


@pytest.fixture(scope="module")
def stack(eks_stack: EksStack) -> Stack:
    """A stack that the tests of this module take through its life, in their order."""
    settings = {
        "soci:clusterName": CLUSTER,
        "soci:version": "0.16.0",
        "soci:sampleWorkload": {"enabled": False},
    }
    return eks_stack("interrupted", settings)


@pytest.fixture
def eks(account: Account, cluster: FakeNodes) -> Any:
    """EKS as moto has it; every test here counts only when the nodes answered."""
    return account.client("eks")


def made(stack: Stack, kind: str) -> list[str]:
    """The names of what of a type the state has."""
    resources = json.loads(stack.state())["deployment"].get("resources", [])
    return [item["urn"].rpartition("::")[2] for item in resources if item["type"] == kind]


def test_credentials_that_end_before_the_cluster_is_made_are_told_and_lose_nothing(
    stack: Stack, account: Account, eks: Any
) -> None:
    account.tell(denied=EXPIRED)
    said = stack.try_up()
    assert "the AWS credentials ended in the middle; what was made until then is recorded. Remedy:" in said
    assert "pulumi up goes on where it was" in said
    assert "Traceback" not in said


def test_a_cluster_that_aws_was_making_is_told_by_its_name_and_made_anew(
    stack: Stack, account: Account, eks: Any
) -> None:
    account.tell(makingSeconds={"cluster": LONG})
    stack.interrupt_up(
        lambda: wait_for(lambda: CLUSTER in eks.list_clusters()["clusters"], PATIENCE_S, "the cluster begun")
    )
    account.forget()
    assert made(stack, "aws:eks/cluster:Cluster") == []
    said = stack.try_up()
    assert f"the account has a cluster {CLUSTER} that this stack has not" in said
    assert f"aws eks delete-cluster --name {CLUSTER}, then pulumi up" in said
    eks.delete_cluster(name=CLUSTER)
    account.tell(makingSeconds={"nodes": LONG})
    stack.interrupt_up(
        lambda: wait_for(
            lambda: CLUSTER in eks.list_clusters()["clusters"] and len(groups(eks)) == 1,
            PATIENCE_S,
            "the nodes begun",
        )
    )
    assert made(stack, "aws:eks/cluster:Cluster") == ["soci-eks-eksCluster"], "it is not made again"


def test_nodes_that_aws_was_making_are_a_group_that_the_stack_has_not(
    stack: Stack, account: Account, cluster: FakeNodes, eks: Any
) -> None:
    """The group's name is drawn anew: the next one stands beside it, and costs as much."""
    (orphan,) = groups(eks)
    assert made(stack, "aws:eks/nodeGroup:NodeGroup") == []
    eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName=orphan)
    stack.up()
    assert len(groups(eks)) == 1
    assert cluster.api.call("GET", DAEMON_SET)["status"]["numberReady"] == 2
    stack.up("--expect-no-changes")


def test_credentials_that_end_while_a_group_is_made_leave_the_old_one_at_work(
    stack: Stack, account: Account, cluster: FakeNodes, eks: Any
) -> None:
    before = groups(eks)
    account.tell(denied=EXPIRED)
    stack.set(volumeGiB=200, instanceTypes=["m7i.2xlarge"])
    assert "the AWS credentials ended in the middle" in stack.try_up()
    assert groups(eks) == before
    account.forget()
    stack.up()
    assert groups(eks) != before
    assert cluster.api.call("GET", DAEMON_SET)["status"]["numberReady"] == 2


def groups(eks: Any) -> list[str]:
    """The node groups that AWS has."""
    return eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]


def test_a_cluster_that_was_deleted_behind_the_stack_is_seen_by_a_refresh_and_is_no_obstacle_to_the_end(
    stack: Stack, account: Account, cluster: FakeNodes, eks: Any
) -> None:
    """A plain `pulumi up` takes the word of the state."""
    for group in groups(eks):
        eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName=group)
    eks.delete_cluster(name=CLUSTER)
    stack.up()
    said = stack.run("preview", "--refresh", "--non-interactive")
    assert "soci-eks-eksCluster" in said
    for node in cluster.api.call("GET", "/api/v1/nodes")["items"]:
        cluster.api.call("DELETE", f"/api/v1/nodes/{node['metadata']['name']}")
    stack.destroy()
    assert made(stack, "aws:iam/role:Role") == []
