"""The EKS cluster that SociCluster makes: control plane, add-ons, the way in. Nodes: node_groups.py."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as k8s

from . import aws_questions, cluster_network, pass_through
from .cluster_access import ClusterAccess
from .node_groups import node_groups
from .rules import ADD_ONS
from .settings import Settings, node_groups_of, protected


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
    shapes = node_groups_of(chosen)
    checked = aws_questions.checked(component, chosen, shapes)
    child = pulumi.ResourceOptions(parent=component)
    credentials = _credentials(profile, chosen.kubeconfig_role_arn)
    versions = {add_on: _add_on_version(name, add_on, chosen, component) for add_on in ADD_ONS}
    cluster = eks.Cluster(
        f"{name}-eks",
        name=chosen.cluster_name or None,
        version=chosen.kubernetes_version,
        authentication_mode=eks.AuthenticationMode.API,
        skip_default_node_group=True,
        vpc_cni_options={"addon_version": versions["vpc-cni"]},
        kube_proxy_addon_options={"version": versions["kube-proxy"]},
        # No add-on may wait for a schedulable node here: nodes come up with the startup taint, which
        # only the installer lifts, and the installer comes after this cluster. CoreDNS is made below, when
        # SOCI is on the nodes. (The network plug-in and kube-proxy tolerate every taint.)
        coredns_addon_options={"enabled": False},
        **cluster_network.arguments(chosen, checked, component),
        provider_credential_opts=credentials or None,
        tags=dict(chosen.tags),
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(transforms=_transforms(chosen))),
    )
    groups = node_groups(name, chosen, shapes, cluster, checked=checked, component=component)
    # Both of the cluster's kubeconfigs leave profile and role out (pulumi-eks#1082).
    kubeconfig = pulumi.Output.secret(
        cluster.get_kubeconfig(**credentials) if credentials else cluster.kubeconfig_json
    )
    provider = k8s.Provider(
        f"{name}-kubernetes",
        kubeconfig=kubeconfig,
        cluster_identifier=cluster.eks_cluster.arn,
        opts=child,
    )
    return ClusterAccess(
        cluster.eks_cluster.name,
        kubeconfig,
        provider,
        cluster,
        groups,
        {group_name: _nodes(shapes[group_name], group) for group_name, group in groups.items()},
        partial(_core_dns, name, chosen.tags, cluster, versions["coredns"]),
    )


def _transforms(chosen: Settings) -> list[pulumi.ResourceTransform]:
    # None without a reason: the engine asks this program for each of them, at each resource of the cluster.
    protect = partial(protected, ["eks_cluster_options"])
    passed = pass_through.transforms("eks:index:Cluster", chosen.eks_cluster_options, protect)
    return passed if chosen.vpc_id else [*passed, cluster_network.keep_found]


def _credentials(profile: str, role_arn: str) -> eks.KubeconfigOptionsArgsDict:
    """With which credentials the kubeconfig asks for a token; empty for those of the environment."""
    credentials: eks.KubeconfigOptionsArgsDict = {}
    if profile:
        credentials["profile_name"] = profile
    if role_arn:
        credentials["role_arn"] = role_arn
    return credentials


def _add_on_version(
    name: str, add_on: str, chosen: Settings, component: pulumi.ComponentResource
) -> pulumi.Input[str]:
    """The version of an add-on: the chosen one, else the newest of the day on which the cluster came to its
    Kubernetes release. AWS releases builds all the time, and a plain `pulumi up` must change no network
    plug-in, so the state keeps what was found that day: a resource of its own for each release."""
    if add_on in chosen.addon_versions:
        return chosen.addon_versions[add_on]
    newest = aws.eks.get_addon_version_output(
        addon_name=add_on,
        kubernetes_version=chosen.kubernetes_version,
        most_recent=True,
        opts=pulumi.InvokeOutputOptions(parent=component),
    ).version
    return pulumi.Stash(
        f"{name}-{add_on}-{chosen.kubernetes_version}",
        input=newest,
        opts=pulumi.ResourceOptions(parent=component, ignore_changes=["input"]),
    ).output


def _nodes(shape: Settings, group: eks.ManagedNodeGroup) -> pulumi.Output[dict[str, Any]]:
    """What a group's nodes are made from. Its size is the declared one: what an autoscaler made of it is no
    change of the program's.

    Raises, in the output:
        pulumi.RunError: EKS gave the group up. The engine asks for a creation that failed only once.
    """
    made = group.node_group
    return pulumi.Output.all(
        id=pulumi.Output.all(made.id, made.status).apply(lambda of: _usable(*of)),
        launch_template=made.launch_template,
        version=made.version,
        release_version=made.release_version,
        sizes=[shape.min_node_count, shape.node_count, shape.max_node_count],
    )


def _usable(identifier: str, status: str | None) -> str:
    if status and status.endswith("_FAILED"):
        raise pulumi.RunError(
            f"the node group {identifier} is {status}. Remedy: mend what `aws eks describe-nodegroup` says "
            "of its health, then pulumi up --replace URN, with the group's from pulumi stack --show-urns"
        )
    return identifier


def _core_dns(
    name: str,
    tags: Mapping[str, str],
    cluster: eks.Cluster,
    version: pulumi.Input[str],
    options: pulumi.ResourceOptions,
) -> None:
    """The CoreDNS add-on: takes EKS's own CoreDNS over, which nobody upgrades, and waits until it runs.

    It is deleted before the nodes, also with the cluster: its disruption budget would hold their drain.
    """
    aws.eks.Addon(
        f"{name}-coredns",
        addon_name="coredns",
        addon_version=version,
        cluster_name=cluster.eks_cluster.name,
        resolve_conflicts_on_create="OVERWRITE",
        resolve_conflicts_on_update="PRESERVE",
        tags=dict(tags),
        opts=options,
    )
