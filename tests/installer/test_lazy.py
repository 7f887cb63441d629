"""A failed question is never an answer: neither who reads from a daemon, nor what is at work."""

from pathlib import Path

import pytest
from agent import lazy, slots, transaction
from agent.ctr import Ctr
from agent.errors import InstallError
from agent.host import Result

from tests.fakes.ctr import FakeCtr
from tests.fakes.node import FakeHost


def test_mounts_that_cannot_be_read_are_not_none(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.answers["sh"] = lambda command, text: Result(2, "", "awk: not found")
    for question in (lazy.lazy_mounts, lazy.all_mounts):
        with pytest.raises(InstallError, match="awk: not found"):
            question(host, b"", slots.FIRST)


def test_a_containerd_that_does_not_answer_has_said_nothing_of_a_pod(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.answers["env"] = ctr = FakeCtr()
    ctr.fails.add("containers ls")
    with pytest.raises(InstallError, match="containers ls"):
        lazy.has_pod(Ctr(host, "/run/containerd.sock", "/bin"), ("/run/c/one/rootfs",), lazy.Pod("a", "b"))


def test_a_systemd_that_does_not_answer_has_not_said_that_a_unit_ended(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.answers["systemctl"] = lambda command, text: Result(124, "", "systemctl did not end in 60 s")
    with pytest.raises(InstallError, match="did not end"):
        transaction.is_at_work(host, "soci-cluster-remove.service")


def test_a_transaction_is_not_rolled_back_because_systemd_does_not_answer(tmp_path: Path) -> None:
    """It may be at work: its own deadline ends it."""
    host = FakeHost(tmp_path)
    host.write(f"{transaction.STATE}/journal", b"state=armed\ntransaction=1-a\n")
    host.answers["systemctl"] = lambda command, text: Result(124, "", "systemctl did not end in 60 s")

    def ended(seconds: float) -> None:
        host.write(f"{transaction.STATE}/journal", b"state=committed\ntransaction=1-a\n")

    transaction.wait_for_running(host, ended)
    assert not any("rollback" in command for command in host.commands)
