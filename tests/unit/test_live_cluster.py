"""How the program reads a cluster."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components import live_cluster
from tests.fakes.tls import server_context

LIST = {"kind": "NodeList", "items": []}


def kubeconfig(server: str, user: dict[str, Any] | None = None, **cluster: object) -> str:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "me", "user": user or {}}],
    }
    return json.dumps(content)


def asked(
    kubeconfig_at: Callable[[str], str], before: Callable[[socket.socket], socket.socket] | None = None
) -> str:
    """The request that reaches a server of one answer, by a kubeconfig made for its `host:port`.

    `before` is what the server does with the connection before it takes the request, on what it returns.
    """
    requests = []

    def serve() -> None:
        connection, _ = server.accept()
        with before(connection) if before else connection as stream:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += stream.recv(4096)
            requests.append(request.decode())
            answer = json.dumps(LIST).encode()
            stream.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        text = kubeconfig_at(f"127.0.0.1:{server.getsockname()[1]}")
        assert live_cluster.LiveCluster(text).get("/api/v1/nodes") == LIST
        serving.join(10)
    return requests[0]


def test_who_acts_as_another_user_is_read_as_that_user(tmp_path: Path) -> None:
    user = {
        "as": "zoë",
        "as-uid": "7",
        "as-groups": ["one", "two"],
        "as-user-extra": {"example.com/reason": ["night shift"]},
    }
    context = server_context(tmp_path)
    request = asked(
        lambda address: kubeconfig(f"https://{address}", user, **{"insecure-skip-tls-verify": True}),
        lambda connection: context.wrap_socket(connection, server_side=True),
    )
    headers = [line for line in request.splitlines() if line.startswith("Impersonate-")]
    assert headers == [
        "Impersonate-User: zoë",
        "Impersonate-Uid: 7",
        "Impersonate-Group: one",
        "Impersonate-Group: two",
        "Impersonate-Extra-example.com%2Freason: night shift",
    ]


@pytest.mark.parametrize(
    ("user", "cluster", "cause"),
    [
        ({"as": "system:admin"}, {}, "acts as another user"),
        ({}, {"proxy-url": "socks5://127.0.0.1:1"}, "SOCKS proxy"),
    ],
)
def test_what_the_clients_websocket_does_not_know_runs_no_command(
    user: dict[str, str], cluster: dict[str, str], cause: str
) -> None:
    """It would be run as the wrong user, or asked of the proxy in the wrong words."""
    found = live_cluster.LiveCluster(kubeconfig("https://127.0.0.1:1", user, **cluster))
    with pytest.raises(live_cluster.UnreadableError, match=cause):
        found.run("a", "b", "c", ["true"], 1)


def test_a_server_without_a_scheme_is_asked_as_kubectl_asks_it() -> None:
    assert asked(kubeconfig).startswith("GET /api/v1/nodes ")


def test_a_socks_proxy_is_used_and_resolves_the_name_itself() -> None:
    """As with `ssh -D`: the name may be known on the other side only."""
    destinations = []

    def greet(connection: socket.socket) -> socket.socket:
        connection.recv(16)
        connection.sendall(b"\x05\x00")  # no credentials are needed
        request = connection.recv(256)
        destinations.append((request[3], request[5:-2].decode()))
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
        return connection

    request = asked(
        lambda address: kubeconfig("http://cluster.internal", **{"proxy-url": f"socks5://{address}"}), greet
    )
    assert destinations == [(3, "cluster.internal")]  # 3: a name, no address
    assert request.startswith("GET /api/v1/nodes ")


def test_a_certificate_that_is_not_trusted_is_told_in_words(tmp_path: Path) -> None:
    """The client says "(0)" on its first line, and what is wrong on its last."""
    context = server_context(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(server.accept()[0], server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        cluster = live_cluster.LiveCluster(kubeconfig(f"https://127.0.0.1:{server.getsockname()[1]}"))
        with pytest.raises(live_cluster.UnreadableError, match="CERTIFICATE_VERIFY_FAILED") as raised:
            cluster.get("/api/v1/nodes")
    assert raised.value.remedy == live_cluster.CERTIFICATES


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, b"<html>log in</html>"),
        (200, b'{"status": "ok"}'),
        (200, b"[]"),
        (200, b""),
        (301, b""),
        (404, b"default backend - 404"),
        (500, b'"x"'),
        (502, b"<html>Bad Gateway</html>"),
    ],
)
def test_an_answer_of_something_else_in_the_servers_place_is_none(status: int, text: bytes) -> None:
    """A proxy's 404 was no object, a 301 an empty one, and the others ended the program."""
    with pytest.raises(live_cluster.UnreadableError, match=f"HTTP status {status} with an answer") as raised:
        live_cluster.object_of(status, text)
    assert "what answers in its place" in raised.value.remedy


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, live_cluster.CREDENTIALS), (403, ""), (500, "")], ids=str
)
def test_what_the_api_server_refuses_is_told_in_its_words(status: int, remedy: str) -> None:
    refusal = json.dumps({"kind": "Status", "message": "because"}).encode()
    with pytest.raises(live_cluster.UnreadableError, match=r"^because$") as raised:
        live_cluster.object_of(status, refusal)
    assert raised.value.remedy == remedy
    assert live_cluster.object_of(404, refusal) is None


def test_an_address_where_nothing_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet filter that drops everything costs the whole time limit."""
    monkeypatch.setattr(live_cluster, "REQUEST_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = kubeconfig(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(3):
            with pytest.raises(live_cluster.UnreachableError, match="does not answer"):
                live_cluster.connect(text, "").get("/api/v1/nodes")
        silent.settimeout(0.2)
        connections = 0
        with contextlib.suppress(TimeoutError):
            while True:
                silent.accept()[0].close()
                connections += 1
    assert connections == 1


def test_a_server_that_takes_a_command_and_says_nothing_is_not_waited_for() -> None:
    """The handshake of the client's WebSocket has no time limit: `pulumi up` would hang for good."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = kubeconfig(f"http://127.0.0.1:{silent.getsockname()[1]}")
        cluster = live_cluster.LiveCluster(text)
        with pytest.raises(live_cluster.UnreadableError, match="no answer in 0 s"):
            cluster.run("a", "b", "c", ["true"], 0.3)


def test_a_server_that_refuses_a_command_is_quoted() -> None:
    with socket.socket() as refusing:  # bound, so that nobody else gets its port, and it does not listen
        refusing.bind(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        cluster = live_cluster.LiveCluster(kubeconfig(f"http://127.0.0.1:{port}"))
        with pytest.raises(live_cluster.UnreadableError, match="refused"):
            cluster.run("a", "b", "c", ["true"], 10)
