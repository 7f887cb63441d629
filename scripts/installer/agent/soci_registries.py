"""What SOCI is told of registries, so that it reads where containerd pulls, and what it cannot be told.

SOCI (service/resolver/registry.go and fs/fs.go of 0.16.1) asks an image's own registry for the index and for
what belongs to it, and mirrors for layers only, the registry itself last. It adds no /v2 to a path. A mirror
that is `insecure` makes it speak plain HTTP, not only to that mirror but to the registry itself, too. It has
no client certificates, no headers and no pattern for registries, and it checks every certificate. A mirror
that it cannot parse keeps it from asking anything: what it then does not even try is pulled by containerd.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import containerd_registries
from .containerd_registries import ANY, API, Endpoint, Pulls, default_host, is_local, split_port
from .host import Host
from .slots import OUR_MARK

# Where images come from on nearly every node. SOCI has no pattern, so these are named where nothing else is.
PUBLIC = (
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
    "registry.k8s.io",
)
OTHERS = "registries without a directory of their own"  # ANY, in words
NAMED = 3  # registries that are named in a condition
WHOLE = "are pulled whole"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Mirror:
    """An address that SOCI is given, with its scheme."""

    url: str
    is_insecure: bool = False


@dataclass(frozen=True)
class Limit:
    """What of the way to a registry SOCI cannot be told: what becomes of its images, why, what helps."""

    registry: str
    reason: str
    remedy: str
    effect: str = WHOLE

    @property
    def in_words(self) -> str:
        return f"images of {self.registry} {self.effect}: {self.reason}"


@dataclass(frozen=True)
class Registries:
    """Mirrors by registry; the registries that SOCI is kept from; what it cannot be told; PEM of the CAs
    that it has to trust besides the system's; whether SOCI may pull whole images in parallel; and the files
    and directories in which a change may change all that."""

    mirrors: Mapping[str, tuple[Mirror, ...]] = field(default_factory=dict)
    kept_off: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    certificates: str = ""
    allows_parallel: bool = True
    sources: tuple[str, ...] = ()


NOTHING = Registries()


def in_words(limits: Sequence[Limit]) -> str:
    """The limits, for a condition; empty when there is none."""
    more = len(limits) - NAMED
    words = [limit.in_words for limit in limits[:NAMED]]
    return "; ".join([*words, f"{more} more registries are limited, see soci-doctor"] if more > 0 else words)


def read(
    host: Host, effective: Mapping[tuple[str, ...], object], version: tuple[int, ...], mode: str
) -> Registries:
    """What SOCI in this mode is told on a node with this containerd.

    Raises:
        OSError: something that is there cannot be read.
    """
    pulls = containerd_registries.read(host, effective, version)
    certificates = {
        path: _CERTIFICATE.findall(host.read_text(path))
        for endpoints in (*pulls.endpoints.values(), pulls.others)
        for endpoint in endpoints
        for path in endpoint.authorities
    }
    return translate(pulls, certificates, mode)


def translate(pulls: Pulls, certificates: Mapping[str, Sequence[str]], mode: str) -> Registries:
    """The same, of what was read. ``certificates`` has those of each file, none where it has none."""
    translation = _Translation(certificates, mode)
    for registry, endpoints in pulls.endpoints.items():
        translation.add(registry, endpoints)
    allows_parallel = True
    others = pulls.others_of(ANY)
    if others and (off := translation.why_off(ANY, others)):
        for registry in PUBLIC:
            if registry not in pulls.endpoints:
                translation.kept_off.append(registry)
        allows_parallel = False
        translation.limits.append(Limit(OTHERS, off.reason, _REMEDY_OTHERS))
    elif others:
        translation.trust(entry for entry in others if _is_own(entry, ANY))
    if allows_parallel and any(_is_mirror(endpoint, ANY) for endpoint in others):
        translation.limits.append(
            Limit(
                OTHERS,
                "SOCI cannot be given the mirrors of all registries",
                _REMEDY_OTHERS,
                _WHERE_IT_ANSWERS,
            )
        )
    for registry in sorted(pulls.known):
        name = "docker.io" if registry == default_host("docker.io") else registry
        if name not in translation.kept_off:
            translation.limits.append(
                Limit(
                    name,
                    "SOCI is not given those in containerd's configuration",
                    _REMEDY_AUTH,
                    _WITH_CREDENTIALS,
                )
            )
    return Registries(
        mirrors=translation.mirrors,
        kept_off=tuple(sorted(translation.kept_off)),
        limits=tuple(translation.limits),
        certificates=translation.bundle(),
        allows_parallel=allows_parallel,
        sources=pulls.sources,
    )


_WHERE_IT_ANSWERS = "are loaded lazily only where the registry itself answers"
_WITH_CREDENTIALS = "that are private are loaded lazily only with credentials of the node or the pod"
_REMEDY_OTHERS = "give each registry a directory of its own in containerd's config_path"
_REMEDY_AUTH = "use an imagePullSecret, or a credential provider of the kubelet"
_REMEDY_TLS = "give the registry a certificate that the node trusts, and name its CA as ca"
_REMEDY_CA = "put the CA certificates into that file, or take its name out"
_REMEDY_OPEN = "let the node reach the registry itself, over TLS and without a client certificate or a header"
_REMEDY_PARALLEL = "set soci:mode to lazy, or pull from the registry itself"


class _Off(NamedTuple):
    """Why SOCI must not ask a registry, and what helps."""

    reason: str
    remedy: str


class _Translation:
    """Registries, one after the other, in SOCI's words."""

    def __init__(self, certificates: Mapping[str, Sequence[str]], mode: str) -> None:
        self.certificates = certificates
        self.is_lazy_only = mode == "lazy"
        self.mirrors: dict[str, tuple[Mirror, ...]] = {}
        self.kept_off: list[str] = []
        self.limits: list[Limit] = []
        self._trusted: list[str] = []

    def bundle(self) -> str:
        """The CA certificates that are used, each once."""
        return "".join(f"{text}\n" for text in dict.fromkeys(self._trusted))

    def add(self, registry: str, endpoints: Sequence[Endpoint]) -> None:
        """Tell SOCI of the registry, or keep it off."""
        if off := self.why_off(registry, endpoints):
            self.kept_off.append(registry)
            self.limits.append(Limit(registry, off.reason, off.remedy))
            return
        own = next(entry for entry in endpoints if _is_own(entry, registry))
        used = [entry for entry in endpoints if entry is own or self._is_usable(entry, registry, own)]
        self.trust(used)
        if not _needs_naming(own):  # SOCI asks it last by itself
            used = used[
                : max((number for number, entry in enumerate(used, 1) if entry is not own), default=0)
            ]
        mirrors = tuple(dict.fromkeys(_mirror(entry) for entry in used))
        if mirrors:
            self.mirrors[registry] = mirrors

    def trust(self, endpoints: Iterable[Endpoint]) -> None:
        """Have SOCI trust the CAs of these endpoints."""
        paths = (path for endpoint in endpoints for path in endpoint.authorities)
        self._trusted += [text for path in paths for text in self.certificates.get(path, ())]

    def why_off(self, registry: str, endpoints: Sequence[Endpoint]) -> _Off | None:
        """Why SOCI must not ask the registry; None when it may."""
        if any(self._is_unreadable(entry) for entry in endpoints):
            return _Off("containerd itself cannot use a CA file that its hosts.toml names", _REMEDY_CA)
        # The first: that the registry is asked in another way later means that this one may fail.
        own = next((entry for entry in endpoints if _is_own(entry, registry)), None)
        if own is None:
            pulls = [entry.address + entry.path.removesuffix(API) for entry in endpoints if entry.can_pull]
            places = ", ".join(dict.fromkeys(pulls)) or "nowhere"
            reason = f"containerd pulls them from {places}"
            return _Off(f"{reason}, and SOCI asks for an index at the registry itself only", _REMEDY_OPEN)
        if trouble := _trouble(own):
            return _Off(trouble, _remedy(own))
        mirrors = [entry for entry in endpoints[: endpoints.index(own)] if _is_mirror(entry, registry)]
        # The mirror is what the node is meant to pull from; the registry behind it may not even be reachable.
        if mirrors and registry != ANY:
            if not any(self._is_usable(entry, registry, own) for entry in mirrors):
                trouble = _trouble(mirrors[0]) or "plain HTTP"
                return _Off(f"{trouble} of its mirror {mirrors[0].address}", _remedy(mirrors[0]))
            if not self.is_lazy_only:
                reason = "SOCI pulls whole images from the registry itself, never from its mirrors"
                return _Off(reason, _REMEDY_PARALLEL)
        return None

    def _is_unreadable(self, endpoint: Endpoint) -> bool:
        return any(not self.certificates.get(path) for path in endpoint.authorities)

    def _is_usable(self, endpoint: Endpoint, registry: str, own: Endpoint) -> bool:
        # One plain mirror would make SOCI ask a registry with TLS over plain HTTP, too.
        is_plain = endpoint.scheme == "http" and not is_local(endpoint.address)
        return (
            _is_mirror(endpoint, registry)
            and not _trouble(endpoint)
            and (not is_plain or own.scheme == "http")
        )


def _trouble(endpoint: Endpoint) -> str:
    """What of an endpoint SOCI cannot do, in containerd's words; empty when nothing."""
    found = []
    is_tls = endpoint.scheme == "https"
    if endpoint.scheme not in ("http", "https") or not endpoint.address:
        found.append(f"the address {endpoint.scheme}://{endpoint.address}")
    if endpoint.has_client:
        found.append("client certificate")
    if is_tls and is_local(endpoint.address):
        found.append("TLS at the node's own address")
    elif _is_unverified(endpoint):
        found.append("skip_verify")
    if endpoint.headers:
        found.append(f"header {', '.join(endpoint.headers)}")
    return " and ".join(found)


def _is_unverified(endpoint: Endpoint) -> bool:
    return endpoint.scheme == "https" and endpoint.skips_verify and not is_local(endpoint.address)


def _remedy(endpoint: Endpoint) -> str:
    """What helps against the trouble with an endpoint."""
    return _REMEDY_TLS if _is_unverified(endpoint) else _REMEDY_OPEN


def _is_own(endpoint: Endpoint, registry: str) -> bool:
    """Whether an endpoint is where SOCI asks for the registry's indexes."""
    if registry == ANY:
        return endpoint.address == ANY
    name, port = split_port(default_host(registry))
    default = "80" if endpoint.scheme == "http" else "443"
    same = endpoint.name.lower() == name.lower() and endpoint.port == (port or default)
    return same and "/" + endpoint.path.strip("/") == API


def _is_mirror(endpoint: Endpoint, registry: str) -> bool:
    return endpoint.can_pull and not _is_own(endpoint, registry)


def _needs_naming(own: Endpoint) -> bool:
    """Whether SOCI would ask the registry itself in another way unless told."""
    return own.scheme == "http" and not is_local(own.address)


def _mirror(endpoint: Endpoint) -> Mirror:
    path = re.sub("/+", "/", endpoint.path)
    # Without a path SOCI takes /v2.
    url = f"{endpoint.scheme}://{endpoint.address}{'' if path == API else path or '/'}"
    return Mirror(url, endpoint.scheme == "http" and not is_local(endpoint.address))


def certificates_file(registries: Registries) -> str | None:
    """The text of the file with the CAs; None for no file."""
    head = f"{OUR_MARK}: the CAs of containerd's registries, which the daemon trusts besides the system's.\n"
    return head + registries.certificates if registries.certificates else None
