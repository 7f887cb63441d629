"""A blob of an OCI registry, opened with the node's own credentials.

Protocol: OCI distribution specification, `GET /v2/<name>/blobs/<digest>`; tokens: distribution/distribution,
docs/spec/auth/token.md and oauth.md. The deploying machine reads the manifest (components/oci_registry.py).
"""

import base64
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from .credential_providers import HELPER
from .errors import InstallError
from .host import Host

HELPER_SECONDS = 30
FOR_NOW = "/run/soci-cluster-first-install"
NOT_FOUND = "credentials not found in native keychain"  # a helper's word for none, which it prints
IDENTITY_TOKEN = "<token>"  # the user name with which a helper says that its secret is one
ANSWER_BYTES = 1 << 20
LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
ATTEMPTS = 3  # to authenticate: at the registry, and once more where it redirects to another place of its own

Credentials = tuple[str, str]  # user name, empty with an identity token, and secret
Ask = Callable[[str], Credentials | None]


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
        # Docker Hub's registry is at another host than its images' names say.
        host = "registry-1.docker.io" if self.registry == "docker.io" else self.registry
        return f"{self.scheme}://{host}/v2/{self.repository}/blobs/{self.digest}"


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
    ask: Callable[[], Credentials | None],
) -> str:
    """The header that answers a registry's challenge."""
    found = parse_challenges(challenges)
    if "bearer" in found and (realm := found["bearer"].get("realm")):
        query = {key: found["bearer"][key] for key in ("service", "scope") if key in found["bearer"]}
        credentials = ask() if may_carry_credentials(realm) else None
        return f"Bearer {_token(opener, realm, query, timeout, credentials)}"
    credentials = ask() if "basic" in found and may_carry_credentials(url) else None
    if credentials is None:
        raise ValueError("HTTP status 401: it wants credentials, and this node has none for it")
    return _basic(credentials)


def parse_challenges(headers: list[str]) -> dict[str, dict[str, str]]:
    """The challenges of WWW-Authenticate headers (RFC 9110, 11.6.1): scheme, in lower case, -> parameters."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        for scheme, parameters in re.findall(r'(\w+)\s+((?:\w+=(?:"[^"]*"|[^\s,]+)(?:\s*,\s*)?)+)', header):
            pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', parameters)
            found[scheme.lower()] = {key.lower(): quoted or bare for key, quoted, bare in pairs}
    return found


def may_carry_credentials(url: str) -> bool:
    """Whether credentials sent to this address can be read by nobody else on the way."""
    parts = urlsplit(url)
    return parts.scheme == "https" or bool(LOOPBACK.fullmatch(parts.hostname or ""))


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"


def _token(
    opener: urllib.request.OpenerDirector,
    realm: str,
    query: Mapping[str, str],
    timeout: float,
    credentials: Credentials | None,
) -> str:
    if credentials and not credentials[0]:
        form = {**query, "grant_type": "refresh_token", "refresh_token": credentials[1]}
        body = urlencode({**form, "client_id": "soci-cluster"}).encode()
        request = urllib.request.Request(realm, data=body)
    else:
        request = urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}")
        if credentials:
            request.add_unredirected_header("Authorization", _basic(credentials))
    try:
        with opener.open(request, timeout=timeout) as response:
            answer = json.loads(response.read(ANSWER_BYTES))
        return str(answer.get("token") or answer["access_token"])
    except urllib.error.HTTPError as error:
        raise ValueError(f"its token server {urlsplit(realm).netloc}: HTTP status {error.code}") from None
    except (ValueError, LookupError, AttributeError):
        raise ValueError(f"its token server {urlsplit(realm).netloc} answers with no token") from None


def credentials_of_node(host: Host, registry: str, helper: Mapping[str, str]) -> Credentials | None:
    """What the node's Docker credential helper knows for a registry; None when it knows nothing.

    Args:
        host: the node.
        registry: the registry's host, with its port.
        helper: the files of the same helper, by name, for a node that has none yet: a first install. They are
            on the node only while it runs, in memory.

    Raises:
        InstallError: the helper failed, which does not say that there are no credentials.
        OSError: its files cannot be written.
    """
    name = "index.docker.io" if registry in ("docker.io", "registry-1.docker.io") else registry
    result = host.run(HELPER, "get", text=name, timeout=HELPER_SECONDS)
    if result.code == 127:
        try:
            for file, text in helper.items():
                host.write(f"{FOR_NOW}/{file}", text.encode(), 0o600)
            # By sh: /run may be mounted noexec.
            result = host.run(
                "sh", f"{FOR_NOW}/{Path(HELPER).name}", "get", text=name, timeout=HELPER_SECONDS
            )
        finally:
            shutil.rmtree(host.path(FOR_NOW), ignore_errors=True)
    if result.code and NOT_FOUND in result.output:
        return None
    try:
        if result.code:
            raise ValueError(f"status {result.code}")
        answer = json.loads(result.output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError) as error:
        # Neither its output nor what the reader of JSON says of that is told: it may hold the secret.
        reason = str(error) if result.code else "it printed something else than credentials"
        raise InstallError(
            "download",
            f"the node's credential helper failed for {registry}: {reason}",
            f"see why {HELPER} fails on the node",
        ) from None
    return ("" if username == IDENTITY_TOKEN else username), secret
