"""For clusters with Karpenter 1.0 or newer: a NodePool whose nodes take pods when SOCI serves them.

Karpenter counts with the new node while it has the startup taint, so five pending pods get the nodes that
they need and no more. Subnets and security groups are found by the tag `karpenter.sh/discovery`.

Change: Pulumi.dev.yaml; `limits`, the instance categories, the disk.
Costs: what the pods ask for, 256 processors at most.
"""

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
from soci_cluster import SociInstaller, ec2_node_class, eks_kubeconfig, node_pool, pool_labels

config = pulumi.Config()
name = config.require("clusterName")
provider = k8s.Provider(
    "kubernetes",
    kubeconfig=eks_kubeconfig(name),
    cluster_identifier=aws.eks.get_cluster_output(name=name).arn,
)

installer = SociInstaller(
    "soci",
    # There may be no node yet.
    {"version": "0.16.1", "node_selector": pool_labels(), "require_nodes": False},
    opts=pulumi.ResourceOptions(provider=provider),
)
discovery = [{"tags": {"karpenter.sh/discovery": name}}]
node_class = ec2_node_class(
    "soci",
    {
        "role": config.require("nodeRole"),
        "subnetSelectorTerms": discovery,
        "securityGroupSelectorTerms": discovery,
    },
    volume_gib=200,
)
categories = {"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["m", "c", "g"]}
pool = node_pool("soci", {"limits": {"cpu": "256"}, "template": {"spec": {"requirements": [categories]}}})
before = installer
for manifest in (node_class, pool):
    before = k8s.apiextensions.CustomResource(
        f"soci-{manifest['kind']}",
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
        # The pool goes first when it goes, so that Karpenter can still end its nodes.
        opts=pulumi.ResourceOptions(provider=provider, depends_on=[before]),
    )
pulumi.export("sociVersion", installer.version)
