"""Pod start with and without SOCI: same image, same shaped link, both arms in turn.

Prints a table and writes every raw sample to .lab/results.json. A sample is a pod on a node that holds
nothing of the image: "pull" is what the kubelet reports for it, "ready" the time from the pod's creation to
the line `ready` of a program that has read 6 % of the image in order.
"""

import argparse
import json
import platform
import re
import statistics
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from lab_client import LAB_DIRECTORY, kubernetes_api, lab, on_node

REGISTRY = "10.77.0.1:5000"
IMAGE = f"{REGISTRY}/sample:1-soci"
COMMAND = ["/bin/sh", "-c", "/opt/sample/read-working-set && exec sleep 3600"]
REFERENCE_NODE = "node3"
SOCI_NODES = ("node2", "node1")  # the first one has the reference node's containerd
INSTALLED_LABEL = "soci-cluster.io/version"
INSTALL_ANNOTATION = "soci-cluster.io/install"
POLL_SECONDS = 1.0  # each question costs processor time beside the start; the stamp is the node's
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Sample:
    """One cold pod start: seconds, bytes the node received meanwhile, and its FUSE mounts of SOCI layers."""

    pull_s: float
    ready_s: float
    moved_bytes: int
    fuse_mounts: int


def go_duration_seconds(text: str) -> float:
    """Turn a Go duration such as `1m2.5s` or `604ms` into seconds; raise ValueError for anything else."""
    parts = re.findall(r"([0-9.]+)(ms|s|m)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def pull_seconds(event_message: str) -> float:
    """Read the pull time out of the kubelet's `Pulled` event; raise ValueError when it pulled nothing."""
    found = re.search(r"Successfully pulled image .* in (\S+) \(", event_message)
    if not found:
        raise ValueError(f"the image was not pulled: {event_message!r}")
    return go_duration_seconds(found[1])


def received_bytes(node: str) -> int:
    """Bytes sent to the node so far, counted on the lab's side of its network link."""
    return int(Path(f"/sys/class/net/vb-{node}/statistics/tx_bytes").read_text())


def forget_image(node: str) -> None:
    """Make the node's next pull of the image a cold one, SOCI's caches included."""
    on_node(
        node,
        f"""
        # Layers stay unpacked, and would not be pulled again, while a container of the last sample exists.
        while ctr -n k8s.io containers ls | grep -q '{REGISTRY}/sample'; do sleep 0.1; done
        digests=$(ctr -n k8s.io images ls | awk '$1 ~ "^{REGISTRY}/sample" {{print $3}}' | sort -u)
        for digest in $digests; do
            for image in $(ctr -n k8s.io images ls | awk -v digest="$digest" '$3 == digest {{print $1}}'); do
                ctr -n k8s.io images rm --sync "$image" >/dev/null
            done
        done
        if systemctl is-active --quiet soci-snapshotter; then
            systemctl stop soci-snapshotter
            rm -rf /var/lib/soci-snapshotter-grpc/content /var/lib/soci-snapshotter-grpc/soci
            systemctl start soci-snapshotter
        fi
        """,
    )


def fuse_mounts(node: str) -> int:
    return int(on_node(node, "grep -c '^soci .*fuse' /proc/1/mounts || true"))


def start_pod(api, node: str, deadline_s: float = 180) -> Sample:
    """Start the image on the node, wait until it is ready, measure, and delete it.

    Raises TimeoutError when the pod is not ready within deadline_s seconds.
    """
    name = f"pod-start-{uuid.uuid4().hex[:8]}"
    pod = {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "workload", "image": IMAGE, "command": COMMAND}],
        },
    }
    bytes_before = received_bytes(node)
    created = time.time()
    api.create_namespaced_pod("default", pod)
    try:
        ready = wait_for_ready_line(api, name, created + deadline_s)
        moved = received_bytes(node) - bytes_before
        mounts = fuse_mounts(node)
        return Sample(pulled(api, name, created + deadline_s), ready - created, moved, mounts)
    finally:
        api.delete_namespaced_pod(name, "default")
        wait_until_gone(api, name, time.time() + 60)


def wait_for_ready_line(api, name: str, deadline: float) -> float:
    """Return when the pod printed `ready` (seconds since the epoch, by the node's clock)."""
    from kubernetes.client.exceptions import ApiException

    while time.time() < deadline:
        try:
            log = api.read_namespaced_pod_log(name, "default", timestamps=True)
        except ApiException as error:
            if error.status not in (400, 404):  # the container has not started yet
                raise
            log = ""
        for line in log.splitlines():
            stamp, _, text = line.partition(" ")
            if text.startswith("ready"):
                return datetime.fromisoformat(stamp[:26] + "+00:00").timestamp()
        time.sleep(POLL_SECONDS)
    status = api.read_namespaced_pod(name, "default").status
    raise TimeoutError(
        f"pod {name} printed no ready line in time: {status.phase}, {status.container_statuses}"
    )


def pulled(api, name: str, deadline: float) -> float:
    while time.time() < deadline:
        events = api.list_namespaced_event(
            "default", field_selector=f"involvedObject.name={name},reason=Pulled"
        )
        if events.items:
            return pull_seconds(events.items[0].message)
        time.sleep(0.1)
    raise TimeoutError(f"no Pulled event for pod {name}")


def wait_until_gone(api, name: str, deadline: float) -> None:
    from kubernetes.client.exceptions import ApiException

    while time.time() < deadline:
        try:
            api.read_namespaced_pod(name, "default")
        except ApiException as error:
            if error.status == 404:
                return
            raise
        time.sleep(0.1)
    raise TimeoutError(f"pod {name} is still there")


def soci_node(api) -> str:
    """Pick a node with SOCI that holds no other pod: the measurement restarts SOCI there to empty its caches.

    Raises RuntimeError when there is none.
    """
    for node in SOCI_NODES:
        pods = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
        if all(pod.metadata.namespace in ("kube-system", "soci-system") for pod in pods):
            return node
    raise RuntimeError(f"{' and '.join(SOCI_NODES)} hold workload pods; delete those of one of them first")


def measure(api, link_mbit: int, repetitions: int) -> dict:
    """Run both arms in turn and return what .lab/results.json holds."""
    nodes = {"overlayfs": REFERENCE_NODE, "soci": soci_node(api)}
    samples: dict[str, list[Sample]] = {arm: [] for arm in nodes}
    for node in nodes.values():
        lab("shape", node, f"{link_mbit}mbit")
    try:
        for repetition in range(repetitions):
            arms = list(nodes.items())
            for arm, node in arms if repetition % 2 == 0 else reversed(arms):
                forget_image(node)
                sample = start_pod(api, node)
                samples[arm].append(sample)
                print(
                    f"  {repetition + 1}/{repetitions} {arm:<10} "
                    f"pull {sample.pull_s:6.2f} s, ready {sample.ready_s:6.2f} s",
                    flush=True,
                )
    finally:
        for node in nodes.values():
            lab("shape", node, "off")
    return results(link_mbit, samples, installs(api), nodes)


def results(
    link_mbit: int,
    samples: dict[str, list[Sample]],
    install: dict,
    nodes: dict[str, str],
) -> dict:
    """Lay out the raw samples and the ratios of medians (overlayfs over SOCI)."""
    arms = {
        arm: {field: [getattr(sample, field) for sample in taken] for field in asdict(taken[0])}
        for arm, taken in samples.items()
    }

    def ratio(field: str) -> float:
        return statistics.median(arms["overlayfs"][field]) / statistics.median(arms["soci"][field])

    return {
        "link_mbit": link_mbit,
        "arms": arms,
        "pull_ratio": ratio("pull_s"),
        "ready_ratio": ratio("ready_s"),
        "install": install,
        "nodes": nodes,
        "image": IMAGE,
        "machine": f"{platform.machine()}, Linux {platform.release()}",
    }


def installs(api) -> dict[str, dict]:
    """What each installer reported: seconds to verified, containerd's downtime (seconds) and restarts."""
    reported = {}
    for node in api.list_node(label_selector=INSTALLED_LABEL).items:
        report = json.loads(node.metadata.annotations[INSTALL_ANNOTATION])
        reported[node.metadata.name] = {
            "verified_s": report["verifiedSeconds"],
            "containerd_down_s": report["containerdDownSeconds"],
            "containerd_restarts": report["containerdRestarts"],
        }
    return reported


def table(measured: dict) -> str:
    """The table a user sees: medians of both arms, and the ratios."""
    soci, overlay = measured["arms"]["soci"], measured["arms"]["overlayfs"]

    def row(label: str, field: str, unit: str, scale: float = 1, ratio: bool = True) -> str:
        plain, lazy = (statistics.median(arm[field]) / scale for arm in (overlay, soci))
        return f"{label:<22}{plain:>10.2f} {unit:<2}{lazy:>10.2f} {unit:<2}" + (
            f"{plain / lazy:>9.1f}x" if ratio and lazy else ""
        )

    return "\n".join(
        [
            f"{'':<22}{'overlayfs':>13}{'SOCI, lazy':>13}{'ratio':>10}",
            row("image pull", "pull_s", "s"),
            row("pod ready (6 % read)", "ready_s", "s"),
            row("bytes moved", "moved_bytes", "MB", 1e6),
            row("FUSE mounts", "fuse_mounts", "", ratio=False),
        ]
    )


def run(link_mbit: int = 200, repetitions: int = 5) -> None:
    """Measure, print the table and write the raw samples to .lab/results.json."""
    print(f"Pod start, {repetitions} cold samples per arm at {link_mbit} Mbit/s", flush=True)
    measured = measure(kubernetes_api(), link_mbit, repetitions)
    target = LAB_DIRECTORY / "results.json"
    target.write_text(json.dumps(measured, indent=2) + "\n")
    print(f"\n{table(measured)}\n\nMedians of {repetitions} samples per arm; raw: {target}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure pod start with and without SOCI on the running lab."
    )
    parser.add_argument("--link-mbit", type=int, default=200, help="both nodes' link in Mbit/s (default 200)")
    parser.add_argument("--repetitions", type=int, default=5, help="samples per arm (default 5)")
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or arguments.link_mbit < 1:
        parser.error("--repetitions and --link-mbit must be at least 1")
    run(arguments.link_mbit, arguments.repetitions)


if __name__ == "__main__":
    main()
