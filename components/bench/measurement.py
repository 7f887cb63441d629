"""The order of the samples, and each of them: the node emptied, a pod started, followed to its ready line,
deleted."""

import contextlib
import json
import math
import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from ..doctor import CannotLookError, Kubectl
from ..pull_time import pull_seconds
from .arms import ADVISED, Arm
from .node_session import BenchError, NodeSession
from .pod_watch import CONTAINER, PodNews, PodWatch
from .samples import Advised, Json, Link, Phases, Sample, Workload, is_cold, moves_reads_alone

POD_SECONDS = 240.0
POD_MARGIN_SECONDS = 120
NEWS_SECONDS = 15.0  # in which what has happened is also told
LINK_CONNECTIONS, LINK_SECONDS = 20, 2.0  # as many as a parallel pull has
EMPTY_PODS = 3  # at least, of a node: the soonest one counts, and the first may wait for something
EMPTY_LINE = "soci-bench: empty"

Say = Callable[[str], None]


@dataclass
class Result:
    """Everything that was measured, as it was measured.

    Attributes:
        samples: of each workload, link and mode: (workload, link, mode) -> samples in their order.
        empty_pods: seconds from creation to the first line of a pod of nothing, by node.
        links: what was measured of them, by name.
        failures: samples that came to nothing, in words.
        advice: what was advised, by workload and link.
    """

    workloads: dict[str, Workload] = field(default_factory=dict)
    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=dict)
    empty_pods: dict[str, list[float]] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    nodes: dict[str, Json] = field(default_factory=dict)
    arms: list[Arm] = field(default_factory=list)
    advice: dict[tuple[str, str], Advised] = field(default_factory=dict)


class Bench:
    """Cold starts on one cluster.

    Args:
        kubectl: the cluster.
        watch: the pods of the namespace that samples run in.
        sessions: the nodes, by name.
        namespace: where samples run.
        pull_secrets: names of Secrets there, for the image.
        seconds: after which a pod is not waited for any more.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        watch: PodWatch,
        sessions: Mapping[str, NodeSession],
        namespace: str,
        *,
        pull_secrets: Sequence[str] = (),
        seconds: float = POD_SECONDS,
    ) -> None:
        self.kubectl = kubectl
        self.watch = watch
        self.sessions = sessions
        self.namespace = namespace
        self.pull_secrets = pull_secrets
        self.seconds = seconds

    def cold_start(self, workload: Workload, arm: Arm, images: Sequence[str]) -> Sample:
        """One sample; of all images that may share layers with it nothing is left on the node before.

        Raises:
            BenchError: the node could not be emptied, the pod does not become ready, or it was not cold.
        """
        session = self.sessions[arm.node]
        # Longer than the node waits for containers and daemon: it says itself then what it waits for.
        session.ask("forget", seconds=240, images=sorted({*images, *workload.image.values()}))
        before = session.ask("look")
        news, followed = self._run(session, workload.image_for(arm.mode), workload.command, workload.ready)
        pull_s = self._pull_seconds(session.node, news)
        sample = Sample(
            pull_s=pull_s,
            ready_s=self._since(news, session.here(followed["ready"])) or 0.0,
            moved_bytes=followed["received"] - before["received"],
            peak_bytes_per_second=followed["peak"],
            fuse_mounts=followed["mounts"] - before["mounts"],
            load=followed["load"],
            phases=phases(news, session.here(followed["first"]), session.here(followed["ready"])),
        )
        image_bytes = workload.image_bytes
        if not image_bytes and not sample.fuse_mounts:
            image_bytes = session.ask("image", image=workload.image_for(arm.mode))["bytes"]
        if not is_cold(sample, image_bytes, workload.needed_bytes):
            of_reads = moves_reads_alone(sample, image_bytes)
            least = (workload.needed_bytes or 0) if of_reads else image_bytes
            moved = f"{sample.moved_bytes / 1e6:.1f} of {least / 1e6:.1f} MB moved"
            remedy = "let nothing else pull there, and no image with the same layers be there"
            remedy += "; see whether it reads as much as --needed-mb says" if of_reads and least else ""
            raise BenchError(f"{arm.node}: the start was not cold, {moved}. Remedy: {remedy}")
        return sample

    def empty_pod_s(self, node: str, image: str) -> float:
        """Seconds from creation to the line of a pod that only prints one; its image is there already."""
        session = self.sessions[node]
        command = ["/bin/sh", "-c", f"echo '{EMPTY_LINE}'"]
        news, followed = self._run(session, image, command, EMPTY_LINE)
        return self._since(news, session.here(followed["ready"])) or 0.0

    def _run(
        self, session: NodeSession, image: str, command: Sequence[str], ready: str
    ) -> tuple[PodNews, Json]:
        with self.pod(session.node, image, command) as (name, news):
            if not self.watch.wait(name, "known", NEWS_SECONDS):
                raise BenchError(
                    f"the API server says nothing of pod {name}. Remedy: see kubectl get pods -w"
                )
            followed = session.ask(
                "follow",
                seconds=self.seconds + 10,
                stop=lambda: news.trouble and f"pod {name}: {news.trouble}",
                pod=f"{self.namespace}_{name}_{news.uid}",
                container=CONTAINER,
                ready=ready,
                limit=self.seconds,
            )
            if followed["ready"] is None:
                remedy = "see its log, --ready-line and --timeout"
                raise BenchError(
                    f"{session.node}: pod {name} was not ready in {self.seconds:.0f} s. Remedy: {remedy}"
                )
            for moment in ("pulled", "created", "started"):
                self.watch.wait(name, moment, NEWS_SECONDS)
            return news, followed

    @contextlib.contextmanager
    def pod(self, node: str, image: str, command: Sequence[str]) -> Generator[tuple[str, PodNews]]:
        """A pod of one image on a node for as long as the block runs: its name, and what is heard of it."""
        name = f"soci-bench-{uuid.uuid4().hex[:8]}"
        pod = bench_pod(name, node, image, command, pull_secrets=self.pull_secrets, seconds=self.seconds)
        news = self.watch.news(name)
        self.kubectl.run("create", "--namespace", self.namespace, "--filename", "-", text=json.dumps(pod))
        try:
            yield name, news
        finally:
            with contextlib.suppress(CannotLookError):  # the sample's own error says more
                self.kubectl.run("delete", "pod", name, "--namespace", self.namespace, "--wait=false")
            self.watch.wait(name, "gone", 60)

    @staticmethod
    def _since(news: PodNews, moment: float | None) -> float | None:
        return None if moment is None else moment - news.moments["known"]

    @staticmethod
    def _pull_seconds(node: str, news: PodNews) -> float:
        try:
            return pull_seconds(news.pulled)
        except ValueError as error:
            raise BenchError(f"{node}: {error}. Remedy: let nothing else use the image there") from error


def phases(news: PodNews, first_line: float | None, ready: float | None) -> Phases:
    """The moments of a pod, as seconds from when the API server had it; none is after the next."""
    moments = {
        name: news.moments.get(name) for name in ("scheduled", "pulling", "pulled", "created", "started")
    }
    moments |= {"first_line": first_line, "ready": ready}
    # The API server's news are late at times, after what the node tells of a later moment.
    latest = math.inf
    told: dict[str, float | None] = {}
    for name, moment in reversed(moments.items()):
        latest = latest if moment is None else min(moment, latest)
        told[f"{name}_s"] = None if moment is None else latest - news.moments["known"]
    return Phases(**told)


def bench_pod(
    name: str,
    node: str,
    image: str,
    command: Sequence[str],
    *,
    pull_secrets: Sequence[str] = (),
    seconds: float = POD_SECONDS,
) -> Json:
    """A pod of one image on one node; the scheduler puts it there, so that its part is seen. It is waited for
    so many seconds."""
    on_node = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    container: Json = {"name": CONTAINER, "image": image, "imagePullPolicy": "IfNotPresent"}
    if command:
        container["command"] = list(command)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "soci-bench"}},
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [on_node]}
                }
            },
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            # Also where soci-bench itself was killed: a pod that stays keeps the image, and nothing is cold.
            "activeDeadlineSeconds": int(seconds) + POD_MARGIN_SECONDS,
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": [{"name": secret} for secret in pull_secrets],
            "containers": [container],
        },
    }


@dataclass(frozen=True)
class Cell:
    """One workload over one link; `prepare` puts the link in place; `advised` is None where nobody asked."""

    workload: Workload
    link: str
    prepare: Callable[[], None] = lambda: None
    advised: Advised | None = None

    def here(self, arm: Arm) -> Arm:
        """The arm with its node in this cell."""
        elsewhere = self.advised.node if self.advised and arm.mode == ADVISED else ""
        return Arm(arm.mode, elsewhere or arm.node)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        cells: the workloads and links.
        arms: what is compared in each.
        count: samples of each arm in each cell.
        empty_image: an image that each node has, with a shell: of the pod of nothing.
        relatives: further images that may share layers with those of the cells.
        seed: of the order in which arms take turns; None for another one each time.
    """

    cells: Sequence[Cell]
    arms: Sequence[Arm]
    count: int
    empty_image: str
    relatives: Sequence[str] = ()
    seed: int | None = None

    def images(self, result: Result) -> list[str]:
        """All that may share layers; those of `result` may be left on a node by an earlier run."""
        before = [image for workload in result.workloads.values() for image in workload.image.values()]
        advised = [advised.image for advised in result.advice.values()]
        now = [image for cell in self.cells for image in cell.workload.image.values()]
        return sorted({*self.relatives, *before, *advised, *now})

    def missing(self, result: Result) -> int:
        """How many samples are still to be taken."""
        return sum(max(0, self.count - taken(result, cell, arm)) for cell in self.cells for arm in self.arms)


def measure(
    bench: Bench, plan: Plan, result: Result, say: Say, save: Callable[[Result], None] = lambda _: None
) -> Result:
    """Take the samples, in turn and in random order; those that are in `result` already count.

    Args:
        bench: the cluster.
        plan: what is measured.
        result: it grows.
        say: told of progress.
        save: called after each sample, so that an end in between loses little.
    """
    order = random.Random(plan.seed)
    images = plan.images(result)
    planned = {arm.mode for arm in plan.arms}
    result.arms = [*plan.arms, *(arm for arm in result.arms if arm.mode not in planned)]
    for node, session in bench.sessions.items():
        result.nodes.setdefault(node, session.ask("describe"))
    progress = Progress(plan.missing(result), say)
    for cell in plan.cells:
        if all(taken(result, cell, arm) >= plan.count for arm in plan.arms):
            continue
        cell.prepare()
        result.workloads[cell.workload.name] = cell.workload
        if cell.advised:
            result.advice[cell.workload.name, cell.link] = cell.advised
        for node in dict.fromkeys(arm.node for arm in plan.arms):
            known = result.empty_pods.setdefault(node, [])
            for _ in range(max(1, EMPTY_PODS - len(known))):
                with _noting(result, say, f"empty pod on {node}"):
                    known.append(bench.empty_pod_s(node, plan.empty_image))
        for number in range(plan.count):
            turn = [arm for arm in plan.arms if taken(result, cell, arm) <= number]
            for arm in order.sample(turn, len(turn)):
                where = f"{cell.workload.name}, {cell.link}, {arm.label}"
                with _noting(result, say, where):
                    sample = bench.cold_start(cell.workload, cell.here(arm), images)
                    key = (cell.workload.name, cell.link, arm.mode)
                    result.samples.setdefault(key, []).append(sample)
                    progress.tell(where, sample)
                    if cell.link not in result.links:
                        result.links[cell.link] = measured_link(bench, cell, cell.here(arm))
                save(result)
    return result


def taken(result: Result, cell: Cell, arm: Arm) -> int:
    """How many samples of an arm in a cell there are."""
    return len(result.samples.get((cell.workload.name, cell.link, arm.mode), ()))


@contextlib.contextmanager
def _noting(result: Result, say: Say, what: str):
    """A sample that comes to nothing is told and noted; the others are taken all the same."""
    try:
        yield
    except (BenchError, CannotLookError) as error:
        result.failures.append(f"{what}: {error}")
        say(f"  failed: {what}: {error}")


def measured_link(bench: Bench, cell: Cell, arm: Arm) -> Link:
    """What the link gives to an arm's node: by the image's largest layer, over several connections and one.

    0 where the registry wants credentials for it: then the fastest half second of the samples stands for it.
    """
    session = bench.sessions[arm.node]
    image = cell.workload.image_for(arm.mode)
    registry, _, rest = image.partition("/")
    digest = session.ask("image", image=image)["largest"]
    repository = rest.partition("@")[0].rpartition(":")[0] or rest.partition("@")[0]
    for scheme in ("https", "http"):
        blob = f"{scheme}://{registry}/v2/{repository}/blobs/{digest}"
        rates = [
            session.ask("link", blob=blob, connections=count, limit=LINK_SECONDS)["bytes_per_second"]
            for count in (LINK_CONNECTIONS, 1)
        ]
        if all(rates):
            return Link(cell.link, *rates)
    return Link(cell.link)


class Progress:
    """Tells of each sample, and how long the rest will take if it goes on like this."""

    def __init__(self, total: int, say: Say, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, 0
        self._say, self._now, self._begin = say, now, now()

    def tell(self, where: str, sample: Sample) -> None:
        self.done += 1
        left = (self._now() - self._begin) / self.done * (self.total - self.done)
        self._say(
            f"[{self.done}/{self.total}, {left / 60:.0f} min left] {where}: pull {sample.pull_s:.2f} s, "
            f"ready {sample.ready_s:.2f} s, {sample.moved_bytes / 1e6:.1f} MB, "
            f"{sample.fuse_mounts} lazy layers"
        )
