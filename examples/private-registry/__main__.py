"""For a registry that the nodes' own credentials do not open: Harbor, GitLab, Docker Hub, ghcr.io.

The installer's image and the sample's are in it: from `image_pull_secrets` a Secret is made beside each of
them. Pods of yours name Secrets of their own in their imagePullSecrets, as without SOCI. Images in an ECR
that the nodes may read need nothing of this.

Change: everything in Pulumi.dev.yaml; the password by `pulumi config set --secret password`. Where another
program puts the Secret into the namespaces (External Secrets, say), give its name in place of the object.
Costs: as the example minimal.
"""

import pulumi
from soci_cluster import SociCluster

config = pulumi.Config()
registry = config.require("registry")

cluster = SociCluster(
    "soci",
    {
        "installer_image": f"{registry}/mirror/python:3.13-alpine",
        "sample_workload": {"image": f"{registry}/team/trainer:1", "command": ["/bin/true"]},
        "image_pull_secrets": [
            {
                "registry": registry,
                "username": config.require("username"),
                "password": config.require_secret("password"),
            }
        ],
    },
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
