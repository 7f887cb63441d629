"""The arguments of the components: generated from components/settings.py by `make generate`."""

from typing import Any, NotRequired, TypedDict

import pulumi


class SampleWorkloadSettings(TypedDict):
    """The sample workload."""

    enabled: NotRequired[bool]
    """Whether there is one. Default: `true`."""
    image: NotRequired[str]
    """Its image. Default: `public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest`."""
    command: NotRequired[list[str]]
    """What it runs; empty for the image's own command. Default: `["python3", "-c", "print('ready')"]`."""


class ImageIndexSettings(TypedDict):
    """Images that get their SOCI index."""

    images: NotRequired[list[str]]
    """The images, `NAME:TAG` or `NAME@DIGEST`, in registries to which the credentials may push."""
    schedule: NotRequired[str]
    """When, as a CronJob has it, in UTC: `0 3 * * *` or `@daily`. Empty means once, and again when any of
    this changes: `pulumi up` waits for it."""
    suffix: NotRequired[str]
    """What the tag of an indexed image has at its end: `app:1` stays as it is, and `app:1-soci` comes beside
    it. Default: `-soci`."""
    replace: NotRequired[bool]
    """Whether, with an empty suffix, an image's own tag is moved to the indexed image. The tag's digest
    changes with it. Default: `false`."""
    repository: NotRequired[str]
    """Another repository for the indexed image; with a slash at its end, what comes before the images' own.
    Empty means beside the image."""
    index_version: NotRequired[str]
    """Kind of SOCI index: `v2` becomes part of the image, `v1` is put beside it in the registry, which leaves
    every tag and digest as it is. Default: `v2`."""
    unsigned: NotRequired[bool]
    """Whether images that are signed or described (attestations, bills of materials) are indexed all the
    same. What is attached to them does not hold for the indexed image, so they are refused otherwise; with
    `indexVersion` `v1` nothing is lost. Default: `false`."""
    plain_http: NotRequired[list[str]]
    """Registries without TLS, as images name them."""
    ca_certificates: NotRequired[str]
    """The private authority of registries, PEM."""
    role_arn: NotRequired[str]
    """On EKS, the IAM role of the service account (IRSA), which may push to the images' ECR. Empty means
    none, or the one that a Pod Identity association gives."""
    oras_url: NotRequired[str]
    """Where releases of oras, the registry client, are. Set it to a mirror where pods cannot reach GitHub.
    Default: `https://github.com/oras-project/oras/releases/download`."""
    jobs: NotRequired[int]
    """Layers that are worked on at the same time. The pod asks for half a core and 256 MiB of memory for
    each, and may take 1 GiB. Default: `2`."""
    disk_gib: NotRequired[int]
    """What the pod may take of its node's disk. A layer takes twice its size while it is worked on. Default:
    `20`."""
    cache_claim: NotRequired[str]
    """A PersistentVolumeClaim in its namespace, made by others, that keeps zTOCs from run to run: a new tag
    on an old base then reads its new layers only. Empty means that each run begins without any."""
    timeout_seconds: NotRequired[int]
    """How long one run may take. Default: `3600`."""
    node_selector: NotRequired[dict[str, str]]
    """Labels of the nodes on which it may run. Empty means any Linux node, amd64 or arm64; it needs no
    SOCI."""
    tolerated_taints: NotRequired[list[str]]
    """Taints of these nodes, as kubectl writes them, such as `nvidia.com/gpu=present:NoSchedule`."""
    namespace: NotRequired[str]
    """Namespace that is made for it. Default: `soci-index`."""


class SampleWorkloadArgs(TypedDict):
    """What the sample runs, and for which SOCI version."""

    version: str
    """SOCI version that the node must carry."""
    image: NotRequired[str]
    """Its image. Default: `public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest`."""
    command: NotRequired[list[str]]
    """What it runs; empty for the image's own command. Default: `["python3", "-c", "print('ready')"]`."""
    image_pull_secrets: NotRequired[list[Any]]
    """For the installer's and the sample's own images only; your pods need nothing here (`soci:credentials`).
    Where the nodes' credentials do not open these two: each entry the name of a Secret that others put beside
    the pods, or an object with `registry`, `username` and `password`, from which such a Secret is made. In a
    program, user name and password may be outputs."""
    timeout_seconds: NotRequired[int]
    """How long it may take, in seconds, the pull of its image included. Default: `600`."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """The cluster's kubeconfig, as a path, as content or as an object (in Python). Used to name the pod, and
    to show why it failed. Default: that of the Kubernetes provider."""
    context: NotRequired[pulumi.Input[str]]
    """The kubeconfig's context to use for that. Default: its current one."""


class ImageIndexArgs(TypedDict):
    """Which images get their SOCI index, how and when."""

    images: list[str]
    """The images, `NAME:TAG` or `NAME@DIGEST`, in registries to which the credentials may push."""
    schedule: NotRequired[str]
    """When, as a CronJob has it, in UTC: `0 3 * * *` or `@daily`. Empty means once, and again when any of
    this changes: `pulumi up` waits for it."""
    suffix: NotRequired[str]
    """What the tag of an indexed image has at its end: `app:1` stays as it is, and `app:1-soci` comes beside
    it. Default: `-soci`."""
    replace: NotRequired[bool]
    """Whether, with an empty suffix, an image's own tag is moved to the indexed image. The tag's digest
    changes with it. Default: `false`."""
    repository: NotRequired[str]
    """Another repository for the indexed image; with a slash at its end, what comes before the images' own.
    Empty means beside the image."""
    index_version: NotRequired[str]
    """Kind of SOCI index: `v2` becomes part of the image, `v1` is put beside it in the registry, which leaves
    every tag and digest as it is. Default: `v2`."""
    unsigned: NotRequired[bool]
    """Whether images that are signed or described (attestations, bills of materials) are indexed all the
    same. What is attached to them does not hold for the indexed image, so they are refused otherwise; with
    `indexVersion` `v1` nothing is lost. Default: `false`."""
    plain_http: NotRequired[list[str]]
    """Registries without TLS, as images name them."""
    ca_certificates: NotRequired[str]
    """The private authority of registries, PEM."""
    role_arn: NotRequired[str]
    """On EKS, the IAM role of the service account (IRSA), which may push to the images' ECR. Empty means
    none, or the one that a Pod Identity association gives."""
    oras_url: NotRequired[str]
    """Where releases of oras, the registry client, are. Set it to a mirror where pods cannot reach GitHub.
    Default: `https://github.com/oras-project/oras/releases/download`."""
    jobs: NotRequired[int]
    """Layers that are worked on at the same time. The pod asks for half a core and 256 MiB of memory for
    each, and may take 1 GiB. Default: `2`."""
    disk_gib: NotRequired[int]
    """What the pod may take of its node's disk. A layer takes twice its size while it is worked on. Default:
    `20`."""
    cache_claim: NotRequired[str]
    """A PersistentVolumeClaim in its namespace, made by others, that keeps zTOCs from run to run: a new tag
    on an old base then reads its new layers only. Empty means that each run begins without any."""
    timeout_seconds: NotRequired[int]
    """How long one run may take. Default: `3600`."""
    node_selector: NotRequired[dict[str, str]]
    """Labels of the nodes on which it may run. Empty means any Linux node, amd64 or arm64; it needs no
    SOCI."""
    tolerated_taints: NotRequired[list[str]]
    """Taints of these nodes, as kubectl writes them, such as `nvidia.com/gpu=present:NoSchedule`."""
    namespace: NotRequired[str]
    """Namespace that is made for it. Default: `soci-index`."""
    version: NotRequired[str]
    """SOCI release to install, X.Y.Z (0.10.0 or newer, not 0.11.0). Default: `0.16.1`."""
    release_url: NotRequired[str]
    """Where SOCI releases are, as `{releaseUrl}/v{version}/{asset}`. Set it to a mirror when nodes cannot
    reach GitHub, or to `oci://REGISTRY/REPOSITORY`: an OCI artifact, tagged with the version, whose layers
    are the archives (`oci+http://` without TLS). Default:
    `https://github.com/awslabs/soci-snapshotter/releases/download`."""
    http_proxy: NotRequired[str]
    """Proxy of the nodes for http:// addresses, for SOCI and the installer's download. Empty means the one
    that containerd runs with, if any. It must be plain: credentials belong into containerd's unit."""
    https_proxy: NotRequired[str]
    """The same for https:// addresses."""
    no_proxy: NotRequired[str]
    """Hosts, addresses and networks that are asked without a proxy, separated by commas. Empty means those of
    containerd. The instance metadata, `localhost`, `.svc`, `.cluster.local` and the address of the API
    server's service are always among them; name the service network, too, where a registry is in it."""
    sha256: NotRequired[dict[str, str]]
    """SHA-256 of the release's static archive, by architecture (`amd64`, `arm64`). Empty means the release's
    own checksum files are read at each run; nodes of an architecture without one are refused."""
    installer_image: NotRequired[str]
    """Image with Python 3.11 or newer in which the installer runs. Nothing is added to it. Default:
    `public.ecr.aws/docker/library/python:3.13-alpine`."""
    image_pull_secrets: NotRequired[list[Any]]
    """For the installer's and the sample's own images only; your pods need nothing here (`soci:credentials`).
    Where the nodes' credentials do not open these two: each entry the name of a Secret that others put beside
    the pods, or an object with `registry`, `username` and `password`, from which such a Secret is made. In a
    program, user name and password may be outputs."""
    index_credentials: NotRequired[list[Any]]
    """For `soci:index`, the credentials that may push to the images' registries: the name of one Secret of
    the type `kubernetes.io/dockerconfigjson` that others put into its namespace, or objects with `registry`,
    `username` and `password`, from which such a Secret is made. In a program, user name and password may be
    outputs."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """The cluster's kubeconfig, as a path, as content or as an object (in Python). Used to take up an
    interrupted `pulumi up`, and to show why it failed. Default: that of the Kubernetes provider."""
    context: NotRequired[pulumi.Input[str]]
    """The kubeconfig's context to use for that. Default: its current one."""


class EcrImageIndexArgs(TypedDict):
    """What is indexed when it is pushed to ECR, and how."""

    repositories: list[str]
    """Repositories of ECR, by their names, such as `team/app`; `team/*` for all that begin so."""
    compute_type: NotRequired[str]
    """CodeBuild's compute type, which decides cores, memory and disk. Default: `BUILD_GENERAL1_SMALL`."""
    timeout_minutes: NotRequired[int]
    """How long the build of one image may take. Default: `60`."""
    log_retention_days: NotRequired[int]
    """How long the builds' log is kept. Default: `30`."""
    suffix: NotRequired[str]
    """What the tag of an indexed image has at its end: `app:1` stays as it is, and `app:1-soci` comes beside
    it. Default: `-soci`."""
    replace: NotRequired[bool]
    """Whether, with an empty suffix, an image's own tag is moved to the indexed image. The tag's digest
    changes with it. Default: `false`."""
    index_version: NotRequired[str]
    """Kind of SOCI index: `v2` becomes part of the image, `v1` is put beside it in the registry, which leaves
    every tag and digest as it is. Default: `v2`."""
    oras_url: NotRequired[str]
    """Where releases of oras, the registry client, are. Set it to a mirror where pods cannot reach GitHub.
    Default: `https://github.com/oras-project/oras/releases/download`."""
    version: NotRequired[str]
    """SOCI release to install, X.Y.Z (0.10.0 or newer, not 0.11.0). Default: `0.16.1`."""
    release_url: NotRequired[str]
    """Where SOCI releases are, as `{releaseUrl}/v{version}/{asset}`. Set it to a mirror when nodes cannot
    reach GitHub, or to `oci://REGISTRY/REPOSITORY`: an OCI artifact, tagged with the version, whose layers
    are the archives (`oci+http://` without TLS). Default:
    `https://github.com/awslabs/soci-snapshotter/releases/download`."""
    sha256: NotRequired[dict[str, str]]
    """SHA-256 of the release's static archive, by architecture (`amd64`, `arm64`). Empty means the release's
    own checksum files are read at each run; nodes of an architecture without one are refused."""


class SociInstallerArgs(TypedDict):
    """What to install on the nodes, and how."""

    version: str
    """SOCI release to install, X.Y.Z (0.10.0 or newer, not 0.11.0)."""
    state: NotRequired[str]
    """`present` puts SOCI on the nodes, `absent` takes it off them again and leaves nothing behind. Default:
    `present`."""
    force_uninstall: NotRequired[bool]
    """Take SOCI off a node although lazily loaded containers run on it (they are ended and started again) or
    others changed its files (the node's original comes back). Default: `false`."""
    mode: NotRequired[str]
    """How images are loaded. `lazy` reads indexed ones on demand; `parallel` pulls every image whole, over
    many connections; `lazy-or-parallel` does the one for indexed images and the other for the rest. Default:
    `lazy`."""
    index_versions: NotRequired[list[str]]
    """Kinds of SOCI index that are used. `v2` is part of the image, `v1` is found beside it in the registry.
    Default: `["v2", "v1"]`."""
    prefetch: NotRequired[bool]
    """Whether the files on an image's own prefetch list (`soci-index advise --write` makes one) are fetched
    before its containers start. SOCI does not check such a list: one that was made to harm ends the daemon,
    and with it every lazily loaded container of the node. So only where all images that the nodes may run are
    trusted. Default: `false`."""
    release_url: NotRequired[str]
    """Where SOCI releases are, as `{releaseUrl}/v{version}/{asset}`. Set it to a mirror when nodes cannot
    reach GitHub, or to `oci://REGISTRY/REPOSITORY`: an OCI artifact, tagged with the version, whose layers
    are the archives (`oci+http://` without TLS). Default:
    `https://github.com/awslabs/soci-snapshotter/releases/download`."""
    http_proxy: NotRequired[str]
    """Proxy of the nodes for http:// addresses, for SOCI and the installer's download. Empty means the one
    that containerd runs with, if any. It must be plain: credentials belong into containerd's unit."""
    https_proxy: NotRequired[str]
    """The same for https:// addresses."""
    no_proxy: NotRequired[str]
    """Hosts, addresses and networks that are asked without a proxy, separated by commas. Empty means those of
    containerd. The instance metadata, `localhost`, `.svc`, `.cluster.local` and the address of the API
    server's service are always among them; name the service network, too, where a registry is in it."""
    sha256: NotRequired[dict[str, str]]
    """SHA-256 of the release's static archive, by architecture (`amd64`, `arm64`). Empty means the release's
    own checksum files are read at each run; nodes of an architecture without one are refused."""
    installer_image: NotRequired[str]
    """Image with Python 3.11 or newer in which the installer runs. Nothing is added to it. Default:
    `public.ecr.aws/docker/library/python:3.13-alpine`."""
    image_pull_secrets: NotRequired[list[Any]]
    """For the installer's and the sample's own images only; your pods need nothing here (`soci:credentials`).
    Where the nodes' credentials do not open these two: each entry the name of a Secret that others put beside
    the pods, or an object with `registry`, `username` and `password`, from which such a Secret is made. In a
    program, user name and password may be outputs."""
    namespace: NotRequired[str]
    """Namespace that is made for the installer. Default: `soci-system`."""
    node_selector: NotRequired[dict[str, str]]
    """Labels of the nodes that get SOCI. Empty means all Linux nodes; with cluster `eks`, those of the
    cluster's own node groups."""
    existing_nodes: NotRequired[str]
    """What to do with a node that already runs workloads. `refuse` leaves it alone and says so, `migrate`
    changes it. Default: `refuse`."""
    upgrade_policy: NotRequired[str]
    """What to do when a new version or configuration would restart a daemon from which running pods read.
    `when-idle` waits for their end, `drain` evicts them within their disruption budgets, `side-by-side`
    leaves them alone and starts a second daemon for new pods. Default: `when-idle`."""
    broken_pods: NotRequired[str]
    """What becomes of a pod whose lazily loaded files cannot be read any more, since the snapshotter's daemon
    ended under it. `report` puts a Warning Event on it, `evict` also evicts it within its disruption budgets,
    if a controller makes it anew. Default: `report`."""
    on_drift: NotRequired[str]
    """What becomes of a node on which another tool changed what the install wrote. `repair` puts it right, at
    most once in ten minutes and three times an hour, `report` only says so. Default: `repair`."""
    credentials: NotRequired[str]
    """With which credentials private images are loaded lazily. `node` are the node's own: the kubelet's
    credential provider plugins and the Docker configurations on it. `node-and-pull-secrets` are these and the
    image pull secrets of the pods on the node, which are kept in its memory. Default:
    `node-and-pull-secrets`."""
    max_unavailable: NotRequired[str]
    """Nodes that are changed at the same time, as a number or a percentage such as `10%`. Default: `1`."""
    rollout_timeout_seconds: NotRequired[int]
    """How long the whole rollout may take, over all nodes, and after it the sample. Default: `600`."""
    require_nodes: NotRequired[bool]
    """Whether it is a failure when no node has the labels of `nodeSelector`. `false` is for pools that an
    autoscaler fills from none; each node is served when it comes. Default: `true`."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """The cluster's kubeconfig, as a path, as content or as an object (in Python). Used to take up an
    interrupted `pulumi up`, to warn of what is in the way, and after a failed rollout to show each node's
    reason. Default: that of the Kubernetes provider."""
    context: NotRequired[pulumi.Input[str]]
    """The kubeconfig's context to use for that. Default: its current one."""
    nodes: NotRequired[pulumi.Input[Any]]
    """What the nodes are made from: anything whose change means other nodes, such as a node group's ID,
    launch template, version and size. A change of it is waited for, until all nodes are verified, before what
    it replaced is deleted."""


class NodeGroupArgs(TypedDict):
    """One node group of a new EKS cluster; what it does not say is as SociClusterArgs says."""

    instance_types: NotRequired[list[str]]
    """With cluster `eks`, the EC2 instance types of the nodes."""
    node_count: NotRequired[int]
    """With cluster `eks`, how many nodes there are; with `autoscaled`, how many there are at first."""
    min_node_count: NotRequired[int]
    """With cluster `eks`, the fewest nodes that an autoscaler may leave."""
    max_node_count: NotRequired[int]
    """With cluster `eks`, the most nodes that an autoscaler may start."""
    autoscaled: NotRequired[bool]
    """With cluster `eks`, whether an autoscaler decides how many nodes there are: no update changes their
    number back. One group at least has a node from the start (`nodeCount`), for CoreDNS."""
    capacity_type: NotRequired[str]
    """With cluster `eks`, how the nodes are bought: `on-demand` or `spot`."""
    ami_type: NotRequired[str]
    """With cluster `eks`, EKS's AMI of the nodes, such as `AL2023_x86_64_NVIDIA`. Empty means the one for the
    instance types, with the driver that they need."""
    volume_gib: NotRequired[int]
    """With cluster `eks`, the size of each node's disk. It holds images, lazily loaded spans and
    containers."""
    volume_type: NotRequired[str]
    """With cluster `eks`, the type of that disk, `gp3` or `io2`."""
    volume_throughput: NotRequired[int]
    """With cluster `eks`, that disk's throughput in MiB/s, 125 to 2000. Unpacked images are written and read
    with it."""
    volume_iops: NotRequired[int]
    """With cluster `eks`, that disk's I/O operations per second. 0 means as many as `volumeThroughput` needs,
    at least 3000."""
    instance_store: NotRequired[bool]
    """With cluster `eks`, whether images, containers and pods' volumes are on the NVMe disks of instance
    types that have some, as one RAID 0."""
    node_labels: NotRequired[dict[str, str]]
    """With cluster `eks`, labels of the nodes, besides `soci-cluster.io/pool`."""
    node_taints: NotRequired[list[str]]
    """With cluster `eks`, taints of the nodes as kubectl writes them, such as
    `nvidia.com/gpu=present:NoSchedule`."""
    node_subnet_ids: NotRequired[list[str]]
    """With cluster `eks`, the nodes' subnets. Empty means the cluster's: the private ones where there are
    some."""
    metadata_hop_limit: NotRequired[int]
    """With cluster `eks`, how many network hops away the instance metadata service answers. With 1, only the
    node and pods in its network reach it, and with it the node's role; pods of their own network need 2."""
    eks_node_group_options: NotRequired[dict[str, Any]]
    """With cluster `eks`, further arguments of pulumi-eks's
    [ManagedNodeGroup](https://www.pulumi.com/registry/packages/eks/api-docs/managednodegroup/), in its own
    words."""


class SociClusterArgs(TypedDict):
    """The cluster and what to install on it; everything has a default."""

    version: NotRequired[str]
    """SOCI release to install, X.Y.Z (0.10.0 or newer, not 0.11.0). Default: `0.16.1`."""
    state: NotRequired[str]
    """`present` puts SOCI on the nodes, `absent` takes it off them again and leaves nothing behind. Default:
    `present`."""
    force_uninstall: NotRequired[bool]
    """Take SOCI off a node although lazily loaded containers run on it (they are ended and started again) or
    others changed its files (the node's original comes back). Default: `false`."""
    mode: NotRequired[str]
    """How images are loaded. `lazy` reads indexed ones on demand; `parallel` pulls every image whole, over
    many connections; `lazy-or-parallel` does the one for indexed images and the other for the rest. Default:
    `lazy`."""
    index_versions: NotRequired[list[str]]
    """Kinds of SOCI index that are used. `v2` is part of the image, `v1` is found beside it in the registry.
    Default: `["v2", "v1"]`."""
    prefetch: NotRequired[bool]
    """Whether the files on an image's own prefetch list (`soci-index advise --write` makes one) are fetched
    before its containers start. SOCI does not check such a list: one that was made to harm ends the daemon,
    and with it every lazily loaded container of the node. So only where all images that the nodes may run are
    trusted. Default: `false`."""
    release_url: NotRequired[str]
    """Where SOCI releases are, as `{releaseUrl}/v{version}/{asset}`. Set it to a mirror when nodes cannot
    reach GitHub, or to `oci://REGISTRY/REPOSITORY`: an OCI artifact, tagged with the version, whose layers
    are the archives (`oci+http://` without TLS). Default:
    `https://github.com/awslabs/soci-snapshotter/releases/download`."""
    http_proxy: NotRequired[str]
    """Proxy of the nodes for http:// addresses, for SOCI and the installer's download. Empty means the one
    that containerd runs with, if any. It must be plain: credentials belong into containerd's unit."""
    https_proxy: NotRequired[str]
    """The same for https:// addresses."""
    no_proxy: NotRequired[str]
    """Hosts, addresses and networks that are asked without a proxy, separated by commas. Empty means those of
    containerd. The instance metadata, `localhost`, `.svc`, `.cluster.local` and the address of the API
    server's service are always among them; name the service network, too, where a registry is in it."""
    sha256: NotRequired[dict[str, str]]
    """SHA-256 of the release's static archive, by architecture (`amd64`, `arm64`). Empty means the release's
    own checksum files are read at each run; nodes of an architecture without one are refused."""
    installer_image: NotRequired[str]
    """Image with Python 3.11 or newer in which the installer runs. Nothing is added to it. Default:
    `public.ecr.aws/docker/library/python:3.13-alpine`."""
    image_pull_secrets: NotRequired[list[Any]]
    """For the installer's and the sample's own images only; your pods need nothing here (`soci:credentials`).
    Where the nodes' credentials do not open these two: each entry the name of a Secret that others put beside
    the pods, or an object with `registry`, `username` and `password`, from which such a Secret is made. In a
    program, user name and password may be outputs."""
    namespace: NotRequired[str]
    """Namespace that is made for the installer. Default: `soci-system`."""
    node_selector: NotRequired[dict[str, str]]
    """Labels of the nodes that get SOCI. Empty means all Linux nodes; with cluster `eks`, those of the
    cluster's own node groups."""
    existing_nodes: NotRequired[str]
    """What to do with a node that already runs workloads. `refuse` leaves it alone and says so, `migrate`
    changes it. Default: `refuse`."""
    upgrade_policy: NotRequired[str]
    """What to do when a new version or configuration would restart a daemon from which running pods read.
    `when-idle` waits for their end, `drain` evicts them within their disruption budgets, `side-by-side`
    leaves them alone and starts a second daemon for new pods. Default: `when-idle`."""
    broken_pods: NotRequired[str]
    """What becomes of a pod whose lazily loaded files cannot be read any more, since the snapshotter's daemon
    ended under it. `report` puts a Warning Event on it, `evict` also evicts it within its disruption budgets,
    if a controller makes it anew. Default: `report`."""
    on_drift: NotRequired[str]
    """What becomes of a node on which another tool changed what the install wrote. `repair` puts it right, at
    most once in ten minutes and three times an hour, `report` only says so. Default: `repair`."""
    credentials: NotRequired[str]
    """With which credentials private images are loaded lazily. `node` are the node's own: the kubelet's
    credential provider plugins and the Docker configurations on it. `node-and-pull-secrets` are these and the
    image pull secrets of the pods on the node, which are kept in its memory. Default:
    `node-and-pull-secrets`."""
    max_unavailable: NotRequired[str]
    """Nodes that are changed at the same time, as a number or a percentage such as `10%`. Default: `1`."""
    rollout_timeout_seconds: NotRequired[int]
    """How long the whole rollout may take, over all nodes, and after it the sample. Default: `600`."""
    require_nodes: NotRequired[bool]
    """Whether it is a failure when no node has the labels of `nodeSelector`. `false` is for pools that an
    autoscaler fills from none; each node is served when it comes. Default: `true`."""
    sample_workload: NotRequired[SampleWorkloadSettings]
    """A Job that runs once on a node with SOCI, with `enabled`, `image` and `command` (an empty command means
    the image's own). It must end by itself within `rolloutTimeoutSeconds`, the pull included."""
    index: NotRequired[ImageIndexSettings]
    """A Job or CronJob that gives images their SOCI index in the registry, when `images` names some. Its keys
    are in `docs/image-index.md`."""
    index_credentials: NotRequired[list[Any]]
    """For `soci:index`, the credentials that may push to the images' registries: the name of one Secret of
    the type `kubernetes.io/dockerconfigjson` that others put into its namespace, or objects with `registry`,
    `username` and `password`, from which such a Secret is made. In a program, user name and password may be
    outputs."""
    cluster: NotRequired[str]
    """`eks` makes an EKS cluster, `existing` uses the one of `kubeconfig`. Default: `eks`."""
    kubeconfig: NotRequired[str]
    """With cluster `existing`, its kubeconfig, as a path (from the project directory, `~` allowed) or as
    content, YAML or JSON."""
    context: NotRequired[str]
    """With cluster `existing`, the context in the kubeconfig. Empty means its current one."""
    kubernetes_version: NotRequired[str]
    """With cluster `eks`, the Kubernetes release. Default: `1.36`."""
    operating_system: NotRequired[str]
    """With cluster `eks`, the nodes' operating system. Only `al2023` works so far. Default: `al2023`."""
    instance_types: NotRequired[list[str]]
    """With cluster `eks`, the EC2 instance types of the nodes. Default: `["m6i.xlarge"]`."""
    node_count: NotRequired[int]
    """With cluster `eks`, how many nodes there are; with `autoscaled`, how many there are at first. Default:
    `2`."""
    min_node_count: NotRequired[int]
    """With cluster `eks`, the fewest nodes that an autoscaler may leave. Default: `1`."""
    max_node_count: NotRequired[int]
    """With cluster `eks`, the most nodes that an autoscaler may start. Default: `4`."""
    autoscaled: NotRequired[bool]
    """With cluster `eks`, whether an autoscaler decides how many nodes there are: no update changes their
    number back. One group at least has a node from the start (`nodeCount`), for CoreDNS. Default: `false`."""
    capacity_type: NotRequired[str]
    """With cluster `eks`, how the nodes are bought: `on-demand` or `spot`. Default: `on-demand`."""
    ami_type: NotRequired[str]
    """With cluster `eks`, EKS's AMI of the nodes, such as `AL2023_x86_64_NVIDIA`. Empty means the one for the
    instance types, with the driver that they need."""
    volume_gib: NotRequired[int]
    """With cluster `eks`, the size of each node's disk. It holds images, lazily loaded spans and containers.
    Default: `100`."""
    volume_type: NotRequired[str]
    """With cluster `eks`, the type of that disk, `gp3` or `io2`. Default: `gp3`."""
    volume_throughput: NotRequired[int]
    """With cluster `eks`, that disk's throughput in MiB/s, 125 to 2000. Unpacked images are written and read
    with it. Default: `600`."""
    volume_iops: NotRequired[int]
    """With cluster `eks`, that disk's I/O operations per second. 0 means as many as `volumeThroughput` needs,
    at least 3000. Default: `0`."""
    instance_store: NotRequired[bool]
    """With cluster `eks`, whether images, containers and pods' volumes are on the NVMe disks of instance
    types that have some, as one RAID 0. Default: `true`."""
    node_labels: NotRequired[dict[str, str]]
    """With cluster `eks`, labels of the nodes, besides `soci-cluster.io/pool`."""
    node_taints: NotRequired[list[str]]
    """With cluster `eks`, taints of the nodes as kubectl writes them, such as
    `nvidia.com/gpu=present:NoSchedule`."""
    node_subnet_ids: NotRequired[list[str]]
    """With cluster `eks`, the nodes' subnets. Empty means the cluster's: the private ones where there are
    some."""
    metadata_hop_limit: NotRequired[int]
    """With cluster `eks`, how many network hops away the instance metadata service answers. With 1, only the
    node and pods in its network reach it, and with it the node's role; pods of their own network need 2.
    Default: `1`."""
    eks_node_group_options: NotRequired[dict[str, Any]]
    """With cluster `eks`, further arguments of pulumi-eks's
    [ManagedNodeGroup](https://www.pulumi.com/registry/packages/eks/api-docs/managednodegroup/), in its own
    words."""
    node_groups: NotRequired[dict[str, NodeGroupArgs]]
    """With cluster `eks`, its node groups: for each name an object with settings from `instanceTypes` to
    `eksNodeGroup`; what it does not hold is taken from those. Empty means one group, `nodes`."""
    eks_cluster_options: NotRequired[dict[str, Any]]
    """With cluster `eks`, further arguments of pulumi-eks's
    [Cluster](https://www.pulumi.com/registry/packages/eks/api-docs/cluster/), in its own words."""
    vpc_id: NotRequired[str]
    """With cluster `eks`, its VPC. Empty means the account's default VPC."""
    subnet_ids: NotRequired[list[str]]
    """With cluster `eks` and `vpcId`, the subnets, in at least two availability zones."""
    public_subnet_ids: NotRequired[list[str]]
    """With cluster `eks` and `vpcId`, instead of `subnetIds`, its public subnets."""
    private_subnet_ids: NotRequired[list[str]]
    """With cluster `eks` and `vpcId`, instead of `subnetIds`, its private subnets: the nodes are there."""
    tags: NotRequired[dict[str, str]]
    """With cluster `eks`, tags of the AWS resources, the nodes' instances, disks and network interfaces among
    them."""
    cluster_name: NotRequired[str]
    """With cluster `eks`, the name of the EKS cluster. Empty means one made from the component's name.
    Another name is another cluster: the old one is replaced."""
    kubeconfig_role_arn: NotRequired[str]
    """With cluster `eks`, the IAM role that the kubeconfig assumes: the one with which the AWS provider makes
    the cluster, when it assumes one. Empty means the credentials themselves."""
    addon_versions: NotRequired[dict[str, str]]
    """With cluster `eks`, versions of its add-ons, by name (`vpc-cni`, `kube-proxy`, `coredns`). One without
    an entry has the newest version of the day on which the cluster came to its Kubernetes release."""
    aws_profile: NotRequired[str]
    """With cluster `eks`, the AWS profile to put into the kubeconfig. Default: none, the environment's
    credentials."""
