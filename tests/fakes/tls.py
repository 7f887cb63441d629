"""TLS for a server of a test on 127.0.0.1."""

import ssl
from pathlib import Path

from pki import API_NAMES, Authority


def server_context(directory: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate of an authority whose files are in a directory."""
    authority = Authority(directory)
    authority.create()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server", "server", "test", API_NAMES))
    return context
