"""A cluster and a node group of the user's own, as examples/own-eks-cluster has them, through other nodes."""

from collections.abc import Iterator

import pytest

from tests.engine.fake_cluster import FakeNodes
from tests.engine.project_stack import QUIET, REPOSITORY, Project

pytestmark = pytest.mark.slow

FAILURE = "download: the mirror is away. Remedy: mend it"
EXAMPLE = (REPOSITORY / "examples/own-eks-cluster/__main__.py").read_text()


def program(instance_type: str) -> str:
    """The example with nodes of this type, this repository's package, no download and little patience."""
    text = EXAMPLE
    for old, new in (
        ("import pulumi\n", f"import sys\n\nsys.path.insert(0, {str(REPOSITORY)!r})\nimport pulumi\n"),
        ("from soci_cluster import", "from components import"),
        ("m6i.xlarge", instance_type),
        (
            '"version": "0.16.1",',
            '"version": "0.16.1", "sha256": {"amd64": "a" * 64}, "rollout_timeout_seconds": 30,',
        ),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.fixture
def project(
    cluster: FakeNodes, aws_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("own"), aws_environment, program("m6i.xlarge"))
    project.config(**{"aws:region": "eu-west-1"})
    yield project
    cluster.failing.clear()
    done = project.pulumi("destroy", *QUIET)
    assert done.returncode == 0, done.stdout


def test_the_nodes_of_a_replaced_group_serve_until_the_new_ones_do(
    project: Project, cluster: FakeNodes
) -> None:
    """Without `nodes` nothing of the DaemonSet changes, and the old group is deleted at once."""
    project.up()
    old = cluster.fail_on_new_nodes(FAILURE)
    assert len(old) == 2
    (project.directory / "__main__.py").write_text(program("m7i.xlarge"))
    done = project.pulumi("up", *QUIET)
    assert done.returncode != 0, done.stdout
    new = set(cluster.serving()) - old
    assert len(new) == 2
    for node in new:
        assert f"node {node}: step {FAILURE}" in done.stdout
    assert cluster.serving() == dict.fromkeys(old, True) | dict.fromkeys(new, False)
    cluster.failing.clear()
    project.up()
    assert cluster.serving() == dict.fromkeys(new, True)
    project.up("--expect-no-changes")
