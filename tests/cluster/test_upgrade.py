"""Another version, configuration or rollout never breaks a pod that reads from lazily loaded layers.

Without care each of these restarts the daemon, and the pods' reads fail from then on (soci#275, #1648).
"""

import re
import time
from collections.abc import Callable

import lab_client
import pytest
from agent.slots import Slot

from tests.cluster import sample_pods
from tests.cluster.application import NAME, REPLICAS
from tests.cluster.looks import (
    SOCI_NODES,
    condition,
    containerd_starts,
    install_report,
    running_program,
    slot_in_use,
)
from tests.cluster.readers import READER, Readers
from tests.waiting import wait_for

IMAGE = "10.77.0.1:5000/sample:1-soci"
SCRIPT = "/opt/soci-cluster/soci-host.sh"
READERS = 3


@pytest.fixture
def readers(api, stack, run_pod) -> Readers:
    """Three lazily loaded pods on each node, the stack's own sample being off."""
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.must_go_up()
    names = [run_pod(IMAGE, node, ["/bin/sh", "-c", READER]) for node in SOCI_NODES for _ in range(READERS)]
    found = Readers(api, names)
    for node in SOCI_NODES:
        assert lazy_containers(node, slot_in_use(node)) >= READERS
    return found


def lazy_containers(node: str, slot: Slot) -> int:
    return len(lab_client.on_node(node, f"sh {SCRIPT} mounts {slot.name}").split())


def is_retired(node: str, slot: Slot) -> bool:
    """Whether nothing of the slot's daemon is left; its data directory is a mount point in the lab."""
    left = f"ls {slot.config} {slot.unit_path} 2>/dev/null; find {slot.data} -mindepth 1 | head -n 3"
    return not running_program(node, slot) and not lab_client.on_node(node, left)


def message(api, node: str) -> str:
    return condition(api, node).get("message", "")


@pytest.mark.full
@pytest.mark.failure_mode(29)
@pytest.mark.failure_mode(34)
def test_side_by_side_no_read_fails_whatever_changes(api, stack, readers, run_pod):
    """New version, configuration, rollout, refused uninstall; retirement; and back to the first slot."""
    old = {node: slot_in_use(node) for node in SOCI_NODES}
    processes = {node: running_program(node, old[node]) for node in SOCI_NODES}
    stack.set("soci:upgradePolicy", "side-by-side")
    stack.must_go_up()  # a rollout of the DaemonSet that changes nothing on the nodes
    readers.must_go_on()

    stack.set("soci:version", "0.16.0")
    stack.must_go_up()
    readers.must_go_on()
    newcomers = []
    for node in SOCI_NODES:
        new = old[node].other
        assert slot_in_use(node) == new
        assert running_program(node, old[node]) == processes[node]
        assert "/0.16.0/" in running_program(node, new)
        assert install_report(api, node)["containerdRestarts"] == 1
        assert re.search(r"; \d+ containers still on the old daemon", message(api, node))
        assert api.read_node(node).metadata.labels["soci-cluster.io/version"] == "0.16.0"
        # The image is known to the kubelet, but its content is not on the node (soci#1389).
        newcomers.append(run_pod(IMAGE, node))
        assert lazy_containers(node, new) == 1
        assert lazy_containers(node, old[node]) == READERS
    readers.must_go_on()

    # Both daemons are read from: there is no third place, so another change waits, and says for whom.
    stack.set("soci:indexVersions[0]", "v2", path=True)
    stack.set("soci:rolloutTimeoutSeconds", "60")
    done = stack.up()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"{READERS + 1} lazily loaded containers run on the two daemons" in said, said
    readers.must_go_on()

    starts = {node: containerd_starts(node) for node in SOCI_NODES}
    for name in newcomers:
        api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    stack.set("soci:rolloutTimeoutSeconds", "300")
    stack.must_go_up()  # the second daemon is idle, and changed in its place
    assert {node: containerd_starts(node) for node in SOCI_NODES} == starts
    assert {node: running_program(node, old[node]) for node in SOCI_NODES} == processes
    readers.must_go_on()

    for node in SOCI_NODES:
        refused = lab_client.on_node(node, f"sh {SCRIPT} remove 2>&1 || echo code=$?")
        assert "lazily loaded containers are running" in refused
        assert "code=1" in refused
        assert "new containers are created" in lab_client.on_node(
            node, f"sh {SCRIPT} retire {old[node].other.name} 2>&1 || true"
        )
    readers.must_go_on()

    readers.delete()
    for node in SOCI_NODES:
        wait_for(lambda node=node: is_retired(node, old[node]), 120, f"{node}: the old daemon is retired")
        wait_for(lambda node=node: "still on" not in message(api, node), 60, f"{node} says so")
        run_pod(IMAGE, node)
        versions = lab_client.on_node(node, "ls /opt/soci-cluster/versions").split()
        assert versions == ["0.16.0"]

    # Back to version n, which comes to be in the first slot again.
    stack.set("soci:version", "0.16.1")
    stack.must_go_up()
    for node in SOCI_NODES:
        assert slot_in_use(node) == old[node]
        assert "/0.16.1/" in running_program(node, old[node])
        run_pod(IMAGE, node)
        assert lazy_containers(node, old[node]) == 1
        assert lazy_containers(node, old[node].other) == 1


@pytest.mark.full
@pytest.mark.failure_mode(29)
def test_when_idle_the_condition_names_the_pods_and_the_node_goes_on_by_itself(api, stack, readers):
    stack.set("soci:version", "0.16.0")
    stack.set("soci:rolloutTimeoutSeconds", "60")
    done = stack.up()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    waiting = [node for node in SOCI_NODES if condition(api, node)["reason"] == "WaitingForIdle"]
    assert waiting, "maxUnavailable is 1"
    for node in waiting:
        assert condition(api, node)["status"] == "False"
        assert f"{READERS} lazily loaded containers" in message(api, node)
        assert re.search("default/test-[0-9-]+, default/test-", message(api, node)), message(api, node)
        assert f"{READERS} lazily loaded containers" in said, said
    readers.must_go_on()
    readers.delete()
    for node in SOCI_NODES:
        wait_for(
            lambda node=node: "/0.16.0/" in running_program(node, slot_in_use(node)), 90, f"{node} changed"
        )
        wait_for(lambda node=node: condition(api, node)["status"] == "True", 30, f"{node} verified")


@pytest.mark.full
@pytest.mark.failure_mode(29)
@pytest.mark.failure_mode(34)
def test_drain_keeps_to_the_disruption_budget_and_uncordons(api, stack, application):
    """Also when the installer is killed meanwhile."""
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.set("soci:upgradePolicy", "drain")
    stack.must_go_up()
    starts = {node: containerd_starts(node) for node in SOCI_NODES}
    stack.set("soci:version", "0.16.0")
    stack.set("soci:rolloutTimeoutSeconds", "60")
    done = stack.up()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"held back by a disruption budget: default/{NAME}-" in said, said
    (cordoned,) = [node for node in SOCI_NODES if api.read_node(node).spec.unschedulable]
    assert condition(api, cordoned)["reason"] == "Draining"
    assert len(application.pods()) == REPLICAS

    lab_client.on_node(cordoned, "pkill -KILL -f '^python3 -B -m agent'")
    assert api.read_node(cordoned).spec.unschedulable
    application.allow_a_disruption()
    for node in SOCI_NODES:
        wait_for(
            lambda node=node: "/0.16.0/" in running_program(node, slot_in_use(node)), 120, f"{node} changed"
        )
    for node in SOCI_NODES:
        wait_for(lambda node=node: condition(api, node)["status"] == "True", 60, f"{node} verified")
        assert not api.read_node(node).spec.unschedulable
        assert "soci-cluster.io/cordoned" not in api.read_node(node).metadata.annotations
    assert {node: containerd_starts(node) for node in SOCI_NODES} == starts


@pytest.mark.full
@pytest.mark.failure_mode(30)
def test_daemon_comes_back_without_the_registry_and_its_images_start_later(api, stack, run_pod):
    """What it served cannot be mounted again, as with expired credentials (soci#93, #487)."""
    node = SOCI_NODES[0]
    sample_pods.forget_image(node)
    name = run_pod(IMAGE, node)
    api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    wait_for(lambda: lazy_containers(node, slot_in_use(node)) == 0, 60, "the pod's end")
    assert sample_pods.fuse_mounts(node) > 0, "the layers stay with the image"
    block = "OUTPUT -p tcp --dport 5000 -j REJECT --reject-with tcp-reset"
    lab_client.on_node(node, f"iptables -I {block}")
    try:
        stack.set("soci:sampleWorkload.enabled", "false", path=True)
        stack.set("soci:version", "0.16.0")
        stack.must_go_up()
        assert "/0.16.0/" in running_program(node, slot_in_use(node))
        assert sample_pods.fuse_mounts(node) == 0
    finally:
        lab_client.on_node(node, f"iptables -D {block}")
    run_pod(IMAGE, node)
    assert lazy_containers(node, slot_in_use(node)) == 1


@pytest.mark.full
@pytest.mark.failure_mode(34)
def test_power_cut_while_both_daemons_serve_ends_on_the_new_one(api, stack, run_pod):
    node = SOCI_NODES[0]
    old = slot_in_use(node)
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.set("soci:upgradePolicy", "side-by-side")
    name = run_pod(IMAGE, node, ["/bin/sh", "-c", READER])
    stack.set("soci:version", "0.16.0")
    stack.must_go_up()
    assert (slot_in_use(node), lazy_containers(node, old)) == (old.other, 1)
    lab_client.lab("power-cut", node)
    wait_for(lambda: lazy_containers(node, old.other) == 1, 120, "the pod's new container")
    # The kubelet keeps the pod's ended container, which is the old daemon's, as long as the pod.
    assert "/0.16.1/" in running_program(node, old)
    api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    wait_for(lambda: is_retired(node, old), 180, "the old daemon is retired")


@pytest.fixture
def read_image(api, run_pod) -> Callable[[str], None]:
    """Run a pod of the image on a node until it has read a part of it, and wait for its end."""

    def read(node: str) -> None:
        name = run_pod(IMAGE, node, sample_pods.COMMAND)
        sample_pods.wait_for_ready_line(api, name, time.time() + 60)
        api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
        sample_pods.wait_until_gone(api, name, time.time() + 60)

    return read


@pytest.mark.full
def test_mode_change_restarts_no_containerd_and_the_next_pull_goes_by_it(
    api, stack, forget_whole_images, read_image
):
    """Silent full pulls are this field's typical failure (soci#1558, #1655); an image that was pulled in the
    mode before still starts."""
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.must_go_up()
    starts = {node: containerd_starts(node) for node in SOCI_NODES}
    for mode, is_lazy in (("parallel", False), ("lazy-or-parallel", True), ("lazy", True)):
        for node in SOCI_NODES:
            sample_pods.forget_image(node)
            read_image(node)
        stack.set("soci:mode", mode)
        stack.must_go_up()
        for node in SOCI_NODES:
            assert f"in {mode} mode" in message(api, node)
            read_image(node)
            sample_pods.forget_image(node)
            assert sample_pods.fuse_mounts(node) == 0
            read_image(node)
            assert (sample_pods.fuse_mounts(node) > 0) == is_lazy, f"{node} in {mode} mode"
    assert {node: containerd_starts(node) for node in SOCI_NODES} == starts


@pytest.mark.full
@pytest.mark.failure_mode(29)
def test_mode_change_side_by_side_no_read_fails(api, stack, forget_whole_images, readers, run_pod):
    """The old daemon goes on loading lazily for its containers, the new one pulls whole."""
    old = {node: slot_in_use(node) for node in SOCI_NODES}
    mounts = {node: sample_pods.fuse_mounts(node) for node in SOCI_NODES}
    stack.set("soci:upgradePolicy", "side-by-side")
    stack.set("soci:mode", "parallel")
    stack.must_go_up()
    readers.must_go_on()
    for node in SOCI_NODES:
        assert slot_in_use(node) == old[node].other
        run_pod(IMAGE, node)
        assert lazy_containers(node, old[node]) == READERS
        assert lazy_containers(node, old[node].other) == 0
        assert sample_pods.fuse_mounts(node) == mounts[node]
    readers.must_go_on()
    readers.delete()
    for node in SOCI_NODES:
        wait_for(lambda node=node: is_retired(node, old[node]), 120, f"{node}: the old daemon is retired")
        assert sample_pods.fuse_mounts(node) == 0
