"""The Pulumi program: configuration in, one SociCluster, its outputs out."""

from typing import cast

import pulumi

from components import SociCluster, SociClusterArgs, from_config, plain_arguments

settings = plain_arguments(from_config(pulumi.runtime.get_config_env()))
profile = {"aws_profile": pulumi.Config("aws").get("profile")}
cluster = SociCluster("soci", cast(SociClusterArgs, settings | profile))

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
