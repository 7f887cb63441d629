"""The host script, run for real in a directory that stands for the root, with fakes of the daemons' tools.

The fakes in fakes/ log their calls. What a power cut leaves is found by a kill at each of its renames.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from script_node import CONFIG, HOOK, LAZY, NEW_CONFIG, OLD_CONFIG, Node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_install_commits(node: Node) -> None:
    outcome = node.apply(node.stage())
    assert (outcome.outcome, outcome.containerd_restarts) == ("committed", 1)
    assert node.is_installed()
    assert node.journal() == "committed"
    assert node.host.mode_and_owner(CONFIG) == ("0640", "0:0")
    assert "ctr --namespace k8s.io images rm old.example/image:1" in node.calls("ctr")


def test_containerd_restarts_once_after_the_snapshotter_answered(node: Node) -> None:
    """nydus-snapshotter#796: containerd must not come up before the snapshotter answers a call."""
    node.install()
    order = node.calls(
        "systemctl start", "systemctl restart", "ctr --connect-timeout", "systemctl daemon-reload"
    )
    assert order == [
        "systemctl daemon-reload",
        "systemctl start soci-snapshotter.service",
        "ctr --connect-timeout 1s --address /run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"
        " --namespace k8s.io snapshots ls",
        "systemctl restart containerd.service",
    ]


def test_the_dead_mans_timer_is_armed_before_and_stopped_after(node: Node) -> None:
    node.install()
    calls = node.calls("systemd-run", "systemctl restart", "systemctl stop")
    assert calls[0].startswith(
        "systemd-run --quiet --collect --on-active=400 --unit=soci-cluster-deadman-1-a"
    )
    assert calls[-1] == "systemctl stop soci-cluster-deadman-1-a.timer"


def test_second_install_restarts_nothing_that_is_in_place(node: Node) -> None:
    node.install()
    (node.fake / "calls").write_text("")
    assert node.apply(node.stage("2-b", snapshotter_action="none")).containerd_restarts == 0
    assert node.calls("systemctl start", "systemctl restart") == []


@pytest.mark.parametrize(
    ("fault", "step", "restarts"),
    [
        ("fail-start-soci-snapshotter.service", "snapshotter", 0),
        ("fail-restart-containerd.service", "restart", 2),
        ("cri-broken", "restart", 2),
        ("canary-fails", "verify", 2),
    ],
)
def test_a_failure_leaves_the_node_as_it_was(node: Node, fault: str, step: str, restarts: int) -> None:
    """No snapshotter: containerd untouched (nydus-snapshotter#796). CRI plugin not loaded: failure, although
    containerd is active (coco-operator#483). containerd refuses: the old files are back (aicr#1688)."""
    before = node.etc()
    directory = node.stage()
    node.set(fault)
    if fault == "fail-restart-containerd.service":
        node.clear("active-containerd.service")
    outcome = node.apply(directory)
    assert outcome.step == step
    assert outcome.containerd_restarts == restarts
    assert outcome.cause
    assert node.etc() == before
    assert outcome.outcome == ("broken" if step == "restart" and "fail-" in fault else "rolled-back")
    assert not (node.fake / "active-soci-snapshotter.service").exists() or outcome.outcome == "broken"
    if outcome.outcome == "rolled-back":
        assert node.journal() == "rolled-back"
        assert not (node.root / "etc/soci-snapshotter-grpc").exists()
        assert (node.fake / "loaded-config").read_bytes() == OLD_CONFIG


def test_containerd_is_given_time_to_reconnect_to_a_restarted_daemon(node: Node) -> None:
    """Its gRPC client waits up to three seconds between attempts, and fails every call meanwhile."""
    node.install()
    (node.fake / "waits").write_text("refused\n" * 5)
    outcome = node.apply(node.stage("2-b", version="2", snapshotter_action="restart"))
    assert (outcome.outcome, outcome.cause) == ("committed", "")


def test_a_file_changed_meanwhile_stops_the_install(node: Node) -> None:
    """Another installer wrote between our judgement and our swap (spegel#413)."""
    directory = node.stage()
    node.host.path(CONFIG).write_bytes(b"version = 2 # of another installer\n")
    before = node.etc()
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("unchanged", "lock", 0)
    assert node.etc() == before


@pytest.mark.parametrize("cut_after", [False, True])
@pytest.mark.parametrize("fault", ["", "canary-fails"])
def test_power_cut_at_every_rename(tmp_path: Path, fault: str, cut_after: bool) -> None:
    """Hard reset at each write, on the way there and on the way back: the next boot ends in a good state."""
    for cut_at in range(1, 60):
        node = Node(tmp_path / str(cut_at))
        before = node.etc()
        directory = node.stage()
        if fault:
            node.set(fault)
        node.run("apply", directory, cut_at=cut_at, cut_after=cut_after)
        was_cut = int((node.fake / "renames").read_text()) == cut_at
        assert node.host.read(CONFIG) in (OLD_CONFIG, NEW_CONFIG)
        if node.host.exists(HOOK):  # otherwise nothing starts it at boot
            node.run("boot")
        config = node.host.read(CONFIG)
        if config == NEW_CONFIG:
            assert node.is_installed(), cut_at
            assert node.journal() == "committed", cut_at
        else:
            assert config == OLD_CONFIG, cut_at
            assert node.journal() != "committed", cut_at
            # What may be left is not started by anything, and the next install undoes it.
            if node.journal() in ("armed", "restarting"):
                node.run("rollback", "1-a")
            assert set(node.etc()) - set(before) <= {path for path in node.etc() if path.endswith("-new")}, (
                cut_at
            )
        shutil.rmtree(node.root)
        if not was_cut:
            return
    pytest.fail("the script never ran to its end")


def test_boot_puts_the_installed_file_back(node: Node) -> None:
    """nodeadm writes the node's original at each boot (gpu-operator#1651, #1734)."""
    node.install()
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    assert "put in place" in node.run("boot").stdout
    assert node.host.read(CONFIG) == NEW_CONFIG


def test_boot_leaves_what_others_wrote(node: Node) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(b"version = 3 # by hand\n")
    assert "left as it is" in node.run("boot").stdout
    assert node.host.read(CONFIG) == b"version = 3 # by hand\n"


def test_boot_does_nothing_while_an_install_is_at_work(node: Node) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    lock = node.root / "var/lib/soci-cluster/lock"
    with subprocess.Popen(["flock", str(lock), "sleep", "5"]) as holder:
        while subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0:
            pass
        node.run("boot")
        holder.terminate()
    assert node.host.read(CONFIG) == OLD_CONFIG


def test_users_are_the_containers_on_mounted_layers(node: Node) -> None:
    node.stage()
    node.mount_table.write_text(LAZY)
    users = node.run("users").stdout.split()
    assert users == ["/run/c/lazy/rootfs", "/run/c/new", "/run/c/short/rootfs"]


def test_the_daemon_is_not_restarted_under_lazy_containers(node: Node) -> None:
    """They would be broken for good (soci#275, #1648; nydus-snapshotter#106)."""
    node.install()
    before = node.etc()
    node.mount_table.write_text(LAZY)
    (node.fake / "calls").write_text("")
    outcome = node.apply(node.stage("2-b", version="2", snapshotter_action="restart"))
    assert outcome.outcome == "unchanged"
    assert outcome.cause.startswith("busy: ")
    assert node.calls("systemctl restart", "systemctl stop soci-snapshotter") == []
    assert node.etc() == before


def test_upgrade_and_back(node: Node) -> None:
    """RCM#577: version n+1 replaces n and back again; the first original stays the one to return to."""
    original = node.etc()
    node.install()
    assert node.apply(node.stage("2-b", version="2", snapshotter_action="restart")).outcome == "committed"
    assert node.apply(node.stage("3-c", version="1", snapshotter_action="restart")).outcome == "committed"
    assert [path.name for path in (node.root / "opt/soci-cluster/versions").iterdir()] == ["1"]
    assert node.run("remove").returncode == 0
    assert node.etc() == original
