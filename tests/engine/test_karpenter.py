"""Karpenter itself on a real API server: how many nodes it starts for a NodePool of ours, and what it makes
of the startup taint.

Its own controllers run, with AWS's definitions of its kinds and with kwok, its provider without a cloud. The
tests play EC2 and kubelet (a node joins, and is ready); the installer's agent is its own code.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from agent import api as agent_api
from agent.marks import TAINT, Marks, has_startup_taint
from background import Process
from binaries import build
from kubernetes_api import STRATEGIC_PATCH, Api, ApiError

from components import ec2_node_class, node_pool, pool_labels
from tests.engine.fake_cluster import ControlPlane, condition
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
PATIENCE_S = 60
KARPENTER = "/apis/karpenter.sh/v1"
AWS = "/apis/karpenter.k8s.aws/v1"
KWOK = "/apis/karpenter.kwok.sh/v1alpha1/kwoknodeclasses"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NODE_CLASS = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
UNREGISTERED = {
    "key": "karpenter.sh/unregistered",
    "effect": "NoExecute",
}  # in the user data that Karpenter writes
M6I_XLARGE = {
    "name": "m6i.xlarge",
    "architecture": "amd64",
    "operatingSystems": ["linux"],
    "resources": {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "58"},
    "offerings": [
        {
            "Price": 0.2,
            "Available": True,
            "Requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eu-west-1a"]},
            ],
        }
    ],
}
STEADY = {"disruption": {"consolidateAfter": "Never"}}
ONE_A_NODE, ROOM_BESIDE = "3", "500m"  # CPUs of a pod


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A Kubernetes API of its own: Karpenter shall see no other test's nodes."""
    with ControlPlane.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Api:
    """The API, which knows Karpenter's kinds."""
    api = plane.api()
    printed = subprocess.run(
        [build("karpenter") / "karpenter-crds"], capture_output=True, text=True, check=True, timeout=60
    )
    for line in printed.stdout.splitlines():
        definition = json.loads(line)
        definition.pop("status", None)
        api.call("POST", DEFINITIONS, definition)

    def is_served(path: str) -> bool:
        with contextlib.suppress(ApiError):
            return bool(api.call("GET", path)["kind"])
        return False

    for path in (f"{KARPENTER}/nodepools", f"{KARPENTER}/nodeclaims", f"{AWS}/ec2nodeclasses", KWOK):
        wait_for(lambda: is_served(path), PATIENCE_S, path)  # noqa: B023
    return api


@pytest.fixture(scope="module")
def karpenter(plane: ControlPlane, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Karpenter. Its instances join when a test lets them, not by themselves."""
    node_class = {
        "apiVersion": "karpenter.kwok.sh/v1alpha1",
        "kind": NODE_CLASS["kind"],
        "metadata": {"name": NODE_CLASS["name"]},
        "spec": {"nodeRegistrationDelay": "1h"},
    }
    api.call("POST", KWOK, node_class)
    folder = tmp_path_factory.mktemp("karpenter")
    (folder / "instance-types.json").write_text(json.dumps([M6I_XLARGE]))
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(plane.kubeconfig),
        "INSTANCE_TYPES_FILE_PATH": str(folder / "instance-types.json"),
        "SYSTEM_NAMESPACE": "default",
        "DISABLE_LEADER_ELECTION": "true",
        "METRICS_PORT": "0",
        "HEALTH_PROBE_PORT": "0",
    }
    process = Process(folder / "karpenter.log", [str(build("karpenter") / "karpenter")], environment)
    yield process
    process.stop()


class Pool:
    """A NodePool, the pods that want it, and the instances that Karpenter starts for them."""

    def __init__(self, api: Api, manifest: dict[str, Any]) -> None:
        self.api = api
        self.name = manifest["metadata"]["name"]
        manifest["spec"]["template"]["spec"]["nodeClassRef"] = NODE_CLASS
        api.call("POST", f"{KARPENTER}/nodepools", manifest)

    def want(self, name: str, cpu: str) -> None:
        """Make a pod that tolerates nothing and runs on nodes of this pool only."""
        container = {"name": "main", "image": "example.com/main", "resources": {"requests": {"cpu": cpu}}}
        pod = {
            "metadata": {"name": name},
            "spec": {"nodeSelector": pool_labels(self.name), "containers": [container]},
        }
        self.api.call("POST", "/api/v1/namespaces/default/pods", pod)

    def told_of(self, pod: str) -> list[str]:
        """What Karpenter has said about a pod: the reasons and words of its Events."""
        selector = f"involvedObject.name={pod}"
        events = self.api.call("GET", "/api/v1/namespaces/default/events", fieldSelector=selector)["items"]
        by_karpenter = [event for event in events if event["source"].get("component") == "karpenter"]
        return [f"{event['reason']}: {event['message']}" for event in by_karpenter]

    def claims(self) -> list[dict[str, Any]]:
        """The instances that Karpenter wants or has."""
        selector = f"karpenter.sh/nodepool={self.name}"
        return self.api.call("GET", f"{KARPENTER}/nodeclaims", labelSelector=selector)["items"]

    def launched(self, count: int) -> list[dict[str, Any]]:
        """The instances, when as many of them run."""
        wait_for(
            lambda: sum("providerID" in claim.get("status", {}) for claim in self.claims()) >= count,
            PATIENCE_S,
            f"{count} instances of {self.name}",
        )
        return self.claims()

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of the pool."""
        selector = ",".join(f"{key}={value}" for key, value in pool_labels(self.name).items())
        return self.api.call("GET", "/api/v1/nodes", labelSelector=selector)["items"]

    def has(self, kind: str, count: int) -> bool:
        """Whether a condition of the instances (Registered, Initialized) is true of as many."""
        conditions = [
            entry for claim in self.claims() for entry in claim.get("status", {}).get("conditions", [])
        ]
        return sum(entry["type"] == kind and entry["status"] == "True" for entry in conditions) == count

    def places(self) -> dict[str, str]:
        """Pods of this pool that have been scheduled, with their nodes."""
        pods = self.api.call("GET", "/api/v1/namespaces/default/pods")["items"]
        ours = [pod for pod in pods if pod["spec"]["nodeSelector"] == pool_labels(self.name)]
        return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in ours if "nodeName" in pod["spec"]}


def join(api: Api, claim: dict[str, Any]) -> str:
    """Do what the kubelet of an instance does: register the node as its user data says, and become ready."""
    name = claim["status"]["providerID"].removeprefix("kwok://")
    node = {
        "metadata": {
            "name": name,
            "labels": {
                **claim["metadata"]["labels"],
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
            },
        },
        "spec": {
            "providerID": claim["status"]["providerID"],
            "taints": [UNREGISTERED, *claim["spec"]["startupTaints"]],
        },
    }
    api.call("POST", "/api/v1/nodes", node)
    ready = {
        "capacity": claim["status"]["allocatable"],
        "allocatable": claim["status"]["allocatable"],
        "conditions": [condition("Ready", True, "KubeletReady", "")],
    }
    api.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": ready}, STRATEGIC_PATCH)
    return name


class Agent(threading.Thread):
    """The end of an install on a node: the agent's own code marks it, until the API takes it."""

    def __init__(self, api: Api, node: str) -> None:
        super().__init__(daemon=True)
        self.api = api
        self.marks = Marks(agent_api.Api(node, "pod", "soci-system", "soci-installer", self._call))
        self.tries = 0
        self.start()

    def _call(self, method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        try:
            return self.api.call(method, path, body, content_type)
        except ApiError as error:
            raise agent_api.ApiError(str(error), error.status) from error

    def run(self) -> None:
        with contextlib.suppress(agent_api.ApiError):
            agent_api.retry(self._mark, PATIENCE_S)

    def _mark(self) -> None:
        try:
            self.marks.put("0.16.1", None, "verified")
        finally:
            self.tries += 1


@pytest.mark.failure_mode(44)
def test_from_none_to_five_exactly_the_nodes_needed_and_none_stays_tainted(
    api: Api, karpenter: Process
) -> None:
    pool = Pool(api, node_pool("five", STEADY, pool="five"))
    pods = [f"five-{number}" for number in range(5)]
    for pod in pods:
        pool.want(pod, ONE_A_NODE)
    nodes = [join(api, claim) for claim in pool.launched(5)]
    wait_for(lambda: pool.has("Registered", 5), PATIENCE_S, "nodes registered")

    # The nodes are ready and tainted. Karpenter counts on them: a further pod gets a place there, not a node.
    pool.want("five-beside", ROOM_BESIDE)
    for pod in [*pods, "five-beside"]:
        wait_for(lambda: any(said.startswith("Nominated: ") for said in pool.told_of(pod)), PATIENCE_S, pod)  # noqa: B023
    assert all(map(has_startup_taint, pool.nodes()))
    assert not pool.places(), "no pod lands before SOCI serves"
    assert len(pool.claims()) == 5

    for agent in [Agent(api, node) for node in nodes]:
        agent.join(PATIENCE_S)
    wait_for(lambda: pool.has("Initialized", 5), PATIENCE_S, "nodes initialized")
    wait_for(lambda: len(pool.places()) == 6, PATIENCE_S, "pods scheduled")
    assert {pool.places()[pod] for pod in pods} == set(nodes)
    assert not any(map(has_startup_taint, pool.nodes()))
    assert len(pool.claims()) == 5


@pytest.mark.failure_mode(44)
def test_node_is_not_tainted_for_good_when_karpenter_comes_after_the_installer(
    api: Api, karpenter: Process
) -> None:
    """Karpenter puts startup taints on a node when it registers it; the installer may be through by then."""
    pool = Pool(api, node_pool("late", STEADY, pool="late"))
    pool.want("late-1", ONE_A_NODE)
    (claim,) = pool.launched(1)
    karpenter.process.send_signal(signal.SIGSTOP)
    try:
        agent = Agent(api, join(api, claim))
        wait_for(lambda: agent.tries > 0, PATIENCE_S, "the installer is through")
    finally:
        karpenter.process.send_signal(signal.SIGCONT)
    wait_for(lambda: pool.has("Initialized", 1), PATIENCE_S, "the node can be used")
    wait_for(lambda: "late-1" in pool.places(), PATIENCE_S, "its pod is scheduled")


def test_startup_taint_among_the_lasting_ones_starts_no_node(api: Api, karpenter: Process) -> None:
    """Why node_pool refuses it; the manifest is one that people write."""
    manifest = node_pool("wrong", pool="wrong")
    template = manifest["spec"]["template"]["spec"]
    template["taints"] = template.pop("startupTaints")
    pool = Pool(api, manifest)
    pool.want("wrong-1", ONE_A_NODE)
    wait_for(
        lambda: any("did not tolerate taint" in said and TAINT in said for said in pool.told_of("wrong-1")),
        PATIENCE_S,
        "Karpenter says why it starts no node",
    )
    assert pool.claims() == []


@pytest.mark.parametrize("options", [{}, {"instance_store": True, "hop_limit": 2, "volume_throughput": 1000}])
def test_manifests_are_what_awss_definitions_ask_for(api: Api, options: dict[str, Any]) -> None:
    """Strictly: unknown fields are errors, and so is what the rules in the definitions forbid."""
    discovery = [{"tags": {"karpenter.sh/discovery": "demo"}}]
    spec = {"role": "nodes", "subnetSelectorTerms": discovery, "securityGroupSelectorTerms": discovery}
    strictly = {"dryRun": "All", "fieldValidation": "Strict"}
    api.call("POST", f"{AWS}/ec2nodeclasses", ec2_node_class("gpu", spec, **options), **strictly)
    requirement = {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["g6"]}
    pool = node_pool("gpu", {"template": {"spec": {"requirements": [requirement]}}})
    api.call("POST", f"{KARPENTER}/nodepools", pool, **strictly)
