"""``python3 -B -m agent reads IMAGE``: which files the next container of an image reads until it is ready.

It waits for a container of the image to be made on this node, follows the reads of its files, and ends when
a line of its output matches ``--line``, ``--seconds`` after its start, when its standard input ends, or when
no container came in ``--wait`` seconds. What it says are lines of JSON: ``waits`` once it sees every start,
``started`` with the pod, then ``reads``. ``soci-index advise`` is who calls it.

The container's root file system is seen as it is mounted, which is some tenths of a second before its process
is started, by the kernel's word that the node's mounts have changed (proc(5), mountinfo).
"""

import argparse
import json
import os
import re
import resource
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import containerd_config, detect, doctor_images, transaction, tuning
from .ctr import Ctr
from .doctor import fuse_mounts
from .errors import InstallError
from .file_reads import FileReads
from .host import Host

POD = "io.kubernetes.pod"
CONTAINER = "io.kubernetes.container.name"
IMAGE_NAME = "io.kubernetes.cri.image-name"
TICK_SECONDS = 0.2
LOG_BYTES = 1 << 16  # of a container's output that is looked at in one tick
MOST_AT_ONCE = 20  # mounts whose container is not known yet
CONTAINERD_SECONDS = 5  # for an answer of its program

Json = dict[str, Any]


@dataclass(frozen=True)
class Until:
    """When a recording ends: seconds after the container's start, or a line of its output; ``wait`` is for
    its start."""

    seconds: float
    line: str = ""
    wait: float = 600.0


@dataclass(frozen=True)
class Container:
    """A container of the image, as containerd has it."""

    id: str
    namespace: str
    pod: str
    uid: str
    name: str

    @property
    def logs(self) -> str:
        """The directory of its output on the node (kubelet, pkg/kuberuntime, BuildContainerLogsDirectory)."""
        return f"/var/log/pods/{self.namespace}_{self.pod}_{self.uid}/{self.name}"


class Recording:
    """The reads of one container, from the mount of its files on.

    Args:
        host: the node.
        ctr: its containerd.
        image: the name that a pod has.
        until: when it ends.
        say: is told what happens, a JSON object each.
    """

    def __init__(self, host: Host, ctr: Ctr, image: str, until: Until, say: Callable[[Json], None]) -> None:
        self._host = host
        self._ctr = ctr
        self._image = image
        self._until = until
        self._say = say
        self._known = set(root_file_systems(self._mounts()))
        self._followed: dict[str, FileReads] = {}  # mounts of which containerd has yet to say whose they are
        self._late: set[str] = set()  # mounts that were seen and are not followed yet
        self._trouble = "there are too many at once"

    def run(self, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the container and record; whether there was one. ``is_over`` ends it early.

        Raises:
            InstallError: the kernel does not tell of reads, of a container's or at all.
        """
        self._say({"waits": self._image})
        try:
            with self._host.path("/proc/1/mountinfo").open() as changes:
                poll = select.poll()
                poll.register(changes, select.POLLPRI | select.POLLERR)
                deadline = time.monotonic() + self._until.wait
                while time.monotonic() < deadline and not is_over():
                    poll.poll(TICK_SECONDS * 1000)
                    self._follow_new_mounts()
                    found = self._new_container()
                    if found:
                        self._forget(self._followed.keys() - {found[1]})
                        self._record(*found, is_over)
                        return True
        finally:
            self._forget(self._followed.keys())
        if self._late:
            raise InstallError(
                "reads", f"the files of a container could not be followed: {self._trouble}", "try again"
            )
        return False

    def _mounts(self) -> str:
        return self._host.read_text("/proc/1/mountinfo")

    def _follow_new_mounts(self) -> None:
        """Follow the reads of new mounts, before their processes start."""
        present = root_file_systems(self._mounts())
        self._known.intersection_update(present)
        self._forget(self._followed.keys() - set(present))
        new = [point for point in present if point not in self._known and point not in self._followed]
        for point in new[: MOST_AT_ONCE - len(self._followed)]:
            try:
                self._followed[point] = FileReads(point, str(self._host.path(point)))
            except OSError as error:  # it has gone again, or the next look follows it
                self._trouble = error.strerror or str(error)
                continue
            # The process of one that was passed over may have opened files already.
            self._followed[point].is_complete = point not in self._late
        self._late = {point for point in new if point not in self._followed}

    def _new_container(self) -> tuple[Container, str] | None:
        """A new container of the image, and where its files are mounted. Where containerd does not answer, as
        when it is busy, the next look asks again, for another one first."""
        for point in list(self._followed):
            try:
                container = self._container(PurePosixPath(point).parent.name)
            except InstallError:
                self._followed[point] = self._followed.pop(point)
                return None
            if container:
                return container, point
            self._known.add(point)
            self._forget({point})
        return None

    def _forget(self, points: Set[str]) -> None:
        for point in list(points):
            self._followed.pop(point).close()

    def _container(self, name: str) -> Container | None:
        """The container by its identifier, if it is one of the image and not a pod's sandbox.

        Raises:
            InstallError: containerd does not answer.
        """
        try:
            text = self._ctr.ask("containers", "info", name, timeout=CONTAINERD_SECONDS)
        except InstallError as error:
            if error.cause.endswith("not found"):
                return None
            raise
        info = doctor_images.read_json(text.encode())
        labels = info.get("Labels") or {}
        if CONTAINER not in labels or not self._is_of_image(info):
            return None
        words = (str(labels.get(f"{POD}.{word}", "")) for word in ("namespace", "name", "uid"))
        return Container(name, *words, str(labels[CONTAINER]))

    def _is_of_image(self, info: Json) -> bool:
        """Whether a container is of the image, by what containerd has of it.

        Its image has the first of its names there, in containerd's order; the pod's own name is in an
        annotation, since containerd 2.0 (containerd#10747).
        """
        name = str(info.get("Image", ""))
        annotations = (info.get("Spec") or {}).get("annotations") or {}
        if self._image in (name, annotations.get(IMAGE_NAME)):
            return True
        names = doctor_images.names_by_digest(self._ctr.ask("images", "ls", timeout=CONTAINERD_SECONDS))
        content = doctor_images.labels(self._ctr.ask("content", "ls", timeout=CONTAINERD_SECONDS))
        return any({name, self._image} <= same for same in doctor_images.names_of_one_image(names, content))

    def _record(self, container: Container, mount_point: str, is_over: Callable[[], bool]) -> None:
        reads = self._followed[mount_point]
        self._say({"started": {"namespace": container.namespace, "pod": container.pod}})
        ended = ""
        poll = select.poll()
        poll.register(reads.fileno(), select.POLLIN)
        output = Output(self._host, container.logs, self._until.line)
        lazy = lazy_layers(self._mounts(), mount_point)
        while not ended:
            poll.poll(TICK_SECONDS * 1000)
            reads.collect()
            if output.has_line():
                ended = "line"
            elif time.monotonic() - reads.start > self._until.seconds:
                ended = "seconds"
            elif is_over():
                ended = "input"
        seconds = time.monotonic() - reads.start
        self._say({"reads": {**described(reads, ended, seconds, lazy), **node(self._host)}})


class Output:
    """What a container writes, as the kubelet keeps it, looked through for a line."""

    def __init__(self, host: Host, folder: str, line: str) -> None:
        self._host = host
        self._folder = folder
        self._line = re.compile(line) if line else None
        self._at = 0

    def has_line(self) -> bool:
        """Whether a line that was written since the last look matches; without a pattern never."""
        if self._line is None:
            return False
        files = sorted(self._host.path(self._folder).glob("*.log"))
        if not files:
            return False
        with files[-1].open("rb") as file:
            file.seek(self._at)
            text = file.read(LOG_BYTES)
        whole = text[: text.rfind(b"\n") + 1] or (text if len(text) == LOG_BYTES else b"")
        self._at += len(whole)
        # TIME STREAM F|P TEXT (CRI's log format)
        lines = (line.split(" ", 3)[-1] for line in whole.decode(errors="replace").splitlines())
        return any(self._line.search(line) for line in lines)


def root_file_systems(mountinfo: str) -> list[str]:
    """Where the root file systems of the kubelet's containers are mounted: .../k8s.io/<id>/rootfs."""
    return sorted(
        point
        for point in detect.mount_points(mountinfo)
        if point.endswith("/rootfs") and PurePosixPath(point).parent.parent.name == "k8s.io"
    )


def lazy_layers(mountinfo: str, mount_point: str) -> int:
    """How many of the layers below an overlay are loaded lazily."""
    fuse = fuse_mounts(mountinfo, "")
    for line in mountinfo.splitlines():
        words = line.split()
        if words[4:5] == [mount_point]:
            # containerd gives relative names when there are many; newer kernels list each one by itself.
            options = (option.partition("=") for option in words[-1].split(","))
            below = (value.split(":") for name, _, value in options if name in ("lowerdir", "lowerdir+"))
            layers = [layer for some in below for layer in some]
            return sum(any(mounted.endswith(f"/{layer.lstrip('/')}") for mounted in fuse) for layer in layers)
    return 0


def described(reads: FileReads, ended: str, seconds: float, lazy: int) -> Json:
    """A recording for a program that reads it."""
    return {
        "endedBy": ended,
        "seconds": round(seconds, 3),
        "isComplete": reads.is_complete,
        "lazyLayers": lazy,
        "files": [
            {"path": read.path, "size": read.size, "milliseconds": read.milliseconds, "ranges": read.ranges}
            for read in reads.reads()
        ],
    }


def node(host: Host) -> Json:
    """What the advice has to know of the node: its cores, its architecture as OCI names it, its containerd's
    version (empty when it is not known), and whether that discards unpacked layers (None when it is not)."""
    plan, machine = transaction.recorded_plan(host), os.uname().machine
    program = plan.get("containerd_program", "containerd")
    version = detect.parse_version(host.run(program, "--version", timeout=CONTAINERD_SECONDS).output)
    return {
        "cores": tuning.read_hardware(host).cores,
        "architecture": detect.ARCHITECTURES.get(machine, machine),
        "containerd": ".".join(map(str, version)),
        "discardsUnpackedLayers": discards_unpacked_layers(
            host, program, plan.get("containerd_config", containerd_config.DEFAULT_FILE)
        ),
    }


def discards_unpacked_layers(host: Host, program: str, path: str) -> bool | None:
    """Whether containerd's effective configuration has it; None when it cannot be had."""
    try:
        effective = detect.effective_configuration(host, program, path, CONTAINERD_SECONDS)
    except ValueError:
        return None
    if not effective:
        return None
    return effective.get((*containerd_config.image_table(effective), "discard_unpacked_layers")) is True


def say(words: Mapping[str, object]) -> None:
    """A line of JSON for the caller."""
    print(json.dumps(words), flush=True)


def has_ended() -> bool:
    """Whether the caller has closed our standard input, or is gone."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def main(arguments: Sequence[str]) -> int:
    """Record; 0 when there was a container."""
    parser = argparse.ArgumentParser(prog="agent reads")
    parser.add_argument("image")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--wait", type=float, default=600.0)
    parser.add_argument("--line", default="")
    wanted = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each file that is followed is an open one
    host = Host()
    plan = transaction.recorded_plan(host)
    address = plan.get("containerd_address", "/run/containerd/containerd.sock")
    ctr = Ctr(host, address, plan.get("path", "/usr/local/bin:/usr/bin:/bin"))
    until = Until(wanted.seconds, wanted.line, wanted.wait)
    try:
        was_there = Recording(host, ctr, wanted.image, until, say).run(has_ended)
    except InstallError as error:
        say({"problem": f"{error.cause}. Remedy: {error.remedy}"})
        return 1
    if not was_there:
        say({"problem": f"no container of {wanted.image} was started here. Remedy: start a pod with it"})
    return 0 if was_there else 1
