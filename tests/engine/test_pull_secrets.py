"""Pull secrets with the real API server and its Node authorizer: what a node may read is all that is read."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent.kubelet_identity import KubeletIdentity
from agent.pull_secrets import Keeper
from kubernetes_api import Api, ApiError

from tests.engine.fake_cluster import ControlPlane
from tests.fakes.api_server import auth, pod, secret
from tests.fakes.kubelet_node import KubeletNode, kept_credentials, status_of
from tests.waiting import wait_for

NODE, OTHER = "pull-secrets-own", "pull-secrets-other"
SPACE = "pull-secrets"
SECRETS = f"/api/v1/namespaces/{SPACE}/secrets"
PODS = f"/api/v1/namespaces/{SPACE}/pods"
HARBOR = "harbor.corp"


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator's client, with two nodes and a namespace."""
    api = control_plane.api()
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": SPACE}})
    for name in (NODE, OTHER):
        api.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})

    def has_account() -> bool:
        with contextlib.suppress(ApiError):
            api.call("GET", f"/api/v1/namespaces/{SPACE}/serviceaccounts/default")
            return True
        return False

    wait_for(has_account, 30, "the namespace's service account")
    yield api
    for item in api.call("GET", PODS)["items"]:
        api.call("DELETE", f"{PODS}/{item['metadata']['name']}?gracePeriodSeconds=0")
    for path in (*(f"/api/v1/nodes/{name}" for name in (NODE, OTHER)), f"/api/v1/namespaces/{SPACE}"):
        api.call("DELETE", path)


@pytest.fixture
def node(control_plane: ControlPlane, tmp_path: Path) -> Iterator[KubeletNode]:
    """The machine of the first one, on which the process runs."""
    node = KubeletNode(tmp_path / "root", control_plane, NODE)
    ended = threading.Event()
    keeper = Keeper(
        node,
        NODE,
        identity=KubeletIdentity(node),
        log=print,
        ask=lambda question: None,
        ask_own=lambda host: None,
    )
    thread = threading.Thread(target=keeper.run, args=(ended,))
    thread.start()
    yield node
    ended.set()
    thread.join(30)
    assert not thread.is_alive()


def run_pod(api: Api, name: str, node: str, secret_name: str) -> None:
    content = pod(f"{SPACE}/{name}", f"{HARBOR}/shop/app:1", secrets=(secret_name,))
    content["spec"] |= {"nodeName": node, "automountServiceAccountToken": False}
    api.call("POST", PODS, content)


def put_secret(api: Api, name: str, password: str, method: str = "POST") -> None:
    path = SECRETS if method == "POST" else f"{SECRETS}/{name}"
    api.call(method, path, secret(f"{SPACE}/{name}", {HARBOR: auth("robot", password)}))


def password(node: KubeletNode) -> str:
    found = kept_credentials(node)
    return json.loads(found[HARBOR])["Secret"] if HARBOR in found else ""


def status(node: KubeletNode, path: str) -> int:
    return status_of(KubeletIdentity(node), path)


def test_a_node_reads_the_secrets_of_its_own_pods_and_no_others(api: Api, node: KubeletNode) -> None:
    put_secret(api, "own", "first")
    put_secret(api, "foreign", "of another node")
    run_pod(api, "here", NODE, "own")
    run_pod(api, "there", OTHER, "foreign")
    wait_for(lambda: password(node) == "first", 15, "the secret of its own pod")

    assert status(node, f"{SECRETS}/own") == 200
    assert status(node, f"{SECRETS}/foreign") == 403
    assert status(node, f"{SECRETS}?fieldSelector=metadata.name%3Dforeign") == 403
    assert status(node, f"{SECRETS}?watch=1&fieldSelector=metadata.name%3Dforeign") == 403
    assert status(node, SECRETS) == 403
    assert status(node, "/api/v1/secrets") == 403

    put_secret(api, "own", "rotated", method="PUT")
    wait_for(lambda: password(node) == "rotated", 5, "the rotated secret")

    # What a pod has ended with stays readable, to this identity too, for as long as the pod is there.
    ended = [{"op": "add", "path": "/status/phase", "value": "Succeeded"}]
    api.call("PATCH", f"{PODS}/here/status", ended, "application/json-patch+json")
    put_secret(api, "own", "again", method="PUT")
    wait_for(lambda: password(node) == "again", 5, "the secret of a pod that has ended")
    assert status(node, f"{SECRETS}/own") == 200

    api.call("DELETE", f"{PODS}/here?gracePeriodSeconds=0")
    wait_for(lambda: not password(node), 10, "no credential without a pod")
    wait_for(lambda: status(node, f"{SECRETS}/own") == 403, 10, "the right ends with the pod")


def test_a_conflict_is_told_by_an_event_that_the_node_itself_may_put(api: Api, node: KubeletNode) -> None:
    """The registry does not answer here, so nobody knows which one is right."""
    for name in ("one", "two"):
        put_secret(api, name, f"of {name}")
        run_pod(api, name, NODE, name)

    def events() -> list[dict[str, Any]]:
        path = "/api/v1/namespaces/default/events?fieldSelector=reason%3DConflictingCredentials"
        return api.call("GET", path)["items"]

    wait_for(lambda: len(events()) == 1, 30, "the Event")
    (event,) = events()
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Node", NODE)
    assert f"registry {HARBOR}" in event["message"]
    assert password(node) in ("of one", "of two")
    assert "of one" not in json.dumps(event)
