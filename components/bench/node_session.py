"""The program that measures on a node (scripts/installer/agent/bench.py), asked through ``kubectl exec``.

It runs in the installer's pod of the node. Where there is none, as on a node without SOCI, a pod like the
installer's is started beside them, with the installer's program and image, and deleted again.
"""

import contextlib
import copy
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ..doctor import CannotLookError, Kubectl
from ..names import INSTALLER

Json = dict[str, Any]

# An installer from before this command would take the word for a new start, and install.
PROGRAM = """test -e agent/bench.py || { echo 'this installer is older. Remedy: pulumi up' >&2; exit 1; }
exec python3 -B -m agent bench"""
HELPER_SECONDS = 120
HELPER_LIFE_SECONDS = 12 * 3600  # longer than measurements are
CLOCK_QUESTIONS = 5


class BenchError(Exception):
    """Nothing can be measured: what, why, and what to do."""


class NodeSession:
    """A node, as long as its program answers. Times are given by this machine's clock."""

    def __init__(self, kubectl: Kubectl, node: str, namespace: str, pod: str) -> None:
        self.node = node
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed with the session)
        container = ("--container", "installer")
        place = ("exec", "--stdin", "--namespace", namespace, pod, *container, "--", "sh", "-c", PROGRAM)
        self._process = subprocess.Popen(
            [*kubectl.command, *place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._abandoned = 0  # questions that nobody waits for any more; the node answers them all the same
        self._free_by = 0.0  # when it should have
        threading.Thread(target=self._read, daemon=True).start()
        self._offset = self._clock_offset()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(
        self, do: str, seconds: float = 150, stop: Callable[[], str] = lambda: "", **arguments: Any
    ) -> Json:
        """The answer to a question.

        Args:
            do: the question, one of agent/bench.py.
            seconds: to wait for the answer, once the node is done with questions from before.
            stop: asked meanwhile; what it says is why there will be none.
            arguments: of the question.

        Raises:
            BenchError: the node refuses, says nothing, or there is no sense in waiting.
        """
        assert self._process.stdin
        deadline = max(time.monotonic(), self._free_by if self._abandoned else 0.0) + seconds
        with contextlib.suppress(BrokenPipeError):  # what it said at its end is told
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        while True:
            try:
                line = self._answers.get(timeout=0.2)
            except queue.Empty:
                if (why := stop()) or time.monotonic() > deadline:
                    cause = why or f"no answer to {do!r} in {seconds:.0f} s. Remedy: see kubectl get nodes"
                    self._abandoned, self._free_by = self._abandoned + 1, deadline
                    raise BenchError(f"{self.node}: {cause}") from None
                continue
            if not line:
                self._answers.put("")
                self._errors.seek(0)
                said = (self._errors.read().strip().splitlines() or ["its pod has ended"])[-1]
                raise BenchError(f"{self.node}: {said}")
            if self._abandoned:
                self._abandoned -= 1
                deadline = time.monotonic() + seconds
                continue
            answer = json.loads(line)
            if "error" in answer:
                raise BenchError(f"{self.node}: {answer['error']}")
            return answer

    def here(self, node_time: float | None) -> float | None:
        """A time of the node by this machine's clock."""
        return None if node_time is None else node_time - self._offset

    def _clock_offset(self) -> float:
        """Seconds by which the node's clock is ahead, from the question that was answered soonest."""
        found = []
        for _ in range(CLOCK_QUESTIONS):
            before = time.time()
            now = self.ask("clock", seconds=30)["now"]
            after = time.time()
            found.append((after - before, now - (before + after) / 2))
        return min(found)[1]

    def close(self) -> None:
        """End the program on the node, which its input's end does."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@contextlib.contextmanager
def sessions(kubectl: Kubectl, namespace: str, nodes: Sequence[str]) -> Generator[dict[str, NodeSession]]:
    """A session on each node, by its name.

    Raises:
        BenchError, CannotLookError: the installer is not in that namespace, or a node cannot be asked.
    """
    pods = installer_pods(kubectl, namespace)
    with contextlib.ExitStack() as stack:
        found = {}
        for node in dict.fromkeys(nodes):
            pod = pods.get(node) or stack.enter_context(_helper(kubectl, namespace, node))
            found[node] = NodeSession(kubectl, node, namespace, pod)
            stack.callback(found[node].close)
        yield found


def installer_pods(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """The installer's pod of each node that has one; those on their way out do not count."""
    selector = ("--selector", f"app.kubernetes.io/name={INSTALLER}")
    pods = kubectl.get("pods", "--namespace", namespace, *selector)["items"]
    return {
        pod["spec"]["nodeName"]: pod["metadata"]["name"]
        for pod in pods
        if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
    }


@contextlib.contextmanager
def _helper(kubectl: Kubectl, namespace: str, node: str) -> Generator[str]:
    """The name of a pod like the installer's, on a node without it, for as long as it is needed."""
    daemon_set = kubectl.get("daemonset", INSTALLER, "--namespace", namespace)
    pod = helper_pod(daemon_set, node)
    name = pod["metadata"]["name"]
    where = ("--namespace", namespace)
    kubectl.run("delete", "pod", name, *where, "--ignore-not-found", "--wait=true")
    try:
        kubectl.run("create", *where, "--filename", "-", text=json.dumps(pod))
        deadline = time.monotonic() + HELPER_SECONDS
        while kubectl.get("pod", name, *where)["status"].get("phase") != "Running":
            if time.monotonic() > deadline:
                remedy = f"see kubectl -n {namespace} describe pod {name}"
                raise BenchError(f"{node}: its helper does not start. Remedy: {remedy}")
            time.sleep(0.5)
        yield name
    finally:
        with contextlib.suppress(CannotLookError):
            kubectl.run("delete", "pod", name, *where, "--ignore-not-found", "--wait=false")


def helper_pod(daemon_set: Mapping[str, Any], node: str) -> Json:
    """A pod of the installer's program, image and view of the node, that does nothing by itself.

    It has no service account's token: nothing of it talks to the API server.
    """
    spec = copy.deepcopy(daemon_set["spec"]["template"]["spec"])
    installer = next(entry for entry in spec["containers"] if entry["name"] == "installer")
    container = {
        key: installer[key]
        for key in ("name", "image", "imagePullPolicy", "workingDir", "securityContext", "volumeMounts")
        if key in installer
    }
    # The first process of a container ignores a signal that it does not handle.
    container["command"] = ["sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"]
    kept = {key: spec[key] for key in ("volumes", "imagePullSecrets", "hostPID") if key in spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"soci-bench-{node}"[:63].rstrip("-."),
            "labels": {"app.kubernetes.io/name": "soci-bench"},
        },
        "spec": {
            **kept,
            "nodeName": node,
            "containers": [container],
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            # Also where soci-bench itself was killed.
            "activeDeadlineSeconds": HELPER_LIFE_SECONDS,
            "terminationGracePeriodSeconds": 1,
        },
    }
