"""The README's example of reuse: the package as it is installed, in a program of somebody else's."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.fake_cluster import ControlPlane, FakeNodes
from tests.engine.project_stack import PATIENCE_S, QUIET, REPOSITORY


@pytest.fixture
def project(control_plane: ControlPlane, release_url: str, tmp_path: Path) -> Path:
    """A project of the user's own, whose program is the README's."""
    example = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert example
    # Only where the release is has to be another place: the example's is on the internet.
    version = '"version": "0.16.1",'
    assert version in example[1]
    program = example[1].replace(version, f'{version} "release_url": "{release_url}",')
    (tmp_path / "__main__.py").write_text(program)
    (tmp_path / "Pulumi.yaml").write_text("name: mine\nruntime: python\n")
    (tmp_path / "kubeconfig").symlink_to(control_plane.kubeconfig)
    return tmp_path


@pytest.fixture
def gpu_node(cluster: FakeNodes) -> Iterator[str]:
    """A node that the example's selector chooses."""
    cluster.add("gpu-1", {"node-pool": "gpu"})
    yield "/api/v1/nodes/gpu-1"
    cluster.remove("gpu-1")


def test_the_readmes_program_installs_soci_on_the_chosen_nodes(
    project: Path, package: Path, environment: dict[str, str], cluster: FakeNodes, gpu_node: str
) -> None:
    path = f"{package}{os.pathsep}{environment.get('PYTHONPATH', '')}"

    def pulumi(*arguments: str) -> None:
        done = subprocess.run(
            ["pulumi", *arguments],
            cwd=project,
            env={**environment, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    pulumi("stack", "init", "reuse")
    try:
        pulumi("up", *QUIET)
        node = cluster.api.call("GET", gpu_node)
        assert node["metadata"]["labels"]["soci-cluster.io/version"] == "0.16.1"
    finally:
        pulumi("destroy", *QUIET)
