"""For training on GPUs: a group for everything else, and one of spot GPU instances that only takes GPU pods.

The GPU nodes get EKS's AMI with NVIDIA's driver, and their images lie on the instances' own NVMe disks. The
device plugin at the end tells Kubernetes of the GPUs. A training pod needs the toleration below,
`nodeSelector: {workload: training}` and `limits: {nvidia.com/gpu: 1}`.

Change: instance types (more of them find spot capacity more easily), sizes, `capacity_type`.
Costs: with one g5.2xlarge about 1.1 USD an hour (spot, varies), 1.8 on demand. At `node_count` 0: 0.55.
"""

import pulumi
import pulumi_kubernetes as k8s
from soci_cluster import SociCluster

cluster = SociCluster(
    "soci",
    {
        "node_groups": {
            "cpu": {"instance_types": ["m6i.xlarge"], "node_count": 2},
            "gpu": {
                "instance_types": ["g5.2xlarge", "g5.4xlarge", "g4dn.2xlarge"],
                "capacity_type": "spot",
                "node_count": 1,
                "min_node_count": 0,
                "max_node_count": 8,
                "node_labels": {"workload": "training"},
                "node_taints": ["nvidia.com/gpu=present:NoSchedule"],
            },
        },
    },
)

PLUGINS = "/var/lib/kubelet/device-plugins"
labels = {"app.kubernetes.io/name": "nvidia-device-plugin"}
k8s.apps.v1.DaemonSet(
    "nvidia-device-plugin",
    metadata={"namespace": "kube-system"},
    spec={
        "selector": {"match_labels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "node_selector": {"workload": "training"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "priority_class_name": "system-node-critical",
                "containers": [
                    {
                        "name": "plugin",
                        "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.1",
                        "volume_mounts": [{"name": "plugins", "mount_path": PLUGINS}],
                    }
                ],
                "volumes": [{"name": "plugins", "host_path": {"path": PLUGINS}}],
            },
        },
    },
    opts=pulumi.ResourceOptions(
        provider=cluster.provider, depends_on=[cluster], deleted_with=cluster.eks_cluster
    ),
)

for name, value in cluster.outputs().items():
    pulumi.export(name, value)
