"""An engine that is stopped while AWS makes the cluster or its nodes: AWS goes on, and the state does not
know what came of it. The way out is the one of docs/operations.md, whose commands are run here."""

import json
import re
import signal
from typing import Any

import pytest

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import INSTALLER, FakeNodes
from tests.engine.project_stack import QUIET, REPOSITORY, Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

CLUSTER = "aws:eks/cluster:Cluster"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
FOR_EVER = 600
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


@pytest.fixture(scope="module")
def stack(eks_stack: EksStack) -> Stack:
    """A stack that is stopped again and again."""
    settings = {
        "soci:clusterName": "stopped",
        "soci:version": "0.16.0",
        "soci:sampleWorkload": {"enabled": False},
    }
    return eks_stack("stopped", settings)


def clusters(account: Account) -> list[str]:
    return account.client("eks").list_clusters()["clusters"]


def groups(account: Account) -> list[str]:
    if not clusters(account):
        return []
    return account.client("eks").list_nodegroups(clusterName="stopped")["nodegroups"]


def recorded(stack: Stack) -> list[str]:
    """Return the types of what the state has."""
    return [item["type"] for item in json.loads(stack.state())["deployment"].get("resources", [])]


def pending(stack: Stack) -> dict[str, str]:
    """Return {type: URN} of what was being made when the engine was killed."""
    operations = json.loads(stack.state())["deployment"].get("pending_operations") or []
    return {item["resource"]["type"]: item["resource"]["urn"] for item in operations}


def recipe(kind: str) -> list[list[str]]:
    """Return the arguments of pulumi in the documentation's recipe for a type."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    (block,) = [block for block in text.split("```")[1::2] if f"pulumi import {kind} " in block]
    return [line.split()[1:] for line in block.splitlines() if line.startswith("pulumi ")]


def take_in(stack: Stack, kind: str, above: str, **names: str) -> None:
    """Do what the documentation says for something that AWS made; `names` are what its capitals stand for."""
    resources = json.loads(stack.state())["deployment"]["resources"]
    (parent,) = [item["urn"] for item in resources if item["type"] == above]
    meant = {**names, "PARENT": parent}
    for command in recipe(kind):
        words = [re.sub("|".join(meant), lambda found: meant[found[0]], word) for word in command]
        stack.run(*words, *QUIET)
    assert kind in recorded(stack)
    assert pending(stack) == {}


def kill_while_aws_makes(stack: Stack, account: Account, setting: str, what: Any) -> None:
    """Kill the engine when AWS has begun with it and is not done."""
    account.tell(**{setting: FOR_EVER})
    stack.interrupt_up(lambda: wait_for(lambda: bool(what(account)), PATIENCE_S, "AWS has begun"))
    account.forget()


def verified(cluster: FakeNodes) -> bool:
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    return status["numberReady"] == status["desiredNumberScheduled"] == 2


def test_a_cluster_that_aws_made_after_the_engine_was_killed_is_taken_in(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    kill_while_aws_makes(stack, account, "clusterSeconds", clusters)
    assert CLUSTER not in recorded(stack)
    said = stack.try_up()
    assert "interrupted while creating" in said
    assert "ResourceInUseException" in said
    assert "there is an EKS cluster stopped already, which this stack's state does not have. Remedy: " in said
    take_in(stack, CLUSTER, "eks:index:Cluster", CLUSTER="stopped")
    assert clusters(account) == ["stopped"]
    assert verified(cluster)
    stack.up("--expect-no-changes")
    stack.destroy()


def test_nodes_that_aws_made_after_the_engine_was_killed_are_taken_in(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    kill_while_aws_makes(stack, account, "groupSeconds", groups)
    (group,) = groups(account)
    assert NODE_GROUP not in recorded(stack)
    before = {node["metadata"]["uid"] for node in cluster.api.call("GET", "/api/v1/nodes")["items"]}
    take_in(stack, NODE_GROUP, "eks:index:ManagedNodeGroup", CLUSTER="stopped", GROUP=group)
    assert groups(account) == [group]
    assert clusters(account) == ["stopped"]
    assert {node["metadata"]["uid"] for node in cluster.api.call("GET", "/api/v1/nodes")["items"]} == before
    assert verified(cluster)
    stack.up("--expect-no-changes")
    stack.destroy()


def test_one_ctrl_c_waits_for_aws_and_the_next_up_goes_on(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    for setting, what, kind in (
        ("clusterSeconds", clusters, CLUSTER),
        ("groupSeconds", groups, NODE_GROUP),
    ):
        account.tell(**{setting: FOR_EVER})
        engine = stack.begin_up()
        wait_for(lambda what=what: bool(what(account)), PATIENCE_S, "AWS has begun")
        engine.send_signal(signal.SIGINT)
        account.forget()
        said = engine.communicate(timeout=PATIENCE_S)[0]
        assert engine.returncode != 0, said
        assert kind in recorded(stack), f"{pending(stack)} {said}"
        assert pending(stack) == {}
    stack.up()
    assert clusters(account) == ["stopped"]
    assert len(groups(account)) == 1
    assert verified(cluster)
    stack.up("--expect-no-changes")
