"""``soci-bench``: cold pod starts of your image on a cluster, on nodes with SOCI and without, side by side.

    soci-bench --image IMAGE [--ready-line TEXT] [--samples 5] [--soci-node NODE] [--reference-node NODE]
               [--arm MODE=NODE ...] [--context NAME] [--kubeconfig FILE] [-n NAMESPACE]
               [--installer-namespace NAME] [--json FILE] [--plots FILE] [--kubectl COMMAND] [-- COMMAND ...]

It starts the image on a node with SOCI and on one without, in turn and in random order, each time on a node
that holds nothing of it, and shows times, phases and bytes. It works through kubectl and the installer's
pods. It needs the rights to list nodes, to read the installer's DaemonSet and ConfigMap, to run a command in
the installer's pods, to make and delete pods (the samples, and one like the installer's on the node without
SOCI), and to watch pods and events where the samples run. It removes the image from both nodes, and
restarts the daemon between samples; it refuses to where lazily loaded pods of others run. The exit status is
0, 1 when a sample came to nothing, 3 when nothing could be measured.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

from ..doctor import CannotLookError, Kubectl, print_lines
from ..names import INSTALLER, in_containerd
from . import arms as all_arms
from . import plots, report
from .measurement import POD_SECONDS, Bench, Cell, Plan, Result, measure
from .node_session import BenchError, sessions
from .pod_watch import PodWatch
from .samples import Json, Workload

LINK = "the cluster's link"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soci-bench",
        description="Cold pod starts of your image on a node with SOCI and on one without, side by side.",
        epilog="Exit status: 0 measured, 1 a sample came to nothing, 3 nothing could be measured.",
    )
    parser.add_argument("--image", required=True, help="as a pod names it")
    parser.add_argument(
        "command", nargs="*", metavar="-- COMMAND", help="of the container; default: the image's own"
    )
    parser.add_argument(
        "--ready-line", default="", metavar="TEXT", help="in the log; default: the first line counts"
    )
    parser.add_argument(
        "--needed-mb", type=float, help="compressed megabytes that it reads, for the floor, if you know"
    )
    parser.add_argument("--samples", type=int, default=5, help="of each arm, default %(default)s")
    parser.add_argument(
        "--timeout", type=float, default=POD_SECONDS, help="seconds for a pod, default %(default)s"
    )
    parser.add_argument("--soci-node", default="", metavar="NODE", help="default: the first with SOCI")
    parser.add_argument("--reference-node", default="", metavar="NODE", help="default: the first without")
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="MODE=NODE",
        help="in the place of both: each way to load, and a node that does it, such as tuned=worker-3 "
        f"({', '.join(all_arms.NODE_MODES)}); repeatable",
    )
    parser.add_argument("--image-pull-secret", action="append", default=[], metavar="NAME")
    parser.add_argument("-n", "--namespace", default="default", help="of the samples, default %(default)s")
    parser.add_argument("--installer-namespace", default="soci-system", help="default: %(default)s")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument("--kubeconfig", help="a file; default: kubectl's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw samples and the environment")
    parser.add_argument(
        "--plots", type=Path, metavar="FILE", help="draw FILE.png and FILE.svg (needs matplotlib)"
    )
    parser.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="how kubectl is run")
    parsed = parser.parse_args(arguments)
    if parsed.arm and (parsed.soci_node or parsed.reference_node):
        parser.error("--arm names every node; --soci-node and --reference-node are without it")
    if parsed.samples < 1:
        parser.error("--samples must be at least 1")
    if parsed.json and parsed.json.is_dir():
        remedy = f"name a file, such as {parsed.json / 'bench.json'}"
        parser.error(f"--json {parsed.json}: it is a directory. Remedy: {remedy}")
    for option in ("json", "plots"):
        if (file := getattr(parsed, option)) and (why := cannot_be_written(file)):
            parser.error(f"--{option} {file}: {why}")
    return parsed


def cannot_be_written(file: Path) -> str:
    """Why a file cannot be made there, and the remedy; empty when it can."""
    folder = file.parent
    if not folder.is_dir():
        return f"there is no directory {folder}. Remedy: mkdir -p {folder}"
    if not os.access(folder, os.W_OK):
        return f"you may not write in {folder}. Remedy: name a file elsewhere"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    wanted = parse(arguments)
    options = [f"--{name}={value}" for name in ("context", "kubeconfig") if (value := getattr(wanted, name))]
    kubectl = Kubectl((*shlex.split(wanted.kubectl), *options))
    try:
        with ended_by_sigterm():
            result = run(wanted, kubectl)
    except (CannotLookError, BenchError) as error:
        print(f"soci-bench: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("soci-bench: interrupted; pods of its own are deleted", file=sys.stderr)
        return 3
    print_lines(report.page(result))
    if wanted.json:
        wanted.json.write_text(json.dumps(report.to_json(result, environment()), indent=2) + "\n")
    if wanted.plots:
        draw(result, f"{wanted.image}: seconds to ready", wanted.plots)
    return 1 if result.failures else 0


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
    """SIGTERM ends as Ctrl-C does: pods of its own are deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(wanted: argparse.Namespace, kubectl: Kubectl) -> Result:
    """Take the samples; raises CannotLookError and BenchError when there is nothing to take them on."""
    if wanted.arm:
        chosen = all_arms.named(kubectl, wanted.arm)
    else:
        where = (wanted.installer_namespace, wanted.soci_node, wanted.reference_node)
        chosen = all_arms.offered(kubectl, *where)
    image = in_containerd(wanted.image)  # by which the node finds it again
    needed = None if wanted.needed_mb is None else int(wanted.needed_mb * 1e6)
    workload = Workload(wanted.image, {"": image}, wanted.command, wanted.ready_line, needed)
    with (
        PodWatch(kubectl, wanted.namespace) as watch,
        sessions(kubectl, wanted.installer_namespace, [arm.node for arm in chosen]) as open_sessions,
    ):
        bench = Bench(
            kubectl,
            watch,
            open_sessions,
            wanted.namespace,
            pull_secrets=wanted.image_pull_secret,
            seconds=wanted.timeout,
        )
        empty = installer_image(kubectl, wanted.installer_namespace)
        return measure(bench, Plan([Cell(workload, LINK)], chosen, wanted.samples, empty), Result(), say)


def installer_image(kubectl: Kubectl, namespace: str) -> str:
    """The installer's image: every node that is measured has it, and a shell is in it."""
    daemon_set = kubectl.get("daemonset", INSTALLER, "--namespace", namespace)
    return str(daemon_set["spec"]["template"]["spec"]["containers"][0]["image"])


def environment() -> Json:
    """What stands beside the figures: the time, this machine and its load."""
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "client": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "client_processors": os.cpu_count(),
        "client_load": os.getloadavg(),
    }


def draw(result: Result, title: str, target: Path) -> None:
    """Draw the result, or say why not."""
    try:
        written = plots.draw(report.cells(result), title, target)
    except plots.NoPlotsError as error:
        print(f"soci-bench: not drawn: {error}", file=sys.stderr)
    else:
        print(f"Drawn: {', '.join(map(str, written))}")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
