"""For images in ECR that others push: a CronJob in an EKS cluster that exists gives them their SOCI index.

The pod's service account gets a role by EKS Pod Identity that may push to these repositories and do nothing
else. `app:1` stays as it is; `app:1-soci` comes beside it, and pods that name it load it lazily.

Change: everything in Pulumi.dev.yaml. Without `schedule` it runs once, and `pulumi up` ends when it is done.
Costs: half a core for each layer that is worked on, while it runs.
"""

import json

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s
from soci_cluster import ImageIndex, eks_kubeconfig

config = pulumi.Config()
cluster_name = config.require("clusterName")
images: dict[str, str] = config.require_object("images")

account = aws.get_caller_identity().account_id
region = aws.get_region().region
# `aws` and `amazonaws.com`, or those of China, GovCloud, …
partition = aws.get_partition()
cluster = k8s.Provider("cluster", kubeconfig=eks_kubeconfig(cluster_name))

role = aws.iam.Role(
    "index",
    assume_role_policy=json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "pods.eks.amazonaws.com"},
                    "Action": ["sts:AssumeRole", "sts:TagSession"],
                }
            ],
        }
    ),
)
rights = aws.iam.RolePolicy(
    "index",
    role=role.name,
    policy=json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": [
                        "ecr:BatchCheckLayerAvailability",
                        "ecr:BatchGetImage",
                        "ecr:CompleteLayerUpload",
                        "ecr:GetDownloadUrlForLayer",
                        "ecr:InitiateLayerUpload",
                        "ecr:PutImage",
                        "ecr:UploadLayerPart",
                    ],
                    "Resource": [
                        f"arn:{partition.partition}:ecr:{region}:{account}:repository/{name}"
                        for name in images
                    ],
                },
            ],
        }
    ),
)
# The service account's name is fixed, so its role can be there before it.
association = aws.eks.PodIdentityAssociation(
    "index",
    cluster_name=cluster_name,
    namespace="soci-index",
    service_account="soci-index",
    role_arn=role.arn,
    opts=pulumi.ResourceOptions(depends_on=[rights]),
)
index = ImageIndex(
    "index",
    {
        "images": [
            f"{account}.dkr.ecr.{region}.{partition.dns_suffix}/{name}:{tag}" for name, tag in images.items()
        ],
        "schedule": config.get("schedule") or "",
    },
    opts=pulumi.ResourceOptions(provider=cluster, depends_on=[association]),
)

pulumi.export("job", index.job)
pulumi.export("images", index.images)
