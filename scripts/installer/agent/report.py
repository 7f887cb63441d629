"""What the cluster sees of an install: the node's label, condition, annotation and taint, and Events.

Plain HTTPS to the API server with the pod's service account; shapes: Kubernetes API reference, core/v1.
"""

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

DOMAIN = "soci-cluster.io"
TAINT = f"{DOMAIN}/not-ready"
LABEL = f"{DOMAIN}/version"
ANNOTATION = f"{DOMAIN}/install"
CONDITION = "SociReady"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

Json = dict[str, Any]
Result = TypeVar("Result")
Caller = Callable[[str, str, Json | None, str], Json]


class ApiError(Exception):
    """The API server could not be reached, or refused; ``status`` is 0 when it was not reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def call_api(
    method: str, path: str, body: Json | None = None, content_type: str = "application/json"
) -> Json:
    """One request to the API server from inside a pod.

    Raises:
        ApiError: no answer within 10 seconds, or an error answer.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"https://{host}:{port}{path}", method=method)
    request.add_header("Authorization", "Bearer " + (SERVICE_ACCOUNT / "token").read_text().strip())
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", content_type)
    context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=10) as response:
            return json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        detail = error.read(500).decode(errors="replace")
        raise ApiError(f"{method} {path}: {error.code} {detail}", error.code) from error
    except (OSError, ValueError) as error:
        raise ApiError(f"{method} {path}: {error}") from error


def retry(
    action: Callable[[], Result], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Repeat ``action`` until the API server takes it, for up to ``seconds``; what it forbids is final.

    Raises:
        ApiError: the last one.
    """
    deadline = time.monotonic() + seconds
    pause = 0.2
    while True:
        try:
            return action()
        except ApiError as error:
            final = 400 <= error.status < 500 and error.status not in (401, 409, 429)
            if final or time.monotonic() + pause > deadline:
                raise
        sleep(pause)
        pause = min(pause * 2, 10)


class Reporter:
    """Writes one node's state to the API."""

    def __init__(self, node: str, pod: str, namespace: str, daemonset: str, call: Caller = call_api) -> None:
        self.node_name = node
        self.pod_name = pod
        self._namespace = namespace
        self._daemonset = daemonset
        self.call = call
        self.told = ("", "")  # reason and message of the condition that was set last

    def node(self) -> Json:
        """The Node object."""
        return self.call("GET", f"/api/v1/nodes/{self.node_name}", None, "")

    def success(self, version: str, install: Json | None, message: str) -> None:
        """Mark the node as served by SOCI, the taint last. ``install`` None keeps an earlier annotation."""
        metadata: Json = {"labels": {LABEL: version}}
        if install is not None:
            metadata["annotations"] = {ANNOTATION: json.dumps(install, separators=(",", ":"))}
        self.call("PATCH", f"/api/v1/nodes/{self.node_name}", {"metadata": metadata}, MERGE)
        self.condition(True, "Verified", message)
        self.remove_taint()

    def condition(self, ready: bool | None, reason: str, message: str) -> None:
        """Set the node's SociReady condition; with ``ready`` None its status stays, False at first."""
        now = _now()
        old = {c["type"]: c for c in self.node().get("status", {}).get("conditions", [])}.get(CONDITION, {})
        status = old.get("status", "False") if ready is None else str(ready)
        condition = {
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": message[:1000],
            "lastHeartbeatTime": now,
            "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == status else now,
        }
        body = {"status": {"conditions": [condition]}}
        self.call("PATCH", f"/api/v1/nodes/{self.node_name}/status", body, STRATEGIC)
        self.told = (reason, message)

    def step(self, name: str) -> None:
        """Tell that a step of an install begins: by an Event on the node, and by its condition."""
        self._emit(self._on_node, "Normal", "Installing", f"node {self.node_name}: step {name}")
        self.condition(None, "Installing", f"step {name}")

    def delete_pod(self) -> None:
        """Delete this very pod; its DaemonSet makes another one."""
        self.call("DELETE", f"/api/v1/namespaces/{self._namespace}/pods/{self.pod_name}", None, "")

    def remove_taint(self) -> None:
        """Lift the startup taint; a concurrent change of the taints makes the API answer 409."""
        node = self.node()
        taints = node.get("spec", {}).get("taints", [])
        kept = [taint for taint in taints if taint["key"] != TAINT]
        if kept != taints:
            body = {
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "spec": {"taints": kept or None},
            }
            self.call("PATCH", f"/api/v1/nodes/{self.node_name}", body, MERGE)

    def take_marks(self) -> Json:
        """Take every mark off the node, the taint last; what of the metadata was taken, for `put_marks`."""
        node = self.node()
        taken: Json = {}
        for kind, key in (("labels", LABEL), ("annotations", ANNOTATION)):
            if key in (node["metadata"].get(kind) or {}):
                taken[kind] = {key: node["metadata"][kind][key]}
        if taken:
            gone = {kind: dict.fromkeys(entries) for kind, entries in taken.items()}
            self.call("PATCH", f"/api/v1/nodes/{self.node_name}", {"metadata": gone}, MERGE)
        if any(entry["type"] == CONDITION for entry in node.get("status", {}).get("conditions", [])):
            body = {"status": {"conditions": [{"type": CONDITION, "$patch": "delete"}]}}
            self.call("PATCH", f"/api/v1/nodes/{self.node_name}/status", body, STRATEGIC)
        self.remove_taint()
        return taken

    def put_marks(self, taken: Json) -> None:
        """Give the node its label and annotation again: it was not taken back after all."""
        if taken:
            self.call("PATCH", f"/api/v1/nodes/{self.node_name}", {"metadata": taken}, MERGE)

    def was_deleted(self) -> bool:
        """Whether the DaemonSet is gone or going, its namespace is, or the rights to ask are gone.

        Raises:
            ApiError: the API server was not reached, or did not know.
        """
        try:
            daemonset = self.call("GET", self._daemonset_path, None, "")
        except ApiError as error:
            if error.status == 403:
                # Its rights are gone; unless the API server, just started, does not know any yet.
                self.call("GET", "/version", None, "")
                return True
            if error.status == 404:
                return True
            raise  # 401, too: a pod that was deleted by force has no valid token any more
        if daemonset["metadata"].get("deletionTimestamp"):
            return True
        try:
            # A namespace that goes takes the pods first, and only then their owners.
            namespace = self.call("GET", f"/api/v1/namespaces/{self._namespace}", None, "")
        except ApiError as error:
            if error.status == 403:  # rights of an earlier version
                return False
            if error.status == 404:
                return True
            raise
        return bool(namespace["metadata"].get("deletionTimestamp"))

    @property
    def _daemonset_path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}/daemonsets/{self._daemonset}"

    @property
    def _on_node(self) -> Json:
        return {"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": self.node_name}

    def event(self, kind: str, reason: str, message: str) -> None:
        """Emit an Event (``kind`` Normal or Warning) on the node, and on the DaemonSet, for Pulumi."""
        self._emit(self._on_node, kind, reason, message)
        daemonset = self.call("GET", self._daemonset_path, None, "")
        on_daemonset = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "name": self._daemonset,
            "namespace": self._namespace,
            "uid": daemonset["metadata"]["uid"],
        }
        self._emit(on_daemonset, kind, reason, message)

    def _emit(self, involved: Json, kind: str, reason: str, message: str) -> None:
        path = f"/api/v1/namespaces/{involved.get('namespace', 'default')}/events"
        self.call("POST", path, self._event(involved, kind, reason, message), "application/json")

    def _event(self, involved: Json, kind: str, reason: str, message: str) -> Json:
        now = _now()
        return {
            "metadata": {
                "generateName": "soci-installer-",
                "namespace": involved.get("namespace", "default"),
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "soci-installer", "host": self.node_name},
            "reportingComponent": "soci-installer",
            "reportingInstance": self.pod_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def is_waiting_for_soci(node: Json) -> bool:
    """Whether the node still has the startup taint."""
    return any(taint["key"] == TAINT for taint in node.get("spec", {}).get("taints", []))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
