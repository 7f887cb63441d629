"""The lab with the `local` stack deployed on it, as `make up` leaves it; kept running between sessions."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lab_client
import pytest
from kubernetes.client.exceptions import ApiException
from lab_client import REPOSITORY

from tests.cluster import sample_pods
from tests.cluster.application import Application
from tests.cluster.lab_stack import LabStack
from tests.cluster.looks import SOCI_NODES
from tests.waiting import wait_for


@pytest.fixture(scope="session")
def deployed() -> dict[str, str]:
    """The engine's environment, once the lab is up and the untouched `local` stack is deployed."""
    if os.geteuid() != 0:
        pytest.fail("the cluster tests start real nodes and need root: run `sudo make cluster`")
    lab_client.lab("up")
    environment = lab_client.engine_environment()
    select = ["pulumi", "stack", "select", "--create", "local"]
    subprocess.run(select, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    up = ["pulumi", "up", "--stack", "local", "--yes", "--non-interactive"]
    done = subprocess.run(up, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@pytest.fixture
def stack(deployed: dict[str, str], tmp_path: Path) -> Iterator[LabStack]:
    """The deployed stack; whatever a test makes of it is put back afterwards."""
    own = LabStack(deployed, tmp_path)
    yield own
    restored = LabStack(deployed, tmp_path)
    restored.must_go_up()


@pytest.fixture(scope="session")
def api(deployed: dict[str, str]):
    """The cluster's core API (kubernetes.client.CoreV1Api)."""
    return lab_client.kubernetes_api()


@pytest.fixture
def run_pod(api) -> Iterator[Callable[..., str]]:
    """Start a pod and return its name once it runs; every pod is deleted after the test."""
    names: list[str] = []

    def run(
        image: str, node: str, command: list[str] | None = None, timeout_s: float = 120, **metadata: object
    ) -> str:
        name = f"test-{os.getpid()}-{len(names)}-{time.monotonic_ns() % 10**6}"
        container = {"name": "main", "image": image, "command": command or ["/bin/sh", "-c", "sleep 3600"]}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        api.create_namespaced_pod("default", {"metadata": {"name": name, **metadata}, "spec": spec})
        names.append(name)
        wait_for(
            lambda: api.read_namespaced_pod(name, "default").status.phase == "Running",
            timeout_s,
            f"pod {name}",
        )
        return name

    yield run
    for name in names:
        with contextlib.suppress(ApiException):  # the test may have deleted it
            api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


@pytest.fixture
def forget_whole_images(stack: LabStack) -> Iterator[None]:
    """For tests that pull the sample image whole: it would be whole for the next test, too, under SOCI."""
    yield
    for node in SOCI_NODES:
        wait_for(
            lambda node=node: "/sample" not in lab_client.on_node(node, "ctr -n k8s.io containers ls"),
            120,
            f"no container of the sample on {node}",
        )
        sample_pods.forget_image(node)


@pytest.fixture
def application(api) -> Iterator[Application]:
    """Two lazily loaded pods of a controller on nodes with SOCI, and a budget that allows no disruption."""
    made = Application(api)
    yield made
    made.delete()
