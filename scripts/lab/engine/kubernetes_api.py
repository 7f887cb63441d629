"""A small Kubernetes API client for the stand-in provider: any kind, server-side apply, kubeconfigs with exec."""

import base64
import functools
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import requests
import yaml

# Kinds without a namespace that a program may declare; the rest gets one. The API knows all, but may be out of reach.
CLUSTER_SCOPED = {
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CSIDriver",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
}
# Managers whose fields the provider takes over, as the true one does: people's kubectl, and its own earlier selves.
TAKEN_OVER = ("kubectl", "pulumi-", "before-first-apply")


class ApiError(Exception):
    """The API server refused; status is the HTTP status code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Exception):
    """No answer from the API server."""


class Api:
    """One API server, as one user."""

    def __init__(self, kubeconfig: dict[str, Any], context: str | None = None) -> None:
        name = context or kubeconfig.get("current-context", "")
        chosen = named(kubeconfig, "context", name)
        cluster = named(kubeconfig, "cluster", chosen["cluster"])
        self.server = cluster["server"].rstrip("/")
        self.namespace = chosen.get("namespace", "default")
        self.session = requests.Session()
        self.session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=32, max_retries=0)
        self.session.mount("https://", adapter)
        self.files = tempfile.TemporaryDirectory(prefix="kubeconfig-")
        self.session.verify = not cluster.get("insecure-skip-tls-verify") and (
            self._file(cluster, "certificate-authority") or True
        )
        self._authenticate(named(kubeconfig, "user", chosen["user"]))

    def _file(self, section: dict[str, Any], key: str) -> str | None:
        """Return the path of a PEM file that the section names, or holds as base64 `<key>-data`."""
        if data := section.get(f"{key}-data"):
            path = Path(self.files.name, f"{key}.pem")
            path.write_bytes(base64.b64decode(data))
            path.chmod(0o600)
            return str(path)
        return section.get(key)

    def _authenticate(self, user: dict[str, Any]) -> None:
        if "exec" in user:
            plugin = user["exec"]
            variables = {item["name"]: item["value"] for item in plugin.get("env") or []}
            done = subprocess.run(
                [plugin["command"], *(plugin.get("args") or [])],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            status = json.loads(done.stdout)["status"]
            user = {"token": status["token"]}
        if path := user.get("tokenFile"):
            user = {**user, "token": Path(path).read_text().strip()}
        if token := user.get("token"):
            self.session.headers["Authorization"] = f"Bearer {token}"
        certificate, key = self._file(user, "client-certificate"), self._file(user, "client-key")
        if certificate and key:
            self.session.cert = (certificate, key)

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the server's JSON answer; raise ApiError for a refusal and Unreachable for none."""
        try:
            answer = self.session.request(method, self.server + path, timeout=30, **options)
        except requests.RequestException as error:
            raise Unreachable(f"configured Kubernetes cluster is unreachable: {error}") from error
        body = answer.json() if answer.content else {}
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, body.get("message", answer.reason))
        return body

    @functools.cache  # noqa: B019  one Api lives as long as its process
    def _resources(self, version: str) -> dict[str, dict[str, Any]]:
        listed = self.call("GET", f"/{group_path(version)}")["resources"]
        return {item["kind"]: item for item in listed if "/" not in item["name"]}

    def path(self, version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Return the URL path of an object, or of a collection when name is None; raise ApiError for unknown kinds."""
        resource = self._resources(version).get(kind)
        if resource is None:
            raise ApiError(404, f'no matches for kind "{kind}" in version "{version}"')
        place = f"/namespaces/{namespace}" if resource["namespaced"] and namespace else ""
        return f"/{group_path(version)}{place}/{resource['name']}" + (f"/{name}" if name else "")

    def object_path(self, manifest: dict[str, Any]) -> str:
        """Return the URL path of the object that the manifest declares."""
        metadata = manifest["metadata"]
        return self.path(
            manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"]
        )

    def get(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Return the live object, or None when there is none."""
        try:
            return self.call("GET", self.object_path(manifest))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, manifest: dict[str, Any], manager: str) -> dict[str, Any]:
        """Create the object; raise ApiError 409 when it exists."""
        metadata = manifest["metadata"]
        path = self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"))
        return self.call("POST", path, params={"fieldManager": manager}, json=manifest)

    def apply(self, manifest: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> dict[str, Any]:
        """Server-side apply the object; raise ApiError 409 when another manager holds a field, unless forced."""
        options = {"fieldManager": manager, "force": str(force).lower()}
        if dry_run:
            options["dryRun"] = "All"
        return self.call(
            "PATCH",
            self.object_path(manifest),
            params=options,
            data=json.dumps(manifest),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def take_over(self, live: dict[str, Any], manager: str) -> None:
        """Make the manager the applier of all fields that kubectl, or a plain create, wrote to the live object."""
        entries = live["metadata"].get("managedFields", [])
        taken = [
            entry
            for entry in entries
            if entry["operation"] == "Update"
            and "subresource" not in entry
            and entry["manager"].startswith(TAKEN_OVER)
        ]
        if not taken:
            return
        mine = next((e for e in entries if (e["manager"], e["operation"]) == (manager, "Apply")), None)
        joined = functools.reduce(merge, (e["fieldsV1"] for e in taken), (mine or {}).get("fieldsV1", {}))
        entry = {**taken[0], "manager": manager, "operation": "Apply", "fieldsV1": joined}
        kept = [other for other in entries if other not in taken and other is not mine]
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": [*kept, entry]},
        ]
        headers = {"Content-Type": "application/json-patch+json"}
        self.call("PATCH", self.object_path(live), data=json.dumps(patch), headers=headers)

    def list(self, version: str, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in a namespace; selectors are labelSelector and fieldSelector."""
        return self.call("GET", self.path(version, kind, namespace), params=selectors)["items"]


def group_path(version: str) -> str:
    """Return where the API serves an apiVersion."""
    return f"apis/{version}" if "/" in version else f"api/{version}"


def named(kubeconfig: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Return the kubeconfig's entry of that kind and name; raise ValueError when it has none."""
    for item in kubeconfig.get(f"{kind}s") or []:
        if item["name"] == name:
            return item[kind]
    raise ValueError(f"the kubeconfig has no {kind} named {name!r}")


def load_kubeconfig(text: str | dict[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig given as content or as a path; the engine hands JSON content over as a dictionary."""
    if isinstance(text, dict):
        return text
    if "\n" not in text and not text.lstrip().startswith("{"):
        text = Path(text).expanduser().read_text()
    return yaml.safe_load(text)


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Return both trees of dictionaries in one."""
    joined = dict(left)
    for key, value in right.items():
        joined[key] = merge(left[key], value) if key in left else value
    return joined


def conflicting_managers(message: str) -> list[str]:
    """Return the managers that an apply conflict names."""
    return re.findall(r'conflicts? with "([^"]+)"', message)
