"""Real nodes for faults: each is fresh and without SOCI, and the agent is driven from this machine.

Without `--full` a quick subset runs, on the newest containerd only.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("lab_node")

from lab_node import VERSIONS, Health, LabNode, Pods, lab_client  # noqa: E402 (rewritten by the line above)
from processes import Processes  # noqa: E402
from settings import state_directory  # noqa: E402

CONTAINERD = tuple(sorted({node["containerd"] for node in VERSIONS["nodes"].values()}))


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--full", default=False))


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


class Pool:
    """A fresh node per containerd version, kept while tests leave it as it was."""

    def __init__(self) -> None:
        self.made = 0
        self.fresh: dict[str, tuple[LabNode, dict[str, str]]] = {}

    def take(self, containerd: str) -> LabNode:
        node, files = self.fresh.pop(containerd, (None, {}))
        if node and self._is_fresh(node, files):
            self.fresh[containerd] = node, files
            return node
        if node:
            self.discard(node)
        node = self.make(containerd)
        self.fresh[containerd] = node, node.files()
        return node

    def make(self, containerd: str) -> LabNode:
        self.made += 1
        name = f"f{os.getpid() % 100000}-{self.made}"
        options = ["--containerd", containerd, "--no-taint", "--label", "soci-cluster.io/faults=true"]
        lab_client.lab("add-node", name, *options)
        return LabNode(name)

    def _is_fresh(self, node: LabNode, files: dict[str, str]) -> bool:
        if not node.machine.leader or node.files() != files:
            return False
        left = node.sh("ls -d /var/lib/soci-cluster /opt/soci-cluster 2>/dev/null || :")
        return not left and node.cri_answers()

    def discard(self, node: LabNode) -> None:
        with contextlib.suppress(Exception):
            lab_client.lab("remove-node", node.name)


@pytest.fixture(scope="session")
def pool(lab: None) -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for node, _ in pool.fresh.values():
        pool.discard(node)


@pytest.fixture
def node(pool: Pool, containerd: str) -> Iterator[LabNode]:
    """A fresh node that runs this containerd, ready to be broken."""
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
