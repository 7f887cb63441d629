"""`make bench`: soci-bench on the lab, where links and arms can be chosen.

Each cell is something that reads (a share of a large image, or a real program) over a link. In each, the arms
take turns in random order; every start is a cold one. It prints tables, and writes .lab/bench.json, after
every round, and .lab/bench*.png and .svg. A run that was ended goes on with --resume.

    make bench ARGUMENTS='--samples 3 --cells 6-in-order:200mbit,100:*'
"""

import argparse
import contextlib
import fnmatch
import json
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lab_client import (
    INSTALLER_NAMESPACE,
    LAB_DIRECTORY,
    NAMESPACE,
    REPOSITORY,
    kubectl,
    kubernetes_api,
    lab,
    on_node,
)

sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts" / "lab")]

import lab_advice  # noqa: E402 (found through the path above)
import up  # noqa: E402
import workloads  # noqa: E402
from lab_agent import AgentNode  # noqa: E402
from lab_links import LabLink, links_of  # noqa: E402
from pod_start import IMAGE, INSTALLED_LABEL  # noqa: E402
from settings import VERSIONS  # noqa: E402

from components.bench import command, plots, report  # noqa: E402
from components.bench.arms import (  # noqa: E402
    ADVISED,
    LAZY,
    LAZY_1MIB,
    OVERLAYFS,
    PARALLEL,
    TUNED,
    Arm,
)
from components.bench.measurement import Bench, Cell, Plan, Result, measure  # noqa: E402
from components.bench.node_session import sessions  # noqa: E402
from components.bench.pod_watch import PodWatch  # noqa: E402
from components.bench.samples import Advised, Workload  # noqa: E402

NODES = {
    OVERLAYFS: "node3",
    TUNED: "tuned",
    LAZY: "lazy",
    LAZY_1MIB: "lazy",
    PARALLEL: "parallel",
    ADVISED: "advised",
}
# Where it is advised to do without SOCI.
WITHOUT_SOCI = {"containerd": NODES[OVERLAYFS], "containerd-tuned": NODES[TUNED]}
RECORDED_ON = "node2"  # the stack's, with its installer's pod, which records
CONTAINERD = VERSIONS["nodes"]["node2"]["containerd"]
# Keys of containerd's transfer service, 2.2 and newer (plugins/transfer/plugin.go): chunks of a layer over
# many connections, and layers unpacked side by side.
TUNED_FILE = "/etc/containerd/conf.d/60-tuned.toml"
TUNED_CONFIGURATION = """version = 3

[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 20
  concurrent_layer_fetch_buffer = 8388608
  max_concurrent_unpacks = 4
"""
# As on EKS: containerd drops the blob of a layer that it has unpacked, and SOCI stores no second copy of what
# it pulls in parallel. The tuned node is without: this key turns containerd's transfer service off, too.
DISCARD = """
set -e
file=/etc/containerd/config.toml
sed -i "/^.plugins.'io.containerd.cri.v1.images'.$/a discard_unpacked_layers = true" $file
grep -q '^discard_unpacked_layers = true$' $file
systemctl restart containerd
"""
READS = {
    "0": "0 %",
    "6-in-order": "6.4 % in order",
    "6-scattered": "6.4 % scattered",
    "25": "25 %",
    "100": "100 %",
}
# Each over one link.
PROGRAMS = {
    "python": "200mbit",
    "notebook": "200mbit",
    "jvm": "200mbit",
    "static": "200mbit",
    "small-files": "200mbit",
    "large": "1gbit",
}


def own_node(name: str) -> tuple[str, ...]:
    """The options of a lab node that is the benchmark's, and not the stack's."""
    return ("--no-taint", "--label", f"soci-cluster.io/bench={name}")


# The lazy one is a node like any other of the stack.
OPTIONS = {node: own_node(node) for node in ("tuned", "parallel", "advised")}
RELATIVES = [IMAGE, IMAGE.removesuffix("-soci")]  # the shares are read of the sample's own layers
INSTALL_SECONDS = 120
RESULT = LAB_DIRECTORY / "bench.json"


LINKS = {
    "200mbit": LabLink("200 Mbit/s", "200mbit"),
    "1gbit": LabLink("1 Gbit/s", "1gbit"),
    "capped": LabLink("8 MB/s per connection", "1gbit", connection_rate=8_000_000),
    "far": LabLink("+20 ms", "1gbit", delay_s=0.02),
}


@contextlib.contextmanager
def arms_in_place(wanted: Sequence[str], keep: bool) -> Generator[list[Arm]]:
    """The arms, each with its node; those that the lab has not are added, and removed afterwards."""
    nodes = [NODES[mode] for mode in wanted]
    with nodes_in_place(nodes, OPTIONS, lambda node: MAKE_READY[node](node), keep):
        yield [Arm(mode, NODES[mode]) for mode in wanted]


@contextlib.contextmanager
def nodes_in_place(
    nodes: Sequence[str],
    options: Mapping[str, Sequence[str]],
    make_ready: Callable[[str], object],
    keep: bool,
) -> Generator[None]:
    """Nodes of the lab; those that it has not are added, and removed afterwards unless they are kept.

    Args:
        nodes: their names.
        options: of `lab add-node`, by node.
        make_ready: what is done to a node that was added.
        keep: whether what was added stays.
    """
    added: list[str] = []
    try:
        for node in dict.fromkeys(nodes):
            if not (LAB_DIRECTORY / "nodes" / node / "node.json").exists():
                lab("add-node", node, "--containerd", CONTAINERD, *options.get(node, ()))
                added.append(node)
                make_ready(node)
        yield
    finally:
        for node in added if not keep else ():
            lab("remove-node", node)


def tune(node: str) -> None:
    """Have containerd pull in chunks and unpack in parallel."""
    on_node(node, f"cat > {TUNED_FILE} <<'END'\n{TUNED_CONFIGURATION}END\nsystemctl restart containerd")


def install_parallel(node: str) -> None:
    """Have the installer's agent put SOCI there with `soci:mode parallel`, as its pod would."""
    on_node(node, DISCARD)
    AgentNode(node).install(mode="parallel")


def install_as_advised(node: str) -> None:
    """Likewise, of the one kind of node on which an image's index decides, and its prefetch list counts."""
    on_node(node, DISCARD)
    AgentNode(node).install(mode="lazy-or-parallel", prefetch=True)


def await_installer(node: str) -> None:
    """Wait until the stack's installer has verified the node.

    Raises:
        RuntimeError: it has not in two minutes.
    """
    deadline = time.monotonic() + INSTALL_SECONDS
    while INSTALLED_LABEL not in (kubernetes_api().read_node(node).metadata.labels or {}):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{node} has no SOCI after {INSTALL_SECONDS} s; run `make doctor`")
        time.sleep(1)


MAKE_READY = {
    "tuned": tune,
    "lazy": await_installer,
    "parallel": install_parallel,
    "advised": install_as_advised,
}


def cells_of(chosen: str, programs: bool) -> list[tuple[str, str]]:
    """What reads and over which link, of READ:LINK,... with wildcards; the programs over one link only.

    Raises:
        ValueError: one names nothing.
    """
    known = [(read, link) for link in LINKS for read in READS]
    known += list(PROGRAMS.items()) if programs else []
    if not chosen:
        return known
    found = []
    for pattern in chosen.split(","):
        read, _, link = pattern.partition(":")
        everything = [(name, where) for where in LINKS for name in (*READS, *PROGRAMS)]
        matching = [
            (name, where)
            for name, where in everything
            if fnmatch.fnmatchcase(name, read) and fnmatch.fnmatchcase(where, link or "*")
        ]
        if not matching:
            reads, links = ", ".join((*READS, *PROGRAMS)), ", ".join(LINKS)
            raise ValueError(f"--cells {pattern!r} names nothing; READ is of {reads}; LINK of {links}")
        found += [pair for pair in matching if pair not in found]
    return found


def workload_of(name: str, image: str, words: Sequence[str], ready: str) -> Workload:
    """A workload of the lab, or the user's own image."""
    if image:
        return Workload(image, {"": image}, words, ready)
    entry = workloads.made()[f"read-{name}" if name in READS else name]
    images = {"": entry.image("4mib"), LAZY_1MIB: entry.image("1mib")}
    label, total = READS.get(name, name), workloads.compressed_bytes(entry)
    return Workload(label, images, entry.command, entry.ready, entry.needed_bytes, total)


def advised(cell: Cell, name: str, link: str, known: Advised | None) -> Cell:
    """The cell with what `soci-index advise` says of it, unless that is known: answers stay with samples."""
    entry = workloads.made()[f"read-{name}" if name in READS else name]
    found = known or lab_advice.of(entry, LINKS[link], link, RECORDED_ON, WITHOUT_SOCI)
    where = f"{cell.workload.name} over {cell.link}"
    command.say(f"{where}: {found.way} is advised, and ready after {found.expected_s:.1f} s is expected")
    images = {**cell.workload.image, ADVISED: found.image}
    return replace(cell, workload=replace(cell.workload, image=images), advised=found)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples", type=int, default=5, help="of each arm in each cell, default %(default)s"
    )
    parser.add_argument("--cells", default="", metavar="READ:LINK,...", help="with * and ?; default: all")
    parser.add_argument("--arms", default=",".join(NODES), metavar="ARM,...", help="default %(default)s")
    parser.add_argument("--no-programs", action="store_true", help="the shares of a large image alone")
    parser.add_argument(
        "--image", default="", help="of your own, in the lab's registry, instead of those made here"
    )
    parser.add_argument("--command", default="", help="of its container, for a shell")
    parser.add_argument(
        "--ready-line", default="", metavar="TEXT", help="of its log; default: the first line counts"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the samples in .lab/bench.json")
    parser.add_argument("--keep-nodes", action="store_true", help="leave the added nodes for the next run")
    parser.add_argument("--no-up", action="store_true", help="the lab runs and the stack is deployed")
    parsed = parser.parse_args(arguments)
    parsed.arms = parsed.arms.split(",")
    if unknown := [arm for arm in parsed.arms if arm not in NODES]:
        parser.error(f"--arms {unknown[0]}: it is of {', '.join(NODES)}")
    if parsed.image:
        parsed.arms = [arm for arm in parsed.arms if arm != ADVISED]  # `soci-index advise` is asked by hand
    if ADVISED in parsed.arms and not {OVERLAYFS, TUNED} <= {*parsed.arms}:
        parser.error(f"--arms {ADVISED} is with {OVERLAYFS} and {TUNED}, one of which may be advised")
    if parsed.samples < 1:
        parser.error("--samples must be at least 1")
    try:
        links = [("image", link) for link in LINKS]
        parsed.cells = links if parsed.image else cells_of(parsed.cells, not parsed.no_programs)
    except ValueError as error:
        parser.error(str(error))
    return parsed


def main() -> None:
    wanted = parse()
    if not wanted.no_up:
        up.deploy()
    result = (
        report.from_json(json.loads(RESULT.read_text())) if wanted.resume and RESULT.exists() else Result()
    )
    run(wanted, result)
    result = in_order(result)
    print()
    command.print_lines(report.page(result))
    draw(result, LAB_DIRECTORY)
    sys.exit(1 if result.failures else 0)


def run(wanted: argparse.Namespace, result: Result) -> None:
    """Measure what is wanted on top of what is there; the lab is as before afterwards."""
    plain: list[str] = []
    if not wanted.image:
        made = workloads.made()
        names = [f"read-{name}" if name in READS else name for name, _ in wanted.cells]
        workloads.provide([made[name] for name in dict.fromkeys(names)], command.say)
        plain = sorted({made[name].image(workloads.PLAIN) for name in names})
    words = ["/bin/sh", "-c", wanted.command] if wanted.command else []
    environment = command.environment()
    with arms_in_place(wanted.arms, wanted.keep_nodes) as arms:
        nodes = [arm.node for arm in arms]
        with (
            links_of(nodes) as links,
            PodWatch(kubectl(), NAMESPACE) as watch,
            sessions(kubectl(), INSTALLER_NAMESPACE, nodes) as open_sessions,
        ):
            cells = [
                Cell(
                    workload_of(name, wanted.image, words, wanted.ready_line),
                    LINKS[link].label,
                    lambda link=link: links.use(LINKS[link]),
                )
                for name, link in wanted.cells
            ]
            if ADVISED in wanted.arms and not wanted.image:
                cells = [
                    advised(cell, name, link, result.advice.get((cell.workload.name, cell.link)))
                    for cell, (name, link) in zip(cells, wanted.cells, strict=True)
                ]
            empty_image = command.installer_image(kubectl(), INSTALLER_NAMESPACE)
            measure(
                Bench(kubectl(), watch, open_sessions, NAMESPACE),
                Plan(cells, arms, wanted.samples, empty_image, [*RELATIVES, *plain]),
                result,
                command.say,
                save=lambda now: write(now, environment),
            )


def in_order(result: Result) -> Result:
    """The result with its cells in the order of links and reads, in whichever they were measured."""
    links, reads = [link.label for link in LINKS.values()], [*READS.values(), *PROGRAMS]

    def place(key: tuple[str, str, str]) -> tuple[int, int]:
        read, link, _ = key
        return links.index(link), reads.index(read) if read in reads else len(reads)

    return replace(result, samples={key: result.samples[key] for key in sorted(result.samples, key=place)})


def write(result: Result, environment: Mapping[str, object]) -> None:
    """Write the result so far, wholly or not at all."""
    unfinished = RESULT.with_suffix(".new")
    unfinished.write_text(json.dumps(report.to_json(in_order(result), environment), indent=1) + "\n")
    unfinished.replace(RESULT)


def draw(result: Result, directory: Path) -> None:
    """Draw the shares of the large image, and the programs, as pictures of their own in a directory."""
    rows = report.cells(result)
    shares = [row for row in rows if row["read"] in READS.values()]
    others = [row for row in rows if row not in shares]
    for name, title, chosen in (
        ("bench", "Cold pod start by share of the image that is read: seconds to ready", shares),
        ("bench-programs", "Cold pod start of programs: seconds to ready", others),
    ):
        if chosen:
            written = plots.draw(chosen, title, directory / name)
            print(f"Drawn: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main()
