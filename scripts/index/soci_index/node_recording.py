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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SociIndexError

Json = dict[str, Any]

INSTALLER = "app.kubernetes.io/name=soci-installer"
KUBECTL_SECONDS = 60
READY_POLL_SECONDS = 0.5
EXEC_FAILED = "command terminated with exit code"  # kubectl, after what the command itself said
IMAGE_CONTAINER = "image"  # of a pod of ours
# The kubelet's words for a container that will not start by itself, and what is to be done.
WILL_NOT_START = {
    "InvalidImageName": "see to the image's name",
    "ErrImageNeverPull": "see to the cluster's admission, which keeps the image from being pulled",
    "CreateContainerConfigError": "see to the image's user, and to what admission adds to the pod",
    "CreateContainerError": "see to the image's command, or name one after --",
}
MISHAPS = ("context deadline exceeded", "is reserved for")  # of a busy node, which tries again
PULL_FAILED, PULL_WAITS = ("ErrImagePull", "RegistryUnavailable"), "ImagePullBackOff"
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
        pull_secrets: of that pod, names of secrets in its namespace.
    """

    image: str
    node: str
    seconds: float = 120.0
    line: str = ""
    wait: float = 600.0
    run: bool = False
    command: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()


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

    def status_of(self, namespace: str, pod: str) -> Json | None:
        """The status of a pod; None when it is gone.

        Raises:
            SociIndexError: kubectl does not say.
        """
        where = ("--namespace", namespace, "--ignore-not-found", "--output", "json")
        text = self.ask("get", "pod", pod, *where)
        return json.loads(text).get("status", {}) if text.strip() else None

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


class Start:
    """The start of a pod of ours: that it has been, or why there will be none."""

    def __init__(self) -> None:
        self.has_been = threading.Event()
        self.problem: SociIndexError | None = None


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
    start = Start()
    try:
        for said in _lines(process):
            if "waits" in said:  # it sees every start from here on
                say(f"waiting for a container of {wanted.image} on {wanted.node}")
                if wanted.run:
                    made = f"soci-index-advise-{time.time_ns() // 10**6}"
                    _run(cluster, wanted, made)
                    rest = (cluster, made, start, process)
                    threading.Thread(target=_end_when_stuck, args=rest, daemon=True).start()
            if started := said.get("started"):
                start.has_been.set()
                _watch(cluster, wanted, process, (str(started["namespace"]), str(started["pod"])), say)
            if "problem" in said:
                raise start.problem or _problem(str(said["problem"]))
            if "reads" in said:
                return dict(said["reads"])
        if start.problem:
            raise start.problem
        return None
    finally:
        start.has_been.set()
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
    while process.poll() is None:
        with contextlib.suppress(SociIndexError):
            status = cluster.status_of(*pod)
            if status is None or _is_over(status):
                assert process.stdin is not None
                process.stdin.close()
                return
        time.sleep(READY_POLL_SECONDS)


def _end_when_stuck(cluster: Cluster, name: str, start: Start, process: subprocess.Popen[str]) -> None:
    """End the recording once the kubelet has said that the pod's container will not start."""
    reasons: list[str] = []
    while not start.has_been.wait(READY_POLL_SECONDS) and process.poll() is None:
        with contextlib.suppress(SociIndexError):
            status = cluster.status_of(cluster.namespace, name) or {}
            reason, _ = waiting(status)
            if reason and reasons[-1:] != [reason]:
                reasons.append(reason)
            start.problem = why_stuck(status, reasons, cluster.namespace)
        if start.problem and not start.has_been.is_set():
            process.kill()
            return


def waiting(status: Json) -> tuple[str, str]:
    """What the container of a pod of ours waits for, in the kubelet's word and in its message; empty for
    nothing."""
    for container in status.get("containerStatuses") or []:
        if container.get("name") == IMAGE_CONTAINER:
            found = (container.get("state") or {}).get("waiting") or {}
            return str(found.get("reason", "")), str(found.get("message", ""))
    return "", ""


def why_stuck(status: Json, reasons: Sequence[str], namespace: str) -> SociIndexError | None:
    """Why the container of a pod will not start; None while it may.

    A pull that failed is tried again by the kubelet, and a registry's first answer may be a mishap. So a pull
    counts once it has failed for the second time.

    Args:
        status: of the pod.
        reasons: for which its container has waited so far, the last one included, each change of them once.
        namespace: of the pod.
    """
    if status.get("phase") == "Failed" and status.get("reason"):  # before a container was made
        cause = f"the kubelet refuses the pod: {status['reason']}: {status.get('message', '')}"
        return SociIndexError(cause, "name another node with --node, or make room on this one")
    reason, message = waiting(status)
    cause = f"the kubelet cannot start the pod's container: {reason}: {message}"
    if reason in WILL_NOT_START and not any(words in message for words in MISHAPS):
        return SociIndexError(cause, WILL_NOT_START[reason])
    if reason in PULL_FAILED and PULL_WAITS in reasons:
        remedy = f"see to the image's name; a private one needs --image-pull-secret, a secret of {namespace}"
        return SociIndexError(cause, remedy)
    return None


def _is_over(status: Json) -> bool:
    """Whether a pod is ready, or has ended."""
    is_ready = any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", [])
    )
    return is_ready or status.get("phase") in ("Succeeded", "Failed")


def _run(cluster: Cluster, wanted: Wanted, name: str) -> None:
    """Make a pod of the image on the node."""
    container: Json = {"name": IMAGE_CONTAINER, "image": wanted.image}
    if wanted.command:
        container["command"] = list(wanted.command)
    secrets = [{"name": secret} for secret in wanted.pull_secrets]
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
            **({"imagePullSecrets": secrets} if secrets else {}),
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
