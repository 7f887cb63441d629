"""The matrix of a node's life: what happens to it, and who has the image meanwhile.

A cell is one of each: something holds a lazily loaded image, the event happens, its cause goes. Then a new
pod of the image has to start on that node, lazily, and whoever held the image goes on, or is named. What the
node says of itself is noted all along.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from agent.slots import FIRST, SECOND
from kubernetes.client.exceptions import ApiException
from lab_client import on_node
from settings import REGISTRY, VERSIONS

from tests.cluster import sample_pods
from tests.cluster.life_events import (
    CONFIG,
    EVENTS,
    FILES,
    FORGET,
    REMOVE_ENDED,
    START_SECONDS,
    STATE,
    Event,
    Stage,
)
from tests.cluster.life_pods import Pod
from tests.cluster.life_witness import LOOK_SECONDS, Witness, Word
from tests.cluster.looks import SOCI_NODES, slot_in_use
from tests.cluster.registries import REMOVED_SECONDS, pull_secret
from tests.waiting import wait_for

NAME_SECONDS = 30  # from an event to the word on what it broke
CRASH_SECONDS = 120  # the pauses double, after which the kubelet tries a container again
LATE_SECONDS = 30  # for which a late word is awaited, to tell it from none
HELD = "grep -c -e /sample -e image-volumes"
SHELL_IMAGE = f"{REGISTRY}/python:3.11"  # the installer's, which is on the node anyway


class PoisonedError(AssertionError):
    """The image is there for the kubelet, and nothing starts on it."""


class UnnamedError(AssertionError):
    """Something is broken, and nobody says so, or not in time."""


@dataclass
class Cell:
    """One node in one cell: the pods that were made on it, when the event began, when its cause had gone."""

    api: Any
    node: str
    event: Event
    witness: Witness
    pods: list[Pod] = field(default_factory=list)
    mounts: set[str] = field(default_factory=set)  # of lazily loaded layers from before the image
    ours: str = ""  # what others may rewrite, as it was
    begun: float = 0.0
    ended: float = 0.0

    @classmethod
    def of(cls, api: Any, node: str, event: Event) -> Self:
        return cls(api, node, event, Witness(api, node))

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
        """The node has nothing of the image, and whoever may pull it has the secret; it may be put right."""
        on_node(self.node, f"rm -f {STATE}/repairs")
        without_image(self.node)
        self.mounts = sample_pods.fuse_mount_points(self.node)
        self.ours = keys_and_file(self.node)
        if self.event.secret:
            secret = pull_secret(self.secret, self.event.host, *self.event.secret)
            self.api.create_namespaced_secret("default", secret)

    def close(self) -> None:
        self.witness.end()
        for pod in self.pods:
            pod.delete()
        with contextlib.suppress(ApiException):
            self.api.delete_namespaced_secret(self.secret, "default")
        on_node(self.node, "ctr -n k8s.io containers rm life-created >/dev/null 2>&1 || :")
        # What the cell changed as somebody else would keep later tests from a repair, and from an uninstall.
        on_node(self.node, f"rm -f {STATE}/repairs {STATE}/originals/changed-by-others")
        if self.event.is_for_good:
            # The daemon remembers of which images it found no index.
            on_node(self.node, f"systemctl restart {slot_in_use(self.node).unit}")

    def await_word(self, means: Callable[[Word], bool], what: str) -> float:
        """Seconds from the end of the event's cause until the node said this; 0 when it did so before that.

        Raises:
            UnnamedError: it did not, within NAME_SECONDS.
        """
        at = self.witness.first(self.begun, means)
        while at is None and time.monotonic() < self.ended + NAME_SECONDS + LATE_SECONDS:
            time.sleep(LOOK_SECONDS)
            at = self.witness.first(self.begun, means)
        if at is None or at - self.ended > NAME_SECONDS:
            late = "not" if at is None else f"only after {at - self.ended:.0f} s"
            raise UnnamedError(f"{self.node} told {late} that {what}: {self.witness.history}")
        return max(0.0, at - self.ended)


@dataclass(frozen=True)
class Holder:
    """Who has the image: how it comes to, and what has to be true of it after the event.

    Args:
        reads: whether it reads lazily meanwhile.
        is_known: whether the kubelet knows that somebody has the image.
        nodes: on which it can be.
    """

    take: Callable[[Cell], Pod | None]
    check: Callable[[Cell, Pod], None] = lambda cell, pod: None
    reads: bool = False
    is_known: bool = True
    nodes: tuple[str, ...] = tuple(SOCI_NODES)


def nobody(cell: Cell) -> None:
    pod = cell.pod(["true"], restartPolicy="Never")
    pod.await_phase("Succeeded", 120)
    pod.delete()
    cell.pods.remove(pod)
    await_no_container(pod, "" if cell.event.is_by_kubelet else REMOVE_ENDED)


def await_no_container(pod: Pod, remove: str = "") -> None:
    """Wait until the kubelet has removed its container, or do that before it."""
    containers = f"ctr -n k8s.io containers ls -q 'labels.\"io.kubernetes.pod.name\"=={pod.name}'"
    wait_for(
        lambda: not on_node(pod.node, f"{remove} {containers}"), REMOVED_SECONDS, "its containers are gone"
    )


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


def still_crashes(cell: Cell, pod: Pod) -> None:
    """Its container can be made and started anew: it waits for nothing but its own pause."""
    expected = ("", "ContainerCreating", "CrashLoopBackOff")
    wait_for(lambda: pod.waits_for in expected, CRASH_SECONDS, f"{pod.name} is in no other loop than its own")


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
        if pod.reads(files):
            return
        cell.await_word(lambda word: pod.name in word.message, f"{pod.name} is broken")
        if not any(word.startswith("BrokenMounts") for word in pod.words):
            raise UnnamedError(f"{pod.name} has no Event: {pod.words}")

    return check


def created(cell: Cell) -> None:
    nobody(cell)
    snapshotter = slot_in_use(cell.node).name
    create = f"ctr -n k8s.io containers create --snapshotter {snapshotter} {cell.event.image} life-created"
    on_node(cell.node, create)


def has_image_volumes(node: str) -> bool:
    return tuple(map(int, VERSIONS["nodes"][node]["containerd"].split("."))) >= (2, 1)


HOLDERS: dict[str, Holder] = {
    "nobody": Holder(nobody, is_known=False),
    "a completed pod": Holder(completed, still_completed),
    "a crashing pod": Holder(crashing, still_crashes),
    "a running pod": Holder(running, goes_on(FILES), reads=True),
    "an image volume": Holder(
        mounting,
        goes_on(f"/volume{FILES}"),
        reads=True,
        nodes=tuple(node for node in SOCI_NODES if has_image_volumes(node)),
    ),
    "a container that was never started": Holder(created, is_known=False),
}
CELLS = [
    (event, holder)
    for event in EVENTS
    for holder in HOLDERS
    if not (EVENTS[event].waits and HOLDERS[holder].reads)
]


def run(stage: Stage, event: Event, holder: Holder) -> dict[str, dict[str, float]]:
    """Run a cell on all nodes at once; by node, in seconds from the end of the event's cause:

    told_s: until the node said that it does not serve, where it has to say so.
    heal_s: until a new pod of the image had started.
    truth_s: until the last news in what the node says, which is that it serves.

    Raises:
        PoisonedError: nothing starts on the image any more.
        UnnamedError: something was broken without a word.
        AssertionError: something else that has to be true is not, on the node that it names.
    """
    sample_pods.delete_sample(stage.api)
    cells = [Cell.of(stage.api, node, event) for node in stage.nodes]
    try:
        with ThreadPoolExecutor(len(cells)) as threads:

            def each(act: Callable[[Cell], Any]) -> list[Any]:
                return list(threads.map(act, cells))

            event.prepare(stage.registry)
            each(Cell.open)  # an earlier cell may have left it whole
            pods = each(holder.take)
            each(assert_lazy)
            for cell in cells:
                wait_for(lambda cell=cell: cell.witness.serves, NAME_SECONDS, f"{cell.node} serves")
            begun = time.monotonic()
            event.happens(stage)
            ended = time.monotonic()
            for cell in cells:
                cell.begun, cell.ended = begun, ended
            each(lambda cell: assert_happened(cell, holder))
            taken = [(cell, pod) for cell, pod in zip(cells, pods, strict=True) if pod]
            if event.is_for_good and holder.reads:
                # What it reads from cannot be had again, and is in nobody's way once it has gone.
                for cell, pod in taken:
                    holder.check(cell, pod)
                    pod.delete()
                    await_no_container(pod)
                taken = []
            heals = each(starts_again)
            for cell, pod in taken:
                holder.check(cell, pod)
            found = [{"heal_s": round(heal, 1)} for heal in heals]
            if event.is_put_right:
                for seconds, told in zip(found, each(says_no), strict=True):
                    seconds["told_s"] = round(told, 1)
                each(put_right)
            for seconds, truth in zip(found, each(says_the_truth), strict=True):
                seconds["truth_s"] = round(truth, 1)
    finally:
        stage.registry.behave()
        with contextlib.ExitStack() as stack:
            for cell in cells:
                stack.callback(cell.close)
    return {cell.node: seconds for cell, seconds in zip(cells, found, strict=True)}


def without_image(node: str) -> None:
    # The snapshot of an image volume outlives its mount for a moment.
    snapshots = " ".join(f"ctr -n k8s.io snapshots --snapshotter {slot.name} ls;" for slot in (FIRST, SECOND))
    listed = f"{{ ctr -n k8s.io containers ls; cat /proc/self/mountinfo; {snapshots} }} 2>/dev/null"
    holders = f"{listed} | {HELD} || :"
    wait_for(
        lambda: on_node(node, f"{REMOVE_ENDED} {holders}").strip() == "0",
        REMOVED_SECONDS,
        f"nobody has the sample on {node}",
    )
    on_node(node, FORGET)


def assert_lazy(cell: Cell) -> None:
    """What is whole from the start no event breaks."""
    # Those of an earlier pull go some time after their image.
    mounts = sample_pods.fuse_mount_points(cell.node) - cell.mounts
    assert mounts, f"{cell.node}: the image was pulled whole before the event"


def assert_happened(cell: Cell, holder: Holder) -> None:
    """An event that broke nothing shows nothing."""
    happened = cell.event.has_happened
    seconds = time.monotonic() - cell.begun
    assert not happened or happened(cell.node, seconds, holder.is_known), f"{cell.node}: nothing happened"


def keys_and_file(node: str) -> str:
    """What is in effect of ours: containerd's snapshotter, whatever others wrote beside it; SOCI's file."""
    effective = f"containerd --config {CONFIG} config dump 2>/dev/null | grep 'snapshotter = .soci'"
    return on_node(node, f"{effective}; sha256sum {slot_in_use(node).config}")


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
    wait_for(lambda: keys_and_file(cell.node) == cell.ours, NAME_SECONDS, f"{cell.node} is put right")


def says_no(cell: Cell) -> float:
    """Seconds until the node said that it does not serve, and was no longer selected."""
    return cell.await_word(lambda word: word.says_no, "it does not serve")


def says_the_truth(cell: Cell) -> float:
    """Seconds until the node said last that it serves."""
    wait_for(lambda: cell.witness.serves, NAME_SECONDS, f"{cell.node} serves")
    return max(0.0, cell.witness.settled - cell.ended)
