"""A node that joins later gets SOCI before any workload lands on it."""

import lab_client
import pytest
from conftest import condition, install_report

from tests.waiting import wait_for


@pytest.fixture(params=["1.7.35", "2.3.7"], ids=["containerd 1.7", "containerd 2.3"])
def joined_node(request, api, deployed):
    """A further node with the startup taint, removed from cluster and lab afterwards."""
    lab_client.lab("add-node", "joined", "--containerd", request.param)
    yield "joined"
    lab_client.lab("remove-node", "joined")


@pytest.mark.failure_mode(43)
def test_joining_node_is_verified_before_any_workload_and_after_one_restart(api, joined_node):
    """cilium#29405: pods landed between registration and readiness; gpu-operator#594: needless restarts."""
    wait_for(lambda: condition(api, joined_node).get("status") == "True", 120, f"{joined_node} verified")
    verified = condition(api, joined_node)["last_transition_time"]
    wait_for(lambda: not (api.read_node(joined_node).spec.taints or []), 30, "startup taint lifted")
    pods = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={joined_node}").items
    workloads = [pod for pod in pods if pod.metadata.namespace not in ("soci-system", "kube-system")]
    assert [pod.metadata.name for pod in workloads if (pod.status.start_time or verified) < verified] == []
    assert install_report(api, joined_node)["containerdRestarts"] == 1
    starts = lab_client.on_node(
        joined_node, "journalctl -b -u containerd -o cat | grep -c '^Started containerd'"
    )
    assert int(starts) == 2  # at boot, and for the new configuration
