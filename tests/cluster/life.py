"""The matrix of a node's life: what happens to it, and who has the image meanwhile.

A cell is one of each: something holds a lazily loaded image, the event happens, its cause goes. Then a new
pod of the image has to start on that node, lazily, and whoever held the image goes on, or is named.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from agent.slots import FIRST, SECOND
from kubernetes.client.exceptions import ApiException
from lab_client import on_node
from settings import REGISTRY, VERSIONS

from tests.cluster import sample_pods
from tests.cluster.life_events import CONFIG, EVENTS, FORGET, FORGET_REMOVED, STATE, Event, Stage
from tests.cluster.life_pods import Pod
from tests.cluster.looks import SOCI_NODES, condition, slot_in_use
from tests.cluster.registries import REMOVED_SECONDS, pull_secret
from tests.waiting import wait_for

START_SECONDS = 60  # from the end of an event's cause to the start of a new pod
NAME_SECONDS = 30  # from an event to the word on what it broke
HELD = "grep -c -e /sample -e image-volumes"
FILES = "/opt/sample/data/*/*"
SHELL_IMAGE = f"{REGISTRY}/python:3.11"  # the installer's, which is on the node anyway


class PoisonedError(AssertionError):
    """The image is there for the kubelet, and nothing starts on it."""


class UnnamedError(AssertionError):
    """Something is broken, and nobody says so."""


@dataclass
class Cell:
    """One node in one cell: the pods that were made on it."""

    api: Any
    node: str
    event: Event
    pods: list[Pod] = field(default_factory=list)
    mounts: set[str] = field(default_factory=set)  # of lazily loaded layers from before the image

    @property
    def secret(self) -> str:
        return f"life-{self.node}"

    def pod(self, command: list[str], image: str = "", **spec: Any) -> Pod:
        """A pod of the event's image, or of another one."""
        if self.event.secret:
            spec["imagePullSecrets"] = [{"name": self.secret}]
        self.pods.append(Pod.start(self.api, self.node, image or self.event.image, command, **spec))
        return self.pods[-1]

    def open(self) -> None:
        """The node has nothing of the image, and whoever may pull it has the secret."""
        without_image(self.node)
        self.mounts = sample_pods.fuse_mount_points(self.node)
        if self.event.secret:
            secret = pull_secret(self.secret, self.event.host, *self.event.secret)
            self.api.create_namespaced_secret("default", secret)

    def close(self) -> None:
        for pod in self.pods:
            pod.delete()
        with contextlib.suppress(ApiException):
            self.api.delete_namespaced_secret(self.secret, "default")
        on_node(self.node, "ctr -n k8s.io containers rm life-created >/dev/null 2>&1 || :")
        # What the cell changed as somebody else would keep later ones from a repair, and an uninstall.
        on_node(self.node, f"rm -f {STATE}/repairs {STATE}/originals/changed-by-others")
        if self.event.is_for_good:
            # The daemon remembers of which images it found no index.
            on_node(self.node, f"systemctl restart {slot_in_use(self.node).unit}")

    def is_named(self, pod: Pod) -> bool:
        told = any(word.startswith("BrokenMounts") for word in pod.words)
        return told and pod.name in (condition(self.api, self.node).get("message") or "")


@dataclass(frozen=True)
class Holder:
    """Who has the image: how it comes to, and what has to be true of it after the event.

    Args:
        reads: whether it reads lazily meanwhile.
        nodes: on which it can be.
    """

    take: Callable[[Cell], Pod | None]
    check: Callable[[Cell, Pod], None] = lambda cell, pod: None
    reads: bool = False
    nodes: tuple[str, ...] = tuple(SOCI_NODES)


def nobody(cell: Cell) -> None:
    pod = cell.pod(["true"], restartPolicy="Never")
    pod.await_phase("Succeeded", 120)
    pod.delete()
    cell.pods.remove(pod)
    await_no_container(pod)


def await_no_container(pod: Pod) -> None:
    containers = f"ctr -n k8s.io containers ls -q 'labels.\"io.kubernetes.pod.name\"=={pod.name}'"
    wait_for(lambda: not on_node(pod.node, containers), REMOVED_SECONDS, "its containers are gone")


def completed(cell: Cell) -> Pod:
    pod = cell.pod(["sh", "-c", "echo done"], restartPolicy="Never")
    pod.await_phase("Succeeded", 120)
    return pod


def still_completed(cell: Cell, pod: Pod) -> None:
    assert pod.status.phase == "Succeeded"
    assert pod.log == "done\n"


def crashing(cell: Cell) -> Pod:
    pod = cell.pod(["sh", "-c", "exit 1"])
    wait_for(lambda: pod.restarts > 0, 120, f"pod {pod.name} has crashed")
    return pod


def running(cell: Cell) -> Pod:
    pod = cell.pod(["sleep", "9999"])
    pod.await_phase("Running", 120)
    return pod


def mounting(cell: Cell) -> Pod:
    """A running pod of another image, which has this one as a volume."""
    mount = {"name": "volume", "mountPath": "/volume"}
    container = {"name": "main", "image": SHELL_IMAGE, "command": ["sleep", "9999"], "volumeMounts": [mount]}
    volume = {"name": "volume", "image": {"reference": cell.event.image}}
    pod = cell.pod([], SHELL_IMAGE, containers=[container], volumes=[volume])
    pod.await_phase("Running", 120)
    return pod


def goes_on(files: str) -> Callable[[Cell, Pod], None]:
    """It reads these files, or is named."""

    def check(cell: Cell, pod: Pod) -> None:
        if not pod.reads(files):
            try:
                wait_for(lambda: cell.is_named(pod), NAME_SECONDS, f"{pod.name} is named")
            except AssertionError as late:
                raise UnnamedError(str(late)) from None

    return check


def created(cell: Cell) -> None:
    nobody(cell)
    snapshotter = slot_in_use(cell.node).name
    create = f"ctr -n k8s.io containers create --snapshotter {snapshotter} {cell.event.image} life-created"
    on_node(cell.node, create)


def has_image_volumes(node: str) -> bool:
    return tuple(map(int, VERSIONS["nodes"][node]["containerd"].split("."))) >= (2, 1)


HOLDERS: dict[str, Holder] = {
    "nobody": Holder(nobody),
    "a completed pod": Holder(completed, still_completed),
    "a crashing pod": Holder(crashing),
    "a running pod": Holder(running, goes_on(FILES), reads=True),
    "an image volume": Holder(
        mounting,
        goes_on(f"/volume{FILES}"),
        reads=True,
        nodes=tuple(node for node in SOCI_NODES if has_image_volumes(node)),
    ),
    "a container that was never started": Holder(created),
}
CELLS = [
    (event, holder)
    for event in EVENTS
    for holder in HOLDERS
    if not (EVENTS[event].waits and HOLDERS[holder].reads)
]


def run(stage: Stage, event: Event, holder: Holder) -> dict[str, Any]:
    """Run a cell on all nodes at once; seconds from the end of the event's cause, by what was waited for.

    Raises:
        PoisonedError: nothing starts on the image any more.
        UnnamedError: a pod was broken without a word.
        AssertionError: something else that has to be true is not, on the node that it names.
    """
    cells = [Cell(stage.api, node, event) for node in stage.nodes]
    sample_pods.delete_sample(stage.api)
    try:
        event.prepare(stage.registry)
        with ThreadPoolExecutor(len(cells)) as threads:
            list(threads.map(Cell.open, cells))  # an earlier cell may have left it whole
            pods = list(threads.map(holder.take, cells))
            list(threads.map(assert_lazy, cells))
            event.happens(stage)
            taken = [(cell, pod) for cell, pod in zip(cells, pods, strict=True) if pod]
            if event.is_for_good and holder.reads:
                # What it reads from cannot be had again, and is in nobody's way once it has gone.
                for cell, pod in taken:
                    holder.check(cell, pod)
                    pod.delete()
                    await_no_container(pod)
                taken = []
            heals = list(threads.map(starts_again, cells))
            for cell, pod in taken:
                holder.check(cell, pod)
            truths = list(threads.map(says_the_truth, cells))
            if event.is_put_right:
                list(threads.map(put_right, cells))
    finally:
        stage.registry.behave()
        for cell in cells:
            cell.close()
    return {"heal_s": max(heals), "truth_s": max(truths)}


def without_image(node: str) -> None:
    on_node(node, FORGET_REMOVED)
    # The snapshot of an image volume outlives its mount for a moment.
    snapshots = " ".join(f"ctr -n k8s.io snapshots --snapshotter {slot.name} ls;" for slot in (FIRST, SECOND))
    listed = f"{{ ctr -n k8s.io containers ls; cat /proc/self/mountinfo; {snapshots} }} 2>/dev/null"
    holders = f"{listed} | {HELD} || :"
    wait_for(
        lambda: on_node(node, holders).strip() == "0", REMOVED_SECONDS, f"nobody has the sample on {node}"
    )
    on_node(node, FORGET)


def assert_lazy(cell: Cell) -> None:
    """What is whole from the start no event breaks."""
    # Those of an earlier pull go some time after their image.
    mounts = sample_pods.fuse_mount_points(cell.node) - cell.mounts
    assert mounts, f"{cell.node}: the image was pulled whole before the event"


def starts_again(cell: Cell) -> float:
    """Seconds until a new pod of the image reads its files, lazily if it is to be lazy."""
    started = time.monotonic()
    pod = cell.pod(["sleep", "9999"])
    try:
        pod.await_phase("Running", START_SECONDS)
    except AssertionError as late:
        raise PoisonedError(f"{cell.node}: {late}") from None
    seconds = time.monotonic() - started
    if not pod.reads(FILES):
        raise PoisonedError(f"{cell.node}: a new pod does not read its files")
    is_served = pod.container in on_node(cell.node, "/opt/soci-cluster/soci-host.sh mounts")
    assert is_served or not cell.event.is_lazy, f"{cell.node}: the image was pulled whole"
    return seconds


def put_right(cell: Cell) -> None:
    """What others wrote is gone: a restart of containerd or of the daemon brings nothing of it."""
    look = f"containerd --config {CONFIG} config dump 2>/dev/null | grep -q 'snapshotter = .soci' && "
    look += f"! grep -q 'by others' {slot_in_use(cell.node).config} && echo ours || :"
    wait_for(lambda: "ours" in on_node(cell.node, look), NAME_SECONDS, f"{cell.node} is put right")


def says_the_truth(cell: Cell) -> float:
    """Seconds until the node says that it serves, which it does."""
    started = time.monotonic()
    wait_for(
        lambda: condition(cell.api, cell.node).get("status") == "True", NAME_SECONDS, f"{cell.node} SociReady"
    )
    return time.monotonic() - started
