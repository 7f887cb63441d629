"""A forwarding proxy: a stand-in for squid or tinyproxy.

It forwards http:// requests, opens tunnels with CONNECT, and asks for name and password if it is given some.
"""

import base64
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy(ThreadingHTTPServer):
    """``places`` says where a host and port that a client names really is; ``asked`` has the requests."""

    def __init__(self, user: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.user = user  # name:password
        self.places: dict[str, tuple[str, int]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def connect(self, host: str, port: int) -> socket.socket:
        return socket.create_connection(self.places.get(f"{host}:{port}", (host, port)), timeout=10)


class _Handler(BaseHTTPRequestHandler):
    @property
    def proxy(self) -> Proxy:
        assert isinstance(self.server, Proxy)
        return self.server

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if not self._may_go_on():
            return
        with self.proxy.connect(host, int(port)) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
            back.start()
            _copy(self.connection, upstream)
            back.join(10)
        self.close_connection = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not self._may_go_on():
            return
        with self.proxy.connect(parts.hostname or "", parts.port or 80) as upstream:
            request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
            upstream.sendall(request.encode())
            _copy(upstream, self.connection)
        self.close_connection = True

    def _may_go_on(self) -> bool:
        self.proxy.asked.append(f"{self.command} {self.path}")
        wanted = "Basic " + base64.b64encode(self.proxy.user.encode()).decode()
        if self.proxy.user and self.headers.get("Proxy-Authorization") != wanted:
            self.send_error(407)
            return False
        return True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side is gone


@contextmanager
def running(user: str = "") -> Generator[Proxy]:
    """A proxy that runs meanwhile."""
    proxy = Proxy(user)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
