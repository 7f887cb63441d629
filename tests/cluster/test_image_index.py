"""ImageIndex on real kubelets: its pod pushes by a Secret, and what it made is loaded lazily."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import base
import binaries
import images
import lab_client
import pytest
from awkward_registry import Auth, AwkwardRegistry, User
from settings import ADDRESS, REGISTRY

from tests.cluster import lazy_images
from tests.cluster.looks import SOCI_NODES, doctor
from tests.engine.project_stack import QUIET, Project

pytestmark = pytest.mark.slow
NODE = SOCI_NODES[0]
REPOSITORY, PASSWORD = "indexed/app", "correct horse"
PYTHON_WITH_ORAS = "python-with-oras"
PROGRAM = """
import pulumi, pulumi_kubernetes as k8s
from components import ImageIndex

cluster = k8s.Provider("cluster", kubeconfig={kubeconfig!r})
index = ImageIndex("index", {arguments!r}, opts=pulumi.ResourceOptions(provider=cluster))
pulumi.export("images", index.images)
"""


def push_python_with_oras() -> str:
    """Push the lab's Python image with oras in a layer on top, as a cluster without internet has it.

    The oras that is built here is not the release whose digest soci-index checks.
    """
    oras = (binaries.build("oras") / "oras").read_bytes()
    if not lazy_images.is_there(PYTHON_WITH_ORAS):
        with tempfile.TemporaryDirectory() as scratch:
            layers = [
                images.tree_layer(base.python_root()),
                lambda archive: images.add_file(archive, "usr/local/bin/oras", oras, 0o755),
            ]
            images.write_layout(Path(scratch), layers, {"Env": [images.DEFAULT_PATH]})
            lazy_images.push_layout(Path(scratch), PYTHON_WITH_ORAS)
    return f"{REGISTRY}/{PYTHON_WITH_ORAS}:1"


@pytest.fixture
def registry() -> Iterator[AwkwardRegistry]:
    """One before the lab's own, in which only the user robot may push."""
    made = AwkwardRegistry(f"http://{REGISTRY}", ADDRESS)
    made.writes, made.auth, made.users = True, Auth.BASIC, {"robot": User(PASSWORD)}
    yield made
    made.close()


def test_its_pod_indexes_an_image_with_the_secrets_credentials_and_the_image_is_lazy_then(
    deployed: dict[str, str], registry: AwkwardRegistry, run_pod, tmp_path: Path
) -> None:
    lazy_images.push_without_index(REPOSITORY, lazy_images.LARGE)
    image = f"{registry.name}/{REPOSITORY}:1"
    arguments = {
        "images": [image],
        "plain_http": [registry.name],
        "index_credentials": [{"registry": registry.name, "username": "robot", "password": PASSWORD}],
        "installer_image": push_python_with_oras(),
        "release_url": f"http://{ADDRESS}:8080/releases",
    }
    kubeconfig = (lab_client.LAB_DIRECTORY / "kubeconfig").read_text()
    environment = {**deployed, "PYTHONPATH": str(lab_client.REPOSITORY)}
    program = PROGRAM.format(kubeconfig=kubeconfig, arguments=arguments)
    project = Project(tmp_path, environment, program)
    try:
        project.up()
        assert json.loads(project.pulumi("stack", "output", "--json").stdout) == {"images": [f"{image}-soci"]}
        pushed = [request.user for request in registry.requests(method="PUT") if request.status < 300]
        assert set(pushed) == {"robot"}
        run_pod(f"{REGISTRY}/{REPOSITORY}:1-soci", NODE)
        (report,) = doctor(NODE)[1]["nodes"]
        served = {name: found["served"] for found in report["images"] for name in found["names"]}
        assert served[f"{REGISTRY}/{REPOSITORY}:1-soci"] == "lazy"
        project.up("--expect-no-changes")
    finally:
        project.pulumi("destroy", *QUIET)
