"""A node that joins later gets SOCI before any workload lands on it."""

import lab_client
import pytest
from conftest import condition, wait_for


@pytest.fixture
def joined_node(api, deployed):
    """A further node with the startup taint, removed from cluster and lab afterwards."""
    lab_client.lab("add-node", "node4", "--containerd", "2.3.7")
    yield "node4"
    lab_client.lab("remove-node", "node4")


def test_no_workload_starts_before_the_node_is_verified(api, joined_node):
    """cilium#29405: pods that landed between registration and readiness."""
    wait_for(lambda: condition(api, joined_node).get("status") == "True", 120, f"{joined_node} verified")
    verified = condition(api, joined_node)["last_transition_time"]
    wait_for(lambda: not (api.read_node(joined_node).spec.taints or []), 30, "startup taint lifted")
    pods = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={joined_node}").items
    early = [
        pod.metadata.name
        for pod in pods
        if pod.metadata.namespace not in ("soci-system", "kube-system")
        and pod.status.start_time
        and pod.status.start_time < verified
    ]
    assert early == []
