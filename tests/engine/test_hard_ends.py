"""Where the true Kubernetes provider leaves a user alone: nothing may hang, nothing may be a dead end, and
the last words name the cause. The stand-in is as awkward as the true provider here."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent import stalled_rollout
from agent.api import Api, Caller
from background import free_port
from kubernetes_api import MERGE_PATCH
from kubernetes_api import Api as KubernetesApi

from tests.engine.fake_cluster import COMPLETED, INSTALLED, INSTALLER, ControlPlane, FakeNodes
from tests.engine.project_stack import Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

NODES = ("node-1", "node-2", "node-3")
DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
CLUSTER_ROLE = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{INSTALLER}"
CLUSTER_ROLE_BINDING = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{INSTALLER}"
OWNER = "soci-cluster.io/owner"
VERSION = "soci-cluster.io/version"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def nodes(answering: FakeNodes) -> Iterator[FakeNodes]:
    """Three nodes that are to get SOCI."""
    with answering.having(dict.fromkeys(NODES, INSTALLED)) as nodes:
        yield nodes


@pytest.fixture
def new_stack(
    cluster: FakeNodes,
    nodes: FakeNodes,
    environment: dict[str, str],
    local_config: dict[str, Any],
    tmp_path: Path,
) -> Iterator[Stack]:
    """A stack of this test's own, gone at its end. It comes before those that share one: a cluster takes one
    stack."""
    stack = Stack(tmp_path / "soci", environment, tmp_path.name, local_config)
    yield stack
    stack.destroy()


@pytest.fixture(scope="module")
def shared_stack(
    nodes: FakeNodes,
    environment: dict[str, str],
    local_config: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack that the tests share."""
    stack = Stack(tmp_path_factory.mktemp("project") / "soci", environment, "hard-ends", local_config)
    yield stack
    stack.destroy()


@pytest.fixture
def stack(shared_stack: Stack, cluster: FakeNodes, local_config: dict[str, Any]) -> Stack:
    """The shared stack, with SOCI on every node."""
    shared_stack.configure(local_config)
    shared_stack.up()
    return shared_stack


def await_true(what: str, holds: Any) -> None:
    """Return when holds() does; fail when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            if holds():
                return
        time.sleep(0.1)
    pytest.fail(f"never: {what}")


def installer_pods(nodes: FakeNodes) -> list[dict[str, Any]]:
    return nodes.api.call(
        "GET", "/api/v1/namespaces/soci-system/pods", labelSelector=f"app.kubernetes.io/name={INSTALLER}"
    )["items"]


def jobs(nodes: FakeNodes) -> list[dict[str, Any]]:
    return nodes.api.call("GET", "/apis/batch/v1/namespaces/default/jobs")["items"]


def recorded(stack: Stack) -> list[tuple[str, ...]]:
    """Return which objects the stack's state has, and by which provider."""
    resources = json.loads(stack.state())["deployment"]["resources"]
    return [(item["urn"], item.get("id", ""), item.get("provider", "")) for item in resources]


def final(said: str) -> str:
    return said[said.rindex("Diagnostics:") :]


# --- an engine that was killed ---


def interrupt_first_up(stack: Stack, nodes: FakeNodes) -> None:
    """Kill the engine while the first `pulumi up` waits for the DaemonSet."""
    nodes.failing |= dict.fromkeys(NODES, "download: not yet. Remedy: wait")
    stack.interrupt_up(lambda: await_true("installers run", lambda: len(installer_pods(nodes)) == len(NODES)))


@pytest.mark.parametrize("version", ["0.16.0", "0.16.1"], ids=["unchanged", "another version by now"])
def test_an_up_that_was_killed_is_taken_up_by_the_next(
    new_stack: Stack, nodes: FakeNodes, version: str
) -> None:
    stack = new_stack
    interrupt_first_up(stack, nodes)
    nodes.failing.clear()
    before = nodes.api.call("GET", DAEMON_SET)["metadata"]["uid"]
    pods = {pod["metadata"]["uid"] for pod in installer_pods(nodes)}
    nodes.left.clear()
    stack.set(version=version)
    stack.up()
    assert nodes.api.call("GET", DAEMON_SET)["metadata"]["uid"] == before
    assert nodes.left == {}, "nothing was uninstalled"
    if version == "0.16.0":
        assert {pod["metadata"]["uid"] for pod in installer_pods(nodes)} == pods
    labels = [nodes.api.call("GET", f"/api/v1/nodes/{name}")["metadata"]["labels"] for name in NODES]
    assert {label["soci-cluster.io/version"] for label in labels} == {version}
    stack.up("--expect-no-changes")


def test_an_up_after_one_that_was_killed_ends_well_only_when_every_node_is_verified(
    new_stack: Stack, nodes: FakeNodes
) -> None:
    """The DaemonSet is imported, and where it is as it should be, nothing else waits for it."""
    new_stack.set(sampleWorkload={"enabled": False})
    interrupt_first_up(new_stack, nodes)
    words = final(new_stack.try_up())
    for name in NODES:
        assert f"node {name}: step download: not yet" in words
    words = final(new_stack.try_up())
    assert "0 of 3 nodes have SOCI 0.16.0 as configured" in words, "the state has the DaemonSet by now"
    nodes.failing.clear()
    new_stack.up()
    labels = [nodes.api.call("GET", f"/api/v1/nodes/{name}")["metadata"]["labels"] for name in NODES]
    assert {label.get("soci-cluster.io/version") for label in labels} == {"0.16.0"}
    new_stack.up("--expect-no-changes")


def test_every_object_that_was_made_and_not_recorded_is_taken_up(stack: Stack, nodes: FakeNodes) -> None:
    paths = (DAEMON_SET, CLUSTER_ROLE, "/api/v1/namespaces/soci-system")
    before = [nodes.api.call("GET", path)["metadata"]["uid"] for path in paths]
    resources = json.loads(stack.state())["deployment"]["resources"]
    kinds = ("Namespace", "ServiceAccount", "DaemonSet", "Role", "ClusterRole")
    for kind in kinds:
        for urn in [item["urn"] for item in resources if item["type"].endswith(f":{kind}")]:
            stack.try_run("state", "delete", "--yes", "--target-dependents", urn)
    kept = {item["type"] for item in json.loads(stack.state())["deployment"]["resources"]}
    assert not [kind for kind in kept if kind.startswith("kubernetes:") and kind.endswith(kinds)]
    stack.up()
    assert [nodes.api.call("GET", path)["metadata"]["uid"] for path in paths] == before
    stack.up("--expect-no-changes")


def test_an_object_with_a_fixed_name_is_made_anew_by_its_deletion_and_a_refresh(
    stack: Stack, nodes: FakeNodes
) -> None:
    """The engine replaces nothing that the program wants imported, nor could it make the new one first."""
    before = nodes.api.call("GET", CLUSTER_ROLE_BINDING)["metadata"]["uid"]
    (urn,) = [urn for urn, *_ in recorded(stack) if urn.endswith("-cluster-role-binding")]
    assert "previously-imported resources that still specify an ID may not be replaced" in final(
        stack.try_up("--replace", urn)
    )
    assert nodes.api.call("GET", CLUSTER_ROLE_BINDING)["metadata"]["uid"] == before
    nodes.api.call("DELETE", CLUSTER_ROLE_BINDING)
    stack.up("--refresh")
    assert nodes.api.call("GET", CLUSTER_ROLE_BINDING)["metadata"]["uid"] != before
    stack.up("--expect-no-changes")


def test_what_another_stack_made_is_never_taken_over(
    stack: Stack, nodes: FakeNodes, local_config: dict[str, Any], tmp_path: Path
) -> None:
    """The other one has the same name, in somebody else's backend."""
    before = nodes.api.call("GET", DAEMON_SET)["metadata"]
    (tmp_path / "backend").mkdir()
    environment = {**stack.environment, "PULUMI_BACKEND_URL": f"file://{tmp_path}/backend"}
    second = Stack(tmp_path / "second", environment, stack.name, local_config)
    seen = second.run("preview", "--non-interactive")
    assert re.search(
        r"warning: the Namespace .* and the DaemonSet .* are there already, made by soci-installer of this "
        r"stack, or of another .*refused",
        seen,
    )
    words = final(second.try_up())
    assert re.search(r"error: the .* is there already, made by soci-installer of this stack, or of", words)
    assert "a second SociInstaller takes a namespace and nodes of its own" in words
    assert "ready by now" not in words
    second.destroy()
    assert nodes.api.call("GET", DAEMON_SET)["metadata"] == before
    stack.up("--expect-no-changes")


def test_a_namespace_that_is_there_already_is_told_in_the_preview(stack: Stack, nodes: FakeNodes) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "taken"}}
    nodes.api.call("POST", "/api/v1/namespaces", namespace)
    stack.set(namespace="taken")
    reason = "the Namespace taken is there already, and not of this program"
    assert f"warning: {reason}" in stack.run("preview", "--non-interactive")
    words = final(stack.try_up())
    assert reason in words
    assert "Remedy: pulumi config set soci:namespace NAME" in words
    stack.set(namespace="soci-system")
    stack.up()
    nodes.api.call("DELETE", "/api/v1/namespaces/taken")


# --- the sample ---


def test_a_sample_that_fails_ends_the_up_at_once_and_the_next_up_runs_it_anew(
    stack: Stack, nodes: FakeNodes
) -> None:
    before = len(jobs(nodes))
    stack.set(sampleWorkload={"image": "registry.invalid/sample:2"})
    nodes.sample_state = {
        "terminated": {"exitCode": 3, "reason": "Error", "message": "ImportError: no module named tensorflow"}
    }
    words = final(stack.try_up())
    assert "the sample, Job default/soci-sample-job-" in words
    assert "on node node-" in words
    assert "Error (exit code 3): ImportError: no module named tensorflow" in words
    assert "pulumi config set --path soci:sampleWorkload.enabled false" in words
    nodes.sample_state = COMPLETED
    stack.up()
    namespace, name = stack.outputs()["samplePod"].split("/")
    job = nodes.api.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    assert job["status"]["succeeded"] == 1
    assert len(jobs(nodes)) == before, "the one that failed is gone"
    stack.up("--expect-no-changes")


def test_a_sample_that_cannot_start_ends_the_up_at_its_own_limit(stack: Stack, nodes: FakeNodes) -> None:
    nodes.sample_state = {
        "waiting": {
            "reason": "ErrImagePull",
            "message": 'Failed to pull image "registry.invalid/sample:1": no such host',
        }
    }
    stack.set(rolloutTimeoutSeconds=30, sampleWorkload={"image": "registry.invalid/sample:3"})
    words = final(stack.try_up())
    assert "[DeadlineExceeded]" in words  # the provider's
    assert "did not end within 30 s" in words
    assert 'Failed to pull image "registry.invalid/sample:1": no such host' in words
    assert "soci:sampleWorkload.image" in words


@pytest.mark.parametrize(
    ("change", "title", "pod"),
    [
        (
            {"rolloutTimeoutSeconds": 30, "sampleWorkload": {"image": "registry.invalid/sample:4"}},
            "the sample",
            "soci-sample-job-",
        ),
        ({"index": {"images": ["registry.invalid/x:1"], "timeoutSeconds": 60}}, "the image index", "soci-"),
    ],
    ids=["sample", "image index"],
)
def test_a_job_whose_node_falls_silent_ends_the_up_after_its_limit(
    stack: Stack, nodes: FakeNodes, change: dict[str, Any], title: str, pod: str
) -> None:
    """Its pod cannot end, so Kubernetes does not say that the Job has failed, and `up` waited for ever."""
    nodes.dead |= set(NODES)  # the API does not know yet
    stack.set(**change)
    words = final(stack.try_up())
    assert re.search(rf"warning: pod [a-z-]+/{pod}\S+ on node node-\d does not end", words)
    assert "[DeadlineExceeded]" in words
    assert re.search(rf"{title}, Job \S+, failed: pod \S+ on node node-\d did not end", words)
    assert "Remedy: repair the node or delete it" in words
    nodes.dead.clear()
    stack.set(index=None)
    stack.up()


# --- a rollout that is held up ---


def test_a_dead_node_is_named_with_the_count_of_those_that_wait_for_it(
    stack: Stack, nodes: FakeNodes
) -> None:
    stack.set(maxUnavailable="1")
    stack.up()
    nodes.kill("node-2")
    stack.set(version="0.16.1", rolloutTimeoutSeconds=30)
    words = final(stack.try_up())
    assert "node node-2: NotReady since 20" in words
    assert "NodeStatusUnknown: Kubelet stopped posting node status." in words
    assert "kubectl delete node" in words
    assert "0 of 3 nodes have SOCI 0.16.1 as configured; 2 more blocked by the nodes above" in words
    assert "ready by now" not in words
    nodes.revive("node-2")
    stack.up()


def account_of_installer(nodes: FakeNodes) -> Caller:
    """Requests with the rights of the installer's pods."""
    path = "/api/v1/namespaces/soci-system/serviceaccounts/soci-installer/token"
    token = nodes.api.call("POST", path, {"spec": {}})["status"]["token"]
    user = {"name": "installer", "user": {"token": token}}
    cluster = {"server": nodes.api.server, "insecure-skip-tls-verify": True}
    kubeconfig = {
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [user],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "installer"}}],
        "current-context": "test",
    }
    return KubernetesApi(kubeconfig).call


def installers(nodes: FakeNodes) -> dict[str, str]:
    """The installers' pods, by node."""
    pods = nodes.api.call("GET", "/api/v1/namespaces/soci-system/pods")["items"]
    return {
        pod["spec"]["nodeName"]: pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["labels"].get("app.kubernetes.io/name") == INSTALLER
    }


def test_one_dead_node_does_not_hold_up_the_rest_for_ever(stack: Stack, nodes: FakeNodes) -> None:
    """The DaemonSet's controller counts it as unavailable, and replaced no other pod."""
    stack.set(maxUnavailable="1")
    stack.up()
    nodes.kill("node-2", "2026-01-01T00:00:00Z")
    stack.set(version="0.16.1", rolloutTimeoutSeconds=30)
    stack.try_up()
    before = installers(nodes)
    caller = account_of_installer(nodes)

    def go_on() -> list[str]:
        """The nodes whose turn it is: each looks now and then."""
        apis = [Api(node, name, "soci-system", INSTALLER, caller) for node, name in installers(nodes).items()]
        return [api.node_name for api in apis if api.node_name != "node-2" and stalled_rollout.go_on(api)]

    def is_changed(node: str) -> bool:
        return nodes.api.call("GET", f"/api/v1/nodes/{node}")["metadata"]["labels"].get(VERSION) == "0.16.1"

    gone = []
    for _ in ("node-1", "node-3"):
        wait_for(lambda: gone.extend(turn := go_on()) or bool(turn), 30, "one more goes on")
        wait_for(lambda: is_changed(gone[-1]), 30, f"{gone[-1]} is changed")
    assert sorted(gone) == ["node-1", "node-3"]
    assert go_on() == []
    assert installers(nodes)["node-2"] == before["node-2"]
    nodes.revive("node-2")
    stack.up()
    assert is_changed("node-2")


def test_a_selector_that_matches_no_node_any_more_names_those_that_keep_soci(
    stack: Stack, nodes: FakeNodes
) -> None:
    stack.set(nodeSelector={"nothing": "here"})
    words = final(stack.try_up())
    assert "SOCI is on no node" not in words
    assert "SOCI stays on node-1, node-2, node-3" in words


# --- which cluster it is ---


def kubeconfig_for(stack: Stack, local_config: dict[str, Any], server: str) -> None:
    content = json.loads(Path(local_config["soci:kubeconfig"]).read_text())
    content["clusters"][0]["cluster"]["server"] = server
    path = stack.directory / "kubeconfig"
    path.write_text(json.dumps(content))
    stack.set(kubeconfig=str(path))


def test_the_same_cluster_at_another_address_is_the_same(
    stack: Stack, nodes: FakeNodes, local_config: dict[str, Any]
) -> None:
    kubeconfig_for(stack, local_config, nodes.api.server.replace("127.0.0.1", "localhost"))
    assert stack.plan() == {"pulumi:providers:kubernetes::soci-kubernetes": "update"}
    stack.up()
    stack.up("--expect-no-changes")


def test_another_cluster_under_the_same_context_is_another_one(
    stack: Stack, local_config: dict[str, Any], tmp_path: Path
) -> None:
    """What is in the old one is not the new one's: taken for that, SOCI would be on no node of it."""
    with ControlPlane.running(tmp_path / "other") as other:
        stack.set(kubeconfig=str(other.kubeconfig))
        plan = stack.plan()
    stack.configure(local_config)
    assert plan["pulumi:providers:kubernetes::soci-kubernetes"] == "replace"
    assert plan["kubernetes:apps/v1:DaemonSet::soci-installer-daemon-set"] == "replace"
    stack.up("--expect-no-changes")


def test_an_unreachable_server_is_told_and_replaces_nothing(
    stack: Stack, local_config: dict[str, Any]
) -> None:
    """The provider may reach it where the program does not: what it needs to do is what fails."""
    before = recorded(stack)
    server = f"https://127.0.0.1:{free_port()}"
    kubeconfig_for(stack, local_config, server)
    warning = f"warning: cannot verify which cluster this is; assuming the same as before: {server} does not"
    seen = stack.run("preview", "--non-interactive")
    assert warning in seen
    assert "to replace" not in seen
    stack.set(version="0.16.1")
    words = final(stack.try_up())
    assert warning in words
    assert "error: " in words.partition("kubernetes:")[2], "the provider's own"
    assert recorded(stack) == before
    stack.configure(local_config)
    stack.up()
    stack.up("--expect-no-changes")


def test_a_new_stack_on_an_unreachable_server_is_warned_of_in_the_preview(
    new_stack: Stack, local_config: dict[str, Any]
) -> None:
    server = f"https://127.0.0.1:{free_port()}"
    kubeconfig_for(new_stack, local_config, server)
    assert f"same as before: {server} does not answer: " in new_stack.run("preview", "--non-interactive")


def test_a_stack_of_a_version_that_knew_its_cluster_by_the_address_is_not_replaced(
    stack: Stack, nodes: FakeNodes
) -> None:
    """Such a version named no owner on its objects either."""
    state = json.loads(stack.state())
    for resource in state["deployment"]["resources"]:
        for part in ("inputs", "outputs"):
            if resource["type"] == "pulumi:providers:kubernetes":
                resource[part]["clusterIdentifier"] = nodes.api.server
            elif resource["type"].startswith("kubernetes:"):
                resource[part]["metadata"].get("annotations", {}).pop(OWNER, None)
    older = stack.directory / "older.json"
    older.write_text(json.dumps(state))
    stack.run("stack", "import", "--file", str(older))
    for path in (DAEMON_SET, CLUSTER_ROLE):
        nodes.api.call("PATCH", path, {"metadata": {"annotations": {OWNER: None}}}, MERGE_PATCH)
    assert not [name for name, operation in stack.plan().items() if "replace" in operation]
    before = nodes.api.call("GET", DAEMON_SET)["metadata"]["uid"]
    stack.up()
    assert not [name for name, operation in stack.plan().items() if "replace" in operation]
    stack.up()
    assert nodes.api.call("GET", DAEMON_SET)["metadata"]["uid"] == before
    stack.up("--expect-no-changes")
