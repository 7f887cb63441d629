"""SociCluster: a Kubernetes cluster whose nodes load images with SOCI, new on EKS or one that exists."""

from typing import cast

import pulumi

from . import aws_failure, configuration, eks_cluster, existing_cluster, settings
from .arguments import ImageIndexArgs, SociClusterArgs, SociInstallerArgs
from .cluster_access import ClusterAccess
from .image_index import ImageIndex, indexed_images
from .installer import SociInstaller
from .own_nodes import pool_labels
from .workload import SampleWorkload


class SociCluster(pulumi.ComponentResource):
    """A Kubernetes cluster whose nodes load images with SOCI; done when every node is verified.

    Raises:
        SociConfigError: an argument that cannot work (before anything is created).
        pulumi.RunError: no node matches the node selector.
    """

    cluster_name: pulumi.Output[str]
    """The EKS cluster, or the kubeconfig's context."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig of the cluster (secret)."""
    soci_state: pulumi.Output[str]
    """present, or absent: SOCI is on none of the nodes."""
    soci_version: pulumi.Output[str]
    """SOCI version on the nodes; empty when it is absent."""
    installer_namespace: pulumi.Output[str]
    """Namespace of the installer."""
    installer_daemon_set: pulumi.Output[str]
    """Name of the installer's DaemonSet."""
    sample_pod: pulumi.Output[str]
    """The sample workload, a Job, `namespace/name`; empty when it is off or SOCI is absent."""
    sample_figures: pulumi.Output[str]
    """What came of it, in a line: pull and start, how many layers were lazily loaded, and bytes moved."""
    image_index: pulumi.Output[str]
    """What gives images their index, a Job or CronJob, `namespace/name`; empty when there is none."""

    def __init__(self, name: str, args: SociClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        given = dict(args)
        self._profile = str(given.pop("aws_profile", None) or "")
        self._settings = configuration.from_arguments(given)
        # A preview makes nothing that AWS could refuse, and a transform costs it a call at each resource.
        if self._settings.cluster == "eks" and not pulumi.runtime.is_dry_run():
            explained = pulumi.ResourceOptions(transforms=[aws_failure.Explainer(name, self).transform])
            opts = pulumi.ResourceOptions.merge(opts, explained)
        super().__init__("soci:index:SociCluster", name, settings.inputs(self._settings, given), opts)
        self._name = name
        access = self._reach()
        self.cluster_name, self.kubeconfig = access.name, access.kubeconfig
        self.provider = access.provider
        """The Kubernetes provider of the cluster."""
        self.eks_cluster = access.eks_cluster
        """The EKS cluster; None when it was there before."""
        self.node_groups = dict(access.node_groups)
        """The EKS cluster's node groups by name; empty when it was there before."""
        self.node_group = next(iter(self.node_groups.values()), None)
        """The first of them; None when there is none."""
        installer = self._installer(access)
        index = self._image_index(access, installer)
        self.image_index = index.job if index else pulumi.Output.from_input("")
        sample = self._sample(access, installer, index)
        self.sample_pod = sample.pod if sample else pulumi.Output.from_input("")
        self.sample_figures = sample.figures if sample else pulumi.Output.from_input("")
        access.complete(pulumi.ResourceOptions(parent=self, depends_on=[installer, installer.ready]))
        self.soci_state = installer.state
        self.soci_version = installer.version
        self.installer_namespace = installer.namespace
        self.installer_daemon_set = installer.daemon_set
        self.register_outputs(self.outputs())

    def outputs(self) -> dict[str, pulumi.Output[str]]:
        """The stack outputs of a program that consists of this component."""
        return {
            "clusterName": self.cluster_name,
            "kubeconfig": self.kubeconfig,
            "sociState": self.soci_state,
            "sociVersion": self.soci_version,
            "installerNamespace": self.installer_namespace,
            "installerDaemonSet": self.installer_daemon_set,
            "samplePod": self.sample_pod,
            "sampleFigures": self.sample_figures,
            "imageIndex": self.image_index,
        }

    def _in_cluster(self, access: ClusterAccess, **options: object) -> pulumi.ResourceOptions:
        """The options of a child that makes objects in the cluster. They go with an EKS cluster that goes:
        SOCI is not taken off nodes about to be deleted, and a cluster that does not answer is no obstacle."""
        return pulumi.ResourceOptions(
            parent=self,
            providers=[access.provider],
            deleted_with=access.eks_cluster,
            **options,  # ty: ignore[invalid-argument-type]
        )

    def _reach(self) -> ClusterAccess:
        if self._settings.cluster == "existing":
            return existing_cluster.reach(self._name, self._settings, self)
        return eks_cluster.make(self._name, self._settings, self._profile, self)

    def _installer(self, access: ClusterAccess) -> SociInstaller:
        chosen = settings.plain_arguments(self._settings, settings.INSTALLER_SCOPES)
        if access.node_groups and not chosen["node_selector"]:
            # A group that a team adds to the cluster is not taken for one of ours.
            chosen["node_selector"] = pool_labels()
        where = {
            "kubeconfig": access.kubeconfig,
            "context": self._settings.context,
            "nodes": access.nodes,
        }
        # Of its children only the DaemonSet waits for the nodes, by `nodes`. A component that depends on
        # something makes all of its children wait.
        options = self._in_cluster(access)
        return SociInstaller(f"{self._name}-installer", cast(SociInstallerArgs, chosen | where), options)

    def _image_index(self, access: ClusterAccess, installer: SociInstaller) -> ImageIndex | None:
        index = self._settings.index
        if not index.images or self._settings.state == "absent":
            return None
        shared = {name: settings.plain(getattr(self._settings, name)) for name in settings.INDEX_SHARED}
        where = {"kubeconfig": access.kubeconfig, "context": self._settings.context}
        # A pod of it runs on these nodes, too, which take pods when they are verified.
        options = self._in_cluster(access, depends_on=[installer, installer.ready])
        chosen = cast(ImageIndexArgs, shared | settings.plain(index) | where)
        return ImageIndex(f"{self._name}-index", chosen, options)

    def _sample(
        self, access: ClusterAccess, installer: SociInstaller, index: ImageIndex | None
    ) -> SampleWorkload | None:
        chosen = self._settings.sample_workload
        if not chosen.enabled or self._settings.state == "absent":
            return None
        # What it loads lazily may have to be made first.
        is_made = index is not None and chosen.image in indexed_images(self._settings.index)
        needed = [installer, installer.ready, *([index] if is_made else [])]
        return SampleWorkload(
            f"{self._name}-sample",
            {
                "version": self._settings.version,
                "image": chosen.image,
                "command": list(chosen.command),
                "image_pull_secrets": settings.plain(self._settings.image_pull_secrets),
                "timeout_seconds": self._settings.rollout_timeout_seconds,
                "kubeconfig": access.kubeconfig,
                "context": self._settings.context,
            },
            self._in_cluster(access, depends_on=needed),
        )
