"""A small Kubernetes API client for the stand-ins: any kind, server-side apply, kubeconfigs with exec."""

import base64
import functools
import json
import os
import re
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml

REQUEST_SECONDS = 30
APPLY_PATCH = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
# Kinds without a namespace that a program may declare. The API knows them all, but may be out of reach.
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
# Managers whose fields the provider takes over, as the true one does: kubectl's, and its own earlier ones.
TAKEN_OVER = ("kubectl", "pulumi-", "before-first-apply")


class ApiError(Exception):
    """The API server refused; status is the HTTP status code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(Exception):
    """No answer from the API server."""


class Api:
    """One API server, as one user."""

    def __init__(self, kubeconfig: dict[str, Any], context: str | None = None) -> None:
        chosen = named(kubeconfig, "context", context or kubeconfig.get("current-context", ""))
        cluster = named(kubeconfig, "cluster", chosen["cluster"])
        user = credentials(named(kubeconfig, "user", chosen["user"]))
        self.server = cluster["server"].rstrip("/")
        self.namespace = chosen.get("namespace", "default")
        self.headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        self.pool = urllib3.PoolManager(
            maxsize=32, retries=False, timeout=REQUEST_SECONDS, ssl_context=tls_context(cluster, user)
        )

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        **parameters: str,
    ) -> dict[str, Any]:
        """Return the server's JSON answer; raise ApiError for a refusal and UnreachableError for none."""
        url = self.server + path + (f"?{urlencode(parameters)}" if parameters else "")
        headers = {**self.headers, "Content-Type": content_type}
        data = None if body is None else json.dumps(body)
        try:
            answer = self.pool.request(method, url, body=data, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"configured Kubernetes cluster is unreachable: {error}") from error
        if answer.status >= 400:
            raise ApiError(answer.status, refusal(answer.data) or str(answer.reason))
        return json.loads(answer.data) if answer.data else {}

    @functools.cache  # noqa: B019  one Api lives as long as its process
    def _resources(self, version: str) -> dict[str, dict[str, Any]]:
        listed = self.call("GET", f"/{group_path(version)}")["resources"]
        return {item["kind"]: item for item in listed if "/" not in item["name"]}

    def path(self, version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Return the URL path of an object, or of its kind when name is None; raise ApiError when unknown."""
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

    def create(self, manifest: dict[str, Any], manager: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Create the object; raise ApiError 409 when it exists."""
        metadata = manifest["metadata"]
        path = self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"))
        options = {"fieldManager": manager} | ({"dryRun": "All"} if dry_run else {})
        return self.call("POST", path, manifest, **options)

    def apply(self, manifest: dict[str, Any], manager: str, *, force: bool, dry_run: bool) -> dict[str, Any]:
        """Server-side apply the object; raise ApiError 409 when others hold a field of it, unless forced."""
        options = {"fieldManager": manager, "force": str(force).lower()}
        if dry_run:
            options["dryRun"] = "All"
        return self.call("PATCH", self.object_path(manifest), manifest, APPLY_PATCH, **options)

    def take_over(self, live: dict[str, Any], manager: str) -> None:
        """Make the manager the applier of all fields that kubectl, or a plain create, wrote to the object."""
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
        self.call("PATCH", self.object_path(live), patch, JSON_PATCH)

    def list(self, version: str, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in a namespace; selectors are labelSelector and fieldSelector."""
        return self.call("GET", self.path(version, kind, namespace), **selectors)["items"]


def refusal(answer: bytes) -> str:
    """Return the message of a refusal; a path that nothing serves (yet) is refused in plain text."""
    try:
        return json.loads(answer).get("message", "")
    except ValueError:
        return answer.decode(errors="replace").strip()


def credentials(user: dict[str, Any]) -> dict[str, Any]:
    """Return the user's section with a token in it, when it gets its token from a program or a file.

    Raises subprocess.SubprocessError when the program fails.
    """
    if plugin := user.get("exec"):
        variables = {item["name"]: item["value"] for item in plugin.get("env") or []}
        command = [plugin["command"], *(plugin.get("args") or [])]
        environment = {**os.environ, **variables}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return {"token": json.loads(done.stdout)["status"]["token"]}
    if path := user.get("tokenFile"):
        return {**user, "token": Path(path).read_text().strip()}
    return user


def tls_context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    """Return how to trust the cluster and to show the user's certificate, when there is one."""
    authority = pem(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    # Many clusters' own authorities lack what Python 3.13 and newer would insist on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = pem(user, "client-certificate"), pem(user, "client-key")
    if certificate and key:
        # Python's ssl takes a key from a file only; this one is gone when the block ends.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def pem(section: dict[str, Any], key: str) -> bytes | None:
    """Return what the section holds as base64 `<key>-data` or names as a file, None when neither."""
    if data := section.get(f"{key}-data"):
        return base64.b64decode(data)
    return Path(section[key]).expanduser().read_bytes() if section.get(key) else None


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
    """Return a kubeconfig given as content or as a path; the engine hands JSON over as a dictionary."""
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
