"""What cannot work is refused while planning, all of it at once; and what installs nothing is a failure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.fake_cluster import FakeNodes
from tests.engine.project_stack import Stack


@pytest.fixture(scope="module")
def stack(
    environment: dict[str, str], local_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """A stack that never gets as far as having resources."""
    return Stack(tmp_path_factory.mktemp("refusals") / "soci", environment, "refusals", local_config)


@pytest.fixture(autouse=True)
def _own_configuration(stack: Stack, local_config: dict[str, Any]) -> None:
    stack.configure(local_config)


def test_every_bad_value_is_named_at_once_before_anything_exists(stack: Stack) -> None:
    stack.set(
        versoin="0.16.1", version="latest", mode="eager", maxUnavailable="0", installerImage="NOT AN IMAGE"
    )
    said = stack.try_preview()
    for key in ("soci:versoin", "soci:version", "soci:mode", "soci:maxUnavailable", "soci:installerImage"):
        assert key in said
    assert "Traceback" not in said
    assert "to create" not in said.replace("1 to create", "")  # at most the stack itself


def test_a_misspelt_key_gets_its_right_name(stack: Stack) -> None:
    stack.set(nodeSelectr={"a": "b"})
    assert "nodeSelector" in stack.try_preview().replace("nodeSelectr", "")


def test_a_value_of_another_type_is_refused_before_the_program_runs(stack: Stack) -> None:
    stack.set(rolloutTimeoutSeconds="soon")
    said = stack.try_preview()
    assert "rolloutTimeoutSeconds" in said
    assert "integer" in said


def test_a_version_that_has_no_release_is_refused_with_the_ways_out(stack: Stack) -> None:
    stack.set(version="0.99.0")
    said = stack.try_preview()
    assert "0.99.0" in said
    assert "404" in said
    assert "soci:releaseUrl" in said


def test_a_context_that_is_not_there_is_refused_with_those_that_are(stack: Stack) -> None:
    stack.set(context="nowhere")
    said = stack.try_preview()
    assert "soci:context" in said
    assert "lab" in said


def test_a_kubeconfig_that_is_not_there_is_refused(stack: Stack, tmp_path: Path) -> None:
    stack.set(kubeconfig=str(tmp_path / "absent"))
    assert "soci:kubeconfig" in stack.try_preview()


def test_what_was_set_as_a_secret_is_not_told(stack: Stack) -> None:
    stack.run("config", "set", "--secret", "soci:mode", "hunter2-and-more")
    stack.run("config", "set", "--secret", "soci:kubeconfig", "token: hunter2-and-more")
    said = stack.try_preview()
    assert "soci:mode [secret]: must be lazy or parallel" in said
    assert "soci:kubeconfig [secret]: this is no kubeconfig" in said
    assert "hunter2" not in said


def test_values_that_yaml_reads_as_something_else_are_refused(stack: Stack) -> None:
    stack.set(version=0.16, nodeSelector={"a": None}, maxUnavailable=0.5)
    said = stack.try_preview()
    for key in ("soci:version '0.16'", "a: must be text, not null", "soci:maxUnavailable '0.5'"):
        assert key in said


def test_the_kubeconfig_of_another_stack_is_accepted(stack: Stack, local_config: dict[str, Any]) -> None:
    """JSON in one line, as this product and pulumi_eks hand it out (pulumi-kubernetes#209)."""
    content = json.dumps(json.loads(Path(local_config["soci:kubeconfig"]).read_text()))
    stack.run("config", "set", "--secret", "soci:kubeconfig", content)
    assert "SociCluster" in stack.run("preview", "--non-interactive")


@pytest.fixture
def node_elsewhere(cluster: FakeNodes) -> Iterator[FakeNodes]:
    """A cluster whose only node does not carry the labels of soci:nodeSelector."""
    cluster.add("elsewhere", {})
    yield cluster
    cluster.remove("elsewhere")


def test_a_daemon_set_that_matches_no_node_fails(stack: Stack, node_elsewhere: FakeNodes) -> None:
    said = stack.try_up()
    assert "SOCI is on no node" in said
    assert "soci-cluster.io/install=true" in said
    assert "Remedy" in said
    stack.destroy()
