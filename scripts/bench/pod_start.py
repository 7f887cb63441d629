"""The gain in short, as `make up` shows it: one image on a link of 200 Mbit/s, with SOCI and without.

`lab_bench.py` is the whole of it. A sample is a pod on a node that holds nothing of the image: "pull" is what
the kubelet reports for it, "ready" the time from the pod's creation to the line `ready` of a program that has
read 6 % of the image in order. Prints a table and writes every raw sample to .lab/results.json.
"""

import argparse
import json
import platform
import statistics

from lab_client import INSTALLER_NAMESPACE, LAB_DIRECTORY, NAMESPACE, kubectl, kubernetes_api
from lab_links import LabLink, links_of

import images  # isort: skip (found through the path that lab_links adds)
from components.bench import command, report
from components.bench.arms import LAZY, OVERLAYFS, Arm
from components.bench.measurement import Bench, Cell, Plan, Result, measure
from components.bench.node_session import sessions
from components.bench.pod_watch import PodWatch
from components.bench.samples import Sample, Workload

REGISTRY = "10.77.0.1:5000"
IMAGE = f"{REGISTRY}/sample:1-soci"
COMMAND = ["/bin/sh", "-c", "/opt/sample/read-working-set && exec sleep 3600"]
WORKLOAD = Workload("6 % read", {"": IMAGE}, COMMAND, "ready", images.working_set_bytes())
REFERENCE_NODE = "node3"
SOCI_NODES = ("node2", "node1")  # the first one has the reference node's containerd
INSTALLED_LABEL = "soci-cluster.io/version"
INSTALL_ANNOTATION = "soci-cluster.io/install"
FIELDS = ("pull_s", "ready_s", "moved_bytes", "fuse_mounts")


def soci_node(api) -> str:
    """Pick a node with SOCI that holds no other pod: the measurement restarts SOCI there to empty its caches.

    Raises RuntimeError when there is none.
    """
    for node in SOCI_NODES:
        pods = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
        if all(pod.metadata.namespace in ("kube-system", "soci-system") for pod in pods):
            return node
    raise RuntimeError(f"{' and '.join(SOCI_NODES)} hold workload pods; delete those of one of them first")


def samples(api, link: LabLink, repetitions: int) -> tuple[dict[str, list[Sample]], dict[str, str], float]:
    """Cold starts of both arms, in turn, the node of each arm, and the least seconds to ready with SOCI.

    Raises:
        BenchError, RuntimeError: one came to nothing.
    """
    nodes = {"overlayfs": REFERENCE_NODE, "soci": soci_node(api)}
    arms = [Arm(OVERLAYFS, nodes["overlayfs"]), Arm(LAZY, nodes["soci"])]
    with (
        links_of(list(nodes.values())) as links,
        PodWatch(kubectl(), NAMESPACE) as watch,
        sessions(kubectl(), INSTALLER_NAMESPACE, list(nodes.values())) as open_sessions,
    ):
        cell = Cell(WORKLOAD, link.label, lambda: links.use(link))
        plan = Plan([cell], arms, repetitions, command.installer_image(kubectl(), INSTALLER_NAMESPACE))
        result = measure(Bench(kubectl(), watch, open_sessions, NAMESPACE), plan, Result(), command.say)
    if result.failures:
        raise RuntimeError("; ".join(result.failures))
    of_mode = {mode: taken for (_, _, mode), taken in result.samples.items()}
    floor_s = report.cell_floor(result, WORKLOAD, link.label, LAZY) or 0.0
    return {"overlayfs": of_mode[OVERLAYFS], "soci": of_mode[LAZY]}, nodes, floor_s


def results(
    link_mbit: int,
    samples: dict[str, list[Sample]],
    install: dict,
    nodes: dict[str, str],
    floor_s: float,
) -> dict:
    """Lay out the raw samples and the ratios of medians (overlayfs over SOCI; SOCI over the floor)."""
    arms = {
        arm: {field: [getattr(sample, field) for sample in taken] for field in FIELDS}
        for arm, taken in samples.items()
    }

    def ratio(field: str) -> float:
        return statistics.median(arms["overlayfs"][field]) / statistics.median(arms["soci"][field])

    return {
        "link_mbit": link_mbit,
        "arms": arms,
        "pull_ratio": ratio("pull_s"),
        "ready_ratio": ratio("ready_s"),
        "floor_s": floor_s,
        "ready_over_floor": statistics.median(arms["soci"]["ready_s"]) / floor_s if floor_s else None,
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

    floor = []
    if measured["floor_s"]:
        times = f"{measured['ready_over_floor']:.2f} times the floor of {measured['floor_s']:.2f} s"
        floor = [f"With SOCI, ready {times}: the link's time for what is read, after a pod of nothing."]
    return "\n".join(
        [
            f"{'':<22}{'overlayfs':>13}{'SOCI, lazy':>13}{'ratio':>10}",
            row("image pull", "pull_s", "s"),
            row("pod ready (6 % read)", "ready_s", "s"),
            row("bytes moved", "moved_bytes", "MB", 1e6),
            row("FUSE mounts", "fuse_mounts", "", ratio=False),
            *floor,
        ]
    )


def run(link_mbit: int = 200, repetitions: int = 5) -> None:
    """Measure, print the table and write the raw samples to .lab/results.json."""
    print(f"Pod start, {repetitions} cold samples per arm at {link_mbit} Mbit/s", flush=True)
    api = kubernetes_api()
    taken, nodes, floor_s = samples(api, LabLink(f"{link_mbit} Mbit/s", f"{link_mbit}mbit"), repetitions)
    measured = results(link_mbit, taken, installs(api), nodes, floor_s)
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
