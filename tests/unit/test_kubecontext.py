"""`make up KUBECONTEXT=name` deploys where `kubectl --context name` leads to."""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubecontext
import pytest
import up

from components.cluster_identity import KUBE_SYSTEM
from components.kubeconfig import cluster_server, read_kubeconfig

DOWN = Path(up.__file__).with_name("down.py")


def write(path: Path, *names: str, server: str = "https://{}.example.org") -> Path:
    """A kubeconfig with a context of each name, whose cluster and user have the same name."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server.format(name)}} for name in names],
        "users": [{"name": name, "user": {}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, from which the command is given."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def server_of(context: str, kubeconfig: str | None) -> str:
    """Where the program is led to by what `make up` sets; KUBECONFIG as given, None for not set."""
    found = kubecontext.kubeconfig({} if kubeconfig is None else {"KUBECONFIG": kubeconfig})
    kubecontext.require(context, found)
    os.chdir("/")  # the program runs elsewhere
    return cluster_server(read_kubeconfig(found), context)


@pytest.mark.parametrize("kubeconfig", [None, "", ":"])
def test_the_kubeconfig_of_the_home_directory_is_the_default(home: Path, kubeconfig: str | None) -> None:
    write(home / ".kube/config", "dev")
    assert server_of("dev", kubeconfig) == "https://dev.example.org"
    assert kubecontext.kubeconfig({"KUBECONFIG": kubeconfig or ""}) == "~/.kube/config"


def test_the_variable_is_preferred(home: Path) -> None:
    write(home / ".kube/config", "dev", server="https://wrong.example.org")
    assert server_of("dev", str(write(home / "other", "dev"))) == "https://dev.example.org"


def test_a_relative_path_is_one_from_where_the_command_is_given(home: Path) -> None:
    write(home / "clusters/dev.json", "dev")
    assert server_of("dev", "clusters/dev.json") == "https://dev.example.org"


def test_several_files_are_one_and_the_first_of_a_name_counts(home: Path) -> None:
    files = [
        write(home / "a", "dev"),
        home / "absent",
        write(home / "b", "dev", "prod", server="https://{}.elsewhere.org"),
    ]
    listed = os.pathsep.join(map(str, files))
    assert server_of("dev", listed) == "https://dev.example.org"
    assert server_of("prod", listed) == "https://prod.elsewhere.org"


def test_a_context_that_is_nowhere_is_refused_with_the_files_and_the_contexts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the stack's configuration is touched."""
    monkeypatch.setenv("KUBECONFIG", f"{write(home / 'a', 'dev')}:{home}/absent:{write(home / 'b', 'prod')}")
    monkeypatch.setattr(sys, "argv", ["up.py", "--context", "live"])
    monkeypatch.setattr(up, "pulumi", lambda *arguments: pytest.fail(f"pulumi {arguments}"))
    with pytest.raises(SystemExit) as caught:
        up.main()
    for words in (f"{home}/a", f"{home}/absent (absent)", f"{home}/b", "dev, prod", "KUBECONTEXT=live"):
        assert words in str(caught.value)


def test_no_kubeconfig_at_all_is_refused(home: Path) -> None:
    with pytest.raises(kubecontext.NoContextError, match=r"~/\.kube/config \(absent\)"):
        kubecontext.require("dev", kubecontext.kubeconfig({}))


def test_the_stack_gets_kubeconfig_and_context(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write(home / "a", "dev")))
    monkeypatch.setattr(sys, "argv", ["up.py", "--context", "dev"])
    monkeypatch.setattr(up.shutil, "which", lambda name: f"/usr/bin/{name}")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(up, "pulumi", lambda environment, *arguments: asked.append(arguments))
    up.main()
    assert ("config", "set", "soci:kubeconfig", f"{home}/a", "--stack", "existing") in asked
    assert ("config", "set", "soci:context", "dev", "--stack", "existing") in asked
    assert asked[-1] == ("up", "--stack", "existing")


UID = "1f0c5b0e-6d0e-4a55-9a7a-5d5f1a7f9d11"
OTHER_UID = "9be2c0a1-3c54-4f0b-8f5e-0f6f1d6f2c22"
SERVER = "https://dev.example.org"


def state(*clusters: str | None) -> dict[str, Any]:
    """A stack's state with a Kubernetes provider for each cluster, as `pulumi stack export` prints it."""
    providers = [
        {
            "type": "pulumi:providers:kubernetes",
            "inputs": {"kubeconfig": {"ciphertext": "v1:x"}}
            | ({"clusterIdentifier": cluster} if cluster else {}),
        }
        for cluster in clusters
    ]
    resources = [{"type": "pulumi:pulumi:Stack"}, *providers] if providers else []
    return {"version": 3, "deployment": {"resources": resources} if resources else {}}


@pytest.mark.parametrize(
    ("clusters", "configured", "is_refused"),
    [
        ((UID,), "dev", False),
        ((UID,), "alias", False),  # another name of the same cluster
        ((SERVER,), "dev", False),  # an older version's name of it
        ((OTHER_UID,), "dev", True),  # the context leads elsewhere by now
        ((OTHER_UID,), "production", True),
        ((UID, OTHER_UID), "dev", True),  # an `up` that was to move it ended in the middle
        ((None,), "dev", False),
        ((None,), "production", True),
        ((None,), "", True),
        ((), "dev", True),
    ],
)
def test_a_stack_is_destroyed_only_as_that_of_its_cluster(
    clusters: tuple[str | None, ...], configured: str, is_refused: bool
) -> None:
    found = kubecontext.deployed(state(*clusters), configured)
    problem = kubecontext.of_another("dev", {UID, SERVER}, found)
    assert bool(problem) is is_refused
    assert ("Remedy: " in problem) is is_refused
    if configured == "production":
        assert "make down KUBECONTEXT=production" in problem


class Cluster(http.server.BaseHTTPRequestHandler):
    """An API server that knows its namespace kube-system."""

    def do_GET(self) -> None:
        found = (
            {"kind": "Namespace", "metadata": {"uid": UID}} if self.path == KUBE_SYSTEM else {"kind": "List"}
        )
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        pass


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of an API server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class MakeDown:
    """`make down KUBECONTEXT=dev` beside a Pulumi CLI that is a script, with a stack of this state."""

    def __init__(self, folder: Path, of_stack: dict[str, Any], kubeconfig: Path) -> None:
        self.calls = folder / "calls"
        (folder / "state").write_text(json.dumps(of_stack))
        cli = folder / "bin" / "pulumi"
        cli.parent.mkdir()
        cli.write_text(
            f"""#!/bin/sh
echo "$1" >>{self.calls}
case $1 in stack) cat {folder}/state;; config) echo dev;; esac
"""
        )
        cli.chmod(0o755)
        path = f"{cli.parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)}

    def __call__(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(DOWN), "--context", "dev"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    @property
    def was_destroyed(self) -> bool:
        return "destroy" in self.calls.read_text().split()


def test_make_down_destroys_the_stack_of_this_cluster(tmp_path: Path, cluster: str) -> None:
    make_down = MakeDown(tmp_path, state(UID), write(tmp_path / "config", "dev", server=cluster))
    done = make_down()
    assert (done.returncode, done.stderr) == (0, "")
    assert make_down.was_destroyed


def test_make_down_destroys_no_stack_of_another_cluster_under_the_same_context(
    tmp_path: Path, cluster: str
) -> None:
    """The state holds the kubeconfig of the last `up`: Pulumi would take the stack from that cluster."""
    make_down = MakeDown(tmp_path, state(OTHER_UID), write(tmp_path / "config", "dev", server=cluster))
    refused = make_down()
    assert refused.returncode == 1
    assert "make down KUBECONTEXT=dev: the stack existing is on another cluster" in refused.stderr
    assert not make_down.was_destroyed


def test_make_down_destroys_nothing_when_the_cluster_does_not_say_which_it_is(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        server = f"http://127.0.0.1:{closed.getsockname()[1]}"
    make_down = MakeDown(tmp_path, state(UID), write(tmp_path / "config", "dev", server=server))
    refused = make_down()
    assert refused.returncode == 1
    assert "cannot verify" in refused.stderr
    assert "Remedy: check the network" in refused.stderr
    assert not make_down.was_destroyed


def test_make_up_ends_with_commands_of_the_readme() -> None:
    commands = re.findall(r"^  (scripts/lab/lab pulumi .*)$", up.HINT, re.MULTILINE)
    readme = (up.REPOSITORY / "README.md").read_text()
    assert commands
    assert [command for command in commands if f"`{command}`" not in readme] == []
