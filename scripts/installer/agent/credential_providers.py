"""The credential provider plugins of the running kubelet, as a list for the credential helper.

Flags and files: Kubernetes' references "kubelet" (there is no such key of KubeletConfiguration) and "Kubelet
CredentialProvider"; which Docker configurations a kubelet reads: kubernetes 1.34, pkg/credentialprovider.
What cannot be had is left out and named: without a plugin an image is pulled whole, which is no reason to
refuse a node.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import block_yaml
from .errors import InstallError
from .host import Host
from .kubelet import kubelet_process, option

CONFIG_FLAG, PROGRAMS_FLAG, ROOT_FLAG = (
    "image-credential-provider-config",
    "image-credential-provider-bin-dir",
    "root-dir",
)
GROUP = "credentialprovider.kubelet.k8s.io"
API_VERSIONS = tuple(f"{GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
KINDS = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
SUFFIXES = (".json", ".yaml", ".yml")

# What a plugin has of the kubelet's environment as far as it matters: the way to the registry's cloud.
_INHERITED = re.compile(r"(?:AWS|AZURE|GOOGLE|GCE|SSL_CERT|ECR)_\w+|(?:HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)
# Not written to a disk. A file that has one may be named.
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!.*(?:FILE|PATH|URI)$)|ACCESS_KEY", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"^[a-z0-9]*:?/{0,2}[^/@\s]+:[^/@\s]*@", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KNOWN_GLOB = re.compile(r"[A-Za-z0-9.:*?_-]+")  # the helper's `matches` refuses all others
# A duration as Go's time.ParseDuration reads it.
_DURATION = re.compile(r"(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:h|ms|m|s|us|\u00b5s|ns))+)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Provider:
    """One plugin, with the arguments and the environment of its entry; ``program`` is a path on the node,
    ``cache_seconds`` for how long an answer is kept that does not say so itself."""

    name: str
    program: str
    api_version: str
    match_images: tuple[str, ...]
    cache_seconds: int = 0
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Providers:
    """What the helper asks. ``problems`` has the subject and the cause of each thing that cannot be had,
    ``left_out`` the names of the kubelet's variables that are not written down; in ``paths`` a change changes
    the rest, as does another kubelet than the process that was read."""

    providers: tuple[Provider, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()  # of all of them
    docker: tuple[str, ...] = ()  # Docker configurations that the kubelet reads, in its order
    dockercfg: tuple[str, ...] = ()  # those of the older form
    needing_account: tuple[str, ...] = ()  # plugins that work with a pod's service account only
    problems: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    kubelet: int = 0


NO_PROVIDERS = Providers()


def read(host: Host) -> Providers:
    """What the running kubelet is configured with.

    Raises:
        InstallError: it cannot be seen, as between one and the next, which is not to have no plugins.
    """
    process = kubelet_process(host)
    environment = host.environment_of(process.pid) if process else None
    if process is None or environment is None:
        raise InstallError("preflight", "the process of the kubelet cannot be seen", "try again")
    config, programs = (option(process.command, flag) for flag in (CONFIG_FLAG, PROGRAMS_FLAG))
    root = option(process.command, ROOT_FLAG) or "/var/lib/kubelet"
    kept, left_out = _inherited(environment)
    problems: list[tuple[str, str]] = []
    needing: list[str] = []
    providers: list[Provider] = []
    paths: list[str] = []
    if config and programs:
        found = _files(host, config)
        paths = [config, *(path for path in found if path != config), programs]
        if not found:
            problems.append((config, "the kubelet's list of credential providers is not there"))
        for path in found:
            try:
                entries = list(_entries(block_yaml.load(host.read_text(path))))
                for entry in entries:
                    provider = _provider(entry, programs)
                    if _needs_account(entry):
                        needing.append(provider.name)
                    else:
                        providers.append(provider)
                        if not host.exists(provider.program):
                            problems.append((provider.name, f"there is no program {provider.program}"))
                        problems += _unmatched(provider)
            except (OSError, ValueError, RecursionError) as error:
                problems.append((path, f"it cannot be read: {error}"))
    home = environment.get("HOME", "") or "/root"
    folders = dict.fromkeys((f"{home}/.docker", "/.docker"))
    return Providers(
        providers=tuple(providers),
        environment=tuple(sorted(kept.items())),
        docker=tuple(f"{folder}/config.json" for folder in (root, *folders)),
        dockercfg=tuple(f"{folder}/.dockercfg" for folder in dict.fromkeys((root, home, ""))),
        needing_account=tuple(needing),
        problems=tuple(problems),
        left_out=tuple(left_out),
        paths=tuple(paths),
        kubelet=process.pid,
    )


def render(found: Providers) -> str:
    """The text of the list that the helper reads: a line each, a word and its value."""
    lines = [
        "# Written by SociCluster from the flags and files of the running kubelet; changes are overwritten.",
        *(f"docker {path}" for path in found.docker if _fits(path)),
        *(f"dockercfg {path}" for path in found.dockercfg if _fits(path)),
        *_environment_lines(found.environment),
    ]
    for provider in found.providers:
        lines += [
            f"provider {provider.name}",
            f"executable {provider.program}",
            f"apiVersion {provider.api_version}",
            f"cache {provider.cache_seconds}",
            *(f"match {_with_lower_host(pattern)}" for pattern in provider.match_images),
            *(f"argument {word}" for word in provider.arguments),
            *_environment_lines(provider.environment),
        ]
    return "\n".join([*lines, "end"]) + "\n"


def _with_lower_host(pattern: str) -> str:
    """The helper asks in lower case, as the names of its files are."""
    host, slash, path = pattern.partition("/")
    return f"{host.lower()}{slash}{path}"


def _unmatched(provider: Provider) -> list[tuple[str, str]]:
    """What of a plugin's patterns the helper does not match."""
    hosts = ((pattern, pattern.partition("/")[0]) for pattern in provider.match_images)
    return [
        (
            provider.name,
            f"its pattern {pattern} has other characters than letters, digits, * and ?: the daemon does not "
            "ask this plugin for registries that no other pattern of it matches",
        )
        for pattern, host in hosts
        if not _KNOWN_GLOB.fullmatch(host)
    ]


def _environment_lines(environment: Sequence[tuple[str, str]]) -> list[str]:
    return [f"environment {name}={value}" for name, value in environment]


def _fits(text: str) -> bool:
    """Whether a text stays one line for every reader of lines."""
    return not re.search(r"[\n\0]", text)


def _inherited(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What plugins get of an environment, and the names of what is left out of it since it is secret."""
    names = [
        name
        for name, value in environment.items()
        if _NAME.fullmatch(name) and _INHERITED.fullmatch(name) and value and _fits(value)
    ]
    secret = [name for name in names if _SECRET.search(name) or _WITH_PASSWORD.match(environment[name])]
    return {name: environment[name] for name in names if name not in secret}, sorted(secret)


def _files(host: Host, path: str) -> list[str]:
    """The files of a list that is a file, or a directory of them."""
    place = host.path(host.resolve(path))
    if not place.is_dir():
        return [path] if place.is_file() else []
    names = sorted(entry.name for entry in place.iterdir() if entry.suffix in SUFFIXES)
    return [f"{path.rstrip('/')}/{name}" for name in names]


def _entries(config: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(config, dict) or config.get("kind") != "CredentialProviderConfig":
        raise ValueError("it is no CredentialProviderConfig")
    if config.get("apiVersion") not in KINDS:
        raise ValueError(f"its apiVersion {str(config.get('apiVersion'))[:60]!r} is not known")
    for entry in _list(config, "providers"):
        if not isinstance(entry, dict):
            raise ValueError("a provider is no mapping")
        yield entry


def _provider(entry: Mapping[str, Any], programs: str) -> Provider:
    name = _text(entry.get("name"), "a provider's name")
    if not name or re.search(r"[/\s]", name) or name in (".", ".."):
        raise ValueError(f"a provider cannot have the name {name[:60]!r}")
    version = _text(entry.get("apiVersion"), f"the apiVersion of {name}")
    if version not in API_VERSIONS:
        raise ValueError(f"the apiVersion {version[:60]!r} of {name} is not known")
    environment = []
    for pair in _list(entry, "env"):
        variable = _text(pair.get("name") if isinstance(pair, dict) else None, f"a variable of {name}")
        if not _NAME.fullmatch(variable):
            raise ValueError(f"{name} has a variable {variable[:60]!r}")
        environment.append((variable, _text(pair.get("value", ""), f"the variable {variable} of {name}")))
    return Provider(
        name,
        str(PurePosixPath(programs) / name),
        version,
        tuple(_text(pattern, f"an image of {name}") for pattern in _list(entry, "matchImages")),
        _seconds(entry.get("defaultCacheDuration", "0s"), f"the defaultCacheDuration of {name}"),
        tuple(_text(word, f"an argument of {name}") for word in _list(entry, "args")),
        tuple(environment),
    )


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    found = entry.get(key)
    if found is not None and not isinstance(found, list):
        raise ValueError(f"{key} is no list")
    return found or []


def _text(value: object, what: str) -> str:
    """A scalar as text. The cause of an error does not say the value, which may be secret."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int)) or not _fits(str(value)):
        raise ValueError(f"{what} is no text of one line")
    return str(value)


def _seconds(value: object, what: str) -> int:
    text = _text(value, what)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{what} is no duration such as 12h0m0s")
    parts = re.findall(r"([\d.]+)([a-z\u00b5]+)", text)
    whole = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return int(min(whole, 86400))  # sh has to compare it, and the helper keeps nothing for as long


def _needs_account(entry: Mapping[str, Any]) -> bool:
    """Whether the plugin works with the token of a pod's service account only (KEP-4412), which the kubelet
    alone can ask for."""
    attributes = entry.get("tokenAttributes")
    return isinstance(attributes, dict) and attributes.get("requireServiceAccount") is not False
