"""Which containerds the tests on real nodes run, and the fresh nodes they take."""

import contextlib
import os

import lab_client
import pytest
from settings import VERSIONS

from tests.faults.nodes.lab_node import LabNode

CONTAINERD = tuple(sorted({node["containerd"] for node in VERSIONS["nodes"].values()}))


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--full", default=False))


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
