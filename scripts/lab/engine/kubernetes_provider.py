"""Stand-in for the pulumi-kubernetes plugin (`pulumi-resource-kubernetes`).

Written after the observed behaviour of pulumi-kubernetes v4.28 to v4.32 and its documentation: a dry run in
previews, autonaming, replace rules, apply conflicts, drift, imports, waiting with status lines, errors of
resources that never become live. It is as awkward as the true one where that matters to a user: an object
that exists is never taken over, the wait for a Pod or a Job has no limit of its own, a Pod that failed is
waited for all the same, and old Warning Events are shown again. Missing: Helm charts, YAML files, kustomize,
Patch and List resources, functions, client-side apply, `upsertExistingObjects`, waiting for Services,
Ingresses, StatefulSets and custom resources, `pulumi.com/waitFor`.
"""
# ruff: noqa: N802  (methods have the names of the gRPC protocol)

import contextlib
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from kubernetes_api import (
    CLUSTER_SCOPED,
    TAKEN_OVER,
    Api,
    ApiError,
    UnreachableError,
    conflicting_managers,
    load_kubeconfig,
    named,
)
from plugin import (
    InitializationError,
    Provider,
    as_secret,
    diff_response,
    differences,
    has_unknown,
    serve_provider,
    to_python,
    to_struct,
)
from stubs import Empty, provider_pb2

AUTONAMED = "pulumi.com/autonamed"
MANAGER = "__fieldManager"
CONFLICT_HELP = (
    "https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/"
    "managing-resources-with-server-side-apply/ for troubleshooting help"
)
DEFAULT_TIMEOUT_SECONDS = 600
TIMED_OUT = "timed out waiting for the condition"
ALREADY_EXISTS_HELP = """

The resource already exists in the cluster. This can happen when:

  - Renaming a Pulumi resource: use an alias to preserve the identity,
    or use deleteBeforeReplace if the resource needs replacement.
  - Managing an existing resource: use a Patch resource (e.g. NamespacePatch)
    to manage specific fields without owning the resource lifecycle.
  - Adopting a resource into Pulumi: use `pulumi import`. Note that
    protected resources (e.g. kube-system) cannot be deleted on destroy.
  - Intentional upsert: set upsertExistingObjects on the provider to allow
    server-side apply to update existing objects on create."""
# The true provider starts the time limit of these waits anew with each event of the namespace's pods, and at
# least once a minute: it never ends.
WITHOUT_LIMIT = ("Pod", "Job")
# A Job that failed for another reason is waited for all the same.
JOB_FAILURES = ("BackoffLimitExceeded", "DeadlineExceeded")
POLL_SECONDS = 0.3

# What the API server never lets an update change; a leading part of a path stands for everything below it.
REPLACING = {
    "ConfigMap": ["data", "binaryData", "immutable"],
    "ClusterRoleBinding": ["roleRef"],
    "DaemonSet": ["spec.selector"],
    "Deployment": ["spec.selector"],
    "Job": ["spec.selector", "spec.template", "spec.completions", "spec.completionMode"],
    "PersistentVolumeClaim": ["spec"],
    "Pod": ["spec"],
    "PriorityClass": ["value", "preemptionPolicy"],
    "RoleBinding": ["roleRef"],
    "RuntimeClass": ["handler"],
    "Secret": ["data", "stringData", "type"],
    "StatefulSet": [
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
        "spec.podManagementPolicy",
    ],
    "StorageClass": ["parameters", "provisioner"],
}
# Plain maps of text: there an empty map says nothing, while elsewhere (`emptyDir: {}`) it does.
TEXT_MAPS = {
    "annotations",
    "binaryData",
    "data",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
}


class Kubernetes(Provider):
    """Creates, compares, reads, updates and deletes any Kubernetes object."""

    api: Api | None = None
    unreachable = "the provider's kubeconfig is not known yet"

    def configure(self, settings: dict[str, Any]) -> None:
        text = settings.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
        self.api = None
        if not has_unknown(settings.get("kubeconfig")):
            try:
                self.api = Api(load_kubeconfig(text), settings.get("context"))
            except (OSError, subprocess.SubprocessError) as error:
                # As with the true provider, this is an obstacle only to what needs the cluster.
                self.unreachable = f"configured Kubernetes cluster is unreachable: {error}"
        self.default_namespace = settings.get("namespace") or (self.api.namespace if self.api else "default")

    def server(self) -> Api:
        """Return the API server; raise UnreachableError when its address is not known yet, or no credentials
        for it are to be had."""
        if self.api is None:
            raise UnreachableError(self.unreachable)
        return self.api

    def DiffConfig(self, request, context):
        old, new = to_python(request.old_inputs), to_python(request.news)
        changes = differences(old, new)
        return diff_response(changes, set(changes) if another_cluster(old, new) else set(), False)

    def Check(self, request, context):
        old, new = to_python(request.olds), drop_empty(to_python(request.news))
        if "kind" not in new:  # a Helm release, which can be previewed here and no more
            return provider_pb2.CheckResponse(inputs=to_struct(new))
        metadata = new.setdefault("metadata", {})
        if not isinstance(metadata, dict):  # not known yet as a whole
            return provider_pb2.CheckResponse(inputs=to_struct(new))
        if not metadata.get("name"):
            before = old.get("metadata", {})
            kept = before.get("name") if AUTONAMED in before.get("annotations", {}) else None
            metadata["name"] = kept or f"{request.name}-{request.randomSeed[:4].hex()}"
            metadata["annotations"] = {AUTONAMED: "true", **(metadata.get("annotations") or {})}
        if new["kind"] not in CLUSTER_SCOPED and not metadata.get("namespace"):
            metadata["namespace"] = self.default_namespace
        return provider_pb2.CheckResponse(inputs=to_struct(new))

    def Diff(self, request, context):
        old, new = to_python(request.old_inputs), to_python(request.news)
        changes = differences(old, new)
        rules = ["metadata.name", "metadata.namespace", *REPLACING.get(new["kind"], [])]
        replaces = {
            path for path in changes if any(re.match(rf"{re.escape(rule)}($|[.\[])", path) for rule in rules)
        }
        if new["kind"] == "Job" and annotation(new, "pulumi.com/replaceUnready") == "true":
            live = self._live(to_python(request.olds))
            if live and list(unready(live)):
                mark = 'metadata.annotations["pulumi.com/replaceUnready"]'
                changes[mark] = "UPDATE"
                replaces.add(mark)
        # Two objects of one name cannot live side by side; a made name is made anew for the replacement.
        # (A targeted destroy asks what would be if nothing of an object were known.)
        is_known = isinstance(new["metadata"], dict)
        same = is_known and identifier(old) == identifier(new) and not annotation(new, AUTONAMED)
        return diff_response(changes, replaces, delete_first=same)

    def Create(self, request, context):
        inputs, manager = to_python(request.properties), f"pulumi-kubernetes-{os.urandom(4).hex()}"
        if request.preview:
            outputs = self._dry_run(
                inputs, manager, lambda: self.server().create(inputs, manager, dry_run=True)
            )
            return provider_pb2.CreateResponse(properties=to_struct(outputs))
        try:
            live = self.server().create(inputs, manager)
        except ApiError as error:
            help_text = ALREADY_EXISTS_HELP if error.status == 409 else ""
            raise ApiError(
                error.status,
                f'resource "{request.urn}" was not successfully created by the Kubernetes API server: '
                f"{error}{help_text}",
            ) from error
        outputs = self._settle(request, inputs, manager, live, "created")
        return provider_pb2.CreateResponse(id=identifier(inputs), properties=to_struct(outputs))

    def Update(self, request, context):
        inputs, old = to_python(request.news), to_python(request.olds)
        manager = old.get(MANAGER) or f"pulumi-kubernetes-{os.urandom(4).hex()}"
        force = annotation(inputs, "pulumi.com/patchForce") == "true"
        if request.preview:
            outputs = self._dry_run(
                inputs, manager, lambda: self._apply(inputs, manager, force, dry_run=True)
            )
            return provider_pb2.UpdateResponse(properties=to_struct(outputs))
        if live := self.server().get(inputs):
            self.server().take_over(live, manager)
        live = self._apply(inputs, manager, force, dry_run=False)
        outputs = self._settle(request, inputs, manager, live, "updated")
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request, context):
        inputs, state = to_python(request.inputs), to_python(request.properties)
        try:
            live = self.server().get(inputs or from_identifier(request.urn, request.id))
        except UnreachableError:
            if not forgets_unreachable():
                raise
            live = None
        if live is None:
            return provider_pb2.ReadResponse()
        is_import = not inputs
        inputs = declared(live) if is_import else overlay(inputs, live)
        outputs = with_manager(live, state.get(MANAGER))
        if not is_import and waits_for(inputs) and (missing := list(unready(live))):
            raise InitializationError("; ".join(missing), request.id, outputs, inputs)
        outputs, inputs = with_secrets(outputs), with_secrets(inputs)
        return provider_pb2.ReadResponse(
            id=request.id, properties=to_struct(outputs), inputs=to_struct(inputs)
        )

    def Delete(self, request, context):
        state = to_python(request.properties)
        body = {"propagationPolicy": "Foreground"}
        try:
            self.server().call("DELETE", self.server().object_path(state), body)
        except ApiError as error:
            if error.status != 404:
                raise
        except UnreachableError:
            if not forgets_unreachable():
                raise
            return Empty()
        deadline = time.monotonic() + (request.timeout or DEFAULT_TIMEOUT_SECONDS)
        while (live := self.server().get(state)) and live["metadata"]["uid"] == state["metadata"]["uid"]:
            if time.monotonic() > deadline or self.cancelled.wait(POLL_SECONDS):
                raise TimeoutError(f'resource "{request.id}" was not deleted: {TIMED_OUT}')
        return Empty()

    def _live(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Return the live object; None when there is none, or no answer."""
        try:
            return self.server().get(state)
        except (ApiError, UnreachableError):
            return None

    def _dry_run(
        self, inputs: dict[str, Any], manager: str, ask: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what the server would make of the inputs; the inputs themselves when it cannot be asked."""
        if has_unknown(inputs):
            return inputs
        try:
            return with_manager(ask(), manager)
        except UnreachableError:
            return inputs
        except ApiError as error:
            # Its namespace, or its kind, is still to be made; it may not be made; or it is there already, and
            # the preview of a creation says nothing of that.
            if error.status in (403, 404) or (error.status == 409 and not conflicting_managers(str(error))):
                return inputs
            raise

    def _apply(self, inputs: dict[str, Any], manager: str, force: bool, dry_run: bool) -> dict[str, Any]:
        try:
            return self.server().apply(inputs, manager, force=force, dry_run=dry_run)
        except ApiError as error:
            holders = conflicting_managers(str(error))
            if error.status != 409 or not holders:
                raise
            if all(holder.startswith(TAKEN_OVER) for holder in holders):
                return self.server().apply(inputs, manager, force=True, dry_run=dry_run)
            message = f"Server-side apply field conflict detected: {error}. See {CONFLICT_HELP}"
            raise ApiError(409, message) from error

    def _settle(
        self, request: Any, inputs: dict[str, Any], manager: str, live: dict[str, Any], done: str
    ) -> dict[str, Any]:
        """Return the object's outputs once it is live; raise InitializationError when it never is."""
        seconds = request.timeout or float(annotation(inputs, "pulumi.com/timeoutSeconds") or 0)
        limit = math.inf if live["kind"] in WITHOUT_LIMIT else seconds or DEFAULT_TIMEOUT_SECONDS
        deadline = time.monotonic() + limit
        events = Events(self, request.urn, live)
        said: list[str] = []
        told: dict[str, None] = {}  # what a Job's pods said, which are gone when it reaches its deadline
        while waits_for(inputs) and (missing := list(unready(live))):
            # The wait outlives a moment without the API server.
            with contextlib.suppress(UnreachableError):
                events.show()
                if live["kind"] == "Job":
                    told |= dict.fromkeys(self._troubles(live))
                if missing != said:
                    self.say(request.urn, "; ".join(missing))
                    self._show_pods(request.urn, live)
                    said = missing
                live = self.server().get(inputs) or live
            reason = failure(live)
            if self.cancelled.wait(POLL_SECONDS):
                reason = "the operation was cancelled"
            elif time.monotonic() > deadline:
                reason = reason or TIMED_OUT
            if reason:
                raise InitializationError(
                    f'resource "{identifier(inputs)}" was successfully {done}, but the Kubernetes API server '
                    f"reported that it failed to fully initialize or become live: {reason}",
                    identifier(inputs),
                    with_manager(live, manager),
                    inputs,
                    list(told),
                )
        if said:
            self.say(request.urn, "")
        return with_manager(live, manager)

    def _show_pods(self, urn: str, live: dict[str, Any]) -> None:
        """Show the containers of the object's pods that wait or have failed, as passing warnings."""
        if live["kind"] != "Job":  # of a Job they are told when it has failed
            for trouble in self._troubles(live):
                self.say(urn, trouble, "WARNING")

    def _troubles(self, live: dict[str, Any]) -> list[str]:
        """Return what the object's pods say of their containers that wait or have failed."""
        labels = live.get("spec", {}).get("selector", {}).get("matchLabels")
        if not labels:
            return []
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        namespace = live["metadata"]["namespace"]
        told = []
        for pod in self.server().list("v1", "Pod", namespace, labelSelector=selector):
            troubles = []
            for container in pod.get("status", {}).get("containerStatuses") or []:
                state = container.get("state", {})
                detail = state.get("waiting") or state.get("terminated") or {}
                if not container.get("ready") and detail.get("reason") not in (None, "ContainerCreating"):
                    text = detail.get("message", "").strip()
                    troubles.append(f"[{container['name']}][{detail['reason']}] {text}".strip())
            if troubles:
                text = f"[Pod {namespace}/{pod['metadata']['name']}]: containers with unready status: "
                told.append(text + "; ".join(troubles))
        return told


class Events:
    """The Warning Events about one object itself (not about its pods), those from before the wait as well."""

    def __init__(self, provider: Kubernetes, urn: str, live: dict[str, Any]) -> None:
        self.provider, self.urn, self.live = provider, urn, live
        self.seen: set[str] = set()

    def _list(self) -> list[dict[str, Any]]:
        metadata = self.live["metadata"]
        selector = f"involvedObject.uid={metadata['uid']},type=Warning"
        return self.provider.server().list("v1", "Event", metadata["namespace"], fieldSelector=selector)

    def show(self) -> None:
        """Show those that were not shown yet, as passing warnings."""
        for event in self._list():
            if event["metadata"]["uid"] not in self.seen:
                self.seen.add(event["metadata"]["uid"])
                self.provider.say(self.urn, f"{event.get('reason')}: {event.get('message')}", "WARNING")


def forgets_unreachable() -> bool:
    """Say whether the user wants the objects of a cluster that does not answer to be taken for gone."""
    return os.environ.get("PULUMI_K8S_DELETE_UNREACHABLE") == "true"


def another_cluster(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Say whether the provider's settings name another cluster, so that all of its objects must be replaced.

    A clusterIdentifier on both sides decides alone; otherwise an unknown kubeconfig or another section of its
    cluster does.
    """
    if old.get("clusterIdentifier") and new.get("clusterIdentifier"):
        return old["clusterIdentifier"] != new["clusterIdentifier"]
    if has_unknown(new.get("kubeconfig")):
        return True
    return cluster_of(old) != cluster_of(new)


def cluster_of(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the kubeconfig's section of the cluster that the provider's settings choose, None when that
    cannot be told."""
    try:
        kubeconfig = load_kubeconfig(settings["kubeconfig"])
        context = named(kubeconfig, "context", settings.get("context") or kubeconfig["current-context"])
        return named(kubeconfig, "cluster", context["cluster"])
    except (KeyError, OSError, ValueError):
        return None


def drop_empty(value: Any) -> Any:
    """Return the inputs without empty maps of text and without nulls."""
    if isinstance(value, list):
        return [drop_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: drop_empty(item) for key, item in value.items() if item is not None}
    return {key: item for key, item in kept.items() if item != {} or key not in TEXT_MAPS}


def identifier(manifest: dict[str, Any]) -> str:
    """Return the resource's ID: namespace/name, or the name alone."""
    metadata = manifest.get("metadata", {})
    return "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))


def from_identifier(urn: str, text: str) -> dict[str, Any]:
    """Return the least manifest that finds an object: its kind from the URN, its name from the ID."""
    token = urn.split("::")[2].rsplit("$", maxsplit=1)[-1]
    _, version, kind = token.split(":")
    namespace, _, name = text.rpartition("/")
    return {
        "apiVersion": version.removeprefix("core/"),
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
    }


def annotation(manifest: dict[str, Any], name: str) -> str | None:
    """Return an annotation of the object, None when it has none."""
    return (manifest["metadata"].get("annotations") or {}).get(name)


def with_manager(live: dict[str, Any], manager: str | None) -> dict[str, Any]:
    """Return the live object as the resource's outputs, with the field manager of the next update."""
    metadata = {key: value for key, value in live["metadata"].items() if key != "managedFields"}
    return {**live, "metadata": metadata, MANAGER: manager}


def with_secrets(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was read of an object, a Secret's content as secret: the engine knows no inputs yet of one
    that it imports."""
    if found.get("kind") != "Secret":
        return found
    return {key: as_secret(item) if key in ("data", "stringData") else item for key, item in found.items()}


def declared(live: dict[str, Any]) -> dict[str, Any]:
    """Return what of a live object somebody could have declared."""
    metadata = {
        key: value
        for key, value in live["metadata"].items()
        if key in ("name", "namespace", "labels", "annotations")
    }
    return {key: value for key, value in {**live, "metadata": metadata}.items() if key != "status"}


def overlay(inputs: Any, live: Any) -> Any:
    """Return the inputs with the live values of the same fields, so that drift shows as a difference."""
    if isinstance(inputs, dict) and isinstance(live, dict):
        # stringData is write-only: the server keeps it as data.
        return {
            key: item if key == "stringData" else overlay(item, live[key])
            for key, item in inputs.items()
            if key in live or key == "stringData"
        }
    if isinstance(inputs, list) and isinstance(live, list) and len(inputs) == len(live):
        return [overlay(left, right) for left, right in zip(inputs, live, strict=True)]
    return live


def waits_for(manifest: dict[str, Any]) -> bool:
    """Say whether this object is waited for."""
    return manifest["kind"] in CONDITIONS and annotation(manifest, "pulumi.com/skipAwait") != "true"


def unready(live: dict[str, Any]) -> Iterator[str]:
    """Yield what the object still misses, in the words of a status line; nothing when it is live."""
    if live.get("status", {}).get("observedGeneration", 0) < (
        live["metadata"].get("generation", 0) if live["kind"] in ("DaemonSet", "Deployment") else 0
    ):
        yield "Waiting for the controller to observe the latest generation"
    else:
        yield from CONDITIONS[live["kind"]](live.get("spec", {}), live.get("status", {}))


def daemon_set(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[str]:
    """A DaemonSet that matches no node is live at once: 0 of 0."""
    wanted = status.get("desiredNumberScheduled", 0)
    for word, key in (
        ("Current", "currentNumberScheduled"),
        ("Updated", "updatedNumberScheduled"),
        ("Available", "numberAvailable"),
        ("Ready", "numberReady"),
    ):
        if status.get(key, 0) < wanted:
            yield f"{word}: {status.get(key, 0)}/{wanted}"
            return


def deployment(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[str]:
    wanted = spec.get("replicas", 1)
    for word, key in (("Updated", "updatedReplicas"), ("Available", "availableReplicas")):
        if status.get(key, 0) < wanted:
            yield f"{word}: {status.get(key, 0)}/{wanted}"
            return
    if status.get("replicas", 0) > wanted:
        yield f"Pending termination: {status['replicas'] - wanted}"


def job(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[str]:
    if not status.get("startTime") or not holds(status, "Complete"):
        counts = (f"{word}: {status.get(word.lower(), 0)}" for word in ("Active", "Succeeded", "Failed"))
        yield f"Waiting for Job to succeed ({' | '.join(counts)})"


def pod(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[str]:
    if status.get("phase") != "Succeeded" and not holds(status, "Ready"):
        yield f"Waiting for the Pod to be ready: {status.get('phase', 'Pending')}"


def holds(status: dict[str, Any], condition: str) -> bool:
    """Say whether the object has the condition."""
    return any(
        item["type"] == condition and item["status"] == "True" for item in status.get("conditions") or []
    )


def failure(live: dict[str, Any]) -> str | None:
    """Return why waiting on is pointless, None when it is not."""
    for condition in live.get("status", {}).get("conditions") or []:
        reason, holds_now = condition.get("reason"), condition["status"] == "True"
        if live["kind"] == "Job" and condition["type"] == "Failed" and holds_now and reason in JOB_FAILURES:
            name = live["metadata"]["name"]
            return (
                f"Resource '{name}' was created but failed to initialize: [{reason}] {condition['message']}"
            )
        if live["kind"] == "Deployment" and reason == "ProgressDeadlineExceeded":
            return condition["message"]
    return None


CONDITIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Iterator[str]]] = {
    "DaemonSet": daemon_set,
    "Deployment": deployment,
    "Job": job,
    "Pod": pod,
}

if __name__ == "__main__":
    serve_provider(Kubernetes, "kubernetes")
