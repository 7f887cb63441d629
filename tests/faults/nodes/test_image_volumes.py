"""Image volumes: a pod mounts an image, lazily served like a container's root, but by no container."""

import pytest
from agent import transaction

from tests.faults.nodes.lab_node import SAMPLE_WITH_INDEX, LabNode, Pods
from tests.faults.nodes.pool import CONTAINERD, Pool
from tests.waiting import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def node(pool: Pool) -> LabNode:
    """A fresh node of a series that has image volumes (containerd 2.1 or newer)."""
    return pool.take(CONTAINERD[-1])


@pytest.mark.failure_mode(29)
def test_image_volume_holds_up_the_uninstall_and_goes_when_it_is_forced(node: LabNode, pods: Pods) -> None:
    """soci#275, #1648: a restart of the daemon would break the volume for good, so it counts as a user."""
    before = node.files()
    node.install()
    pod = pods.create(node, volume_image=SAMPLE_WITH_INDEX)
    pods.await_running(pod)
    script = transaction.SCRIPT
    users = node.sh(f"{script} mounts soci").split()
    assert any("/image-volumes/" in mount for mount in users)
    refused = node.run(["sh", script, "remove"])
    assert refused.code != 0
    assert f"lazily loaded containers are running: default/{pod}" in refused.error
    assert pods.restarts(pod) == 0
    node.sh(f"{script} remove --force")
    assert node.files() == before
    wait_for(lambda: pods.restarts(pod) > 0, 60, "the kubelet makes the pod's containers anew")
    pods.await_running(pod)
    assert node.effective_snapshotter() != "soci"
