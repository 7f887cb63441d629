"""What the API is told, in which order, and that it may be away."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from agent import api as agent_api
from agent import slots, tell
from agent.api import Api, ApiError
from agent.errors import InstallError
from agent.host import Result
from agent.install import Installed
from agent.log import Log
from agent.marks import ANNOTATION, LABEL, TAINT, Marks, has_startup_taint
from agent.slots import FIRST
from agent.soci_registries import Limit
from agent.tell import Teller

from tests.fakes.api import FakeApi
from tests.fakes.node import FakeHost, daemon_processes

NODE: dict[str, Any] = {
    "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}, {"key": "other", "effect": "NoExecute"}]},
    "status": {"conditions": [{"type": "SociReady", "status": "True", "lastTransitionTime": "then"}]},
}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(**NODE)


def identity(caller: agent_api.Caller) -> Api:
    return Api("n1", "p1", "soci-system", "soci-installer", caller)


@pytest.fixture
def marks(api: FakeApi) -> Marks:
    return Marks(identity(api))


def teller(caller: agent_api.Caller, lines: list[str]) -> Teller:
    return Teller(identity(caller), Marks(identity(caller)), Log("n1", lines.append))


LIMIT = Limit("r.corp", "client certificate", "do without")
SERVES = Installed(False, slots.FIRST, limits=(LIMIT,))


def limited_events(api: FakeApi) -> list[str]:
    return [
        body["message"]
        for path, body in api.writes
        if path.endswith("/events") and body["reason"] == "RegistriesLimited"
    ]


def test_what_soci_cannot_be_told_stands_in_the_condition(api: FakeApi) -> None:
    teller(api, []).success("0.16.1", "lazy", SERVES, 1.0)
    assert api.condition["message"] == (
        "SOCI 0.16.1 serves this node's images in lazy mode; "
        "images of r.corp are pulled whole: client certificate"
    )
    assert api.condition["status"] == "True"


def test_it_is_an_event_once_per_change(api: FakeApi) -> None:
    for _ in range(3):
        teller(api, []).success("0.16.1", "lazy", SERVES, 1.0)
    words = "node n1: images of r.corp are pulled whole: client certificate. Remedy: do without"
    assert [message.endswith(words) for message in limited_events(api)] == [True] * 2, (
        "on the node and on the DaemonSet"
    )
    other = dataclasses.replace(LIMIT, registry="other.corp")
    teller(api, []).success("0.16.1", "lazy", dataclasses.replace(SERVES, limits=(LIMIT, other)), 1.0)
    assert len(limited_events(api)) == 4
    teller(api, []).success("0.16.1", "lazy", dataclasses.replace(SERVES, limits=()), 1.0)
    assert len(limited_events(api)) == 4


@pytest.mark.failure_mode(43)
def test_taint_goes_last(api: FakeApi, marks: Marks) -> None:
    """Until then no workload lands on the node (cilium#29405, kata-containers#13284)."""
    marks.put("0.16.1", {"version": "0.16.1"}, "ok")
    (labels, condition, taint) = api.writes
    assert labels[1]["metadata"] == {
        "labels": {"soci-cluster.io/version": "0.16.1"},
        "annotations": {"soci-cluster.io/install": '{"version":"0.16.1"}'},
    }
    assert condition[0].endswith("/nodes/n1/status")
    assert taint[1]["spec"]["taints"] == [{"key": "other", "effect": "NoExecute"}]
    assert taint[1]["metadata"]["resourceVersion"] == "9", "a concurrent change must be noticed"


def test_taint_stays_until_karpenter_has_taken_the_node_into_its_books(api: FakeApi, marks: Marks) -> None:
    """At that moment it puts the startup taints on the node again, lifted ones, too (karpenter#1772)."""
    taints = api.node["spec"]["taints"]
    api.node["spec"]["taints"] = [*taints, {"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]
    with pytest.raises(ApiError, match="Karpenter has not registered the node yet") as refused:
        marks.put("0.16.1", None, "ok")
    assert has_startup_taint(api.node)
    assert refused.value.status == 0, "nothing final: it is tried again"
    api.node["spec"]["taints"] = taints
    marks.put("0.16.1", None, "ok")
    assert not has_startup_taint(api.node)


def test_unchanged_node_keeps_its_annotation(api: FakeApi, marks: Marks) -> None:
    marks.put("0.16.1", None, "ok")
    assert "annotations" not in api.writes[0][1]["metadata"]


def test_transition_time_moves_with_the_status_only(api: FakeApi, marks: Marks) -> None:
    marks.set_condition(True, "Verified", "ok")
    marks.set_condition(False, "RestartFailed", "restart: no")
    first, second = (body["status"]["conditions"][0]["lastTransitionTime"] for _, body in api.writes)
    assert first == "then"
    assert second != "then"


def test_the_condition_of_a_node_that_serves_names_what_is_not_read(api: FakeApi) -> None:
    note = "registry harbor.corp: pods of this node have 2 different credentials for it"
    teller(api, []).success("0.16.1", "lazy", Installed(False, FIRST), 1.0, [note])
    assert (api.condition["status"], api.condition["reason"]) == ("True", "Verified")
    assert api.condition["message"] == f"SOCI 0.16.1 serves this node's images in lazy mode; {note}"


def test_events_on_daemonset_and_node(api: FakeApi) -> None:
    teller(api, []).event("Warning", "RestartFailed", "node n1: step restart: no")
    involved = [
        (path, body["involvedObject"]["kind"], body["involvedObject"]["uid"]) for path, body in api.writes
    ]
    assert involved == [
        ("/api/v1/namespaces/default/events", "Node", "n1"),
        ("/api/v1/namespaces/soci-system/events", "DaemonSet", "u"),
    ]


def test_a_warning_on_the_daemonset_begins_with_its_time(api: FakeApi) -> None:
    """Pulumi shows it again in every `up` of the next hour, without its age, as if it were new."""
    message = "node n1: step restart: no. " + "x" * 2000
    teller(api, []).event("Warning", "RestartFailed", message)
    of_node, of_daemonset = (body for _, body in api.writes)
    assert of_node["message"] == message[:1000]
    assert of_daemonset["message"] == f"{of_daemonset['lastTimestamp']} {message}"[:1000]


def test_what_is_no_warning_is_told_in_the_same_words_everywhere(api: FakeApi) -> None:
    teller(api, []).event("Normal", "Installed", "node n1: done")
    assert {body["message"] for _, body in api.writes} == {"node n1: done"}


def test_steps_of_a_change_are_told_and_looking_is_not(api: FakeApi) -> None:
    """A node that serves keeps its status while another version is brought to it."""
    lines: list[str] = []
    telling = teller(api, lines)
    telling.step("preflight")
    assert not api.writes
    telling.step("download")
    event, condition = api.writes
    assert (event[1]["reason"], event[1]["message"]) == ("Installing", "node n1: step download")
    (entry,) = condition[1]["status"]["conditions"]
    assert (entry["status"], entry["reason"], entry["message"]) == ("True", "Installing", "step download")
    assert [json.loads(line)["step"] for line in lines] == ["preflight", "download"]


def test_a_daemon_that_is_away_is_told_once_while_it_lasts(api: FakeApi) -> None:
    """It may mount its layers again for minutes, and is looked at every three seconds."""
    told = teller(api, [])
    for _ in range(3):
        told.away()
    assert (api.condition["status"], api.condition["reason"]) == ("False", "SnapshotterAway")
    assert len(api.writes) == 1


def test_a_node_whose_daemon_is_away_has_no_label_until_it_serves_again(api: FakeApi) -> None:
    """Workloads that select nodes which serve went on coming."""
    told = teller(api, [])
    told.success("0.16.1", "lazy", SERVES, 1.0)
    told.away()
    assert LABEL not in api.node["metadata"]["labels"]
    told.success("0.16.1", "lazy", SERVES, 1.0)
    assert (api.condition["status"], api.node["metadata"]["labels"][LABEL]) == ("True", "0.16.1")


VERIFIED, DEAD = "outcome=verified\n", "outcome=failed\nstep=verify-connection\n"


@pytest.mark.parametrize(
    ("step", "checks", "keeps"),
    [
        *((step, VERIFIED, True) for step in ("preflight", "download", "verify-canary", "containerd-config")),
        *((step, DEAD, False) for step in ("preflight", "snapshotter", "restart", "verify-cri")),
        ("preflight", "", False),
    ],
)
def test_a_failed_run_leaves_the_label_to_a_node_that_serves_nevertheless(
    api: FakeApi, fake_host: FakeHost, step: str, checks: str, keeps: bool
) -> None:
    """A refused upgrade changes nothing; a daemon that is dead does not serve, whatever the run failed at."""
    for path, text in daemon_processes().items():
        fake_host.write(path, text.encode())
    fake_host.answers["timeout"] = lambda command, text: Result(0, checks, "")
    api.node["metadata"]["labels"] = {LABEL: "0.16.0"}
    teller(api, []).failure(fake_host, InstallError(step, "it failed", "mend it"))
    assert api.condition["status"] == "False"
    assert api.node["metadata"]["labels"] == ({LABEL: "0.16.0"} if keeps else {})


@pytest.mark.parametrize(("annotation", "label"), [('{"version":"0.16.0"}', "0.16.0"), ("not ours", None)])
def test_a_failed_run_gives_the_label_back_to_a_node_that_serves(
    api: FakeApi, fake_host: FakeHost, annotation: str, label: str | None
) -> None:
    """A daemon that was away for seconds lost it, and an upgrade that keeps failing never gave it back."""
    for path, text in daemon_processes().items():
        fake_host.write(path, text.encode())
    fake_host.answers["timeout"] = lambda command, text: Result(0, VERIFIED, "")
    api.node["metadata"] |= {"labels": {}, "annotations": {ANNOTATION: annotation}}
    teller(api, []).failure(fake_host, InstallError("download", "it failed", "mend it"))
    assert api.node["metadata"]["labels"].get(LABEL) == label


def test_api_server_that_is_away_is_asked_once_and_holds_up_no_step() -> None:
    asked = []

    def away(method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        asked.append(path)
        raise ApiError("no route")

    lines: list[str] = []
    telling = teller(away, lines)
    for step in ("download", "images", "stage"):
        telling.step(step)
    assert len(asked) == 1
    assert [json.loads(line)["message"] for line in lines].count("begins") == 3


@pytest.mark.parametrize(("status", "calls"), [(0, 4), (409, 4), (503, 4), (403, 1), (404, 1)])
def test_retry(status: int, calls: int) -> None:
    tried = []

    def action() -> str:
        tried.append(1)
        if len(tried) < 4:
            raise ApiError("no", status)
        return "done"

    if calls == 1:
        with pytest.raises(ApiError):
            agent_api.retry(action, 60, sleep=lambda seconds: None)
    else:
        assert agent_api.retry(action, 60, sleep=lambda seconds: None) == "done"
    assert len(tried) == calls


@pytest.mark.parametrize("step", ["verify-plugins", "recovery", "uninstall", "download", "stage"])
def test_the_daemons_journal_is_told_only_where_they_had_a_part(
    api: FakeApi, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    """A wrong digest came with six lines of containerd about other containers."""
    words = tmp_path / "termination-log"
    monkeypatch.setattr(tell, "TERMINATION_LOG", words)
    fake_host.answers["journalctl"] = lambda command, text: Result(0, "RemoveContainer 4f1b\n", "")
    teller(api, []).failure(fake_host, InstallError(step, "it failed", "mend it"))
    is_told = "| RemoveContainer 4f1b" in words.read_text()
    assert is_told == (step not in ("download", "stage"))
