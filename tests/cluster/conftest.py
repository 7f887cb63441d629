"""The lab with the `local` stack deployed on it, as `make up` leaves it; kept running between sessions."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "scripts" / name) for name in ("bench", "installer")]

import lab_client  # noqa: E402 (found through the path above)
import pod_start  # noqa: E402
from agent.slots import FIRST, SECOND, Slot  # noqa: E402

from tests.waiting import wait_for  # noqa: E402

SOCI_NODES = ["node1", "node2"]
# Every read opens its file anew, which goes to the daemon each time.
READER = """
reads=0 errors=0
while :; do
  for file in /opt/sample/data/*/*; do
    if head -c 4096 "$file" >/dev/null; then reads=$((reads + 1)); else errors=$((errors + 1)); fi
    if [ $((reads % 20)) = 0 ] || [ $errors -gt 0 ]; then echo "reads=$reads errors=$errors"; fi
    usleep 30000
  done
done
"""


class Stack:
    """The `local` stack, run through the CLI as a user does, with settings of a test's own."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.environment = environment
        self.config_file = directory / "Pulumi.local.yaml"
        self.config_file.write_text((REPOSITORY / "stacks" / "Pulumi.local.yaml").read_text())

    def pulumi(self, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments, "--stack", "local"],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pulumi up`; the caller judges the exit code."""
        return self.pulumi(
            "up", "--yes", "--non-interactive", "--config-file", str(self.config_file), *arguments
        )

    def set(self, key: str, value: str, path: bool = False) -> None:
        done = self.pulumi(
            "config", "set", "--config-file", str(self.config_file), *(["--path"] if path else []), key, value
        )
        assert done.returncode == 0, done.stderr

    def must_go_up(self, *arguments: str) -> str:
        done = self.up(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Readers:
    """Pods that read in loops, and what they have counted."""

    def __init__(self, api, names: list[str]) -> None:
        self.api = api
        self.names = names

    def counts(self) -> dict[str, tuple[int, int]]:
        """Reads and errors so far of each pod."""
        counted = {}
        for name in self.names:
            log = self.api.read_namespaced_pod_log(name, "default", tail_lines=1)
            found = re.fullmatch(r"reads=(\d+) errors=(\d+)", log.strip())
            counted[name] = (int(found[1]), int(found[2])) if found else (0, 0)
        return counted

    def must_go_on(self) -> None:
        """Each pod reads on, without having met an error, in its first container."""
        before = self.counts()

        def all_read() -> bool:
            now = self.counts()
            assert {name: errors for name, (_, errors) in now.items()} == dict.fromkeys(self.names, 0)
            return all(now[name][0] > before[name][0] + 40 for name in self.names)

        wait_for(all_read, 60, f"further reads beyond {before}")
        for name in self.names:
            (status,) = self.api.read_namespaced_pod(name, "default").status.container_statuses
            assert (status.ready, status.restart_count) == (True, 0)

    def delete(self) -> None:
        for name in self.names:
            self.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


@pytest.fixture(scope="session")
def deployed() -> dict[str, str]:
    """The engine's environment, once the lab is up and the untouched `local` stack is deployed."""
    if os.geteuid() != 0:
        pytest.fail("the cluster tests start real nodes and need root: run `sudo make cluster`")
    lab_client.lab("up")
    environment = lab_client.engine_environment()
    select = ["pulumi", "stack", "select", "--create", "local"]
    subprocess.run(select, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    up = ["pulumi", "up", "--stack", "local", "--yes", "--non-interactive"]
    done = subprocess.run(up, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@pytest.fixture
def stack(deployed: dict[str, str], tmp_path: Path) -> Iterator[Stack]:
    """The deployed stack; whatever a test makes of it is put back afterwards."""
    own = Stack(deployed, tmp_path)
    yield own
    restored = Stack(deployed, tmp_path)
    restored.must_go_up()


@pytest.fixture(scope="session")
def api(deployed: dict[str, str]):
    """The cluster's core API (kubernetes.client.CoreV1Api)."""
    return lab_client.kubernetes_api()


@pytest.fixture
def run_pod(api) -> Iterator[Callable[..., str]]:
    """Start a pod and return its name once it runs; every pod is deleted after the test."""
    names: list[str] = []

    def run(
        image: str, node: str, command: list[str] | None = None, timeout_s: float = 120, **metadata: object
    ) -> str:
        name = f"test-{os.getpid()}-{len(names)}-{time.monotonic_ns() % 10**6}"
        container = {"name": "main", "image": image, "command": command or ["/bin/sh", "-c", "sleep 3600"]}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        api.create_namespaced_pod("default", {"metadata": {"name": name, **metadata}, "spec": spec})
        names.append(name)
        wait_for(
            lambda: api.read_namespaced_pod(name, "default").status.phase == "Running",
            timeout_s,
            f"pod {name}",
        )
        return name

    yield run
    for name in names:
        with contextlib.suppress(ApiException):  # the test may have deleted it
            api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


@pytest.fixture
def forget_whole_images(stack: Stack) -> Iterator[None]:
    """For tests that pull the sample image whole: it would be whole for the next test, too, under SOCI."""
    yield
    for node in SOCI_NODES:
        wait_for(
            lambda node=node: "/sample" not in lab_client.on_node(node, "ctr -n k8s.io containers ls"),
            120,
            f"no container of the sample on {node}",
        )
        pod_start.forget_image(node)


def containerd_starts(node: str) -> str:
    """What changes whenever the node's containerd is restarted (its main process and start time)."""
    return lab_client.on_node(
        node, "systemctl show containerd -p MainPID -p ActiveEnterTimestampMonotonic --value"
    )


def slot_in_use(node: str) -> Slot:
    return (
        SECOND
        if "soci-b" in lab_client.on_node(node, "containerd config dump | grep 'snapshotter = '")
        else FIRST
    )


def running_program(node: str, slot: Slot) -> str:
    """What the slot's process runs; empty when there is none."""
    pid = f"$(systemctl show {slot.unit} -p MainPID --value)"
    return lab_client.on_node(node, f"readlink /proc/{pid}/exe || true").strip()


def host_files(node: str) -> str:
    """Digests of everything an installer could have changed on the node."""
    return lab_client.on_node(
        node,
        "find /etc/containerd /etc/systemd/system /etc/soci-snapshotter-grpc /opt/soci-cluster -type f"
        " -exec sha256sum {} + | sort -k 2",
    )


def condition(api, node: str) -> dict:
    """The node's SociReady condition; empty when there is none."""
    status = api.read_node(node).status
    return next((entry.to_dict() for entry in status.conditions if entry.type == "SociReady"), {})


def install_report(api, node: str) -> dict:
    return json.loads(api.read_node(node).metadata.annotations["soci-cluster.io/install"])


def installer_pod(api, node: str):
    """The live installer pod of a node; None when there is none."""
    pods = api.list_namespaced_pod("soci-system", field_selector=f"spec.nodeName={node}").items
    return next((pod for pod in pods if not pod.metadata.deletion_timestamp), None)


def is_ready(pod) -> bool:
    return bool(pod) and any(status.ready for status in pod.status.container_statuses or [])
