"""The stand-ins of a node as fixtures; a conftest imports what the tests beside it use."""

from pathlib import Path

import pytest

from tests.fakes.node import FakeHost
from tests.fakes.script_node import ScriptNode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory that stands for a node's root."""
    path = tmp_path / "host"
    path.mkdir()
    return path


@pytest.fixture
def fake_host(root: Path) -> FakeHost:
    """A host without any file, whose commands are all missing."""
    return FakeHost(root)


@pytest.fixture
def node(tmp_path: Path) -> ScriptNode:
    """A node on which the host script runs for real."""
    return ScriptNode(tmp_path)
