"""The EKS cluster that SociCluster makes: control plane, add-ons, the way in. Nodes: node_groups.py."""

import json

import pulumi
import pulumi_eks as eks
import pulumi_kubernetes as k8s

from . import cluster_network, pass_through
from .cluster_access import ClusterAccess
from .node_groups import node_groups
from .settings import Settings


def make(name: str, chosen: Settings, profile: str, component: pulumi.ComponentResource) -> ClusterAccess:
    """An EKS cluster with its nodes, children of the component.

    Args:
        name: the component's.
        chosen: its settings.
        profile: the AWS profile that the AWS provider uses; empty for none.
        component: the parent of all that is made.
    """
    pulumi.log.info(
        "A new EKS cluster and its nodes take 10 to 15 minutes, without a word in between", component
    )
    pass_through.warn_of_unknown("eksCluster", chosen.eks_cluster_options, eks.ClusterArgs, component)
    child = pulumi.ResourceOptions(parent=component)
    cluster = eks.Cluster(
        f"{name}-eks",
        version=chosen.kubernetes_version,
        authentication_mode=eks.AuthenticationMode.API,
        skip_default_node_group=True,
        # No add-on may wait for a schedulable node here: nodes come up with the startup taint, which
        # only the installer lifts, and the installer comes after this cluster. A CoreDNS add-on, whose
        # creation waits for running pods, would wait for ever. EKS's own CoreDNS stays instead: nobody
        # waits for it, and it starts when the first node is released. (The network plug-in and
        # kube-proxy tolerate every taint.)
        coredns_addon_options={"enabled": False},
        **cluster_network.arguments(chosen, component),
        provider_credential_opts={"profile_name": profile} if profile else None,
        tags=dict(chosen.tags),
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(transforms=_transforms(chosen))),
    )
    groups = node_groups(name, chosen, cluster, component)
    # kubeconfig_json leaves the profile out (pulumi-eks#1082).
    kubeconfig = pulumi.Output.secret(
        cluster.kubeconfig.apply(json.dumps) if profile else cluster.kubeconfig_json
    )
    provider = k8s.Provider(
        f"{name}-kubernetes",
        kubeconfig=kubeconfig,
        cluster_identifier=cluster.eks_cluster.arn,
        opts=child,
    )
    return ClusterAccess(cluster.eks_cluster.name, kubeconfig, provider, groups)


def _transforms(chosen: Settings) -> list[pulumi.ResourceTransform]:
    passed = pass_through.transform("eks:index:Cluster", chosen.eks_cluster_options)
    return [passed] if chosen.vpc_id else [passed, cluster_network.keep_found]
