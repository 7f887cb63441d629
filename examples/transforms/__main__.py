"""For platform teams: what SociCluster has no argument for, set on the resources inside of it.

A transform sees each resource, also those that pulumi-eks makes, before it is made. `pulumi preview --diff`
shows what came of it. Arguments of pulumi-eks itself are shorter by `eks_cluster_options` and
`eks_node_group_options`; both are shown.

Change: what `transform` does. Keep the startup taint, and whatever else SociCluster sets.
Costs: as the example minimal; the control plane's logs cost by volume.
"""

import pulumi
from soci_cluster import SociCluster


def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Detailed monitoring of the instances, and a cluster that `pulumi destroy` does not take by mistake."""
    changes = {
        "aws:ec2/launchTemplate:LaunchTemplate": {"monitoring": {"enabled": True}},
        "aws:eks/cluster:Cluster": {"deletionProtection": True},
    }
    if args.type_ not in changes:
        return None
    return pulumi.ResourceTransformResult({**args.props, **changes[args.type_]}, args.opts)


cluster = SociCluster(
    "soci",
    {"eks_cluster_options": {"enabledClusterLogTypes": ["audit", "authenticator"]}},
    opts=pulumi.ResourceOptions(transforms=[transform]),
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
