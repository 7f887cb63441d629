"""An EKS cluster that somebody deleted beside the stack: what each command says and does, as
docs/operations.md has it."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import eks_objects
import pytest

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import INSTALLER, ControlPlane, FakeNodes
from tests.engine.project_stack import QUIET, Stack

pytestmark = pytest.mark.slow

DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
NODES = "/api/v1/nodes"


class Endpoint(socketserver.ThreadingTCPServer):
    """The address of a cluster, until it is closed: what connects there reaches the tests' API server."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, server: str) -> None:
        self.target = (urlsplit(server).hostname, urlsplit(server).port)
        super().__init__(("127.0.0.1", 0), Relay)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Let nobody connect any more."""
        self.shutdown()
        self.server_close()


class Relay(socketserver.BaseRequestHandler):
    """One connection to the endpoint."""

    def handle(self) -> None:
        assert isinstance(self.server, Endpoint)
        with socket.create_connection(self.server.target) as far:
            back = threading.Thread(target=copy, args=(far, self.request), daemon=True)
            back.start()
            copy(self.request, far)
            back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes, and its end."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


class Clusters:
    """The EKS clusters of the account, each of which has an address of its own."""

    def __init__(self, kubeconfig: Path, plane: ControlPlane) -> None:
        self.kubeconfig, self.plane = kubeconfig, plane
        self.open()

    def open(self) -> None:
        """Have the next cluster at an address that none had before."""
        content = json.loads(self.plane.kubeconfig.read_text())
        self.endpoint = Endpoint(content["clusters"][0]["cluster"]["server"])
        content["clusters"][0]["cluster"]["server"] = self.endpoint.url
        self.kubeconfig.write_text(json.dumps(content))

    def delete(self, account: Account, cluster: FakeNodes, name: str) -> None:
        """Delete a cluster and all that is in it, as somebody does in the console."""
        eks = account.client("eks")
        for group in eks.list_nodegroups(clusterName=name)["nodegroups"]:
            eks.delete_nodegroup(clusterName=name, nodegroupName=group)
        eks.delete_cluster(name=name)
        for node in cluster.api.call("GET", NODES)["items"]:
            cluster.api.call("DELETE", f"{NODES}/{node['metadata']['name']}")
        eks_objects.end()
        self.endpoint.close()
        self.open()


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


@pytest.fixture(scope="module")
def clusters(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    clusters = Clusters(tmp_path_factory.mktemp("clusters") / "kubeconfig", control_plane)
    yield clusters
    clusters.endpoint.close()


@pytest.fixture(scope="module")
def stack(clusters: Clusters, eks_stack: EksStack) -> Stack:
    """A stack whose cluster goes again and again."""
    settings: dict[str, Any] = {
        "soci:clusterName": "gone",
        "soci:version": "0.16.0",
        "soci:sampleWorkload": {"enabled": False},
    }
    return eks_stack("gone", settings, {"SOCI_LAB_EKS": str(clusters.kubeconfig)})


@pytest.fixture
def _gone(
    stack: Stack, clusters: Clusters, account: Account, cluster: FakeNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stack's cluster was there, and somebody deleted it."""
    monkeypatch.setenv("SOCI_LAB_EKS", str(clusters.plane.kubeconfig))
    stack.up()
    clusters.delete(account, cluster, "gone")


@pytest.mark.usefixtures("_gone")
def test_preview_and_up_believe_the_state_and_a_refresh_makes_a_new_cluster(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    stack.run("preview", "--non-interactive", "--expect-no-changes")
    stack.up("--expect-no-changes")
    assert "configured Kubernetes cluster is unreachable" in stack.try_up("--refresh")
    stack.environment["PULUMI_K8S_DELETE_UNREACHABLE"] = "true"
    stack.up("--refresh")
    del stack.environment["PULUMI_K8S_DELETE_UNREACHABLE"]
    assert account.client("eks").list_clusters()["clusters"] == ["gone"]
    status = cluster.api.call("GET", DAEMON_SET)["status"]
    assert status["numberReady"] == status["desiredNumberScheduled"] == 2
    # The SDK made an argument of the provider from the variable.
    assert stack.plan() == {"pulumi:providers:kubernetes::soci-kubernetes": "update"}
    stack.up()
    stack.up("--expect-no-changes")


@pytest.mark.usefixtures("_gone")
def test_what_a_changed_up_meets_is_told(stack: Stack) -> None:
    """The engine asks AWS only for what changes."""
    stack.set(nodeCount=3)
    said = stack.try_up()
    assert "the EKS cluster gone is gone: somebody deleted it beside this stack. Remedy: " in said
    stack.set(nodeCount=None)


def test_destroy_ends(stack: Stack) -> None:
    stack.run("destroy", *QUIET)
    assert "resources" not in json.loads(stack.state())["deployment"]
