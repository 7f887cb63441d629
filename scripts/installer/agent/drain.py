"""Policy ``drain``: cordon the node, evict the pods on lazily served layers within their budgets, uncordon.

Eviction API: Kubernetes reference, policy/v1. What `kubectl drain` leaves alone without --force stays here,
too: it is named and waited for. An annotation marks a cordon of ours: it is lifted also after a kill, and no
other one is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .report import DOMAIN, MERGE, ApiError, Json, Reporter
from .users import Pod, in_words

CORDONED = f"{DOMAIN}/cordoned"
MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True)
class Round:
    """What one round of evictions came to: pods by what they wait for."""

    ending: tuple[Pod, ...] = ()
    held_back: tuple[Pod, ...] = ()  # by a disruption budget
    staying: tuple[Pod, ...] = ()  # not to be evicted

    def in_words(self) -> str:
        parts = (
            ("ending", self.ending),
            ("held back by a disruption budget", self.held_back),
            ("not evicted (of a DaemonSet, static or without a controller)", self.staying),
        )
        return "; ".join(f"{what}: {in_words(pods)}" for what, pods in parts if pods)


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


def evict(reporter: Reporter, pods: Sequence[Pod]) -> Round:
    """Ask once for the eviction of each pod. What a budget forbids now, the next round may get.

    Raises:
        ApiError: the API server is away, or forbids to ask.
    """
    fates = {pod: _evict(reporter, pod) for pod in pods}
    groups = [tuple(pod for pod in pods if fates[pod] == fate) for fate in ("ending", "held back", "staying")]
    return Round(*groups)


def _evict(reporter: Reporter, pod: Pod) -> str:
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
    if not pod.namespace:
        return "staying"
    try:
        found = reporter.call("GET", path, None, "")
        metadata = found["metadata"]
        if metadata.get("deletionTimestamp"):
            return "ending"
        if not is_evictable(found):
            return "staying"
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            # A pod of the same name elsewhere, as StatefulSets make them, must not be hit.
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        reporter.call("POST", f"{path}/eviction", eviction, "application/json")
    except ApiError as error:
        if error.status == 429:
            return "held back"
        if error.status in (404, 409):  # it is gone, or another one of its name is there
            return "ending"
        raise
    return "ending"


def is_evictable(pod: Json) -> bool:
    """Whether a controller other than a DaemonSet makes the pod anew elsewhere (Pod of core/v1)."""
    metadata = pod["metadata"]
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    is_mirror = MIRROR in (metadata.get("annotations") or {})
    return bool(controllers) and not is_mirror and controllers[0]["kind"] != "DaemonSet"
