"""What the nodes and their objects in the API show."""

import json
import subprocess
import sys

import lab_client
from agent.slots import FIRST, SECOND, Slot

SOCI_NODES = ["node1", "node2"]


def containerd_starts(node: str) -> str:
    """What changes whenever the node's containerd is restarted (its main process and start time)."""
    return lab_client.on_node(
        node, "systemctl show containerd -p MainPID -p ActiveEnterTimestampMonotonic --value"
    )


def slot_in_use(node: str) -> Slot:
    return (
        SECOND
        if "soci-b" in lab_client.on_node(node, "containerd config dump | grep 'snapshotter = '")
        else FIRST
    )


def running_program(node: str, slot: Slot) -> str:
    """What the slot's process runs; empty when there is none."""
    pid = f"$(systemctl show {slot.unit} -p MainPID --value)"
    return lab_client.on_node(node, f"readlink /proc/{pid}/exe || true").strip()


def host_files(node: str) -> str:
    """Digests of everything an installer could have changed on the node."""
    return lab_client.on_node(
        node,
        "find /etc/containerd /etc/systemd/system /etc/soci-snapshotter-grpc /opt/soci-cluster -type f"
        " -exec sha256sum {} + | sort -k 2",
    )


def condition(api, node: str) -> dict:
    """The node's SociReady condition; empty when there is none."""
    return condition_of(api.read_node(node))


def condition_of(node) -> dict:
    """The same of a node's object."""
    return next((entry.to_dict() for entry in node.status.conditions if entry.type == "SociReady"), {})


def install_report(api, node: str) -> dict:
    return json.loads(api.read_node(node).metadata.annotations["soci-cluster.io/install"])


def doctor(target: str) -> tuple[int, dict]:
    """Exit status and JSON of soci-doctor."""
    command = [sys.executable, "-m", "components.doctor", target, "--output", "json"]
    command += ["--kubectl", f"{lab_client.LAB} kubectl"]
    done = subprocess.run(command, cwd=lab_client.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def installer_pod(api, node: str):
    """The live installer pod of a node; None when there is none."""
    pods = api.list_namespaced_pod("soci-system", field_selector=f"spec.nodeName={node}").items
    return next((pod for pod in pods if not pod.metadata.deletion_timestamp), None)


def is_ready(pod) -> bool:
    return bool(pod) and any(status.ready for status in pod.status.container_statuses or [])
