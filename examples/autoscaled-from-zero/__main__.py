"""For batch work: a group that costs nothing while nobody uses it. cluster-autoscaler starts its nodes.

Without `autoscaler_flag()` cluster-autoscaler would never start one: the nodes begin with SOCI's startup
taint, and it would take that for one that lasts. `autoscaled` keeps `pulumi up` from setting the size back.

Change: instance types and `max_node_count` of the batch group, the chart's version.
Costs: about 0.55 USD an hour while the batch group is empty, and 0.27 more for each of its nodes.
"""

import json

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
from soci_cluster import SociCluster, autoscaler_flag

cluster = SociCluster(
    "soci",
    {
        "node_groups": {
            "system": {"instance_types": ["m6i.xlarge"], "node_count": 2},
            "batch": {
                "instance_types": ["m6id.xlarge"],
                "node_count": 0,
                "min_node_count": 0,
                "max_node_count": 20,
                "autoscaled": True,
                "node_labels": {"workload": "batch"},
            },
        },
    },
)

# What cluster-autoscaler may do in AWS: its pods take this role on by EKS Pod Identity.
trust = {
    "Effect": "Allow",
    "Action": ["sts:AssumeRole", "sts:TagSession"],
    "Principal": {"Service": "pods.eks.amazonaws.com"},
}
rights = {
    "Effect": "Allow",
    "Action": [
        "autoscaling:Describe*",
        "autoscaling:SetDesiredCapacity",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:GetInstanceTypesFromInstanceRequirements",
        "eks:DescribeNodegroup",  # labels and taints of a group without a node
    ],
    "Resource": "*",
}
role = aws.iam.Role(
    "autoscaler",
    assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    inline_policies=[
        {"name": "scale", "policy": json.dumps({"Version": "2012-10-17", "Statement": [rights]})}
    ],
)
agent = aws.eks.Addon("pod-identity", cluster_name=cluster.cluster_name, addon_name="eks-pod-identity-agent")
identity = aws.eks.PodIdentityAssociation(
    "autoscaler",
    cluster_name=cluster.cluster_name,
    namespace="kube-system",
    service_account="cluster-autoscaler",
    role_arn=role.arn,
    opts=pulumi.ResourceOptions(depends_on=[agent]),
)
flag, value = autoscaler_flag().removeprefix("--").split("=")
k8s.helm.v3.Release(
    "cluster-autoscaler",
    chart="cluster-autoscaler",
    version="9.56.0",
    namespace="kube-system",
    repository_opts={"repo": "https://kubernetes.github.io/autoscaler"},
    values={
        "autoDiscovery": {"clusterName": cluster.cluster_name},
        "awsRegion": aws.config.region,
        "rbac": {"serviceAccount": {"name": "cluster-autoscaler"}},
        "extraArgs": {flag: value},
    },
    opts=pulumi.ResourceOptions(
        provider=cluster.provider, depends_on=[cluster, identity], deleted_with=cluster.eks_cluster
    ),
)
pulumi.export("kubeconfig", cluster.kubeconfig)
