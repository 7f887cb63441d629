"""The installers of a cluster and their nodes: two on one node would overwrite each other's work.

The program on a node gives it to the installer that came last: that is how a DaemonSet in another namespace
takes the nodes of its predecessor over. Two that stay would take turns with every restart of a pod, and the
removal of one would uninstall what the other one needs.
"""

from collections.abc import Mapping, Sequence

from .live_cluster import LiveCluster, Object, UnreadableError
from .names import INSTALLER, VERSION_LABEL
from .ownership import owner_of

DAEMON_SETS = "/apis/apps/v1/daemonsets"
SELECTOR = f"app.kubernetes.io/name={INSTALLER}"


def look(cluster: LiveCluster, namespace: str, owner: str, node_selector: Mapping[str, str]) -> str | None:
    """Why an installer may not be on this cluster, from what is there; None when it may, or when that cannot
    be read.

    Args:
        cluster: the cluster.
        namespace: the installer's.
        owner: the owner of its objects (ownership.py).
        node_selector: the labels of its nodes.
    """
    try:
        others = [other for other in daemon_sets(cluster) if is_another(other, namespace, owner)]
        return refusal(cluster.items("/api/v1/nodes"), node_selector, others) if others else None
    except UnreadableError:
        return None


def is_another(daemon_set: Object, namespace: str, owner: str) -> bool:
    """Whether a DaemonSet is another installer's, and stays.

    One of the same owner in another namespace is the predecessor, which goes when its nodes were taken over.
    One without an owner is of an older version, and may be that as well.
    """
    metadata = daemon_set["metadata"]
    is_predecessor = owner_of(daemon_set) in ("", owner)
    return metadata["namespace"] != namespace and not is_predecessor and not metadata.get("deletionTimestamp")


def refusal(
    nodes: Sequence[Object], node_selector: Mapping[str, str], others: Sequence[Object]
) -> str | None:
    """Which nodes two installers select, and what to do; None when there are none."""
    for other in others:
        theirs = _node_selector(other)
        shared = sorted(
            node["metadata"]["name"]
            for node in nodes
            if selects(node_selector, node) and selects(theirs, node)
        )
        if shared:
            metadata = other["metadata"]
            more = f" and {len(shared) - 1} more" if shared[1:] else ""
            return (
                f"node {shared[0]}{more}: the installer {metadata['namespace']}/{metadata['name']} selects "
                "it, too, and one node takes one installer. Remedy: give each installer nodes of its own, "
                "pulumi config set --path 'soci:nodeSelector[\"LABEL\"]' VALUE"
            )
    return None


def unattended(cluster: LiveCluster) -> list[str]:
    """The names of the nodes that have SOCI and that no installer selects any more.

    Raises:
        UnreadableError: the cluster cannot be read.
    """
    selectors = [_node_selector(daemon_set) for daemon_set in daemon_sets(cluster)]
    nodes = cluster.items("/api/v1/nodes", labelSelector=VERSION_LABEL)
    return sorted(
        node["metadata"]["name"]
        for node in nodes
        if not any(selects(selector, node) for selector in selectors)
    )


def daemon_sets(cluster: LiveCluster) -> Sequence[Object]:
    """The installers' DaemonSets of all namespaces.

    Raises:
        UnreadableError: they cannot be read.
    """
    return cluster.items(DAEMON_SETS, labelSelector=SELECTOR)


def _node_selector(daemon_set: Object) -> Mapping[str, str]:
    return daemon_set["spec"]["template"]["spec"].get("nodeSelector") or {}


def selects(node_selector: Mapping[str, str], node: Object) -> bool:
    """Whether a node has all of these labels."""
    return node_selector.items() <= (node["metadata"].get("labels") or {}).items()
