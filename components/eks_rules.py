"""What cannot work of a new EKS cluster and its nodes, though each setting is good alone.

Pure functions of the settings; none of them asks AWS. A problem is a setting's key, the reason and the
remedy.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import instance_types, pass_through
from .values import RefusedError

if TYPE_CHECKING:
    from .settings import Settings

Problem = tuple[str, str, str]

# The limits of EBS: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
MOST_IOPS = {"gp3": 80000, "io2": 256000}
MOST_IOPS_PER_GIB = {"gp3": 500, "io2": 1000}
# gp3 moves at most 0.25 MiB/s for each operation per second; io2 moves 256 KiB by one, which is the same.
IOPS_PER_MIB_S = 4


def volume_iops(group: "Settings") -> int:
    """The I/O operations per second of a group's disks."""
    return group.volume_iops or max(3000, IOPS_PER_MIB_S * group.volume_throughput)


def nodes(settings: "Settings", groups: Mapping[str, "Settings"]) -> list[Problem]:
    """What is wrong with all groups together: they have no node."""
    if any(group.node_count for group in groups.values()) or not settings.require_nodes:
        return []
    key = "nodeGroups" if settings.node_groups else "nodeCount"
    remedy = "pulumi config set soci:nodeCount 1, or soci:requireNodes false with an autoscaler"
    return [(key, "without a node SOCI is nowhere installed", remedy)]


def subnets(settings: "Settings") -> list[Problem]:
    """What is wrong with the subnets of the cluster."""
    sides = (*settings.public_subnet_ids, *settings.private_subnet_ids)
    key = "privateSubnetIds" if settings.private_subnet_ids else "publicSubnetIds"
    if settings.subnet_ids and sides:
        reason = "stands in the place of soci:subnetIds, which is set, too"
        return [(key, reason, "pulumi config rm soci:subnetIds")]
    if (settings.subnet_ids or sides) and not settings.vpc_id:
        reason = f"soci:{'subnetIds' if settings.subnet_ids else key} needs the VPC that they are in"
        return [("vpcId", reason, "pulumi config set soci:vpcId vpc-…")]
    if settings.vpc_id and not (settings.subnet_ids or sides):
        remedy = "pulumi config set --path 'soci:subnetIds[0]' subnet-…"
        return [("subnetIds", "soci:vpcId needs the subnets for the cluster", remedy)]
    if len(sides) == 1:
        reason = "EKS needs subnets in at least two availability zones"
        return [(key, reason, f"pulumi config set --path 'soci:{key}[1]' subnet-…")]
    return []


def node_group(group: "Settings") -> list[Problem]:
    """What is wrong with one node group."""
    return [*_sizes(group), *_volume(group), *_ami(group)]


def _sizes(group: "Settings") -> list[Problem]:
    fewest, most = group.min_node_count, group.max_node_count
    if fewest <= group.node_count <= most:
        return []
    reason = f"must lie between soci:minNodeCount and soci:maxNodeCount ({fewest} to {most})"
    nearest = most if group.node_count > most else fewest
    return [("nodeCount", reason, f"pulumi config set soci:nodeCount {nearest}")]


def _volume(group: "Settings") -> list[Problem]:
    iops, kind = volume_iops(group), group.volume_type
    needed = IOPS_PER_MIB_S * group.volume_throughput
    if iops < needed:
        reason = f"{group.volume_throughput} MiB/s need {needed} operations per second"
        return [("volumeIops", reason, "pulumi config rm soci:volumeIops")]
    if iops > MOST_IOPS[kind]:
        remedy = f"pulumi config set soci:volumeIops {MOST_IOPS[kind]}"
        return [("volumeIops", f"{kind} has at most {MOST_IOPS[kind]} operations per second", remedy)]
    if iops > MOST_IOPS_PER_GIB[kind] * group.volume_gib:
        smallest = -(-iops // MOST_IOPS_PER_GIB[kind])
        reason = f"{iops} operations per second need {smallest} GiB of {kind}"
        return [("volumeGiB", reason, f"pulumi config set soci:volumeGiB {smallest}")]
    return []


def _ami(group: "Settings") -> list[Problem]:
    """Whether there is an AMI for the nodes, and who writes their user data."""
    options = group.eks_node_group_options
    if "amiId" in options and group.ami_type:
        return [("amiType", "soci:eksNodeGroup has an amiId, too", "pulumi config rm soci:amiType")]
    problems = []
    try:
        ami_type = group.ami_type or instance_types.ami_type(group.instance_types)
    except RefusedError as refused:
        return [("instanceTypes", refused.reason, refused.remedy)] if "amiId" not in options else []
    by_pulumi = sorted(pass_through.USER_DATA.intersection(options))
    if by_pulumi and "amiId" not in options and not pass_through.knows_ami_type(ami_type):
        reason = f"with {by_pulumi[0]} pulumi-eks looks for the AMI itself, and does not know {ami_type}"
        problems.append(("eksNodeGroup", reason, "pulumi config set --path soci:eksNodeGroup.amiId ami-…"))
    if (
        by_pulumi
        and group.instance_store
        and any(map(instance_types.has_instance_store, group.instance_types))
    ):
        reason = (
            f"with {by_pulumi[0]} pulumi-eks writes the user data, to which the RAID 0 cannot be added (in "
            "nodeadmExtraOptions it is instance.localStorage.strategy)"
        )
        problems.append(("instanceStore", reason, "pulumi config set soci:instanceStore false"))
    return problems
