"""What `pulumi up` leaves on real nodes: one with containerd 1.7, one with 2.x."""

import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import lab_client
import pod_start
import pytest

from tests.cluster import sample_pods
from tests.cluster.looks import (
    SOCI_NODES,
    condition,
    containerd_starts,
    host_files,
    installer_pod,
    is_ready,
    running_program,
    slot_in_use,
)
from tests.waiting import wait_for

REGISTRY = "10.77.0.1:5000"


@pytest.mark.parametrize("node", SOCI_NODES)
def test_node_is_verified_labelled_and_free_of_the_startup_taint(api, node):
    described = api.read_node(node)
    assert described.metadata.labels["soci-cluster.io/version"] == "0.16.1"
    assert condition(api, node)["status"] == "True"
    assert "soci-cluster.io/not-ready" not in [taint.key for taint in described.spec.taints or []]


@pytest.mark.parametrize("node", SOCI_NODES)
def test_containerd_itself_calls_soci_its_snapshotter(deployed, node):
    dump = lab_client.on_node(node, "containerd config dump")
    assert re.search(r"""^\s*snapshotter = ["']soci["']$""", dump, re.MULTILINE)
    assert "soci" in lab_client.on_node(node, "ctr plugins ls | grep snapshotter.v1")


@pytest.mark.parametrize("image", ["sample:1-soci", "sample:1"], ids=["index v2", "index v1"])
def test_indexed_image_is_loaded_lazily(api, run_pod, image):
    """Silent full pulls are this field's typical failure: FUSE mounts are counted (soci#1558, soci#1655)."""
    node = pod_start.soci_node(api)
    sample_pods.forget_image(node)
    assert sample_pods.fuse_mounts(node) == 0
    run_pod(f"{REGISTRY}/{image}", node)
    assert sample_pods.fuse_mounts(node) > 0


def test_up_ends_with_what_came_of_the_sample(stack):
    """In one line among the outputs, also after an `up` that ran none."""
    done = stack.pulumi("stack", "output", "sampleFigures")
    assert re.search(
        r"started \d+ s after its creation, done after \d+ s; "
        r"[1-9]\d* of \d+ layers lazily loaded, \d+ of \d+ MB; "
        r"[1-9]\d* MB moved( by now, background fetch included)?$",
        done.stdout.strip(),
    ), done.stdout + done.stderr


@pytest.mark.parametrize("node", SOCI_NODES)
def test_image_without_index_still_starts(deployed, run_pod, node):
    run_pod(f"{REGISTRY}/python:3.11", node)


def test_reference_node_is_left_alone(deployed):
    files = lab_client.on_node("node3", "ls /opt/soci-cluster /var/lib/soci-cluster 2>&1 || true")
    assert files.count("No such file") == 2


def test_second_up_changes_nothing_and_touches_no_node(stack):
    before = [(containerd_starts(node), host_files(node)) for node in SOCI_NODES]
    stack.must_go_up("--expect-no-changes")
    assert [(containerd_starts(node), host_files(node)) for node in SOCI_NODES] == before


@pytest.mark.failure_mode(17)
@pytest.mark.failure_mode(38)
def test_deleting_the_installer_pods_restarts_and_writes_nothing(api, deployed):
    """gpu-operator#594, #712, dragonfly-charts#294: restarts though nothing changed."""
    before = [(containerd_starts(node), host_files(node)) for node in SOCI_NODES]
    old = {pod.metadata.uid for pod in api.list_namespaced_pod("soci-system").items}
    api.delete_collection_namespaced_pod("soci-system")

    def replaced() -> bool:
        pods = api.list_namespaced_pod("soci-system").items
        ready = [pod for pod in pods if any(c.ready for c in pod.status.container_statuses or [])]
        return len(ready) >= len(SOCI_NODES) and not old & {pod.metadata.uid for pod in ready}

    wait_for(replaced, 60, "the DaemonSet's new pods are ready")
    assert [(containerd_starts(node), host_files(node)) for node in SOCI_NODES] == before


@pytest.mark.full
@pytest.mark.failure_mode(17)
@pytest.mark.failure_mode(38)
def test_ten_deletions_ten_rollouts_and_ten_reboots_restart_containerd_by_the_boots_only(api, deployed):
    """gpu-operator#594, #712: a restart at each start of the pod."""
    before = [(containerd_starts(node), host_files(node)) for node in SOCI_NODES]
    for _ in range(10):
        old = {node: installer_pod(api, node).metadata.uid for node in SOCI_NODES}
        api.delete_collection_namespaced_pod("soci-system")
        for node in SOCI_NODES:
            wait_for(
                lambda node=node, old=old: (
                    is_ready(pod := installer_pod(api, node)) and pod.metadata.uid != old[node]
                ),
                120,
                f"a new installer is ready on {node}",
            )
    daemonset = ("daemonset/soci-installer", "--namespace", "soci-system")
    for _ in range(10):
        lab_client.lab("kubectl", "rollout", "restart", *daemonset)
        lab_client.lab("kubectl", "rollout", "status", *daemonset, "--timeout=240s")
    assert [(containerd_starts(node), host_files(node)) for node in SOCI_NODES] == before

    node, files = SOCI_NODES[0], before[0][1]
    starts = "journalctl --boot --unit containerd --output cat | grep -c '^Started containerd.service'"
    for _ in range(10):
        since = datetime.now(UTC)
        lab_client.lab("reboot", node)
        wait_for(
            lambda since=since: (
                is_ready(pod := installer_pod(api, node))
                and pod.status.container_statuses[0].state.running.started_at > since
            ),
            120,
            f"the installer is ready on {node} after the boot",
        )
        assert lab_client.on_node(node, starts).strip() == "1"
        assert host_files(node) == files


@pytest.mark.full
@pytest.mark.failure_mode(32)
def test_installer_starts_by_itself_once_the_daemon_does(api, deployed):
    """dragonfly-charts#206, #387: no pod starts without the snapshotter, so its start must need none."""
    node, before = "node1", containerd_starts("node1")
    program = "/opt/soci-cluster/versions/*/soci-snapshotter-grpc"
    lab_client.on_node(node, f"chmod -x {program}; systemctl kill --signal=KILL soci-snapshotter")
    try:
        old = installer_pod(api, node)
        api.delete_namespaced_pod(old.metadata.name, "soci-system")
        wait_for(
            lambda: (pod := installer_pod(api, node)) and pod.metadata.uid != old.metadata.uid,
            60,
            "a new pod",
        )
        new = installer_pod(api, node).metadata.name
        failures = f"journalctl -u kubelet -o cat | grep -c 'CreatePodSandbox.*{new}' || :"
        wait_for(lambda: lab_client.on_node(node, failures).strip() != "0", 60, "its sandbox fails")
        assert not is_ready(installer_pod(api, node))
    finally:
        lab_client.on_node(node, f"chmod +x {program}")
    wait_for(lambda: is_ready(installer_pod(api, node)), 90, "the installer is ready")
    assert condition(api, node)["status"] == "True"
    assert containerd_starts(node) == before


@pytest.mark.slow
@pytest.mark.failure_mode(46)
def test_wrong_digest_fails_the_up_with_the_cause_and_leaves_the_node_as_it_was(api, stack):
    """Kata #7961: unverified downloads were unpacked on the host."""
    before = [(containerd_starts(node), host_files(node)) for node in SOCI_NODES]
    stack.set("soci:version", "0.16.0")
    stack.set("soci:sha256.amd64", "0" * 64, path=True)
    stack.set("soci:sha256.arm64", "0" * 64, path=True)
    stack.set("soci:rolloutTimeoutSeconds", "45")
    done = stack.up()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert any(node in said for node in SOCI_NODES), said
    assert all(words in said for words in ("with sha256", "soci:sha256", "Remedy")), said
    assert [(containerd_starts(node), host_files(node)) for node in SOCI_NODES] == before


@contextmanager
def daemon_that_refuses(node: str, version: str, line: str) -> Generator[None]:
    """The node's daemon prints a line, then another, and does not start when its unit names the version."""
    unit = slot_in_use(node).unit_path
    folder, drop_in = f"{unit}.d", f"{unit}.d/90-test.conf"
    pattern = f"/{version}/".replace(".", "[.]")
    command = f"/bin/sh -c 'grep -q {pattern} {unit} || exit 0; echo {line}; echo giving up; exit 1'"
    text = f"[Service]\nExecStartPre={command}\n"
    lab_client.on_node(
        node, f"mkdir -p {folder} && cat >{drop_in} <<'END' && systemctl daemon-reload\n{text}END"
    )
    try:
        yield
    finally:
        lab_client.on_node(
            node, f"rm {drop_in}; rmdir --ignore-fail-on-non-empty {folder}; systemctl daemon-reload"
        )


@pytest.mark.full
@pytest.mark.failure_mode(13)
def test_failed_up_shows_the_end_of_the_nodes_journal_and_a_mended_node_goes_on(api, stack):
    """nydus-snapshotter#796: a daemon that never comes up; containerd is not touched."""
    node, line = SOCI_NODES[0], "the-daemon-does-not-like-this-node"
    slot, starts = slot_in_use(node), containerd_starts(node)
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.must_go_up()
    stack.set("soci:version", "0.16.0")
    stack.set("soci:rolloutTimeoutSeconds", "60")
    with daemon_that_refuses(node, "0.16.0", line):
        done = stack.up()
        said = done.stdout + done.stderr
        assert done.returncode != 0
        reason = f"node {node}: step snapshotter: {slot.unit} did not start: giving up. Remedy: "
        assert reason in said, said
        assert f"| {line}" in said, said
        wait_for(lambda: "/0.16.1/" in running_program(node, slot), 30, "the old daemon runs again")
        assert containerd_starts(node) == starts

    wait_for(lambda: "/0.16.0/" in running_program(node, slot), 180, f"{node} goes on by itself")
    wait_for(lambda: condition(api, node)["status"] == "True", 60, f"{node} verified")
    assert containerd_starts(node) == starts


@pytest.mark.failure_mode(34)
def test_version_change_swaps_the_daemon_and_leaves_containerd_running(api, stack):
    """runtime-class-manager#577: the running version is read from the process, not from a marker."""
    before = [containerd_starts(node) for node in SOCI_NODES]
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.must_go_up()
    stack.set("soci:version", "0.16.0")
    stack.must_go_up()
    for node in SOCI_NODES:
        running = lab_client.on_node(
            node, "readlink /proc/$(systemctl show soci-snapshotter -p MainPID --value)/exe"
        )
        assert "/0.16.0/" in running
        assert api.read_node(node).metadata.labels["soci-cluster.io/version"] == "0.16.0"
    assert [containerd_starts(node) for node in SOCI_NODES] == before


@pytest.mark.failure_mode(35)
@pytest.mark.parametrize("way", [pytest.param("reboot", marks=pytest.mark.slow), "power-cut"])
def test_node_comes_back_on_soci(api, deployed, run_pod, way):
    """gpu-operator#1651, #1734: configurations lost by a reboot."""
    files = host_files("node1")
    lab_client.lab(way, "node1")
    started = time.time()
    wait_for(lambda: ready(api, "node1", since=started), 90, f"node1 Ready after {way}")
    assert host_files("node1") == files
    run_pod(f"{REGISTRY}/sample:1-soci", "node1")
    assert sample_pods.fuse_mounts("node1") > 0


def ready(api, node: str, since: float) -> bool:
    conditions = {entry.type: entry for entry in api.read_node(node).status.conditions}
    heartbeat = conditions["Ready"].last_heartbeat_time.timestamp()
    return conditions["Ready"].status == "True" and heartbeat >= since
