"""A Job whose pod cannot end comes to its end nevertheless, and a pod that can end is left alone."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from components import failure
from components.job_limit import GRACE_SECONDS, LOOK_SECONDS, see_to_end
from components.live_cluster import LiveCluster

SAMPLE = failure.Job(failure.SAMPLE, "default", "sample", 600)
LOOKS = round(GRACE_SECONDS / LOOK_SECONDS)  # at a Job that is to fail, before its pods are deleted


class Cluster:
    """A Job on its way: what it says at each look, the last one for ever, and its pods."""

    def __init__(self, jobs: Sequence[dict[str, Any] | None], *phases: str) -> None:
        self.jobs = list(jobs)
        self.pods = {f"pod-{number}": phase for number, phase in enumerate(phases)}
        self.deleted: list[str] = []

    def get(self, path: str) -> dict[str, Any] | None:
        assert path == "/apis/batch/v1/namespaces/default/jobs/sample"
        return self.jobs.pop(0) if len(self.jobs) > 1 else self.jobs[0]

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        assert (path, query) == ("/api/v1/namespaces/default/pods", {"labelSelector": "job-name=sample"})
        return [
            {"metadata": {"name": name}, "spec": {"nodeName": "node2"}, "status": {"phase": phase}}
            for name, phase in self.pods.items()
        ]

    def delete_pod(self, namespace: str, name: str) -> None:
        assert namespace == "default"
        self.deleted.append(name)
        self.pods.pop(name)


def job(*conditions: str, **spec: object) -> dict[str, Any]:
    held = [{"type": kind, "status": "True"} for kind in conditions]
    return {"spec": spec, "status": {"conditions": held} if held else {}}


FAILING, FAILED = job("FailureTarget"), job("FailureTarget", "Failed")


def said(cluster: Cluster) -> list[str]:
    lines: list[str] = []
    see_to_end(SAMPLE, cast(LiveCluster, cluster), lines.append, sleep=lambda _: None)
    return lines


def test_a_pod_that_does_not_end_after_the_limit_is_deleted_and_named() -> None:
    cluster = Cluster([*[FAILING] * (LOOKS + 2), FAILED], "Running", "Failed")
    lines = said(cluster)
    assert cluster.deleted == ["pod-0"]
    assert len(lines) == 1
    assert "pod default/pod-0 on node node2 does not end: the node's kubelet is away" in lines[0]


@pytest.mark.parametrize(
    "jobs",
    [
        [*[FAILING] * LOOKS, FAILED],
        [job(), job("Complete")],
        [job(), FAILED],
        [job(), None],
    ],
    ids=["ends in its grace", "has run", "failed", "is gone"],
)
def test_a_pod_that_can_end_is_left_to_its_node(jobs: list[dict[str, Any] | None]) -> None:
    cluster = Cluster(jobs, "Running")
    assert said(cluster) == []
    assert cluster.deleted == []


def test_a_job_that_another_controller_suspends_is_told_once() -> None:
    cluster = Cluster([job(suspend=True), job(suspend=True), job("Complete")])
    (line,) = said(cluster)
    assert "Job default/sample, is suspended, and waits without a limit" in line
    assert cluster.deleted == []
