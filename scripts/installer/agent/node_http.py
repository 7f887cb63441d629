"""HTTP as the node itself speaks it: through its proxies, trusting whom it trusts.

A pod has neither of these, nor anything else of its environment that matters here.
"""

import base64
import contextlib
import ssl
import urllib.request
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from . import daemon_environment
from .host import Host

# Where operating systems keep the authorities that they trust (Go's crypto/x509, root_linux.go).
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)


def opener(
    host: Host, variables: Mapping[str, str], authorities: str = "", *, follows_redirects: bool = True
) -> urllib.request.OpenerDirector:
    """Opens addresses as a process of the node with these variables would.

    Args:
        host: the node.
        variables: proxies and trust, see `daemon_environment`.
        authorities: PEM of further CAs to trust.
        follows_redirects: if not, it speaks no plain HTTP either: a credential reaches no other server.
    """
    further = [
        urllib.request.HTTPHandler(),
        urllib.request.HTTPRedirectHandler(),
    ]
    found = urllib.request.OpenerDirector()
    for handler in (
        _Proxies(variables),
        urllib.request.HTTPSHandler(context=_trust(host, variables, authorities)),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        *(further if follows_redirects else ()),
    ):
        found.add_handler(handler)
    return found


def place(address: str) -> str:
    """Host and port of a proxy's address; empty when it has none, or may be part of a password."""
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        usable = False
    return parts.netloc.rpartition("@")[2] if usable else ""


class _Proxies(urllib.request.BaseHandler):
    """Sends each request, those of redirects included, through the proxy that is meant for it."""

    handler_order = 100  # before those that open connections

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def http_open(self, request: urllib.request.Request) -> None:
        address = daemon_environment.proxy_for(request.full_url, self._variables)
        if not address:
            return
        proxy = urlsplit(address)
        if not place(address):
            raise OSError(
                "the proxy's address is not usable; characters of its password may have to be escaped"
            )
        if proxy.scheme != "http":
            raise OSError(f"a proxy that speaks {proxy.scheme} is not supported here")
        if proxy.username is not None:
            words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            credentials = base64.b64encode(words.encode()).decode()
            request.add_unredirected_header("Proxy-Authorization", f"Basic {credentials}")
        request.set_proxy(place(address), "http")

    https_open = http_open


def _trust(host: Host, variables: Mapping[str, str], authorities: str) -> ssl.SSLContext:
    """What this process trusts, and what the node does: a closed network has an authority of its own."""
    bundle = variables.get(daemon_environment.CERT_FILE) or next(filter(host.exists, AUTHORITIES), "")
    files = [bundle] if bundle else []
    for directory in variables.get(daemon_environment.CERT_DIR, "").split(":"):
        if directory and directory not in daemon_environment.SYSTEM_CERT_DIRS:  # whose bundle is there
            place = host.path(host.resolve(directory))
            names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
            files += [f"{directory}/{name}" for name in names]
    trusted = ssl.create_default_context(cadata=authorities or None)
    for file in files:
        with contextlib.suppress(OSError):  # absent, empty or damaged: then it makes nobody trusted
            trusted.load_verify_locations(host.path(host.resolve(file)))
    return trusted
