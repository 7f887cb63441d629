"""`make up KUBECONTEXT=name` deploys where `kubectl --context name` leads to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kubecontext
import pytest
import up

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


def test_the_stack_of_another_context_is_not_destroyed() -> None:
    """It was, whatever cluster it was deployed to."""
    problem = kubecontext.of_another("staging", "production")
    assert "is of the context production" in problem
    assert "make down KUBECONTEXT=production" in problem
    assert "nothing was deployed" in kubecontext.of_another("staging", "")
    assert kubecontext.of_another("staging", "staging") == ""


def test_make_down_with_another_context_runs_no_destroy(tmp_path: Path) -> None:
    """The Pulumi CLI here is a script that says of which context the stack is."""
    calls = tmp_path / "calls"
    cli = tmp_path / "pulumi"
    cli.write_text(f'#!/bin/sh\necho "$1" >>{calls}\n[ "$1" != config ] || echo production\n')
    cli.chmod(0o755)

    def down(context: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = [sys.executable, str(DOWN), "--context", context]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = down("staging")
    assert refused.returncode != 0
    assert "is of the context production" in refused.stderr
    assert calls.read_text().split() == ["config"]
    assert down("production").returncode == 0
    assert calls.read_text().split()[-1] == "destroy"
