"""Fixtures for the node installer: a fake host root, a fake host runner."""

import os
from pathlib import Path

import pytest

from tests.fakes.node import FakeHost

# In memory: the host script syncs each file that it writes, and on a disk the tests would wait for little.
if os.path.isdir("/dev/shm"):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")


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
