"""Whether a credential can read an image: one HEAD for its manifest, as containerd would begin a pull.

Protocol: OCI distribution specification. Redirects are not followed, and a token is only fetched over HTTPS:
a credential goes nowhere else.
"""

import http.client
import urllib.error
import urllib.request

from .registry_auth import Credential, TokenRefusedError, basic, parse_challenges, token
from .registry_credentials import DOCKER_HUB, HUB_API, Image

SECONDS = 10.0
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
REFUSALS = (401, 403, 404)  # registries hide with a 404 what somebody may not see


def can_read(opener: urllib.request.OpenerDirector, image: Image, credential: Credential) -> bool | None:
    """Whether the registry lets this credential read the image; None when it does not say. ``opener`` is to
    follow no redirect."""
    server = HUB_API if image.host == DOCKER_HUB else image.host
    url = f"https://{server}/v2/{image.repository}/manifests/{image.reference}"
    try:
        status, headers = _head(opener, url, "")
        challenges = parse_challenges(headers) if status == 401 else {}
        if "bearer" in challenges:
            words = challenges["bearer"]
            realm = words.get("realm", "")
            if not realm.startswith("https://"):
                return None
            query = {"service": words.get("service", ""), "scope": f"repository:{image.repository}:pull"}
            found = token(opener, realm, query, credential, SECONDS)
            status, _ = _head(opener, url, f"Bearer {found}")
        elif "basic" in challenges:
            status, _ = _head(opener, url, basic(credential))
    except TokenRefusedError as error:
        return False if error.status in (400, *REFUSALS) else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    if status == 200:
        return True
    return False if status in REFUSALS else None


def _head(opener: urllib.request.OpenerDirector, url: str, authorization: str) -> tuple[int, list[str]]:
    """Status and challenges."""
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        with opener.open(request, timeout=SECONDS) as response:
            return response.status, []
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_all("WWW-Authenticate") or []
