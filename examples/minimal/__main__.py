"""For a first look: an EKS cluster of two nodes with SOCI, and a sample Job that starts from a 3 GB image.

Change: nothing but the region, in Pulumi.dev.yaml.
Costs: about 0.55 USD an hour (control plane 0.10, two m6i.xlarge 0.38, their disks 0.07; us-east-1).
"""

import pulumi
from soci_cluster import SociCluster

cluster = SociCluster("soci", {})

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
