"""What makes two clusters the same one, for the stack of an existing cluster.

Every object of a stack is replaced when its cluster becomes another. The API server's address does not tell:
a tunnel, a DNS name or a new load balancer leads to the same cluster. The namespace kube-system is as old as
its cluster and is never made anew: its UID names the cluster.
"""

from dataclasses import dataclass

import pulumi

from .live_cluster import LiveCluster, Object, UnreachableError, UnreadableError
from .ownership import ANNOTATION

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
CLUSTER_ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/soci-installer"


@dataclass(frozen=True)
class Identity:
    """The `cluster_identifier` of a Kubernetes provider."""

    value: str | None
    """None: the kubeconfig's own section of the cluster decides, as the provider reads it."""
    is_kept: bool = False
    """Whether the one in the stack's state stays, because the cluster could not be asked."""

    def ignored_changes(self) -> list[str]:
        """The provider's properties that stay as they are in the stack's state."""
        return ["clusterIdentifier"] if self.is_kept else []


def identify(kubeconfig: str, context: str, component: pulumi.Resource) -> Identity:
    """The identity of the cluster that a kubeconfig leads to. A cluster that cannot be asked keeps the one in
    the stack's state, with a warning: nothing is replaced for not knowing.

    Raises:
        pulumi.RunError: nothing answers, and this is no preview.
    """
    try:
        cluster = LiveCluster(kubeconfig, context)
        return of_cluster(cluster.get(KUBE_SYSTEM), cluster.get(CLUSTER_ROLE))
    except UnreachableError as error:
        remedy = "Remedy: check the network, and soci:kubeconfig and soci:context"
        if not pulumi.runtime.is_dry_run():
            raise pulumi.RunError(f"{error}. Nothing was changed. {remedy}") from error
        pulumi.log.warn(f"{error}. pulumi up will be refused. {remedy}", component)
    except UnreadableError as error:
        pulumi.log.warn(
            f"it cannot be told whether this is the same cluster as before, and it is taken for the same: "
            f"the UID of the namespace kube-system cannot be read ({error}). Remedy: let the user of "
            "soci:kubeconfig get namespaces",
            component,
        )
    return Identity(None, is_kept=True)


def of_cluster(kube_system: Object | None, cluster_role: Object | None) -> Identity:
    """The identity of a cluster, from two of its objects.

    A version of this program that named no owners took the server's address for the identity. Replacing it
    with another one would replace everything; taking it away does not, nor does adding one at the next `up`.
    """
    if cluster_role and ANNOTATION not in (cluster_role["metadata"].get("annotations") or {}):
        return Identity(None)
    return Identity(kube_system["metadata"]["uid"] if kube_system else None)
