"""What others changed on an installed node: it is told, and put right, but not for ever."""

import os

import pytest
from agent import __main__ as program
from agent import drift
from agent.api import Api
from agent.host import Host
from agent.log import Log
from agent.marks import LABEL
from agent.plan import Seen

from tests.fakes.api import FakeApi

NOW = 1_800_000_000.0
WHAT = "/etc/containerd/config.toml was changed at noon"
SEEN = Seen(7, 8, 0, (("/etc/containerd/config.toml", "1-2-3-4"),))


@pytest.fixture
def host(root) -> Host:
    return Host(root)


def test_a_repair_is_made_at_once_and_then_not_for_ten_minutes(host: Host) -> None:
    assert drift.seconds_to_wait(host, NOW) == 0
    drift.remember(host, NOW)
    assert drift.seconds_to_wait(host, NOW + 60) == 540
    assert drift.seconds_to_wait(host, NOW + 601) == 0


def test_three_repairs_are_made_in_an_hour(host: Host) -> None:
    """Two tools that each put their own state back would restart containerd all day."""
    for minutes in (0, 11, 22):
        drift.remember(host, NOW + minutes * 60)
    assert drift.seconds_to_wait(host, NOW + 40 * 60) == 20 * 60
    assert drift.seconds_to_wait(host, NOW + 61 * 60) == 0


def test_a_clock_that_was_set_back_delays_no_repair(host: Host) -> None:
    drift.remember(host, NOW + 10 * 365 * 86400)
    assert drift.seconds_to_wait(host, NOW) == 0


def agent_on(host: Host, server: FakeApi) -> program.Agent:
    api = Api("node1", "soci-installer-x", "soci-system", "soci-installer", server)
    return program.Agent(host, api, Log("node1", write=lambda line: None))


def test_a_drifted_node_says_so_and_is_no_longer_selected_by_its_label(host: Host) -> None:
    server = FakeApi(metadata={"labels": {LABEL: "0.16.1"}})
    agent_on(host, server)._allow_repair("repair", WHAT, SEEN)
    assert (server.condition["status"], server.condition["reason"]) == ("False", "Drifted")
    assert WHAT in server.condition["message"]
    assert LABEL not in server.node["metadata"]["labels"]


@pytest.mark.parametrize(("policy", "seconds"), [("report", None), ("repair", 600.0)])
def test_what_is_not_put_right_now_is_watched(
    host: Host, monkeypatch: pytest.MonkeyPatch, policy: str, seconds: float | None
) -> None:
    """The process that stays looks at the files alone; the pod is not ready, since nothing may serve."""
    monkeypatch.setattr(program.time, "time", lambda: NOW)
    drift.remember(host, NOW)
    agent = agent_on(host, FakeApi())
    with pytest.raises(drift.DriftError) as caught:
        agent._allow_repair(policy, WHAT, SEEN)
    assert caught.value.seconds == seconds
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    monkeypatch.setattr(program.signal, "pthread_sigmask", lambda *arguments: None)
    agent._leave_drifted(caught.value)
    words = commands[0][commands[0].index("") :]
    errand = [] if seconds is None else ["--every", "600.0", "1", "true"]
    assert words == ["", "", "", "0", "8", "0", f"{host.root}/etc/containerd/config.toml=1-2-3-4", *errand]
