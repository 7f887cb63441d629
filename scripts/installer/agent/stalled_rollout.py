"""A rollout that dead nodes hold up: the other nodes go on by themselves, one after the other.

The DaemonSet's controller counts the pod of a node that does not answer as unavailable for as long as the
API has that node (Kubernetes, pkg/controller/daemon/update.go: rollingUpdate). With as many of them as
maxUnavailable it would replace no other pod, for ever. So where that is all that keeps it, a pod of the older
template deletes itself, and the controller makes the new one. A node on which the change does not succeed
goes on holding up all others: one that lives, and one that went silent after the change had reached it.
"""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from .api import Api, ApiError, Json

LOOK_SECONDS = 600.0  # a look starts an interpreter: less than a second of a processor
COMMAND = (sys.executable, "-B", "-m", "agent.stalled_rollout")
DEAD_SECONDS = 300  # as long as Kubernetes leaves pods on a node that does not answer
# Of the controller, for what a pod was made from; kept for all that their name says.
TEMPLATE_ANNOTATION = "deprecated.daemonset.template.generation"
TEMPLATE_LABEL = "pod-template-generation"


def go_on(api: Api) -> bool:
    """Delete this pod if it is its turn; whether it was.

    Raises:
        ApiError: the API server is away, or forbids to ask.
    """
    daemonset = api.get(api.daemonset_path)
    status = daemonset.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    is_stalled = status.get("numberUnavailable", 0) >= _limit(daemonset, wanted)
    if status.get("updatedNumberScheduled", 0) >= wanted or not is_stalled:
        return False
    # The pods of all nodes are a large answer, so those that have nothing to do ask for their own alone.
    if any(_is_current(pod, daemonset) for pod in api.pods(name=api.pod_name)):
        return False
    pods = api.pods(daemonset["spec"]["selector"]["matchLabels"])
    now = time.time()
    nodes = {pod["spec"].get("nodeName", "") for pod in pods if may_be_dead(pod, daemonset)} - {""}
    dead = {name for name in nodes if is_dead(api.get(f"/api/v1/nodes/{name}"), now)}
    if not is_next(api.pod_name, daemonset, pods, dead):
        return False
    api.delete_pod()
    return True


def is_next(name: str, daemonset: Json, pods: Sequence[Json], dead: Collection[str]) -> bool:
    """Whether the pod of that name is the next one to be made anew, and only dead nodes keep the controller
    from doing so: by its name the first of those that serve on the older template."""
    wanted = daemonset["status"]["desiredNumberScheduled"]
    limit = _limit(daemonset, wanted)
    living = [pod for pod in pods if pod["spec"].get("nodeName") not in dead]
    serving = [pod for pod in living if _is_available(pod)]
    away = wanted - len(dead) - len(serving)  # of the living nodes; also those that wait for their pod
    older = sorted(pod["metadata"]["name"] for pod in serving if not _is_current(pod, daemonset))
    return away < limit <= away + len(dead) and older[:1] == [name]


def may_be_dead(pod: Json, daemonset: Json) -> bool:
    """Whether the pod's node counts as dead once it is silent: not where containers of the change ran."""
    has_begun = bool(pod.get("status", {}).get("containerStatuses"))
    return not _is_available(pod) and not (_is_current(pod, daemonset) and has_begun)


def is_dead(node: Json, now: float) -> bool:
    """Whether the node's kubelet has not answered for a while. One that says that its runtime is down has."""
    conditions = node.get("status", {}).get("conditions") or []
    ready = next((entry for entry in conditions if entry["type"] == "Ready"), None)
    if not ready or ready["status"] != "Unknown":
        return False
    return now - datetime.fromisoformat(ready["lastTransitionTime"]).timestamp() >= DEAD_SECONDS


def _limit(daemonset: Mapping, wanted: int) -> int:
    """maxUnavailable, of which a percentage is rounded up."""
    limit = daemonset["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
    if isinstance(limit, int):
        return limit
    return -(-wanted * int(limit.removesuffix("%")) // 100)


def _is_available(pod: Json) -> bool:
    """Whether it serves and stays."""
    conditions = pod.get("status", {}).get("conditions") or []
    is_ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    return is_ready and not pod["metadata"].get("deletionTimestamp")


def _is_current(pod: Json, daemonset: Json) -> bool:
    made_from = (pod["metadata"].get("labels") or {}).get(TEMPLATE_LABEL)
    return made_from == (daemonset["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION)


def main() -> int:
    """Go on if it is this pod's turn. Never 0: there is nothing for the installer to find out."""
    try:
        go_on(Api.of_this_pod())
    except ApiError as error:
        print(f"it cannot be found out whether the rollout is held up: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
