"""Who the node's kubelet is to the API server: connections that are opened in the node's own name.

The kubelet's kubeconfig is read anew for each connection, since certificates and tokens rotate below it.
Shapes and precedences: Kubernetes' references "kubeconfig (v1)" and "client authentication (v1)"; data goes
before a file, and of relative paths the kubeconfig's folder is the start.
"""

import base64
import binascii
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from . import block_yaml, kubelet
from .host import PATH, Host

Json = dict[str, Any]

PLUGIN_SECONDS = 60.0
EARLY_SECONDS = 30.0  # before its end, what a plugin gave is not used any more
FAILED_SECONDS = 15.0  # for so long a plugin that failed is not run again: each secret's follower wants it
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))
# What may hold secrets comes on the standard input, not in the command line, which all the node can read.
PLUGIN = """
while IFS= read -r pair && [ -n "$pair" ]; do export "$pair"; done
exec "$@" </dev/null
"""
_PAIR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class IdentityError(Exception):
    """The node's identity cannot be used now; the message holds no secret."""


@dataclass(frozen=True)
class Access:
    """The cluster and user of a kubeconfig's current context, as they stand in it, and its folder."""

    cluster: Json
    user: Json
    folder: str

    def path(self, value: Any) -> str:
        """A path in the kubeconfig, as the node has it."""
        return str(PurePosixPath(self.folder, str(value)))


def parse(text: str, folder: str) -> Access:
    """Read the text of a kubeconfig.

    Raises:
        IdentityError: it is none, or its current context leads nowhere.
    """
    try:
        content = block_yaml.load(text)
    except (ValueError, RecursionError):  # whose words may repeat a part of the text
        raise IdentityError("the kubelet's kubeconfig is not understood") from None
    content = content if isinstance(content, dict) else {}
    context = _named(content, "contexts", "context", content.get("current-context"))
    return Access(
        _named(content, "clusters", "cluster", context.get("cluster")),
        _named(content, "users", "user", context.get("user")),
        folder,
    )


def _named(content: Json, kind: str, part: str, name: Any) -> Json:
    entries = content.get(kind)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(part), dict):
            return entry[part]
    raise IdentityError(f"the kubelet's kubeconfig has no {part} of the name that its context wants")


@dataclass(frozen=True)
class Proof:
    """What proves the identity: a token, or a certificate with its key in PEM; empty for none. ``until`` is
    its end in seconds since 1970."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    until: float = float("inf")

    def __repr__(self) -> str:
        return "Proof(…)"


class Connection(http.client.HTTPSConnection):
    """A connection to the API server that notices when the other end has vanished."""

    def __init__(
        self, address: str, port: int, *, name: str, context: ssl.SSLContext, seconds: float, proof: Proof
    ) -> None:
        """``address`` is connected to; ``name`` is what the server's certificate has to be for."""
        super().__init__(address, port, timeout=seconds, context=context)
        self._name = name
        self._tls = context
        self.proof = proof

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), self.timeout)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self._name)
        except BaseException:
            raw.close()
            raise

    def ask(self, method: str, path: str, body: Json | None = None) -> http.client.HTTPResponse:
        """Send a request; its answer, whose body is still to be read."""
        headers = {"Accept": "application/json", "User-Agent": "soci-cluster-credentials"}
        if self.proof.token:
            headers["Authorization"] = f"Bearer {self.proof.token}"
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.request(method, path, content, headers)
        return self.getresponse()

    def interrupt(self) -> None:
        """End it from another thread, which may be reading from it."""
        if self.sock:
            with contextlib.suppress(OSError):
                # Not the TLS socket's own method, which takes the reader's state away under it.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class KubeletIdentity:
    """Opens connections as the node. Several threads may do so."""

    def __init__(self, host: Host, now: Callable[[], float] = time.time) -> None:
        self._host = host
        self._now = now
        self._lock = threading.Lock()
        self._plugin: tuple[Json, Proof] | None = None  # its configuration, and what it gave
        self._failure: tuple[Json, str, float] | None = None  # the same, why it gave nothing, and when
        self.ignored: set[str] = set()  # keys of the kubeconfig that are not followed

    def connect(self, seconds: float) -> Connection:
        """A connection, not yet opened, each of whose waits ends after so many seconds.

        Raises:
            IdentityError: there is no kubelet, or its kubeconfig leads to no identity.
        """
        process = kubelet.kubelet_process(self._host)
        if not process:
            raise IdentityError("no kubelet runs as a unit of this node")
        access = self._access(process)
        url = urlsplit(str(access.cluster.get("server", "")))
        try:
            port = url.port or 443
        except ValueError:
            raise IdentityError("the server of the kubelet's kubeconfig has no valid port") from None
        if url.scheme != "https" or not url.hostname or url.path not in ("", "/"):
            raise IdentityError("the server of the kubelet's kubeconfig is not https://HOST:PORT")
        self.ignored |= {key for key in ("proxy-url",) if access.cluster.get(key)}
        proof = self._proof(access, process)
        name = str(access.cluster.get("tls-server-name") or url.hostname)
        address = self._address(url.hostname)
        context = self._context(access, proof)
        return Connection(address, port, name=name, context=context, seconds=seconds, proof=proof)

    def forget(self, proof: Proof) -> None:
        """The API server takes this proof for none: have it made anew, if a plugin made it and it is still in
        use."""
        with self._lock:
            if self._plugin and self._plugin[1] is proof:
                self._plugin = None

    def _access(self, process: kubelet.KubeletProcess) -> Access:
        path = kubelet.option(process.command, "kubeconfig")
        if not path.startswith("/"):
            what = f"a relative one, {path}" if path else "none"
            raise IdentityError(f"the kubelet's --kubeconfig is {what}")
        content = self._host.read(path)
        if content is None:
            raise IdentityError(f"the kubelet's kubeconfig {path} is not there yet")
        return parse(content.decode(errors="replace"), str(PurePosixPath(path).parent))

    def _address(self, name: str) -> str:
        """The address that the node's own /etc/hosts has for a name, else the name."""
        for line in self._host.read_text("/etc/hosts").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if name in names:
                return address
        return name

    def _proof(self, access: Access, process: kubelet.KubeletProcess) -> Proof:
        user = access.user
        certificate, key = self._part(access, "client-certificate"), self._part(access, "client-key")
        token = str(user.get("token") or "")
        if user.get("tokenFile"):
            token = self._file(access, "tokenFile").decode(errors="replace").strip() or token
        if not (certificate or token) and isinstance(user.get("exec"), dict):
            return self._from_plugin(access, user["exec"], process)
        if not (token or (certificate and key)):
            raise IdentityError("the kubelet's kubeconfig has no certificate with key, token or exec plugin")
        return Proof(token, certificate, key)

    def _part(self, access: Access, name: str) -> bytes:
        """A certificate or key in PEM, out of its data or its file; empty when the user has none."""
        data = access.user.get(f"{name}-data")
        if data:
            return _decoded(data, f"{name}-data")
        return self._file(access, name) if access.user.get(name) else b""

    def _file(self, access: Access, name: str) -> bytes:
        path = access.path(access.user[name])
        content = self._host.read(path)
        if not content:
            raise IdentityError(f"the kubelet's {name} {path} is missing or empty")
        return content

    def _context(self, access: Access, proof: Proof) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if access.cluster.get("insecure-skip-tls-verify") is True:
            raise IdentityError(
                "the kubelet's kubeconfig has insecure-skip-tls-verify, which is not followed"
            )
        data, path = (access.cluster.get(f"certificate-authority{end}") for end in ("-data", ""))
        try:
            if data or path:
                pem = _decoded(data, "certificate-authority-data") if data else None
                pem = pem or self._host.read(access.path(path)) or b""
                context.load_verify_locations(cadata=pem.decode(errors="replace"))
            else:
                context.load_default_certs()
            if proof.certificate:
                _load(context, proof)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", "") or "it is no PEM"
            raise IdentityError(
                f"certificates of the kubelet's kubeconfig cannot be used: {reason}"
            ) from None
        return context

    def _from_plugin(self, access: Access, config: Json, process: kubelet.KubeletProcess) -> Proof:
        with self._lock:
            if self._plugin and self._plugin[0] == config:
                proof = self._plugin[1]
                if self._now() < proof.until - EARLY_SECONDS:
                    return proof
            if (
                self._failure
                and self._failure[0] == config
                and (0 <= self._now() - self._failure[2] < FAILED_SECONDS)
            ):
                raise IdentityError(self._failure[1])
            try:
                proof = self._run_plugin(access, config, process)
            except IdentityError as error:
                self._failure = (config, str(error), self._now())
                raise
            self._plugin, self._failure = (config, proof), None
            return proof

    def _run_plugin(self, access: Access, config: Json, process: kubelet.KubeletProcess) -> Proof:
        command = str(config.get("command") or "")
        if "/" in command:
            command = access.path(command)
        spec: Json = {"interactive": False}
        if config.get("provideClusterInfo") is True:
            spec["cluster"] = access.cluster
        request = {"apiVersion": config.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
        own = {entry["name"]: str(entry.get("value") or "") for entry in config.get("env") or []}
        environment = {
            "PATH": PATH,
            **(self._host.environment_of(process.pid) or {}),
            **own,
            "KUBERNETES_EXEC_INFO": json.dumps(request),
        }
        pairs = (f"{name}={value}" for name, value in environment.items())
        text = "".join(f"{pair}\n" for pair in pairs if _PAIR.match(pair) and "\n" not in pair) + "\n"
        words = [str(word) for word in config.get("args") or []]
        done = self._host.run(
            *("env", "-i", "sh", "-c", PLUGIN, "plugin", command, *words), text=text, timeout=PLUGIN_SECONDS
        )
        if done.code != 0:
            # What it says itself may hold a secret.
            raise IdentityError(f"the kubelet's exec plugin {command} failed with status {done.code}")
        return _proof_of_plugin(done.output, command)


def _proof_of_plugin(output: str, command: str) -> Proof:
    try:
        status = json.loads(output)["status"]
        end = status.get("expirationTimestamp")
        proof = Proof(
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or "").encode(),
            str(status.get("clientKeyData") or "").encode(),
            datetime.fromisoformat(end).timestamp() if end else float("inf"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IdentityError(f"the kubelet's exec plugin {command} printed no ExecCredential") from None
    if not (proof.token or (proof.certificate and proof.key)):
        raise IdentityError(f"the kubelet's exec plugin {command} gave neither token nor certificate")
    return proof


def _decoded(data: Any, name: str) -> bytes:
    try:
        return base64.b64decode(str(data), validate=True)
    except binascii.Error:
        raise IdentityError(f"the kubelet's kubeconfig has a {name} that is no base64") from None


def _load(context: ssl.SSLContext, proof: Proof) -> None:
    """Load certificate and key, which the library wants as a file: one in memory, never on a disk."""
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        content = proof.certificate + b"\n" + (proof.key if proof.key != proof.certificate else b"")
        os.write(descriptor, content)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
