"""Pods on one node: made, looked at, deleted."""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import lab_client

from tests.waiting import wait_for

READ_SECONDS = 60  # a repair may be restarting containerd, which takes the way to the pod away


@dataclass(frozen=True)
class Pod:
    """One pod that was made on a node."""

    api: Any
    node: str
    name: str

    @classmethod
    def start(cls, api: Any, node: str, image: str, command: list[str], **spec: Any) -> "Pod":
        """Make a pod with one container; ``spec`` is added to the pod's."""
        pod = cls(api, node, f"life-{node}-{time.monotonic_ns() % 10**9}")
        whole = {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image, "command": command}],
            "tolerations": [{"operator": "Exists"}],
            **spec,
        }
        api.create_namespaced_pod("default", {"metadata": {"name": pod.name}, "spec": whole})
        return pod

    @property
    def status(self) -> Any:
        return self.api.read_namespaced_pod(self.name, "default").status

    @property
    def container(self) -> str:
        """The identifier of its container, which has been started once."""
        (status,) = self.status.container_statuses
        return status.container_id.rpartition("/")[2]

    @property
    def restarts(self) -> int:
        return sum(entry.restart_count for entry in self.status.container_statuses or [])

    @property
    def waits_for(self) -> str:
        """Why its container does not run, in the kubelet's word; empty when it runs or has ended."""
        states = [entry.state for entry in self.status.container_statuses or []]
        return next((state.waiting.reason for state in states if state.waiting), "")

    @property
    def log(self) -> str:
        return self.api.read_namespaced_pod_log(self.name, "default")

    @property
    def words(self) -> list[str]:
        """Its Events."""
        selector = f"involvedObject.name={self.name}"
        items = self.api.list_namespaced_event("default", field_selector=selector).items
        return [f"{item.reason}: {item.message}" for item in items]

    def await_phase(self, phase: str, seconds: float) -> float:
        """Seconds until the pod is in this phase."""
        started = time.monotonic()
        try:
            wait_for(lambda: self.status.phase == phase, seconds, f"pod {self.name} {phase}")
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.words}") from None
        return time.monotonic() - started

    def reads(self, files: str) -> bool:
        """Whether it reads these files, those that nobody has read before among them."""
        script = f"cat {files} >/dev/null && echo all || echo not all"
        give_up = time.monotonic() + READ_SECONDS
        while time.monotonic() < give_up:
            try:
                answer = _kubectl("exec", self.name, "--", "sh", "-c", script).strip()
            except subprocess.CalledProcessError as error:
                if "OCI runtime exec failed" in error.stderr:  # the shell itself cannot be read
                    return False
            except subprocess.TimeoutExpired:
                return False
            else:
                if answer in ("all", "not all"):
                    return answer == "all"
            time.sleep(1)
        return False

    def delete(self) -> None:
        with contextlib.suppress(Exception):
            self.api.delete_namespaced_pod(self.name, "default", grace_period_seconds=0)


def _kubectl(*arguments: str) -> str:
    command = [str(lab_client.REPOSITORY / "scripts/lab/lab"), "kubectl", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
