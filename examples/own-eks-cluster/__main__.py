"""For those who have an eks.Cluster in their program and want to keep it theirs: SociInstaller beside it.

Three things are SOCI's: the taint and the label of the group, and that CoreDNS comes after the installer,
since no pod starts before.

Change: anything of cluster and group. Keep `taints` and `labels`, and in `nodes` all that makes other nodes.
Costs: as the example minimal.
"""

import json

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as k8s
from soci_cluster import SociInstaller, managed_group_taints, pool_labels

POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
COUNT = 2

cluster = eks.Cluster(
    "cluster",
    authentication_mode=eks.AuthenticationMode.API,
    skip_default_node_group=True,
    coredns_addon_options={"enabled": False},
)
trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
role = aws.iam.Role("nodes", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
partition = aws.get_partition_output().partition
attached = [
    aws.iam.RolePolicyAttachment(
        policy,
        role=role.name,
        policy_arn=pulumi.Output.concat("arn:", partition, ":iam::aws:policy/", policy),
    )
    for policy in POLICIES
]
nodes = eks.ManagedNodeGroup(
    "nodes",
    cluster=cluster,
    node_role_arn=role.arn,
    instance_types=["m6i.xlarge"],
    disk_size=100,
    scaling_config={"min_size": 1, "desired_size": COUNT, "max_size": 4},
    taints=managed_group_taints(),
    labels=pool_labels(),
    opts=pulumi.ResourceOptions(depends_on=attached),
)
group = nodes.node_group
installer = SociInstaller(
    "soci",
    {
        "version": "0.16.1",
        "node_selector": pool_labels(),
        "nodes": [group.id, group.launch_template, group.version, group.release_version, COUNT],
    },
    opts=pulumi.ResourceOptions(
        provider=k8s.Provider(
            "kubernetes",
            kubeconfig=cluster.kubeconfig_json,
            cluster_identifier=cluster.eks_cluster.arn,
        ),
        depends_on=[nodes],
        # A cluster that goes takes the objects in it along.
        deleted_with=cluster,
    ),
)
aws.eks.Addon(
    "coredns",
    cluster_name=cluster.eks_cluster.name,
    addon_name="coredns",
    resolve_conflicts_on_create="OVERWRITE",
    opts=pulumi.ResourceOptions(depends_on=[installer, installer.ready]),
)
pulumi.export("sociVersion", installer.version)
