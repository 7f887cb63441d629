"""How the program reads a cluster."""

import contextlib
import json
import socket

import pytest

from components import live_cluster


def kubeconfig(server: str) -> str:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {}}],
    }
    return json.dumps(content)


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
