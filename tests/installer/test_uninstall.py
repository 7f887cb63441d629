"""When the agent takes SOCI off a node, and what it tells the API: on a fake node with a fake API server."""

from collections.abc import Sequence
from typing import Any

import agent.__main__ as program
import pytest
from agent import credential_helper, owner, settings, tell, transaction, uninstall
from agent import marks as node_marks
from agent.api import Api
from agent.errors import InstallError
from agent.host import Result
from agent.log import Log

from tests.fakes.api import FakeApi
from tests.fakes.node import INSTALLER, FakeHost
from tests.fakes.settings import agent_settings

SCRIPT = transaction.host_script(INSTALLER)
OWNER = "soci-system/soci-installer"
LAZY = "lazily loaded containers are running: default/app"


def api_of_a_node_with_soci() -> FakeApi:
    """An API server whose one node carries all marks, and things of others beside them."""
    return FakeApi(
        metadata={
            "labels": {node_marks.LABEL: "0.16.1", "other": "stays"},
            "annotations": {node_marks.ANNOTATION: "{}"},
        },
        spec={"taints": [{"key": node_marks.TAINT, "effect": "NoSchedule"}]},
        status={"conditions": [{"type": "Ready"}, {"type": node_marks.CONDITION, "status": "True"}]},
    )


def marks(api: FakeApi) -> dict[str, Any]:
    """Everything of ours that the node carries in the API."""
    condition = api.condition
    return {
        "label": api.node["metadata"].get("labels", {}).get(node_marks.LABEL),
        "annotation": api.annotations.get(node_marks.ANNOTATION),
        "condition": condition.get("reason", condition.get("status")),
        "taints": [taint["key"] for taint in api.node["spec"].get("taints", [])],
    }


class Installed(FakeHost):
    """A node with SOCI. ``asked``: what its host script was asked, with the node's label at that time."""

    def __init__(self, root: Any, api: FakeApi) -> None:
        super().__init__(root)
        self.api = api
        self.refusal = self.failure = ""
        self.asked: list[tuple[tuple[str, ...], str | None]] = []
        self.write(f"{transaction.STATE}/journal", b"state=committed\ntransaction=1-a\n")
        self.write(transaction.SCRIPT, b"of an earlier version")
        self.answers = {"sh": self._script, "systemctl": lambda command, text: Result(3, "inactive\n", "")}

    def _script(self, command: Sequence[str], text: str) -> Result:
        self.asked.append((tuple(command[2:]), marks(self.api)["label"]))
        if self.refusal:
            return Result(1, "", f"{self.refusal}\n")
        if command[2] == "remove":
            if self.failure:
                return Result(1, "", f"{self.failure}\n")
            for path in (f"{transaction.STATE}/journal", owner.OWNER, transaction.SCRIPT):
                self.path(path).unlink(missing_ok=True)
            self.path(transaction.STATE).rmdir()
            self.path(transaction.PROGRAMS).rmdir()
        return Result(0, "", "")


@pytest.fixture
def api() -> FakeApi:
    return api_of_a_node_with_soci()


@pytest.fixture
def host(root: Any, api: FakeApi) -> Installed:
    return Installed(root, api)


@pytest.fixture
def agent(host: Installed, api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> program.Agent:
    monkeypatch.setattr(program, "PAYLOAD", INSTALLER)
    monkeypatch.setattr(tell, "TERMINATION_LOG", tmp_path / "termination-log")
    monkeypatch.setattr(program, "READY_FILE", tmp_path / "ready")
    monkeypatch.setattr(program, "MARKS_SECONDS", 0.0)
    monkeypatch.setattr(owner, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(owner, "CONFIRM_SECONDS", 0.0)
    monkeypatch.setattr(program, "become_watcher", lambda *arguments: None)
    identity = Api("n1", "p1", "soci-system", "soci-installer", api)
    return program.Agent(host, identity, Log("n1", lambda line: None))


def wanted(force: bool = False) -> settings.Settings:
    return agent_settings(state="absent", force_uninstall=force)


NO_MARKS = {"label": None, "annotation": None, "condition": None, "taints": []}
ALL_MARKS = {"label": "0.16.1", "annotation": "{}", "condition": "True", "taints": [node_marks.TAINT]}


@pytest.mark.failure_mode(42)
def test_absent_takes_soci_and_every_mark_off_the_node(
    host: Installed, api: FakeApi, agent: program.Agent
) -> None:
    """cilium#31943. The marks go first: the uninstall may end the installer's own container."""
    agent.absent(wanted())
    assert host.asked == [(("removable",), "0.16.1"), (("remove",), None)]
    assert marks(api) == NO_MARKS
    assert api.node["metadata"]["labels"] == {"other": "stays"}
    assert program.READY_FILE.exists()
    assert "Uninstalled" in api.events


def test_a_check_of_the_node_that_fails_is_told_as_the_step_that_it_is(host: Installed) -> None:
    host.failure = "verify-plugins: containerd runs with others; SOCI was put in place again"
    with pytest.raises(InstallError) as raised:
        uninstall.uninstall(host, SCRIPT, False, lambda: None)
    told = raised.value
    assert (told.step, told.cause) == ("verify-plugins", host.failure.removeprefix("verify-plugins: "))


def test_consent_to_end_lazily_loaded_containers_is_handed_on(host: Installed, agent: program.Agent) -> None:
    agent.absent(wanted(force=True))
    assert [asked for asked, _ in host.asked] == [("removable", "--force"), ("remove", "--force")]


@pytest.mark.failure_mode(42)
def test_a_node_without_soci_loses_the_startup_taint(
    host: Installed, api: FakeApi, agent: program.Agent
) -> None:
    """A node that joins while SOCI is absent is schedulable."""
    host._script(("sh", "", "remove"), "")
    host.asked.clear()
    agent.absent(wanted())
    assert marks(api) == NO_MARKS
    assert host.asked == []
    api.requests.clear()
    agent.absent(wanted())
    assert api.writes == []


def test_a_first_install_that_was_killed_leaves_nothing_in_memory(
    host: Installed, agent: program.Agent
) -> None:
    host._script(("sh", "", "remove"), "")
    host.write(f"{credential_helper.FOR_NOW}/providers", b"end\n")
    agent.absent(wanted())
    assert not host.exists(credential_helper.MEMORY)


def test_a_refused_uninstall_leaves_the_marks_true(
    host: Installed, api: FakeApi, agent: program.Agent
) -> None:
    host.refusal = LAZY
    with pytest.raises(uninstall.RefusedError, match="default/app") as caught:
        agent.absent(wanted())
    assert marks(api) == ALL_MARKS
    assert agent.fail(caught.value) == 1
    condition = api.condition
    assert (condition["status"], condition["reason"]) == ("True", "UninstallRefused"), (
        "SOCI serves the node still"
    )
    assert "Remedy: drain the node, or set soci:forceUninstall" in tell.TERMINATION_LOG.read_text()
    assert api.events == ["UninstallRefused"] * 2


def test_a_failed_uninstall_puts_the_label_back(host: Installed, api: FakeApi, agent: program.Agent) -> None:
    host.failure = "containerd did not start; SOCI was put in place again"
    with pytest.raises(InstallError, match="SOCI was put in place again"):
        agent.absent(wanted())
    assert (marks(api)["label"], marks(api)["annotation"]) == ("0.16.1", "{}")


def test_the_script_of_an_earlier_version_is_not_used(host: Installed, agent: program.Agent) -> None:
    seen = []
    host.answers["sh"] = lambda command, text: Result(1, "", str(seen.append(host.read(command[1]))))
    with pytest.raises(uninstall.RefusedError):
        agent.absent(wanted())
    assert seen == [SCRIPT]


@pytest.mark.failure_mode(38)
def test_the_end_of_a_pod_alone_leaves_the_node_configured(
    host: Installed, api: FakeApi, agent: program.Agent
) -> None:
    """Rolling update, pod delete, drain, eviction (nydus preStop, NVIDIA SIGTERM; Kata fixed it)."""
    assert agent.leave(wanted()) == 0
    assert host.asked == []
    assert marks(api) == ALL_MARKS


@pytest.mark.failure_mode(39)
@pytest.mark.parametrize("case", ["foreground", "background", "namespace", "namespace gone", "rights gone"])
def test_the_end_of_the_installer_takes_soci_off(
    host: Installed, api: FakeApi, agent: program.Agent, case: str
) -> None:
    """sysbox#688, nydus-snapshotter#740: namespace, RBAC or API removed first left nodes behind."""
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    if case == "foreground":
        api.daemonset["metadata"] |= gone
    if case == "namespace":
        api.namespace["metadata"] |= gone
    api.errors = {
        "background": {"daemonsets": 404},
        "namespace gone": {"namespaces": 404},
        "rights gone": {"/api": 403},
    }.get(case, {})
    assert agent.leave(wanted()) == 0
    assert [asked for asked, _ in host.asked] == [("removable",), ("remove",)]
    assert marks(api) == (ALL_MARKS if case == "rights gone" else NO_MARKS)


@pytest.mark.failure_mode(38)
@pytest.mark.parametrize("status", [0, 401, 403, 500, 503])
def test_an_api_server_that_does_not_answer_leaves_the_node_configured(
    host: Installed, api: FakeApi, agent: program.Agent, status: int
) -> None:
    """401 is also what a pod gets that was deleted by force: its token is bound to it."""
    api.errors = {"": status}
    assert agent.leave(wanted()) == 0
    assert host.asked == []


@pytest.mark.failure_mode(38)
@pytest.mark.parametrize("status", [403, 404])
def test_a_passing_answer_is_not_believed(
    host: Installed, api: FakeApi, agent: program.Agent, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that is starting up may answer 401 or 403 to anything."""
    api.errors = {"daemonsets": status}
    monkeypatch.setattr(owner, "CONFIRM_SECONDS", 1.0)

    def pause(seconds: float) -> None:
        api.errors.clear()

    assert owner.is_deleted(agent.api, pause) is False


@pytest.mark.failure_mode(38)
def test_an_installer_that_was_replaced_by_another_leaves_the_node_to_it(
    host: Installed, api: FakeApi, agent: program.Agent
) -> None:
    """soci:namespace was changed: the new DaemonSet has verified the node before the old one is deleted."""
    owner.claim(host, "elsewhere/soci-installer")
    api.daemonset["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert agent.leave(wanted()) == 0
    assert host.asked == []
    owner.claim(host, OWNER)
    agent.leave(wanted())
    assert len(host.asked) == 2


def test_a_refusal_at_the_installers_end_is_told(host: Installed, api: FakeApi, agent: program.Agent) -> None:
    """Its DaemonSet is gone: the Event on the node, the condition and the log remain."""
    host.refusal = LAZY
    api.errors = {"daemonsets": 404}
    assert agent.leave(wanted()) == 1
    assert marks(api)["label"] == "0.16.1"
    assert marks(api)["condition"] == "UninstallRefused"
    assert api.events == ["UninstallRefused"]
    assert "default/app" in tell.TERMINATION_LOG.read_text()


def test_the_journal_below_the_reason_is_the_one_of_the_failure(
    agent: program.Agent, host: Installed
) -> None:
    host.answers["journalctl"] = lambda command, text: Result(0, "all is well again\n", "")
    agent.fail(InstallError("restart", "no", "look", ["panic: https://me:secret@host"]))
    assert tell.TERMINATION_LOG.read_text().splitlines()[1:] == ["| panic: https://host"]
    agent.fail(InstallError("commit", "no", "look"))
    assert tell.TERMINATION_LOG.read_text().splitlines()[1:] == ["| all is well again"]


def test_an_uninstall_that_was_cut_short_is_finished_before_an_install(host: Installed) -> None:
    """kata-containers#10167: deploy, cleanup, deploy."""
    uninstall.finish_begun(host, SCRIPT)
    assert host.asked == []
    host.write(f"{transaction.STATE}/journal", b"state=restoring\n")
    uninstall.finish_begun(host, SCRIPT)
    assert [asked for asked, _ in host.asked] == [("removable",), ("remove",)]


def test_an_uninstall_at_work_is_waited_for(host: Installed) -> None:
    """An earlier container of the pod was ended by it."""
    states = ["active\n", "activating\n", "inactive\n"]
    host.answers["systemctl"] = lambda command, text: Result(0, states.pop(0) if states else "inactive\n", "")
    slept = []
    uninstall.uninstall(host, SCRIPT, False, lambda: None, slept.append)
    assert len(slept) == 2
