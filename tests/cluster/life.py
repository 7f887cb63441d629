"""The matrix of a node's life: what happens to it, and who has the image meanwhile.

A cell is one of each: something holds a lazily loaded image, the event happens, its cause goes. Then a new
pod of the image has to start on that node, lazily, and whoever held the image goes on, or is named.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lab_client
from lab_client import on_node
from settings import ADDRESS, REGISTRY

from tests.cluster.lab_stack import LabStack
from tests.cluster.looks import SOCI_NODES, condition
from tests.waiting import wait_for

IMAGE = f"{REGISTRY}/sample:1-soci"
START_SECONDS = 60  # from the end of an event's cause to the start of a new pod
NAME_SECONDS = 30  # from an event to the word on what it broke
AWAY_SECONDS = 15
CONFIG = "/etc/containerd/config.toml"
STATE = "/var/lib/soci-cluster"
CRASH = "kill -9 $(systemctl show -p MainPID --value soci-snapshotter)"
AGAIN = "for i in $(seq 120); do systemctl -q is-active soci-snapshotter && break; sleep 0.5; done"
WITHOUT_KEYS = f"{{ cat {STATE}/originals/etc.containerd.config.toml; echo '# by others'; }} >{CONFIG}"
# By all its names: containerd has one for its configuration, too.
FORGET = """
    names() { ctr -n k8s.io images ls | awk "$@"; }
    for digest in $(names '$1 ~ "/sample" { print $3 }' | sort -u); do
        ctr -n k8s.io images rm --sync $(names -v digest="$digest" '$3 == digest { print $1 }')
    done >/dev/null
"""
NO_REGISTRY = f"OUTPUT -p tcp -d {ADDRESS} --dport {REGISTRY.rpartition(':')[2]} -j REJECT"  # of iptables


@contextmanager
def registry_away(node: str) -> Generator[None]:
    """The node's packets do not reach the registry; a rule survives neither a reboot nor this."""
    on_node(node, f"iptables -I {NO_REGISTRY}")
    try:
        yield
    finally:
        on_node(node, f"iptables -D {NO_REGISTRY} 2>/dev/null || :")


def crash_with_registry_away(node: str) -> None:
    with registry_away(node):
        on_node(node, f"{CRASH}; sleep 1; {AGAIN}")
        time.sleep(AWAY_SECONDS)


def reboot_with_registry_away(node: str) -> None:
    """The registry is not there before the node is up, and for a while after that."""
    lines = [
        "[Unit]",
        "DefaultDependencies=no",
        "Before=soci-snapshotter.service",
        "[Service]",
        "Type=oneshot",
        f"ExecStart=/usr/sbin/iptables -I {NO_REGISTRY}",
        "[Install]",
        "WantedBy=sysinit.target",
    ]
    path = "/etc/systemd/system/no-registry.service"
    unit = "\\n".join([*lines, ""])
    on_node(node, f"printf '{unit}' >{path} && systemctl enable -q no-registry.service")
    try:
        lab_client.lab("reboot", node)
        time.sleep(AWAY_SECONDS)
    finally:
        on_node(
            node, f"systemctl disable -q no-registry.service; rm -f {path}; iptables -D {NO_REGISTRY} || :"
        )


def on_each(script: str) -> Callable[[LabStack | None, list[str]], None]:
    return on_all(lambda node: on_node(node, script))


def on_all(act: Callable[[str], object]) -> Callable[[LabStack | None, list[str]], None]:
    """An event that happens on all nodes at once."""

    def event(stack: LabStack | None, nodes: list[str]) -> None:
        with ThreadPoolExecutor(len(nodes)) as threads:
            list(threads.map(act, nodes))

    return event


def changed_and_back(**settings: str) -> Callable[[LabStack | None, list[str]], None]:
    """`pulumi config set`, `pulumi up`, and the same for the way back."""

    def event(stack: LabStack | None, nodes: list[str]) -> None:
        assert stack, "an event that changes the stack gets it"
        before = stack.config_file.read_text()
        for key, value in settings.items():
            stack.set(f"soci:{key}", value)
        try:
            stack.must_go_up()
        finally:
            stack.config_file.write_text(before)
            stack.must_go_up()

    return event


CHANGES = {
    "another mode and back": changed_and_back(mode="parallel"),
    "another version and back": changed_and_back(version="0.16.0"),
}
EVENTS: dict[str, Callable[[LabStack | None, list[str]], None]] = {
    "daemon killed": on_each(CRASH),
    "daemon killed, registry away": on_all(crash_with_registry_away),
    "reboot": on_all(lambda node: lab_client.lab("reboot", node)),
    "reboot, registry away": on_all(reboot_with_registry_away),
    "power cut": on_all(lambda node: lab_client.lab("power-cut", node)),
    "containerd restarted": on_each("systemctl restart containerd"),
    "containerd's configuration rewritten": on_each(WITHOUT_KEYS),
    "containerd's configuration rewritten, and restarted": on_each(
        f"{WITHOUT_KEYS}; systemctl restart containerd"
    ),
    "SOCI's configuration rewritten": on_each("echo '# by others' >>/etc/soci-snapshotter-grpc/config.toml"),
    "image removed": on_each(FORGET),
    **CHANGES,
}


class PoisonedError(AssertionError):
    """The image is there for the kubelet, and nothing starts on it."""


class UnnamedError(AssertionError):
    """Something is broken, and nobody says so."""


@dataclass
class Cell:
    """One node in one cell: the pods that were made on it."""

    api: Any
    node: str
    pods: list[str] = field(default_factory=list)

    def pod(self, command: list[str], **spec: Any) -> str:
        name = f"life-{self.node}-{time.monotonic_ns() % 10**9}"
        container = {"name": "main", "image": IMAGE, "command": command}
        whole = {
            "nodeName": self.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "tolerations": [{"operator": "Exists"}],
            **spec,
        }
        self.api.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": whole})
        self.pods.append(name)
        return name

    def status(self, name: str) -> Any:
        return self.api.read_namespaced_pod(name, "default").status

    def await_phase(self, name: str, phase: str, seconds: float) -> float:
        """Seconds until the pod is in this phase."""
        started = time.monotonic()
        try:
            wait_for(lambda: self.status(name).phase == phase, seconds, f"pod {name} {phase}")
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.words(name)}") from None
        return time.monotonic() - started

    def words(self, name: str) -> list[str]:
        selector = f"involvedObject.name={name}"
        items = self.api.list_namespaced_event("default", field_selector=selector).items
        return [f"{item.reason}: {item.message}" for item in items]

    def is_named(self, name: str) -> bool:
        told = any(word.startswith("BrokenMounts") for word in self.words(name))
        return told and name in (condition(self.api, self.node).get("message") or "")

    def reads(self, name: str) -> bool:
        """Whether the pod reads its files, those that nobody has read before among them."""
        command = ["exec", name, "--", "sh", "-c", "cat /opt/sample/data/*/* >/dev/null && echo all"]
        for _ in range(3):  # a repair may be restarting containerd
            with contextlib.suppress(Exception):
                return "all" in kubectl(*command)
            time.sleep(3)
        return False

    def close(self) -> None:
        for name in self.pods:
            with contextlib.suppress(Exception):
                self.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
        if self.pods:
            on_node(self.node, "ctr -n k8s.io containers rm life-created >/dev/null 2>&1 || :")


def kubectl(*arguments: str) -> str:
    command = [str(lab_client.REPOSITORY / "scripts/lab/lab"), "kubectl", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@dataclass(frozen=True)
class Holder:
    """Who has the image: how it comes to, and what has to be true of it after the event."""

    take: Callable[[Cell], str]
    check: Callable[[Cell, str], None]
    events: frozenset[str] = frozenset(EVENTS)  # those in which it can be


def nobody(cell: Cell) -> str:
    name = cell.pod(["true"], restartPolicy="Never")
    cell.await_phase(name, "Succeeded", 120)
    cell.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    cell.pods.remove(name)
    containers = f"ctr -n k8s.io containers ls -q 'labels.\"io.kubernetes.pod.name\"=={name}'"
    wait_for(lambda: not on_node(cell.node, containers), 60, "its containers are gone")
    return ""


def completed(cell: Cell) -> str:
    name = cell.pod(["sh", "-c", "echo done"], restartPolicy="Never")
    cell.await_phase(name, "Succeeded", 120)
    return name


def still_completed(cell: Cell, name: str) -> None:
    assert cell.status(name).phase == "Succeeded"
    assert cell.api.read_namespaced_pod_log(name, "default") == "done\n"


def crashing(cell: Cell) -> str:
    name = cell.pod(["sh", "-c", "exit 1"])
    wait_for(lambda: restarts(cell, name) > 0, 120, f"pod {name} has crashed")
    return name


def restarts(cell: Cell, name: str) -> int:
    return sum(entry.restart_count for entry in cell.status(name).container_statuses or [])


def running(cell: Cell) -> str:
    name = cell.pod(["sleep", "9999"])
    cell.await_phase(name, "Running", 120)
    return name


def reads_or_is_named(cell: Cell, name: str) -> None:
    if not cell.reads(name):
        try:
            wait_for(lambda: cell.is_named(name), NAME_SECONDS, f"{name} is named")
        except AssertionError as late:
            raise UnnamedError(str(late)) from None


def created(cell: Cell) -> str:
    nobody(cell)
    on_node(cell.node, f"ctr -n k8s.io containers create --snapshotter soci {IMAGE} life-created")
    return ""


def nothing(cell: Cell, name: str) -> None:
    """Nothing has to be true of it."""


# A daemon is not restarted below a running pod: such a change waits, which is another test's.
WITHOUT_WAIT = frozenset(EVENTS) - {*CHANGES, "SOCI's configuration rewritten"}
HOLDERS: dict[str, Holder] = {
    "nobody": Holder(nobody, nothing),
    "a completed pod": Holder(completed, still_completed),
    "a crashing pod": Holder(crashing, nothing),
    "a running pod": Holder(running, reads_or_is_named, WITHOUT_WAIT),
    "a container that was never started": Holder(created, nothing),
}
CELLS = [(event, holder) for event in EVENTS for holder in HOLDERS if event in HOLDERS[holder].events]


def run(api: Any, stack: LabStack | None, event: str, holder: str) -> dict[str, Any]:
    """Run a cell on all nodes at once; seconds from the end of the event's cause, by what was waited for.

    Raises:
        PoisonedError: nothing starts on the image any more.
        UnnamedError: a pod was broken without a word.
        AssertionError: something else that has to be true is not, on the node that it names.
    """
    cells = [Cell(api, node) for node in SOCI_NODES]
    # The stack's own sample has ended, and would hold the image, too.
    api.delete_collection_namespaced_pod("default", label_selector="app.kubernetes.io/name=soci-sample")
    try:
        with ThreadPoolExecutor(len(cells)) as threads:
            list(threads.map(without_image, cells))  # an earlier cell may have left it whole
            names = list(threads.map(HOLDERS[holder].take, cells))
            EVENTS[event](stack, SOCI_NODES)
            # In another mode the image was pulled whole, and stays so.
            is_lazy = event != "another mode and back"
            heals = list(threads.map(starts_again, cells, [is_lazy] * len(cells)))
            for cell, name in zip(cells, names, strict=True):
                HOLDERS[holder].check(cell, name)
            truths = list(threads.map(says_the_truth, cells))
            if "rewritten" in event:
                list(threads.map(put_right, cells))
    finally:
        for cell in cells:
            cell.close()
            # What the cell changed as somebody else would keep later ones from a repair, and an uninstall.
            on_node(cell.node, f"rm -f {STATE}/repairs {STATE}/originals/changed-by-others")
    return {"heal_s": max(heals), "truth_s": max(truths)}


def without_image(cell: Cell) -> None:
    wait_for(
        lambda: "/sample" not in on_node(cell.node, "ctr -n k8s.io containers ls"),
        120,
        f"no container of the sample on {cell.node}",
    )
    on_node(cell.node, FORGET)


def starts_again(cell: Cell, is_lazy: bool) -> float:
    """Seconds until a new pod of the image reads its files, lazily if it is to be lazy."""
    started = time.monotonic()
    name = cell.pod(["sleep", "9999"])
    try:
        cell.await_phase(name, "Running", START_SECONDS)
    except AssertionError as late:
        raise PoisonedError(f"{cell.node}: {late}") from None
    seconds = time.monotonic() - started
    if not cell.reads(name):
        raise PoisonedError(f"{cell.node}: a new pod does not read its files")
    (container,) = cell.status(name).container_statuses
    lazy = on_node(cell.node, "/opt/soci-cluster/soci-host.sh mounts")
    is_served = container.container_id.rpartition("/")[2] in lazy
    assert is_served or not is_lazy, f"{cell.node}: the image was pulled whole"
    return seconds


def put_right(cell: Cell) -> None:
    """What others wrote is gone: a restart of containerd or of the daemon brings nothing of it."""
    look = f"containerd --config {CONFIG} config dump 2>/dev/null | grep -q 'snapshotter = .soci' && "
    look += "! grep -q 'by others' /etc/soci-snapshotter-grpc/config.toml && echo ours || :"
    wait_for(lambda: "ours" in on_node(cell.node, look), NAME_SECONDS, f"{cell.node} is put right")


def says_the_truth(cell: Cell) -> float:
    """Seconds until the node says that it serves, which it does."""
    started = time.monotonic()
    wait_for(
        lambda: condition(cell.api, cell.node).get("status") == "True", NAME_SECONDS, f"{cell.node} SociReady"
    )
    return time.monotonic() - started
