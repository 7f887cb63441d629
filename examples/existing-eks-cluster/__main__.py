"""For an EKS cluster of another program or team: a node group with SOCI beside those that it has.

`eks_kubeconfig` asks AWS for the cluster; whoever runs this must have an access entry there. The other
groups stay as they are, since the installer selects the label of this one.

Change: Pulumi.dev.yaml, and the shape of the group.
Costs: 0.22 USD an hour for each m6i.xlarge and its disk.
"""

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
from soci_cluster import SociInstaller, eks_kubeconfig, managed_group_taints, pool_labels

config = pulumi.Config()
name = config.require("clusterName")
COUNT = 2

group = aws.eks.NodeGroup(
    "soci",
    cluster_name=name,
    node_role_arn=config.require("nodeRoleArn"),
    subnet_ids=config.require_object("subnetIds"),
    instance_types=["m6i.xlarge"],
    disk_size=100,
    scaling_config={"min_size": 1, "desired_size": COUNT, "max_size": 6},
    taints=managed_group_taints(),
    labels=pool_labels(),
)
installer = SociInstaller(
    "soci",
    {
        "version": "0.16.1",
        "node_selector": pool_labels(),
        "nodes": [group.id, group.version, group.release_version, COUNT],
    },
    opts=pulumi.ResourceOptions(
        provider=k8s.Provider(
            "kubernetes",
            kubeconfig=eks_kubeconfig(name),
            cluster_identifier=aws.eks.get_cluster_output(name=name).arn,
        ),
        depends_on=[group],
    ),
)
pulumi.export("sociVersion", installer.version)
