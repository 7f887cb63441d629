"""Whether a credential can read an image: one HEAD for its manifest, as containerd would begin a pull.

Protocol: OCI distribution specification. Redirects are not followed, and a token is only fetched over HTTPS:
a credential goes nowhere else.
"""

import contextlib
import functools
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from typing import Any
from urllib.request import AbstractHTTPHandler

from .credential import Credential
from .image_reference import DOCKER_HUB, HUB_API, Image
from .registry_auth import TokenRefusedError, basic, parse_challenges, token

SECONDS = 10.0  # for one word of an answer
ALL_SECONDS = 20.0  # for all that is asked for one image
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
REFUSALS = (401, 403, 404)  # registries hide with a 404 what somebody may not see


def can_read(opener: urllib.request.OpenerDirector, image: Image, credential: Credential) -> bool | None:
    """Whether the registry lets this credential read the image; None when it does not say. One without a
    secret is nobody's. ``opener`` is to follow no redirect."""
    with _deadline(opener) as has_ended:
        said = _can_read(opener, image, credential)
    return None if has_ended.is_set() else said  # what was cut may pass for a whole answer


@contextlib.contextmanager
def _deadline(opener: urllib.request.OpenerDirector) -> Generator[threading.Event]:
    """End all connections of this opener after `ALL_SECONDS`, and tell so: its own limit is for each word of
    an answer, so that a server which sends one now and then would hold who asks for as long as it likes."""
    copies: list[socket.socket] = []
    has_ended = threading.Event()

    def end() -> None:
        has_ended.set()
        for copy in copies:
            with contextlib.suppress(OSError):
                copy.shutdown(socket.SHUT_RDWR)

    def connect(create: Callable[..., socket.socket], *words: Any) -> socket.socket:
        if has_ended.is_set():
            raise TimeoutError("the registry is late")
        made = create(*words)
        # A copy, since TLS takes the socket over, for a greeting that may be slow, too.
        copies.append(made.dup())
        return made

    def open_connection(kind: Callable[..., Any], *words: Any, **named: Any) -> Any:
        connection = kind(*words, **named)
        connection._create_connection = functools.partial(connect, connection._create_connection)
        return connection

    def do_open(original: Callable[..., Any], kind: Any, *words: Any, **named: Any) -> Any:
        return original(functools.partial(open_connection, kind), *words, **named)

    # The library has no other place for it; an opener is asked by one thread at a time.
    handlers = [handler for handler in vars(opener)["handlers"] if isinstance(handler, AbstractHTTPHandler)]
    for handler in handlers:
        vars(handler)["do_open"] = functools.partial(do_open, handler.do_open)
    timer = threading.Timer(ALL_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield has_ended
    finally:
        timer.cancel()
        for handler in handlers:
            del vars(handler)["do_open"]
        for copy in copies:
            copy.close()


def _can_read(opener: urllib.request.OpenerDirector, image: Image, credential: Credential) -> bool | None:
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
            found = token(opener, realm, query, credential if credential.secret else None, SECONDS)
            status, _ = _head(opener, url, f"Bearer {found}")
        elif "basic" in challenges and credential.secret:
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
