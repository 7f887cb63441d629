"""``python3 -B -m agent bench``: what soci-bench asks of a node, until its input ends.

A question is a JSON object on a line of standard input, such as ``{"do": "look"}``, its answer one on
standard output. What cannot be done is answered by ``{"error": "..."}``. The questions are the methods of
`Node`. Only `forget` changes anything: the images that it is given are gone from the node then, with all that
the daemon kept.
"""

import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from . import detect, doctor, lazy, slots, transaction, tuning, units
from .ctr import Ctr
from .doctor_images import labels, manifest_of, names_by_digest, names_of_one_image, read_json
from .errors import InstallError
from .host import Host, in_network_of

LOGS = "/var/log/pods"  # kubelet: NAMESPACE_NAME_UID/CONTAINER/RESTARTS.log
LOG_POLL_SECONDS = 0.05
PEAK_SECONDS = 0.5  # over which the fastest reception is taken
CONTAINERS_SECONDS = 90.0  # the kubelet looks once a minute for those whose pod has gone
SETTLE_SECONDS = 60.0
CACHES = ("content", "soci")  # of a daemon, below its directory; what it makes anew
HEAL = "soci-cluster-heal.service"
ZTOC = "containerd.io/gc.ref.content.ztoc."  # how the labels of an index begin that keep its zTOCs

Json = dict[str, Any]


def main() -> int:
    """Answer until the input ends."""
    serve(Node(Host(Path("/host")), Path.cwd()), sys.stdin, sys.stdout)
    return 0


def serve(node: "Node", questions: TextIO, answers: TextIO) -> None:
    """Answer each line; one that cannot be answered ends nothing."""
    for line in questions:
        try:
            question = json.loads(line)
            answer = QUESTIONS[question.pop("do")](node, **question)
        except (InstallError, OSError, LookupError, TypeError, ValueError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


class Node:
    """The node that is measured. ``payload`` is the installer's program."""

    def __init__(self, host: Host, payload: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.host = host
        self.payload = payload
        self._sleep = sleep
        plan = transaction.recorded_plan(host)
        self.has_soci = bool(transaction.recorded_files(host))
        self.slot = slots.in_use(plan.get("slot"))
        self.ctr = Ctr(
            host,
            plan.get("containerd_address", "/run/containerd/containerd.sock"),
            plan.get("path", os.defpath + ":/usr/local/bin:/usr/local/sbin"),
        )

    def clock(self) -> Json:
        """The node's time, in seconds since the epoch."""
        return {"now": time.time()}

    def look(self) -> Json:
        """Bytes that the node received so far, layers that daemons serve, and the load of the last minute."""
        mountinfo = self.host.read_text("/proc/1/mountinfo")
        mounts = {
            mount
            for slot in (self.slot, self.slot.other)
            for mount in doctor.fuse_mounts(mountinfo, slot.data)
        }
        load = float((self.host.read_text("/proc/loadavg").split() or ["0"])[0])
        return {"received": self._received(), "mounts": len(mounts), "load": load}

    def describe(self) -> Json:
        """What the node is: versions, processors, bytes of memory."""
        containerd = self.host.run("containerd", "--version").output
        return {
            "containerd": ".".join(map(str, detect.parse_version(containerd))),
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "processors": os.cpu_count(),
            "memory_bytes": tuning.read_hardware(self.host).memory,
        }

    def forget(self, images: Sequence[str]) -> Json:
        """Make the next pull of the images a cold one, under all their names. The daemon's caches go too, and
        the indexes that one keeps in containerd's store, of whatever image.

        Raises:
            InstallError: a container still uses one of them, or lazily loaded ones of others would break.
        """
        names = self._names(images)
        self._await_no_container(names)
        if self.has_soci:
            self._refuse_lazy_pods()
        for digest in self._soci_indexes():
            self.ctr.ask("content", "rm", digest)
        for name in names:
            self.ctr.ask("images", "rm", "--sync", name)
        if self.has_soci:
            self._empty_daemon()
        return {}

    def image(self, image: str) -> Json:
        """Of an image that is there: bytes and number of its different layers, and the digest of the largest.

        Raises:
            InstallError: it is not there.
        """
        by_digest = names_by_digest(self.ctr.ask("images", "ls"))
        content = labels(self.ctr.ask("content", "ls"))
        for digest, names in by_digest.items():
            if image in names:
                manifest_digest, _ = manifest_of(digest, content, self.slot.name)
                manifest = read_json(self._blob(manifest_digest))
                sizes = {layer["digest"]: layer["size"] for layer in manifest.get("layers") or ()}
                largest = max(sizes, key=sizes.__getitem__, default="")
                return {"bytes": sum(sizes.values()), "layers": len(sizes), "largest": largest}
        raise InstallError("bench", f"{image} is not on the node", "see why its pull failed")

    def link(self, blob: str, connections: int, limit: float) -> Json:
        """Bytes a second that the node receives of a blob of a registry, over so many connections at once.

        0 where the registry does not give it to everybody.
        """
        deadline = time.monotonic() + limit
        counts = [0] * connections

        def read(number: int) -> None:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            while time.monotonic() < deadline:
                with opener.open(blob, timeout=limit + 5) as answer:
                    while time.monotonic() < deadline and (part := answer.read(1 << 16)):
                        counts[number] += len(part)

        def in_network(number: int) -> None:
            try:
                in_network_of(1, lambda: read(number))
            except (OSError, ValueError):  # of what was not received nothing is counted
                pass

        before, begin = self._received(), time.monotonic()
        threads = [threading.Thread(target=in_network, args=(number,)) for number in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.monotonic() - begin
        return {"bytes_per_second": (self._received() - before) / taken if all(counts) else 0.0}

    def follow(self, pod: str, container: str, ready: str, limit: float) -> Json:
        """Read a container's log until the line that says it is ready.

        Args:
            pod: `NAMESPACE_NAME_UID`.
            container: its name.
            ready: text that the line contains; empty for the first line whatever it is.
            limit: seconds after which there is none.

        Returns:
            Times of the first line and of that one, what `look` says at that moment, and the bytes a second
            of the fastest half second. Without such a line `ready` is null.
        """
        log = self.host.path(self.host.resolve(f"{LOGS}/{pod}/{container}/0.log"))
        meter = Meter()
        deadline = time.monotonic() + limit
        while True:
            meter.add(time.monotonic(), self._received())
            first, found = ready_times(log.read_text(errors="replace") if log.exists() else "", ready)
            if found is not None or time.monotonic() > deadline:
                return {"first": first, "ready": found, "peak": meter.peak, **self.look()}
            self._sleep(LOG_POLL_SECONDS)

    def _received(self) -> int:
        return received_bytes(
            self.host.read_text("/proc/1/net/dev"),
            default_interfaces(
                self.host.read_text("/proc/1/net/route"), self.host.read_text("/proc/1/net/ipv6_route")
            ),
        )

    def _blob(self, digest: str) -> bytes | None:
        path = f"{self.ctr.root}/{doctor.BLOBS}/{digest.removeprefix('sha256:')}"
        return self.host.read(path) if digest else None

    def _names(self, images: Collection[str]) -> list[str]:
        """Every name in containerd of these images: one that stays keeps the layers."""
        by_digest = names_by_digest(self.ctr.ask("images", "ls"))
        content = labels(self.ctr.ask("content", "ls"))
        same = [names for names in names_of_one_image(by_digest, content) if not names.isdisjoint(images)]
        return sorted(set().union(*same))

    def _soci_indexes(self) -> list[str]:
        """The digests of SOCI's indexes and zTOCs in containerd's content. A daemon that was told to use that
        store, as older installers did where it pulls in parallel, keeps them there by labels of its own
        (fs/artifact_fetcher.go): they outlive their image."""
        content = labels(self.ctr.ask("content", "ls"))
        found: dict[str, None] = {}
        for digest, known in content.items():
            ztocs = [value for key, value in known.items() if key.startswith(ZTOC)]
            if ztocs and "containerd.io/gc.root" in known:
                found |= dict.fromkeys([digest, *(ztoc for ztoc in ztocs if ztoc in content)])
        return list(found)

    def _await_no_container(self, names: Collection[str]) -> None:
        deadline = time.monotonic() + CONTAINERS_SECONDS
        while True:
            lines = [line.split() for line in self.ctr.ask("containers", "ls").splitlines()[1:]]
            users = [words[0] for words in lines if len(words) > 1 and words[1] in names]
            if not users:
                return
            if time.monotonic() > deadline:
                pod = lazy.pod_of(self.ctr, users[0])
                raise InstallError(
                    "bench", f"{pod} uses the image that is measured", "delete it, or take another node"
                )
            self._sleep(LOG_POLL_SECONDS)

    def _refuse_lazy_pods(self) -> None:
        """A restart of the daemon would break them."""
        script = transaction.host_script(self.payload)
        if mounts := lazy.lazy_mounts(self.host, script, self.slot):
            pods = lazy.in_words(lazy.pods_of(self.ctr, mounts))
            cause = f"the daemon's caches cannot be emptied: {pods} would break"
            raise InstallError("bench", cause, "take a node without lazily loaded pods")

    def _empty_daemon(self) -> None:
        """Restart the daemon without its caches, and wait until that is looked after."""
        folders = [f"{self.slot.data}/{name}" for name in CACHES]
        try:
            self._run("systemctl", "stop", self.slot.unit)
            self._run("rm", "-rf", "--", *folders)
        finally:
            self._run("systemctl", "start", self.slot.unit)
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise InstallError("bench", "the installer does not come to rest", "see soci-doctor")
            self._sleep(0.2)

    def _run(self, *command: str) -> None:
        result = self.host.run(*command)
        if result.code != 0:
            raise InstallError("bench", f"{command[0]}: {result.last_error}", "see to the daemon's unit")

    def _is_settled(self) -> bool:
        """Whether heal and installer are done with this start of the daemon: they would be measured, too."""
        if units.show(self.host, HEAL, "ActiveState").get("ActiveState") in ("activating", "active"):
            return False
        daemon = units.main_pid(units.show(self.host, self.slot.unit, "MainPID"))
        return is_watched(command_lines(), daemon)


QUESTIONS: dict[str, Callable[..., Json]] = {
    method.__name__: method
    for method in (Node.clock, Node.look, Node.describe, Node.forget, Node.image, Node.link, Node.follow)
}


class Meter:
    """The fastest reception over half a second, of counts of bytes at times in seconds."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._counts: list[tuple[float, int]] = []

    def add(self, now: float, received: int) -> None:
        self._counts.append((now, received))
        while len(self._counts) > 2 and now - self._counts[1][0] >= PEAK_SECONDS:
            self._counts.pop(0)
        begin, before = self._counts[0]
        if now - begin >= PEAK_SECONDS:
            self.peak = max(self.peak, (received - before) / (now - begin))


def ready_times(log: str, ready: str) -> tuple[float | None, float | None]:
    """When a container said its first line, and one with the text: seconds since the epoch, None for neither.

    ``log`` is in the form of CRI: time, stream, tag, text (kubelet, pkg/kubelet/kuberuntime/logs).
    """
    first = None
    for line in log.splitlines():
        words = line.split(" ", 3)
        if len(words) < 4:
            continue
        stamp = datetime.fromisoformat(words[0]).timestamp()
        first = first or stamp
        if ready in words[3]:
            return first, stamp
    return first, None


def default_interfaces(route: str, ipv6_route: str) -> set[str]:
    """The interfaces of default routes, from /proc/net/route and /proc/net/ipv6_route."""
    lines = [line.split() for line in route.splitlines()[1:]]
    found = {words[0] for words in lines if len(words) > 7 and words[1] == "00000000" == words[7]}
    for words in (line.split() for line in ipv6_route.splitlines()):
        if len(words) == 10 and words[1] == "00" and not int(words[0], 16):
            found.add(words[9])
    return found - {"lo"}


def received_bytes(dev: str, interfaces: Collection[str]) -> int:
    """Bytes received by interfaces, from /proc/net/dev."""
    total = 0
    for line in dev.splitlines():
        name, colon, counts = line.partition(":")
        if colon and name.strip() in interfaces:
            total += int(counts.split()[0])
    return total


def command_lines() -> list[list[str]]:
    """The command lines of the processes that this pod sees."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"))
        except OSError:  # it has ended
            continue
    return found


def is_watched(commands: Sequence[Sequence[str]], daemon: int) -> bool:
    """Whether the node's installer watches this daemon already; also when there is no installer.

    See `watch` for its command line, and `__main__` for the installer's.
    """
    for words in commands:
        program = [Path(word).name for word in words]
        if "watch.py" in program:
            rest = words[program.index("watch.py") + 1 :]
            return len(rest) > 3 and rest[3] == str(daemon)
    return not any(words[-3:-1] == ["agent", "again"] or words[-2:-1] == ["agent"] for words in commands)
