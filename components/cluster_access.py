"""How the components reach their cluster, whichever it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_eks as eks
import pulumi_kubernetes as k8s

from .configuration import kubeconfig_content
from .kubeconfig import read_kubeconfig
from .values import RefusedError


@dataclass(frozen=True)
class ClusterAccess:
    """A cluster as SociCluster needs it: what eks_cluster.py and existing_cluster.py make."""

    name: pulumi.Output[str]
    """Its name for people."""
    kubeconfig: pulumi.Output[str]
    """Its kubeconfig's content (secret)."""
    provider: k8s.Provider
    """The provider that makes objects in it."""
    eks_cluster: eks.Cluster | None = None
    """The EKS cluster, when it is made here."""
    node_groups: Mapping[str, eks.ManagedNodeGroup] = field(default_factory=dict)
    """Its node groups by name, when they are made here."""
    nodes: pulumi.Input[Any] = None
    """What these nodes are made from; for SociInstaller's `nodes`."""
    complete: Callable[[pulumi.ResourceOptions], None] = lambda _: None
    """Makes what the cluster needs when SOCI is on its nodes and pods can start, with these options."""


def access_of(
    component: pulumi.ComponentResource, kubeconfig: Any, context: pulumi.Input[str] | None
) -> pulumi.Output[Any]:
    """Kubeconfig and context with which a component reads its cluster, both text: those of its arguments,
    else those of its Kubernetes provider. Both are empty when neither says: what the provider then finds in
    its own environment is not known here.

    Raises:
        SociConfigError: the argument is no kubeconfig; of an output, when it is known.
    """
    if kubeconfig is not None:
        return pulumi.Output.all(kubeconfig_content(kubeconfig), context or "")
    # A provider hands out its own arguments like any resource, though it declares no attributes for them; one
    # of another program (a component in another language) does not.
    provider = component.get_provider("kubernetes:core/v1:Namespace")
    theirs = getattr(provider, "kubeconfig", None), context or getattr(provider, "context", None)

    async def read() -> list[str]:
        # One by one: in a preview, an argument that the provider was not given counts as not known yet.
        content, chosen = [await pulumi.Output.from_input(part).future() for part in theirs]
        return [_content_or_nothing(content), chosen or ""]

    return pulumi.Output.from_input(read())


def _content_or_nothing(kubeconfig: str | None) -> str:
    """The content of a provider's kubeconfig; empty for what the provider may understand and nobody else."""
    try:
        return read_kubeconfig(kubeconfig) if kubeconfig else ""
    except RefusedError:
        return ""
