"""The program's main form: a cluster of its own on EKS. AWS is moto, its control plane the tests' API server.

The aws and eks plugins here are stand-ins that were never compared with the true ones: this proves that
program, components and engine fit together, not what AWS does.
"""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from agent.marks import TAINT

from tests.engine.fake_cluster import INSTALLER, FakeNodes
from tests.engine.project_stack import QUIET, Stack

DAEMON_SET = "/apis/apps/v1/namespaces/soci-system/daemonsets/" + INSTALLER


@pytest.fixture(scope="module")
def stack(
    answering: FakeNodes,
    aws_environment: dict[str, str],
    release_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack like `dev`, which the tests of this module take through its life, in their order."""
    config = {"aws:region": "eu-west-1", "soci:releaseUrl": release_url, "soci:version": "0.16.0"}
    stack = Stack(tmp_path_factory.mktemp("eks") / "soci", aws_environment, "dev", config)
    yield stack
    stack.destroy()


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def nodes_of(cluster: FakeNodes) -> list[dict[str, Any]]:
    return cluster.api.call("GET", "/api/v1/nodes")["items"]


def eks_clusters(environment: dict[str, str]) -> list[str]:
    client = boto3.client(
        "eks",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="eu-west-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    return client.list_clusters()["clusters"]


def test_preview_needs_no_cluster(stack: Stack, aws_environment: dict[str, str]) -> None:
    plan = stack.plan()
    assert set(plan.values()) == {"create"}
    assert {name.split("::")[0] for name in plan} >= {
        "eks:index:Cluster",
        "eks:index:ManagedNodeGroup",
        "kubernetes:apps/v1:DaemonSet",
    }
    assert eks_clusters(aws_environment) == []


def test_up_makes_the_cluster_and_verifies_every_node(
    stack: Stack, cluster: FakeNodes, aws_environment: dict[str, str]
) -> None:
    stack.up()
    assert stack.outputs()["clusterName"] in eks_clusters(aws_environment)
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    assert status["numberReady"] == status["desiredNumberScheduled"] == len(nodes_of(cluster)) == 2
    for node in nodes_of(cluster):
        assert node["metadata"]["labels"]["soci-cluster.io/version"] == "0.16.0"
        assert TAINT not in [taint["key"] for taint in node["spec"].get("taints", [])]


def test_kubeconfig_is_secret_and_asks_aws_for_a_token(stack: Stack) -> None:
    assert "get-token" in stack.outputs()["kubeconfig"]
    assert "[secret]" in stack.run("stack", "output")


def test_second_up_changes_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")


def test_refresh_finds_nothing(stack: Stack) -> None:
    stack.run("refresh", *QUIET, "--expect-no-changes")


def test_another_version_touches_nothing_of_aws(stack: Stack, cluster: FakeNodes) -> None:
    stack.set(version="0.16.1")
    assert not [name for name in stack.plan() if name.startswith(("aws:", "eks:", "pulumi:providers"))]
    stack.up()
    assert {node["metadata"]["labels"]["soci-cluster.io/version"] for node in nodes_of(cluster)} == {"0.16.1"}


def test_a_node_that_joins_later_starts_with_the_taint_and_gets_soci(
    stack: Stack, cluster: FakeNodes
) -> None:
    stack.set(nodeCount=3)
    stack.up()
    stack.run("refresh", *QUIET)
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    assert status["numberReady"] == len(nodes_of(cluster)) == 3


def test_destroy_leaves_nothing(stack: Stack, cluster: FakeNodes, aws_environment: dict[str, str]) -> None:
    stack.destroy()
    assert eks_clusters(aws_environment) == []
    assert nodes_of(cluster) == []
