"""SociCluster: Kubernetes nodes that start pods from large images in seconds, with the SOCI snapshotter."""

from .arguments import EcrImageIndexArgs, ImageIndexArgs, NodeGroupArgs, SociClusterArgs, SociInstallerArgs
from .cluster import SociCluster
from .configuration import from_config
from .ecr_image_index import EcrImageIndex
from .image_index import ImageIndex
from .installer import SociInstaller
from .karpenter import ec2_node_class, node_pool, startup_taints
from .own_nodes import (
    autoscaler_flag,
    autoscaler_tags,
    eks_kubeconfig,
    kubelet_flags,
    managed_group_taints,
    node_config,
    pool_labels,
    self_managed_group_taints,
)
from .problems import SociConfigError
from .settings import Settings, plain_arguments
from .workload import SampleWorkload, SampleWorkloadArgs

__all__ = [
    "EcrImageIndex",
    "EcrImageIndexArgs",
    "ImageIndex",
    "ImageIndexArgs",
    "NodeGroupArgs",
    "SampleWorkload",
    "SampleWorkloadArgs",
    "Settings",
    "SociCluster",
    "SociClusterArgs",
    "SociConfigError",
    "SociInstaller",
    "SociInstallerArgs",
    "autoscaler_flag",
    "autoscaler_tags",
    "ec2_node_class",
    "eks_kubeconfig",
    "from_config",
    "kubelet_flags",
    "managed_group_taints",
    "node_config",
    "node_pool",
    "plain_arguments",
    "pool_labels",
    "self_managed_group_taints",
    "startup_taints",
]
