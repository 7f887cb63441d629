"""An OCI registry of one artifact, as the strict ones are: tokens or passwords, and blobs in somebody else's
store, which refuses whoever shows it a header of the registry (S3 does, to two kinds of credentials)."""

import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

USER, PASSWORD, IDENTITY_TOKEN, TOKEN = "robot$soci", "hunter2:and more", "identity-hunter2", "token-hunter2"
REPOSITORY = "team/soci-snapshotter"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def artifact(files: dict[str, bytes]) -> bytes:
    """The manifest that `oras push` makes of files."""
    layers = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": f"sha256:{sha256(content)}",
            "size": len(content),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, content in files.items()
    ]
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{sha256(b'{}')}", "size": 2}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.unknown.artifact.v1",
            "config": empty,
            "layers": layers,
        }
    ).encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        assert isinstance(self.server, Server)
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        self.server.answer(self, body)

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  (the library's name)
        pass


class Server(ThreadingHTTPServer):
    """Remembers the path and the Authorization header of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def answer(self, request: Handler, body: bytes) -> None:
        raise NotImplementedError


class Store(Server):
    """Where the blobs are."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}

    def answer(self, request: Handler, body: bytes) -> None:
        if request.headers.get("Authorization"):
            request.send(400, b"Only one auth mechanism allowed")
        else:
            request.send(200, self.blobs[urlsplit(request.path).path.rpartition("/")[2]])


class Registry(Server):
    """`challenge`: "", Basic or Bearer; `redirects`: "", store, or itself (to another path of its own)."""

    def __init__(self, store: Store, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__()
        self.store, self.challenge, self.redirects = store, "", "store"
        self.scheme = "http"
        self.manifests: dict[str, bytes] = {}
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def release_url(self) -> str:
        return f"oci{'+http' if self.scheme == 'http' else ''}://{self.address}/{REPOSITORY}"

    def push(self, tag: str, files: dict[str, bytes]) -> None:
        self.manifests[tag] = artifact(files)
        self.store.blobs |= {f"sha256:{sha256(content)}": content for content in files.values()}

    def answer(self, request: Handler, body: bytes) -> None:
        parts = urlsplit(request.path)
        if parts.path == "/token":
            self._hand_out_token(request, body)
            return
        if not self._is_allowed(request.headers.get("Authorization", "")):
            realm = f'{self.scheme}://{self.address}/token",service="registry",scope="repository:{REPOSITORY}:pull'
            realm = realm if self.challenge == "Bearer" else "registry"
            request.send(401, b'{"errors": []}', WWW_Authenticate=f'{self.challenge} realm="{realm}"')
            return
        _, _, rest = parts.path.partition(f"/v2/{REPOSITORY}/")
        kind, _, name = rest.partition("/")
        if kind == "manifests" and name in self.manifests:
            request.send(200, self.manifests[name])
        elif kind == "blobs" and name in self.store.blobs and not self.redirects:
            request.send(200, self.store.blobs[name])
        elif kind == "blobs" and name in self.store.blobs and self.redirects == "itself" and not parts.query:
            request.send(307, Location=f"{parts.path}?again=1")
        elif kind == "blobs" and name in self.store.blobs and self.redirects == "itself":
            request.send(200, self.store.blobs[name])
        elif kind == "blobs" and name in self.store.blobs:
            request.send(307, Location=f"http://{self.store.address}/{name}?signature=short-lived")
        else:
            request.send(404, b'{"errors": []}')

    def _is_allowed(self, authorization: str) -> bool:
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return (
            authorization == {"": "", "Basic": f"Basic {pair}", "Bearer": f"Bearer {TOKEN}"}[self.challenge]
        )

    def _hand_out_token(self, request: Handler, body: bytes) -> None:
        query = parse_qs(body.decode() or urlsplit(request.path).query)
        pair = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        is_known = request.headers.get("Authorization") == pair or (
            query.get("grant_type") == ["refresh_token"] and query["refresh_token"] == [IDENTITY_TOKEN]
        )
        is_asked_for = query.get("scope") == [f"repository:{REPOSITORY}:pull"] and query["service"] == [
            "registry"
        ]
        # As ghcr.io and Docker Hub do: whoever is nobody gets a token, too, which is good for nothing here.
        token = TOKEN if is_known and is_asked_for else "anonymous"
        request.send(200, json.dumps({"access_token" if body else "token": token}).encode())


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Generator[Registry]:
    """A registry and its store, which answer meanwhile."""
    store = Store()
    registry = Registry(store, certificate)
    for server in (store, registry):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield registry
    for server in (store, registry):
        server.shutdown()
        server.server_close()


def recorded_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses to which this process opens connections from now on."""
    asked: list[Any] = []
    connect = socket.create_connection

    def recorded(address: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(address)
        return connect(address, *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", recorded)
    return asked
