"""The Pulumi program: configuration in, one SociCluster, its outputs out."""

import pulumi

from components import SociCluster, cluster_arguments, from_config

settings = from_config(pulumi.runtime.get_config_env())
cluster = SociCluster("soci", cluster_arguments(settings, pulumi.Config("aws").get("profile")))

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
