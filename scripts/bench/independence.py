"""What the background fetch gives and costs: when an image is wholly on its node, and what readers lose.

One lab node is as the installer leaves it, on the other the background fetch is turned off. Each start is a
cold one of the sample image over one link. Some programs read as they start; others wait until the background
fetch is under way. Prints a table, writes every figure to .lab/independence.json and draws it beside; the
lab must run. `make bench` without ARGUMENTS ends with it.

    scripts/bench/independence.py --samples 3 --link-mbit 200
"""

import argparse
import contextlib
import json
import random
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import lab_bench
from agent import daemon_metrics
from agent.slots import FIRST
from independence_figures import NODES, Measured, draw
from lab_agent import AgentNode
from lab_client import INSTALLER_NAMESPACE, LAB_DIRECTORY, NAMESPACE, kubectl, on_node
from lab_links import LabLink, links_of

import workloads  # isort: skip (found through the paths that those above add)
from components.bench import command
from components.bench.arms import LAZY, Arm
from components.bench.measurement import Bench, Cell, measured_link
from components.bench.node_session import BenchError, sessions
from components.bench.pod_watch import PodWatch
from components.bench.samples import Workload

UNDER_WAY_SECONDS = 7  # after its start; the background fetch begins 4 s after the mount
LOCAL_SECONDS, LOOK_SECONDS = 300, 0.1
READS = ("6-in-order", "6-scattered", "25")
WITHOUT_FETCH = r"""
sed -i -e '/^disable = true$/d' -e 's/^\[background_fetch\]$/&\ndisable = true/' {config}
systemctl restart {unit}
"""
RESULT = LAB_DIRECTORY / "independence.json"


def readers() -> dict[str, tuple[Workload, float]]:
    """What reads: by name the workload, and how many seconds of it are a wait."""
    found = {}
    for wait_s, moment in ((0, "as it starts"), (UNDER_WAY_SECONDS, "in the middle of the fetch")):
        for read in READS:
            made = workloads.made()[f"read-{read}"]
            shell, option, line = made.command
            line = line.replace(" && xargs", f" && sleep {wait_s} && xargs", 1) if wait_s else line
            name = f"{lab_bench.READS[read]}, {moment}"
            images, total = {"": made.image("4mib")}, workloads.compressed_bytes(made)
            found[name] = (
                Workload(name, images, (shell, option, line), made.ready, made.needed_bytes, total),
                wait_s,
            )
    return found


@contextlib.contextmanager
def nodes_in_place(keep: bool) -> Generator[None]:
    """Both nodes in the lab, with SOCI, and one of them without the background fetch."""
    nodes = list(NODES.values())
    options = {node: lab_bench.own_node(node) for node in nodes}
    with lab_bench.nodes_in_place(nodes, options, lambda node: AgentNode(node).install(mode="lazy"), keep):
        on_node(NODES["not fetched"], WITHOUT_FETCH.format(config=FIRST.config, unit=FIRST.unit))
        yield


def until_local(bench: Bench, workload: Workload, images: Sequence[str]) -> float:
    """Seconds from a pod's creation, on a node that has nothing of its image, until the node has all of it.

    Raises:
        BenchError: it has not in LOCAL_SECONDS.
    """
    node = NODES["fetched"]
    session = bench.sessions[node]
    session.ask("forget", seconds=240, images=list(images))
    before = session.ask("look")["mounts"]
    socket = Path(f"{AgentNode(node).host.root}{FIRST.metrics}")
    begin = time.time()
    with bench.pod(node, workload.image_for(LAZY), workload.command):
        while time.time() < begin + LOCAL_SECONDS:
            there = len(daemon_metrics.local_layers(daemon_metrics.read_metrics(socket)))
            if there and there == session.ask("look")["mounts"] - before:
                return time.time() - begin
            time.sleep(LOOK_SECONDS)
    raise BenchError(
        f"{node}: the image is not local after {LOCAL_SECONDS} s. Remedy: see soci-doctor {node}"
    )


def run(link_mbit: int, samples: int) -> Measured:
    """Measure on the nodes, which are in place; they have the machine's own link afterwards.

    Raises:
        BenchError, CannotLookError, RuntimeError: something came to nothing.
    """
    workloads.provide([workloads.made()["read-25"]], command.say)
    chosen = readers()
    link = LabLink(f"{link_mbit} Mbit/s", f"{link_mbit}mbit")
    nodes = list(NODES.values())
    first, _ = next(iter(chosen.values()))
    images = [*lab_bench.RELATIVES, *first.image.values(), workloads.made()["read-25"].image(workloads.PLAIN)]
    with (
        links_of(nodes) as links,
        PodWatch(kubectl(), NAMESPACE) as watch,
        sessions(kubectl(), INSTALLER_NAMESPACE, nodes) as open_sessions,
    ):
        bench = Bench(kubectl(), watch, open_sessions, NAMESPACE)
        links.use(link)
        measured = Measured(link_mbit, first.image_bytes)
        empty = command.installer_image(kubectl(), INSTALLER_NAMESPACE)
        bench.empty_pod_s(NODES["fetched"], empty)  # the image comes with the first one
        measured.empty_pod_s = bench.empty_pod_s(NODES["fetched"], empty)
        for number in range(samples):
            measured.local_s.append(until_local(bench, first, images))
            if not number:  # by a layer of the image, which is there now
                found = measured_link(bench, Cell(first, link.label), Arm(LAZY, NODES["fetched"]))
                measured.bytes_per_second = found.bytes_per_second
                if not found.bytes_per_second:
                    raise BenchError("the link cannot be measured. Remedy: see that the registry answers")
            command.say(f"[{number + 1}/{samples}] wholly local after {measured.local_s[-1]:.1f} s")
            for name, (workload, wait_s) in chosen.items():
                for kind, node in random.sample(list(NODES.items()), len(NODES)):
                    sample = bench.cold_start(workload, Arm(LAZY, node), images)
                    started_s = sample.phases.first_line_s if wait_s else 0.0
                    if started_s is None:
                        raise BenchError(f"{node}: no first line of {name} was seen. Remedy: run this again")
                    seconds = sample.ready_s - started_s - wait_s
                    measured.readers.setdefault(name, {}).setdefault(kind, []).append(seconds)
                    command.say(f"[{number + 1}/{samples}] {name}, {kind}: {seconds:.2f} s")
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--link-mbit", type=int, default=200, help="of both nodes, default %(default)s")
    parser.add_argument("--samples", type=int, default=5, help="of each figure, default %(default)s")
    parser.add_argument("--keep-nodes", action="store_true", help="leave the added nodes for the next run")
    arguments = parser.parse_args()
    if arguments.samples < 1 or arguments.link_mbit < 1:
        parser.error("--samples and --link-mbit must be at least 1")
    with nodes_in_place(arguments.keep_nodes):
        measured = run(arguments.link_mbit, arguments.samples)
    RESULT.write_text(json.dumps(measured.to_json(), indent=1) + "\n")
    print(f"\n{measured.table()}\n\nMedians of {arguments.samples}; raw: {RESULT}")
    print(f"Drawn: {', '.join(map(str, draw(measured, LAB_DIRECTORY)))}")


if __name__ == "__main__":
    main()
