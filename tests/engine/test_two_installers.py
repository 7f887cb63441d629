"""Two pools of one cluster, each with an installer of its own, in a program of the user's own.

The installers get no kubeconfig but that of their provider.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent.marks import LABEL

from tests.engine.fake_cluster import INSTALLER, ControlPlane, FakeNodes
from tests.engine.project_stack import Stack

pytestmark = pytest.mark.slow

PROGRAM = """
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
from components import SociInstaller

cluster = k8s.Provider("lab", kubeconfig=Path("kubeconfig").read_text())
for name, arguments in json.loads(Path("pools.json").read_text()).items():
    SociInstaller(name, arguments, pulumi.ResourceOptions(provider=cluster))
"""
NODES = {"gpu-1": "gpu", "web-1": "web"}
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Program(Stack):
    """A stack of PROGRAM, whose pools a test changes."""

    def __init__(self, directory: Path, environment: dict[str, str], kubeconfig: Path, mirror: str) -> None:
        super().__init__(directory, environment, directory.parent.name, {})
        self.mirror = mirror
        (directory / "__main__.py").unlink()
        (directory / "__main__.py").write_text(PROGRAM)
        (directory / "kubeconfig").symlink_to(kubeconfig)

    def install(self, **pools: dict[str, Any]) -> None:
        """Have an installer of these arguments for each pool, from the next `pulumi up` on."""
        common = {"version": "0.16.0", "release_url": self.mirror, "rollout_timeout_seconds": 30}
        content = {name: common | arguments for name, arguments in pools.items()}
        (self.directory / "pools.json").write_text(json.dumps(content))


def pool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"namespace": f"soci-{name}", "node_selector": {"pool": name}, **arguments}


GPU, WEB = pool("gpu", mode="parallel"), pool("web", mode="lazy")


@pytest.fixture(scope="module")
def nodes(answering: FakeNodes) -> Iterator[FakeNodes]:
    """A node in each pool."""
    with answering.having({name: {"pool": of} for name, of in NODES.items()}) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def stack(
    nodes: FakeNodes,
    control_plane: ControlPlane,
    environment: dict[str, str],
    release_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    """A stack of two pools, which the tests of this module take through its life, in their order."""
    directory = tmp_path_factory.mktemp("pools") / "soci"
    stack = Program(directory, environment, control_plane.kubeconfig, release_url)
    stack.install(gpu=GPU, web=WEB)
    yield stack
    stack.destroy()


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def with_soci(cluster: FakeNodes) -> set[str]:
    """Return the nodes that have SOCI."""
    nodes = cluster.api.call("GET", "/api/v1/nodes", labelSelector=LABEL)["items"]
    return {node["metadata"]["name"] for node in nodes}


def mode(cluster: FakeNodes, namespace: str) -> str:
    """Return the mode that a namespace's installer was told."""
    maps = cluster.api.call("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    (told,) = [item["data"]["settings.json"] for item in maps if "settings.json" in item["data"]]
    return json.loads(told)["mode"]


def test_two_pools_come_up_each_in_its_mode(stack: Program, cluster: FakeNodes) -> None:
    """The second one was told that the ClusterRole soci-installer is there already."""
    stack.up()
    assert with_soci(cluster) == set(NODES)
    assert (mode(cluster, "soci-gpu"), mode(cluster, "soci-web")) == ("parallel", "lazy")
    stack.up("--expect-no-changes")


def test_a_failed_node_is_told_by_what_the_provider_reads_the_cluster_with(
    stack: Program, cluster: FakeNodes
) -> None:
    """Without a `kubeconfig` of its own the installer only said where to look."""
    cluster.failing["gpu-1"] = "download: the mirror is away. Remedy: mend it"
    stack.install(gpu=GPU | {"version": "0.16.1"}, web=WEB)
    said = stack.try_up()
    assert "node gpu-1: step download: the mirror is away. Remedy: mend it" in said
    assert "0 of 1 nodes have SOCI 0.16.1 as configured" in said
    cluster.failing.clear()
    stack.up()


def test_a_pool_that_takes_another_namespace_is_its_own_successor(stack: Program, cluster: FakeNodes) -> None:
    """For a while both are there, and the node is the new one's (agent/owner.py)."""
    stack.install(gpu=GPU | {"version": "0.16.1", "namespace": "soci-new"}, web=WEB)
    stack.up()
    assert mode(cluster, "soci-new") == "parallel"
    status = cluster.api.call("GET", f"/apis/apps/v1/namespaces/soci-new/daemonsets/{INSTALLER}")["status"]
    assert status["numberReady"] == 1


def test_an_installer_that_selects_anothers_node_is_refused_by_the_preview(
    stack: Program, cluster: FakeNodes
) -> None:
    """Both would have said that they serve the node, in the mode of the one whose pod started last."""
    everywhere = {"namespace": "soci-all", "mode": "lazy-or-parallel"}
    stack.install(gpu=GPU | {"version": "0.16.1", "namespace": "soci-new"}, web=WEB, all=everywhere)
    for said in (stack.try_preview(), stack.try_up()):
        assert "node gpu-1: the installer soci-new/soci-installer selects it, too" in said
        assert "Remedy: give each installer nodes of its own" in said
    assert mode(cluster, "soci-new") == "parallel"
    assert not cluster.api.call("GET", "/apis/apps/v1/namespaces/soci-all/daemonsets")["items"]


def test_a_pool_that_goes_leaves_the_other_one_alone(stack: Program, cluster: FakeNodes) -> None:
    cluster.left.clear()
    stack.install(web=WEB)
    stack.up()
    assert with_soci(cluster) == {"web-1"}
    assert cluster.left == {"gpu-1": True}
    status = cluster.api.call("GET", f"/apis/apps/v1/namespaces/soci-web/daemonsets/{INSTALLER}")["status"]
    assert status["numberReady"] == 1
    names = {f"{INSTALLER}-soci-web"}
    for kind in ("clusterroles", "clusterrolebindings"):
        found = cluster.api.call("GET", f"{RBAC}/{kind}")["items"]
        assert {o["metadata"]["name"] for o in found if INSTALLER in o["metadata"]["name"]} == names


def test_two_that_come_at_the_same_time_do_not_share_a_node_unnoticed(
    stack: Program, cluster: FakeNodes
) -> None:
    stack.install(web=WEB, one=pool("gpu"), two=pool("gpu") | {"namespace": "soci-two"})
    said = stack.try_up()
    assert "node gpu-1: the installer soci-" in said
    stack.install(web=WEB)
    stack.up()
