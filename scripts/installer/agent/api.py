"""The API server, as the installer's pod talks to it: plain HTTPS with its service account.

Shapes of requests and answers: Kubernetes API reference.
"""

import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SOURCE = "soci-installer"  # of Events
JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

Json = dict[str, Any]
NO_LABELS: Mapping[str, str] = {}
Result = TypeVar("Result")
Caller = Callable[[str, str, Json | None, str], Json]


class ApiError(Exception):
    """The API server could not be reached, or refused; ``status`` is 0 when it was not reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def call(method: str, path: str, body: Json | None = None, content_type: str = "application/json") -> Json:
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


@dataclass(frozen=True)
class Api:
    """The API server, with the names of this pod, its DaemonSet and its node."""

    node_name: str
    pod_name: str
    namespace: str
    daemonset: str
    caller: Caller = call

    @classmethod
    def of_this_pod(cls) -> "Api":
        """By the names that the DaemonSet gives its containers."""
        namespace = os.environ.get("POD_NAMESPACE", "soci-system")
        daemonset = os.environ.get("DAEMONSET_NAME", "soci-installer")
        return cls(os.environ["NODE_NAME"], os.environ.get("POD_NAME", ""), namespace, daemonset)

    def get(self, path: str) -> Json:
        return self.caller("GET", path, None, "")

    def post(self, path: str, body: Json) -> Json:
        return self.caller("POST", path, body, JSON)

    def node(self) -> Json:
        return self.get(self._node_path)

    def patch_node(self, body: Json) -> None:
        """Merge ``body`` into the node; a resourceVersion in it makes a concurrent change an error 409."""
        self.caller("PATCH", self._node_path, body, MERGE)

    def patch_node_status(self, body: Json) -> None:
        self.caller("PATCH", f"{self._node_path}/status", body, STRATEGIC)

    def emit(
        self,
        involved: Json,
        kind: str,
        reason: str,
        message: str,
        name: str = "",
        *,
        begins_with_time: bool = False,
    ) -> None:
        """Put an Event (``kind`` Normal or Warning) on an object; a second one of that ``name`` is refused
        with 409."""
        namespace = involved.get("namespace", "default")
        naming = {"name": name} if name else {"generateName": f"{SOURCE}-"}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {**naming, "namespace": namespace},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": (f"{now} {message}" if begins_with_time else message)[:1000],
            "source": {"component": SOURCE, "host": self.node_name},
            "reportingComponent": SOURCE,
            "reportingInstance": self.pod_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self.post(f"/api/v1/namespaces/{namespace}/events", event)

    def pods(self, labels: Mapping[str, str] = NO_LABELS, name: str = "") -> list[Json]:
        """Those in this pod's namespace that have the labels, and the name if one is given."""
        selectors = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        if name:
            selectors["fieldSelector"] = f"metadata.name={name}"
        query = urllib.parse.urlencode(selectors)
        return self.get(f"/api/v1/namespaces/{self.namespace}/pods?{query}")["items"]

    def delete_pod(self) -> None:
        """Delete this very pod; its DaemonSet makes another one."""
        self.caller("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{self.pod_name}", None, "")

    @property
    def on_node(self) -> Json:
        """The node as what an Event is about."""
        return {"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": self.node_name}

    @property
    def daemonset_path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{self.daemonset}"

    @property
    def _node_path(self) -> str:
        return f"/api/v1/nodes/{self.node_name}"
