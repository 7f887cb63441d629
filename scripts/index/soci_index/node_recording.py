"""The reads of a container, recorded by the installer's pod on its node; by kubectl, with the user's rights.

It needs what soci-doctor needs: to list the installer's pods and to run a command in one. With ``run`` it
also makes a pod of the image on that node, and deletes it.
"""

import contextlib
import json
import math
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .errors import SociIndexError

Json = dict[str, Any]

INSTALLER = "app.kubernetes.io/name=soci-installer"
KUBECTL_SECONDS = 60
READY_POLL_SECONDS = 0.5
EXEC_FAILED = "command terminated with exit code"  # kubectl, after what the command itself said
GRACE_SECONDS = 30  # for the node to say what it has, beyond what it was asked to take
# An installer from before this command would take the word for a new start, and install.
RECORD = """test -e agent/reads.py || { echo 'this installer is older. Remedy: pulumi up' >&2; exit 1; }
exec python3 -B -m agent reads "$@\""""


@dataclass(frozen=True)
class Wanted:
    """Which start is recorded, and until when.

    Attributes:
        image: the whole name, registry and all, as containerd has it.
        node: where.
        seconds: after the start, at most.
        line: of its output, a regular expression; empty for the pod's readiness.
        wait: seconds until it starts, at most.
        run: whether a pod of the image is made for it.
        command: of that pod's container; empty for the image's own.
    """

    image: str
    node: str
    seconds: float = 120.0
    line: str = ""
    wait: float = 600.0
    run: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """How kubectl is run, and where the installer is."""

    kubectl: tuple[str, ...]
    installer_namespace: str
    namespace: str = "default"  # for a pod of ours

    def ask(self, *arguments: str, text: str = "") -> str:
        """What kubectl prints.

        Raises:
            SociIndexError: it failed.
        """
        command = [*self.kubectl, *arguments]
        remedy = "see to kubectl, its context and your rights"
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SociIndexError(f"kubectl cannot be asked ({error})", remedy) from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise SociIndexError(f"kubectl {arguments[0]}: {said}", remedy)
        return done.stdout

    def installer_on(self, node: str) -> str:
        """The installer's pod on a node.

        Raises:
            SociIndexError: there is none.
        """
        where = ("--namespace", self.installer_namespace, "--selector", INSTALLER)
        pods = json.loads(self.ask("get", "pods", *where, "--output", "json"))["items"]
        for pod in pods:
            is_leaving = "deletionTimestamp" in pod["metadata"]
            if pod["spec"].get("nodeName") == node and not is_leaving:
                return str(pod["metadata"]["name"])
        cause = f"no installer's pod of namespace {self.installer_namespace} is on node {node}"
        raise SociIndexError(cause, "see kubectl get nodes, soci:nodeSelector, and --installer-namespace")


def record(cluster: Cluster, wanted: Wanted, say: Callable[[str], None] = lambda text: None) -> Json:
    """Record one start.

    Args:
        cluster: where.
        wanted: what.
        say: is told what is waited for.

    Raises:
        SociIndexError: there was no start, or it could not be followed.
    """
    pod = cluster.installer_on(wanted.node)
    options = ["--seconds", str(wanted.seconds), "--wait", str(wanted.wait), "--line", wanted.line]
    command = [*cluster.kubectl, "exec", "-i", "--namespace", cluster.installer_namespace, pod]
    command += ["--container", "installer", "--", "sh", "-c", RECORD, "reads", wanted.image, *options]
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except OSError as error:
            raise SociIndexError(f"kubectl cannot be run ({error})", "see to --kubectl") from error
        limit = threading.Timer(wanted.wait + wanted.seconds + GRACE_SECONDS, process.kill)
        limit.start()
        try:
            found = _follow(cluster, wanted, process, say)
        finally:
            limit.cancel()
            process.kill()
            process.wait()
        if found:
            return found
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line and EXEC_FAILED not in line]
        raise _problem((said or ["the recording ended without a word"])[-1])


def _follow(
    cluster: Cluster, wanted: Wanted, process: subprocess.Popen[str], say: Callable[[str], None]
) -> Json | None:
    made = ""
    try:
        for said in _lines(process):
            if "waits" in said:  # it sees every start from here on
                say(f"waiting for a container of {wanted.image} on {wanted.node}")
                if wanted.run:
                    made = f"soci-index-advise-{time.time_ns() // 10**6}"
                    _run(cluster, wanted, made)
            if started := said.get("started"):
                _watch(cluster, wanted, process, (str(started["namespace"]), str(started["pod"])), say)
            if "problem" in said:
                raise _problem(str(said["problem"]))
            if "reads" in said:
                return dict(said["reads"])
        return None
    finally:
        if made:
            delete = ("delete", "pod", made, "--namespace", cluster.namespace)
            cluster.ask(*delete, "--wait=false", "--ignore-not-found")


def _watch(
    cluster: Cluster,
    wanted: Wanted,
    process: subprocess.Popen[str],
    pod: tuple[str, str],
    say: Callable[[str], None],
) -> None:
    say(f"pod {'/'.join(pod)} has started")
    if not wanted.line:
        threading.Thread(target=_end_when_ready, args=(cluster, pod, process), daemon=True).start()


def _end_when_ready(cluster: Cluster, pod: tuple[str, str], process: subprocess.Popen[str]) -> None:
    """Close the recording's standard input, which ends it, once the pod is ready or has ended."""
    question = ("get", "pod", pod[1], "--namespace", pod[0], "--ignore-not-found", "--output", "json")
    while process.poll() is None:
        with contextlib.suppress(SociIndexError):
            text = cluster.ask(*question)
            if not text.strip() or _is_over(json.loads(text).get("status", {})):
                assert process.stdin is not None
                process.stdin.close()
                return
        time.sleep(READY_POLL_SECONDS)


def _is_over(status: Json) -> bool:
    """Whether a pod is ready, or has ended."""
    is_ready = any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", [])
    )
    return is_ready or status.get("phase") in ("Succeeded", "Failed")


def _run(cluster: Cluster, wanted: Wanted, name: str) -> None:
    """Make a pod of the image on the node."""
    container: Json = {"name": "image", "image": wanted.image}
    if wanted.command:
        container["command"] = list(wanted.command)
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {
            "nodeName": wanted.node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "activeDeadlineSeconds": math.ceil(wanted.wait + wanted.seconds + GRACE_SECONDS),
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    cluster.ask("create", "--filename", "-", text=json.dumps(manifest))


def _lines(process: subprocess.Popen[str]) -> Iterator[Json]:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _problem(said: str) -> SociIndexError:
    cause, _, remedy = said.partition(". Remedy: ")
    return SociIndexError(cause, remedy or "see the installer's pod, and soci-doctor")
