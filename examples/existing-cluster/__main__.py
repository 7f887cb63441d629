"""For a cluster that is there, of any kind whose nodes run systemd and containerd: what your kubectl reaches.

Its nodes run workloads already: `migrate` changes them all the same, one by one. Running containers go on;
containerd restarts once on each node. Nodes that join later should start with the startup taint, see
docs/own-nodes.md.

Change: kubeconfig and nodeSelector, in Pulumi.dev.yaml.
"""

import pulumi
from soci_cluster import SociCluster

config = pulumi.Config()

cluster = SociCluster(
    "soci",
    {
        "cluster": "existing",
        "kubeconfig": config.require("kubeconfig"),
        "node_selector": config.require_object("nodeSelector"),
        "existing_nodes": "migrate",
        "max_unavailable": "1",
    },
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
