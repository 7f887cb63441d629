"""What the API is told, in which order, and that it may be away."""

import json
from typing import Any

import pytest
from agent import report
from agent.log import Log
from agent.progress import Progress

from tests.fakes.api import FakeApi

NODE: dict[str, Any] = {
    "spec": {
        "taints": [{"key": report.TAINT, "effect": "NoSchedule"}, {"key": "other", "effect": "NoExecute"}]
    },
    "status": {"conditions": [{"type": "SociReady", "status": "True", "lastTransitionTime": "then"}]},
}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(**NODE)


@pytest.fixture
def reporter(api: FakeApi) -> report.Reporter:
    return report.Reporter("n1", "p1", "soci-system", "soci-installer", api)


@pytest.mark.failure_mode(43)
def test_taint_goes_last(api: FakeApi, reporter: report.Reporter) -> None:
    """Until then no workload lands on the node (cilium#29405, kata-containers#13284)."""
    reporter.success("0.16.1", {"version": "0.16.1"}, "ok")
    (labels, condition, taint) = api.writes
    assert labels[1]["metadata"] == {
        "labels": {"soci-cluster.io/version": "0.16.1"},
        "annotations": {"soci-cluster.io/install": '{"version":"0.16.1"}'},
    }
    assert condition[0].endswith("/nodes/n1/status")
    assert taint[1]["spec"]["taints"] == [{"key": "other", "effect": "NoExecute"}]
    assert taint[1]["metadata"]["resourceVersion"] == "9", "a concurrent change must be noticed"


def test_unchanged_node_keeps_its_annotation(api: FakeApi, reporter: report.Reporter) -> None:
    reporter.success("0.16.1", None, "ok")
    assert "annotations" not in api.writes[0][1]["metadata"]


def test_transition_time_moves_with_the_status_only(api: FakeApi, reporter: report.Reporter) -> None:
    reporter.condition(True, "Verified", "ok")
    reporter.condition(False, "RestartFailed", "restart: no")
    first, second = (body["status"]["conditions"][0]["lastTransitionTime"] for _, body in api.writes)
    assert first == "then"
    assert second != "then"


def test_events_on_daemonset_and_node(api: FakeApi, reporter: report.Reporter) -> None:
    reporter.event("Warning", "RestartFailed", "node n1: step restart: no")
    involved = [
        (path, body["involvedObject"]["kind"], body["involvedObject"]["uid"]) for path, body in api.writes
    ]
    assert involved == [
        ("/api/v1/namespaces/default/events", "Node", "n1"),
        ("/api/v1/namespaces/soci-system/events", "DaemonSet", "u"),
    ]


def test_steps_of_a_change_are_told_and_looking_is_not(api: FakeApi, reporter: report.Reporter) -> None:
    """A node that serves keeps its status while another version is brought to it."""
    lines: list[str] = []
    progress = Progress(reporter, Log("n1", lines.append))
    progress.begin("preflight")
    assert not api.writes
    progress.begin("download")
    event, condition = api.writes
    assert (event[1]["reason"], event[1]["message"]) == ("Installing", "node n1: step download")
    (entry,) = condition[1]["status"]["conditions"]
    assert (entry["status"], entry["reason"], entry["message"]) == ("True", "Installing", "step download")
    assert [json.loads(line)["step"] for line in lines] == ["preflight", "download"]


def test_api_server_that_is_away_is_asked_once_and_holds_up_no_step() -> None:
    asked = []

    def away(method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        asked.append(path)
        raise report.ApiError("no route")

    lines: list[str] = []
    progress = Progress(report.Reporter("n1", "p1", "s", "d", away), Log("n1", lines.append))
    for step in ("download", "images", "stage"):
        progress.begin(step)
    assert len(asked) == 1
    assert [json.loads(line)["message"] for line in lines].count("begins") == 3


@pytest.mark.parametrize(("status", "calls"), [(0, 4), (409, 4), (503, 4), (403, 1), (404, 1)])
def test_retry(status: int, calls: int) -> None:
    tried = []

    def action() -> str:
        tried.append(1)
        if len(tried) < 4:
            raise report.ApiError("no", status)
        return "done"

    if calls == 1:
        with pytest.raises(report.ApiError):
            report.retry(action, 60, sleep=lambda seconds: None)
    else:
        assert report.retry(action, 60, sleep=lambda seconds: None) == "done"
    assert len(tried) == calls
