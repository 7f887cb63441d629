"""For a cluster with two kinds of work: services start lazily, training pulls whole images over many
connections.

Each pool has an installer of its own, in a namespace of its own. The nodes of a pool carry the label
`soci-cluster.io/pool` and the startup taint (docs/own-nodes.md says how each kind of group gets them).

Change: Pulumi.dev.yaml, and POOLS. One node takes one installer: no node may have the labels of both.
"""

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
from soci_cluster import SociInstaller, eks_kubeconfig, pool_labels

POOLS = {"web": "lazy", "training": "parallel"}

name = pulumi.Config().require("clusterName")
provider = k8s.Provider(
    "kubernetes",
    kubeconfig=eks_kubeconfig(name),
    cluster_identifier=aws.eks.get_cluster_output(name=name).arn,
)

for pool, mode in POOLS.items():
    SociInstaller(
        pool,
        {
            "version": "0.16.1",
            "mode": mode,
            "namespace": f"soci-{pool}",
            "node_selector": pool_labels(pool),
        },
        opts=pulumi.ResourceOptions(provider=provider),
    )
