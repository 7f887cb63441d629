"""The Pulumi program: configuration in, one SociCluster, its outputs out."""

from typing import cast

import pulumi

from components import SociCluster, SociClusterArgs, from_config, plain_arguments

settings = plain_arguments(from_config(pulumi.runtime.get_config_env()))
aws = pulumi.Config("aws")
credentials = {"aws_profile": aws.get("profile")}
roles = aws.get_object("assumeRoles") or []
if settings["cluster"] == "eks" and not settings["kubeconfig_role_arn"]:
    if len(roles) == 1:
        credentials["kubeconfig_role_arn"] = roles[0].get("roleArn")
    elif roles:
        pulumi.log.warn(
            "aws:assumeRoles is a chain, and `aws eks get-token` assumes one role: the kubeconfig has none. "
            "Remedy: set aws:profile to a profile that assumes them"
        )
cluster = SociCluster("soci", cast(SociClusterArgs, settings | credentials))

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
