"""The nodes of EKS node groups, as Node objects in the API server that plays the control plane.

SOCI_LAB_EKS    a kubeconfig of that API server; without it there are no nodes
"""

import os
import time
from collections.abc import Callable
from typing import Any

import aws_world
from kubernetes_api import MERGE_PATCH, Api, ApiError, load_kubeconfig

GROUP_LABEL = "eks.amazonaws.com/nodegroup"
TAINT_EFFECTS = {
    "NO_SCHEDULE": "NoSchedule",
    "NO_EXECUTE": "NoExecute",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
}
LOOK_SECONDS = 0.1
Node = dict[str, Any]
Group = dict[str, Any]


class NodesError(Exception):
    """The nodes did not become, or did not go, as they should; the words are EKS's."""


def lab_kubeconfig() -> dict[str, Any] | None:
    """Return the kubeconfig of the API server that plays the EKS control plane, None when there is none."""
    path = os.environ.get("SOCI_LAB_EKS")
    return load_kubeconfig(path) if path else None


def scale(group: Group) -> None:
    """Have as many nodes as the group (as EKS describes it) wants: new ones start, the newest go."""
    api = lab_api()
    if not api:
        return
    present, wanted = nodes_of(api, group), group["scalingConfig"]["desiredSize"]
    start(api, group, wanted - len(present))
    remove(api, present[wanted:], by_force=True)


def roll(group: Group, by_force: bool) -> None:
    """Replace every node: the new ones first, then the old ones are drained.

    Raises NodesError when the new ones are not ready in time, or a disruption budget keeps the pods of an old
    one (unless by force).
    """
    api = lab_api()
    if not api:
        return
    old = nodes_of(api, group)
    new = start(api, group, len(old))
    if not wait_until(lambda: all(is_ready(node) for node in named(api, group, new)), "nodeSeconds", 30):
        raise NodesError(
            f"NodeCreationFailure: Couldn't proceed with upgrade process as new nodes are not "
            f"joining node group {group['nodegroupName']}"
        )
    remove(api, old, by_force)


def relabel(group: Group, labels: dict[str, Any], taints: dict[str, Any]) -> None:
    """Hand a change of the group's labels and taints to the nodes that it has.

    labels and taints are as UpdateNodegroupConfig takes them; taints that did not change are not among them,
    so that a node never gets one back that was lifted from it.
    """
    api = lab_api()
    if not api or not (labels or taints):
        return
    changed = {**labels.get("addOrUpdateLabels", {}), **dict.fromkeys(labels.get("removeLabels", []))}
    added = [kubernetes_taint(taint) for taint in taints.get("addOrUpdateTaints", [])]
    replaced = {taint["key"] for taint in [*added, *taints.get("removeTaints", [])]}
    for node in nodes_of(api, group):
        kept = [taint for taint in node["spec"].get("taints", []) if taint["key"] not in replaced]
        spec = {"taints": [*kept, *added]} if taints else {}
        change = {"metadata": {"labels": changed}, "spec": spec}
        api.call("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", change, MERGE_PATCH)


def end(group: Group) -> None:
    """Take every node of a group away: they are drained for a while, then gone in any case."""
    api = lab_api()
    if api:
        remove(api, nodes_of(api, group), by_force=True)


def await_room() -> bool:
    """Say whether a node took pods without tolerations within the time that an add-on waits."""
    api = lab_api()
    return not api or wait_until(
        lambda: any(takes_pods(node) for node in api.call("GET", "/api/v1/nodes")["items"]),
        "addonSeconds",
        30,
    )


def lab_api() -> Api | None:
    """Return the API server that plays the control plane, None when there is none."""
    kubeconfig = lab_kubeconfig()
    return Api(kubeconfig) if kubeconfig else None


def nodes_of(api: Api, group: Group) -> list[Node]:
    """Return the group's nodes, the oldest first."""
    selector = f"{GROUP_LABEL}={group['nodegroupName']}"
    return sorted(api.call("GET", "/api/v1/nodes", labelSelector=selector)["items"], key=number_of)


def named(api: Api, group: Group, names: list[str]) -> list[Node]:
    """Return those nodes of the group that have these names."""
    return [node for node in nodes_of(api, group) if node["metadata"]["name"] in names]


def number_of(node: Node) -> int:
    """Return which node of its group it is; none gets the number of one that was there before it."""
    return int(node["metadata"]["name"].rpartition("-")[2])


def start(api: Api, group: Group, count: int) -> list[str]:
    """Start nodes with the labels and taints that the group has now; return their names."""
    first = max((number_of(node) for node in nodes_of(api, group)), default=0) + 1
    names = [f"{group['nodegroupName']}-{number}".lower() for number in range(first, first + count)]
    for name in names:
        api.call("POST", "/api/v1/nodes", new_node(name, group))
    return names


def new_node(name: str, group: Group) -> Node:
    """Return the Node as which an instance of the group registers."""
    labels = {
        GROUP_LABEL: group["nodegroupName"],
        "eks.amazonaws.com/capacityType": group.get("capacityType", "ON_DEMAND"),
        "kubernetes.io/arch": "arm64" if "ARM" in group.get("amiType", "") else "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": (group.get("instanceTypes") or [""])[0],
        **group.get("labels", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [kubernetes_taint(taint) for taint in group.get("taints", [])]},
    }


def kubernetes_taint(taint: dict[str, str]) -> dict[str, str]:
    """Return an EKS taint as Kubernetes writes it."""
    return {**taint, "effect": TAINT_EFFECTS[taint["effect"]]}


def remove(api: Api, nodes: list[Node], by_force: bool) -> None:
    """Drain the nodes and take them away; raise NodesError when a pod may not be evicted, unless by force."""
    for node in nodes:
        change = {"spec": {"unschedulable": True}}
        api.call("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", change, MERGE_PATCH)
    names = {node["metadata"]["name"] for node in nodes}
    drained = not nodes or wait_until(lambda: not evict_from(api, names), "drainSeconds", 0.5)
    if not drained and not by_force:
        raise NodesError(
            "PodEvictionFailure: Reached max retries while trying to evict pods from nodes in node "
            f"group {nodes[0]['metadata']['labels'][GROUP_LABEL]}"
        )
    for name in names:
        api.call("DELETE", f"/api/v1/nodes/{name}")


def evict_from(api: Api, nodes: set[str]) -> list[str]:
    """Ask for the eviction of the nodes' pods but those of DaemonSets; return those that are still there."""
    left = []
    for pod in api.call("GET", "/api/v1/pods")["items"]:
        owners = [owner["kind"] for owner in pod["metadata"].get("ownerReferences", [])]
        done = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if pod["spec"].get("nodeName") not in nodes or "DaemonSet" in owners or done:
            continue
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        left.append(name)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        try:
            api.call("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)
        except ApiError as error:
            if error.status not in (404, 409, 429):  # gone, changed meanwhile, kept by a disruption budget
                raise
    return left


def is_ready(node: Node) -> bool:
    """Say whether the node's kubelet reports it as ready."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def takes_pods(node: Node) -> bool:
    """Say whether a pod without tolerations may run on the node."""
    closed = any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints") or [])
    return is_ready(node) and not closed and not node["spec"].get("unschedulable")


def wait_until(happened: Callable[[], bool], setting: str, seconds: float) -> bool:
    """Say whether it happened within the seconds that the test's file allows."""
    deadline = time.monotonic() + aws_world.told(setting, seconds)
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True
