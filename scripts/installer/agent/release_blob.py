"""A blob of an OCI registry, opened with the node's own credentials.

Protocol: OCI distribution specification, `GET /v2/<name>/blobs/<digest>`. The deploying machine reads the
manifest (components/oci_registry.py).
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .containerd_registries import default_host
from .credential import Credential
from .registry_auth import basic, may_carry_credentials, parse_challenges, token

ATTEMPTS = 3  # to authenticate: at the registry, and once more where it redirects to another place of its own

Ask = Callable[[str], Credential | None]


@dataclass(frozen=True)
class Blob:
    """A file in a registry: `oci://registry.example:5000/team/soci@sha256:…`; with `oci+http` without TLS."""

    scheme: str
    registry: str
    repository: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> "Blob":
        kind, _, rest = reference.partition("://")
        name, _, digest = rest.partition("@")
        registry, _, repository = name.partition("/")
        return cls("http" if kind == "oci+http" else "https", registry, repository, digest)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{default_host(self.registry)}/v2/{self.repository}/blobs/{self.digest}"


def is_blob(address: str) -> bool:
    """Whether an address is one of a registry."""
    return address.startswith(("oci://", "oci+http://"))


def open_blob(
    opener: urllib.request.OpenerDirector, reference: str, timeout: float, ask: Ask
) -> http.client.HTTPResponse:
    """The answer to a request for a blob, redirects followed; its body is not read yet.

    The Authorization header goes to the registry alone, not to the store that it redirects to: that address
    is signed, and belongs to somebody else. Over plain HTTP no credentials are sent, but to this machine.

    Args:
        opener: opens every address of this.
        reference: the blob, see `Blob`.
        timeout: seconds, of each wait.
        ask: the credentials for a registry; asked when it wants some.

    Raises:
        OSError, ValueError: it cannot be opened; without credentials in the text.
        InstallError: the node's credentials cannot be asked for.
    """
    blob = Blob.parse(reference)
    url, authorization = blob.url, ""
    for _ in range(ATTEMPTS):
        request = urllib.request.Request(url)
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        try:
            return opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            place = error.url or url
            is_refused_again = place == url and authorization
            if error.code != 401 or is_refused_again or _origin(place) != _origin(url):
                raise
            challenges = error.headers.get_all("WWW-Authenticate") or []
            error.close()
        url = place
        authorization = _authorization(opener, url, challenges, timeout, lambda: ask(blob.registry))
    raise ValueError(f"{blob.registry} redirects from place to place and wants credentials at each")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _authorization(
    opener: urllib.request.OpenerDirector,
    url: str,
    challenges: list[str],
    timeout: float,
    ask: Callable[[], Credential | None],
) -> str:
    """The header that answers a registry's challenge. Over plain HTTP anybody on the way may have written it,
    with a token server of his own."""
    found = parse_challenges(challenges)
    is_safe = may_carry_credentials(url)
    if "bearer" in found and (realm := found["bearer"].get("realm")):
        query = {key: found["bearer"][key] for key in ("service", "scope") if key in found["bearer"]}
        credential = ask() if is_safe and may_carry_credentials(realm) else None
        return f"Bearer {token(opener, realm, query, credential, timeout)}"
    credential = ask() if "basic" in found and is_safe else None
    if credential is None:
        raise ValueError("HTTP status 401: it wants credentials, and this node has none for it")
    return basic(credential)
