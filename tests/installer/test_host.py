"""The node's files, commands and network, as the pod has them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from agent import host as agent_host
from agent.credential_helper import HELPER
from agent.host import Host, in_network_of, run_on_host

from tests.fakes.node import INSTALLER

ROOT = ("/", "ext4")
# Mount points with their file systems, as mounted; whether /run/soci-cluster/credentials is in memory.
TABLES = [
    ([ROOT, ("/run", "tmpfs")], True),
    ([ROOT, ("/run", "ramfs")], True),
    ([("/", "tmpfs")], True),
    ([ROOT], False),
    ([], False),
    ([ROOT, ("/ru", "tmpfs"), ("/run/soci-cluster/credential", "tmpfs")], False),
    ([ROOT, ("/run", "tmpfs"), ("/run/soci-cluster", "xfs")], False),
    ([ROOT, ("/run", "xfs"), ("/run/soci-cluster/credentials", "tmpfs")], True),
    ([ROOT, ("/run", "tmpfs"), ("/run", "ext4")], False),
    ([ROOT, ("/run", "ext4"), ("/run", "tmpfs")], True),
    ([("/run/soci-cluster", "tmpfs"), ROOT], True),
    ([ROOT, ("/run/soci-cluster\\040x", "xfs"), ("/run", "tmpfs")], True),
]


@pytest.mark.parametrize(("table", "is_in_memory"), TABLES)
def test_agent_and_helper_agree_on_what_is_in_memory(
    tmp_path: Path, table: list[tuple[str, str]], is_in_memory: bool
) -> None:
    """Both have to know: a credential that lies on a disk is there for good."""
    path = "/run/soci-cluster/credentials"
    host = Host(tmp_path)
    lines = (f"{at} 1 0:{at} / {point} rw shared:1 - {kind} x rw\n" for at, (point, kind) in enumerate(table))
    host.write("/proc/1/mountinfo", "".join(lines).encode())
    assert host.is_in_memory(path) is is_in_memory
    mounts = tmp_path / "mounts"
    mounts.write_text("".join(f"x {point} {kind} rw 0 0\n" for point, kind in table))
    text = (INSTALLER / Path(HELPER).name).read_text()
    function = re.search(r"^is_in_memory\(\) \{\n.*?^\}\n", text, re.MULTILINE | re.DOTALL)
    assert function
    assert "/proc/self/mounts" in function[0]
    script = f"ANSWERS={path}\n{function[0]}is_in_memory\n".replace("/proc/self/mounts", str(mounts))
    assert (subprocess.run(["sh", "-c", script], check=False).returncode == 0) is is_in_memory


def test_a_command_has_the_environment_that_it_is_given_and_none_of_the_pods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_host, "ENTER_HOST", ())
    monkeypatch.setenv("POD_NAME", "installer")
    assert "POD_NAME=installer\n" in run_on_host(["env"]).output
    said = run_on_host(["env"], environment={"HTTPS_PROXY": "http://robot:hunter2@p:1"}).output
    assert said.splitlines() == [f"PATH={agent_host.PATH}", "HTTPS_PROXY=http://robot:hunter2@p:1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone enters another network")
def test_work_is_done_in_another_network_and_this_process_stays_in_its_own() -> None:
    """As a proxy at the node's loopback is reached."""
    here = os.readlink("/proc/self/ns/net")
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        there = os.readlink(f"/proc/{other.pid}/ns/net")
        assert in_network_of(other.pid, lambda: os.readlink("/proc/thread-self/ns/net")) == there != here
        with pytest.raises(ZeroDivisionError):
            in_network_of(other.pid, lambda: 1 // 0)
        other.kill()
    assert os.readlink("/proc/thread-self/ns/net") == here
    with pytest.raises(OSError, match="No such file"):
        in_network_of(2**22 + 1, lambda: None)


def test_a_file_that_nobody_else_may_read_is_never_readable_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a plugin's list holds was, for as long as it took to reach the disk."""
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: modes.append(os.fstat(descriptor).st_mode & 0o777))
    Host(tmp_path).write("/run/secret", b"s", 0o600)
    assert modes[0] == 0o600
