"""SociCluster: Kubernetes nodes that start pods from large images in seconds, with the SOCI snapshotter."""

from .arguments import NodeGroupArgs, SociClusterArgs, SociInstallerArgs
from .cluster import SociCluster
from .installer import SociInstaller
from .settings import Settings, SociConfigError, from_config, plain_arguments
from .workload import SampleWorkload, SampleWorkloadArgs

__all__ = [
    "NodeGroupArgs",
    "SampleWorkload",
    "SampleWorkloadArgs",
    "Settings",
    "SociCluster",
    "SociClusterArgs",
    "SociConfigError",
    "SociInstaller",
    "SociInstallerArgs",
    "from_config",
    "plain_arguments",
]
