"""The program's main form: a cluster of its own on EKS. AWS is moto, its control plane the tests' API server.

The aws and eks plugins here are stand-ins; that of eks was compared with the true component, AWS itself was
never asked: this proves that program, components and engine fit together, not what AWS does.
"""

import json
from typing import Any

import pytest
from agent.marks import LABEL, TAINT

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import ANY_OTHER, INSTALLER, FakeNodes
from tests.engine.project_stack import QUIET, Stack
from tests.waiting import wait_for

ADD_ONS = ("vpc-cni", "kube-proxy", "coredns")
DAEMON_SET = "/apis/apps/v1/namespaces/soci-system/daemonsets/" + INSTALLER


@pytest.fixture(scope="module")
def stack(eks_stack: EksStack) -> Stack:
    """A stack like `dev`, which the tests of this module take through its life, in their order."""
    settings = {
        "soci:clusterName": "production",
        "soci:kubernetesVersion": "1.35",
        "soci:version": "0.16.0",
    }
    return eks_stack("dev", settings)


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def nodes_of(cluster: FakeNodes) -> list[dict[str, Any]]:
    return cluster.api.call("GET", "/api/v1/nodes")["items"]


def daemon_sets(cluster: FakeNodes) -> list[str]:
    items = cluster.api.call("GET", DAEMON_SET.rpartition("/")[0])["items"]
    return [item["metadata"]["uid"] for item in items]


def eks_clusters(account: Account) -> list[str]:
    return account.client("eks").list_clusters()["clusters"]


# What version 0.2 made, below the component or below the installer: with another name or type it would be
# replaced on every user's cluster.
NAMES_OF_0_2 = {
    "soci:index:SociCluster::soci",
    "eks:index:Cluster::soci-eks",
    "aws:eks/cluster:Cluster::soci-eks-eksCluster",
    "aws:iam/role:Role::soci-node-role",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment::soci-AmazonEKSWorkerNodePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment::soci-AmazonEKS_CNI_Policy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment::soci-AmazonEC2ContainerRegistryPullOnly",
    "eks:index:ManagedNodeGroup::soci-nodes",
    "aws:ec2/launchTemplate:LaunchTemplate::soci-nodes-launchTemplate",
    "aws:eks/nodeGroup:NodeGroup::soci-nodes",
    "pulumi:providers:kubernetes::soci-kubernetes",
    "soci:index:SociInstaller::soci-installer",
    "kubernetes:core/v1:Namespace::soci-installer-namespace",
    "kubernetes:core/v1:ServiceAccount::soci-installer-account",
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole::soci-installer-cluster-role",
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding::soci-installer-cluster-role-binding",
    "kubernetes:rbac.authorization.k8s.io/v1:Role::soci-installer-role",
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding::soci-installer-role-binding",
    "kubernetes:core/v1:ConfigMap::soci-installer-program",
    "kubernetes:apps/v1:DaemonSet::soci-installer-daemon-set",
    "soci:index:SampleWorkload::soci-sample",
    "kubernetes:batch/v1:Job::soci-sample-job",
}


def resources(stack: Stack) -> list[dict[str, Any]]:
    """Return what the stack's state holds."""
    return json.loads(stack.state())["deployment"]["resources"]


def builds(stack: Stack) -> dict[str, str]:
    """Return the version of each add-on of the cluster."""
    made = [item["outputs"] for item in resources(stack) if item["type"] == "aws:eks/addon:Addon"]
    return {outputs["addonName"]: outputs["addonVersion"] for outputs in made}


def release_builds(account: Account, revision: int) -> None:
    """Let AWS release a build of each add-on."""
    account.tell(addons={name: {"mostRecent": f"v9.9.{revision}-eksbuild.1"} for name in ADD_ONS})


def test_preview_needs_no_cluster(stack: Stack, account: Account) -> None:
    plan = stack.plan()
    assert set(plan.values()) == {"create"}
    assert {name.split("::")[0] for name in plan} >= {
        "eks:index:Cluster",
        "eks:index:ManagedNodeGroup",
        "kubernetes:apps/v1:DaemonSet",
    }
    assert eks_clusters(account) == []


def test_an_up_that_was_killed_while_it_waited_for_the_nodes_is_taken_up_by_the_next(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    """Control plane, nodes and DaemonSet are there; the state knows nothing of the DaemonSet."""
    cluster.failing[ANY_OTHER] = "download: not yet. Remedy: wait"
    stack.interrupt_up(lambda: wait_for(lambda: bool(daemon_sets(cluster)), 120, "the DaemonSet is made"))
    cluster.failing.clear()
    made = daemon_sets(cluster)
    assert "kubernetes:apps/v1:DaemonSet" not in [item["type"] for item in resources(stack)]
    stack.up()
    assert daemon_sets(cluster) == made
    assert eks_clusters(account) == ["production"]
    stack.up("--expect-no-changes")


def test_up_makes_the_cluster_and_verifies_every_node(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    assert stack.outputs()["clusterName"] == "production"
    assert eks_clusters(account) == ["production"]
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    assert status["numberReady"] == status["desiredNumberScheduled"] == len(nodes_of(cluster)) == 2
    for node in nodes_of(cluster):
        assert node["metadata"]["labels"]["soci-cluster.io/version"] == "0.16.0"
        assert TAINT not in [taint["key"] for taint in node["spec"].get("taints", [])]


def test_what_version_0_2_made_keeps_name_and_type(stack: Stack) -> None:
    names = {"::".join(item["urn"].split("::")[2:]).rsplit("$", 1)[-1] for item in resources(stack)}
    assert names >= NAMES_OF_0_2


def waits_for(urn: str, made: dict[str, dict[str, Any]]) -> set[str]:
    """Return the types of what is made before a resource: its parent and its dependencies, and theirs."""
    found: set[str] = set()
    todo = {urn}
    while todo:
        resource = made[todo.pop()]
        before = {*resource.get("dependencies", []), resource.get("parent", urn)}
        todo |= before - found
        found |= before
    return {made[one]["type"] for one in found}


def test_only_the_daemon_set_waits_for_the_nodes(stack: Stack) -> None:
    """Namespace, rights and program are there by then; what waits is deleted before the nodes."""
    made = {resource["urn"]: resource for resource in resources(stack)}
    (installer,) = [urn for urn, one in made.items() if one["type"] == "soci:index:SociInstaller"]
    parts = {one["type"]: waits_for(urn, made) for urn, one in made.items() if one.get("parent") == installer}
    assert len(parts) > 6
    nodes = {"eks:index:ManagedNodeGroup", "aws:eks/nodeGroup:NodeGroup"}
    after_nodes = [kind for kind, before in parts.items() if nodes & before]
    assert after_nodes == ["kubernetes:apps/v1:DaemonSet"]
    (sample,) = [urn for urn, one in made.items() if one["type"] == "kubernetes:batch/v1:Job"]
    (core_dns,) = [urn for urn in made if urn.endswith("Addon::soci-coredns")]
    for later in (sample, core_dns):
        assert "kubernetes:apps/v1:DaemonSet" in waits_for(later, made)


def test_kubeconfig_is_secret_and_asks_aws_for_a_token(stack: Stack) -> None:
    assert "get-token" in stack.outputs()["kubeconfig"]
    assert "[secret]" in stack.run("stack", "output")


def test_core_dns_comes_when_pods_can_start(stack: Stack) -> None:
    """Its creation waits for a node that takes pods; before SOCI there is none. Nobody upgraded EKS's own."""
    assert set(builds(stack)) == set(ADD_ONS)


def test_objects_in_the_cluster_go_with_it(stack: Stack) -> None:
    (cluster,) = [item["urn"] for item in resources(stack) if item["type"] == "eks:index:Cluster"]
    inside = [item for item in resources(stack) if item["type"].startswith("kubernetes:")]
    assert len(inside) > 7
    assert {item.get("deletedWith") for item in inside} == {cluster}


def test_second_up_changes_nothing_also_when_aws_has_released_builds(stack: Stack, account: Account) -> None:
    """The network plug-in and kube-proxy were updated by whatever `pulumi up` came next."""
    before = builds(stack)
    release_builds(account, 1)
    stack.up("--expect-no-changes")
    assert builds(stack) == before


def test_refresh_finds_nothing(stack: Stack) -> None:
    stack.run("refresh", *QUIET, "--expect-no-changes")


def test_another_version_touches_nothing_of_aws(stack: Stack, cluster: FakeNodes) -> None:
    stack.set(version="0.16.1")
    assert not [name for name in stack.plan() if name.startswith(("aws:", "eks:", "pulumi:providers"))]
    stack.up()
    assert {node["metadata"]["labels"]["soci-cluster.io/version"] for node in nodes_of(cluster)} == {"0.16.1"}


def test_another_kubernetes_release_brings_the_add_ons_newest_builds(stack: Stack, account: Account) -> None:
    release_builds(account, 2)
    stack.set(kubernetesVersion="1.36")
    stack.up()
    assert set(builds(stack).values()) == {"v9.9.2-eksbuild.1"}
    release_builds(account, 3)
    stack.up("--expect-no-changes")


def test_an_add_on_has_the_version_that_is_set(stack: Stack) -> None:
    stack.set(addonVersions={"vpc-cni": "v9.9.3-eksbuild.1"})
    of_aws = [name for name in stack.plan() if name.startswith(("aws:", "eks:"))]
    assert of_aws == ["aws:eks/addon:Addon::soci-eks-vpc-cni"]
    stack.up()
    assert builds(stack)["vpc-cni"] == "v9.9.3-eksbuild.1"


def test_a_node_that_joins_later_starts_with_the_taint_and_gets_soci(
    stack: Stack, cluster: FakeNodes
) -> None:
    stack.set(nodeCount=3)
    stack.up()
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    assert status["numberReady"] == len(nodes_of(cluster)) == 3


def test_an_installer_that_goes_alone_takes_soci_off(stack: Stack, cluster: FakeNodes) -> None:
    cluster.left.clear()
    kind = "soci:index:SociInstaller"
    (urn,) = [item["urn"] for item in resources(stack) if item["type"] == kind]
    stack.run("destroy", *QUIET, "--target", urn, "--target-dependents")
    assert cluster.left == {node["metadata"]["name"]: True for node in nodes_of(cluster)}
    assert not [node for node in nodes_of(cluster) if LABEL in node["metadata"]["labels"]]
    stack.up()


def test_destroy_leaves_nothing(stack: Stack, cluster: FakeNodes, account: Account) -> None:
    stack.destroy()
    assert eks_clusters(account) == []
    assert nodes_of(cluster) == []
