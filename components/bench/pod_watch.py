"""When what became of pods: two watches of the API server, stamped as their news come in.

The API server's own times have whole seconds. It ends a watch after half an hour or more, and kubectl with
it.
"""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..doctor import Kubectl

EVENTS = {"Pulling": "pulling", "Pulled": "pulled", "Created": "created", "Started": "started"}
REFUSALS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerError",
    "RunContainerError",
)
CONTAINER = "workload"  # of a sample's pod
OWN = f"spec.containers{{{CONTAINER}}}"
PAUSE_SECONDS = 1.0  # before a watch that has ended begins anew

Take = Callable[[Mapping[str, Any], float], None]


@dataclass
class PodNews:
    """What is known of one pod: moments (seconds since the epoch) by their name."""

    moments: dict[str, float] = field(default_factory=dict)
    uid: str = ""
    pulled: str = ""  # the kubelet's words
    trouble: str = ""  # why it will not become ready
    is_gone: bool = False


class PodWatch:
    """The pods of a namespace, from now on."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._news: dict[str, PodNews] = {}
        self._changed = threading.Condition()
        self._command = [*kubectl.command, "get"]
        self._options = ["--namespace", namespace, "--output", "json", "--output-watch-events"]
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._closed = threading.Event()
        for kind, take in (("pods", self._take_pod), ("events", self._take_event)):
            first = self._start(kind, "--watch-only")
            threading.Thread(target=self._follow, args=(kind, first, take), daemon=True).start()

    def __enter__(self) -> "PodWatch":
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed.set()
        for process in self._processes.values():
            process.terminate()
            process.wait()

    def news(self, pod: str) -> PodNews:
        """What is known of a pod; it grows."""
        with self._changed:
            return self._news.setdefault(pod, PodNews())

    def wait(self, pod: str, what: str, seconds: float) -> bool:
        """Whether a moment of a pod, or `gone`, is known within so many seconds."""
        news = self.news(pod)

        def is_known() -> bool:
            return news.is_gone if what == "gone" else what in news.moments

        with self._changed:
            return self._changed.wait_for(is_known, seconds)

    def _start(self, kind: str, watch: str) -> subprocess.Popen[str]:
        self._processes[kind] = subprocess.Popen(
            [*self._command, kind, *self._options, watch],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        return self._processes[kind]

    def _follow(self, kind: str, process: subprocess.Popen[str], take: Take) -> None:
        while True:
            with process:
                assert process.stdout
                self._read(process.stdout, take)
            if self._closed.wait(PAUSE_SECONDS):
                return
            with self._changed:
                if self._closed.is_set():
                    return
                process = self._start(kind, "--watch")  # with what has become of the pods meanwhile

    def _read(self, stream: Iterable[str], take: Take) -> None:
        for item in objects(stream):
            now = time.time()
            with self._changed:
                take(item, now)
                self._changed.notify_all()

    def _take_pod(self, item: Mapping[str, Any], now: float) -> None:
        pod = item["object"]
        if pod.get("kind") != "Pod":
            return
        news = self._news.setdefault(pod["metadata"]["name"], PodNews())
        news.uid = pod["metadata"]["uid"]
        news.moments.setdefault("known", now)
        if pod["spec"].get("nodeName"):
            news.moments.setdefault("scheduled", now)
        news.trouble = news.trouble or trouble(pod)
        news.is_gone = news.is_gone or item["type"] == "DELETED"

    def _take_event(self, item: Mapping[str, Any], now: float) -> None:
        event = item["object"]
        moment = EVENTS.get(event.get("reason", ""))
        involved = event.get("involvedObject") or {}
        # Others' containers, which a webhook may put beside it, have news of their own.
        if not moment or involved.get("kind") != "Pod" or involved.get("fieldPath", OWN) != OWN:
            return
        news = self._news.setdefault(involved["name"], PodNews())
        news.moments.setdefault(moment, now)
        if moment == "pulled":
            news.pulled = news.pulled or event.get("message", "")


def objects(stream: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects that kubectl prints one after the other, each over several lines."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if line.startswith("}") or (len(lines) == 1 and line.rstrip().endswith("}")):
            with contextlib.suppress(ValueError):  # cut off at kubectl's end
                yield json.loads("".join(lines))
            lines = []


def trouble(pod: Mapping[str, Any]) -> str:
    """Why a pod does not become ready any more; empty while it may."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in REFUSALS:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        ended = container.get("state", {}).get("terminated") or {}
        if ended.get("exitCode"):
            return f"its container ended with status {ended['exitCode']} ({ended.get('reason', '')})"
    return str(status.get("message", "")) if status.get("phase") == "Failed" else ""
