"""The cluster that SociCluster does not make: the one of a kubeconfig."""

import pulumi
import pulumi_kubernetes as k8s

from . import cluster_identity, kubeconfig
from .cluster_access import ClusterAccess
from .settings import Settings


def reach(name: str, chosen: Settings, component: pulumi.ComponentResource) -> ClusterAccess:
    """A provider for the cluster of the settings' kubeconfig and context, a child of the component."""
    content = pulumi.Output.secret(chosen.kubeconfig)
    identity = cluster_identity.identify(chosen.kubeconfig, chosen.context, component)
    provider = k8s.Provider(
        f"{name}-kubernetes",
        kubeconfig=content,
        context=chosen.context or None,
        # Without it, a renewed certificate in the kubeconfig could look like another cluster, and
        # everything in it would be replaced.
        cluster_identifier=identity.value,
        opts=pulumi.ResourceOptions(parent=component, ignore_changes=identity.ignored_changes()),
    )
    context = chosen.context or kubeconfig.current_context(chosen.kubeconfig)
    return ClusterAccess(pulumi.Output.from_input(context), content, provider)
