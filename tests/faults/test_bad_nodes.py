"""Nodes in a bad way while SOCI is installed: the old state is back, and the result says step and cause."""

import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent import install, plan, transaction
from agent.errors import InstallError
from agent.host import Result

from tests.fakes.node import INSTALLER, FakeNode, furnish
from tests.fakes.script_node import OLD_CONFIG, ScriptNode
from tests.fakes.settings import agent_settings
from tests.faults import harness

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system and gives files to root")

ANSWER = "ctr --connect-timeout 1s --address /run/soci-snapshotter-grpc"
YEAR = 365 * 24 * 3600


def assert_untouched(node: ScriptNode, before: dict[str, tuple[int, bytes]]) -> None:
    assert node.etc() == before
    assert (node.fake / "loaded-config").read_bytes() == OLD_CONFIG
    assert (node.fake / "active-containerd.service").exists()
    assert not (node.fake / "active-soci-snapshotter.service").exists()


@pytest.mark.failure_mode(12)
def test_containerd_waits_for_a_slow_daemon(node: ScriptNode) -> None:
    """nydus-snapshotter#796: its socket was not there yet when containerd came up."""
    (node.fake / "slow").write_text("not yet\n" * 100)
    outcome = node.apply(node.stage())
    assert (outcome.outcome, outcome.containerd_restarts) == ("committed", 1)
    calls = node.calls(ANSWER, "systemctl restart containerd")
    assert len(calls) == 102
    assert calls[-1] == "systemctl restart containerd.service"


@pytest.mark.full
@pytest.mark.failure_mode(13)
def test_containerd_is_not_touched_for_a_daemon_that_never_answers(node: ScriptNode) -> None:
    """nydus-snapshotter#796: it is started, and its socket stays mute."""
    before = node.etc()
    directory = node.stage()
    node.set("mute")
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "snapshotter", 0)
    assert outcome.cause == "soci-snapshotter.service does not answer on its socket: last words of the daemon"
    assert node.calls("systemctl restart containerd") == []
    assert_untouched(node, before)


@pytest.mark.failure_mode(15)
@pytest.mark.failure_mode(21)
def test_containerd_that_refuses_its_configuration_gets_the_old_one_back(node: ScriptNode) -> None:
    """aicr#1688: 149 restarts of a daemon that could not come up; nothing may say that it was installed."""
    before = node.etc()
    directory = node.stage()
    node.set("refuses")
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "restart", 2)
    assert outcome.cause == "containerd did not start: last words of the daemon"
    assert node.journal() == "rolled-back"
    assert not (node.root / "var/lib/soci-cluster/current").exists()
    assert_untouched(node, before)


@pytest.mark.failure_mode(19)
def test_a_restart_that_hangs_is_given_up_and_reported(node: ScriptNode) -> None:
    """nvidia-container-toolkit#433: a stop job that hangs, and a restart whose result nobody looks at."""
    before = node.etc()
    directory = node.stage()
    node.set("hang-restart-containerd.service")
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "restart", 2)
    assert outcome.cause.startswith("containerd did not stop and start within")
    assert_untouched(node, before)


@pytest.mark.failure_mode(37)
def test_of_two_installers_at_once_one_installs_and_the_other_says_why_not(node: ScriptNode) -> None:
    """No peer has a lock that two of its installers share (src)."""
    first_directory = Path(node.stage("1-a"))
    # Staged in the same moment: neither has seen the other at work.
    directories = [first_directory, Path(shutil.copytree(first_directory, first_directory.with_name("2-b")))]
    for directory in directories:
        node.set(f"active-soci-cluster-txn-{directory.name}.service")
    processes = [node.start("apply", str(directory)) for directory in directories]
    for process in processes:
        process.communicate(timeout=120)
    results = [transaction.parse_result((directory / "result").read_text()) for directory in directories]
    first, second = sorted(results, key=lambda result: result.outcome)
    assert (first.outcome, first.containerd_restarts) == ("committed", 1)
    assert (second.outcome, second.step, second.containerd_restarts) == ("unchanged", "lock", 0)
    assert "changed while the install was being prepared" in second.cause
    assert node.is_installed()
    assert node.journal() == "committed"


@contextmanager
def read_only(folder: Path) -> Generator[None]:
    """A mount that makes one folder of the node read-only."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("folder", ["etc/containerd", "etc/systemd/system", "opt"])
def test_a_read_only_directory_stops_the_install_with_its_name(
    nodes: list[harness.FaultNode], folder: str
) -> None:
    bad = nodes[0]
    bad.become(bad.untouched)
    with read_only(bad.root / folder):
        outcome = bad.agent("0.16.1", "1-a").outcome
        assert (outcome["outcome"], outcome["step"]) == ("failed", "preflight")
        assert f"/{folder} is mounted read-only" in outcome["cause"]
        assert harness.in_effect(bad.state()) == harness.in_effect(bad.untouched)
        assert harness.problems(bad.state()) == []
    assert bad.agent("0.16.1", "2-b").outcome["outcome"] == "done"


class Vain(FakeNode):
    """A node whose containerd never comes up with the new configuration."""

    def _commit(self, command: Sequence[str], text: str) -> Result:
        result = "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n"
        self.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")


@pytest.mark.parametrize("off_by", [-YEAR, YEAR])
def test_a_clock_that_was_wrong_does_not_keep_a_failed_install_from_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_by: int
) -> None:
    """What failed while the clock was off by a year is tried again once it is right."""
    furnish(tmp_path)
    machine = Vain(tmp_path)
    monkeypatch.setattr("agent.release.install", lambda *arguments, **options: None)
    settings = agent_settings(sha256={"amd64": "00"})
    task = plan.Task(
        machine, settings, INSTALLER, "x86_64", lambda: plan.Registration(True, "s"), sleep=lambda _: None
    )
    with pytest.raises(InstallError, match="no"):
        install.install(task, lambda users: None)
    staged = next((tmp_path / "var/lib/soci-cluster/txn").iterdir())
    then = staged.stat().st_mtime + off_by
    os.utime(staged, (then, then))
    with pytest.raises(InstallError) as caught:
        install.install(task, lambda users: None)
    assert "minutes ago" not in caught.value.cause
