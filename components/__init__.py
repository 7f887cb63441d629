"""SociCluster: Kubernetes nodes that start pods from large images in seconds, with the SOCI snapshotter."""

from .cluster import SociCluster, SociClusterArgs, cluster_arguments
from .installer import SociInstaller, SociInstallerArgs
from .settings import Settings, SociConfigError, from_config
from .workload import SampleWorkload, SampleWorkloadArgs

__all__ = [
    "SampleWorkload",
    "SampleWorkloadArgs",
    "Settings",
    "SociCluster",
    "SociClusterArgs",
    "SociConfigError",
    "SociInstaller",
    "SociInstallerArgs",
    "cluster_arguments",
    "from_config",
]
