"""For networks without the internet: nodes in private subnets, release and images from one registry of yours.

The VPC has what the nodes need: interface endpoints for ec2, ecr.api, ecr.dkr, sts, eks and eks-auth (and
ssm, ssmmessages, ec2messages for a shell on a node), a gateway endpoint for s3. How release and images come
into the registry: docs/operations.md, Air gap. The API server answers inside of the VPC only, so run Pulumi
there; its plugins have to be carried in, see docs/eks.md, Plugins.

Change: everything in Pulumi.dev.yaml.
Costs: as the example minimal, and about 0.01 USD an hour for each interface endpoint and zone.
"""

import pulumi
from soci_cluster import SociCluster

config = pulumi.Config()
registry = config.require("registry")

cluster = SociCluster(
    "soci",
    {
        "vpc_id": config.require("vpcId"),
        "private_subnet_ids": config.require_object("privateSubnetIds"),
        "eks_cluster_options": {"endpointPrivateAccess": True, "endpointPublicAccess": False},
        "release_url": f"oci://{registry}/soci-snapshotter",
        # With it, the registry is asked for bytes by the nodes, and for nothing where Pulumi runs.
        "sha256": {"amd64": config.require("sha256")},
        "installer_image": f"{registry}/python:3.13-alpine",
        "sample_workload": {"image": f"{registry}/sample:1", "command": ["/bin/true"]},
    },
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
