"""What makes two clusters the same one, for the stack of an existing cluster.

Every object of a stack is replaced when its cluster becomes another. The API server's address does not tell:
a tunnel, a DNS name or a new load balancer leads to the same cluster. The namespace kube-system is as old as
its cluster and is never made anew: its UID names the cluster.
"""

from dataclasses import dataclass, replace

import pulumi

from .live_cluster import Object, UnreachableError, UnreadableError, connect
from .names import INSTALLER
from .ownership import ANNOTATION

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
CLUSTER_ROLE = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{INSTALLER}"


@dataclass(frozen=True)
class Identity:
    """The `cluster_identifier` of a Kubernetes provider."""

    value: str | None
    """None: the kubeconfig's own section of the cluster decides, as the provider reads it."""
    keeps_recorded: bool = False
    """Whether the one in the stack's state stays, because the cluster did not say enough."""

    def ignored_changes(self) -> list[str]:
        """The provider's properties that stay as they are in the stack's state."""
        return ["clusterIdentifier"] if self.keeps_recorded else []


def identify(kubeconfig: str, context: str, component: pulumi.Resource) -> Identity:
    """The identity of the cluster that a kubeconfig leads to.

    A cluster that cannot be asked keeps the one in the stack's state, with a warning: nothing is replaced for
    not knowing. Whether the provider reaches the cluster is for the provider to say.
    """
    try:
        cluster = connect(kubeconfig, context)
        kube_system = cluster.get(KUBE_SYSTEM)
        try:
            return of_cluster(kube_system, cluster.get(CLUSTER_ROLE))
        except UnreachableError:
            raise
        except UnreadableError:  # who may only look at a cluster may not read its ClusterRoles
            return replace(of_cluster(kube_system, None), keeps_recorded=True)
    except UnreadableError as error:
        remedy = error.remedy or (
            "let the user of soci:kubeconfig `get` the namespace kube-system and the ClusterRole "
            "soci-installer"
        )
        pulumi.log.warn(
            f"cannot verify which cluster this is; assuming the same as before: {error}. Remedy: {remedy}",
            component,
        )
    return Identity(None, keeps_recorded=True)


def of_cluster(kube_system: Object | None, cluster_role: Object | None) -> Identity:
    """The identity of a cluster, from two of its objects.

    A version of this program that named no owners took the server's address for the identity. Replacing it
    with another one would replace everything; taking it away does not, nor does adding one at the next `up`.
    """
    # Remove with version 0.4.
    if cluster_role and ANNOTATION not in (cluster_role["metadata"].get("annotations") or {}):
        return Identity(None)
    return Identity(kube_system["metadata"]["uid"] if kube_system else None)
