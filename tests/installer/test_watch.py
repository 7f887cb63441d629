"""Readiness follows the daemon, in a process that costs little."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from agent import __main__ as program
from agent import watch

from tests.fakes.node import INSTALLER
from tests.waiting import wait_for

WATCHER = INSTALLER / "agent" / "watch.py"
MAX_RSS_KIB = 15 * 1024


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path("/tmp") / f"watch-{time.monotonic_ns()}"  # a socket's path is short
    path.mkdir()
    yield path
    shutil.rmtree(path)


def test_ready_only_while_the_daemon_runs_and_accepts(folder: Path) -> None:
    (folder / "agent").mkdir()
    (folder / "agent/__main__.py").write_text("import sys; sys.exit(40 if sys.argv[1:] == ['leave'] else 1)")
    daemon = folder / "soci-daemon"
    shutil.copy("/bin/sleep", daemon)
    ready = folder / "ready"
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", WATCHER, ready, folder / "socket", str(daemon), "0", "0", "0"],
        cwd=folder,
    )
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "socket"))
            server.listen()
            time.sleep(1.5)
            assert not ready.exists(), "systemd's socket accepts although no daemon runs"
            with subprocess.Popen([daemon, "60"]) as process:
                wait_for(ready.exists, 15, "ready")
                rss = Path(f"/proc/{watcher.pid}/status").read_text().split("VmRSS:")[1].split()[0]
                assert int(rss) <= MAX_RSS_KIB
                process.kill()
            wait_for(lambda: not ready.exists(), 15, "not ready")
    finally:
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(5) == 40, "the agent finds out whether SOCI leaves, too"


def test_without_arguments_it_only_waits_for_the_pods_end() -> None:
    watcher = subprocess.Popen([sys.executable, "-I", "-S", "-B", WATCHER])
    try:
        status = Path(f"/proc/{watcher.pid}/status")
        caught = 1 << (signal.SIGTERM - 1)
        signals = lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16)  # noqa: E731
        wait_for(lambda: bool(signals() & caught), 15, "SIGTERM is handled")
    finally:
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(5) == 0


def test_command_runs_until_it_succeeds_and_the_installer_reports_it(folder: Path) -> None:
    """A replaced daemon is retired from here; no larger process stays for that."""
    daemon = folder / "soci-daemon"
    shutil.copy("/bin/sleep", daemon)
    blocked = "signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])"
    (folder / "agent.py").write_text(f"import signal; open('reported', 'w').write(str({blocked}))")
    script = "echo x >>tries; [ $(wc -l <tries) = 3 ]"
    with socket.socket(socket.AF_UNIX) as server, subprocess.Popen([daemon, "60"]) as process:
        server.bind(str(folder / "socket"))
        server.listen()
        watcher = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-B",
                WATCHER,
                *("ready", "socket", str(daemon), "0", "0", "0"),
                *program.every(0.01, ("sh", "-c", script)),
            ],
            cwd=folder,
        )
        rss = 0
        while watcher.poll() is None:
            status = Path(f"/proc/{watcher.pid}/status").read_text()
            if (folder / "tries").exists() and "watch.py" in Path(f"/proc/{watcher.pid}/cmdline").read_text():
                rss = max(rss, *(int(part.split()[0]) for part in status.split("VmRSS:")[1:]), 0)
            time.sleep(0.05)
        process.kill()
    assert watcher.returncode == 0
    assert (folder / "tries").read_text().count("x") == 3
    assert (folder / "reported").read_text() == "True", "the pod's end waits until the installer handles it"
    assert 0 < rss <= MAX_RSS_KIB


@pytest.mark.parametrize("event", ["file", "containerd", "daemon", "kubelet"])
def test_what_changes_calls_the_installer_back(folder: Path, event: str) -> None:
    """A crash of the daemon, and another tool's file, were noticed by nobody."""
    daemon = folder / "soci-daemon"
    shutil.copy("/bin/sleep", daemon)
    (folder / "agent").mkdir()
    (folder / "agent/__main__.py").write_text("import sys; sys.exit(41 if sys.argv[1:] == ['again'] else 1)")
    file = folder / "config.toml"
    file.write_text("ours\n")
    with (
        socket.socket(socket.AF_UNIX) as server,
        subprocess.Popen([daemon, "60"]) as first,
        subprocess.Popen(["sleep", "60"]) as containerd,
        subprocess.Popen([shutil.copy("/bin/sleep", folder / "kubelet"), "60"]) as kubelet,
    ):
        server.bind(str(folder / "socket"))
        server.listen()
        pids = (str(process.pid) for process in (first, containerd, kubelet))
        words = (folder / "ready", folder / "socket", str(daemon), *pids)
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", WATCHER, *words, f"{file}={watch.fingerprint(str(file))}"],
            cwd=folder,
        )
        wait_for((folder / "ready").exists, 15, "ready")
        processes = [first, containerd, kubelet]
        if event == "file":
            file.write_text("theirs\n")
        elif event == "containerd":
            containerd.kill()
            containerd.wait()
        elif event == "kubelet":
            kubelet.kill()
            kubelet.wait()
            processes.append(subprocess.Popen([folder / "kubelet", "60"]))
        else:
            first.kill()
            first.wait()
            processes.append(subprocess.Popen([daemon, "60"]))
        assert watcher.wait(15) == 41
        for process in processes:
            process.kill()
            process.wait()


def test_between_two_kubelets_nobody_is_called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installer would find none, and take the node for one that it cannot be installed on."""
    with subprocess.Popen([shutil.copy("/bin/sleep", folder / "kubelet"), "60"]) as kubelet:
        monkeypatch.setattr(os, "listdir", lambda path: ["1", "self", str(os.getpid())])
        assert not watch.is_replaced(kubelet.pid)
        kubelet.kill()
    assert not watch.is_replaced(kubelet.pid), "none runs"
    with subprocess.Popen([folder / "kubelet", "60"]) as kubelet:
        monkeypatch.setattr(os, "listdir", lambda path: ["1", str(kubelet.pid), "999999999"])
        wait_for(lambda: watch.is_replaced(999999998), 5, "another one runs")
        kubelet.kill()


def test_end_of_the_pod_between_two_programs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a container ignores a signal it does not handle; the node would keep SOCI."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    try:
        program.become_watcher()
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    end = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15)"
    start = [sys.executable, "-c", f"{end}; os.execv(sys.argv[1], sys.argv[1:])", *commands[0]]
    assert subprocess.run(start, timeout=15, check=False).returncode == 0


def test_installer_handles_the_end_that_came_while_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher that became the installer again has it blocked, and its children would inherit that."""
    monkeypatch.setenv("NODE_NAME", "node")
    monkeypatch.setattr(program.settings, "load", lambda path: SimpleNamespace(state="present"))
    monkeypatch.setattr(program.Agent, "present", lambda *arguments: pytest.fail("the pod has ended"))
    monkeypatch.setattr(program.Agent, "leave", lambda *arguments: 40)
    monkeypatch.setattr(sys, "argv", ["agent"])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)  # to this thread, which has it blocked
    try:
        assert program.main() == 40
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
