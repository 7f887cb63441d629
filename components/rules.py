"""What each setting accepts: a rule reads a value as its type and returns what is meant, or refuses it.

Pure functions. A rule raises `RefusedError` with the reason; the remedy is the setting's own unless the rule
knows a better one.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import values
from .operating_systems import OPERATING_SYSTEMS
from .values import RefusedError

ARCHITECTURES = ("amd64", "arm64")
OLDEST_VERSION = (0, 10, 0)
ADD_ONS = ("vpc-cni", "kube-proxy", "coredns")

# Image reference after github.com/distribution/reference: [registry[:port]/]path[:tag][@sha256:digest]
_IMAGE = re.compile(
    r"[a-z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")


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
    found = re.sub("^[vV]", "", values.text(value))
    if not re.fullmatch(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)", found):
        raise RefusedError("not a version of the form X.Y.Z (quote it in YAML, which reads 0.10 as 0.1)")
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


def url(value: Any) -> str:
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
        raise RefusedError("must be an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RefusedError(
            "must be a plain address: no credentials, query or fragment (it is stored on every node)"
        )
    return address.rstrip("/")


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
            raise RefusedError(f"'{key}={label}' is not a node label")
    return labels


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
        works = " or ".join(key for key, system in OPERATING_SYSTEMS.items() if system.eks)
        raise RefusedError(f"only {works} works so far")
    if known.refusal:
        raise RefusedError(known.refusal)
    return name


def instance_types(value: Any) -> tuple[str, ...]:
    """At least one EC2 instance type."""
    types = values.texts(value)
    if not types or not all(map(_INSTANCE_TYPE.fullmatch, types)):
        raise RefusedError("must hold at least one EC2 instance type such as m6i.xlarge")
    return types


def vpc(value: Any) -> str:
    """A VPC's id, or empty."""
    name = values.text(value)
    if name and not re.fullmatch("vpc-[0-9a-f]+", name):
        raise RefusedError("must be a VPC id such as vpc-0123456789abcdef0")
    return name


def subnets(value: Any) -> tuple[str, ...]:
    """Subnets' ids: none, or at least two."""
    names = values.texts(value)
    if not all(re.fullmatch("subnet-[0-9a-f]+", name) for name in names):
        raise RefusedError("must hold subnet ids such as subnet-0123456789abcdef0")
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
