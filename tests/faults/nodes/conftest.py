"""Real nodes for faults: each is fresh and without SOCI, and the agent is driven from this machine.

Without `--full` a quick subset runs, on the newest containerd only.
"""

import os
from collections.abc import Iterator

import lab_client
import pytest
from processes import Processes
from settings import state_directory

from tests.faults.nodes.lab_node import Health, LabNode, Pods
from tests.faults.nodes.pool import CONTAINERD, Pool, is_full


def names_of(mark: pytest.Mark) -> list[str]:
    """The arguments that a parametrize marker gives."""
    return mark.args[0].replace(",", " ").split() if isinstance(mark.args[0], str) else list(mark.args[0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = {name for mark in metafunc.definition.iter_markers("parametrize") for name in names_of(mark)}
    if "containerd" in metafunc.fixturenames and "containerd" not in chosen:
        versions = CONTAINERD if is_full(metafunc.config) else CONTAINERD[-1:]
        metafunc.parametrize("containerd", versions, scope="session")


@pytest.fixture(scope="session")
def lab() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests start real nodes and need root")
    running = Processes(state_directory())
    if not all(running.pid(name) for name in ("kube-apiserver", "registry", "releases")):
        lab_client.lab("up")


@pytest.fixture(scope="session")
def pool(lab: None) -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for node, _ in pool.fresh.values():
        pool.discard(node)


@pytest.fixture
def node(pool: Pool, containerd: str) -> Iterator[LabNode]:
    """A fresh node that runs this containerd, ready for a fault."""
    taken = pool.take(containerd)
    yield taken
    # Traces of a failed install are what the next test must not find.
    if taken.machine.leader and not taken.host.exists("/var/lib/soci-cluster/current"):
        taken.run(["rm", "-rf", "/var/lib/soci-cluster", "/opt/soci-cluster", "/run/soci-cluster-hook"])


@pytest.fixture
def pods(lab: None) -> Iterator[Pods]:
    pods = Pods()
    yield pods
    pods.close()


@pytest.fixture
def health(node: LabNode, pods: Pods) -> Health:
    return Health.before(node, pods)
