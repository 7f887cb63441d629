"""The stand-in for awkward registries: its habits, as clients meet them."""

import base64
import hashlib
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from awkward_registry import ECR_EXPIRED, ECR_TARGET, Auth, Away, AwkwardRegistry, Fault, User, certificate
from pki import Authority

BLOB = bytes(range(256)) * 8000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
MANIFEST = json.dumps({"layers": [DIGEST]}).encode()
BLOB_PATH = f"/v2/team/app/blobs/{DIGEST}"
MANIFEST_PATH = "/v2/team/app/manifests/1"
FILES = {
    "/v2/": b"{}",
    "/v2/app/manifests/1": MANIFEST,
    f"/v2/app/blobs/{DIGEST}": BLOB,
    f"/v2/app/referrers/{DIGEST}": b'{"manifests":[]}',
}


class Upstream(http.server.BaseHTTPRequestHandler):
    """One repository with one blob, and ranges of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = FILES.get(self.path)
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        status, headers = (200, {}) if body is not None else (404, {})
        body = body or b""
        if wanted:
            first, last = map(int, wanted.split("-"))
            status, headers = 206, {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
            body = body[first : last + 1]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 (http.server wants this name)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def make(upstream: str) -> Iterator[Callable[..., AwkwardRegistry]]:
    made = []

    def start(**options: object) -> AwkwardRegistry:
        registry = AwkwardRegistry(upstream, **options)  # ty: ignore[invalid-argument-type]
        registry.aliases = {"team/app": "app", "other/app": "app"}
        made.append(registry)
        return registry

    yield start
    for registry in made:
        registry.close()


@pytest.fixture
def registry(make: Callable[..., AwkwardRegistry]) -> AwkwardRegistry:
    return make()


class Answer:
    def __init__(self, answer: http.client.HTTPResponse, method: str) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = b"" if method == "HEAD" else answer.read()


def connect(url: str) -> http.client.HTTPConnection:
    """A connection that trusts whoever answers."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.netloc, timeout=5)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(parts.netloc, timeout=5, context=context)


def ask(url: str, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
    connection = connect(url)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        return Answer(connection.getresponse(), method)
    finally:
        connection.close()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def follow(link: str, **headers: str) -> Answer:
    parts = urllib.parse.urlsplit(link)
    return ask(link, f"{parts.path}?{parts.query}", **headers)


def test_what_the_upstream_has_is_served_under_another_name(registry):
    assert ask(registry.front.url, MANIFEST_PATH).body == MANIFEST
    assert ask(registry.front.url, BLOB_PATH).body == BLOB
    assert ask(registry.front.url, BLOB_PATH, "HEAD").headers["Content-Length"] == str(len(BLOB))
    part = ask(registry.front.url, BLOB_PATH, Range="bytes=5-9", User_Agent="soci-snapshotter/0.16.1")
    assert (part.status, part.body) == (206, BLOB[5:10])
    (request,) = registry.requests(agent="soci", kind="blobs")
    assert (request.repository, request.ranged, request.sent) == ("team/app", True, 5)
    assert registry.count(method="GET", kind="blobs") == 2


def test_a_blob_can_be_shorter_than_it_was(registry):
    registry.faults = [Fault(length=1000, kinds=("blobs",))]
    part = ask(registry.front.url, BLOB_PATH, Range="bytes=990-1200")
    assert (part.status, part.body) == (206, BLOB[990:1000])
    assert part.headers["Content-Range"] == "bytes 990-999/1000"
    beyond = ask(registry.front.url, BLOB_PATH, Range="bytes=1000-1200")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */1000")


def test_a_blob_can_have_other_bytes_of_the_same_number(registry):
    registry.faults = [Fault(inverted=True, kinds=("blobs",))]
    part = ask(registry.front.url, BLOB_PATH, Range="bytes=5-9")
    assert (part.status, part.body) == (206, bytes(255 - byte for byte in BLOB[5:10]))
    assert ask(registry.front.url, BLOB_PATH, "HEAD").headers["Content-Length"] == str(len(BLOB))


def test_a_registry_without_ranges_sends_the_whole(registry):
    registry.ranges = False
    whole = ask(registry.front.url, BLOB_PATH, Range="bytes=5-9")
    assert (whole.status, len(whole.body)) == (200, len(BLOB))


def test_the_referrers_api_is_there_or_not(registry):
    path = f"/v2/team/app/referrers/{DIGEST}"
    assert ask(registry.front.url, path).status == 200
    registry.without_index = ("team/*",)
    assert ask(registry.front.url, path).status == 404
    assert ask(registry.front.url, path.replace("team", "other")).status == 200
    registry.referrers = False
    assert ask(registry.front.url, path.replace("team", "other")).status == 404


def token(registry: AwkwardRegistry, challenge: str, method: str = "GET", **credentials: str) -> Answer:
    """As a client has one from the address that the challenge names."""
    fields = dict(part.split("=", 1) for part in challenge.removeprefix("Bearer ").split(","))
    wanted = {name: fields[name].strip('"') for name in ("service", "scope") if name in fields}
    realm = urllib.parse.urlsplit(fields["realm"].strip('"'))
    assert realm.netloc == registry.name
    if method == "POST":
        form = {"grant_type": "password", **wanted, **credentials}
        return ask(registry.front.url, realm.path, "POST", urllib.parse.urlencode(form))
    headers = {"Authorization": basic(**credentials)} if credentials else {}
    return ask(registry.front.url, f"{realm.path}?{urllib.parse.urlencode(wanted)}", **headers)


def test_bearer_tokens_are_of_a_user_for_a_repository(registry):
    registry.auth = Auth.BEARER
    registry.users = {"ann": User("secret", ("team/*",)), "bob": User("word", ("other/*",))}
    assert ask(registry.front.url, "/v2/").status == 401
    challenge = ask(registry.front.url, MANIFEST_PATH).headers["Www-Authenticate"]
    assert 'scope="repository:team/app:pull"' in challenge
    assert token(registry, challenge, user="ann", password="wrong").status == 401

    def status(answer: Answer) -> int:
        bearer = "Bearer " + json.loads(answer.body)["token"]
        return ask(registry.front.url, MANIFEST_PATH, Authorization=bearer).status

    assert status(token(registry, challenge, user="ann", password="secret")) == 200
    assert status(token(registry, challenge, "POST", username="ann", password="secret")) == 200
    assert status(token(registry, challenge, user="bob", password="word")) == 401
    assert status(token(registry, challenge)) == 401
    registry.public = ("team/app",)
    assert status(token(registry, challenge)) == 200
    users = [request.user for request in registry.requests(kind="manifests", status=200)]
    assert users == ["ann", "ann", ""]
    registry.oauth = False
    assert token(registry, challenge, "POST", username="ann", password="secret").status == 405


def test_a_bearer_token_ends(registry):
    registry.auth, registry.users = Auth.BEARER, {"ann": User("secret")}
    bearer = "Bearer " + registry.issue("ann", ("team/app",))
    assert ask(registry.front.url, MANIFEST_PATH, Authorization=bearer).status == 200
    registry.revoke_all()
    answer = ask(registry.front.url, MANIFEST_PATH, Authorization=bearer)
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["Www-Authenticate"]


def test_rights_of_basic_users(registry):
    registry.auth = Auth.BASIC
    registry.users = {"ann": User("secret", ("team/*",)), "bob": User("word", ("other/*",))}
    assert "Basic" in ask(registry.front.url, MANIFEST_PATH).headers["Www-Authenticate"]
    for user, password, status in (("ann", "secret", 200), ("ann", "x", 401), ("bob", "word", 403)):
        authorization = basic(user, password)
        assert ask(registry.front.url, MANIFEST_PATH, Authorization=authorization).status == status


def test_ecr_tells_an_expired_token_by_a_403_in_its_own_words(registry):
    """What SOCI recognizes: the words, and no challenge."""
    registry.auth, registry.users = Auth.ECR, {"AWS": User("")}
    registry.token_seconds = 1000
    answer = ask(registry.api.url, "/", "POST", X_Amz_Target=ECR_TARGET)
    (data,) = json.loads(answer.body)["authorizationData"]
    assert 990 < data["expiresAt"] - time.time() < 1001
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    assert user == "AWS"
    authorization = basic(user, password)
    assert ask(registry.front.url, MANIFEST_PATH).status == 401
    assert ask(registry.front.url, MANIFEST_PATH, Authorization=authorization).status == 200
    registry.revoke_all()
    expired = ask(registry.front.url, MANIFEST_PATH, Authorization=authorization)
    assert expired.status == 403
    assert json.loads(expired.body)["errors"][0]["message"] == ECR_EXPIRED
    assert "Www-Authenticate" not in expired.headers
    made_up = ask(registry.front.url, MANIFEST_PATH, Authorization=basic("AWS", "made up"))
    assert made_up.status == 401


@pytest.mark.parametrize("refusal", [(403, "AccessDenied"), (400, "ExpiredToken")])
def test_links_to_the_object_store_expire(registry, refusal):
    registry.redirects, registry.store_refusal = True, refusal
    answer = ask(registry.front.url, BLOB_PATH)
    assert answer.status == 307
    link = answer.headers["Location"]
    assert follow(link).body == BLOB
    assert follow(link, Range="bytes=1-2").body == BLOB[1:3]
    assert follow(link, Authorization="Bearer x").status == 400
    assert follow(link.replace("Signature=", "Signature=0")).status == 403
    registry.link_seconds = -1
    expired = follow(ask(registry.front.url, BLOB_PATH).headers["Location"])
    assert expired.status == refusal[0]
    assert f"<Code>{refusal[1]}</Code>" in expired.body.decode()
    assert expired.headers["Content-Type"] == "application/xml"


def test_faults_are_for_those_that_they_are_meant_for(registry):
    limit = Fault(429, {"Retry-After": "1"}, times=1, kinds=("blobs",), agent="soci")
    registry.faults = [limit]
    assert ask(registry.front.url, BLOB_PATH, User_Agent="containerd/1.7.35").status == 200
    assert ask(registry.front.url, MANIFEST_PATH, User_Agent="soci-snapshotter/0").status == 200
    refused = ask(registry.front.url, BLOB_PATH, User_Agent="soci-snapshotter/0")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert ask(registry.front.url, BLOB_PATH, User_Agent="soci-snapshotter/0").status == 200


@pytest.fixture(params=["plain", "tls"])
def either(request, make, tmp_path: Path) -> AwkwardRegistry:
    """One without TLS, one with it."""
    files = certificate(Authority(tmp_path / "pki"), ["127.0.0.1"]) if request.param == "tls" else None
    return make(certificate=files)


def test_a_body_may_break_off(either):
    registry = either
    registry.faults = [Fault(cut_after=1000, times=1)]
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        ask(registry.front.url, BLOB_PATH)
    assert registry.requests(kind="blobs")[0].sent == 1000
    assert ask(registry.front.url, BLOB_PATH).body == BLOB


def test_a_body_may_be_slow(either):
    """It comes whole, and some of it long before the end."""
    registry = either
    registry.faults = [Fault(bytes_per_second=len(BLOB))]
    connection = connect(registry.front.url)
    connection.request("GET", BLOB_PATH)
    answer = connection.getresponse()
    first = answer.read(1)
    sent = registry.requests(kind="blobs")[0].sent
    assert 0 < sent < len(BLOB)
    assert first + answer.read() == BLOB
    connection.close()


def test_a_registry_that_is_away_refuses_connections_and_ends_those_it_has(either):
    registry = either
    kept = connect(registry.front.url)

    def ping() -> int:
        kept.request("GET", "/v2/")
        with kept.getresponse() as answer:
            answer.read()
            return answer.status

    assert ping() == 200
    kept.auto_open = 0  # what is lost is not made anew
    with registry.away():
        with pytest.raises(ConnectionRefusedError):
            ask(registry.front.url, "/v2/")
        with pytest.raises((http.client.HTTPException, OSError)):
            ping()
    assert ask(registry.front.url, "/v2/").status == 200


def test_a_silent_registry_takes_connections_and_answers_nothing(registry):
    with registry.away(Away.SILENT), socket.create_connection(("127.0.0.1", registry.front.port)) as client:
        client.settimeout(0.3)
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert ask(registry.front.url, "/v2/").status == 200


def test_paths_and_headers_that_a_mirror_wants(registry):
    registry.prefix, registry.required_headers = "/v2/docker/cache", {"X-Mirror": "lab"}
    assert ask(registry.front.url, MANIFEST_PATH, X_Mirror="lab").status == 404
    path = MANIFEST_PATH.replace("/v2", "/v2/docker/cache")
    assert ask(registry.front.url, path).status == 403
    assert ask(registry.front.url, f"{path}?ns=docker.io", X_Mirror="lab").body == MANIFEST


def test_tls_by_an_authority_of_ones_own_and_clients_with_certificates(make, tmp_path: Path):
    authority = Authority(tmp_path / "pki")
    files = certificate(authority, ["localhost", "127.0.0.1"])
    registry = make(certificate=files, clients=authority.certificate)

    def ping(context: ssl.SSLContext) -> int:
        connection = http.client.HTTPSConnection(registry.name, timeout=5, context=context)
        connection.request("GET", "/v2/")
        return connection.getresponse().status

    with pytest.raises(ssl.SSLCertVerificationError):
        ping(ssl.create_default_context())
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
        ping(trusting)
    trusting.load_cert_chain(*authority.sign("client", "client", "lab"))
    assert ping(trusting) == 200
    subprocess.run(
        ["openssl", "verify", "-CAfile", str(authority.certificate), str(files[0])],
        check=True,
        capture_output=True,
    )


def test_many_clients_at_once(registry):
    registry.redirects = True
    with ThreadPoolExecutor(16) as threads:
        answers = list(
            threads.map(
                lambda _: follow(ask(registry.front.url, BLOB_PATH).headers["Location"]).body, range(64)
            )
        )
    assert answers == [BLOB] * 64
    assert registry.count(kind="store", status=200) == 64
