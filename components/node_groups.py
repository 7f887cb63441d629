"""The nodes of SociCluster's EKS cluster: their role and their group."""

import json

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from .names import DOMAIN, STARTUP_TAINT
from .operating_systems import OPERATING_SYSTEMS
from .settings import Settings

NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
POOL_LABEL = {f"{DOMAIN}/pool": "soci"}


def node_groups(
    name: str, chosen: Settings, cluster: eks.Cluster, component: pulumi.ComponentResource
) -> dict[str, eks.ManagedNodeGroup]:
    """The node groups of a cluster by name, children of the component."""
    role, policies = _role(name, chosen, component)
    group = eks.ManagedNodeGroup(
        f"{name}-nodes",
        cluster=cluster,
        node_role_arn=role.arn,
        operating_system=eks.OperatingSystem(OPERATING_SYSTEMS[chosen.operating_system].eks),
        instance_types=list(chosen.instance_types),
        disk_size=chosen.volume_gib,
        enable_imd_sv2=True,
        labels=POOL_LABEL,
        # Declared on the group, so that every node starts with it: no workload can land before SOCI.
        taints=[{"key": STARTUP_TAINT, "value": "true", "effect": "NO_SCHEDULE"}],
        scaling_config={
            "desired_size": chosen.node_count,
            "min_size": chosen.min_node_count,
            "max_size": chosen.max_node_count,
        },
        tags=dict(chosen.tags),
        opts=pulumi.ResourceOptions(parent=component, depends_on=policies),
    )
    return {"nodes": group}


def _role(
    name: str, chosen: Settings, component: pulumi.ComponentResource
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    """What the nodes may do in AWS: the role, and the policies attached to it."""
    child = pulumi.ResourceOptions(parent=component)
    statement = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "ec2.amazonaws.com"},
    }
    role = aws.iam.Role(
        f"{name}-node-role",
        assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        tags=dict(chosen.tags),
        opts=child,
    )
    policies: list[pulumi.Resource] = [
        aws.iam.RolePolicyAttachment(
            f"{name}-{policy}",
            role=role.name,
            policy_arn=f"arn:aws:iam::aws:policy/{policy}",
            opts=child,
        )
        for policy in NODE_POLICIES
    ]
    return role, policies
