"""Where containerd's own pull goes: for a registry the endpoints in their order, by containerd's own rules.

Sources: containerd's docs/hosts.md; remotes/docker/config/hosts.go and the CRI plugin's image_pull.go of 1.7
and 2.x, where these say more than the document.
"""

import contextlib
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import containerd_config
from .containerd_config import CRI_1, CRI_2
from .host import Host
from .image_reference import HUB_API

DEFAULT = "_default"  # the directory for each registry without one of its own
ANY = "*"  # the same among `registry.mirrors`; here any registry that is not named
FILE = "hosts.toml"
API = "/v2"
REGISTRIES = {CRI_1: (*CRI_1[:-1], "registry"), CRI_2: (*CRI_2, "registry")}
CAPABILITIES = frozenset(("pull", "resolve", "push"))
REFERRERS_SINCE, DIAL_TIMEOUT_SINCE = (2, 2), (2, 1)
HEADERS_ALONE_SINCE = (2, 0)  # by its parser only a table with a header of its own is a host
_REGISTRY = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]+)?")
_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")


class RejectedError(ValueError):
    """A hosts.toml that containerd does not read: it goes on as if the file were not there."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One place that containerd asks. Paths are of the node."""

    scheme: str = "https"
    address: str = ""  # host and port, as written; empty for the registry itself
    path: str = API
    can_pull: bool = True
    authorities: tuple[str, ...] = ()  # files of CA certificates
    has_client: bool = False  # whether it shows a client certificate
    skips_verify: bool = False
    headers: tuple[str, ...] = ()  # names

    @property
    def name(self) -> str:
        """Host without port."""
        return split_port(self.address)[0]

    @property
    def port(self) -> str:
        return split_port(self.address)[1] or ("80" if self.scheme == "http" else "443")


@dataclass(frozen=True)
class Pulls:
    """What a node's pulls use: the endpoints of each registry that is named, those of every other registry
    (empty when nothing is said of them), and the files and directories that say so."""

    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    others: tuple[Endpoint, ...] = ()
    known: frozenset[str] = frozenset()  # registries for which their configuration has credentials
    sources: tuple[str, ...] = ()

    def others_of(self, registry: str) -> tuple[Endpoint, ...]:
        """The endpoints of a registry that is not named, with its own address; of any such one with ANY."""
        return _with_itself(self.others, registry)


def read(host: Host, effective: Mapping[containerd_config.Path, object], version: tuple[int, ...]) -> Pulls:
    """Read what containerd of this version uses by its effective configuration.

    Raises:
        OSError: something that is there cannot be read.
    """
    table = REGISTRIES[containerd_config.image_table(effective)]
    roots = containerd_config.registry_directories(effective)
    found = _Directories(host, roots, version).pulls() if roots else _mirrors(effective, table)
    configs = _tables(effective, (*table, "configs"))
    known = {name for name, said in configs.items() if any(key[0] == "auth" for key in said)}
    known |= {urlsplit(url).netloc or url for url in _tables(effective, (*table, "auths"))}
    return replace(found, known=frozenset(known))


def split_port(address: str) -> tuple[str, str]:
    """Host and port of an address; the port is empty when there is none."""
    match = re.fullmatch(r"(.*?)(?::([0-9]*))?", address)
    return (
        (match[1], match[2] or "") if match and (address.count(":") < 2 or "]" in address) else (address, "")
    )


def default_host(registry: str) -> str:
    """Where a registry is by default."""
    return HUB_API if registry == "docker.io" else registry


def is_local(address: str) -> bool:
    """Whether an address is the node itself."""
    name = split_port(address)[0].strip("[]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _with_itself(endpoints: Sequence[Endpoint], registry: str) -> tuple[Endpoint, ...]:
    """The endpoints, of which the last one is the registry itself when it names no address."""
    last = [entry if entry.address else _itself(entry, registry) for entry in endpoints[-1:]]
    return (*endpoints[:-1], *last)


def _itself(endpoint: Endpoint, registry: str) -> Endpoint:
    address = default_host(registry)
    is_plain = is_local(address) and split_port(address)[1] not in ("", "443")
    return replace(
        endpoint,
        scheme="http" if is_plain else "https",
        address=address,
        path=API,
        can_pull=True,
        skips_verify=endpoint.skips_verify or (is_local(address) and split_port(address)[1] != "80"),
    )


# Directories: config_path


class _Directories:
    """The directories of `config_path`."""

    def __init__(self, host: Host, roots: Sequence[str], version: tuple[int, ...]) -> None:
        self.host = host
        self.roots = roots
        self.version = version
        self.sources = list(roots)

    def pulls(self) -> Pulls:
        endpoints = {}
        for registry in sorted({name for root in self.roots for name in self._names(root)}):
            found = self._endpoints(self._directory(registry))
            endpoints[registry] = _with_itself(found, registry)
        default = self._directory(DEFAULT)
        others = self._endpoints(default) if default else ()
        return Pulls(endpoints, others, sources=tuple(dict.fromkeys(self.sources)))

    def _names(self, root: str) -> Iterator[str]:
        for entry in self._entries(root):
            name = re.sub(r"_([0-9]+)_$", r":\1", entry)
            if name != DEFAULT and _REGISTRY.fullmatch(name):
                yield name

    def _entries(self, directory: str) -> list[str]:
        folder = self._place(directory)
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    def _place(self, path: str) -> Path:
        return self.host.path(self.host.resolve(path))

    def _directory(self, registry: str) -> str:
        """The one that containerd takes: of the first root that has it, or has one for all others."""
        name, port = split_port(registry)
        names = [f"{name}_{port}_", registry] if port else [registry]
        paths = (f"{root.rstrip('/')}/{entry}" for root in self.roots for entry in (*names, DEFAULT))
        return next((path for path in paths if self.host.exists(path)), "")

    def _endpoints(self, directory: str) -> tuple[Endpoint, ...]:
        path = f"{directory}/{FILE}"
        self.sources += [directory, path]
        content = self.host.read(path)
        try:
            found = (
                parse(content.decode(), directory, self.version) if content else self._docker_style(directory)
            )
        except ValueError:
            found = self._docker_style(directory)
        self.sources += [file for endpoint in found for file in endpoint.authorities]
        return found

    def _docker_style(self, directory: str) -> tuple[Endpoint, ...]:
        """The registry itself with the certificates that lie in its directory."""
        files = [
            entry for entry in self._entries(directory) if not self._place(f"{directory}/{entry}").is_dir()
        ]
        authorities = tuple(f"{directory}/{name}" for name in files if name.endswith(".crt"))
        return (Endpoint(authorities=authorities, has_client=any(name.endswith(".cert") for name in files)),)


def parse(text: str, directory: str, version: tuple[int, ...]) -> tuple[Endpoint, ...]:
    """The endpoints of a hosts.toml, in their order; the last one is its server, or the registry itself.

    Raises:
        RejectedError: containerd of this version does not read it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RejectedError(str(error)) from error
    hosts = _typed(data, "host", dict, {})
    named = [url for url in hosts if version < HEADERS_ALONE_SINCE or url in _headers(text)]
    if not all(isinstance(value, dict) for value in hosts.values()):
        raise RejectedError("a host is no table")
    for value in (data, *hosts.values()):
        _check_types(value)
    endpoints = [_endpoint(url, hosts[url], directory, version) for url in named]
    return (*endpoints, _endpoint(_typed(data, "server", str, ""), data, directory, version))


def _check_types(table: Mapping[str, Any]) -> None:
    for key, kind in (("override_path", bool), ("skip_verify", bool), ("header", dict)):
        _typed(table, key, kind, kind())
    _strings(table.get("capabilities", []))


def _headers(text: str) -> set[str]:
    """The hosts that have a header of their own in the text: [host."..."], or of a table below."""
    return {
        statement.table[1]
        for statement in containerd_config.statements(text)
        if not statement.key
        and not statement.array
        and statement.table[:1] == ("host",)
        and len(statement.table) > 1
    }


def _endpoint(url: str, table: Mapping[str, Any], directory: str, version: tuple[int, ...]) -> Endpoint:
    capabilities = _capabilities(table, version)
    timeout = _typed(table, "dial_timeout", str, "") if version >= DIAL_TIMEOUT_SINCE else ""
    if timeout and not _DURATION.fullmatch(timeout):
        raise RejectedError(f"{timeout} is no duration")
    headers = table.get("header", {})
    for value in headers.values():
        if not isinstance(value, str):
            _strings(value)
    found = Endpoint(
        can_pull="pull" in capabilities,
        authorities=tuple(posixpath.join(directory, path) for path in _files(table.get("ca"))),
        has_client=bool(_clients(table.get("client"))),
        skips_verify=table.get("skip_verify", False),
        headers=tuple(headers),
    )
    if not url:
        return found
    scheme, address, path = _split(url if url.startswith("http") else f"https://{url}")
    if path:
        path = re.sub("^/+", "/", posixpath.normpath(path))
        path = path if table.get("override_path") or path.endswith(API) else f"{path}{API}"
    elif not table.get("override_path"):
        path = API
    return replace(found, scheme=scheme, address=address, path=path)


def _split(url: str) -> tuple[str, str, str]:
    """Scheme, address without credentials, and path."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RejectedError(f"{url} is no address") from error
    is_port = re.fullmatch(r"(\[.*\]|[^:]*)(:[0-9]*)?", parts.netloc.rpartition("@")[2])
    if not is_port or re.search(r"[\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})", url):
        raise RejectedError(f"{url} is no address")
    return parts.scheme, parts.netloc.rpartition("@")[2], parts.path


def _typed(table: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if type(value) is not kind:
        raise RejectedError(f"{key} is of another type")
    return value


def _capabilities(table: Mapping[str, Any], version: tuple[int, ...]) -> set[str]:
    found = {word.lower() for word in table.get("capabilities", [])}
    known = CAPABILITIES | {"referrers"} if version >= REFERRERS_SINCE else CAPABILITIES
    if unknown := found - known:
        raise RejectedError(f"unknown capability {unknown}")
    return found or set(CAPABILITIES)


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RejectedError("not a list of texts")
    return value


def _files(value: object) -> list[str]:
    """`ca`: a path or a list of them."""
    return [] if value is None else [value] if isinstance(value, str) else _strings(value)


def _clients(value: object) -> list[object]:
    """`client`: a path, or a list of paths and of pairs of them."""
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    if not isinstance(value, list):
        raise RejectedError("client is of another type")
    for entry in value:
        if not isinstance(entry, str) and len(_strings(entry)) != 2:
            raise RejectedError("client is no pair")
    return value


# Tables: registry.mirrors and registry.configs of older configurations


def _mirrors(effective: Mapping[containerd_config.Path, object], table: containerd_config.Path) -> Pulls:
    """What `mirrors` and `configs` say; containerd reads them where there is no `config_path`."""
    mirrors = {
        name: containerd_config.strings(values.get(("endpoint",)))
        for name, values in _tables(effective, (*table, "mirrors")).items()
    }
    configs = _tables(effective, (*table, "configs"))
    names = {name for name in (*mirrors, *configs) if name != ANY and _REGISTRY.fullmatch(name)}
    if default_host("docker.io") in configs:
        names.add("docker.io")
    general = mirrors.get(ANY, [])

    def endpoints(registry: str, urls: Sequence[str]) -> tuple[Endpoint, ...]:
        found = [_old_endpoint(url, configs) for url in urls]
        own = default_host(registry)
        if all(endpoint.address != registry for endpoint in found):
            found.append(_old_endpoint(own, configs) if registry else Endpoint())
        return tuple(found)

    found = {}
    for name in sorted(names):
        with contextlib.suppress(RejectedError):  # containerd pulls nothing then
            found[name] = endpoints(name, mirrors.get(name, general))
    every = [*found.values()]
    sources = [file for entries in every for endpoint in entries for file in endpoint.authorities]
    return Pulls(found, endpoints("", general) if general else (), sources=tuple(dict.fromkeys(sources)))


def _old_endpoint(url: str, configs: Mapping[str, Mapping[containerd_config.Path, object]]) -> Endpoint:
    if "://" not in url:
        url = f"{'http' if is_local(url.partition('/')[0]) else 'https'}://{url}"
    scheme, address, path = _split(url)
    said = configs.get(address, {})
    authority = str(said.get(("tls", "ca_file")) or "")
    return Endpoint(
        scheme=scheme,
        address=address,
        path=path or API,
        authorities=(authority,) if authority else (),
        has_client=bool(said.get(("tls", "cert_file")) or said.get(("tls", "key_file"))),
        skips_verify=said.get(("tls", "insecure_skip_verify")) is True,
    )


def _tables(
    effective: Mapping[containerd_config.Path, object], above: containerd_config.Path
) -> dict[str, dict[containerd_config.Path, object]]:
    """The tables below one, each with its values by their path in it."""
    found: dict[str, dict[containerd_config.Path, object]] = {}
    for key, value in effective.items():
        if key[: len(above)] == above and len(key) > len(above) + 1:
            found.setdefault(key[len(above)], {})[key[len(above) + 1 :]] = value
    return found
