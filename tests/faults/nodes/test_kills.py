"""The host script is killed, and the node's power is cut, at each of its steps on a real node.

The kill points are the statements of the script's `apply`, read from the script itself.
"""

import contextlib
from itertools import cycle
from pathlib import Path

import pytest
from agent import transaction
from agent.errors import InstallError

from tests.faults.nodes.lab_node import Health, LabNode, payload_that
from tests.faults.nodes.pool import CONTAINERD
from tests.faults.script_points import POINTS, Statement, find
from tests.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.failure_mode(16)]
KILL = "kill -KILL $$"
WAITS = "while :; do sleep 1; done"
QUICK = find(POINTS, "restart_containerd")
# The power is cut, and the agent dies: as a step begins, the journal is written, or a daemon is to notice.
ACTS = ("journal", "start_daemon", "restart_containerd", "verify", "report")
BEGINS = dict(reversed([(point.step, point) for point in POINTS if point.name != "enter"])).values()
STEPS = [point for point in POINTS if point.name.startswith(ACTS) or point in BEGINS]


def every(points: list[Statement]):
    """All points with --full, the containerds taking turns; else the one before containerd's restart."""

    def case(point: Statement, containerd: str):
        return pytest.param(
            point,
            CONTAINERD[-1] if point == QUICK else containerd,
            marks=[] if point == QUICK else [pytest.mark.full],
            id=f"{POINTS.index(point)}-{point.step}-{point.name.partition('=')[0]}",
        )

    turns = [case(point, containerd) for point, containerd in zip(points, cycle(CONTAINERD), strict=False)]
    return pytest.mark.parametrize(("point", "containerd"), turns)


@every(POINTS)
def test_killed_script_is_undone_by_the_agent_and_the_next_run_installs(
    node: LabNode, health: Health, tmp_path: Path, point: Statement
):
    """gpu-operator#456, kata-containers PR#13551: an installer that dies half way."""
    payload = payload_that(KILL, point, tmp_path)
    with contextlib.suppress(InstallError):
        node.install(payload)
    wait_for(lambda: node.host.exists("/run/soci-cluster-hook"), 30, "the script was killed")
    if node.journal().get("state") != "committed":
        health.assert_old_state()
    node.install()
    health.assert_new_state()


@every(STEPS)
def test_dead_mans_timer_undoes_a_killed_script_when_the_agent_is_gone_too(
    node: LabNode, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Statement
):
    """kata-containers PR#13551: the restart that it asked for killed the installer's pod."""
    monkeypatch.setattr(transaction, "DEADLINE_SECONDS", 4)
    monkeypatch.setattr(transaction, "commit", lambda host, name, sleep: start_only(node, name))
    payload = payload_that(KILL, point, tmp_path)
    with pytest.raises(AgentDiedError):
        node.install(payload)
    wait_for(lambda: node.host.exists("/run/soci-cluster-hook"), 30, "the script was killed")
    wait_for(lambda: node.journal().get("state") not in ("armed", "restarting"), 60, "the timer undid it")
    if node.journal().get("state") == "committed":
        health.assert_new_state()
    else:
        health.assert_old_state()
    monkeypatch.undo()
    node.install()
    health.assert_new_state()


class AgentDiedError(Exception):
    pass


def start_only(node: LabNode, name: str) -> None:
    unit = f"soci-cluster-txn-{name}"
    directory = f"{transaction.STATE}/txn/{name}"
    node.sh(f"systemd-run --quiet --collect --unit={unit} {transaction.SCRIPT} apply {directory}")
    raise AgentDiedError


@every(STEPS)
def test_power_cut_ends_in_one_of_the_two_good_states(
    node: LabNode, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Statement
):
    """Installers that write in place leave half a file. Here what was not synced is not lost."""
    monkeypatch.setattr(transaction, "commit", lambda host, name, sleep: start_only(node, name))
    with pytest.raises(AgentDiedError):
        node.install(payload_that(WAITS, point, tmp_path))
    wait_for(lambda: node.host.exists("/run/soci-cluster-hook"), 60, "the script came to the point")
    node.power_cut()
    wait_for(node.cri_answers, 60, "the CRI answers after the boot")
    if node.effective_snapshotter() == "soci":
        assert node.journal()["state"] == "committed"
    else:
        assert node.files() == health.files
    monkeypatch.undo()
    health.pods.await_running(health.witness)
    node.install()
    assert node.effective_snapshotter() == "soci"
    health.pods.start(node)
