"""Taking SOCI off nodes: by setting, by `pulumi destroy`, by hand, and when the cluster forgot us first."""

import time
from collections.abc import Iterator

import lab_client
import pytest
from nodes import Node, containerd_configuration

from tests.cluster import sample_pods
from tests.cluster.lab_stack import LabStack
from tests.cluster.looks import SOCI_NODES, condition, containerd_starts, host_files, installer_pod, is_ready
from tests.cluster.readers import READER, Readers
from tests.waiting import wait_for

REGISTRY = "10.77.0.1:5000"
LAZY_IMAGE = f"{REGISTRY}/sample:1-soci"
VERSION_LABEL = "soci-cluster.io/version"
PATIENCE_S = 240
TRACES = """
cd /
ls -d opt/soci-cluster var/lib/soci-cluster* etc/soci-snapshotter-grpc* run/soci-snapshotter-grpc* 2>/dev/null
find etc/systemd -name '*soci*'
find var/lib/soci-snapshotter-grpc -mindepth 1
grep ' fuse.rawBridge ' /proc/mounts
systemctl list-units --all --plain --no-legend --type=service,socket,timer '*soci*'
ctr -n k8s.io containers ls -q 2>/dev/null | while read -r id; do
    ctr -n k8s.io containers info "$id" 2>/dev/null | grep '"Snapshotter": "soci'
done
ctr plugins ls 2>/dev/null | grep 'snapshotter.v1 *soci'
true
"""


def tree(node: str) -> str:
    """Every file, link and directory that an install could have touched, with mode, owner and digest."""
    return lab_client.on_node(
        node,
        "cd / && find etc opt var/lib/soci-cluster var/lib/soci-snapshotter-grpc 2>/dev/null"
        " -printf '%y %m %U:%G %p %l\\n' | sort && find etc opt -type f -exec sha256sum {} + | sort -k 2",
    )


def traces(node: str) -> str:
    """What is left of SOCI on a node: files, units, mounts, containers; empty when there is nothing."""
    return lab_client.on_node(node, TRACES).strip()


def marks(api, node: str) -> list[object]:
    """What is left of SOCI in the node's object; empty when there is nothing."""
    described = api.read_node(node)
    keys = [*described.metadata.labels, *(described.metadata.annotations or {})]
    taints = [taint.key for taint in described.spec.taints or []]
    return [key for key in [*keys, *taints] if key in (VERSION_LABEL, "soci-cluster.io/not-ready")] + list(
        filter(None, [condition(api, node)])
    )


def snapshotter_in_effect(node: str) -> str:
    """What containerd's own view of its configuration calls the snapshotter of images."""
    dump = lab_client.on_node(node, "containerd config dump 2>/dev/null")
    found = [line.split("=")[1] for line in dump.splitlines() if line.strip().startswith("snapshotter = ")]
    return next(value.strip().strip("'\"") for value in found if value.strip().strip("'\""))


def pod_addresses(node: str) -> list[str]:
    """The pod addresses that the node's network plug-in holds reserved."""
    return sorted(lab_client.on_node(node, "ls /var/lib/cni/networks/lab | grep '^[0-9]' || true").split())


def lost_addresses(api, node: str) -> set[str]:
    """Those that no pod has: of a sandbox that a power cut ended while it was made."""
    pods = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    return set(pod_addresses(node)) - {pod.status.pod_ip for pod in pods}


def assert_clean(api, node: str) -> None:
    """The node is what it was before the first install, and its containerd runs on its own configuration."""
    assert traces(node) == ""
    assert marks(api, node) == []
    containerd = Node.load(lab_client.LAB_DIRECTORY, node).spec.containerd
    own = containerd_configuration(containerd)
    assert lab_client.on_node(node, "cat /etc/containerd/config.toml").strip() == own.strip()
    assert snapshotter_in_effect(node) == "overlayfs"


def is_clean(api, node: str) -> bool:
    return traces(node) == "" and marks(api, node) == []


def workloads(node: str) -> str:
    """The containers of pods in the namespace `default` that run on the node."""
    query = 'labels."io.kubernetes.pod.namespace"==default'
    # A pod's ended sandbox stays in the list for up to a minute.
    running = '"$(ctr -n k8s.io tasks ls -q 2>/dev/null)"'
    listed = f"ctr -n k8s.io containers ls -q '{query}' 2>/dev/null"
    return lab_client.on_node(node, f"{listed} | grep -xF {running} || true")


def lazy_mounts(node: str) -> str:
    """The root directories of the running containers that SOCI serves."""
    return lab_client.on_node(node, "/opt/soci-cluster/soci-host.sh mounts")


# The garbage collection takes a snapshot, and its name stays in the layer below (containerd, metadata/gc.go).
COLLECT_CHILDREN = """
soci() { ctr -n k8s.io snapshots --snapshotter soci "$@"; }
soci ls | awk '$NF == "Committed" { print $1 }' | while read -r chain; do
    soci prepare "child-$chain" "$chain" >/dev/null
    soci label "child-$chain" containerd.io/gc.root= >/dev/null
done
ctr -n k8s.io leases create --id collect >/dev/null
ctr -n k8s.io leases rm --sync collect >/dev/null
soci ls | grep -c child- || true
"""


def kubectl(*arguments: str) -> None:
    lab_client.lab("kubectl", *arguments)


def destroy(stack: LabStack) -> None:
    done = stack.pulumi("destroy", "--yes", "--non-interactive")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def restored(api, stack: LabStack) -> Iterator[LabStack]:
    """The stack, for tests that delete its objects behind its back; whole again afterwards."""
    yield stack
    # What is still going would be taken for there, and then waited for in vain.
    wait_for(
        lambda: all(found.status.phase == "Active" for found in api.list_namespace().items),
        PATIENCE_S,
        "no namespace is going any more",
    )
    stack.must_go_up("--refresh")


@pytest.fixture(params=["1.7.35", "2.3.7"], ids=["containerd 1.7", "containerd 2.3"])
def bystander(request, api, deployed) -> Iterator[str]:
    """A further node, which the installer does not know yet; removed from cluster and lab afterwards."""
    arguments = ("--containerd", request.param, "--no-taint", "--label", "soci-cluster.io/bystander=true")
    lab_client.lab("add-node", "bystander", *arguments)
    yield "bystander"
    lab_client.lab("remove-node", "bystander")


@pytest.mark.full
@pytest.mark.failure_mode(24)
@pytest.mark.failure_mode(39)
@pytest.mark.failure_mode(41)
def test_three_rounds_by_hand_without_an_api_server_leave_every_byte_as_it_was(api, bystander, run_pod):
    """kata-containers#10167; coco-operator#270, nydus-snapshotter#488: leftovers in containerd's metadata."""
    node = bystander
    before = tree(node)
    kubectl("label", "node", node, "soci-cluster.io/install=true")
    block = "iptables -{} OUTPUT -p tcp --dport 6443 -j DROP"
    for _ in range(3):
        wait_for(lambda: condition(api, node).get("status") == "True", PATIENCE_S, f"{node} verified")
        pod = run_pod(LAZY_IMAGE, node)
        assert sample_pods.fuse_mounts(node) > 0
        api.delete_namespaced_pod(pod, "default", grace_period_seconds=0)
        wait_for(lambda: lazy_mounts(node) == "", 60, "the lazy pod is gone")
        old = installer_pod(api, node).metadata.name
        lab_client.on_node(node, block.format("A"))
        lab_client.on_node(node, "/opt/soci-cluster/soci-host.sh remove")
        assert tree(node) == before
        assert traces(node) == ""
        assert snapshotter_in_effect(node) == "overlayfs"
        lab_client.on_node(node, block.format("D"))
        kubectl("label", "node", node, f"{VERSION_LABEL}-")
        api.patch_node_status(node, {"status": {"conditions": [{"type": "SociReady", "$patch": "delete"}]}})
        api.delete_namespaced_pod(old, "soci-system")


@pytest.mark.full
@pytest.mark.failure_mode(24)
@pytest.mark.failure_mode(41)
@pytest.mark.failure_mode(42)
def test_absent_then_present_then_destroy_leave_every_byte_as_it_was(api, stack, bystander, run_pod):
    """kata-containers#10167: deploy, cleanup, deploy; coco-operator#270: leftovers meet the next install."""
    node = bystander
    before = tree(node)
    kubectl("label", "node", node, "soci-cluster.io/install=true")

    def load_lazily() -> None:
        wait_for(lambda: condition(api, node).get("status") == "True", PATIENCE_S, f"{node} verified")
        pod = run_pod(LAZY_IMAGE, node)
        assert sample_pods.fuse_mounts(node) > 0
        api.delete_namespaced_pod(pod, "default", grace_period_seconds=0)
        wait_for(lambda: workloads(node) == "", 60, "the lazy pod is gone")

    def assert_as_before() -> None:
        wait_for(lambda: is_clean(api, node), PATIENCE_S, f"{node} clean")
        assert tree(node) == before
        assert_clean(api, node)

    load_lazily()
    stack.set("soci:state", "absent")
    stack.must_go_up()
    assert_as_before()

    stack.set("soci:state", "present")
    stack.must_go_up()
    load_lazily()
    destroy(stack)
    assert_as_before()


@pytest.mark.slow
@pytest.mark.failure_mode(40)
@pytest.mark.failure_mode(42)
def test_absent_is_refused_under_a_lazy_pod_and_leaves_nothing_without_it(
    api, stack, forget_whole_images, run_pod
):
    """soci#275, #1648: a daemon pulled from under its mounts breaks pods for good. kata-containers#11072: the
    old configuration is in effect. cilium#31943: no mark stays."""
    node = SOCI_NODES[1]
    lost = {name: lost_addresses(api, name) for name in SOCI_NODES}
    pod = run_pod(LAZY_IMAGE, node)
    assert lazy_mounts(node), "the pod is lazily loaded"
    stack.set("soci:state", "absent")
    stack.set("soci:rolloutTimeoutSeconds", "75")
    done = stack.up()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"node {node}: step uninstall: lazily loaded containers are running: default/{pod}" in said
    assert "soci:forceUninstall" in said
    assert condition(api, node)["reason"] == "UninstallRefused"
    assert VERSION_LABEL in api.read_node(node).metadata.labels
    assert sample_pods.fuse_mounts(node) > 0

    api.delete_namespaced_pod(pod, "default", grace_period_seconds=0)
    stack.set("soci:rolloutTimeoutSeconds", "300")
    stack.must_go_up()
    for name in SOCI_NODES:
        assert_clean(api, name)
        # Only the installer's own pod is left; the addresses of the ended sandboxes are given back.
        wait_for(
            lambda name=name: len({*pod_addresses(name)} - lost[name]) <= 1, 90, f"addresses of {name} freed"
        )
    # The image that was loaded lazily has no layers on the node: it is pulled, whole, and starts.
    run_pod(LAZY_IMAGE, node)
    assert sample_pods.fuse_mounts(node) == 0


@pytest.mark.full
@pytest.mark.failure_mode(42)
def test_a_node_that_joins_while_soci_is_absent_is_schedulable(api, stack):
    """cilium#31943: taints of nodes that joined during an uninstall stayed for ever."""
    stack.set("soci:state", "absent")
    stack.must_go_up()
    lab_client.lab("add-node", "late")
    try:
        wait_for(lambda: marks(api, "late") == [], 90, "the startup taint is lifted")
        assert traces("late") == ""
    finally:
        lab_client.lab("remove-node", "late")


@pytest.mark.failure_mode(24)
@pytest.mark.failure_mode(41)
def test_destroy_and_up_again(api, stack, run_pod):
    """kata-containers#10167: deploy, cleanup, deploy. A layer whose child was collected could not be removed
    from containerd's records, and no later install found the node fit."""
    for node in SOCI_NODES:
        assert lab_client.on_node(node, COLLECT_CHILDREN).strip() == "0"
    destroy(stack)
    for node in SOCI_NODES:
        assert_clean(api, node)
        pod = run_pod(f"{REGISTRY}/python:3.11", node)
        api.delete_namespaced_pod(pod, "default", grace_period_seconds=0)
        wait_for(
            lambda node=node: workloads(node) == "", 60, f"no workload on {node}, which is not in service"
        )
    stack.must_go_up()
    for node in SOCI_NODES:
        run_pod(LAZY_IMAGE, node)
        assert sample_pods.fuse_mounts(node) > 0


@pytest.mark.full
@pytest.mark.failure_mode(29)
@pytest.mark.failure_mode(41)
def test_destroy_leaves_a_lazily_read_node_to_its_pod_and_the_next_up_takes_it_over(api, stack, run_pod):
    """soci#275, #1648. `pulumi destroy` does not show the refusal; condition, label and Event do."""
    clean, busy = SOCI_NODES
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.must_go_up()
    readers = Readers(api, [run_pod(LAZY_IMAGE, busy, ["/bin/sh", "-c", READER])])
    files, starts = host_files(busy), containerd_starts(busy)
    destroy(stack)

    def events() -> list[str]:
        of_node = f"involvedObject.kind=Node,involvedObject.name={busy},reason=UninstallRefused"
        return [event.message for event in api.list_namespaced_event("default", field_selector=of_node).items]

    cause = f"step uninstall: lazily loaded containers are running: default/{readers.names[0]}"
    wait_for(lambda: any(cause in said for said in events()), 30, "an Event that names the pod")
    refused = condition(api, busy)
    assert (refused["status"], refused["reason"]) == ("True", "UninstallRefused")
    assert readers.names[0] in refused["message"]
    assert VERSION_LABEL in api.read_node(busy).metadata.labels
    assert (host_files(busy), containerd_starts(busy)) == (files, starts)
    assert sample_pods.fuse_mounts(busy) > 0
    readers.must_go_on()
    wait_for(lambda: is_clean(api, clean), PATIENCE_S, f"{clean} clean")
    assert_clean(api, clean)

    readers.delete()
    wait_for(lambda: workloads(busy) == "", 60, "the lazy pod is gone")
    stack.must_go_up()
    for node in SOCI_NODES:
        assert condition(api, node)["reason"] == "Verified"
    assert (host_files(busy), containerd_starts(busy)) == (files, starts)
    destroy(stack)
    for node in SOCI_NODES:
        wait_for(lambda node=node: is_clean(api, node), PATIENCE_S, f"{node} clean")
        assert_clean(api, node)


@pytest.mark.full
@pytest.mark.failure_mode(39)
def test_namespace_deleted_first(api, restored):
    """sysbox#688, nydus-snapshotter#740. The namespace takes the pods before their DaemonSet."""
    kubectl("delete", "namespace", "soci-system", "--wait=false")
    for node in SOCI_NODES:
        wait_for(lambda node=node: is_clean(api, node), PATIENCE_S, f"{node} clean")
        assert_clean(api, node)


@pytest.mark.full
@pytest.mark.failure_mode(39)
def test_cluster_role_deleted_first(api, restored):
    """Nobody may take the label off then; the node itself ends clean."""
    kubectl("delete", "clusterrole", "soci-installer")
    kubectl("delete", "daemonset", "soci-installer", "--namespace", "soci-system")
    for node in SOCI_NODES:
        wait_for(lambda node=node: traces(node) == "", PATIENCE_S, f"{node} clean")
        assert snapshotter_in_effect(node) == "overlayfs"


@pytest.mark.failure_mode(38)
def test_rollout_and_pod_delete_leave_the_nodes_configured(api, deployed):
    """nydus's preStop hook and NVIDIA's SIGTERM handler uninstalled at every rolling update."""
    before = [(containerd_starts(node), host_files(node)) for node in SOCI_NODES]
    old = {node: installer_pod(api, node).metadata.uid for node in SOCI_NODES}
    kubectl("rollout", "restart", "daemonset/soci-installer", "--namespace", "soci-system")
    for node in SOCI_NODES:
        wait_for(
            lambda node=node: is_ready(pod := installer_pod(api, node)) and pod.metadata.uid != old[node],
            PATIENCE_S,
            f"a new installer is ready on {node}",
        )
    for node in SOCI_NODES:
        pod = installer_pod(api, node)
        started = time.monotonic()
        api.delete_namespaced_pod(pod.metadata.name, "soci-system")
        wait_for(
            lambda node=node, pod=pod: (
                is_ready(new := installer_pod(api, node)) and new.metadata.uid != pod.metadata.uid
            ),
            PATIENCE_S,
            f"a new installer is ready on {node}",
        )
        print(f"{node}: pod replaced in {time.monotonic() - started:.1f} s")
        assert VERSION_LABEL in api.read_node(node).metadata.labels
    assert [(containerd_starts(node), host_files(node)) for node in SOCI_NODES] == before


@pytest.mark.full
def test_forced_under_a_lazy_pod_restarts_it_whole(api, stack, forget_whole_images, run_pod):
    """With the user's word its containers are ended and started again, not left on dead mounts."""
    node = SOCI_NODES[0]
    pod = run_pod(LAZY_IMAGE, node)
    stack.set("soci:state", "absent")
    stack.set("soci:forceUninstall", "true")
    stack.must_go_up()
    assert_clean(api, node)

    def runs_whole() -> bool:
        status = api.read_namespaced_pod(pod, "default").status.container_statuses[0]
        return status.restart_count > 0 and bool(status.ready)

    wait_for(runs_whole, PATIENCE_S, "the pod runs again")
    kubectl("exec", pod, "--", "/opt/sample/read-working-set")
