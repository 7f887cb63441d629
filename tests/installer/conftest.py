"""Fixtures for the node installer: a fake host root, a fake host runner, a node for the host script."""

import os

from tests.fakes.fixtures import fake_host, node, root  # noqa: F401

# In memory: the host script syncs each file that it writes, and on a disk the tests would wait for little.
if os.path.isdir("/dev/shm"):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")
