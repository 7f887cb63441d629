"""Settings of SociCluster, each declared once: from raw values to a validated, typed `Settings`.

Everything else that knows the settings is derived from the declarations here or generated from them by
`make generate`: the `config` block of Pulumi.yaml, the arguments of the components (arguments.py), what
SociCluster hands on to SociInstaller, the node's settings.json (program.py), the tables of the documents.

The same rules serve the Pulumi project (`from_config`: the `soci:*` keys) and the library (`from_arguments`:
the arguments of the components). All problems are collected and raised at once, each with key, value, reason
and remedy.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from os import PathLike
from typing import Any

import pulumi

from . import eks_checks, eks_rules, kubeconfig, pass_through, redaction, rules
from .image_pull_secrets import read as read_image_pull_secrets
from .names import DEFAULT_NAMESPACE
from .values import KINDS, RefusedError, entries

# The oldest version for each mode, by soci-snapshotter's release notes; an older one ignores it.
MODES = {"lazy": rules.OLDEST_VERSION, "parallel": (0, 11, 1), "lazy-or-parallel": (0, 14, 0)}


_PROXY_REMEDY = "set soci:{} http://HOST:PORT"


class SociConfigError(pulumi.RunError):
    """Settings that cannot work. Every line of the message names key, value, reason and remedy."""


class Scope(Enum):
    """Who needs a setting."""

    NODE = "the installer, and the agent on each node"
    INSTALLER = "the installer"
    CLUSTER = "SociCluster"
    EXISTING = "SociCluster, with cluster `existing`"
    EKS = "SociCluster, with cluster `eks`"
    NODE_GROUP = "each node group of SociCluster, with cluster `eks`"


INSTALLER_SCOPES = (Scope.NODE, Scope.INSTALLER)


@dataclass(frozen=True)
class Declaration:
    """What a field of `Settings` says about itself besides its name, type and default."""

    text: str
    scope: Scope
    rule: Callable[[Any], Any] | None
    key: str
    remedy: str
    is_secret: bool


def setting(
    default: Any,
    text: str,
    scope: Scope = Scope.CLUSTER,
    rule: Callable[[Any], Any] | None = None,
    *,
    key: str = "",
    remedy: str = "",
    is_secret: bool = False,
) -> Any:
    """A setting's declaration.

    Args:
        default: the value when nothing is set.
        text: what it is, for every document; Markdown, one paragraph.
        scope: who needs it.
        rule: what it accepts (rules.py); without one, every value of its type.
        key: its configuration key where that is not the field's name in camelCase.
        remedy: the arguments of `pulumi config` that mend a bad value; without it, those that set the
            default.
        is_secret: whether its value may hold credentials, and is therefore not shown.
    """
    declared = {"declaration": Declaration(text, scope, rule, key, remedy, is_secret)}
    if isinstance(default, dict):
        return field(default_factory=lambda: default, metadata=declared)
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class SampleSettings:
    """The sample workload."""

    enabled: bool = setting(
        True, "Whether there is one.", remedy="set --path soci:sampleWorkload.enabled false"
    )
    image: str = setting(
        "public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest",
        "Its image.",
        rule=rules.image,
        remedy="set --path soci:sampleWorkload.image IMAGE",
    )
    command: tuple[str, ...] = setting(
        ("python3", "-c", "print('ready')"),
        "What it runs; empty for the image's own command.",
        remedy="set --path 'soci:sampleWorkload.command[0]' PROGRAM",
    )


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. To add a setting, declare it here, run `make generate`, and use it."""

    version: str = setting(
        "0.16.1",
        "SOCI release to install, X.Y.Z (0.10.0 or newer, not 0.11.0).",
        Scope.NODE,
        rules.version,
    )
    state: str = setting(
        "present",
        "`present` puts SOCI on the nodes, `absent` takes it off them again and leaves nothing behind.",
        Scope.NODE,
        rules.one_of("present", "absent"),
    )
    force_uninstall: bool = setting(
        False,
        "Take SOCI off a node although lazily loaded containers run on it (they are ended and started again) "
        "or others changed its files (the node's original comes back).",
        Scope.NODE,
    )
    mode: str = setting(
        "lazy",
        "How images are loaded. `lazy` reads indexed ones on demand; `parallel` pulls every image whole, "
        "over many connections; `lazy-or-parallel` does the one for indexed images and the other for the "
        "rest.",
        Scope.NODE,
        rules.one_of(*MODES),
    )
    index_versions: tuple[str, ...] = setting(
        ("v2", "v1"),
        "Kinds of SOCI index that are used. `v2` is part of the image, `v1` is found beside it in the "
        "registry.",
        Scope.NODE,
        rules.index_versions,
        remedy="set --path 'soci:indexVersions[0]' v2",
    )
    release_url: str = setting(
        "https://github.com/awslabs/soci-snapshotter/releases/download",
        "Where SOCI releases are, as `{releaseUrl}/v{version}/{asset}`. Set it to a mirror when nodes cannot "
        "reach GitHub, or to `oci://REGISTRY/REPOSITORY`: an OCI artifact, tagged with the version, whose "
        "layers are the archives (`oci+http://` without TLS).",
        Scope.NODE,
        rules.release_url,
    )
    http_proxy: str = setting(
        "",
        "Proxy of the nodes for http:// addresses, for SOCI and the installer's download. Empty means the "
        "one that containerd runs with, if any. It must be plain: credentials belong into containerd's unit.",
        Scope.NODE,
        rules.proxy,
        remedy=_PROXY_REMEDY.format("httpProxy"),
    )
    https_proxy: str = setting(
        "",
        "The same for https:// addresses.",
        Scope.NODE,
        rules.proxy,
        remedy=_PROXY_REMEDY.format("httpsProxy"),
    )
    no_proxy: str = setting(
        "",
        "Hosts, addresses and networks that are asked without a proxy, separated by commas. Empty means "
        "those of containerd. The instance metadata, `localhost`, `.svc`, `.cluster.local` and the address "
        "of the API server's service are always among them; name the service network, too, where a registry "
        "is in it.",
        Scope.NODE,
        rules.no_proxy,
        remedy="set soci:noProxy 10.0.0.0/8,.internal",
    )
    sha256: Mapping[str, str] = setting(
        {},
        "SHA-256 of the release's static archive, by architecture (`amd64`, `arm64`). Empty means the "
        "release's own checksum files are read at each run; nodes of an architecture without one are "
        "refused.",
        Scope.NODE,
        rules.digests,
        remedy="set --path soci:sha256.amd64 DIGEST, the 64 digits in the release's .sha256sum file",
    )
    installer_image: str = setting(
        "public.ecr.aws/docker/library/python:3.13-alpine",
        "Image with Python 3.11 or newer in which the installer runs. Nothing is added to it.",
        Scope.INSTALLER,
        rules.image,
    )
    image_pull_secrets: tuple[Any, ...] = setting(
        (),
        "For the installer's and the sample's own images only; your pods need nothing here "
        "(`soci:credentials`). Where the nodes' credentials do not open these two: each entry the name of a "
        "Secret that others put beside the pods, or an object with `registry`, `username` and `password`, "
        "from which such a Secret is made. In a program, user name and password may be outputs.",
        Scope.INSTALLER,
        read_image_pull_secrets,
        remedy="set --path 'soci:imagePullSecrets[0]' NAME; for credentials --secret --path "
        "'soci:imagePullSecrets[0].password' PASSWORD, and the same for registry and username",
        is_secret=True,
    )
    namespace: str = setting(
        DEFAULT_NAMESPACE, "Namespace that is made for the installer.", Scope.INSTALLER, rules.namespace
    )
    node_selector: Mapping[str, str] = setting(
        {},
        "Labels of the nodes that get SOCI. Empty means all Linux nodes; with cluster `eks`, those of the "
        "cluster's own node groups.",
        Scope.INSTALLER,
        rules.node_labels,
        remedy="set --path 'soci:nodeSelector[\"LABEL\"]' VALUE",
    )
    existing_nodes: str = setting(
        "refuse",
        "What to do with a node that already runs workloads. `refuse` leaves it alone and says so, `migrate` "
        "changes it.",
        Scope.NODE,
        rules.one_of("refuse", "migrate"),
    )
    upgrade_policy: str = setting(
        "when-idle",
        "What to do when a new version or configuration would restart a daemon from which running pods read. "
        "`when-idle` waits for their end, `drain` evicts them within their disruption budgets, "
        "`side-by-side` leaves them alone and starts a second daemon for new pods.",
        Scope.NODE,
        rules.one_of("when-idle", "drain", "side-by-side"),
    )
    broken_pods: str = setting(
        "report",
        "What becomes of a pod whose lazily loaded files cannot be read any more, since the snapshotter's "
        "daemon ended under it. `report` puts a Warning Event on it, `evict` also evicts it within its "
        "disruption budgets, if a controller makes it anew.",
        Scope.NODE,
        rules.one_of("report", "evict"),
    )
    on_drift: str = setting(
        "repair",
        "What becomes of a node on which another tool changed what the install wrote. `repair` puts it "
        "right, at most once in ten minutes and three times an hour, `report` only says so.",
        Scope.NODE,
        rules.one_of("repair", "report"),
    )
    credentials: str = setting(
        "node-and-pull-secrets",
        "With which credentials private images are loaded lazily. `node` are the node's own: the kubelet's "
        "credential provider plugins and the Docker configurations on it. `node-and-pull-secrets` are these "
        "and the image pull secrets of the pods on the node, which are kept in its memory.",
        Scope.NODE,
        rules.one_of("node", "node-and-pull-secrets"),
    )
    max_unavailable: str = setting(
        "1",
        "Nodes that are changed at the same time, as a number or a percentage such as `10%`.",
        Scope.INSTALLER,
        rules.nodes_or_percentage,
    )
    rollout_timeout_seconds: int = setting(
        600,
        "How long the whole rollout may take, over all nodes, and after it the sample.",
        Scope.INSTALLER,
        rules.between(30, 86400, "seconds"),
    )
    require_nodes: bool = setting(
        True,
        "Whether it is a failure when no node has the labels of `nodeSelector`. `false` is for pools that an "
        "autoscaler fills from none; each node is served when it comes.",
        Scope.INSTALLER,
    )
    sample_workload: SampleSettings = setting(
        SampleSettings(),
        "A Job that runs once on a node with SOCI, with `enabled`, `image` and `command` (an empty command "
        "means the image's own). It must end by itself within `rolloutTimeoutSeconds`, the pull included.",
        remedy="set --path soci:sampleWorkload.enabled false",
    )
    cluster: str = setting(
        "eks",
        "`eks` makes an EKS cluster, `existing` uses the one of `kubeconfig`.",
        rule=rules.one_of("eks", "existing"),
    )
    kubeconfig: str = setting(
        "",
        "With cluster `existing`, its kubeconfig, as a path (from the project directory, `~` allowed) or as "
        "content, YAML or JSON.",
        Scope.EXISTING,
        kubeconfig.as_text,
        is_secret=True,
    )
    context: str = setting(
        "",
        "With cluster `existing`, the context in the kubeconfig. Empty means its current one.",
        Scope.EXISTING,
    )
    kubernetes_version: str = setting(
        "1.36", "With cluster `eks`, the Kubernetes release.", Scope.EKS, rules.kubernetes_version
    )
    operating_system: str = setting(
        "al2023",
        "With cluster `eks`, the nodes' operating system. Only `al2023` works so far.",
        Scope.EKS,
        rules.operating_system,
    )
    instance_types: tuple[str, ...] = setting(
        ("m6i.xlarge",),
        "With cluster `eks`, the EC2 instance types of the nodes.",
        Scope.NODE_GROUP,
        rules.instance_types,
        remedy="set --path 'soci:instanceTypes[0]' m6i.xlarge",
    )
    node_count: int = setting(
        2,
        "With cluster `eks`, how many nodes there are; with `autoscaled`, how many there are at first.",
        Scope.NODE_GROUP,
        rules.between(0, 1000, "nodes"),
    )
    min_node_count: int = setting(
        1,
        "With cluster `eks`, the fewest nodes that an autoscaler may leave.",
        Scope.NODE_GROUP,
        rules.between(0, 1000, "nodes"),
    )
    max_node_count: int = setting(
        4,
        "With cluster `eks`, the most nodes that an autoscaler may start.",
        Scope.NODE_GROUP,
        rules.between(1, 1000, "nodes"),
    )
    autoscaled: bool = setting(
        False,
        "With cluster `eks`, whether an autoscaler decides how many nodes there are: no update changes their "
        "number back. One group at least has a node from the start (`nodeCount`), for CoreDNS.",
        Scope.NODE_GROUP,
    )
    capacity_type: str = setting(
        "on-demand",
        "With cluster `eks`, how the nodes are bought: `on-demand` or `spot`.",
        Scope.NODE_GROUP,
        rules.one_of("on-demand", "spot"),
    )
    ami_type: str = setting(
        "",
        "With cluster `eks`, EKS's AMI of the nodes, such as `AL2023_x86_64_NVIDIA`. Empty means the one for "
        "the instance types, with the driver that they need.",
        Scope.NODE_GROUP,
        rules.ami_type,
    )
    volume_gib: int = setting(
        100,
        "With cluster `eks`, the size of each node's disk. It holds images, lazily loaded spans and "
        "containers.",
        Scope.NODE_GROUP,
        rules.between(20, 16384, "GiB"),
        key="volumeGiB",
    )
    volume_type: str = setting(
        "gp3",
        "With cluster `eks`, the type of that disk, `gp3` or `io2`.",
        Scope.NODE_GROUP,
        rules.one_of("gp3", "io2"),
    )
    volume_throughput: int = setting(
        600,
        "With cluster `eks`, that disk's throughput in MiB/s, 125 to 2000. Unpacked images are written and "
        "read with it.",
        Scope.NODE_GROUP,
        rules.between(125, 2000, "MiB/s"),
    )
    volume_iops: int = setting(
        0,
        "With cluster `eks`, that disk's I/O operations per second. 0 means as many as `volumeThroughput` "
        "needs, at least 3000.",
        Scope.NODE_GROUP,
        rules.volume_iops,
    )
    instance_store: bool = setting(
        True,
        "With cluster `eks`, whether images, containers and pods' volumes are on the NVMe disks of instance "
        "types that have some, as one RAID 0.",
        Scope.NODE_GROUP,
    )
    node_labels: Mapping[str, str] = setting(
        {},
        "With cluster `eks`, labels of the nodes, besides `soci-cluster.io/pool`.",
        Scope.NODE_GROUP,
        rules.group_labels,
        remedy="set --path 'soci:nodeLabels[\"LABEL\"]' VALUE",
    )
    node_taints: tuple[str, ...] = setting(
        (),
        "With cluster `eks`, taints of the nodes as kubectl writes them, such as "
        "`nvidia.com/gpu=present:NoSchedule`.",
        Scope.NODE_GROUP,
        rules.group_taints,
        remedy="set --path 'soci:nodeTaints[0]' KEY=VALUE:NoSchedule",
    )
    node_subnet_ids: tuple[str, ...] = setting(
        (),
        "With cluster `eks`, the nodes' subnets. Empty means the cluster's: the private ones where there are "
        "some.",
        Scope.NODE_GROUP,
        rules.subnets,
        remedy="set --path 'soci:nodeSubnetIds[0]' subnet-…",
    )
    metadata_hop_limit: int = setting(
        1,
        "With cluster `eks`, how many network hops away the instance metadata service answers. With 1, only "
        "the node and pods in its network reach it, and with it the node's role; pods of their own network "
        "need 2.",
        Scope.NODE_GROUP,
        rules.between(1, 64, "hops"),
    )
    eks_node_group_options: Mapping[str, Any] = setting(
        {},
        "With cluster `eks`, further arguments of pulumi-eks's "
        "[ManagedNodeGroup](https://www.pulumi.com/registry/packages/eks/api-docs/managednodegroup/), in its "
        "own words.",
        Scope.NODE_GROUP,
        pass_through.node_group,
        key="eksNodeGroup",
    )
    node_groups: Mapping[str, Mapping[str, Any]] = setting(
        {},
        "With cluster `eks`, its node groups: for each name an object with settings from `instanceTypes` to "
        "`eksNodeGroup`; what it does not hold is taken from those. Empty means one group, `nodes`.",
        Scope.EKS,
        remedy="rm soci:nodeGroups",
    )
    eks_cluster_options: Mapping[str, Any] = setting(
        {},
        "With cluster `eks`, further arguments of pulumi-eks's "
        "[Cluster](https://www.pulumi.com/registry/packages/eks/api-docs/cluster/), in its own words.",
        Scope.EKS,
        pass_through.cluster,
        key="eksCluster",
    )
    vpc_id: str = setting(
        "", "With cluster `eks`, its VPC. Empty means the account's default VPC.", Scope.EKS, rules.vpc
    )
    subnet_ids: tuple[str, ...] = setting(
        (),
        "With cluster `eks` and `vpcId`, the subnets, in at least two availability zones.",
        Scope.EKS,
        rules.cluster_subnets,
        remedy="set --path 'soci:subnetIds[0]' subnet-…",
    )
    public_subnet_ids: tuple[str, ...] = setting(
        (),
        "With cluster `eks` and `vpcId`, instead of `subnetIds`, its public subnets.",
        Scope.EKS,
        rules.subnets,
        remedy="set --path 'soci:publicSubnetIds[0]' subnet-…",
    )
    private_subnet_ids: tuple[str, ...] = setting(
        (),
        "With cluster `eks` and `vpcId`, instead of `subnetIds`, its private subnets: the nodes are there.",
        Scope.EKS,
        rules.subnets,
        remedy="set --path 'soci:privateSubnetIds[0]' subnet-…",
    )
    tags: Mapping[str, str] = setting(
        {},
        "With cluster `eks`, tags of the AWS resources, the nodes' instances, disks and network interfaces "
        "among them.",
        Scope.EKS,
        remedy="set --path soci:tags.NAME VALUE",
    )
    cluster_name: str = setting(
        "",
        "With cluster `eks`, the name of the EKS cluster. Empty means one made from the component's name. "
        "Another name is another cluster: the old one is replaced.",
        Scope.EKS,
        rules.cluster_name,
    )
    kubeconfig_role_arn: str = setting(
        "",
        "With cluster `eks`, the IAM role that the kubeconfig assumes: the one with which the AWS provider "
        "makes the cluster, when it assumes one. Empty means the credentials themselves.",
        Scope.EKS,
        rules.role_arn,
    )
    addon_versions: Mapping[str, str] = setting(
        {},
        "With cluster `eks`, versions of its add-ons, by name (`vpc-cni`, `kube-proxy`, `coredns`). One "
        "without an entry has the newest version of the day on which the cluster came to its Kubernetes "
        "release.",
        Scope.EKS,
        rules.addon_versions,
        remedy="set --path soci:addonVersions.NAME VERSION, one that aws eks describe-addon-versions lists",
    )


def from_config(config: Mapping[str, str]) -> Settings:
    """Read the settings from Pulumi's configuration as `pulumi.runtime.get_config_env()` gives it (other
    projects' keys ignored).

    Raises:
        SociConfigError: unknown keys, bad values, impossible combinations; all of them at once.
    """
    raw = {key.removeprefix("soci:"): value for key, value in config.items() if key.startswith("soci:")}
    return _validate(raw)


def from_arguments(arguments: Mapping[str, Any], scopes: Collection[Scope] = tuple(Scope)) -> Settings:
    """Read the settings from the arguments of a component that takes those of these scopes (by the field
    names of `Settings`). Raises as `from_config` does."""
    given = _without_none(arguments)
    foreign = [item.name for item in fields(Settings) if declaration(item).scope not in scopes]
    problems = [
        _no_argument(name, given[name], "take it away, or use SociCluster")
        for name in foreign
        if name in given
    ]
    return _validate(_with_keys(given), problems, makes_cluster=Scope.EKS in scopes)


def _with_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a program under the configuration's keys; those of the node groups, too."""
    raw = {_KEYS.get(name, name): value for name, value in given.items()}
    groups = raw.get("nodeGroups")
    if isinstance(groups, Mapping):
        raw["nodeGroups"] = {
            name: _with_keys(group) if isinstance(group, Mapping) else group for name, group in groups.items()
        }
    return raw


def node_groups_of(settings: Settings) -> dict[str, Settings]:
    """The node groups of a cluster, by name: the settings as each of them has them."""
    groups = {name: replace(settings, node_groups={}, **own) for name, own in settings.node_groups.items()}
    return groups or {"nodes": settings}


def from_sample_arguments(arguments: Mapping[str, Any]) -> Settings:
    """Read the settings from the arguments of SampleWorkload, which takes the fields of `SampleSettings` but
    `enabled`, and calls the limit `timeout_seconds`. Raises as `from_config` does."""
    given = _without_none(arguments)
    keys = {
        "version": "version",
        "timeout_seconds": "rolloutTimeoutSeconds",
        "image_pull_secrets": "imagePullSecrets",
    }
    parts = [item.name for item in fields(SampleSettings) if item.name != "enabled"]
    problems = [
        _no_argument(name, value, f"the arguments are {', '.join([*keys, *parts])}, kubeconfig and context")
        for name, value in given.items()
        if name not in (*keys, *parts)
    ]
    raw = {key: given[name] for name, key in keys.items() if name in given}
    return _validate(
        raw | {"sampleWorkload": {name: given[name] for name in parts if name in given}}, problems
    )


def _without_none(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _no_argument(name: str, value: Any, remedy: str) -> str:
    return _problem(_KEYS.get(name, name), value, "is no argument of this component", remedy)


def kubeconfig_content(given: Any) -> pulumi.Output[str]:
    """The content of a kubeconfig given as a component's argument: an output, or what soci:kubeconfig may be;
    empty for none.

    Raises:
        SociConfigError: it is no kubeconfig; of an output, when it is known.
    """
    if isinstance(given, pulumi.Output):
        return given.apply(_content)
    return pulumi.Output.from_input(_content(given))


def _content(given: Any) -> str:
    try:
        return kubeconfig.read_kubeconfig(kubeconfig.as_text(given)) if given else ""
    except RefusedError as refused:
        problem = _problem("kubeconfig", given, refused.reason, refused.remedy)
    raise SociConfigError(problem)


def plain(value: Any) -> Any:
    """Settings, or the value of one, in plain dictionaries and lists: what JSON, YAML and arguments hold."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def plain_arguments(settings: Settings, scopes: Collection[Scope] = tuple(Scope)) -> dict[str, Any]:
    """The settings of these scopes as the arguments of a component: the inverse of `from_arguments`."""
    return {
        item.name: plain(getattr(settings, item.name))
        for item in fields(Settings)
        if declaration(item).scope in scopes
    }


def inputs(settings: Settings, given: Iterable[str]) -> dict[str, Any]:
    """What a component's state holds of the settings: those that were given. What may hold credentials is
    left out, and what Pulumi's configuration calls a secret stays one."""
    return {
        item.name: protected([item.name], plain(getattr(settings, item.name)))
        for item in fields(Settings)
        if item.name in given and not declaration(item).is_secret
    }


def protected(names: Iterable[str], value: Any) -> Any:
    """A value made of the settings of these names, as the state may hold it: a secret where Pulumi's
    configuration calls one of them so."""
    return pulumi.Output.secret(value) if any(_is_config_secret(_KEYS[name]) for name in names) else value


def declaration(item: "Field[Any]") -> Declaration:
    """What a field says about itself."""
    return item.metadata["declaration"]


def default_of(item: "Field[Any]") -> Any:
    """The default value of a dataclass field."""
    return item.default if item.default is not MISSING else item.default_factory()  # ty: ignore[not-callable]


def config_key(item: "Field[Any]") -> str:
    """The configuration key of a field of `Settings`, without its `soci:`."""
    head, *rest = item.name.split("_")
    return declaration(item).key or head + "".join(word.capitalize() for word in rest)


_KEYS = {item.name: config_key(item) for item in fields(Settings)}
_FIELDS = {config_key(item): item for item in fields(Settings)}


def _is_config_secret(key: str) -> bool:
    # The variable is where `get_config_env` finds the values, too.
    name = f"soci:{key}"
    return pulumi.runtime.is_config_secret(name) or name in pulumi.runtime.get_config_secret_keys_env()


_GROUP_FIELDS = {key: item for key, item in _FIELDS.items() if declaration(item).scope is Scope.NODE_GROUP}


class _Reading:
    """Raw values being read: the problems so far, and the paths of the values that were refused."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self.problems = list(problems)
        self.refused: set[str] = set()

    def fields(
        self, raw: Mapping[str, Any], known: Mapping[str, "Field[Any]"], path: str = ""
    ) -> dict[str, Any]:
        """The values that are good, by field name; `path` is what comes before their keys."""
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key not in known:
                self.problems.append(_unknown(path, key, value, known))
                continue
            try:
                values[known[key].name] = self._read(known[key], value, path + key)
            except RefusedError as refused:
                self.refuse(path + key, value, refused)
        return values

    def _read(self, item: "Field[Any]", value: Any, path: str) -> Any:
        if item.name != "node_groups":
            return _read(item, value)
        return {name: self._group(name, own, f"{path}.{name}") for name, own in entries(value).items()}

    def _group(self, name: str, own: Any, path: str) -> dict[str, Any]:
        try:
            rules.group_name(name)
            return self.fields(entries(own), _GROUP_FIELDS, f"{path}.")
        except RefusedError as refused:
            self.refuse(path, own, refused)
            return {}

    def refuse(self, path: str, value: Any, refused: RefusedError) -> None:
        """Note a value that cannot be: the whole of it, or those entries of it that the refusal names."""
        self.refused.add(path)
        for entry in refused.entries or [refused]:
            at = f"{path}.{entry.entry}" if entry.entry else path
            own_remedy = _removal(at) if entry.entry else _remedy(_field_at(path))
            remedy = _in_group(entry.remedy or own_remedy, path)
            self.problems.append(_problem(at, entry.value if entry.entry else value, entry.reason, remedy))


def _validate(
    raw: Mapping[str, Any], problems: Iterable[str] = (), *, makes_cluster: bool = True
) -> Settings:
    reading = _Reading(problems)
    values = reading.fields(raw, _FIELDS)
    if values.get("cluster") == "existing" and values.get("kubeconfig"):
        try:
            values["kubeconfig"] = kubeconfig.read_kubeconfig(values["kubeconfig"])
        except RefusedError as refused:
            reading.refuse("kubeconfig", raw["kubeconfig"], refused)
            del values["kubeconfig"]
    settings = Settings(**values)
    # The installer alone may be on any cluster, of which nothing is known here.
    found = _combinations(settings) if makes_cluster else _any_cluster(settings)
    for path, reason, remedy in found:
        # Report each value once; what a group takes from a flat key is that key's.
        if not reading.refused & {path, path.rpartition(".")[2], "cluster"}:
            shown = raw.get(path, _value_at(settings, path))
            reading.problems.append(_problem(path, shown, reason, _in_group(remedy, path, settings)))
    if reading.problems:
        raise SociConfigError("\n".join(reading.problems))
    return settings


def _read(item: "Field[Any]", value: Any) -> Any:
    """The value of a field, read by the field's rule, else by its type."""
    if item.type is SampleSettings:
        return _sample_workload(value)
    rule = declaration(item).rule or KINDS[item.type].read
    return rule(value)


def _group_of(path: str) -> str:
    """What comes before the keys of the node group that a path leads to; empty outside of groups."""
    group = re.match(r"nodeGroups\.[^.]*\.", path)
    return group[0] if group else ""


def _field_at(path: str) -> "Field[Any]":
    """The setting that a path leads to, or into."""
    return _FIELDS[path.removeprefix(_group_of(path)).partition(".")[0]]


def _value_at(settings: Settings, path: str) -> Any:
    group = _group_of(path)
    of = node_groups_of(settings)[group.split(".")[1]] if group else settings
    return getattr(of, _field_at(path).name)


def _in_group(remedy: str, path: str, settings: Settings | None = None) -> str:
    """A remedy for the value at this path: that for a flat key, turned to the group's own.

    With the settings, only where that is possible: what is removed, or an entry that comes after others, is
    the flat key's when the group has its value from there.
    """
    group = _group_of(path)
    own = settings.node_groups[group.split(".")[1]] if settings and group else _KEYS

    def turned(command: "re.Match[str]") -> str:
        verb, quote, key, entry = command.groups()
        item = _GROUP_FIELDS.get(key)
        must_be_there = verb == "rm" or entry not in ("", "[0]")
        if not item or (must_be_there and item.name not in own):
            return command[0]
        return f"config {verb} --path {quote}soci:{group}{key}{entry}"

    pattern = r"config (set|rm) (?:--path )?('?)soci:(\w+)((?:\[\d+\])?)"
    return re.sub(pattern, turned, remedy) if group else remedy


def _sample_workload(value: Any) -> SampleSettings:
    known = {item.name: item for item in fields(SampleSettings)}
    given = entries(plain(value))
    if unknown := sorted(given.keys() - known.keys()):
        raise RefusedError(
            f"'{unknown[0]}' is not one of enabled, image and command",
            f"pulumi config rm --path soci:sampleWorkload.{unknown[0]}",
        )
    chosen: dict[str, Any] = {}
    for name, part in given.items():
        try:
            chosen[name] = _read(known[name], part)
        except RefusedError as refused:
            raise RefusedError(f"{name}: {refused.reason}", refused.remedy or _remedy(known[name])) from None
    return SampleSettings(**chosen)


def _remedy(item: "Field[Any]") -> str:
    """The command that mends a bad value: the setting's own, else one back to the default."""
    default = default_of(item)
    if remedy := declaration(item).remedy:
        return f"pulumi config {remedy}"
    return f"pulumi config set soci:{config_key(item)} {default}" if default else _removal(config_key(item))


def _removal(path: str) -> str:
    return f"pulumi config rm {'--path ' if '.' in path else ''}soci:{path}"


def _problem(key: str, value: Any, reason: str, remedy: str) -> str:
    """One line of the refusal; the key is a path where the value is inside of another."""
    told = f"{reason}. Remedy: {remedy}"
    top = key.partition(".")[0]
    item = _FIELDS.get(top)
    if _is_config_secret(top):
        # What is told of a setting that is made for credentials holds none.
        told = told if item and declaration(item).is_secret else redaction.without_secret(told, value)
        return f"soci:{key} [secret]: {told}"
    credentials = redaction.credentials_in(value)
    if credentials or _may_be_secret(top, value):
        return f"soci:{key} [not shown]: {redaction.without_secret(told, credentials)}"
    return f"soci:{key} '{redaction.shortened(plain(value))}': {told}"


def problem(settings: Settings, path: str, reason: str, remedy: str) -> str:
    """One line about a setting that was read: its key or path, value, reason and remedy, without what may be
    secret."""
    return _problem(path, _value_at(settings, path), reason, _in_group(remedy, path, settings))


def _may_be_secret(key: str, value: Any) -> bool:
    """Whether a value may hold credentials: that of a setting made for them, also where its name is misspelt,
    and what looks like a kubeconfig in the wrong place."""
    item = _FIELDS.get(key) or _FIELDS.get(_closest(key, _FIELDS))
    if (not item or item.type is str) and not _is_scalar(value):
        return True
    if not item or not declaration(item).is_secret or not value:
        return False
    return item.type is not str or not kubeconfig.is_path(str(value))


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return not kubeconfig.is_content(value)
    return isinstance(value, int | float | PathLike)


def _unknown(path: str, key: str, value: Any, known: Mapping[str, "Field[Any]"]) -> str:
    """The problem of a key that is none of the known ones at this path."""
    closest = _closest(key, known)
    reason = "there is no such setting"
    if path:
        reason += " of a node group" + (f" (soci:{key} is one of the cluster)" if key in _FIELDS else "")
    hint = f"did you mean soci:{path}{closest}? " if closest and key not in _FIELDS else ""
    return _problem(path + key, value, reason, hint + _removal(path + key))


def _closest(key: str, among: Mapping[str, "Field[Any]"]) -> str:
    """The setting that a misspelt key means; empty when there is none that is near."""
    by_lower_case = {known.lower(): known for known in among}
    found = difflib.get_close_matches(key.lower(), by_lower_case, n=1)
    return by_lower_case[found[0]] if found else ""


def _combinations(settings: Settings) -> list[tuple[str, str, str]]:
    """Problems between values that are each good alone: key (of a node group's setting, its path), reason,
    remedy."""
    rules_of_cluster = _existing_cluster if settings.cluster == "existing" else _eks_cluster
    return [*_any_cluster(settings), *rules_of_cluster(settings)]


def _any_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    oldest = MODES.get(settings.mode, rules.OLDEST_VERSION)
    if tuple(map(int, settings.version.split("."))) >= oldest:
        return []
    version = ".".join(map(str, oldest))
    return [("mode", f"needs SOCI {version} or newer", f"pulumi config set soci:version {version}")]


def _meaningless(settings: Settings, scopes: Collection[Scope], cluster: str) -> list[tuple[str, str, str]]:
    """Settings of these scopes that were set although the cluster is of the other kind."""
    return [
        (key, f"has a meaning only with soci:cluster {cluster}", _removal(key))
        for key, item in _FIELDS.items()
        if declaration(item).scope in scopes and getattr(settings, item.name) != default_of(item)
    ]


def _existing_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    problems = _meaningless(settings, (Scope.EKS, Scope.NODE_GROUP), "eks")
    if not settings.kubeconfig:
        remedy = "pulumi config set soci:kubeconfig ~/.kube/config"
        return [
            *problems,
            ("kubeconfig", "soci:cluster existing needs the kubeconfig of that cluster", remedy),
        ]
    try:
        kubeconfig.cluster_server(settings.kubeconfig, settings.context)
    except RefusedError as refused:
        key = "context" if isinstance(refused, kubeconfig.NoContextError) else "kubeconfig"
        problems.append((key, refused.reason, refused.remedy))
    return problems


def _eks_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    problems = _meaningless(settings, (Scope.EXISTING,), "existing")
    groups = node_groups_of(settings)
    for name, group in groups.items():
        path = f"nodeGroups.{name}." if settings.node_groups else ""
        problems += [(path + key, reason, remedy) for key, reason, remedy in eks_rules.node_group(group)]
    return [*problems, *eks_rules.subnets(settings), *eks_checks.refusals(settings, groups)]
