"""Other nodes on EKS: `pulumi up` waits for SOCI on each of them, while those that they replace still serve.

The engine deletes a replaced node group when all else is done; what it does not wait for is deleted first.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import FakeNodes
from tests.engine.project_stack import Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

FAILURE = "download: the mirror is away. Remedy: mend it"
DAEMON_SET = "kubernetes:apps/v1:DaemonSet::soci-installer-daemon-set"
APPLICATION = {"app": "shop"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


@pytest.fixture(scope="module")
def stack(eks_stack: EksStack) -> Stack:
    """A stack with two nodes, which the tests of this module take through its life, in their order."""
    settings = {
        "soci:kubernetesVersion": "1.35",
        "soci:rolloutTimeoutSeconds": 30,
        "soci:sampleWorkload": {"enabled": False},
    }
    stack = eks_stack("nodes", settings)
    stack.up()
    return stack


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def test_a_further_node_that_fails_is_told_and_waited_for_by_the_next_up(
    stack: Stack, cluster: FakeNodes
) -> None:
    """It was green: nothing of the DaemonSet changes with the number of nodes."""
    old = cluster.fail_on_new_nodes(FAILURE)
    stack.set(nodeCount=3)
    said = stack.try_up()
    (new,) = set(cluster.serving()) - old
    assert f"node {new}: step {FAILURE}" in said
    assert "2 of 3 nodes have SOCI" in said
    cluster.failing.clear()
    stack.up()
    assert cluster.serving() == dict.fromkeys([*old, new], True)


def test_the_nodes_to_be_replaced_serve_until_the_new_ones_do(stack: Stack, cluster: FakeNodes) -> None:
    """The old ones were deleted at once, and no schedulable node was left, after a green `pulumi up`."""
    old = cluster.fail_on_new_nodes(FAILURE)
    stack.set(instanceTypes=["m7i.xlarge"])
    said = stack.try_up()
    new = set(cluster.serving()) - old
    assert len(new) == 3
    for node in new:
        assert f"node {node}: step {FAILURE}" in said
    assert cluster.serving() == dict.fromkeys(old, True) | dict.fromkeys(new, False)
    stack.try_up()
    assert old <= set(cluster.serving()), "an up that fails again keeps them, too"
    cluster.failing.clear()
    stack.up()
    assert cluster.serving() == dict.fromkeys(new, True)
    stack.up("--expect-no-changes")


def test_nodes_that_an_autoscaler_started_are_no_change(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    client = account.client("eks")
    (name,) = client.list_clusters()["clusters"]
    (group,) = client.list_nodegroups(clusterName=name)["nodegroups"]
    client.update_nodegroup_config(
        clusterName=name, nodegroupName=group, scalingConfig={"desiredSize": 4, "minSize": 1, "maxSize": 4}
    )
    stack.up("--expect-no-changes")
    seen = json.loads(stack.run("preview", "--json", "--refresh"))["steps"]
    changed = [step["urn"] for step in seen if step["op"] not in ("same", "refresh")]
    assert not [urn for urn in changed if urn.endswith(DAEMON_SET)]
    client.update_nodegroup_config(
        clusterName=name, nodegroupName=group, scalingConfig={"desiredSize": 3, "minSize": 1, "maxSize": 4}
    )


def test_nodes_of_another_kubernetes_release_are_waited_for(stack: Stack, cluster: FakeNodes) -> None:
    """EKS replaces them by itself, within one update of the group, and does not know what they wait for."""
    old = cluster.fail_on_new_nodes(FAILURE)
    stack.set(kubernetesVersion="1.36")
    said = stack.try_up()
    assert f"step {FAILURE}" in said
    assert not old & set(cluster.serving()), "no disruption budget held them"
    cluster.failing.clear()
    stack.up()
    assert list(cluster.serving().values()) == [True] * 3


def nodes_of_application(cluster: FakeNodes) -> list[str]:
    """Return the nodes on which a pod of the application is ready."""
    pods = cluster.api.call("GET", "/api/v1/namespaces/default/pods", labelSelector="app=shop")["items"]
    return [
        pod["spec"]["nodeName"]
        for pod in pods
        for item in pod["status"].get("conditions", [])
        if (item["type"], item["status"]) == ("Ready", "True")
        and not pod["metadata"].get("deletionTimestamp")
    ]


@pytest.fixture
def application(cluster: FakeNodes) -> Iterator[None]:
    """Two pods that run, of which a budget lets one be away."""
    container = {"name": "shop", "image": "registry.invalid/shop:1"}
    template = {"metadata": {"labels": APPLICATION}, "spec": {"containers": [container]}}
    selector: dict[str, Any] = {"matchLabels": APPLICATION}
    made = (
        (DEPLOYMENTS, "apps/v1", "Deployment", {"replicas": 2, "selector": selector, "template": template}),
        (BUDGETS, "policy/v1", "PodDisruptionBudget", {"minAvailable": 1, "selector": selector}),
    )
    for path, version, kind, spec in made:
        metadata = {"name": "shop"}
        cluster.api.call(
            "POST", path, {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        )
    wait_for(
        lambda: cluster.api.call("GET", f"{BUDGETS}/shop").get("status", {}).get("disruptionsAllowed") == 1,
        60,
        "two pods of the application",
    )
    yield
    for path, *_ in reversed(made):
        cluster.api.call("DELETE", f"{path}/shop", {"propagationPolicy": "Foreground"})
    wait_for(lambda: not nodes_of_application(cluster), 60, "the end of the application")


def test_a_disruption_budget_holds_the_old_nodes_while_soci_fails_on_those_of_eks(
    stack: Stack, cluster: FakeNodes, account: Account, application: None
) -> None:
    """An evicted pod finds no node that takes it, so that EKS may evict no other, and gives its update up."""
    account.tell(drainSeconds=10)
    old = cluster.fail_on_new_nodes(FAILURE)
    stack.set(volumeGiB=120)
    said = stack.try_up()
    assert "PodEvictionFailure" in said
    assert old <= set(cluster.serving())
    assert len(held := nodes_of_application(cluster)) == 1
    assert set(held) <= old
    account.tell(drainSeconds=60)
    cluster.failing.clear()
    stack.up()
    left = cluster.serving()
    assert left
    assert old.isdisjoint(left)
    assert all(left.values())
    assert len(nodes_of_application(cluster)) == 2
