"""The nodes of SociCluster's EKS cluster: their role and their groups.

pulumi-eks's ManagedNodeGroup makes a launch template and an EKS node group. What it has no argument for is
set on those two by a transform: the disk's type and speed, tags, the reach of the metadata service, RAID 0,
AMI types that it does not know, and how many nodes EKS replaces at a time.
"""

import base64
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from . import cluster_network, eks_checks, eks_rules, pass_through, rules
from .guards import Answers
from .operating_systems import SERVED
from .own_nodes import managed_group_taints, pool_labels
from .settings import Settings, protected

NODE_POLICIES = (
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
    # `aws ssm start-session`: a shell on a node without SSH. Unlike AmazonSSMManagedInstanceCore, it lets the
    # node read no parameters of the account.
    "AmazonSSMManagedEC2InstanceDefaultPolicy",
)
# As the API of EKS writes them.
TAINT_EFFECTS = {
    "NoSchedule": "NO_SCHEDULE",
    "PreferNoSchedule": "PREFER_NO_SCHEDULE",
    "NoExecute": "NO_EXECUTE",
}
# AWS gives the tags of a node group to none of these.
TAGGED_BY_TEMPLATE = ("instance", "volume", "network-interface")
# What nodeadm adds to EKS's own NodeConfig: https://awslabs.github.io/amazon-eks-ami/nodeadm/doc/api/
RAID_0 = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="//"

--//
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0

--//--
"""


def node_groups(
    name: str,
    chosen: Settings,
    shapes: Mapping[str, Settings],
    cluster: eks.Cluster,
    *,
    checked: pulumi.Output[Answers],
    component: pulumi.ComponentResource,
) -> dict[str, eks.ManagedNodeGroup]:
    """The node groups of a cluster by name, children of the component.

    Args:
        name: the component's.
        chosen: its settings.
        shapes: these as each group has them, by its name.
        cluster: the cluster.
        checked: known when AWS was checked; nothing is made before.
        component: the parent of all that is made.
    """
    role, policies = _role(name, chosen, checked, component)
    options: dict[str, Any] = {}
    for group in shapes.values():
        options |= group.eks_node_group_options
    pass_through.warn_of_unknown("eksNodeGroup", options, eks.ManagedNodeGroupArgs, component)
    return {
        group_name: eks.ManagedNodeGroup(
            f"{name}-{group_name}",
            cluster=cluster,
            node_role_arn=role.arn,
            enable_imd_sv2=True,
            **_arguments(group),
            opts=pulumi.ResourceOptions(parent=component, depends_on=policies, transforms=_transforms(group)),
        )
        for group_name, group in shapes.items()
    }


def _arguments(group: Settings) -> dict[str, Any]:
    """The arguments of a ManagedNodeGroup that say what it is like."""
    return {
        **_ami(group),
        "instance_types": list(group.instance_types),
        "capacity_type": "SPOT" if group.capacity_type == "spot" else None,
        "disk_size": group.volume_gib,
        "labels": {**group.node_labels, **pool_labels()},
        # Declared on the group, so that every node starts with it: no workload can land before SOCI.
        "taints": [*managed_group_taints(), *map(_taint, group.node_taints)],
        "scaling_config": {
            "desired_size": group.node_count,
            "min_size": group.min_node_count,
            "max_size": group.max_node_count,
        },
        "ignore_scaling_changes": group.autoscaled or None,
        "subnet_ids": cluster_network.node_subnets(group),
        "tags": dict(group.tags),
    }


def _ami(group: Settings) -> dict[str, Any]:
    """The AMI as pulumi-eks takes it. Of a type that it does not know it must not hear: it could not tell the
    operating system; the node group has it from the transform."""
    kind = eks_rules.ami_type(group)
    if kind and not pass_through.knows_ami_type(kind):
        return {}
    system = eks.OperatingSystem(SERVED[group.operating_system].eks)
    return {"operating_system": system, "ami_type": kind or None}


def _taint(text: str) -> dict[str, str]:
    key, value, effect = rules.taint(text)
    return {"key": key, "value": value, "effect": TAINT_EFFECTS[effect]}


def _transforms(group: Settings) -> list[pulumi.ResourceTransform]:
    changed = {
        "aws:ec2/launchTemplate:LaunchTemplate": launch_template,
        "aws:eks/nodeGroup:NodeGroup": node_group,
    }
    is_found = not (group.vpc_id or group.node_subnet_ids)

    def of_children(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ not in changed:
            return None
        options = cluster_network.keeping_found(args) if is_found else args.opts
        return pulumi.ResourceTransformResult(changed[args.type_](args.props, group), options)

    protect = partial(protected, ["eks_node_group_options", "node_groups"])
    passed = pass_through.transforms("eks:index:ManagedNodeGroup", group.eks_node_group_options, protect)
    return [*passed, of_children]


def launch_template(props: Mapping[str, Any], group: Settings) -> dict[str, Any]:
    """The properties of the group's launch template, of those that pulumi-eks gives it."""
    disk = {"volumeType": group.volume_type, "iops": eks_checks.volume_iops(group)}
    if group.volume_type == "gp3":
        disk["throughput"] = group.volume_throughput
    mappings = [
        {**mapping, "ebs": {**mapping["ebs"], **disk}} for mapping in props.get("blockDeviceMappings") or []
    ]
    result = {
        **props,
        "blockDeviceMappings": mappings,
        "metadataOptions": {
            **(props.get("metadataOptions") or {}),
            "httpPutResponseHopLimit": group.metadata_hop_limit,
        },
    }
    if group.tags:
        tags = dict(group.tags)
        result["tags"] = tags
        result["tagSpecifications"] = [{"resourceType": kind, "tags": tags} for kind in TAGGED_BY_TEMPLATE]
    if eks_rules.has_raid_0(group) and not props.get("userData"):
        # Without an AMI in the template EKS puts its own NodeConfig, with cluster and taints, after this one.
        result["userData"] = base64.b64encode(RAID_0.encode()).decode()
    return result


def node_group(props: Mapping[str, Any], group: Settings) -> dict[str, Any]:
    """The properties of the EKS node group, of those that pulumi-eks gives it."""
    amount = group.max_unavailable
    # EKS takes 1 to 100 of either.
    update = (
        {"maxUnavailablePercentage": int(amount[:-1])}
        if amount.endswith("%")
        else {"maxUnavailable": min(int(amount), 100)}
    )
    result = {**props, "updateConfig": update}
    # Without a version the AMI is in the launch template, and its type may not be named.
    if "version" in props:
        result["amiType"] = props.get("amiType") or eks_rules.ami_type(group)
    return result


def _role(
    name: str, chosen: Settings, checked: pulumi.Output[Answers], component: pulumi.ComponentResource
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    """What the nodes may do in AWS: the role, and the policies attached to it."""
    child = pulumi.ResourceOptions(parent=component)
    statement = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "ec2.amazonaws.com"},
    }
    trust = {"Version": "2012-10-17", "Statement": [statement]}
    role = aws.iam.Role(
        f"{name}-node-role",
        assume_role_policy=checked.apply(lambda _: json.dumps(trust)),
        tags=dict(chosen.tags),
        opts=child,
    )
    # `aws`, or that of China, GovCloud, …
    partition = aws.get_partition_output(opts=pulumi.InvokeOutputOptions(parent=component)).partition
    policies: list[pulumi.Resource] = [
        aws.iam.RolePolicyAttachment(
            f"{name}-{policy}",
            role=role.name,
            policy_arn=pulumi.Output.concat("arn:", partition, ":iam::aws:policy/", policy),
            opts=child,
        )
        for policy in NODE_POLICIES
    ]
    return role, policies
