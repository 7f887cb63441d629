"""Whether a credential can read an image: one HEAD for its manifest, as containerd would begin a pull.

Protocol: OCI distribution specification; Docker's "token authentication". Redirects are not followed, and a
token is only fetched over HTTPS: a credential goes nowhere else.
"""

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request

from .registry_credentials import DOCKER_HUB, HUB_API, IDENTITY_TOKEN, Credential, Image

SECONDS = 10.0
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
REFUSALS = (401, 403, 404)  # registries hide with a 404 what somebody may not see
LARGEST_TOKEN = 1 << 20
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


def direct(context: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """Opens addresses without a proxy, trusting what ``context`` trusts, else what this machine does. It has
    no handler of redirects, with which a credential would reach another server, and none of plain HTTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def can_read(opener: urllib.request.OpenerDirector, image: Image, credential: Credential) -> bool | None:
    """Whether the registry lets this credential read the image; None when it does not say. One without a
    secret is nobody's. ``opener`` is to follow no redirect."""
    server = HUB_API if image.host == DOCKER_HUB else image.host
    url = f"https://{server}/v2/{image.repository}/manifests/{image.reference}"
    try:
        status, challenge = _head(opener, url, "")
        scheme = challenge.partition(" ")[0].lower()
        if status == 401 and scheme == "basic" and credential.secret:
            status, _ = _head(opener, url, _basic(credential))
        elif status == 401 and scheme == "bearer":
            token = _token(opener, challenge, image, credential)
            if token is None:
                return False
            status, _ = _head(opener, url, f"Bearer {token}")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    if status == 200:
        return True
    return False if status in REFUSALS else None


def _head(opener: urllib.request.OpenerDirector, url: str, authorization: str) -> tuple[int, str]:
    """Status and challenge."""
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        with opener.open(request, timeout=SECONDS) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("WWW-Authenticate", "")


def _token(
    opener: urllib.request.OpenerDirector, challenge: str, image: Image, credential: Credential
) -> str | None:
    """A token of the server that the challenge names; None when it refuses the credential."""
    said = dict(_PARAMETER.findall(challenge))
    realm = said.get("realm", "")
    if not realm.startswith("https://"):
        raise ValueError("a realm that is not https")
    words = {"service": said.get("service", ""), "scope": f"repository:{image.repository}:pull"}
    if credential.user == IDENTITY_TOKEN:
        grant = {"grant_type": "refresh_token", "client_id": "soci", "refresh_token": credential.secret}
        request = urllib.request.Request(realm, urllib.parse.urlencode(words | grant).encode())
    else:
        joint = "&" if "?" in realm else "?"
        request = urllib.request.Request(f"{realm}{joint}{urllib.parse.urlencode(words)}")
        if credential.secret:
            request.add_unredirected_header("Authorization", _basic(credential))
    try:
        with opener.open(request, timeout=SECONDS) as response:
            answer = json.loads(response.read(LARGEST_TOKEN))
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (400, *REFUSALS):
                return None
            raise
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not token:
        raise ValueError("an answer without a token")
    return str(token)


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.user}:{credential.secret}".encode()).decode()
