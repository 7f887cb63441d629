"""For images that a pipeline pushes to ECR: each pushed tag gets its SOCI index within minutes, in AWS alone.

A push to one of the repositories starts a build, which puts the indexed image beside it: `app:1-soci` beside
`app:1`. The build may push to these repositories and do nothing else.

Change: the repositories, in Pulumi.dev.yaml.
Costs: the minutes of the builds; nothing while nobody pushes.
"""

import pulumi
from soci_cluster import EcrImageIndex

config = pulumi.Config()

index = EcrImageIndex("index", {"repositories": config.require_object("repositories")})

pulumi.export("project", index.project)
pulumi.export("logGroup", index.log_group)
