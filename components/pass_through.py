"""soci:eksCluster and soci:eksNodeGroup: arguments of pulumi-eks in its own words, handed on as they are.

No argument of pulumi-eks has a line here, so that each works, also those of its next release. Listed are
those that SociCluster sets itself: they are refused, with the setting that stands for them.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import pulumi
import pulumi_eks as eks

from . import values
from .values import RefusedError

# The key of pulumi-eks, or the path to it -> the setting that sets it, or why nothing may.
_CLUSTER_SETTINGS = {
    "name": "clusterName",
    "version": "kubernetesVersion",
    "vpcId": "vpcId",
    "subnetIds": "subnetIds",
    "publicSubnetIds": "publicSubnetIds",
    "privateSubnetIds": "privateSubnetIds",
    "vpcCniOptions.addonVersion": "addonVersions",
    "kubeProxyAddonOptions.version": "addonVersions",
    "tags": "tags",
}
_CLUSTER_FIXED = {
    "authenticationMode": "the nodes and their creator get in by access entries (API)",
    "skipDefaultNodeGroup": "the nodes are those of soci:nodeGroups, which start with a taint",
    "providerCredentialOpts": "the kubeconfig follows aws:profile",
    "corednsAddonOptions": "CoreDNS comes after the installer, without which none of its pods can start",
    "autoMode": "nobody may change the containerd of EKS Auto Mode's nodes",
} | dict.fromkeys(
    (
        "nodeGroupOptions",
        "instanceType",
        "desiredCapacity",
        "minSize",
        "maxSize",
        "nodeAmiId",
        "nodeSubnetIds",
        "nodeUserData",
        "nodeRootVolumeSize",
        "gpu",
    ),
    "the nodes are those of soci:nodeGroups",
)
_NODE_GROUP_SETTINGS = {
    "instanceTypes": "instanceTypes",
    "scalingConfig": "nodeCount, soci:minNodeCount and soci:maxNodeCount",
    "ignoreScalingChanges": "autoscaled",
    "capacityType": "capacityType",
    "amiType": "amiType",
    "gpu": "amiType",
    "operatingSystem": "operatingSystem",
    "version": "kubernetesVersion",
    "diskSize": "volumeGiB",
    "labels": "nodeLabels",
    "taints": "nodeTaints",
    "subnetIds": "nodeSubnetIds",
    "updateConfig": "maxUnavailable",
    "tags": "tags",
}
_NODE_GROUP_FIXED = {
    "cluster": "the group is one of this cluster",
    "clusterName": "the group is one of this cluster",
    "nodeRole": "the nodes have the role of SociCluster, with the policies that they need",
    "nodeRoleArn": "the nodes have the role of SociCluster, with the policies that they need",
    "nodeGroupName": "a group of a fixed name is deleted before its successor is there, and one of "
    "nodeGroupNamePrefix is not",
    "enableIMDSv2": "it is always on; soci:metadataHopLimit says how far it answers",
    "launchTemplate": "the group has one already; a transform can change it",
    "userData": "nodes of it would start without the taint that keeps workloads away until SOCI is there",
}


def _reasons(by_setting: Mapping[str, str], fixed: Mapping[str, str]) -> dict[str, str]:
    return {key: f"is what soci:{setting} sets" for key, setting in by_setting.items()} | dict(fixed)


CLUSTER_REASONS = _reasons(_CLUSTER_SETTINGS, _CLUSTER_FIXED)
"""The arguments of eks.Cluster that are refused, or the paths to them, each with the reason."""
NODE_GROUP_REASONS = _reasons(_NODE_GROUP_SETTINGS, _NODE_GROUP_FIXED)
"""The same of eks.ManagedNodeGroup."""
_ABSENT = object()
# With these, pulumi-eks itself writes the nodes' user data and looks their AMI up, in EKS's place.
USER_DATA = frozenset({"amiId", "bootstrapExtraArgs", "kubeletExtraArgs", "nodeadmExtraOptions"})


def cluster(value: Any) -> dict[str, Any]:
    """Arguments of eks.Cluster, none of which is SociCluster's own."""
    return _free(value, CLUSTER_REASONS)


def node_group(value: Any) -> dict[str, Any]:
    """Arguments of eks.ManagedNodeGroup, none of which is SociCluster's own."""
    return _free(value, NODE_GROUP_REASONS)


def _free(value: Any, reasons: Mapping[str, str]) -> dict[str, Any]:
    options = values.entries(value)
    refused = [
        RefusedError(reason, entry=path, value=_at(options, path))
        for path, reason in reasons.items()
        if _at(options, path) is not _ABSENT
    ]
    if refused:
        raise RefusedError("holds what SociCluster sets itself", entries=refused)
    return options


def _at(options: Any, path: str) -> Any:
    """What stands at a path in the options; _ABSENT where nothing does."""
    for key in path.split("."):
        options = options.get(key, _ABSENT) if isinstance(options, Mapping) else _ABSENT
    return options


def knows_ami_type(ami_type: str) -> bool:
    """Whether pulumi-eks knows an AMI type of EKS: it refuses any other one."""
    return ami_type in {known.value for known in eks.AmiType}


def warn_of_unknown(key: str, options: Mapping[str, Any], arguments: type, about: pulumi.Resource) -> None:
    """Say which options the installed pulumi-eks has no argument for: it ignores most of them without a word.

    Args:
        key: the setting that holds them.
        options: by pulumi-eks's names.
        arguments: its class of arguments, such as eks.ClusterArgs.
        about: the resource to say it of.
    """
    known = names(arguments)
    for name in (one for one in options if one not in known):
        pulumi.log.warn(f"soci:{key}.{name}: pulumi-eks {version('pulumi-eks')} has no such argument", about)


def names(arguments: type) -> set[str]:
    """The names of the arguments as pulumi-eks writes them; not enableIMDSv2, which no option may be."""
    parts = (name.split("_") for name in inspect.signature(arguments).parameters)
    return {head + "".join(map(str.capitalize, rest)) for head, *rest in parts}


def merged(props: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Properties with the options in them: objects entry by entry, at any depth; all else, lists too, as the
    options say."""
    result = dict(props)
    for key, option in options.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(option, Mapping)
        result[key] = merged(old, option) if both else option
    return result


def transforms(
    type_: str, options: Mapping[str, Any], protect: Callable[[Any], Any]
) -> list[pulumi.ResourceTransform]:
    """What merges the options into the resource of this type: a transform, or none without options. What they
    change is protected, since they may be secrets."""

    def merge(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ != type_:
            return None
        props = merged(args.props, options)
        return pulumi.ResourceTransformResult(
            props | {key: protect(props[key]) for key in options}, args.opts
        )

    return [merge] if options else []
