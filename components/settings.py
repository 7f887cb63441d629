"""Settings of SociCluster: from raw values to a validated, typed `Settings`; every refusal at plan time is
here.

The same rules serve the Pulumi project (`from_config`: the `soci:*` keys) and the library (`from_arguments`:
the arguments of the components). All problems are collected and raised at once, each with key, value, reason
and remedy.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

import pulumi

from .kubeconfig import cluster_server, read_kubeconfig
from .refusal import RefusedError

ARCHITECTURES = ("amd64", "arm64")
OLDEST_VERSION = (0, 10, 0)
# The oldest version for each mode, by soci-snapshotter's release notes; an older one ignores it.
MODES = {"lazy": OLDEST_VERSION, "parallel": (0, 11, 1), "lazy-or-parallel": (0, 14, 0)}

# Image reference after github.com/distribution/reference: [registry[:port]/]path[:tag][@sha256:digest]
_IMAGE = re.compile(
    r"[a-z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")


class SociConfigError(pulumi.RunError):
    """Settings that cannot work. Every line of the message names key, value, reason and remedy."""


@dataclass(frozen=True)
class SampleSettings:
    """The sample workload: whether there is one, its image and what it runs (empty: the image's own
    command)."""

    enabled: bool = True
    image: str = "public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest"
    command: tuple[str, ...] = ("python3", "-c", "print('ready')")


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, with its default. `Pulumi.yaml` shows the same defaults; a test holds the
    two together."""

    version: str = "0.16.1"
    state: str = "present"
    force_uninstall: bool = False
    mode: str = "lazy"
    index_versions: tuple[str, ...] = ("v2", "v1")
    release_url: str = "https://github.com/awslabs/soci-snapshotter/releases/download"
    sha256: Mapping[str, str] = field(default_factory=dict)
    installer_image: str = "public.ecr.aws/docker/library/python:3.13-alpine"
    namespace: str = "soci-system"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    existing_nodes: str = "refuse"
    upgrade_policy: str = "when-idle"
    max_unavailable: str = "1"
    rollout_timeout_seconds: int = 600
    sample_workload: SampleSettings = field(default_factory=SampleSettings)
    cluster: str = "eks"
    kubeconfig: str = ""
    context: str = ""
    kubernetes_version: str = "1.35"
    operating_system: str = "al2023"
    instance_types: tuple[str, ...] = ("m6i.xlarge",)
    node_count: int = 2
    min_node_count: int = 1
    max_node_count: int = 4
    volume_gib: int = field(default=100, metadata={"key": "volumeGiB"})
    vpc_id: str = ""
    subnet_ids: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def from_config(config: Mapping[str, str]) -> Settings:
    """Read the settings from Pulumi's configuration as `pulumi.runtime.get_config_env()` gives it (other
    projects' keys ignored).

    Raises:
        SociConfigError: unknown keys, bad values, impossible combinations; all of them at once.
    """
    raw = {key.removeprefix("soci:"): value for key, value in config.items() if key.startswith("soci:")}
    return _validate({key: _decode(value) for key, value in raw.items()})


def from_arguments(arguments: Mapping[str, Any]) -> Settings:
    """Read the settings from a component's arguments (the field names of `Settings`). Raises as `from_config`
    does."""
    return _validate(
        {_FIELD_KEYS.get(name, name): value for name, value in arguments.items() if value is not None}
    )


def plain_arguments(settings: Settings) -> dict[str, Any]:
    """The settings as plain arguments of a component: the inverse of `from_arguments`."""

    def plain(value: object) -> object:
        if isinstance(value, SampleSettings):
            return {item.name: plain(getattr(value, item.name)) for item in fields(SampleSettings)}
        if isinstance(value, Mapping):
            return dict(value)
        return list(value) if isinstance(value, tuple) else value

    return {item.name: plain(getattr(settings, item.name)) for item in fields(Settings)}


def default_of(item: "Field[Any]") -> Any:
    """The default value of a dataclass field."""
    return item.default if item.default is not MISSING else item.default_factory()  # ty: ignore[not-callable]


def config_key(item: "Field[Any]") -> str:
    """The configuration key of a field of `Settings`, without its `soci:`."""
    head, *rest = item.name.split("_")
    return item.metadata.get("key") or head + "".join(word.capitalize() for word in rest)


_FIELD_KEYS = {item.name: config_key(item) for item in fields(Settings)}
_FIELDS = {config_key(item): item for item in fields(Settings)}


def _decode(value: str) -> Any:
    """Arrays and objects reach the program as JSON; everything else stays the text that the user wrote."""
    if value[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value  # an inline kubeconfig may be JSON-like YAML; its own rule judges it


def _validate(raw: Mapping[str, Any]) -> Settings:
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in _FIELDS:
            problems.append(_problem(key, value, "there is no such setting", _did_you_mean(key)))
            continue
        try:
            values[_FIELDS[key].name] = _RULES[key](value)
        except RefusedError as refused:
            default = default_of(_FIELDS[key])
            remedy = refused.remedy or (
                f"pulumi config set soci:{key} {default}" if default else f"pulumi config rm soci:{key}"
            )
            problems.append(_problem(key, value, refused.reason, remedy))
    refused_names = {_FIELDS[key].name for key in raw if key in _FIELDS} - values.keys()
    settings = Settings(**values)
    problems += _combinations(settings, refused_names)
    if problems:
        raise SociConfigError("\n".join(problems))
    return settings


def _problem(key: str, value: object, reason: str, remedy: str) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    shown = shown if len(shown) <= 80 and "\n" not in shown else f"{shown.splitlines()[0][:60]}…"
    return f"soci:{key} '{shown}': {reason}. Remedy: {remedy}"


def _did_you_mean(key: str) -> str:
    closest = difflib.get_close_matches(key, _FIELDS, n=1)
    rename = f"did you mean soci:{closest[0]}? " if closest else ""
    return f"{rename}pulumi config rm soci:{key}"


def _version(value: Any) -> str:
    version = str(value)
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        raise RefusedError(
            "not a version of the form X.Y.Z (no leading v; quote it in YAML, which reads 0.10 as 0.1)"
        )
    number = tuple(map(int, version.split(".")))
    if number < OLDEST_VERSION:
        raise RefusedError("lazy loading with SOCI index v2 needs 0.10.0 or newer")
    if number == (0, 11, 0):
        raise RefusedError(
            "0.11.0 dies when its config file is absent; 0.11.1 has the fix",
            "pulumi config set soci:version 0.11.1",
        )
    return version


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def rule(value: Any) -> str:
        if value not in allowed:
            raise RefusedError(f"must be {' or '.join(allowed)}")
        return value

    return rule


def _boolean(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise RefusedError("must be true or false")
    return str(value).lower() == "true"


def _index_versions(value: Any) -> tuple[str, ...]:
    remedy = "pulumi config set --path 'soci:indexVersions[0]' v2"
    versions = _strings(value, remedy)
    if not versions or not set(versions) <= {"v1", "v2"}:
        raise RefusedError("must hold v2, v1 or both", remedy)
    return tuple(dict.fromkeys(versions))


def _strings(value: Any, remedy: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise RefusedError("must be a list of non-empty strings", remedy)
    return tuple(value)


def _mapping(value: Any, remedy: str) -> dict[str, str]:
    """A string-to-string mapping; YAML's bare true and numbers become the text that Kubernetes and AWS would
    want."""
    if not isinstance(value, Mapping):
        raise RefusedError("must be an object of strings", remedy)
    return {
        str(key): str(item).lower() if isinstance(item, bool) else str(item) for key, item in value.items()
    }


def _sha256(value: Any) -> dict[str, str]:
    remedy = (
        "pulumi config set --path soci:sha256.amd64 DIGEST, the 64 digits in the release's .sha256sum file"
    )
    digests = _mapping(value, remedy)
    for architecture, digest in digests.items():
        if architecture not in ARCHITECTURES:
            raise RefusedError(
                f"'{architecture}' is not an architecture that SOCI is released for (amd64, arm64)", remedy
            )
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise RefusedError(
                f"the digest for {architecture} is not 64 lower-case hexadecimal digits", remedy
            )
    return digests


def _url(value: Any) -> str:
    try:
        parts = urlsplit(str(value))
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", str(value)):
        raise RefusedError("must be an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RefusedError(
            "must be a plain address: no credentials, query or fragment (it is stored on every node)"
        )
    return str(value).rstrip("/")


def _image(value: Any) -> str:
    if not isinstance(value, str) or not _IMAGE.fullmatch(value):
        raise RefusedError("not an image reference such as registry.example/repository:tag")
    return value


def _namespace(value: Any) -> str:
    if not isinstance(value, str) or not _DNS_LABEL.fullmatch(value):
        raise RefusedError("must be a namespace name: lower-case letters, digits and -, at most 63")
    if value == "default" or value.startswith("kube-"):
        raise RefusedError("must be a namespace of the installer's own, which it creates and deletes")
    return value


def _node_selector(value: Any) -> dict[str, str]:
    remedy = "pulumi config set --path 'soci:nodeSelector[\"LABEL\"]' VALUE"
    labels = _mapping(value, remedy)
    for key, text in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(text):
            raise RefusedError(f"'{key}={text}' is not a node label", remedy)
    return labels


def _max_unavailable(value: Any) -> str:
    if not re.fullmatch(r"[1-9]\d{0,3}|([1-9]\d?|100)%", str(value)):
        raise RefusedError("must be a number of nodes from 1 up or a percentage such as 10%")
    return str(value)


def _integer(low: int, high: int, unit: str) -> Callable[[Any], int]:
    def rule(value: Any) -> int:
        if (
            isinstance(value, bool)
            or not re.fullmatch(r"\d{1,9}(\.0)?", str(value))
            or not low <= int(float(value)) <= high
        ):
            raise RefusedError(f"must be a whole number of {unit} from {low} to {high}")
        return int(float(value))

    return rule


def _sample_workload(value: Any) -> SampleSettings:
    remedy = "pulumi config set --path soci:sampleWorkload.enabled false"
    names = {item.name for item in fields(SampleSettings)}
    if isinstance(value, SampleSettings):
        return value
    if not isinstance(value, Mapping):
        raise RefusedError("must be an object of enabled, image and command", remedy)
    if unknown := sorted(value.keys() - names):
        raise RefusedError(
            f"'{unknown[0]}' is not one of enabled, image and command",
            f"pulumi config rm --path soci:sampleWorkload.{unknown[0]}",
        )
    settings = dict(value)
    if "enabled" in settings:
        if str(settings["enabled"]).lower() not in ("true", "false"):
            raise RefusedError("enabled must be true or false", remedy)
        settings["enabled"] = str(settings["enabled"]).lower() == "true"
    if "image" in settings:
        try:
            _image(settings["image"])
        except RefusedError as refused:
            raise RefusedError(
                refused.reason, "pulumi config set --path soci:sampleWorkload.image IMAGE"
            ) from refused
    if "command" in settings:
        settings["command"] = _strings(
            settings["command"], "pulumi config set --path 'soci:sampleWorkload.command[0]' PROGRAM"
        )
    return SampleSettings(**settings)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError("must be text")
    return value


def _kubernetes_version(value: Any) -> str:
    if not re.fullmatch(r"1\.[1-9]\d", str(value)):
        raise RefusedError(
            "must be a Kubernetes release such as 1.35 (quote it in YAML, which reads 1.30 as 1.3)"
        )
    return str(value)


def _operating_system(value: Any) -> str:
    lower = str(value).lower()
    if lower == "bottlerocket":
        raise RefusedError(
            "Bottlerocket's containerd obeys only its own settings API; a DaemonSet cannot change it"
        )
    if lower == "al2":
        raise RefusedError("Amazon Linux 2 is past its end of support on EKS")
    if lower != "al2023":
        raise RefusedError("only al2023 (Amazon Linux 2023) works so far")
    return lower


def _instance_types(value: Any) -> tuple[str, ...]:
    remedy = "pulumi config set --path 'soci:instanceTypes[0]' m6i.xlarge"
    types = _strings(value, remedy)
    if not types or not all(map(_INSTANCE_TYPE.fullmatch, types)):
        raise RefusedError("must hold at least one EC2 instance type such as m6i.xlarge", remedy)
    return types


def _subnets(value: Any) -> tuple[str, ...]:
    remedy = "pulumi config set --path 'soci:subnetIds[0]' subnet-…"
    subnets = _strings(value, remedy)
    if not all(re.fullmatch("subnet-[0-9a-f]+", subnet) for subnet in subnets):
        raise RefusedError("must hold subnet ids such as subnet-0123456789abcdef0", remedy)
    if len(subnets) == 1:
        raise RefusedError(
            "EKS needs subnets in at least two availability zones",
            "pulumi config set --path 'soci:subnetIds[1]' subnet-…",
        )
    return subnets


def _vpc(value: Any) -> str:
    if value and not re.fullmatch("vpc-[0-9a-f]+", str(value)):
        raise RefusedError("must be a VPC id such as vpc-0123456789abcdef0")
    return str(value)


_RULES: dict[str, Callable[[Any], Any]] = {
    "version": _version,
    "state": _one_of("present", "absent"),
    "forceUninstall": _boolean,
    "mode": _one_of(*MODES),
    "indexVersions": _index_versions,
    "releaseUrl": _url,
    "sha256": _sha256,
    "installerImage": _image,
    "namespace": _namespace,
    "nodeSelector": _node_selector,
    "existingNodes": _one_of("refuse", "migrate"),
    "upgradePolicy": _one_of("when-idle", "drain", "side-by-side"),
    "maxUnavailable": _max_unavailable,
    "rolloutTimeoutSeconds": _integer(30, 86400, "seconds"),
    "sampleWorkload": _sample_workload,
    "cluster": _one_of("eks", "existing"),
    "kubeconfig": _text,
    "context": _text,
    "kubernetesVersion": _kubernetes_version,
    "operatingSystem": _operating_system,
    "instanceTypes": _instance_types,
    "nodeCount": _integer(0, 1000, "nodes"),
    "minNodeCount": _integer(0, 1000, "nodes"),
    "maxNodeCount": _integer(1, 1000, "nodes"),
    "volumeGiB": _integer(20, 16384, "GiB"),
    "vpcId": _vpc,
    "subnetIds": _subnets,
    "tags": lambda value: _mapping(value, "pulumi config set --path soci:tags.NAME VALUE"),
}

_EKS_ONLY = (
    "kubernetesVersion",
    "operatingSystem",
    "instanceTypes",
    "nodeCount",
    "minNodeCount",
    "maxNodeCount",
    "volumeGiB",
    "vpcId",
    "subnetIds",
    "tags",
)


def _combinations(settings: Settings, refused: Iterable[str]) -> list[str]:
    """Problems between values that are each good alone; a value that was refused already is not judged
    again."""
    refused = set(refused)
    if "cluster" in refused:
        return []
    rules = _existing_cluster if settings.cluster == "existing" else _eks_cluster
    return [
        _problem(key, getattr(settings, _FIELDS[key].name), reason, remedy)
        for key, reason, remedy in (*_any_cluster(settings), *rules(settings))
        if _FIELDS[key].name not in refused
    ]


def _any_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    oldest = MODES.get(settings.mode, OLDEST_VERSION)
    if tuple(map(int, settings.version.split("."))) >= oldest:
        return []
    version = ".".join(map(str, oldest))
    return [("mode", f"needs SOCI {version} or newer", f"pulumi config set soci:version {version}")]


def _existing_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    problems = [
        (key, "has a meaning only with soci:cluster eks", f"pulumi config rm soci:{key}")
        for key in _EKS_ONLY
        if getattr(settings, _FIELDS[key].name) != default_of(_FIELDS[key])
    ]
    if not settings.kubeconfig:
        remedy = "pulumi config set soci:kubeconfig ~/.kube/config"
        return [
            *problems,
            ("kubeconfig", "soci:cluster existing needs the kubeconfig of that cluster", remedy),
        ]
    try:
        cluster_server(read_kubeconfig(settings.kubeconfig), settings.context)
    except RefusedError as refused_value:
        key = "context" if "context" in refused_value.reason else "kubeconfig"
        problems.append((key, refused_value.reason, refused_value.remedy))
    return problems


def _eks_cluster(settings: Settings) -> list[tuple[str, str, str]]:
    problems = [
        (key, "has a meaning only with soci:cluster existing", f"pulumi config rm soci:{key}")
        for key in ("kubeconfig", "context")
        if getattr(settings, key)
    ]
    if not settings.min_node_count <= settings.node_count <= settings.max_node_count:
        bounds = f"{settings.min_node_count} to {settings.max_node_count}"
        reason = f"must lie between soci:minNodeCount and soci:maxNodeCount ({bounds})"
        problems.append(("nodeCount", reason, f"pulumi config set soci:nodeCount {settings.max_node_count}"))
    if settings.node_count == 0:
        problems.append(
            ("nodeCount", "without a node SOCI is nowhere installed", "pulumi config set soci:nodeCount 1")
        )
    if settings.subnet_ids and not settings.vpc_id:
        problems.append(
            ("vpcId", "soci:subnetIds needs the VPC that they are in", "pulumi config set soci:vpcId vpc-…")
        )
    if settings.vpc_id and not settings.subnet_ids:
        remedy = "pulumi config set --path 'soci:subnetIds[0]' subnet-…"
        problems.append(("subnetIds", "soci:vpcId needs the subnets for the cluster", remedy))
    return problems
