"""Settings of SociCluster, each declared once: type, default, rule, text and scope.

Everything else that knows the settings is derived from the declarations here or generated from them by
`make generate`: the `config` block of Pulumi.yaml, the arguments of the components (arguments.py), what
SociCluster hands on to SociInstaller, the node's settings.json (program.py), the tables of the documents.
How they are read is in configuration.py.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import Any

import pulumi

from . import index_rules, kubeconfig, operating_systems, pass_through, redaction, rules
from .image_pull_secrets import read as read_image_pull_secrets
from .names import DEFAULT_NAMESPACE, INDEX_NAMESPACE

# The oldest version for each mode. By its release notes SOCI before 0.11.1 ignores `parallel`, before 0.14.0
# `lazy-or-parallel`, which until 0.16.0 refused layers that its own store had (fs/unpacker.go).
MODES = {"lazy": rules.OLDEST_VERSION, "parallel": (0, 11, 1), "lazy-or-parallel": (0, 16, 0)}


_PROXY_REMEDY = "set soci:{} http://HOST:PORT"


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
class IndexSettings:
    """The images that get their SOCI index in the cluster."""

    images: tuple[str, ...] = setting(
        (),
        "The images, `NAME:TAG` or `NAME@DIGEST`, in registries to which the credentials may push.",
        rule=index_rules.images,
        remedy="set --path 'soci:index.images[0]' IMAGE:TAG",
    )
    schedule: str = setting(
        "",
        "When, as a CronJob has it, in UTC: `0 3 * * *` or `@daily`. Empty means once, and again when any of "
        "this changes: `pulumi up` waits for it.",
        rule=index_rules.schedule,
        remedy="set --path soci:index.schedule '0 3 * * *'",
    )
    suffix: str = setting(
        "-soci",
        "What the tag of an indexed image has at its end: `app:1` stays as it is, and `app:1-soci` comes "
        "beside it.",
        rule=index_rules.suffix,
        remedy="set --path soci:index.suffix=-soci",
    )
    replace: bool = setting(
        False,
        "Whether, with an empty suffix, an image's own tag is moved to the indexed image. The tag's digest "
        "changes with it.",
        remedy="set --path soci:index.replace true",
    )
    repository: str = setting(
        "",
        "Another repository for the indexed image; with a slash at its end, what comes before the images' "
        "own. Empty means beside the image.",
        rule=index_rules.repository,
        remedy="set --path soci:index.repository registry.example/mirror/",
    )
    index_version: str = setting(
        "v2",
        "Kind of SOCI index: `v2` becomes part of the image, `v1` is put beside it in the registry, which "
        "leaves every tag and digest as it is.",
        rule=rules.one_of("v2", "v1"),
        remedy="set --path soci:index.indexVersion v2",
    )
    unsigned: bool = setting(
        False,
        "Whether images that are signed or described (attestations, bills of materials) are indexed all the "
        "same. What is attached to them does not hold for the indexed image, so they are refused otherwise; "
        "with `indexVersion` `v1` nothing is lost.",
        remedy="set --path soci:index.unsigned true",
    )
    plain_http: tuple[str, ...] = setting(
        (),
        "Registries without TLS, as images name them.",
        rule=index_rules.registries,
        remedy="set --path 'soci:index.plainHttp[0]' HOST:PORT",
    )
    ca_certificates: str = setting(
        "",
        "The private authority of registries, PEM.",
        rule=index_rules.certificates,
        remedy='set --path soci:index.caCertificates "$(cat ca.pem)"',
    )
    role_arn: str = setting(
        "",
        "On EKS, the IAM role of the service account (IRSA), which may push to the images' ECR. Empty means "
        "none, or the one that a Pod Identity association gives.",
        rule=rules.role_arn,
        remedy="set --path soci:index.roleArn ARN",
    )
    oras_url: str = setting(
        "https://github.com/oras-project/oras/releases/download",
        "Where releases of oras, the registry client, are. Set it to a mirror where pods cannot reach "
        "GitHub.",
        rule=rules.url,
        remedy="set --path soci:index.orasUrl URL",
    )
    jobs: int = setting(
        2,
        "Layers that are worked on at the same time. The pod asks for half a core and 256 MiB of memory for "
        "each, and may take 1 GiB.",
        rule=rules.between(1, 64, "layers"),
        remedy="set --path soci:index.jobs 2",
    )
    disk_gib: int = setting(
        20,
        "What the pod may take of its node's disk. A layer takes twice its size while it is worked on.",
        rule=rules.between(4, 4096, "GiB"),
        key="diskGiB",
        remedy="set --path soci:index.diskGiB 20",
    )
    cache_claim: str = setting(
        "",
        "A PersistentVolumeClaim in its namespace, made by others, that keeps zTOCs from run to run: a new "
        "tag on an old base then reads its new layers only. Empty means that each run begins without any.",
        rule=index_rules.claim,
        remedy="rm --path soci:index.cacheClaim",
    )
    timeout_seconds: int = setting(
        3600,
        "How long one run may take.",
        rule=rules.between(60, 86400, "seconds"),
        remedy="set --path soci:index.timeoutSeconds 3600",
    )
    node_selector: Mapping[str, str] = setting(
        {},
        "Labels of the nodes on which it may run. Empty means any Linux node, amd64 or arm64; it needs no "
        "SOCI.",
        rule=rules.node_labels,
        remedy="set --path 'soci:index.nodeSelector[\"LABEL\"]' VALUE",
    )
    tolerated_taints: tuple[str, ...] = setting(
        (),
        "Taints of these nodes, as kubectl writes them, such as `nvidia.com/gpu=present:NoSchedule`.",
        rule=index_rules.tolerations,
        remedy="set --path 'soci:index.toleratedTaints[0]' KEY=VALUE:EFFECT",
    )
    namespace: str = setting(
        INDEX_NAMESPACE,
        "Namespace that is made for it.",
        rule=rules.namespace,
        remedy=f"set --path soci:index.namespace {INDEX_NAMESPACE}",
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
    prefetch: bool = setting(
        False,
        "Whether the files on an image's own prefetch list (`soci-index advise --write` makes one) are "
        "fetched before its containers start. SOCI does not check such a list: one that was made to "
        "harm ends the daemon, and with it every lazily loaded container of the node. So only where all "
        "images that the nodes may run are trusted.",
        Scope.NODE,
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
    index: IndexSettings = setting(
        IndexSettings(),
        "A Job or CronJob that gives images their SOCI index in the registry, when `images` names some. Its "
        "keys are in `docs/image-index.md`.",
        remedy="set --path 'soci:index.images[0]' IMAGE:TAG",
    )
    index_credentials: tuple[Any, ...] = setting(
        (),
        "For `soci:index`, the credentials that may push to the images' registries: the name of one Secret "
        "of the type `kubernetes.io/dockerconfigjson` that others put into its namespace, or objects with "
        "`registry`, `username` and `password`, from which such a Secret is made. In a program, user name "
        "and password may be outputs.",
        rule=index_rules.credentials,
        remedy="set --path 'soci:indexCredentials[0]' NAME; for credentials --secret --path "
        "'soci:indexCredentials[0].password' PASSWORD, and the same for registry and username",
        is_secret=True,
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
        operating_systems.DEFAULT,
        "With cluster `eks`, the nodes' operating system. "
        f"Only `{'` or `'.join(operating_systems.SERVED)}` works so far.",
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


KEYS = {item.name: config_key(item) for item in fields(Settings)}
"""The configuration key of each field's name."""
FIELDS = {config_key(item): item for item in fields(Settings)}
"""The field of each configuration key."""
GROUP_FIELDS = {key: item for key, item in FIELDS.items() if declaration(item).scope is Scope.NODE_GROUP}
"""Those that a node group may have as its own."""


INDEX_SHARED = (
    "version",
    "release_url",
    "sha256",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "installer_image",
    "image_pull_secrets",
    "index_credentials",
)
"""The fields of `Settings` that ImageIndex needs besides those of `IndexSettings`."""
ECR_SHARED = ("version", "release_url", "sha256")
ECR_PARTS = ("suffix", "replace", "index_version", "oras_url")
"""The fields of `Settings` and of `IndexSettings` that EcrImageIndex needs."""


def node_groups_of(settings: Settings) -> dict[str, Settings]:
    """The node groups of a cluster, by name: the settings as each of them has them."""
    groups = {name: replace(settings, node_groups={}, **own) for name, own in settings.node_groups.items()}
    return groups or {"nodes": settings}


def plain(value: Any) -> Any:
    """Settings, or the value of one, in plain dictionaries and lists: what JSON, YAML and arguments hold."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def plain_arguments(settings: Settings, scopes: Collection[Scope] = tuple(Scope)) -> dict[str, Any]:
    """The settings of these scopes as the arguments of a component: what
    `configuration.from_arguments` reads."""
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
    is_secret = any(redaction.is_config_secret(KEYS[name]) for name in names)
    return pulumi.Output.secret(value) if is_secret else value
