"""``soci-doctor``: what is wrong with the nodes of a cluster, as the installer's pods see it.

    soci-doctor [NODE | pod/NAME | --all] [-n NAMESPACE] [--context NAME] [--kubeconfig FILE]
                [--installer-namespace NAME] [--output table|json] [--kubectl COMMAND]

It asks the installer's pod of each node (``python3 -B -m agent doctor``) by kubectl, so that every way of
kubectl to log in works; it needs the rights to list pods and to run a command in the installer's. Nothing is
changed. The exit status is the highest that applies: 0 all is good, 1 warnings, 2 errors, 3 a node could not
be looked at.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from . import names
from .node_look import LOOK

Json = dict[str, Any]

INSTALLER = "soci-installer"  # its name, and the label of its pods: components/installer.py
EXEC_FAILED = "command terminated with exit code"  # kubectl, after what the command itself said
AT_ONCE = 16  # nodes that are asked
SECONDS = 45  # for one node; it takes a second or two
STATUS = {"good": 0, "warning": 1, "error": 2, "unknown": 3}
COLORS = {"good": "32", "warning": "33", "error": "31", "unknown": "35"}


class CannotLookError(Exception):
    """Nothing could be looked at: what, why, and what to do."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl, at one cluster."""

    command: tuple[str, ...]

    def run(self, *arguments: str, text: str = "") -> str:
        """What it prints; ``text`` is its standard input.

        Raises:
            CannotLookError: it failed, or did not end in time.
        """
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                input=text or None,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise CannotLookError(f"{self.command[0]} is not there. Remedy: install kubectl") from error
        except subprocess.TimeoutExpired as error:
            cause = f"kubectl {arguments[0]} did not end in {SECONDS} s"
            raise CannotLookError(f"{cause}. Remedy: see to the node and the API server") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line and not line.startswith(EXEC_FAILED)]
            said = (lines or [f"it ended with status {done.returncode}"])[-1]
            raise CannotLookError(f"kubectl {arguments[0]}: {said}")
        return done.stdout

    def get(self, *arguments: str) -> Json:
        """An object or a list of the API; raises what `run` raises."""
        return json.loads(self.run("get", *arguments, "--output", "json"))


@dataclass(frozen=True)
class Answer:
    """What came of one node: its report, or why there is none."""

    node: str
    report: Json | None
    problem: str = ""

    @property
    def verdict(self) -> str:
        return str(self.report["verdict"]) if self.report else "unknown"

    def to_json(self) -> Json:
        """For programs."""
        return (
            self.report if self.report else {"node": self.node, "verdict": "unknown", "problem": self.problem}
        )


def examine(kubectl: Kubectl, namespace: str, target: str, of_pod: Sequence[str] = ()) -> list[Answer]:
    """Look at the nodes that have the installer.

    Args:
        kubectl: the cluster.
        namespace: the installer's.
        target: a node, or pod/NAME; empty for all nodes.
        of_pod: what names that pod's namespace to kubectl; nothing for the context's own.

    Raises:
        CannotLookError: the pods could not be listed, or there is no such one.
    """
    label = f"app.kubernetes.io/name={INSTALLER}"
    pods = kubectl.get("pods", "--namespace", namespace, "--selector", label)["items"]
    of_node = {str(pod["spec"].get("nodeName", "")): pod for pod in pods if not _is_leaving(pod)}
    of_node.pop("", None)
    if not target:
        if not of_node:
            remedy = "--installer-namespace with soci:namespace, or pulumi up"
            raise CannotLookError(f"no installer's pod is in namespace {namespace}. Remedy: {remedy}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda node: _ask(kubectl, node, of_node[node]), sorted(of_node)))
    wanted = None
    if target.startswith("pod/"):
        wanted = kubectl.get("pod", target.removeprefix("pod/"), *of_pod)
        target = str(wanted["spec"].get("nodeName", ""))
        if not target:
            raise CannotLookError("the pod is on no node yet. Remedy: see kubectl describe pod")
    if target not in of_node:
        cause = f"no installer's pod of namespace {namespace} is on it"
        remedy = "see kubectl get nodes, soci:nodeSelector, and --installer-namespace"
        return [Answer(target, None, f"{cause}. Remedy: {remedy}")]
    answer = _ask(kubectl, target, of_node[target])
    return [_only(answer, wanted) if wanted else answer]


def _is_leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _ask(kubectl: Kubectl, node: str, pod: Json) -> Answer:
    """Have the installer's pod look at its node, also when it is not ready: that is when it matters most."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    not_ready = "" if _is_ready(pod) else f"the installer's pod {name} is not ready ({_state(pod)})"
    try:
        report = json.loads(
            kubectl.run(
                "exec", "--namespace", namespace, name, "--container", "installer", "--", "sh", "-c", LOOK
            )
        )
    except (CannotLookError, ValueError) as error:
        problem = "; ".join(filter(None, [not_ready, str(error)]))
        if "Remedy:" not in problem:
            problem += f". Remedy: see kubectl -n {namespace} describe pod {name}"
        return Answer(node, None, problem)
    if not_ready:
        report["findings"].append(
            {
                "id": "installer-not-ready",
                "severity": "warning",
                "subject": f"{namespace}/{name}",
                "cause": not_ready,
                "remedy": f"see kubectl -n {namespace} logs {name}",
            }
        )
        report["verdict"] = max(report["verdict"], "warning", key=STATUS.__getitem__)
    return Answer(node, report)


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _state(pod: Json) -> str:
    """Why a pod is not ready, in Kubernetes' words."""
    states = pod.get("status", {}).get("containerStatuses", [])
    for container in sorted(states, key=lambda state: state.get("name") != "installer"):
        for state in container.get("state", {}).values():
            if "reason" in state:
                return str(state["reason"])
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition.get("reason"):
            return str(condition["reason"])
    return str(pod.get("status", {}).get("phase", "unknown"))


def _only(answer: Answer, pod: Json) -> Answer:
    """Of a node's report, what concerns one pod: its images; what is said of it, of these, of the node."""
    if not answer.report:
        return answer
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    wanted = {names.in_containerd(container["image"]) for container in containers}
    own = f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
    images = [entry for entry in answer.report["images"] if not wanted.isdisjoint(entry["names"])]
    others = {entry["image"] for entry in answer.report["images"] if entry not in images}
    found = [
        finding
        for finding in answer.report["findings"]
        if finding["subject"] == own or (finding["subject"] not in others and finding["id"] != "dead-mounts")
    ]
    severities = [finding["severity"] for finding in found]
    report = answer.report | {
        "pod": own,
        "images": images,
        "findings": found,
        "verdict": max([*severities, "good"], key=STATUS.__getitem__),
    }
    return Answer(answer.node, report)


# For people


class Paper:
    """Text for a terminal of some width, in colour where that is wanted."""

    def __init__(self, width: int, in_color: bool) -> None:
        self.width = width
        self.in_color = in_color

    def color(self, text: str, verdict: str) -> str:
        return f"\x1b[{COLORS[verdict]}m{text}\x1b[0m" if self.in_color else text

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """Columns as wide as they have to be, the last one what is left; a verdict has its colour."""
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        for row in (header, *rows):
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            line = "  ".join(padded).rstrip()[: self.width]
            for verdict in COLORS:
                if row is not header and verdict in row:
                    line = line.replace(verdict, self.color(verdict, verdict), 1)
            yield line

    def paragraph(self, verdict: str, text: str) -> Iterator[str]:
        """A verdict, and what it is about, in as many lines as that needs."""
        lines = textwrap.wrap(
            text, max(20, self.width - 9), break_long_words=False, break_on_hyphens=False
        ) or [""]
        yield self.color(verdict.ljust(7), verdict) + "  " + lines[0]
        yield from (" " * 9 + line for line in lines[1:])


def page(answers: Sequence[Answer], paper: Paper) -> Iterator[str]:
    """What people read: a table of the nodes, of a single one also of its images, then every finding."""
    header = ("NODE", "VERDICT", "MODE", "SOCI", "LAZY", "WHOLE", "MEMORY", "UP", "FINDINGS")
    yield from paper.table(header, [_node_row(answer) for answer in answers])
    if len(answers) == 1 and answers[0].report:
        report = answers[0].report
        if report["images"]:
            yield ""
            header = ("IMAGE", "SERVED", "LAYERS", "SIZE", "WHY")
            yield from paper.table(header, [_image_row(entry) for entry in report["images"]])
        yield ""
        for fact in _facts(report):
            yield from textwrap.wrap(fact, paper.width)
    for answer in sorted(answers, key=lambda answer: -STATUS[answer.verdict]):
        for verdict, text in _sentences(answer):
            yield ""
            yield from paper.paragraph(verdict, f"{answer.node}: {text}")


def _node_row(answer: Answer) -> tuple[str, ...]:
    report = answer.report
    if not report:
        return (answer.node, "unknown", *["-"] * 6, "not looked at")
    served = [entry["served"] for entry in report["images"]]
    daemon = report["daemon"]
    return (
        answer.node,
        report["verdict"],
        report["mode"],
        report["versions"]["soci"] or "-",
        str(served.count("lazy")),
        str(served.count("whole") + served.count("parallel")),
        _size(daemon["memoryBytes"]) if daemon["memoryBytes"] else "-",
        _duration(daemon["uptimeSeconds"]),
        ", ".join(dict.fromkeys(finding["id"] for finding in report["findings"])) or "none",
    )


def _image_row(entry: Json) -> tuple[str, ...]:
    of_lazy = f"{entry['lazyLayers']} of {entry['layers']} lazy" if entry["layers"] else "-"
    size = _size(entry["bytes"])
    if entry["lazyLayers"]:
        size += f", {_size(entry['lazyBytes'])} of it lazy"
        # An installer from before it could be known does not say it.
        if (local := entry.get("localBytes")) is not None:
            size += f", {_size(local)} of that here by now"
    return entry["image"], entry["served"], of_lazy, size, entry["why"] or "-"


def _facts(report: Json) -> Iterator[str]:
    versions = ", ".join(f"{name} {version or 'unknown'}" for name, version in report["versions"].items())
    mounts = report["mounts"]
    yield f"versions: {versions}; snapshotter {report['slot']}"
    yield (
        f"mounts: {mounts['lazyLayers']} lazily loaded layers, {mounts['containers']} containers, "
        f"{mounts['dead']} dead; background fetch {report['daemon']['backgroundFetch']}"
    )
    # An installer from before there were any says neither of these.
    if hardware := report.get("hardware"):
        yield f"hardware: {hardware['inWords']}; {hardware['chosen']}"
    for entry in report.get("credentials", ()):
        yield f"credentials for {entry['registry']}: {entry['source']}"
    yield from (f"not known: {what}" for what in report["notKnown"])


def _sentences(answer: Answer) -> Iterator[tuple[str, str]]:
    if answer.report is None:
        yield "unknown", answer.problem
        return
    for finding in answer.report["findings"]:
        words = f"{finding['subject']}: {finding['cause']} ({finding['id']}). Remedy: {finding['remedy']}."
        yield finding["severity"], words


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# The command


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soci-doctor",
        description="What is wrong with the nodes that have SOCI, with cause and remedy. Only looks.",
        epilog="Exit status, the highest that applies: 0 good, 1 warnings, 2 errors, 3 could not look.",
    )
    parser.add_argument("target", nargs="?", default="", metavar="NODE | pod/NAME", help="default: all nodes")
    parser.add_argument("--all", action="store_true", help="all nodes that have the installer")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument("--kubeconfig", help="a file; default: kubectl's")
    parser.add_argument("-n", "--namespace", help="of pod/NAME; default: the context's")
    parser.add_argument("--installer-namespace", default="soci-system", help="default: %(default)s")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="how kubectl is run")
    parsed = parser.parse_args(arguments)
    if parsed.all and parsed.target:
        parser.error("--all and a node or pod exclude each other")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, print, and return the exit status."""
    wanted = parse(arguments)
    options = [f"--{name}={value}" for name in ("context", "kubeconfig") if (value := getattr(wanted, name))]
    of_pod = ("--namespace", wanted.namespace) if wanted.namespace else ()
    kubectl = Kubectl((*shlex.split(wanted.kubectl), *options))
    try:
        answers = examine(kubectl, wanted.installer_namespace, wanted.target, of_pod)
    except CannotLookError as error:
        print(f"soci-doctor: {error}", file=sys.stderr)
        return STATUS["unknown"]
    verdict = max((answer.verdict for answer in answers), key=STATUS.__getitem__)
    if wanted.output == "json":
        print(json.dumps({"verdict": verdict, "nodes": [answer.to_json() for answer in answers]}, indent=2))
    else:
        print_lines(page(answers, paper()))
    return STATUS[verdict]


def paper() -> Paper:
    """For the terminal that this runs in; plain and wide where there is none."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else 160
    return Paper(width, is_terminal and "NO_COLOR" not in os.environ)


def print_lines(lines: Iterable[str]) -> None:
    """Print; a reader that leaves early, such as `head`, is no error."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
