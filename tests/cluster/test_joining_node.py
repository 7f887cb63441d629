"""A node that joins later gets SOCI before any workload lands on it."""

import contextlib
from collections.abc import Iterator

import lab_client
import pytest
from kubernetes.client.exceptions import NotFoundException

from tests.cluster import sample_pods
from tests.cluster.looks import condition, install_report
from tests.waiting import wait_for

IMAGE = "10.77.0.1:5000/sample:1-soci"
EARLY = "waits-for-the-joined-node"


@pytest.fixture
def early_pod(api, deployed) -> Iterator[str]:
    """A pod that only the joining node can run; it waits for it from before."""
    container = {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", "sleep 3600"]}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": "joined"},
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    api.create_namespaced_pod("default", {"metadata": {"name": EARLY}, "spec": spec})
    yield EARLY
    with contextlib.suppress(NotFoundException):  # pods of a node that went are collected
        api.delete_namespaced_pod(EARLY, "default", grace_period_seconds=0)


@pytest.fixture(
    params=[
        pytest.param("1.7.35", id="containerd 1.7", marks=pytest.mark.slow),
        pytest.param("2.3.7", id="containerd 2.3"),
    ]
)
def joined_node(request, early_pod: str) -> Iterator[str]:
    """A further node with the startup taint, removed from cluster and lab afterwards."""
    lab_client.lab("add-node", "joined", "--containerd", request.param)
    yield "joined"
    lab_client.lab("remove-node", "joined")


@pytest.mark.failure_mode(43)
def test_joining_node_is_verified_before_any_workload_and_after_one_restart(api, joined_node, early_pod):
    """cilium#29405: pods landed between registration and readiness; gpu-operator#594: needless restarts."""
    wait_for(lambda: condition(api, joined_node).get("status") == "True", 120, f"{joined_node} verified")
    verified = condition(api, joined_node)["last_transition_time"]
    status = lambda: api.read_namespaced_pod(early_pod, "default").status  # noqa: E731
    wait_for(lambda: status().phase == "Running", 90, f"pod {early_pod}")
    assert status().start_time >= verified
    assert sample_pods.fuse_mounts(joined_node) > 0
    assert not api.read_node(joined_node).spec.taints
    assert install_report(api, joined_node)["containerdRestarts"] == 1
    starts = lab_client.on_node(
        joined_node, "journalctl -b -u containerd -o cat | grep -c '^Started containerd'"
    )
    assert int(starts) == 2  # at boot, and for the new configuration

    found = condition(api, joined_node)
    assert (found["reason"], "SOCI 0.16.1 serves" in found["message"]) == ("Verified", True)
    joined = api.read_node(joined_node).metadata.creation_timestamp  # there were others of that name
    events = api.list_namespaced_event("default", field_selector=f"involvedObject.name={joined_node}").items
    events = [event for event in events if event.first_timestamp and event.first_timestamp >= joined]
    said = {event.message for event in events}
    assert {f"node {joined_node}: step {step}" for step in ("download", "images", "stage", "commit")} <= said
    (installed,) = [event.message for event in events if event.reason == "Installed"]
    assert all(f"{step} " in installed for step in ("snapshotter", "restart", "verify-canary")), installed
