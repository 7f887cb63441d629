"""Policy ``drain``: cordon the node, evict the pods on lazily served layers within their budgets, uncordon.

Eviction API: Kubernetes reference, policy/v1. Pods that nobody would make anew elsewhere are not evicted, as
by `kubectl drain`. As long as there are any the daemon stays in use whatever is done to the others: then
nothing is done. An annotation marks a cordon of ours: it is lifted also after a kill, and no other one is.
"""

from collections.abc import Sequence

from .report import DOMAIN, MERGE, ApiError, Json, Reporter
from .users import Pod, in_words

CORDONED = f"{DOMAIN}/cordoned"
MIRROR = "kubernetes.io/config.mirror"


def cordon(reporter: Reporter) -> None:
    """Let no further pod be scheduled to the node; a cordon of somebody else's is left to them."""
    node = reporter.node()
    if not node.get("spec", {}).get("unschedulable"):
        _set(reporter, node, True)


def uncordon(reporter: Reporter) -> None:
    """Lift the cordon if it is ours, from whichever pod of the installer it came."""
    node = reporter.node()
    if CORDONED in node["metadata"].get("annotations", {}):
        _set(reporter, node, None)


def _set(reporter: Reporter, node: Json, value: bool | None) -> None:
    # With the version that was read: a cordon by somebody else at this moment makes the API answer 409.
    body = {
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {CORDONED: "true" if value else None},
        },
        "spec": {"unschedulable": value},
    }
    reporter.call("PATCH", f"/api/v1/nodes/{reporter.node_name}", body, MERGE)


def drain(reporter: Reporter, pods: Sequence[Pod]) -> str:
    """One round: ask once for the eviction of each pod; in words, what came of it.

    Raises:
        ApiError: the API server is away, or forbids to ask.
    """
    found = {pod: _read(reporter, pod) for pod in pods}
    staying = [pod for pod, known in found.items() if known and not is_evictable(known)]
    if staying:
        uncordon(reporter)
        return (
            f"nothing is evicted because of pods that would be lost or come back here: {in_words(staying)}. "
            "Remedy: delete those without a controller; for pods of DaemonSets and static ones set "
            "soci:upgradePolicy to side-by-side"
        )
    cordon(reporter)
    held = [pod for pod, known in found.items() if known and not _evict(reporter, pod, known)]
    ending = [pod for pod in pods if pod not in held]
    parts = (("held back by a disruption budget", held), ("ending", ending))
    return "; ".join(f"{what}: {in_words(group)}" for what, group in parts if group)


def _read(reporter: Reporter, pod: Pod) -> Json | None:
    """The pod; an empty one if the API server never knew it, None if it is gone."""
    if not pod.namespace:
        return {"metadata": {}}
    try:
        return reporter.call("GET", _path(pod), None, "")
    except ApiError as error:
        if error.status != 404:
            raise
    return None


def _evict(reporter: Reporter, pod: Pod, known: Json) -> bool:
    """Whether the pod is about to end; False when a budget forbids that now."""
    if known["metadata"].get("deletionTimestamp"):
        return True
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        # A later pod of the same name elsewhere, as StatefulSets make them, must not be hit.
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    }
    try:
        reporter.call("POST", f"{_path(pod)}/eviction", eviction, "application/json")
    except ApiError as error:
        if error.status not in (404, 409, 429):  # gone, another one of its name, or held back
            raise
        return error.status != 429
    return True


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def is_evictable(pod: Json) -> bool:
    """Whether a controller other than a DaemonSet makes the pod anew elsewhere (Pod of core/v1)."""
    metadata = pod["metadata"]
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    is_mirror = MIRROR in (metadata.get("annotations") or {})
    return bool(controllers) and not is_mirror and controllers[0]["kind"] != "DaemonSet"
