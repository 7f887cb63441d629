"""The stand-ins themselves: where the true provider's behaviour is known, they must share it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
import kubernetes_api
import kubernetes_provider as provider
import pytest
from kubernetes_api import Api
from plugin import UNKNOWN, differences

from tests.engine.fake_cluster import ControlPlane
from tests.engine.project_stack import QUIET, Project

PROGRAM = """
import pulumi
import pulumi_kubernetes as k8s

config = pulumi.Config()
cluster = k8s.Provider("cluster", kubeconfig=config.require("kubeconfig"))
k8s.core.v1.ConfigMap(
    "thing",
    metadata={"name": "stand-in-test", "labels": {"colour": config.require("colour")}},
    opts=pulumi.ResourceOptions(provider=cluster),
)
"""


def kubeconfig(server: str) -> dict[str, Any]:
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {}}],
    }


@pytest.mark.parametrize(
    ("old", "new", "another"),
    [
        ({"kubeconfig": kubeconfig("https://a")}, {"kubeconfig": kubeconfig("https://a")}, False),
        ({"kubeconfig": kubeconfig("https://a")}, {"kubeconfig": kubeconfig("https://b")}, True),
        ({"kubeconfig": kubeconfig("https://a")}, {"kubeconfig": UNKNOWN}, True),
        (
            {"kubeconfig": kubeconfig("https://a"), "clusterIdentifier": "one"},
            {"kubeconfig": kubeconfig("https://a")},
            False,
        ),
        (
            {"kubeconfig": kubeconfig("https://a"), "clusterIdentifier": "one"},
            {"kubeconfig": UNKNOWN, "clusterIdentifier": "one"},
            False,
        ),
        (
            {"kubeconfig": kubeconfig("https://a"), "clusterIdentifier": "one"},
            {"kubeconfig": kubeconfig("https://a"), "clusterIdentifier": "two"},
            True,
        ),
    ],
)
def test_what_makes_it_another_cluster(old: dict[str, Any], new: dict[str, Any], another: bool) -> None:
    assert provider.another_cluster(old, new) is another


def test_only_empty_maps_of_text_are_dropped() -> None:
    inputs = {"nodeSelector": {}, "volumes": [{"emptyDir": {}, "labels": {}}], "gone": None}
    assert provider.drop_empty(inputs) == {"volumes": [{"emptyDir": {}}]}


def test_differences_have_pulumi_paths() -> None:
    old = {"spec": {"a": [1, 2], "b.c": 1, "same": {}}}
    new = {"spec": {"a": [1, 3], "d": 4}}
    assert differences(old, new) == {"spec.a[1]": "UPDATE", 'spec["b.c"]': "DELETE", "spec.d": "ADD"}


def test_drift_is_the_live_value_of_what_was_declared() -> None:
    inputs = {"spec": {"containers": [{"name": "c", "image": "a"}]}, "stringData": {"k": "v"}}
    live = {"spec": {"containers": [{"name": "c", "image": "b", "defaulted": 1}]}, "status": {}}
    drifted = provider.overlay(inputs, live)
    assert drifted == {"spec": {"containers": [{"name": "c", "image": "b"}]}, "stringData": {"k": "v"}}


def test_a_daemon_set_without_nodes_is_ready_at_once() -> None:
    live = {"kind": "DaemonSet", "metadata": {"generation": 1}, "status": {"observedGeneration": 1}}
    assert list(provider.unready(live)) == []
    live["status"] |= {"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 1}
    assert list(provider.unready(live)) == ["Updated: 1/3"]


def test_a_pod_that_failed_is_waited_for_all_the_same() -> None:
    live = {"kind": "Pod", "metadata": {}, "status": {"phase": "Failed"}}
    assert list(provider.unready(live)) == ["Waiting for the Pod to be ready: Failed"]
    assert provider.failure(live) is None


@pytest.mark.parametrize(
    ("reason", "ends"),
    [("BackoffLimitExceeded", True), ("DeadlineExceeded", True), ("PodFailurePolicy", False)],
)
def test_a_job_ends_the_wait_when_it_failed_for_one_of_two_reasons(reason: str, ends: bool) -> None:
    failed = {"type": "Failed", "status": "True", "reason": reason, "message": "it ended"}
    live = {
        "kind": "Job",
        "metadata": {"name": "job"},
        "status": {"startTime": "now", "conditions": [failed]},
    }
    assert list(provider.unready(live))
    assert bool(provider.failure(live)) is ends
    live["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
    assert list(provider.unready(live)) == []


def test_plugins_that_the_user_has_are_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = engine.required_plugins()["aws"]
    real = tmp_path / "user" / ".pulumi" / "plugins" / f"resource-aws-v{version}"
    real.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "user")
    engine.link_plugins(tmp_path / "plugins")
    assert (tmp_path / "plugins" / real.name).resolve() == real
    names = {path.name.rsplit("-v", 1)[0]: path for path in (tmp_path / "plugins").iterdir()}
    assert os.access(names["resource-kubernetes"] / "pulumi-resource-kubernetes", os.X_OK)


@pytest.mark.parametrize(
    ("program", "words", "absent"),
    [
        (
            "import pulumi\nraise pulumi.RunError('this cannot work')",
            "error: this cannot work\n",
            "Traceback",
        ),
        ("def f():\n    raise ValueError('x')\nf()", "__main__.py", "run_program.py"),
        ("import sys\nsys.exit(3)", "program exited with non-zero exit code: 3", "Traceback"),
    ],
    ids=["RunError", "exception", "exit"],
)
def test_a_failing_program_fails_in_its_own_words(
    tmp_path: Path, environment: dict[str, str], program: str, words: str, absent: str
) -> None:
    done = Project(tmp_path, environment, program).pulumi("preview", "--non-interactive")
    assert done.returncode != 0
    assert words in done.stdout
    assert absent not in done.stdout


@pytest.fixture
def deployed(control_plane: ControlPlane, tmp_path: Path, environment: dict[str, str]) -> Iterator[Project]:
    """A project whose object is in the cluster."""
    project = Project(tmp_path, environment, PROGRAM)
    credentials = control_plane.kubeconfig.read_text()
    assert project.pulumi("config", "set", "--secret", "kubeconfig", credentials).returncode == 0
    assert project.pulumi("config", "set", "colour", "green").returncode == 0
    done = project.pulumi("up", *QUIET)
    assert done.returncode == 0, done.stdout
    yield project
    done = project.pulumi("destroy", *QUIET)
    assert done.returncode == 0, done.stdout


def recolour(api: Api, manager: str) -> None:
    """Have somebody else say, by server-side apply, what colour the object has."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "stand-in-test", "namespace": "default", "labels": {"colour": "red"}},
    }
    api.apply(manifest, manager, force=True, dry_run=False)


def test_another_appliers_field_is_a_conflict(deployed: Project, control_plane: ControlPlane) -> None:
    recolour(control_plane.api(), "somebody")
    deployed.pulumi("config", "set", "colour", "blue")
    done = deployed.pulumi("up", *QUIET)
    assert done.returncode != 0
    assert "field conflict detected" in done.stdout
    assert "somebody" in done.stdout


def test_an_object_that_exists_is_not_taken_over(
    deployed: Project, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = Project(tmp_path_factory.mktemp("second"), environment, PROGRAM)
    shown = deployed.pulumi("config", "get", "kubeconfig").stdout
    second.pulumi("config", "set", "--secret", "kubeconfig", shown)
    second.pulumi("config", "set", "colour", "green")
    done = second.pulumi("up", *QUIET)
    assert done.returncode != 0
    assert "already exists" in done.stdout


def test_conflicting_managers_are_read_from_the_servers_words() -> None:
    words = 'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using v1: .a\nconflict with "x": .b'
    assert kubernetes_api.conflicting_managers(words) == ["kubectl-edit", "x"]


def test_the_command_line_prints_what_a_shell_needs(tmp_path: Path) -> None:
    script = Path(engine.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "env", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert f"export PULUMI_HOME={tmp_path}" in done.stdout.splitlines()
