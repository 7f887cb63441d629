"""SociInstaller: the DaemonSet that puts SOCI on every node of a cluster, with all that it needs."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from . import (
    configuration,
    failure,
    image_pull_secrets,
    other_installers,
    ownership,
    program,
    release,
    release_memory,
    settings,
)
from .arguments import SociInstallerArgs
from .cluster_access import access_of
from .names import DOMAIN, INSTALLER, PULL_SECRET, cluster_wide
from .problems import SociConfigError

RBAC_GROUP = "rbac.authorization.k8s.io"
MOUNT_PATH = "/opt/soci-cluster"
GRACE_SECONDS = 120
NO_LIMIT = 2**31 - 1  # of an int32; a node may wait for its pods for days
NODES_ANNOTATION = f"{DOMAIN}/nodes"
NO_SETTINGS = ("kubeconfig", "context", "nodes")  # arguments that are none


class SociInstaller(pulumi.ComponentResource):
    """SOCI on the nodes of any cluster whose nodes run systemd and containerd.

    Ready means installed: the resource is done when every selected node is verified, and fails, naming node,
    step, cause and remedy, when one is not. With state absent, ready means that every selected node is what
    it was before the first install. Deleting the resource uninstalls, too, without waiting for the result.
    Give the cluster by a Kubernetes provider in `opts`.

    Raises:
        SociConfigError: an argument that cannot work (before anything is created).
        pulumi.RunError: no node matches the node selector (unless `require_nodes` is false).
    """

    namespace: pulumi.Output[str]
    """Namespace of the installer."""
    daemon_set: pulumi.Output[str]
    """Name of the installer's DaemonSet."""
    state: pulumi.Output[str]
    """present, or absent: SOCI is on none of the nodes."""
    version: pulumi.Output[str]
    """SOCI version on the nodes; empty when it is absent."""

    def __init__(
        self, name: str, args: SociInstallerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        chosen = {key: value for key, value in args.items() if key not in NO_SETTINGS}
        self._settings = configuration.from_arguments(chosen, settings.INSTALLER_SCOPES)
        super().__init__("soci:index:SociInstaller", name, settings.inputs(self._settings, chosen), opts)
        self._name = name
        self._is_absent = self._settings.state == "absent"
        self._digests = (
            {}
            if self._is_absent
            else release.pin(self._settings.version, self._settings.release_url, self._settings.sha256, self)
        )
        self._access = access_of(self, args.get("kubeconfig"), args.get("context"))
        self._ownership = ownership.Ownership(name, self, self._access, self._settings.namespace)
        self._memory = release_memory.ReleaseMemory(self._ownership, self._settings, self._digests)
        node_settings = program.node_settings(self._settings, self._digests)
        files = program.INSTALLER.files() | {"settings.json": node_settings}
        namespace = self._namespace()
        needed = [*self._rights(namespace), *self._pull_secret(namespace)]
        config_map = self._config_map(namespace, files)
        nodes = nodes_annotation(args.get("nodes"))
        daemon_set = self._daemon_set(namespace, config_map, list(files), nodes, needed)
        # Whatever needs SOCI depends on this: it fails when there was no node to serve on.
        self.ready = daemon_set.status.apply(
            lambda status: self._require_served_nodes(daemon_set, status), run_with_unknowns=True
        )
        self.namespace = namespace.metadata["name"]
        self.daemon_set = daemon_set.metadata["name"]
        self.state = pulumi.Output.from_input(self._settings.state)
        self.version = pulumi.Output.from_input("" if self._is_absent else self._settings.version)
        self.register_outputs(
            {
                "namespace": self.namespace,
                "daemonSet": self.daemon_set,
                "state": self.state,
                "version": self.version,
            }
        )

    def _child(self, **options: object) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)  # ty: ignore[invalid-argument-type]

    def _owned(
        self,
        transforms: Sequence[pulumi.ResourceTransform] = (),
        on_error: Sequence[pulumi.ErrorHook] = (),
        **options: object,
    ) -> pulumi.ResourceOptions:
        """The options of a child with a fixed name, whose metadata names its owner."""
        hooks = pulumi.ResourceHookBinding(on_error=[*on_error, self._ownership.refusal_hook])
        return self._child(
            transformations=[self._ownership.remember],
            transforms=[*transforms, self._ownership.import_own],
            hooks=hooks,
            **options,
        )

    def _labels(self) -> dict[str, str]:
        return labels("installer", self._settings.version)

    def _owner(self) -> dict[str, pulumi.Input[str]]:
        return {ownership.ANNOTATION: self._ownership.owner}

    def _namespace(self) -> k8s.core.v1.Namespace:
        # The installer is privileged by nature; a cluster that enforces Pod Security Standards must know.
        enforce = {"pod-security.kubernetes.io/enforce": "privileged"}
        return k8s.core.v1.Namespace(
            f"{self._name}-namespace",
            metadata={
                "name": self._settings.namespace,
                "labels": self._labels() | enforce,
                "annotations": self._owner(),
            },
            opts=self._owned(),
        )

    def _rights(self, namespace: k8s.core.v1.Namespace) -> list[pulumi.Resource]:
        """The service account and exactly the rights that the agent uses."""
        home: k8s.meta.v1.ObjectMetaArgsDict = {
            "name": INSTALLER,
            "namespace": namespace.metadata["name"],
            "labels": self._labels(),
            "annotations": self._owner(),
        }
        shared_name = cluster_wide(self._settings.namespace)
        everywhere: k8s.meta.v1.ObjectMetaArgsDict = {
            "name": shared_name,
            "labels": self._labels(),
            "annotations": self._owner(),
        }
        subject: k8s.rbac.v1.SubjectArgsDict = {
            "kind": "ServiceAccount",
            "name": INSTALLER,
            "namespace": namespace.metadata["name"],
        }
        account = k8s.core.v1.ServiceAccount(f"{self._name}-account", metadata=home, opts=self._owned())
        cluster_role = k8s.rbac.v1.ClusterRole(
            f"{self._name}-cluster-role",
            metadata=everywhere,
            rules=cluster_rules(self._settings),
            opts=self._owned(),
        )
        cluster_binding = k8s.rbac.v1.ClusterRoleBinding(
            f"{self._name}-cluster-role-binding",
            metadata=everywhere,
            role_ref={"api_group": RBAC_GROUP, "kind": "ClusterRole", "name": shared_name},
            subjects=[subject],
            opts=self._owned(depends_on=[cluster_role, account]),
        )
        role = k8s.rbac.v1.Role(
            f"{self._name}-role",
            metadata=home,
            rules=own_rules(self._settings.namespace),
            opts=self._owned(),
        )
        binding = k8s.rbac.v1.RoleBinding(
            f"{self._name}-role-binding",
            metadata=home,
            role_ref={"api_group": RBAC_GROUP, "kind": "Role", "name": INSTALLER},
            subjects=[subject],
            opts=self._owned(depends_on=[role, account]),
        )
        return [account, cluster_binding, binding]

    def _pull_secret(self, namespace: k8s.core.v1.Namespace) -> list[pulumi.Resource]:
        """The Secret of the credentials for the installer's image, when there are some.

        Its name is fixed, so that other credentials change no pod. It is referred to by name and by
        `depends_on`: the provider replaces a Secret by deleting it first, and what takes a value from it
        would go along.
        """
        logins = image_pull_secrets.logins(self._settings.image_pull_secrets)
        if not logins:
            return []
        secret = k8s.core.v1.Secret(
            f"{self._name}-registries",
            metadata={
                "name": PULL_SECRET,
                "namespace": namespace.metadata["name"],
                "labels": self._labels(),
                "annotations": self._owner(),
            },
            type=image_pull_secrets.TYPE,
            data=image_pull_secrets.data(logins),
            opts=self._owned(),
        )
        return [secret]

    def _config_map(self, namespace: k8s.core.v1.Namespace, files: dict[str, str]) -> k8s.core.v1.ConfigMap:
        """Autonamed: a changed byte makes a new ConfigMap, which rolls the DaemonSet; nothing else does."""
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        # Refused before anything that holds the digests is made.
        checked = self._memory.annotation
        return k8s.core.v1.ConfigMap(
            f"{self._name}-program",
            metadata={
                "namespace": namespace.metadata["name"],
                "labels": self._labels(),
                "annotations": {f"{DOMAIN}/program-sha256": checked.apply(lambda _: digest)},
            },
            data=program.config_map_data(files),
            opts=self._child(hide_diffs=["data"]),
        )

    def _daemon_set(
        self,
        namespace: k8s.core.v1.Namespace,
        config_map: k8s.core.v1.ConfigMap,
        paths: list[str],
        nodes: dict[str, pulumi.Input[str]],
        needed: list[pulumi.Resource],
    ) -> k8s.apps.v1.DaemonSet:
        # Immutable, therefore never the version: another selector would replace the DaemonSet by deleting it
        # first, which uninstalls every node.
        selector = {"app.kubernetes.io/name": INSTALLER}
        limit = self._settings.max_unavailable
        rollout = failure.Rollout(
            self._settings.namespace,
            self._settings.version,
            self._is_absent,
            limit,
            self._settings.rollout_timeout_seconds,
        )
        hook = failure.rollout_hook(f"{self._name}-rollout-failure", self._access, rollout, self)
        timeout = f"{self._settings.rollout_timeout_seconds}s"
        # Refused before the first node is touched.
        checked = pulumi.Output.from_input(self._require_own_nodes())
        owner = pulumi.Output.all(self._ownership.owner, checked).apply(lambda values: values[0])
        return k8s.apps.v1.DaemonSet(
            f"{self._name}-daemon-set",
            metadata={
                "name": INSTALLER,
                "namespace": namespace.metadata["name"],
                "labels": self._labels(),
                # Not of the template: other nodes roll no pod of those that stay, and are waited for.
                "annotations": {
                    ownership.ANNOTATION: owner,
                    release_memory.ANNOTATION: self._memory.annotation,
                    **nodes,
                },
            },
            spec={
                "selector": {"match_labels": selector},
                "update_strategy": {
                    "type": "RollingUpdate",
                    "rolling_update": {"max_unavailable": int(limit) if limit.isdigit() else limit},
                },
                "template": {
                    "metadata": {
                        "labels": self._labels(),
                        "annotations": {"kubectl.kubernetes.io/default-container": "installer"},
                    },
                    "spec": self._pod(config_map, paths),
                },
            },
            opts=self._owned(
                [self._memory.keep],
                depends_on=needed,
                custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout),
                on_error=[hook],
            ),
        )

    def _containers(self) -> list[k8s.core.v1.ContainerArgsDict]:
        """The installer, and beside it the process that hands pull secrets to the daemon."""
        verified: k8s.core.v1.ProbeArgsDict = {
            "exec_": {"command": ["test", "-e", "/run/soci-verified"]},
            "timeout_seconds": 5,  # one slow answer of a busy node is no change
        }
        installer: k8s.core.v1.ContainerArgsDict = {
            "name": "installer",
            "image": self._settings.installer_image,
            "command": ["python3", "-B", "-m", "agent"],
            "working_dir": MOUNT_PATH,
            "env": [
                {"name": "NODE_NAME", "value_from": {"field_ref": {"field_path": "spec.nodeName"}}},
                {"name": "POD_NAME", "value_from": {"field_ref": {"field_path": "metadata.name"}}},
                {"name": "POD_NAMESPACE", "value_from": {"field_ref": {"field_path": "metadata.namespace"}}},
                {"name": "DAEMONSET_NAME", "value": INSTALLER},
            ],
            # Ready means verified: the provider's wait for the DaemonSet is the wait for SOCI on every node.
            # Each question starts a process in the container, so it is asked often only until the first yes.
            "startup_probe": {**verified, "period_seconds": 1, "failure_threshold": NO_LIMIT},
            "readiness_probe": {**verified, "period_seconds": 10, "failure_threshold": 1},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "security_context": {"privileged": True},
            "termination_message_policy": "File",
            "volume_mounts": [
                {"name": "program", "mount_path": MOUNT_PATH, "read_only": True},
                # What is unmounted on the node later is so in the pod, too: it keeps no device busy.
                {"name": "host", "mount_path": "/host", "mount_propagation": "HostToContainer"},
            ],
        }
        if self._is_absent or self._settings.credentials == "node":
            return [installer]
        credentials: k8s.core.v1.ContainerArgsDict = {
            "name": "credentials",
            "image": self._settings.installer_image,
            "command": ["python3", "-B", "-m", "agent", "credentials"],
            "working_dir": MOUNT_PATH,
            "env": installer["env"],
            # The kubelet's exec plugin, such as the AWS CLI, counts as well while it runs.
            "resources": {"requests": {"cpu": "1m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            # For the node's network, and for the kubelet's exec plugin, which is run on the node.
            "security_context": {"privileged": True},
            "volume_mounts": installer["volume_mounts"],
        }
        return [installer, credentials]

    def _pod(self, config_map: k8s.core.v1.ConfigMap, paths: list[str]) -> k8s.core.v1.PodSpecArgsDict:
        pull = image_pull_secrets.references(self._settings.image_pull_secrets, PULL_SECRET)
        items = program.config_map_items(paths)
        # Fargate's nodes run no DaemonSet, but tolerating every taint would leave a pod pending for each.
        not_fargate: k8s.core.v1.NodeSelectorTermArgsDict = {
            "match_expressions": [
                {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"]}
            ]
        }
        return {
            "service_account_name": INSTALLER,
            # An ordinary end takes a second; one that uninstalls waits for containers and for containerd.
            "termination_grace_period_seconds": GRACE_SECONDS,
            "host_pid": True,
            # The node's own resolver: on a new cluster CoreDNS waits for this installer to lift the taint.
            "dns_policy": "Default",
            "priority_class_name": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "node_selector": self._node_selector(),
            "affinity": {
                "node_affinity": {
                    "required_during_scheduling_ignored_during_execution": {
                        "node_selector_terms": [not_fargate]
                    }
                }
            },
            "containers": self._containers(),
            **({"image_pull_secrets": pull} if pull else {}),
            "volumes": [
                {"name": "program", "config_map": {"name": config_map.metadata["name"], "items": items}},
                {"name": "host", "host_path": {"path": "/", "type": "Directory"}},
            ],
        }

    def _node_selector(self) -> dict[str, str]:
        return {"kubernetes.io/os": "linux", **self._settings.node_selector}

    async def _require_own_nodes(self) -> None:
        cluster = None if self._is_absent else await self._ownership.cluster()
        if cluster is None:
            return
        # A new stack has no owner yet in a preview, and nothing of it is in the cluster.
        owner = await self._ownership.owner.future() or ""
        refusal = await asyncio.to_thread(
            other_installers.look, cluster, self._settings.namespace, owner, self._node_selector()
        )
        if refusal:
            raise pulumi.RunError(refusal)

    async def _require_served_nodes(
        self, daemon_set: k8s.apps.v1.DaemonSet, status: object
    ) -> k8s.apps.v1.DaemonSet:
        """Kubernetes calls a DaemonSet of no pods ready; for an installer that is a failure. A preview cannot
        tell: the API server's dry run of a new DaemonSet counts no node either."""
        is_known = not pulumi.runtime.is_dry_run()
        is_wrong = self._settings.require_nodes and not self._is_absent
        if is_known and is_wrong and getattr(status, "desired_number_scheduled", None) == 0:
            access = await self._access.future() or ("", "")
            left = await asyncio.to_thread(failure.unattended_nodes, *access)
            raise pulumi.RunError(no_nodes(self._settings.node_selector, left))
        if is_known:
            await self._require_own_nodes()  # two that were made at the same time did not see each other
        return daemon_set


def nodes_annotation(nodes: pulumi.Input[Any]) -> dict[str, pulumi.Input[str]]:
    """The annotation that changes with what nodes are made from; none when that is not given. It holds the
    digest, since whoever reads the cluster reads its annotations, and nodes may be made from secrets.

    Args:
        nodes: inputs of what JSON can hold.

    Raises:
        SociConfigError: it holds something else, such as a resource.
    """

    def digest(value: Any) -> str:
        text = json.dumps(value, default=_refuse_part, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    if nodes is None:
        return {}
    return {NODES_ANNOTATION: pulumi.Output.unsecret(pulumi.Output.from_input(nodes).apply(digest))}


def _refuse_part(part: Any) -> Any:
    raise SociConfigError(
        f"nodes: a {type(part).__name__} cannot be compared. Remedy: pass what the nodes are made from, such "
        "as [group.id, group.launch_template, group.version, group.release_version] and the node count"
    )


def cluster_rules(wanted: settings.Settings) -> list[k8s.rbac.v1.PolicyRuleArgsDict]:
    """What the agent may do in the whole cluster: no more than the policies need."""
    rules: list[k8s.rbac.v1.PolicyRuleArgsDict] = [
        {"api_groups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
        {"api_groups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        # On the node, on the DaemonSet, and on the pods whose files cannot be read any more.
        {"api_groups": [""], "resources": ["events"], "verbs": ["create"]},
    ]
    if wanted.upgrade_policy == "drain" or wanted.broken_pods == "evict":
        rules += [
            {"api_groups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"api_groups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
        ]
    return rules


def own_rules(namespace: str) -> list[k8s.rbac.v1.PolicyRuleArgsDict]:
    """What the agent may do in its own namespace."""
    return [
        # A pod that ends asks both: its node is uninstalled only if the installer itself goes.
        {
            "api_groups": ["apps"],
            "resources": ["daemonsets"],
            "resource_names": [INSTALLER],
            "verbs": ["get"],
        },
        {"api_groups": [""], "resources": ["namespaces"], "resource_names": [namespace], "verbs": ["get"]},
        # Its own pod is made anew where dead nodes hold up the rollout; and after an upgrade side by side,
        # else the old daemon would have to stay for it.
        {"api_groups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
    ]


def no_nodes(node_selector: Mapping[str, str], left: Sequence[str] | None = ()) -> str:
    """What to tell the user when the DaemonSet matches no node.

    Args:
        node_selector: the labels that no node carries.
        left: the nodes that have SOCI all the same, from before; None when that is not known.
    """
    labels = ",".join(f"{key}={value}" for key, value in node_selector.items())
    reason = (
        f"no node carries the labels of soci:nodeSelector ({labels})"
        if labels
        else "the cluster has no Linux node"
    )
    look = f"kubectl get nodes --selector '{labels}'" if labels else "kubectl get nodes"
    remedy = (
        f"Remedy: see {look}, add a node or mend the selector, then pulumi up --refresh (the result of the "
        "last look is in the stack's state)"
    )
    if left:
        return (
            f"the installer is on no node: {reason}. SOCI stays on {', '.join(left)}, where nothing looks "
            f"after it any more. {remedy}; to take SOCI off these nodes, first select them again"
        )
    where = "the installer" if left is None else "SOCI"
    return f"{where} is on no node: {reason}. {remedy}"


def labels(component: str, version: str) -> dict[str, str]:
    """The recommended labels of Kubernetes for an object of this package."""
    return {
        "app.kubernetes.io/name": INSTALLER if component == "installer" else f"soci-{component}",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/version": version,
        "app.kubernetes.io/managed-by": "pulumi",
    }
