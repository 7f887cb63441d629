"""For private images: the SOCI daemon reads them with credentials of its own, those of root's Docker
configuration on each node. Without them a private image still starts, by an ordinary pull.

The user data below puts ECR's credential helper there, which works with the role of the node. For another
registry it is `{"auths": {"REGISTRY": {"auth": ...}}}`, readable to all who see the launch template.

Change: `image` in Pulumi.dev.yaml. With instance types that have disks of their own, set `instance_store` to
False: this user data takes the place of the one that makes a RAID 0 of them. Tried by previews, not on AWS.
Costs: as the example minimal.
"""

import base64
import json

import pulumi
from soci_cluster import SociCluster

image = pulumi.Config().require("image")
registry = image.split("/", maxsplit=1)[0]
# EKS puts its own part after this one.
USER_DATA = f"""\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="//"

--//
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
dnf install -y amazon-ecr-credential-helper
mkdir -p /root/.docker
echo '{json.dumps({"credHelpers": {registry: "ecr-login"}})}' > /root/.docker/config.json

--//--
"""


def with_credentials(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Every node of the cluster gets the user data."""
    if args.type_ != "aws:ec2/launchTemplate:LaunchTemplate":
        return None
    user_data = base64.b64encode(USER_DATA.encode()).decode()
    return pulumi.ResourceTransformResult({**args.props, "userData": user_data}, args.opts)


cluster = SociCluster(
    "soci",
    {"sample_workload": {"image": image, "command": ["/bin/true"]}},
    opts=pulumi.ResourceOptions(transforms=[with_credentials]),
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
