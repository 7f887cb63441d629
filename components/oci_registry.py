"""An OCI registry as the deploying machine reads it: the manifest of a tag, with the user's own credentials.

Protocol: OCI distribution specification, `GET /v2/<name>/manifests/<reference>`; tokens:
distribution/distribution, docs/spec/auth/token.md and oauth.md. The agent has a reader of its own, for blobs
(agent/release_blob.py).
"""

import base64
import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from . import http_read
from .docker_credentials import Credentials, CredentialsError, of_registry

MAX_BYTES = 1 << 20
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_PAIR = r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'
_CHALLENGE = re.compile(rf"(\w+)\s+((?:{_PAIR}(?:\s*,\s*)?)+)")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")

Ask = Callable[[str], Credentials | None]


class RegistryError(Exception):
    """Why a registry did not hand a manifest out; the message holds no credentials."""


@dataclass(frozen=True)
class Repository:
    """A repository of a registry: `oci://registry.example:5000/team/soci`; `oci+http` is one without TLS."""

    scheme: str
    registry: str
    name: str

    @classmethod
    def parse(cls, address: str) -> "Repository":
        """The repository of a `soci:releaseUrl` that rules.py took for one."""
        kind, _, rest = address.partition("://")
        registry, _, name = rest.partition("/")
        return cls("http" if kind == "oci+http" else "https", registry, name)

    def url(self, reference: str) -> str:
        # Docker Hub's registry is at another host than its images' names say.
        host = "registry-1.docker.io" if self.registry == "docker.io" else self.registry
        return f"{self.scheme}://{host}/v2/{self.name}/manifests/{reference}"


def manifest(repository: Repository, tag: str, ask: Ask = of_registry) -> Mapping[str, Any] | None:
    """The manifest of a tag; None when there is no such tag.

    Args:
        repository: where it is.
        tag: its tag.
        ask: the credentials for a registry's host. They are asked for when the registry wants some.

    Raises:
        RegistryError: it cannot be read, or is none.
    """
    try:
        text = _get(repository.url(tag), repository.registry, ask)
    except http_read.StatusError as status:
        if status.code == 404:
            return None
        raise RegistryError(_refused(status.code, repository.registry)) from None
    except http_read.ReadError as error:
        raise RegistryError(str(error)) from error
    except CredentialsError as error:
        raise RegistryError(f"cannot be read: {error}") from error
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RegistryError("is no manifest")
    return found


def _refused(code: int, registry: str) -> str:
    if code in (401, 403):
        return f"cannot be read (HTTP status {code}; docker login {registry} on this machine?)"
    return f"cannot be read (HTTP status {code})"


def _get(url: str, registry: str, ask: Ask) -> bytes:
    accept = {"Accept": ", ".join(_MANIFEST_TYPES)}
    try:
        return http_read.read(urllib.request.Request(url, headers=accept), MAX_BYTES)
    except http_read.StatusError as status:
        if status.code != 401:
            raise
        if urlsplit(status.url)[:2] != urlsplit(url)[:2]:
            # Its word would decide who gets this registry's credentials.
            place = urlsplit(status.url).netloc
            raise RegistryError(
                f"cannot be read ({place}, where it redirects to, wants credentials)"
            ) from None
        challenges = status.headers.get_all("WWW-Authenticate") or []
    request = urllib.request.Request(url, headers=accept)
    # Unlike other headers, this one does not go where the registry redirects to.
    request.add_unredirected_header("Authorization", _authorization(url, challenges, lambda: ask(registry)))
    return http_read.read(request, MAX_BYTES)


def _authorization(url: str, challenges: list[str], ask: Callable[[], Credentials | None]) -> str:
    """The header that answers the challenge of a registry.

    Over plain HTTP anybody on the way may have written the challenge, naming a token server of his own.
    """
    found = parse_challenges(challenges)
    is_safe = may_carry_credentials(url)
    if "bearer" in found and (realm := found["bearer"].get("realm")):
        query = {key: found["bearer"][key] for key in ("service", "scope") if key in found["bearer"]}
        return f"Bearer {_token(realm, query, ask() if is_safe and may_carry_credentials(realm) else None)}"
    credentials = ask() if "basic" in found and is_safe else None
    if credentials is None:
        raise RegistryError("wants credentials, and this machine's Docker configuration has none for it")
    return _basic(credentials)


def parse_challenges(headers: list[str]) -> dict[str, dict[str, str]]:
    """The challenges of WWW-Authenticate headers (RFC 9110, 11.6.1): scheme, in lower case, -> parameters."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        for scheme, parameters, *_ in _CHALLENGE.findall(header):
            pairs = re.findall(_PAIR, parameters)
            found[scheme.lower()] = {
                key.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for key, quoted, bare in pairs
            }
    return found


def may_carry_credentials(url: str) -> bool:
    """Whether credentials sent to this address can be read by nobody else on the way."""
    parts = urlsplit(url)
    return parts.scheme == "https" or bool(_LOOPBACK.fullmatch(parts.hostname or ""))


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.secret}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _token(realm: str, query: Mapping[str, str], credentials: Credentials | None) -> str:
    if credentials and not credentials.username:  # an identity token
        form = {
            **query,
            "grant_type": "refresh_token",
            "refresh_token": credentials.secret,
            "client_id": "soci-cluster",
        }
        request = urllib.request.Request(realm, data=urlencode(form).encode())
    else:
        request = urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}")
        if credentials:
            request.add_unredirected_header("Authorization", _basic(credentials))
    host = urlsplit(realm).hostname or ""
    try:
        answer = json.loads(http_read.read(request, MAX_BYTES))
        return str(answer.get("token") or answer["access_token"])
    except http_read.StatusError as status:
        raise RegistryError(f"its tokens: {_refused(status.code, host)}") from None
    except (ValueError, LookupError, AttributeError) as error:
        raise RegistryError(f"its token server {host} answers with no token") from error
