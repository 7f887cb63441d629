"""The program on an existing cluster, through the real engine: its whole life, and its failures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubecontext
import pytest

from components.cluster_identity import KUBE_SYSTEM
from tests.engine.fake_cluster import INSTALLED, INSTALLER, FakeNodes
from tests.engine.project_stack import QUIET, Stack

NODES = ("node-1", "node-2", "node-3")
DAEMON_SET = "/apis/apps/v1/namespaces/soci-system/daemonsets/" + INSTALLER
TROUBLE = (
    "fetch: http://mirror.invalid answered 404. Remedy: set soci:releaseUrl to a mirror that has this version"
)


@pytest.fixture(scope="module")
def nodes(answering: FakeNodes) -> Iterator[FakeNodes]:
    """Three nodes that are to get SOCI and one that is not."""
    with answering.having({**dict.fromkeys(NODES, INSTALLED), "bystander": {}}) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def stack(
    nodes: FakeNodes,
    environment: dict[str, str],
    local_config: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack that the tests of this module take through its life, in their order."""
    stack = Stack(tmp_path_factory.mktemp("project") / "soci", environment, "local", local_config)
    yield stack
    stack.destroy()


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def daemon_set(nodes: FakeNodes) -> dict[str, Any]:
    return nodes.api.call("GET", DAEMON_SET)


def versions(nodes: FakeNodes) -> dict[str, str | None]:
    """Return the version label of every node."""
    items = nodes.api.call("GET", "/api/v1/nodes")["items"]
    return {
        item["metadata"]["name"]: item["metadata"]["labels"].get("soci-cluster.io/version") for item in items
    }


def test_preview_shows_everything_and_changes_nothing(stack: Stack, nodes: FakeNodes) -> None:
    plan = stack.plan()
    assert set(plan.values()) == {"create"}
    assert {name.split("::")[0] for name in plan} >= {
        "soci:index:SociCluster",
        "soci:index:SociInstaller",
        "kubernetes:core/v1:ConfigMap",
        "kubernetes:apps/v1:DaemonSet",
    }
    namespaces = nodes.api.call("GET", "/api/v1/namespaces")["items"]
    assert "soci-system" not in [item["metadata"]["name"] for item in namespaces]


def test_up_ends_when_every_node_is_verified(stack: Stack, nodes: FakeNodes) -> None:
    stack.up()
    status = daemon_set(nodes)["status"]
    assert status["numberReady"] == status["desiredNumberScheduled"] == len(NODES) > 0
    assert versions(nodes) == dict.fromkeys(NODES, "0.16.0") | {"bystander": None}


def test_the_state_names_the_cluster_where_make_down_looks_for_it(stack: Stack, nodes: FakeNodes) -> None:
    uid = nodes.api.call("GET", KUBE_SYSTEM)["metadata"]["uid"]
    found = kubecontext.deployed(json.loads(stack.state()), "")
    assert found == kubecontext.Deployed(True, frozenset({uid}), "")
    assert kubecontext.of_another("any", {uid}, found) == ""


def test_outputs_name_cluster_installer_and_sample(stack: Stack, nodes: FakeNodes) -> None:
    outputs = stack.outputs()
    assert outputs["clusterName"] == "lab"
    assert outputs["sociVersion"] == "0.16.0"
    assert (outputs["installerNamespace"], outputs["installerDaemonSet"]) == ("soci-system", INSTALLER)
    namespace, name = outputs["samplePod"].split("/")
    assert nodes.api.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")["status"]["succeeded"]
    pods = nodes.api.call("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"job-name={name}")
    assert [pod["status"]["phase"] for pod in pods["items"]] == ["Succeeded"]
    assert outputs["sampleFigures"].startswith("started "), outputs["sampleFigures"]
    # There is no kubelet here to run the installer's doctor; tests/cluster has one.
    assert "its layers are not known" in outputs["sampleFigures"]


def test_kubeconfig_is_a_secret_everywhere(
    stack: Stack, nodes: FakeNodes, local_config: dict[str, Any]
) -> None:
    content = Path(local_config["soci:kubeconfig"]).read_text()
    assert stack.outputs()["kubeconfig"] == content
    assert "[secret]" in stack.run("stack", "output")
    key = json.loads(content)["users"][0]["user"]["client-key-data"]
    assert key not in stack.state()


def test_second_up_changes_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")
    assert stack.changes() == {}


def test_refresh_finds_nothing(stack: Stack) -> None:
    stack.run("refresh", *QUIET, "--expect-no-changes")


def test_another_version_rolls_the_daemon_set_in_place(stack: Stack, nodes: FakeNodes) -> None:
    before = daemon_set(nodes)["metadata"]["uid"]
    stack.set(version="0.16.1")
    plan = stack.plan()
    replaced = {name.split("::")[0] for name, operation in plan.items() if "replace" in operation}
    # What came of the sample is kept as long as its Job.
    assert replaced == {"kubernetes:core/v1:ConfigMap", "kubernetes:batch/v1:Job", "pulumi:index:Stash"}
    assert plan["kubernetes:apps/v1:DaemonSet::soci-installer-daemon-set"] == "update"
    stack.up()
    live = daemon_set(nodes)
    assert live["metadata"]["uid"] == before
    assert live["status"]["numberReady"] == live["status"]["updatedNumberScheduled"] == len(NODES)
    assert set(versions(nodes).values()) == {"0.16.1", None}
    maps = nodes.api.call("GET", "/api/v1/namespaces/soci-system/configmaps")["items"]
    assert len([item for item in maps if "settings.json" in item["data"]]) == 1
    stack.up("--expect-no-changes")


def test_drift_by_kubectl_is_found_and_undone(stack: Stack, nodes: FakeNodes) -> None:
    change = {"spec": {"template": {"spec": {"priorityClassName": "system-cluster-critical"}}}}
    nodes.api.call(
        "PATCH",
        DAEMON_SET,
        change,
        "application/merge-patch+json",
        fieldManager="kubectl-edit",
    )
    stack.up("--refresh")
    assert stack.changes() == {"update": 1}
    assert daemon_set(nodes)["spec"]["template"]["spec"]["priorityClassName"] == "system-node-critical"


def test_failed_install_names_node_step_cause_and_remedy(stack: Stack, nodes: FakeNodes) -> None:
    stack.set(version="0.16.0")
    nodes.failing["node-2"] = TROUBLE
    said = stack.try_up()
    final = said[said.rindex("Diagnostics:") :]
    assert "timed out waiting for the condition" in final
    assert f"node node-2: step {TROUBLE}" in final
    assert "node node-1:" not in final
    assert f"SociInstallFailed: node node-2: step {TROUBLE}" in said  # the Event, live
    # The state is kept, and once the cause is gone the same command finishes the work.
    nodes.failing.clear()
    stack.up()
    assert daemon_set(nodes)["status"]["numberReady"] == len(NODES)
    assert set(versions(nodes).values()) == {"0.16.0", None}


def test_absent_takes_soci_off_every_node_and_the_sample_away(stack: Stack, nodes: FakeNodes) -> None:
    before = daemon_set(nodes)["metadata"]["uid"]
    nodes.left.clear()  # of the modules before
    stack.set(state="absent", releaseUrl="http://mirror.invalid")  # nothing is asked of it
    stack.up()
    assert daemon_set(nodes)["metadata"]["uid"] == before
    assert set(versions(nodes).values()) == {None}
    outputs = stack.outputs()
    assert (outputs["sociState"], outputs["sociVersion"], outputs["samplePod"]) == ("absent", "", "")
    assert nodes.left == {}, "a rollout is no uninstall"
    stack.up("--expect-no-changes")


def test_a_refused_uninstall_names_the_node_and_the_pods(
    stack: Stack, nodes: FakeNodes, local_config: dict[str, Any]
) -> None:
    stack.set(state=None, releaseUrl=local_config["soci:releaseUrl"])
    stack.up()
    refusal = "uninstall: lazily loaded containers are running: default/app. Remedy: drain the node"
    nodes.failing["node-1"] = refusal
    stack.set(state="absent")
    assert f"node node-1: step {refusal}" in stack.try_up()
    nodes.failing.clear()
    stack.up()
    assert set(versions(nodes).values()) == {None}


@pytest.mark.failure_mode(38)
def test_another_namespace_has_a_verified_installer_before_the_old_one_goes(
    stack: Stack, nodes: FakeNodes
) -> None:
    """The new one has claimed the nodes by then; the old one's end must not uninstall them."""
    stack.set(state=None)
    stack.up()
    stack.set(namespace="elsewhere")
    done = stack.run("up", *QUIET)
    created = done.index("soci-installer-daemon-set created replacement")
    deleted = done.index("soci-installer-daemon-set deleting original")
    assert created < deleted


def test_destroy_leaves_no_object_behind(stack: Stack, nodes: FakeNodes) -> None:
    nodes.left.clear()
    stack.destroy()
    assert nodes.left == dict.fromkeys(NODES, True), "the installers ended before their rights"
    assert set(versions(nodes).values()) == {None}
    namespaces = nodes.api.call("GET", "/api/v1/namespaces")["items"]
    assert "soci-system" not in [item["metadata"]["name"] for item in namespaces]
    roles = nodes.api.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")["items"]
    assert INSTALLER not in [role["metadata"]["name"] for role in roles]
    assert not kubecontext.deployed(json.loads(stack.state()), "").has_resources
