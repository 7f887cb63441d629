"""An API server over HTTPS for who lists and watches: pods and secrets, with the rights that a node has.

Lists, watches, bookmarks and errors are as in Kubernetes' "API concepts". Of pods a node sees those on it; it
reads a secret by its name, in a list or a watch of that one, once a pod on it names it (Node authorizer).
"""

import base64
import http.server
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pki import Authority

from tests.fakes.tls import server_context

Json = dict[str, Any]
NODE = "node1"


class ApiServer:
    """Serves on a port that stays its own while it is away."""

    def __init__(self, state: Path) -> None:
        self.authority = Authority(state / "pki")
        self.authority.create()
        self.objects: dict[tuple[str, str], Json] = {}  # (kind, namespace/name)
        self.events: list[tuple[int, str, str, Json]] = []  # version, kind, what happened, the object
        self.version = 100
        self.oldest = 0  # a watch from before it is answered 410
        self.tokens: dict[str, str] = {}  # token to user
        self.statuses: dict[str, int] = {}  # part of a path to the status of its answer
        self.requests: list[tuple[str, str, str]] = []  # method, path with query, user
        self.told: list[Json] = []  # Events that were put
        self.changed = threading.Condition()
        self.epoch = 0  # of the watches: those of an earlier one end
        self.ends_with: bytes | None = None  # what these get before their end; None: they are cut
        self._server: http.server.ThreadingHTTPServer | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        context = server_context(self.authority.directory)
        context.load_verify_locations(self.authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.api, self._server.context = self, context
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be away: no connection is taken, those that were are cut."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.cut()

    def cut(self, ends_with: bytes | None = None) -> None:
        """End all watches, without a word or with a last one."""
        with self.changed:
            self.epoch += 1
            self.ends_with = ends_with
            self.changed.notify_all()

    def put(self, kind: str, item: Json) -> None:
        """Make or change an object of a kind (pods, secrets)."""
        with self.changed:
            self.version += 1
            key = (kind, f"{item['metadata']['namespace']}/{item['metadata']['name']}")
            what = "MODIFIED" if key in self.objects else "ADDED"
            item["metadata"]["resourceVersion"] = str(self.version)
            self.objects[key] = json.loads(json.dumps(item))
            self.events.append((self.version, kind, what, self.objects[key]))
            self.changed.notify_all()

    def delete(self, kind: str, name: str) -> None:
        with self.changed:
            self.version += 1
            item = self.objects.pop((kind, name))
            item["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((self.version, kind, "DELETED", item))
            self.changed.notify_all()

    def forget_the_past(self) -> None:
        with self.changed:
            self.oldest = self.version = self.version + 1
            self.events.clear()

    def count(self, *words: str) -> int:
        """How many requests have all of these words in their path."""
        return sum(all(word in path for word in words) for _, path, _ in self.requests)

    def may(self, user: str, kind: str, selector: str, namespace: str) -> bool:
        if user != f"system:node:{NODE}":
            return False
        if kind == "pods":
            return selector == f"spec.nodeName={NODE}"
        wanted = selector.removeprefix("metadata.name=")
        return selector.startswith("metadata.name=") and any(
            item["spec"].get("nodeName") == NODE
            and item["metadata"]["namespace"] == namespace
            and {"name": wanted} in item["spec"].get("imagePullSecrets", [])
            for (kind, _), item in self.objects.items()
            if kind == "pods"
        )


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    api: ApiServer
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what is tested."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connection: ssl.SSLSocket

    @property
    def api(self) -> ApiServer:
        assert isinstance(self.server, _Server)
        return self.server.api

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Say nothing."""

    def _user(self) -> str:
        certificate: Json = {**(self.connection.getpeercert() or {})}
        for part in certificate.get("subject", ()):
            if part[0][0] == "commonName":
                return part[0][1]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.api.tokens.get(token, "")

    def _answer(self, status: int, body: Json) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        api = self.api
        api.requests.append(("POST", self.path, self._user()))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        names = [event["metadata"].get("name") for event in api.told]
        is_known = body["metadata"].get("name") in names
        if not is_known:
            api.told.append(body)
        self._answer(409 if is_known else 201, body)

    def do_GET(self) -> None:
        api, user = self.api, self._user()
        api.requests.append(("GET", self.path, user))
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        words = url.path.strip("/").split("/")[2:]
        namespace, kind = ("", words[0]) if len(words) == 1 else (words[1], words[2])
        selector = query.get("fieldSelector", "")
        for part, status in api.statuses.items():
            if part in self.path:
                self._answer(status, {"kind": "Status", "code": status})
                return
        if not user:
            self._answer(401, {"kind": "Status", "code": 401})
            return
        with api.changed:
            allowed = api.may(user, kind, selector, namespace)
            epoch = api.epoch
        if not allowed:
            self._answer(403, {"kind": "Status", "code": 403})
        elif query.get("watch"):
            self._watch(kind, selector, namespace, int(query["resourceVersion"]), epoch)
        else:
            with api.changed:
                items = [item for (of, _), item in api.objects.items() if of == kind]
                items = [item for item in items if _is_chosen(item, selector, namespace)]
                body = {"kind": "List", "metadata": {"resourceVersion": str(api.version)}, "items": items}
                content = json.dumps(body)
            self._answer(200, json.loads(content))

    def _watch(self, kind: str, selector: str, namespace: str, version: int, epoch: int) -> None:
        api = self.api
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version < api.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "metadata": {}}
            self._line({"type": "ERROR", "object": status})
            self.wfile.write(b"0\r\n\r\n")
            return
        while True:
            with api.changed:
                while not (found := [event for event in api.events if event[0] > version]) and (
                    epoch == api.epoch
                ):
                    api.changed.wait()
                if epoch != api.epoch:
                    break
                texts = [
                    json.dumps({"type": what, "object": item})
                    for _, of, what, item in found
                    if of == kind and _is_chosen(item, selector, namespace)
                ]
                version = found[-1][0]
            for text in texts:
                self._line(json.loads(text))
            mark = {"metadata": {"resourceVersion": str(version)}}
            self._line({"type": "BOOKMARK", "object": mark})
        if api.ends_with is not None:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(api.ends_with), api.ends_with))
        else:
            self.connection.close()
        self.close_connection = True

    def _line(self, event: Json) -> None:
        content = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))


def _is_chosen(item: Json, selector: str, namespace: str) -> bool:
    key, _, value = selector.partition("=")
    if namespace and item["metadata"]["namespace"] != namespace:
        return False
    return item["metadata"]["name"] == value if key == "metadata.name" else item["spec"]["nodeName"] == value


def pod(name: str, *images: str, secrets: tuple[str, ...] = (), phase: str = "Running") -> Json:
    """A pod on the node, ``name`` with its namespace."""
    namespace, _, own = name.partition("/")
    return {
        "metadata": {"namespace": namespace, "name": own},
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": f"c{number}", "image": image} for number, image in enumerate(images)],
            "imagePullSecrets": [{"name": secret} for secret in secrets],
        },
        "status": {"phase": phase},
    }


def secret(name: str, auths: Any, kind: str = "dockerconfigjson") -> Json:
    """A pull secret, ``name`` with its namespace; ``auths`` may be text, which stands as it is."""
    namespace, _, own = name.partition("/")
    content = auths if isinstance(auths, str) else json.dumps({"auths": auths} if "json" in kind else auths)
    return {
        "metadata": {"namespace": namespace, "name": own},
        "type": f"kubernetes.io/{kind}",
        "data": {f".{kind}": base64.b64encode(content.encode()).decode()},
    }


def auth(user: str, password: str) -> Json:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
