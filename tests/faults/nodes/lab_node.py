"""A node of the lab as the agent sees it from a privileged pod, without the pod: its files, its commands."""

import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab_client
from agent import transaction
from lab_agent import INSTALLER, VERSION, AgentNode
from settings import ADDRESS, REGISTRY, VERSIONS

from tests.faults.script_points import HOST_SCRIPT, Statement, with_hooks
from tests.waiting import wait_for

CONFIG = "/etc/containerd/config.toml"
PROGRAMS = f"/opt/soci-cluster/versions/{VERSION}"
PAUSE = f"{REGISTRY}/pause:{VERSIONS['pause']}"
SAMPLE = f"{REGISTRY}/sample:1"
SAMPLE_WITH_INDEX = f"{REGISTRY}/sample:1-soci"
HEALTHY_WITHIN_S = 60
# What an installer may have changed. Its releases are left by a failed install, for the next try.
HOST_FILES = """
find /etc /usr/local/bin -xdev -type f -exec sha256sum {} +
find /etc -xdev -type l -printf '%l %p\\n'
"""


class LabNode(AgentNode):
    """One running node, to be damaged and asked."""

    def containerd_starts(self) -> str:
        """What every start of containerd changes."""
        return self.sh("systemctl show containerd -p InvocationID --value")

    def started_at(self, unit: str) -> float:
        """Seconds since the machine's boot at which the unit became active."""
        word = self.sh(f"systemctl show {unit} -p ActiveEnterTimestampMonotonic --value")
        return int(word) / 1e6

    def files(self) -> dict[str, str]:
        """Digest by path of all of /etc and of the node's own programs."""
        lines = (line.split(maxsplit=1) for line in self.sh(HOST_FILES).splitlines())
        return {path: digest for digest, path in lines}

    def journal(self) -> dict[str, str]:
        return transaction.journal_state(self.host)

    def effective_snapshotter(self) -> str:
        """The CRI's snapshotter, by the word of the running containerd's own configuration."""
        dump = self.sh("containerd config dump")
        found = re.findall(r"^\s*snapshotter = ['\"](.+)['\"]$", dump, re.MULTILINE)
        return found[0] if found else ""

    def cri_answers(self) -> bool:
        lines = self.run(["ctr", "plugins", "ls"]).output.splitlines()
        cri = [line for line in lines if " cri " in line or line.startswith("io.containerd.cri.v1")]
        return bool(cri) and all(line.split()[-1] == "ok" for line in cri)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.host.write(path, text.encode(), mode)

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        self.write(path, change(self.host.read_text(path)))

    def replace_program(self, path: str, script: str) -> None:
        """Put a shell script in the place of a program, which it finds beside it as `<program>.real`."""
        self.sh(f"mv {path} {path}.real")
        self.write(path, f"#!/bin/sh\n{script}\n", 0o755)

    def plant_daemon(self, script: str) -> None:
        """The release is on the node already, but its daemon is the script; the true one is `$0.real`."""
        self.fetch_release()
        self.replace_program(f"{PROGRAMS}/soci-snapshotter-grpc", script)

    @contextmanager
    def registry_down(self, how: str = "REJECT") -> Generator[None]:
        """Nothing of the registry reaches the node: refused, or with DROP never answered."""
        rule = f"OUTPUT -p tcp -d {ADDRESS} --dport {REGISTRY.rpartition(':')[2]} -j {how}"
        self.sh(f"iptables -I {rule}")
        try:
            yield
        finally:
            self.sh(f"iptables -D {rule}")

    def reboot(self) -> None:
        lab_client.lab("reboot", self.name)

    def power_cut(self) -> None:
        lab_client.lab("power-cut", self.name)


class Pods:
    """Pods on given nodes, deleted at the end."""

    def __init__(self) -> None:
        self.api = lab_client.kubernetes_api()
        self.names: list[str] = []

    def create(
        self,
        node: LabNode,
        image: str = PAUSE,
        command: list[str] | None = None,
        volume_image: str = "",
    ) -> str:
        """Make a pod; ``volume_image`` is mounted at /volume in it."""
        name = f"{node.name}-{len(self.names)}-{time.monotonic_ns() % 10**8}"
        container: dict[str, Any] = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
        if command:
            container["command"] = command
        spec = {
            "nodeName": node.name,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
        }
        if volume_image:
            container["volumeMounts"] = [{"name": "volume", "mountPath": "/volume"}]
            spec["volumes"] = [{"name": "volume", "image": {"reference": volume_image}}]
        self.api.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})
        self.names.append(name)
        return name

    def status(self, name: str):
        return self.api.read_namespaced_pod(name, "default").status

    def restarts(self, name: str) -> int:
        return sum(entry.restart_count for entry in self.status(name).container_statuses or [])

    def is_running(self, name: str) -> bool:
        status = self.status(name)
        return status.phase == "Running" and all(entry.ready for entry in status.container_statuses or [])

    def await_running(self, *names: str, timeout_s: float = 90) -> None:
        for name in names:
            try:
                wait_for(lambda name=name: self.is_running(name), timeout_s, f"pod {name} running")
            except AssertionError as late:
                raise AssertionError(f"{late}: {self.events(name)}") from None

    def start(self, node: LabNode, image: str = PAUSE, command: list[str] | None = None) -> str:
        name = self.create(node, image, command)
        self.await_running(name)
        return name

    def events(self, name: str) -> list[str]:
        selector = f"involvedObject.name={name}"
        items = self.api.list_namespaced_event("default", field_selector=selector).items
        return [f"{item.reason}: {item.message}" for item in items]

    def delete(self, *names: str) -> None:
        for name in names:
            self.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
            self.names.remove(name)

    def close(self) -> None:
        for name in self.names:
            self.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


@dataclass
class Health:
    """A pod that ran before the fault, and the node's files as they were."""

    node: LabNode
    pods: Pods
    witness: str
    files: dict[str, str]

    @classmethod
    def before(cls, node: LabNode, pods: Pods) -> "Health":
        return cls(node, pods, pods.start(node), node.files())

    def replace_containerd(self, script: str) -> None:
        """From now on the node's own containerd is the script; the true one is `$0.real`."""
        self.node.replace_program("/usr/local/bin/containerd", script)
        self.files = self.node.files()

    def assert_old_state(self) -> None:
        """The node is as it was and serves: its CRI answers, a new sandbox starts, what ran goes on."""
        node = self.node
        started = time.monotonic()
        wait_for(node.cri_answers, HEALTHY_WITHIN_S, "the CRI answers")
        assert node.files() == self.files
        assert node.effective_snapshotter() in ("", "overlayfs")
        fresh = self.pods.create(node)
        self.pods.await_running(fresh, timeout_s=HEALTHY_WITHIN_S - (time.monotonic() - started))
        self.pods.delete(fresh)
        assert self.pods.restarts(self.witness) == 0
        assert self.pods.is_running(self.witness)
        active = node.run(["systemctl", "is-active", "soci-snapshotter"]).output.strip()
        assert active in ("inactive", "unknown")

    def assert_new_state(self) -> None:
        """The node serves with SOCI, and what ran before goes on."""
        node = self.node
        wait_for(node.cri_answers, HEALTHY_WITHIN_S, "the CRI answers")
        assert node.effective_snapshotter() == "soci"
        assert node.journal()["state"] == "committed"
        fresh = self.pods.create(node)
        self.pods.await_running(fresh, timeout_s=HEALTHY_WITHIN_S)
        self.pods.delete(fresh)
        assert self.pods.restarts(self.witness) == 0


def payload_that(action: str, point: Statement, folder: Path) -> Path:
    """The installer's files; its host script does the action before that statement, once per boot."""
    copied = Path(shutil.copytree(INSTALLER, folder / "payload"))
    once = f"if [ ! -e /run/soci-cluster-hook ]; then touch /run/soci-cluster-hook; {action}; fi"
    shutil.rmtree(copied / "host")
    (copied / "host").mkdir()
    (copied / "host" / "whole.sh").write_text(with_hooks(HOST_SCRIPT, {point: once}))
    return copied
