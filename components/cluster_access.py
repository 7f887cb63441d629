"""How SociCluster reaches its cluster, whichever it is: what eks_cluster.py and existing_cluster.py make."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s


@dataclass(frozen=True)
class ClusterAccess:
    """A cluster as the installer needs it."""

    name: pulumi.Output[str]
    """Its name for people."""
    kubeconfig: pulumi.Output[str]
    """Its kubeconfig's content (secret)."""
    provider: k8s.Provider
    """The provider that makes objects in it."""
    ready: Sequence[pulumi.Resource] = ()
    """What must be there before the installer: its nodes."""
