"""One HEAD tells whether a credential reads an image, and takes the credential nowhere else."""

import base64
import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from agent import image_access, node_http, pull_secrets
from agent.credential import Credential
from agent.errors import InstallError
from agent.host import Host, Result
from agent.image_reference import Image, parse_image
from pki import API_NAMES, Authority

from tests.fakes import proxy as proxies
from tests.fakes.node import FakeHost

GOOD = Credential("robot$shop", "a:b:c")
NODE = Host(Path("/nowhere"))


class Registry(http.server.ThreadingHTTPServer):
    """A registry with one repository; ``scheme`` is how it asks for credentials."""

    daemon_threads = True

    def __init__(self, authority: Authority, names: str = API_NAMES) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.sign(f"registry-{len(names)}", "registry", "test", names))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server_port}"
        self.scheme = "Basic"
        self.realm = f"https://{self.host}/token"
        self.status = 200  # of the manifest, to who may read
        self.drips = ""  # what comes a byte now and then
        self.token_status = 200
        self.seen: list[tuple[str, str, str]] = []  # method, path, authorization
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def registry(self) -> Registry:
        assert isinstance(self.server, Registry)
        return self.server

    def _note(self) -> str:
        authorization = self.headers.get("Authorization", "")
        self.registry.seen.append((self.command, self.path, authorization))
        return authorization

    def _drip(self, begin: bytes) -> None:
        self.wfile.write(begin)
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.1)

    def do_HEAD(self) -> None:
        registry, authorization = self.registry, self._note()
        if registry.drips == "headers":
            self._drip(b"HTTP/1.1 200 OK\r\nX: ")
        basic = "Basic " + base64.b64encode(f"{GOOD.user}:{GOOD.secret}".encode()).decode()
        if authorization == {"Basic": basic, "Bearer": "Bearer t1"}.get(registry.scheme):
            self._answer(registry.status, Location=f"https://{registry.host}/elsewhere")
            return
        if registry.scheme == "public" and authorization == "Bearer t1":
            self._answer(registry.status)
            return
        scheme = registry.scheme.replace("public", "Bearer")
        challenge = f'{scheme} realm="{registry.realm}",service="reg istry",scope="x"'
        self._answer(401, WWW_Authenticate=challenge)

    def do_GET(self) -> None:
        registry, authorization = self.registry, self._note()
        query = parse_qs(urlsplit(self.path).query)
        assert query == {"service": ["reg istry"], "scope": ["repository:shop/app:pull"]}
        is_good = base64.b64decode(authorization.removeprefix("Basic ")) == b"robot$shop:a:b:c"
        if registry.drips == "token":
            self._drip(b"HTTP/1.1 200 OK\r\n\r\n")
        if registry.scheme == "public":
            assert not authorization, "nobody says who he is"
            is_good = True
        status = registry.token_status if is_good else 401
        self._answer(status, json.dumps({"token": "t1"}).encode())

    def do_POST(self) -> None:
        self._note()
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        is_good = form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["refresh"]
        self._answer(200 if is_good else 400, json.dumps({"access_token": "t1"}).encode())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.create()
    return authority


@pytest.fixture
def registry(authority: Authority) -> Iterator[Registry]:
    registry = Registry(authority)
    yield registry
    registry.shutdown()
    registry.server_close()


def image_of(registry: Registry) -> Image:
    image = parse_image(f"{registry.host}/shop/app:1")
    assert image
    return image


def can_read(registry: Registry, authority: Authority, credential: Credential = GOOD) -> bool | None:
    opener = node_http.opener(NODE, {}, authority.certificate.read_text(), follows_redirects=False)
    return image_access.can_read(opener, image_of(registry), credential)


def test_a_registry_is_asked_on_the_way_that_the_daemon_has_to_it(
    authority: Authority, fake_host: FakeHost
) -> None:
    """By its proxy and its CAs: the pod has neither, nor knows the registry's name."""
    with proxies.running() as proxy:
        registry = Registry(authority, "DNS:registry.corp")
        registry.scheme, registry.realm = "Bearer", "https://registry.corp/token"
        proxy.places["registry.corp:443"] = ("127.0.0.1", registry.server_port)
        fake_host.write("/certs/registries.pem", authority.certificate.read_bytes())
        fake_host.answers["systemctl"] = lambda *_: Result(0, "MainPID=7\n", "")
        variables = f"HTTPS_PROXY=http://{proxy.address}\0SSL_CERT_DIR=/certs:/etc/ssl/certs\0"
        fake_host.write("/proc/7/environ", variables.encode())
        image = parse_image("registry.corp/shop/app:1")
        assert image
        assert pull_secrets.ask_registry(fake_host, (image, GOOD)) is True
        assert pull_secrets.ask_registry(fake_host, (image, Credential("robot", "wrong"))) is False
        assert set(proxy.asked) == {"CONNECT registry.corp:443"}
        fake_host.path("/proc/7/environ").unlink()
        with pytest.raises(InstallError, match="cannot be seen"):
            pull_secrets.ask_registry(fake_host, (image, GOOD))
        registry.shutdown()
        registry.server_close()


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_who_may_read(registry: Registry, authority: Authority, scheme: str) -> None:
    registry.scheme = scheme
    assert can_read(registry, authority) is True
    assert can_read(registry, authority, Credential("robot$shop", "wrong")) is False
    assert {path.partition("?")[0] for _, path, _ in registry.seen} <= {"/v2/shop/app/manifests/1", "/token"}


@pytest.mark.parametrize(("scheme", "said"), [("Basic", False), ("Bearer", False), ("public", True)])
def test_what_nobody_may_read(registry: Registry, authority: Authority, scheme: str, said: bool) -> None:
    registry.scheme = scheme
    assert can_read(registry, authority, Credential("", "")) is said
    assert {authorization for _, _, authorization in registry.seen} <= {"", "Bearer t1"}


@pytest.mark.parametrize("drips", ["headers", "token"])
def test_a_registry_that_answers_a_byte_now_and_then_is_late(
    registry: Registry, authority: Authority, monkeypatch: pytest.MonkeyPatch, drips: str
) -> None:
    monkeypatch.setattr(image_access, "ALL_SECONDS", 0.7)
    registry.drips, registry.scheme = drips, "Bearer"
    began = time.monotonic()
    assert can_read(registry, authority) is None
    assert time.monotonic() - began < 3


def test_a_registry_that_greets_slowly_is_late(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS record, byte by byte."""
    monkeypatch.setattr(image_access, "ALL_SECONDS", 0.7)

    def greet() -> None:
        peer, _ = server.accept()
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x40\x00")
            while True:
                peer.sendall(b"\x02")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, daemon=True).start()
        image = parse_image(f"127.0.0.1:{server.getsockname()[1]}/shop/app:1")
        assert image
        opener = node_http.opener(NODE, {}, authority.certificate.read_text(), follows_redirects=False)
        began = time.monotonic()
        assert image_access.can_read(opener, image, GOOD) is None
        assert time.monotonic() - began < 3


def test_an_identity_token(registry: Registry, authority: Authority) -> None:
    registry.scheme = "Bearer"
    assert can_read(registry, authority, Credential("<token>", "refresh")) is True
    assert can_read(registry, authority, Credential("<token>", "revoked")) is False
    assert "refresh" not in "".join(path for _, path, _ in registry.seen)


@pytest.mark.parametrize(
    ("status", "said"), [(403, False), (404, False), (429, None), (500, None), (302, None)]
)
@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_what_the_registry_says_of_the_manifest(
    registry: Registry, authority: Authority, scheme: str, status: int, said: bool | None
) -> None:
    registry.scheme, registry.status = scheme, status
    assert can_read(registry, authority) is said
    assert not [path for _, path, _ in registry.seen if "elsewhere" in path], "no redirect is followed"


def test_a_token_server_that_is_ill_decides_nothing(registry: Registry, authority: Authority) -> None:
    registry.scheme, registry.token_status = "Bearer", 503
    assert can_read(registry, authority) is None


@pytest.mark.parametrize("realm", ["http://169.254.169.254/latest", "file:///etc/passwd", ""])
def test_a_credential_goes_to_no_realm_without_tls(
    registry: Registry, authority: Authority, realm: str
) -> None:
    registry.scheme, registry.realm = "Bearer", realm
    assert can_read(registry, authority) is None
    assert [method for method, _, _ in registry.seen] == ["HEAD"]


def test_a_registry_that_is_not_trusted_or_not_there(registry: Registry, authority: Authority) -> None:
    opener = node_http.opener(NODE, {}, follows_redirects=False)
    assert image_access.can_read(opener, image_of(registry), GOOD) is None
    registry.shutdown()
    registry.server_close()
    assert can_read(registry, authority) is None
    assert registry.seen == []


def test_an_odd_scheme_is_no_answer_of_yes(registry: Registry, authority: Authority) -> None:
    registry.scheme = "Negotiate"
    registry.realm = "x"
    assert can_read(registry, authority) is False


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nginx", ("index.docker.io", "library/nginx", "latest")),
        ("docker.io/shop/app:v1", ("index.docker.io", "shop/app", "v1")),
        ("Harbor.Corp:5000/a/b", ("harbor.corp:5000", "a/b", "latest")),
        ("localhost/a", ("localhost", "a", "latest")),
        ("r.io/a:1@sha256:" + "0" * 64, ("r.io", "a", "sha256:" + "0" * 64)),
        ("r.io/a/../b", None),
        ("r.io/a:1?x=y", None),
        ("[::1]:5000/a", None),
        ("r.io/A", None),
        ("", None),
    ],
)
def test_image_references(name: str, parts: tuple[str, str, str] | None) -> None:
    image = parse_image(name)
    assert (image and (image.host, image.repository, image.reference)) == parts
