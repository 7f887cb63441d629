"""The part of an API server that the agent talks to: one node, the pods on it, the installer's own objects.

A PATCH does what the API server does with it: a merge patch by RFC 7386, a strategic one with the conditions
as a list by type. A write bumps the node's resourceVersion, and one that names another version is refused.
"""

import copy
import http
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent.api import MERGE, STRATEGIC, ApiError
from agent.marks import CONDITION

Json = dict[str, Any]
MERGE_KEYS = {"conditions": "type"}  # of the lists that a strategic patch merges; all others it replaces


def patched(old: Json, change: Json, is_strategic: bool) -> Json:
    """``old`` after a patch; a key that the patch sets to None is gone."""
    new = copy.deepcopy(old)
    for key, value in change.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            before = new.get(key)
            new[key] = patched(before if isinstance(before, dict) else {}, value, is_strategic)
        elif is_strategic and key in MERGE_KEYS:
            new[key] = _merged(new.get(key) or [], value, MERGE_KEYS[key])
        else:
            new[key] = copy.deepcopy(value)
    return new


def _merged(old: list[Json], changes: list[Json], name: str) -> list[Json]:
    entries = {entry[name]: entry for entry in old}
    for change in changes:
        if change.get("$patch") == "delete":
            entries.pop(change[name], None)
        else:
            entries[change[name]] = patched(entries.get(change[name], {}), change, True)
    return list(entries.values())


class FakeApi:
    """Answers the agent's calls, and remembers them; stands where `api.call` does."""

    def __init__(self, **node: Json) -> None:
        """``node``: metadata, spec and status that the node shall have."""
        self.node = patched({"metadata": {"resourceVersion": "7"}, "spec": {}, "status": {}}, node, False)
        self.daemonset: Json = {"metadata": {"uid": "u"}}
        self.namespace: Json = {"metadata": {}}
        self.pods: dict[str, Json] = {}  # by name; what of a pod is asked for
        self.guarded: set[str] = set()  # pods whose eviction their budget forbids
        self.errors: dict[str, int] = {}  # part of a path to the status of its answer; 0: no answer at all
        self.evictions: list[Json] = []  # those that were granted
        self.requests: list[tuple[str, str, Any]] = []

    def __call__(self, method: str, path: str, body: Any, content_type: str) -> Json:
        self.requests.append((method, path, copy.deepcopy(body)))
        for part, status in self.errors.items():
            if part in path:
                raise refusal(method, path, status)
        return copy.deepcopy(self._answer(method, path, body, content_type))

    def _answer(self, method: str, path: str, body: Any, content_type: str) -> Json:
        url = urlsplit(path)
        match url.path.strip("/").split("/"):
            case ["api", "v1", "nodes", _]:
                return self._node(method, path, {**body, "status": {}} if body else {}, content_type)
            case ["api", "v1", "nodes", _, "status"]:
                return self._node(method, path, {"status": body["status"]}, content_type)
            case ["apis", "apps", "v1", "namespaces", _, "daemonsets", _] if method == "GET":
                return self.daemonset
            case ["api", "v1", "namespaces", _] if method == "GET":
                return self.namespace
            case ["api", "v1", "namespaces", _, "events"] if method == "POST":
                return body
            case ["api", "v1", "namespaces", _, "pods"] if method == "GET":
                return {"items": self._selected(parse_qs(url.query))}
            case ["api", "v1", "namespaces", _, "pods", name, "eviction"] if name in self.pods:
                return self._evict(path, name, body)
            case ["api", "v1", "namespaces", _, "pods", name] if name in self.pods:
                return self.pods.pop(name) if method == "DELETE" else self.pods[name]
            case ["version"]:
                return {}
        raise refusal(method, path, 404)

    def _node(self, method: str, path: str, change: Json, content_type: str) -> Json:
        if method == "GET":
            return self.node
        if method != "PATCH" or content_type not in (MERGE, STRATEGIC):
            raise refusal(method, path, 415)
        metadata = self.node["metadata"]
        if change.get("metadata", {}).get("resourceVersion") not in (None, metadata["resourceVersion"]):
            raise refusal(method, path, 409)
        self.node = patched(self.node, change, content_type == STRATEGIC)
        self.node["metadata"]["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return self.node

    def _selected(self, query: dict[str, list[str]]) -> list[Json]:
        """The pods with the labels that a query names, and of the name that it may name."""
        labels = {
            tuple(word.split("=", 1)) for word in query.get("labelSelector", [""])[0].split(",") if word
        }
        (name,) = query.get("fieldSelector", [""])
        return [
            pod
            for key, pod in self.pods.items()
            if name in ("", f"metadata.name={key}") and labels <= pod["metadata"].get("labels", {}).items()
        ]

    def _evict(self, path: str, name: str, body: Json) -> Json:
        if name in self.guarded:
            raise refusal("POST", path, 429)
        self.evictions.append(body)
        self.pods[name]["metadata"]["deletionTimestamp"] = "now"
        return {}

    @property
    def writes(self) -> list[tuple[str, Any]]:
        """Path and body of every request that was to change something."""
        return [(path, body) for method, path, body in self.requests if method != "GET"]

    @property
    def events(self) -> list[str]:
        """The reasons of all Events that were told."""
        return [body["reason"] for path, body in self.writes if path.endswith("/events")]

    @property
    def annotations(self) -> dict[str, str]:
        return self.node["metadata"].get("annotations", {})

    @property
    def unschedulable(self) -> bool:
        return bool(self.node["spec"].get("unschedulable"))

    @property
    def condition(self) -> dict[str, str]:
        """The installer's condition on the node; empty when there is none."""
        conditions = self.node["status"].get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == CONDITION), {})


def refusal(method: str, path: str, status: int) -> ApiError:
    """As the agent's own client words what it got."""
    words = f"{status} {http.HTTPStatus(status).phrase.lower()}" if status else "no route"
    return ApiError(f"{method} {path}: {words}", status)
