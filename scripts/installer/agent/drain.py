"""Policy ``drain``: cordon the node, evict the pods on lazily served layers within their budgets, uncordon.

Eviction API: Kubernetes reference, policy/v1. As with `kubectl drain`, a pod that no controller would make
anew elsewhere is not evicted. It keeps the daemon in use, so then no other pod is evicted either.
"""

from collections.abc import Sequence

from .api import Api, ApiError, Json
from .lazy import Pod, in_words
from .marks import Marks

MIRROR = "kubernetes.io/config.mirror"


def drain(api: Api, marks: Marks, pods: Sequence[Pod]) -> str:
    """One round: ask once for the eviction of each pod; in words, what came of it.

    Raises:
        ApiError: the API server is away, or forbids to ask.
    """
    found = {pod: read(api, pod) for pod in pods}
    staying = [pod for pod, known in found.items() if known and not is_evictable(known)]
    if staying:
        marks.uncordon()
        return (
            f"nothing is evicted because of pods that would be lost or come back here: {in_words(staying)}. "
            "Remedy: delete those without a controller; for pods of DaemonSets and static ones set "
            "soci:upgradePolicy to side-by-side"
        )
    marks.cordon()
    held = [pod for pod, known in found.items() if known and not ask(api, pod, known)]
    ending = [pod for pod in pods if pod not in held]
    parts = (("held back by a disruption budget", held), ("ending", ending))
    return "; ".join(f"{what}: {in_words(group)}" for what, group in parts if group)


def read(api: Api, pod: Pod) -> Json | None:
    """The pod; an empty one if the API server never knew it, None if it is gone."""
    if not pod.namespace:
        return {"metadata": {}}
    try:
        return api.get(_path(pod))
    except ApiError as error:
        if error.status != 404:
            raise
    return None


def ask(api: Api, pod: Pod, known: Json) -> bool:
    """Ask for the eviction of a pod; whether it is about to end. False when a budget forbids that now."""
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
        api.post(f"{_path(pod)}/eviction", eviction)
    except ApiError as error:
        if error.status not in (404, 409, 429):  # gone, another one of its name, or held back
            raise
        return error.status != 429
    return True


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def is_evictable(pod: Json) -> bool:
    """Whether a controller makes the pod anew elsewhere."""
    return _controller(pod) not in ("", "DaemonSet")


def is_made_anew(pod: Json) -> bool:
    """Whether a controller makes the pod anew, here or elsewhere."""
    return bool(_controller(pod))


def _controller(pod: Json) -> str:
    """The kind of what controls the pod; empty for a static one, too (Pod of core/v1)."""
    metadata = pod["metadata"]
    if MIRROR in (metadata.get("annotations") or {}):
        return ""
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    return controllers[0]["kind"] if controllers else ""
