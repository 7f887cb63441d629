"""Settings of a new EKS cluster that contradict each other, though each is good alone.

What AWS would refuse is in eks_checks.py.
"""

from . import instance_types, pass_through
from .operating_systems import SERVED
from .problems import Finding
from .settings import Settings
from .values import RefusedError


def subnets(settings: Settings) -> list[Finding]:
    """What is wrong with the subnets of the cluster."""
    sides = (*settings.public_subnet_ids, *settings.private_subnet_ids)
    key = "privateSubnetIds" if settings.private_subnet_ids else "publicSubnetIds"
    if settings.subnet_ids and sides:
        reason = "stands in the place of soci:subnetIds, which is set, too"
        return [Finding(key, reason, "pulumi config rm soci:subnetIds")]
    if (settings.subnet_ids or sides) and not settings.vpc_id:
        reason = f"soci:{'subnetIds' if settings.subnet_ids else key} needs the VPC that they are in"
        return [Finding("vpcId", reason, "pulumi config set soci:vpcId vpc-…")]
    if settings.vpc_id and not (settings.subnet_ids or sides):
        remedy = "pulumi config set --path 'soci:subnetIds[0]' subnet-…"
        return [Finding("subnetIds", "soci:vpcId needs the subnets for the cluster", remedy)]
    if len(sides) == 1:
        reason = "EKS needs subnets in at least two availability zones"
        return [Finding(key, reason, f"pulumi config set --path 'soci:{key}[1]' subnet-…")]
    return []


def node_group(group: Settings) -> list[Finding]:
    """What is wrong with one node group."""
    return [*_sizes(group), *_user_data(group)]


def ami_type(group: Settings) -> str:
    """The AMI type of a group's nodes; empty when it has an AMI of the user's own, or none fits."""
    if "amiId" in group.eks_node_group_options:
        return ""
    try:
        system = SERVED[group.operating_system]
        return group.ami_type or system.ami_type(group.instance_types)
    except RefusedError:
        return ""


def has_raid_0(group: Settings) -> bool:
    """Whether the instance store of a group's nodes is made a RAID 0, where they have one."""
    return group.instance_store and any(map(instance_types.has_instance_store, group.instance_types))


def _sizes(group: Settings) -> list[Finding]:
    fewest, most = group.min_node_count, group.max_node_count
    if fewest <= group.node_count <= most:
        return []
    reason = f"must lie between soci:minNodeCount and soci:maxNodeCount ({fewest} to {most})"
    nearest = most if group.node_count > most else fewest
    return [Finding("nodeCount", reason, f"pulumi config set soci:nodeCount {nearest}")]


def _user_data(group: Settings) -> list[Finding]:
    """What does not go together with user data that pulumi-eks writes in EKS's place."""
    options = group.eks_node_group_options
    key = next((key for key in options if key in pass_through.USER_DATA), "")
    kind = ami_type(group)
    found = []
    if "amiId" in options and group.ami_type:
        reason = "soci:eksNodeGroup has an amiId, too"
        found.append(Finding("amiType", reason, "pulumi config rm soci:amiType"))
    if key and kind and not pass_through.knows_ami_type(kind):
        reason = f"with {key} pulumi-eks looks for the AMI itself, and does not know {kind}"
        found.append(
            Finding("eksNodeGroup", reason, "pulumi config set --path soci:eksNodeGroup.amiId ami-…")
        )
    if key and has_raid_0(group):
        reason = (
            f"with {key} pulumi-eks writes the user data, to which the RAID 0 cannot be added (in "
            "nodeadmExtraOptions it is instance.localStorage.strategy)"
        )
        found.append(Finding("instanceStore", reason, "pulumi config set soci:instanceStore false"))
    return found
