"""How a registry asks for credentials, and how it is answered.

Protocol: RFC 9110, 11.6.1; tokens: distribution/distribution, docs/spec/auth/token.md and oauth.md.
"""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from .credential import IDENTITY_TOKEN, Credential

ANSWER_BYTES = 1 << 20
LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
_PAIR = r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'
_CHALLENGE = re.compile(rf"(\w+)\s+((?:{_PAIR}(?:\s*,\s*)?)+)")


class TokenRefusedError(ValueError):
    """A token server answers with an error."""

    def __init__(self, server: str, status: int) -> None:
        super().__init__(f"its token server {server}: HTTP status {status}")
        self.status = status


def parse_challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """The challenges of WWW-Authenticate headers: scheme, in lower case, -> parameters."""
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
    return parts.scheme == "https" or bool(LOOPBACK.fullmatch(parts.hostname or ""))


def basic(credential: Credential) -> str:
    """The header Authorization of a user with a password."""
    return f"Basic {base64.b64encode(f'{credential.user}:{credential.secret}'.encode()).decode()}"


def token(
    opener: urllib.request.OpenerDirector,
    realm: str,
    query: Mapping[str, str],
    credential: Credential | None,
    timeout: float,
) -> str:
    """A token for what ``query`` says (service, scope), of the server that a challenge names as ``realm``.

    Raises:
        TokenRefusedError: the server says no.
        ValueError, OSError: it gives no answer that could be one; without a secret in the text.
    """
    if credential and credential.user == IDENTITY_TOKEN:
        form = {**query, "grant_type": "refresh_token", "refresh_token": credential.secret}
        body = urlencode({**form, "client_id": "soci-cluster"}).encode()
        request = urllib.request.Request(realm, data=body)
    else:
        request = urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}")
        if credential:
            request.add_unredirected_header("Authorization", basic(credential))
    server = urlsplit(realm).netloc
    try:
        with opener.open(request, timeout=timeout) as response:
            answer = json.loads(response.read(ANSWER_BYTES))
        return str(answer.get("token") or answer["access_token"])
    except urllib.error.HTTPError as error:
        error.close()
        raise TokenRefusedError(server, error.code) from None
    except (ValueError, LookupError, AttributeError):
        raise ValueError(f"its token server {server} answers with no token") from None
