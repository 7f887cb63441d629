"""What each setting accepts: a rule reads a value as its type and returns what is meant, or refuses it.

Pure functions. A rule raises `RefusedError` with the reason; the remedy is the setting's own unless the rule
knows a better one.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import values
from .instance_types import Accelerator, family
from .names import DOMAIN
from .operating_systems import DEFAULT, OPERATING_SYSTEMS, SERVED
from .values import RefusedError

ARCHITECTURES = ("amd64", "arm64")
OLDEST_VERSION = (0, 10, 0)
ADD_ONS = ("vpc-cni", "kube-proxy", "coredns")

# Image reference after github.com/distribution/reference: [registry[:port]/]path[:tag][@sha256:digest]
_IMAGE = re.compile(
    r"[a-z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_OCI_REPOSITORY = re.compile(
    r"oci(\+http)?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)+"
)
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
# Labels of Kubernetes's own that a kubelet may give its node; it refuses to start with any other one
# (k8s.io/kubelet/pkg/apis/well_known_labels.go).
_KUBERNETES_LABEL = re.compile(r"([a-z0-9.-]+\.)?(kubernetes|k8s)\.io/.*")
_KUBELET_LABEL = re.compile(
    r"([a-z0-9.-]+\.)?(kubelet|node)\.kubernetes\.io/.*|(beta\.)?kubernetes\.io/(arch|os|instance-type)"
    r"|kubernetes\.io/hostname|(topology|failure-domain\.beta)\.kubernetes\.io/(region|zone)"
)
_TAINT = re.compile(r"([^=:]+)(?:=([^=:]*))?:([A-Za-z]+)")
_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_PLAIN = re.compile(r"[A-Za-z0-9.:/\[\]_-]+")
_NO_PROXY = re.compile(r"\*|(\*?\.)?[A-Za-z0-9_.:\[\]-]+(/[0-9]+)?(:[0-9]+)?")
_GROUP_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


def one_of(*allowed: str) -> Callable[[Any], str]:
    """A rule: one of these words."""

    def rule(value: Any) -> str:
        word = values.text(value)
        if word not in allowed:
            raise RefusedError(f"must be {' or '.join(allowed)}")
        return word

    return rule


def between(low: int, high: int, unit: str) -> Callable[[Any], int]:
    """A rule: a whole number of units in this range, ends included."""

    def rule(value: Any) -> int:
        try:
            number = values.integer(value)
        except RefusedError:
            number = low - 1
        if not low <= number <= high:
            raise RefusedError(f"must be a whole number of {unit} from {low} to {high}")
        return number

    return rule


def version(value: Any) -> str:
    """A SOCI release, X.Y.Z; the `v` of a release's tag is taken off."""
    written = values.text(value)
    found = re.sub("^[vV]", "", written)
    if not re.fullmatch(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)", found):
        meant = re.search(r"[/-]v?(\d+\.\d+\.\d+)/?$", written)
        raise RefusedError(
            "not a version of the form X.Y.Z (quote it in YAML, which reads 0.10 as 0.1)",
            f"pulumi config set soci:version {meant[1]}" if meant else "",
        )
    number = tuple(map(int, found.split(".")))
    if number < OLDEST_VERSION:
        raise RefusedError("lazy loading with SOCI index v2 needs 0.10.0 or newer")
    if number == (0, 11, 0):
        raise RefusedError(
            "0.11.0 dies when its config file is absent; 0.11.1 has the fix",
            "pulumi config set soci:version 0.11.1",
        )
    return found


def index_versions(value: Any) -> tuple[str, ...]:
    """Kinds of SOCI index, each once."""
    versions = values.texts(value)
    if not versions or not set(versions) <= {"v1", "v2"}:
        raise RefusedError("must hold v2, v1 or both")
    return tuple(dict.fromkeys(versions))


def digests(value: Any) -> dict[str, str]:
    """Digests by architecture, in lower case."""
    found = {architecture: digest.lower() for architecture, digest in values.mapping(value).items()}
    for architecture, digest in found.items():
        if architecture not in ARCHITECTURES:
            raise RefusedError(
                f"'{architecture}' is not an architecture that SOCI is released for (amd64, arm64)"
            )
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise RefusedError(f"the digest for {architecture} is not 64 hexadecimal digits")
    return found


def url(value: Any, wanted: str = "an http:// or https:// address") -> str:
    """A plain http or https address, without a slash at its end."""
    address = values.text(value)
    try:
        parts = urlsplit(address)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", address):
        raise RefusedError(f"must be {wanted}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RefusedError(
            "must be a plain address: no credentials, query or fragment (it is stored on every node)"
        )
    return address.rstrip("/")


def proxy(value: Any) -> str:
    """The plain address of a proxy, or nothing."""
    address = values.text(value)
    if not address:
        return ""
    try:
        parts = urlsplit(address)
        usable = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if usable and (parts.username is not None or parts.password is not None):
        raise RefusedError(
            "must be a plain address: it is stored in the cluster",
            "give it with its credentials to containerd's own unit on the nodes, from where it is taken",
        )
    if not usable or parts.path.strip("/") or parts.query or parts.fragment or not _PLAIN.fullmatch(address):
        raise RefusedError("must be an address of the form http://HOST:PORT")
    return address.rstrip("/")


def no_proxy(value: Any) -> str:
    """Hosts, addresses and networks, separated by commas."""
    entries = [entry.strip() for entry in values.text(value).split(",")]
    for entry in entries:
        if entry and not _NO_PROXY.fullmatch(entry):
            raise RefusedError("must be hosts, addresses or networks, separated by commas")
    return ",".join(entry for entry in entries if entry)


def release_url(value: Any) -> str:
    """Where releases are: a plain address, or a repository of an OCI registry."""
    address = values.text(value)
    if not is_oci(address):
        found = url(address, "an http://, https:// or oci:// address")
        if whole := re.search(r"/v\d+\.\d+\.\d+(?:/[^/]*)?$", found):
            raise RefusedError(
                "must be what comes before the version: /vX.Y.Z and the archive's name are added to it",
                f"pulumi config set soci:releaseUrl {found[: whole.start()]}",
            )
        return found
    if not _OCI_REPOSITORY.fullmatch(address.rstrip("/")):
        raise RefusedError(
            "must be oci://REGISTRY/REPOSITORY in lower-case letters, without credentials, tag or digest "
            "(the tag is the version)",
            "pulumi config set soci:releaseUrl oci://registry.example/soci-snapshotter",
        )
    return address.rstrip("/")


def is_oci(address: str) -> bool:
    """Whether releases are in a registry; `oci+http` is one without TLS."""
    return address.startswith(("oci://", "oci+http://"))


def image(value: Any) -> str:
    """An image reference."""
    reference = values.text(value)
    if not _IMAGE.fullmatch(reference):
        raise RefusedError("not an image reference such as registry.example/repository:tag")
    return reference


def namespace(value: Any) -> str:
    """The name of a namespace that is nobody else's."""
    name = values.text(value)
    if not _DNS_LABEL.fullmatch(name):
        raise RefusedError("must be a namespace name: lower-case letters, digits and -, at most 63")
    if name == "default" or name.startswith("kube-"):
        raise RefusedError("must be a namespace of the installer's own, which it creates and deletes")
    return name


def node_labels(value: Any) -> dict[str, str]:
    """Labels of nodes."""
    labels = values.mapping(value)
    for key, label in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(label):
            raise RefusedError(f"'{key}' and its value are no node label")
    return labels


def group_labels(value: Any) -> dict[str, str]:
    """Labels that a node group may give its nodes besides ours."""
    labels = node_labels(value)
    for key in labels:
        if reason := _why_no_label(key):
            raise RefusedError(f"'{key}' {reason}", f"pulumi config rm --path 'soci:nodeLabels[\"{key}\"]'")
    return labels


def _why_no_label(key: str) -> str:
    """Why a node group may not give its nodes a label; empty when it may."""
    if key.startswith(f"{DOMAIN}/"):
        return "is a label of SociCluster's own"
    if "eks.amazonaws.com/" in key:
        return "is a label of EKS's own, which no node group may set"
    if _KUBERNETES_LABEL.fullmatch(key) and not _KUBELET_LABEL.fullmatch(key):
        return "is a label of Kubernetes's own, with which no kubelet starts"
    return ""


def group_taints(value: Any) -> tuple[str, ...]:
    """Taints that a node group gives its nodes besides ours, as kubectl writes them: key=value:Effect or
    key:Effect."""
    texts = values.texts(value)
    found = [taint(text) for text in texts]
    kinds = [(key, effect) for key, _, effect in found]
    if twice := [text for number, text in enumerate(texts) if kinds[number] in kinds[:number]]:
        raise RefusedError(f"'{twice[0]}' is there twice: a node has a taint's key once for each effect")
    return texts


def taint(text: str) -> tuple[str, str, str]:
    """Key, value and effect of a taint as kubectl writes it; the value may be empty."""
    parts = _TAINT.fullmatch(text)
    if not parts or parts[3] not in _TAINT_EFFECTS:
        raise RefusedError(
            f"'{text}' is not a taint such as dedicated=gpu:NoSchedule (or PreferNoSchedule, NoExecute)"
        )
    key, word = parts[1], parts[2] or ""
    if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(word):
        raise RefusedError(f"'{key}' and its value are no taint's")
    if key.startswith(f"{DOMAIN}/"):
        raise RefusedError(f"'{key}' is a taint of SociCluster's own, which each group has already")
    return key, word, parts[3]


def group_name(name: str) -> None:
    """The name of a node group, which its AWS resources have in theirs."""
    if not _GROUP_NAME.fullmatch(name):
        raise RefusedError(
            "a group is named by a lower-case letter, then letters, digits and -, at most 32 in all",
            "give the group another name",
        )


def ami_type(value: Any) -> str:
    """An AMI type of EKS for an operating system that works, or empty."""
    name = values.text(value)
    if name and not any(system.has_ami_type(name) for system in SERVED.values()):
        titles = " or ".join(system.title for system in SERVED.values())
        one = SERVED[DEFAULT].ami_types["amd64", Accelerator.NVIDIA]
        raise RefusedError(f"must be an AMI type of EKS for {titles} such as {one}")
    return name


def volume_iops(value: Any) -> int:
    """I/O operations per second of a volume; 0 for as many as its throughput needs."""
    number = values.integer(value)
    if number and not 3000 <= number <= 256000:
        raise RefusedError("must be 0 or a whole number of operations per second from 3000 to 256000")
    return number


def nodes_or_percentage(value: Any) -> str:
    """A number of nodes, or a part of them."""
    amount = values.text(value)
    if not re.fullmatch(r"[1-9][0-9]{0,3}|([1-9][0-9]?|100)%", amount):
        raise RefusedError("must be a number of nodes from 1 up or a percentage such as 10%")
    return amount


def kubernetes_version(value: Any) -> str:
    """A minor release of Kubernetes."""
    release = values.text(value)
    if not re.fullmatch(r"1\.[1-9][0-9]", release):
        raise RefusedError(
            "must be a Kubernetes release such as 1.36 (quote it in YAML, which reads 1.30 as 1.3)"
        )
    return release


def operating_system(value: Any) -> str:
    """An operating system whose nodes can be changed, in lower case."""
    name = values.text(value).lower()
    known = OPERATING_SYSTEMS.get(name)
    if not known:
        raise RefusedError(f"only {' or '.join(SERVED)} works so far")
    if known.refusal:
        raise RefusedError(known.refusal)
    return name


def instance_types(value: Any) -> tuple[str, ...]:
    """At least one EC2 instance type."""
    types = values.texts(value)
    try:
        known = [family(name) for name in types]
    except RefusedError:
        known = []
    if not known:
        raise RefusedError("must hold at least one EC2 instance type such as m6i.xlarge")
    return types


def vpc(value: Any) -> str:
    """A VPC's id, or empty."""
    name = values.text(value)
    if name and not re.fullmatch("vpc-[0-9a-f]+", name):
        raise RefusedError("must be a VPC id such as vpc-0123456789abcdef0")
    return name


def subnets(value: Any) -> tuple[str, ...]:
    """Subnets' ids."""
    names = values.texts(value)
    if not all(re.fullmatch("subnet-[0-9a-f]+", name) for name in names):
        raise RefusedError("must hold subnet ids such as subnet-0123456789abcdef0")
    return names


def cluster_subnets(value: Any) -> tuple[str, ...]:
    """Subnets' ids: none, or at least two."""
    names = subnets(value)
    if len(names) == 1:
        raise RefusedError(
            "EKS needs subnets in at least two availability zones",
            "pulumi config set --path 'soci:subnetIds[1]' subnet-…",
        )
    return names


def cluster_name(value: Any) -> str:
    """An EKS cluster's name, or empty."""
    name = values.text(value)
    if name and not re.fullmatch(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}", name):
        raise RefusedError(
            "must be a name of letters, digits, - and _, at most 100, that begins with a letter or digit"
        )
    return name


def role_arn(value: Any) -> str:
    """An IAM role's ARN, in any partition, or empty."""
    arn = values.text(value)
    if arn and not re.fullmatch(r"arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+", arn, re.ASCII):
        raise RefusedError("must be the ARN of an IAM role such as arn:aws:iam::123456789012:role/NAME")
    return arn


def addon_versions(value: Any) -> dict[str, str]:
    """Versions of EKS add-ons, by the add-on's name."""
    versions = values.mapping(value)
    for name, chosen in versions.items():
        if name not in ADD_ONS:
            raise RefusedError(
                f"'{name}' is none of this cluster's add-ons ({', '.join(ADD_ONS)})",
                f"pulumi config rm --path soci:addonVersions.{name}",
            )
        if not re.fullmatch(r"v[0-9]+\.[0-9]+\.[0-9]+-eksbuild\.[0-9]+", chosen):
            raise RefusedError(f"{name}: must be a version such as v1.20.4-eksbuild.2")
    return versions
