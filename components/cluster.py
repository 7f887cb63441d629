"""SociCluster: a Kubernetes cluster whose nodes load images with SOCI, new on EKS or one that exists."""

import json
from typing import cast

import pulumi
import pulumi_aws as aws  # aws.ec2 is never touched: it would add half of the program's start time
import pulumi_eks as eks
import pulumi_kubernetes as k8s

from . import cluster_identity, kubeconfig, settings
from .arguments import SociClusterArgs, SociInstallerArgs
from .installer import SociInstaller
from .names import DOMAIN, STARTUP_TAINT
from .operating_systems import OPERATING_SYSTEMS
from .workload import SampleWorkload

NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
POOL_LABEL = {f"{DOMAIN}/pool": "soci"}


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

    def __init__(self, name: str, args: SociClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        given = dict(args)
        self._profile = str(given.pop("aws_profile", None) or "")
        self._settings = settings.from_arguments(given)
        super().__init__("soci:index:SociCluster", name, settings.inputs(self._settings, given), opts)
        self._name = name
        provider, ready = self._eks() if self._settings.cluster == "eks" else self._existing()
        installer = self._installer(provider, ready)
        self.sample_pod = self._sample(provider, installer)
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
        }

    def _child(self, **options: object) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)  # ty: ignore[invalid-argument-type]

    def _existing(self) -> tuple[k8s.Provider, list[pulumi.Resource]]:
        chosen = self._settings
        content = chosen.kubeconfig
        self.kubeconfig = pulumi.Output.secret(content)
        self.cluster_name = pulumi.Output.from_input(chosen.context or kubeconfig.current_context(content))
        identity = cluster_identity.identify(content, chosen.context, self)
        provider = k8s.Provider(
            f"{self._name}-kubernetes",
            kubeconfig=self.kubeconfig,
            context=chosen.context or None,
            # Without it, a renewed certificate in the kubeconfig could look like another cluster, and
            # everything in it would be replaced.
            cluster_identifier=identity.value,
            opts=self._child(ignore_changes=identity.ignored_changes()),
        )
        return provider, []

    def _eks(self) -> tuple[k8s.Provider, list[pulumi.Resource]]:
        chosen = self._settings
        pulumi.log.info(
            "A new EKS cluster and its nodes take 10 to 15 minutes, without a word in between", self
        )
        cluster = eks.Cluster(
            f"{self._name}-eks",
            version=chosen.kubernetes_version,
            authentication_mode=eks.AuthenticationMode.API,
            skip_default_node_group=True,
            # No add-on may wait for a schedulable node here: nodes come up with the startup taint, which
            # only the installer lifts, and the installer comes after this cluster. A CoreDNS add-on, whose
            # creation waits for running pods, would wait for ever. EKS's own CoreDNS stays instead: nobody
            # waits for it, and it starts when the first node is released. (The network plug-in and
            # kube-proxy tolerate every taint.)
            coredns_addon_options={"enabled": False},
            vpc_id=chosen.vpc_id or None,
            subnet_ids=list(chosen.subnet_ids) or None,
            provider_credential_opts={"profile_name": self._profile} if self._profile else None,
            tags=dict(chosen.tags),
            opts=self._child(),
        )
        node_group = self._node_group(cluster)
        # kubeconfig_json leaves the profile out (pulumi-eks#1082).
        self.kubeconfig = pulumi.Output.secret(
            cluster.kubeconfig.apply(json.dumps) if self._profile else cluster.kubeconfig_json
        )
        self.cluster_name = cluster.eks_cluster.name
        provider = k8s.Provider(
            f"{self._name}-kubernetes",
            kubeconfig=self.kubeconfig,
            cluster_identifier=cluster.eks_cluster.arn,
            opts=self._child(),
        )
        return provider, [node_group]

    def _node_group(self, cluster: eks.Cluster) -> eks.ManagedNodeGroup:
        chosen = self._settings
        role = aws.iam.Role(
            f"{self._name}-node-role",
            assume_role_policy=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Action": "sts:AssumeRole",
                            "Principal": {"Service": "ec2.amazonaws.com"},
                        }
                    ],
                }
            ),
            tags=dict(chosen.tags),
            opts=self._child(),
        )
        policies = [
            aws.iam.RolePolicyAttachment(
                f"{self._name}-{policy}",
                role=role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{policy}",
                opts=self._child(),
            )
            for policy in NODE_POLICIES
        ]
        return eks.ManagedNodeGroup(
            f"{self._name}-nodes",
            cluster=cluster,
            node_role_arn=role.arn,
            operating_system=eks.OperatingSystem(OPERATING_SYSTEMS[chosen.operating_system].eks),
            instance_types=list(chosen.instance_types),
            disk_size=chosen.volume_gib,
            enable_imd_sv2=True,
            labels=POOL_LABEL,
            # Declared on the group, so that every node starts with it: no workload can land before SOCI.
            taints=[{"key": STARTUP_TAINT, "value": "true", "effect": "NO_SCHEDULE"}],
            scaling_config={
                "desired_size": chosen.node_count,
                "min_size": chosen.min_node_count,
                "max_size": chosen.max_node_count,
            },
            tags=dict(chosen.tags),
            opts=self._child(depends_on=policies),
        )

    def _installer(self, provider: k8s.Provider, ready: list[pulumi.Resource]) -> SociInstaller:
        chosen = settings.plain_arguments(self._settings, settings.INSTALLER_SCOPES)
        access = {"kubeconfig": self.kubeconfig, "context": self._settings.context}
        args = cast(SociInstallerArgs, chosen | access)
        return SociInstaller(
            f"{self._name}-installer", args, self._child(providers=[provider], depends_on=ready)
        )

    def _sample(self, provider: k8s.Provider, installer: SociInstaller) -> pulumi.Output[str]:
        chosen = self._settings.sample_workload
        if not chosen.enabled or self._settings.state == "absent":
            return pulumi.Output.from_input("")
        sample = SampleWorkload(
            f"{self._name}-sample",
            {
                "version": self._settings.version,
                "image": chosen.image,
                "command": list(chosen.command),
                "timeout_seconds": self._settings.rollout_timeout_seconds,
                "kubeconfig": self.kubeconfig,
                "context": self._settings.context,
            },
            self._child(providers=[provider], depends_on=[installer, installer.ready]),
        )
        return sample.pod
