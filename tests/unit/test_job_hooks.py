"""A Job whose pod cannot end comes to its end nevertheless, and a pod that can end is left alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from components import failure
from components.job_hooks import LOOK_SECONDS, OF_KUBERNETES, SPARE_SECONDS, JobWatch
from components.live_cluster import LiveCluster, UnreachableError, UnreadableError

SAMPLE = failure.Job(failure.SAMPLE, "default", "sample", 600)
GRACE_SECONDS = 30
LOOKS = round((GRACE_SECONDS + SPARE_SECONDS) / LOOK_SECONDS)  # before a pod that is to end is deleted

Json = dict[str, Any]


def job(*conditions: str, **spec: object) -> Json:
    held = [{"type": kind, "status": "True"} for kind in conditions]
    return {"metadata": {"uid": "u1"}, "spec": spec, "status": {"conditions": held} if held else {}}


def pod(name: str, owner: str = "u1", *, terminating: bool = True, **metadata: object) -> Json:
    told = {"deletionTimestamp": "x", "deletionGracePeriodSeconds": GRACE_SECONDS} if terminating else {}
    about = {"name": name, "ownerReferences": [{"uid": owner}], **told, **metadata}
    return {"metadata": about, "spec": {"nodeName": "node2"}}


RUNNING, FAILING, FAILED = job(), job("FailureTarget"), job("FailureTarget", "Failed")


class Cluster:
    """A Job on its way, what it is at each look, and its pods. An error among the looks is raised. What was
    seen until the end is in ``deleted`` and ``said``, and when in ``waits``."""

    def __init__(self, looks: Sequence[Json | Exception | None], *pods: Json, refuses: str = "") -> None:
        self.looks = list(looks)
        self.pods = {one["metadata"]["name"]: one for one in pods}
        self.refuses = refuses
        self.deleted: list[str] = []
        self.said: list[str] = []
        self.waits: list[float] = []
        self.connections = 0
        self.watch = JobWatch(SAMPLE, self.connect, self.said.append, lambda: sum(self.waits))

    def run(self) -> None:
        self.watch.run(self.wait)

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return not self.looks

    def connect(self) -> LiveCluster:
        self.connections += 1
        return cast(LiveCluster, self)

    def get(self, path: str) -> Json | None:
        assert path == "/apis/batch/v1/namespaces/default/jobs/sample"
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look

    def items(self, path: str, **query: str) -> list[Json]:
        assert (path, query) == ("/api/v1/namespaces/default/pods", {"labelSelector": "job-name=sample"})
        return list(self.pods.values())

    def delete_pod(self, namespace: str, name: str) -> None:
        assert namespace == "default"
        if self.refuses:
            raise UnreadableError(self.refuses)
        self.deleted.append(name)
        finalizers = self.pods[name]["metadata"].get("finalizers")
        if not finalizers:
            self.pods.pop(name)


def test_a_pod_that_does_not_end_after_the_limit_is_deleted_and_named() -> None:
    cluster = Cluster([*[FAILING] * (LOOKS + 2), FAILED], pod("pod-0"))
    cluster.run()
    assert cluster.waits[0] == SAMPLE.limit_seconds
    assert cluster.deleted == ["pod-0"]
    (line,) = cluster.said
    assert "pod default/pod-0 on node node2 does not end: the node's kubelet is away" in line
    assert cluster.watch.deleted == ["pod default/pod-0 on node node2"]


@pytest.mark.parametrize(
    "looks",
    [
        [*[FAILING] * (LOOKS + 1), FAILED],
        [RUNNING, job("Complete")],
        [RUNNING, FAILED],
        [*[RUNNING] * 2 * LOOKS, job("Complete")],
    ],
    ids=["ends in its time", "has run", "failed", "is deleted by another"],
)
def test_a_pod_that_can_end_is_left_to_its_node(looks: list[Json | Exception | None]) -> None:
    cluster = Cluster(looks, pod("pod-0"))
    cluster.run()
    assert (cluster.deleted, cluster.said) == ([], [])


@pytest.mark.parametrize("other", [pod("pod-0", "another's"), pod("pod-0", terminating=False)])
def test_a_pod_of_another_or_that_nobody_told_to_end_is_left_alone(other: Json) -> None:
    cluster = Cluster([*[FAILING] * 3 * LOOKS, FAILED], other)
    cluster.run()
    assert (cluster.deleted, cluster.said) == ([], [])


def test_an_api_server_that_is_away_for_a_while_ends_nothing() -> None:
    cluster = Cluster([FAILING, UnreachableError("away"), *[FAILING] * (LOOKS + 2), FAILED], pod("pod-0"))
    cluster.run()
    assert cluster.deleted == ["pod-0"]
    assert cluster.connections == 2, "one that nothing answered asks nothing again"
    assert (
        "whether its pod can is not known (away). Remedy: kubectl get pods --namespace default"
        in cluster.said[0]
    )


def test_who_may_delete_no_pod_is_told_once_and_not_that_it_was_deleted() -> None:
    cluster = Cluster([*[FAILING] * 3 * LOOKS, FAILED], pod("pod-0"), refuses="pods is forbidden")
    cluster.run()
    (line,) = cluster.said
    assert "(pods is forbidden)" in line
    assert cluster.watch.deleted == []


def test_what_holds_a_deleted_pod_is_named_once_unless_it_is_kubernetes_itself() -> None:
    held = [
        pod("pod-0", finalizers=[OF_KUBERNETES]),
        pod("pod-1", finalizers=[OF_KUBERNETES, "kueue.x-k8s.io/managed"]),
    ]
    cluster = Cluster([*[FAILING] * 3 * LOOKS, FAILED], *held)
    cluster.run()
    assert cluster.deleted == ["pod-0", "pod-1"]
    (line,) = [line for line in cluster.said if "finalizers" in line]
    assert "pod-1 on node node2 is deleted, but for its finalizers kueue.x-k8s.io/managed" in line


def test_a_job_that_another_controller_suspends_is_told_once() -> None:
    cluster = Cluster([job(suspend=True), job(suspend=True), job("Complete")])
    cluster.run()
    (line,) = cluster.said
    assert "Job default/sample, is suspended, and waits without a limit" in line


def test_a_job_that_is_made_late_is_waited_for_and_one_that_goes_is_told() -> None:
    cluster = Cluster([None, RUNNING, None, RUNNING])
    cluster.run()
    (line,) = cluster.said
    assert "Job default/sample, is gone" in line
    assert cluster.looks == [RUNNING], "the watch has ended"


def test_the_cause_of_a_job_whose_pod_was_deleted_is_its_node_and_not_its_image() -> None:
    deleted = replace(SAMPLE, deleted_pods=("pod default/pod-0 on node node2",))
    line = failure.explain_job(deleted, [], [])
    assert "pod default/pod-0 on node node2 did not end within 600 s, nor when it was told to" in line
    assert "Remedy: repair the node or delete it, then pulumi up" in line
    assert "soci:sampleWorkload.image" not in line
