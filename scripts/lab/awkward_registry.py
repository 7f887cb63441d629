"""Stand-in for registries as awkward as real ones: a front of the lab's own, which keeps the images.

Three listeners: the registry, the object store that it redirects to, and the API of ECR that gives tokens.
How each treats its clients is set while it serves, and every request is kept for tests to count.

What it imitates: the distribution specification's challenges and tokens; ECR's Basic `AWS:<token>` and its
403 for one that has expired; S3's signed links and their refusals.
"""

import base64
import contextlib
import fnmatch
import hashlib
import hmac
import http.client
import http.server
import json
import re
import secrets
import socket
import socketserver
import ssl
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from pki import Authority

PIECE = 1 << 20
INVERSE = bytes(range(255, -1, -1))
SERVICE = "lab-registry"
ECR_EXPIRED = "Your authorization token has expired. Reauthenticate and try again."
ECR_TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
PASSED_ON = (
    *("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges"),
    *("Location", "Range", "Docker-Upload-UUID", "OCI-Subject"),  # of a push
)
IMAGE_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
OF_A_REPOSITORY = re.compile(
    r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|referrers|tags)/(?P<name>uploads/[^/]*|[^/]+)"
)


class Auth(Enum):
    """How a client shows who it is."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    ECR = "ecr"


class Away(Enum):
    """How something is away that should answer."""

    REFUSED = "refused"  # nobody listens
    SILENT = "silent"  # connections are made, and nothing is answered


@dataclass
class User:
    """Who may read what: patterns of repositories, as fnmatch(3) has them."""

    password: str
    repositories: tuple[str, ...] = ("*",)


@dataclass
class Fault:
    """An answer in the place of the right one, for the requests that it is meant for.

    Args:
        status: of the answer; 0 for the right one.
        times: so many requests meet it; None: all, until it is taken away.
        kinds: of requests, as `Request.kind`; empty for all.
        agent: what the user agent contains, in lower case.
        path: what the path contains.
        cut_after: bytes of the right answer's body after which the connection is reset.
        length: bytes after which the blob ends, for every request.
        inverted: whether every byte of the right answer's body is another one.
        bytes_per_second: of the right answer's body.
        gate: is waited for before the answer.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int | None = None
    kinds: tuple[str, ...] = ()
    agent: str = ""
    repository: str = "*"
    path: str = ""
    cut_after: int | None = None
    length: int | None = None
    inverted: bool = False
    bytes_per_second: int | None = None
    gate: threading.Event | None = None


@dataclass
class Request:
    """What a client asked, and what it got: that is known before the client has it.

    kind is manifests, blobs, referrers or tags of a repository; else ping, token, store, api or unknown.
    """

    kind: str
    method: str
    path: str
    repository: str
    agent: str
    host: str
    client: str  # its address
    ranged: bool
    at: float  # time.monotonic() of the begin
    user: str = ""  # empty for who has not shown who it is
    status: int = 0  # 0 without an answer
    sent: int = 0  # bytes of the body


@dataclass(frozen=True)
class _Token:
    user: str
    repositories: frozenset[str]
    expires: float


class Listener:
    """A server at an address of its own, with TLS when it has a certificate; it can be away."""

    def __init__(
        self,
        answer: Callable[["Exchange"], None],
        address: str,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.address = address
        self.port = port
        self.tls = tls
        self.heard = threading.Event()  # cleared while it is silent
        self.heard.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.start()

    @property
    def name(self) -> str:
        """The host as an image's name has it: without the port that https has anyway."""
        return self.address if self.tls and self.port == 443 else f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}"

    def start(self) -> None:
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and end every connection."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.drop_connections()

    def drop_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def away(self, how: Away = Away.REFUSED) -> Generator[None]:
        """Be away for as long as the block runs."""
        if how is Away.REFUSED:
            self.stop()
        else:
            self.heard.clear()
        try:
            yield
        finally:
            if how is Away.REFUSED:
                self.start()
            else:
                self.drop_connections()
                self.heard.set()

    def track(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        super().__init__((listener.address, listener.port), Exchange)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in mid-answer is no news."""


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection of a client: reads requests, and writes what it is told to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300

    @property
    def listener(self) -> Listener:
        assert isinstance(self.server, _Server)
        return self.server.listener

    def setup(self) -> None:
        listener = self.listener
        self.upstream: http.client.HTTPConnection | None = None
        self.note = Request("unknown", "", "", "", "", "", "", ranged=False, at=0)
        if listener.tls:
            # Here and not where it is accepted: a client that is slow to greet would keep others out.
            self.request = listener.tls.wrap_socket(self.request, server_side=True)
        listener.track(self.request)
        super().setup()

    def finish(self) -> None:
        self.listener.forget(self.request)
        if self.upstream:
            self.upstream.close()
        super().finish()
        self.request.close()  # with TLS the server knows only what is below it

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        self.listener.heard.wait(self.timeout)
        self.listener.answer(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 (http.server wants these names)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    @property
    def agent(self) -> str:
        return self.headers.get("User-Agent", "")

    @property
    def host(self) -> str:
        return self.headers.get("Host", "")

    @property
    def base_url(self) -> str:
        """Where the client found us: tokens are had from there."""
        return f"{'https' if self.listener.tls else 'http'}://{self.host}"

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.note.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.note.sent += len(body)
            self.wfile.write(body)

    def reply_json(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json"}
        self.reply(status, {**kind, **(headers or {})}, json.dumps(content).encode())

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        """An error as the distribution specification writes it."""
        self.reply_json(status, {"errors": [{"code": code, "message": message}]}, headers)

    def refuse_as_store(self, status: int, code: str, message: str) -> None:
        """An error as S3 writes it."""
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        )
        body = f"{text}<RequestId>0</RequestId></Error>".encode()
        self.reply(status, {"Content-Type": "application/xml"}, body)

    def reset(self) -> None:
        """End the connection as a machine does that has lost it."""
        with contextlib.suppress(OSError):
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        raise ConnectionResetError

    def pass_on(self, upstream: str, path: str, ranges: bool, fault: Fault) -> None:
        """Answer with what the upstream answers to the path."""
        names = ("Accept", "Content-Type", *(("Range", "Content-Range") if ranges else ()))
        wanted = {name: self.headers[name] for name in names if name in self.headers}
        if fault.length is not None:
            first, last = part_of(wanted.get("Range", ""), fault.length)
            if first > last:
                self.reply(416, {"Content-Range": f"bytes */{fault.length}"})
                return
            wanted["Range"] = f"bytes={first}-{last}"
        answer = self._ask(upstream, path, wanted)
        headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        if fault.length is not None and "Content-Range" in headers:
            headers["Content-Range"] = f"{headers['Content-Range'].partition('/')[0]}/{fault.length}"
        if not ranges:
            headers.pop("Accept-Ranges", None)
        if "Content-Length" not in headers:
            body = answer.read()
            self.reply(answer.status, headers, body)
            return
        self.head(answer.status, headers)
        rate, cut_after = fault.bytes_per_second, fault.cut_after
        piece = memoryview(bytearray(min(PIECE, max(1, rate // 10)) if rate else PIECE))
        while count := answer.readinto(piece):
            if rate:
                time.sleep(count / rate)
            cut = cut_after is not None and self.note.sent + count > cut_after
            count = cut_after - self.note.sent if cut_after is not None and cut else count
            self.note.sent += count
            self.wfile.write(bytes(piece[:count]).translate(INVERSE) if fault.inverted else piece[:count])
            if cut:
                self.reset()

    def _ask(self, upstream: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        for again in (True, False):
            if not self.upstream:
                self.upstream = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=60)
            try:
                self.upstream.request(self.command, path, self.body or None, headers)
                return self.upstream.getresponse()
            except (http.client.HTTPException, OSError):
                self.upstream.close()
                self.upstream = None
                if not again:
                    raise
        raise AssertionError


class AwkwardRegistry:
    """A registry with the repositories of another, and with habits of its own.

    The attributes below may be changed at any time; what is being answered is answered as it was begun.

    Attributes:
        auth: how clients show who they are.
        users: by name; with ECR the one that matters is `AWS`, whose password is a token.
        public: patterns of repositories that everybody reads.
        token_seconds: life of a token, of the Bearer kind and of ECR's.
        api_session: the session token of who may ask ECR's API for one; empty for anybody.
        oauth: whether tokens can be had by POST, too, as Docker Hub allows and many do not.
        aliases: repository -> the upstream's one.
        without_index: patterns of repositories that have neither referrers nor the tags that stand for them.
        referrers: whether there is the referrers API, for which clients else use tags.
        ranges: whether a part of a blob can be had.
        redirects: whether blobs are had from the object store, by links that live for link_seconds.
        store_refusal: status and code of the store for a link that has expired, as S3 has them:
            (403, "AccessDenied"), or (400, "ExpiredToken") when the credentials ended that signed it.
        prefix: of all paths, in the place of /v2, as registries have that keep several in one.
        required_headers: without which nothing is answered, as some mirrors do.
        writes: whether images can be pushed.
        artifacts: whether manifests can be pushed that are of no image.
        faults: the first that fits a request is what it meets.
    """

    def __init__(
        self,
        upstream: str,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        certificate: tuple[Path, Path] | None = None,
        clients: Path | None = None,
        store_address: str = "",
        store_port: int = 0,
        api_address: str = "",
        api_port: int = 0,
    ) -> None:
        """Begin to serve.

        Args:
            upstream: the registry with the images: http://host:port.
            certificate: its file and that of its key, for TLS.
            clients: the authority that has to have signed a client's certificate; None asks for none.
            store_address: of the object store; that of the registry when empty.
            api_address: of ECR's API, with TLS as the registry; that of the registry, without, when empty.
        """
        self.upstream = upstream
        self._requests: list[Request] = []
        self._tokens: dict[str, _Token] = {}
        self._key = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self.behave()
        tls = server_context(certificate, clients) if certificate else None
        plain = server_context(certificate) if certificate else None
        self.front = Listener(self._answer, address, port, tls)
        self.store = Listener(self._answer_as_store, store_address or address, store_port, plain)
        self.api = Listener(
            self._answer_as_api, api_address or address, api_port, plain if api_address else None
        )

    def behave(self) -> None:
        """Have no habits, as at the begin."""
        self.auth = Auth.NONE
        self.users: dict[str, User] = {}
        self.public: tuple[str, ...] = ()
        self.token_seconds = 3600.0
        self.api_session = ""
        self.oauth = True
        self.aliases: dict[str, str] = {}
        self.without_index: tuple[str, ...] = ()
        self.referrers = True
        self.ranges = True
        self.redirects = False
        self.link_seconds = 3600.0
        self.store_refusal = (403, "AccessDenied")
        self.prefix = "/v2"
        self.required_headers: dict[str, str] = {}
        self.writes = False
        self.artifacts = True
        self.faults: list[Fault] = []

    @property
    def name(self) -> str:
        """The host in the names of its images."""
        return self.front.name

    def close(self) -> None:
        for listener in (self.front, self.store, self.api):
            listener.heard.set()
            listener.stop()

    @contextlib.contextmanager
    def away(self, how: Away = Away.REFUSED) -> Generator[None]:
        """Registry and object store are away for as long as the block runs; the API of ECR is not."""
        with self.front.away(how), self.store.away(how):
            yield

    def requests(self, since: float = 0, **wanted: object) -> list[Request]:
        """The requests since a time (time.monotonic()) with those fields; of an agent a part suffices."""
        agent = str(wanted.pop("agent", "")).lower()
        with self._lock:
            known = list(self._requests)
        return [
            request
            for request in known
            if request.at >= since
            and agent in request.agent.lower()
            and all(getattr(request, name) == value for name, value in wanted.items())
        ]

    def count(self, since: float = 0, **wanted: object) -> int:
        return len(self.requests(since, **wanted))

    def forget(self) -> None:
        """Know of no request any more."""
        with self._lock:
            self._requests.clear()

    def issue(self, user: str, repositories: tuple[str, ...] = ("*",)) -> str:
        """A new token of the user's, good for token_seconds."""
        token = base64.b64encode(secrets.token_bytes(1400)).decode()  # of the size and letters of ECR's
        with self._lock:
            expires = time.monotonic() + self.token_seconds
            self._tokens[token] = _Token(user, frozenset(repositories), expires)
        return token

    def issued(self) -> list[str]:
        """Every token that was issued."""
        with self._lock:
            return list(self._tokens)

    def revoke_all(self) -> None:
        """Every token that was issued has expired."""
        with self._lock:
            self._tokens = {
                text: _Token(token.user, token.repositories, 0) for text, token in self._tokens.items()
            }

    def may_read(self, user: str, repository: str) -> bool:
        rights = self.users[user].repositories if user in self.users else ()
        return fits(repository, self.public + rights)

    def _answer(self, exchange: Exchange) -> None:
        path, _, query = exchange.path.partition("?")
        kind, repository, inner = self._kind(path)
        self._note(exchange, kind, repository)
        fault = self._fault(exchange.note)
        if fault.gate:
            fault.gate.wait()
        if fault.status:
            exchange.reply(fault.status, fault.headers, fault.body)
        elif any(exchange.headers.get(name) != value for name, value in self.required_headers.items()):
            exchange.refuse(403, "DENIED", "a header is missing")
        elif kind == "token":
            self._give_token(exchange, query)
        elif kind == "unknown" or not (self.writes or exchange.command in ("GET", "HEAD")):
            exchange.refuse(404, "NOT_FOUND", "there is nothing")
        elif self._lets_in(exchange, repository):
            inner = f"{inner}?{query}" if query and exchange.command not in ("GET", "HEAD") else inner
            self._serve(exchange, kind, repository, inner, fault)

    def _kind(self, path: str) -> tuple[str, str, str]:
        """Kind of the request, its repository, and its path at the upstream."""
        if path == "/token":
            return "token", "", path
        if not path.startswith(f"{self.prefix}/"):
            return "unknown", "", path
        path = f"/v2{path.removeprefix(self.prefix)}"
        if path == "/v2/":
            return "ping", "", path
        found = OF_A_REPOSITORY.fullmatch(path)
        if not found:
            return "unknown", "", path
        repository = found["repository"]
        upstream = self.aliases.get(repository, repository)
        return found["kind"], repository, f"/v2/{upstream}/{found['kind']}/{found['name']}"

    def _serve(self, exchange: Exchange, kind: str, repository: str, path: str, fault: Fault) -> None:
        is_index = kind == "referrers" or "/manifests/sha256-" in path
        lacks = is_index and fits(repository, self.without_index)
        if lacks or (kind == "referrers" and not self.referrers):
            exchange.refuse(404, "NOT_FOUND", "there is nothing")
        elif kind == "manifests" and exchange.command == "PUT" and not self._takes(exchange.body):
            exchange.refuse(400, "MANIFEST_INVALID", "manifest invalid: unsupported config media type")
        elif kind == "blobs" and self.redirects and exchange.command in ("GET", "HEAD"):
            exchange.reply(307, {"Location": self._link(path)})
        else:
            exchange.pass_on(self.upstream, path, self.ranges or kind != "blobs", fault)

    def _takes(self, body: bytes) -> bool:
        """Whether a manifest may be pushed."""
        config = json.loads(body).get("config")
        return self.artifacts or not config or config["mediaType"] in IMAGE_CONFIGS

    def _lets_in(self, exchange: Exchange, repository: str) -> bool:
        """Whether the client may go on; else it has its answer."""
        if self.auth is Auth.NONE:
            return True
        if self.auth is Auth.BEARER:
            return self._lets_bearer_in(exchange, repository)
        realm = f'Basic realm="{exchange.base_url}/",service="ecr.amazonaws.com"'
        challenge = {"Www-Authenticate": realm if self.auth is Auth.ECR else 'Basic realm="lab"'}
        user, password = basic_credentials(exchange)
        if not user and repository and self.may_read("", repository):
            return True
        if self.auth is Auth.ECR:
            token = self._tokens.get(password) if user == "AWS" else None
            user = token.user if token else ""
            if token and token.expires < time.monotonic():
                exchange.note.user = user
                exchange.refuse(403, "DENIED", ECR_EXPIRED)
                return False
        elif user not in self.users or self.users[user].password != password:
            user = ""
        if not user:
            exchange.refuse(401, "UNAUTHORIZED", "authentication required", challenge)
            return False
        exchange.note.user = user
        return self._has_right(exchange, repository)

    def _lets_bearer_in(self, exchange: Exchange, repository: str) -> bool:
        scheme, _, text = exchange.headers.get("Authorization", "").partition(" ")
        token = self._tokens.get(text) if scheme.lower() == "bearer" else None
        error = ""
        if token and token.expires > time.monotonic():
            exchange.note.user = token.user
            if not repository or fits(repository, token.repositories):
                return True
            error = ',error="insufficient_scope"'
        elif scheme:
            error = ',error="invalid_token"'
        rights = "pull" if exchange.command in ("GET", "HEAD") else "pull,push"
        scope = f',scope="repository:{repository}:{rights}"' if repository else ""
        challenge = f'Bearer realm="{exchange.base_url}/token",service="{SERVICE}"{scope}{error}'
        exchange.refuse(401, "UNAUTHORIZED", "authentication required", {"Www-Authenticate": challenge})
        return False

    def _has_right(self, exchange: Exchange, repository: str) -> bool:
        if repository and not self.may_read(exchange.note.user, repository):
            exchange.refuse(403, "DENIED", f"{exchange.note.user} may not read {repository}")
            return False
        return True

    def _give_token(self, exchange: Exchange, query: str) -> None:
        """A token for what the user may read of what is asked for, as the token specification has it."""
        asked = urllib.parse.parse_qs(query)
        user, password = basic_credentials(exchange)
        if exchange.command == "POST":
            if not self.oauth:
                exchange.refuse(405, "UNSUPPORTED", "tokens are had by GET")
                return
            asked = urllib.parse.parse_qs(exchange.body.decode())
            user, password = (asked.get(name, [""])[0] for name in ("username", "password"))
        if user and (user not in self.users or self.users[user].password != password):
            exchange.refuse(401, "UNAUTHORIZED", "incorrect username or password")
            return
        exchange.note.user = user
        scopes = [part.split(":") for text in asked.get("scope", []) for part in text.split()]
        names = [part[1] for part in scopes if len(part) == 3 and part[0] == "repository"]
        granted = tuple(name for name in names if self.may_read(user, name))
        token = self.issue(user, granted)
        issued_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        life = {"expires_in": max(1, int(self.token_seconds)), "issued_at": issued_at}
        exchange.reply_json(200, {"token": token, "access_token": token, **life})

    def _link(self, path: str) -> str:
        expires = f"{time.time() + self.link_seconds:.3f}"
        signature = hmac.new(self._key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()
        signed = {"X-Amz-Date": expires, "X-Amz-Signature": signature}
        return f"{self.store.url}{path}?{urllib.parse.urlencode(signed)}"

    def _answer_as_store(self, exchange: Exchange) -> None:
        path, _, query = exchange.path.partition("?")
        asked = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        expires = asked.get("X-Amz-Date", "0")
        signature = hmac.new(self._key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()
        self._note(exchange, "store", "")
        fault = self._fault(exchange.note)
        if fault.status:
            exchange.reply(fault.status, fault.headers, fault.body)
        elif "Authorization" in exchange.headers:
            exchange.refuse_as_store(400, "InvalidArgument", "Only one auth mechanism allowed")
        elif not hmac.compare_digest(signature, asked.get("X-Amz-Signature", "")):
            exchange.refuse_as_store(403, "SignatureDoesNotMatch", "The signature does not match")
        elif float(expires) < time.time():
            status, code = self.store_refusal
            exchange.refuse_as_store(status, code, "The provided link or token has expired")
        else:
            exchange.pass_on(self.upstream, path, self.ranges, fault)

    def _answer_as_api(self, exchange: Exchange) -> None:
        """ECR's GetAuthorizationToken, for the one user `AWS`."""
        self._note(exchange, "api", "")
        if exchange.headers.get("X-Amz-Target") != ECR_TARGET:
            exchange.reply_json(400, {"__type": "UnknownOperationException"})
            return
        if self.api_session not in ("", exchange.headers.get("X-Amz-Security-Token")):
            message = "The security token included in the request is invalid."
            exchange.reply_json(400, {"__type": "UnrecognizedClientException", "message": message})
            return
        ends = time.time() + self.token_seconds
        text = base64.b64encode(f"AWS:{self.issue('AWS')}".encode()).decode()
        data = {"authorizationToken": text, "expiresAt": ends, "proxyEndpoint": self.front.url}
        exchange.reply_json(200, {"authorizationData": [data]})

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            for fault in self.faults:
                if (
                    (not fault.kinds or request.kind in fault.kinds)
                    and fault.agent in request.agent.lower()
                    and fits(request.repository, [fault.repository])
                    and fault.path in request.path
                    and fault.times != 0
                ):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def _note(self, exchange: Exchange, kind: str, repository: str) -> None:
        exchange.note = Request(
            kind=kind,
            method=exchange.command,
            path=exchange.path.partition("?")[0],
            repository=repository,
            agent=exchange.agent,
            host=exchange.host,
            client=exchange.client_address[0],
            ranged="Range" in exchange.headers,
            at=time.monotonic(),
        )
        with self._lock:
            self._requests.append(exchange.note)


def certificate(authority: Authority, names: list[str]) -> tuple[Path, Path]:
    """A certificate of the authority's for the host names and addresses, and its key."""
    authority.create()
    kinds = [f"{'IP' if re.fullmatch(r'[0-9.]+', name) else 'DNS'}:{name}" for name in names]
    return authority.sign(f"registry-{names[0]}", names[0], "lab", ",".join(kinds))


def part_of(wanted: str, length: int) -> tuple[int, int]:
    """The first and the last byte of a blob that a Range header wants, where the blob has so many."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    first, last = (int(found[1]), int(found[2] or length - 1)) if found else (0, length - 1)
    return first, min(last, length - 1)


def fits(repository: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(repository, pattern) for pattern in patterns)


def server_context(certificate: tuple[Path, Path], clients: Path | None = None) -> ssl.SSLContext:
    """TLS with that certificate and key; clients is the authority of theirs, None asks for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def basic_credentials(exchange: Exchange) -> tuple[str, str]:
    """User and password of the request; empty for none."""
    scheme, _, text = exchange.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    with contextlib.suppress(ValueError):
        user, _, password = base64.b64decode(text).decode().partition(":")
        return user, password
    return "", ""
