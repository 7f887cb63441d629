"""The host script, run for real in a directory that stands for the root, with fakes of the daemons' tools.

The fakes in tests/fakes/programs log their calls. What faults at its single calls leave is for tests/faults.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from agent import drift, transaction
from agent.slots import FIRST, SECOND, Slot

from tests.fakes.node import tree
from tests.fakes.script_node import (
    CONFIG,
    DATA,
    FLIPPED_CONFIG,
    HELPER,
    LAZY,
    MARK,
    NEW_CONFIG,
    OLD_CONFIG,
    PROVIDERS,
    ScriptNode,
    program,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")


INCOMPLETE_IMAGE = "old.example/image:1 type digest incomplete (1/9) 1/9 false\n"
COMPLETE_IMAGE = "whole.example/image:1 type digest complete (9/9) 9/9 true\n"


def test_install_commits(node: ScriptNode) -> None:
    (node.fake / "images").write_text(INCOMPLETE_IMAGE + COMPLETE_IMAGE)
    outcome = node.apply(node.stage())
    assert (outcome.outcome, outcome.containerd_restarts) == ("committed", 1)
    assert node.is_installed()
    assert node.journal() == "committed"
    assert node.host.mode_and_owner(CONFIG) == ("0640", "0:0")
    assert node.calls("ctr --namespace k8s.io images rm") == [
        "ctr --namespace k8s.io images rm --sync old.example/image:1"
    ]


@pytest.mark.failure_mode(12)
def test_containerd_restarts_once_after_the_daemon_answered(node: ScriptNode) -> None:
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


def test_the_dead_mans_timer_is_armed_before_and_stopped_after(node: ScriptNode) -> None:
    node.install()
    calls = node.calls("systemd-run", "systemctl restart", "systemctl stop")
    assert calls[0].startswith("systemd-run --quiet --collect --on-active=400 ")
    assert " --unit=soci-cluster-deadman-1-a " in calls[0]
    assert calls[-1] == "systemctl stop soci-cluster-deadman-1-a.timer"


@pytest.mark.failure_mode(16)
@pytest.mark.parametrize("is_running", [True, False])
def test_only_an_install_that_is_still_at_work_took_too_long(node: ScriptNode, is_running: bool) -> None:
    """A kill says nothing against the change, and it is tried again at once."""
    directory = Path(node.stage())
    node.cut_at("daemon-reload-daemon-reload")
    node.run("apply", str(directory))
    if is_running:
        node.set("active-soci-cluster-txn-1-a.service")
    node.run("rollback", "1-a", "deadline")
    result = transaction.parse_result((directory / "result").read_text())
    assert (result.outcome, result.step) == ("rolled-back", "deadline" if is_running else "interrupted")


def test_second_install_restarts_nothing_that_is_in_place(node: ScriptNode) -> None:
    node.install()
    (node.fake / "calls").write_text("")
    assert node.apply(node.stage("2-b", snapshotter_action="none")).containerd_restarts == 0
    assert node.calls("systemctl start", "systemctl restart") == []


def test_a_change_of_what_the_credential_helper_reads_restarts_nothing(node: ScriptNode) -> None:
    """Even below containers that are lazily served. New files have the modes that were asked for."""
    node.install()
    assert [node.host.mode_and_owner(path)[0] for path in (HELPER, PROVIDERS)] == ["0755", "0600"]
    (node.fake / "calls").write_text("")
    node.mount_table.write_text(LAZY)
    node.credentials[PROVIDERS] = ("0600", b"provider two\n")
    assert node.apply(node.stage("2-b", snapshotter_action="none")).containerd_restarts == 0
    assert node.calls("systemctl start", "systemctl restart", "systemctl stop soci-snapshotter") == []
    assert node.host.read(PROVIDERS) == b"provider two\n"
    assert node.host.mode_and_owner(PROVIDERS)[0] == "0600"


def test_a_failure_takes_back_what_the_credential_helper_reads(node: ScriptNode) -> None:
    node.install()
    before = tree(node.root / "opt/soci-cluster/credentials")
    node.credentials[PROVIDERS] = ("0600", b"provider two\n")
    node.set("canary-fails")
    assert node.apply(node.stage("2-b", snapshotter_action="none")).outcome == "rolled-back"
    assert tree(node.root / "opt/soci-cluster/credentials") == before


@pytest.mark.failure_mode(13)
@pytest.mark.failure_mode(14)
@pytest.mark.failure_mode(15)
@pytest.mark.failure_mode(21)
@pytest.mark.parametrize(
    ("fault", "step", "restarts"),
    [
        ("fail-start-soci-snapshotter.service", "snapshotter", 0),
        ("fail-restart-containerd.service", "restart", 2),
        ("cri-fails", "restart", 2),
        ("canary-fails", "verify-canary", 2),
    ],
)
def test_a_failure_leaves_the_node_as_it_was(node: ScriptNode, fault: str, step: str, restarts: int) -> None:
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


def test_the_journal_is_looked_at_before_the_way_back_starts_the_daemons_again(node: ScriptNode) -> None:
    """Their new lines would hide why it was taken."""
    directory = node.stage()
    node.set("canary-fails")
    node.apply(directory)
    calls = node.calls("systemctl restart containerd", "journalctl -u")
    assert [call.split()[0] for call in calls] == ["systemctl", "journalctl", "systemctl"]
    assert Path(directory, "last-words").read_text() == "last words of the daemon\n"


def test_containerd_is_given_time_to_reconnect_to_a_restarted_daemon(node: ScriptNode) -> None:
    """Its gRPC client waits up to three seconds between attempts, and fails every call meanwhile."""
    node.install()
    (node.fake / "waits").write_text("refused\n" * 5)
    outcome = node.apply(node.stage("2-b", version="2", snapshotter_action="restart"))
    assert (outcome.outcome, outcome.cause) == ("committed", "")


@pytest.mark.failure_mode(37)
def test_a_file_changed_meanwhile_stops_the_install(node: ScriptNode) -> None:
    """Another installer wrote between our judgement and our swap (spegel#413)."""
    directory = node.stage()
    node.host.path(CONFIG).write_bytes(b"version = 2 # of another installer\n")
    before = node.etc()
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("unchanged", "lock", 0)
    assert node.etc() == before


OTHER_CONFIG = b"version = 2 # of another installer\n"


def write_meanwhile(node: ScriptNode, call: str, path: str, content: bytes) -> None:
    """Another installer writes a file while systemctl is at work on ``call``."""
    target = node.host.path(path)
    target.parent.mkdir(exist_ok=True)
    (node.fake / "other").write_bytes(content)
    hook = node.fake / f"on-{call}"
    hook.write_text(f'cp "$FAKE/other" "{target}"\nrm "{hook}"\n')


@pytest.mark.failure_mode(37)
def test_a_file_changed_while_the_daemon_starts_is_not_overwritten(node: ScriptNode) -> None:
    """That takes seconds, and the other installer must not lose its work (gpu-operator#301, spegel#413)."""
    directory = node.stage()
    write_meanwhile(node, "start-soci-snapshotter.service", CONFIG, OTHER_CONFIG)
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "swap", 0)
    assert "changed while" in outcome.cause
    assert node.host.read(CONFIG) == OTHER_CONFIG


@pytest.mark.failure_mode(37)
def test_a_file_imported_meanwhile_stops_the_install(node: ScriptNode) -> None:
    """No checksum of ours covers it: containerd itself reads something else than the agent judged."""
    before = node.etc()
    directory = node.stage()
    drop_in = "/etc/containerd/conf.d/99-nvidia.toml"
    write_meanwhile(node, "start-soci-snapshotter.service", drop_in, b"version = 2\n")
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "swap", 0)
    assert "new file among its imports" in outcome.cause
    assert node.etc().keys() - before.keys() == {"containerd/conf.d/99-nvidia.toml"}
    assert node.host.read(CONFIG) == OLD_CONFIG


@pytest.mark.failure_mode(37)
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (OTHER_CONFIG, ("rolled-back", "verify-snapshotter", 2)),
        (NEW_CONFIG + b"# and nvidia\n", ("committed", "commit", 1)),
    ],
)
def test_what_another_installer_writes_during_the_restart_stays(
    node: ScriptNode, written: bytes, expected: tuple[str, str, int]
) -> None:
    """On the file without ours the install is rolled back, on the file with ours both are in effect."""
    directory = node.stage()
    write_meanwhile(node, "restart-containerd.service", CONFIG, written)
    outcome = node.apply(directory)
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == expected
    assert node.host.read(CONFIG) == written
    assert (node.fake / "loaded-config").read_bytes() == written


def test_a_file_mounted_meanwhile_is_left_as_it_is(node: ScriptNode) -> None:
    """A rename over a mount point fails with EBUSY: nothing is restarted, nothing of ours stays."""
    directory = node.stage()
    before = node.etc()
    config = node.host.path(CONFIG)
    script = node.root / "opt/soci-cluster/soci-host.sh"
    mount = f'mount --bind "{config}" "{config}" && exec sh "{script}" apply "{directory}"'
    node.run_command([str(shutil.which("unshare")), "-m", "sh", "-c", mount])
    outcome = transaction.parse_result((Path(directory) / "result").read_text())
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("rolled-back", "swap", 0)
    assert "busy" in outcome.cause
    assert node.etc() == before


@pytest.mark.failure_mode(35)
def test_boot_puts_the_installed_file_back(node: ScriptNode) -> None:
    """nodeadm writes the node's original at each boot (gpu-operator#1651, #1734)."""
    node.install()
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    assert "put in place" in node.run("boot").stdout
    assert node.host.read(CONFIG) == NEW_CONFIG


@pytest.mark.failure_mode(37)
def test_boot_leaves_what_others_wrote(node: ScriptNode) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(b"version = 3 # by hand\n")
    assert "left as it is" in node.run("boot").stdout
    assert node.host.read(CONFIG) == b"version = 3 # by hand\n"


BY_OTHERS = b"[content_store]\ntype = 'none'\n"


def of_unit(node: ScriptNode, verb: str, invocation: str = "1", result: str = "exit-code") -> str:
    """As the daemon's unit calls the script, at the end of an invocation with this result; what it said."""
    variables = [f"SERVICE_RESULT={result}", f"INVOCATION_ID={invocation}"]
    done = node.run_command(["env", *variables, *node.command(), verb])
    assert done.returncode == 0, done.stderr
    return done.stdout


def mend_daemon(node: ScriptNode, result: str) -> None:
    of_unit(node, "mend-daemon", result=result)


@pytest.fixture
def changed(node: ScriptNode) -> ScriptNode:
    """An installed node on which others changed the daemon's configuration, and containerd's."""
    node.install()
    node.host.path(FIRST.config).write_bytes(BY_OTHERS)
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    return node


def test_a_daemon_that_does_not_start_gets_its_own_file_back(changed: ScriptNode) -> None:
    """Without it no container starts, the installer's own neither: nobody else could put the file back."""
    mend_daemon(changed, "exit-code")
    assert (changed.host.read(FIRST.config) or b"").startswith(MARK.encode())
    assert changed.host.read(f"{drift.REPLACED}/etc.soci-snapshotter-grpc.config.toml") == BY_OTHERS
    assert changed.host.read(CONFIG) == OLD_CONFIG, "which no daemon of ours reads"
    assert drift.files_put_back(changed.host) == [FIRST.config]
    drift.forget_files_put_back(changed.host)
    mend_daemon(changed, "exit-code")
    assert drift.files_put_back(changed.host) == [], "a daemon that fails on its own file"


@pytest.mark.parametrize("result", ["success", "signal", "oom-kill"])
def test_a_daemon_that_was_ended_keeps_what_others_wrote(changed: ScriptNode, result: str) -> None:
    mend_daemon(changed, result)
    assert changed.host.read(FIRST.config) == BY_OTHERS


def test_a_daemon_that_came_up_with_what_others_wrote_keeps_it_whatever_its_end(changed: ScriptNode) -> None:
    of_unit(changed, "heal-later", "1")
    of_unit(changed, "mend-daemon", "1")
    assert changed.host.read(FIRST.config) == BY_OTHERS
    of_unit(changed, "mend-daemon", "2")
    assert changed.host.read(FIRST.config) != BY_OTHERS, "the next one did not"
    assert list((changed.root / "run/soci-cluster/started").iterdir()) == []


def test_a_file_that_cannot_be_put_back_keeps_no_other_from_it(changed: ScriptNode) -> None:
    config = changed.host.path(FIRST.config)
    config.unlink()
    config.mkdir()
    changed.host.path(FIRST.unit_path).write_text("[Service]\nExecStart=/bin/false\n")
    of_unit(changed, "mend-daemon")
    assert program("1") in changed.host.read_text(FIRST.unit_path)
    assert drift.files_put_back(changed.host) == [FIRST.unit_path], "what is not back is not told"


def test_the_file_of_a_daemon_that_an_install_is_about_to_start_is_left_to_it(changed: ScriptNode) -> None:
    lock = changed.root / "var/lib/soci-cluster/lock"
    with subprocess.Popen(["flock", "--no-fork", str(lock), "sleep", "60"]) as install:
        while subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0:
            pass
        mend_daemon(changed, "exit-code")
        install.kill()
    assert changed.host.read(FIRST.config) == BY_OTHERS
    journal = changed.host.path(f"{transaction.STATE}/journal")
    journal.write_text(journal.read_text().replace("state=committed", "state=armed"))
    mend_daemon(changed, "exit-code")
    assert changed.host.read(FIRST.config) == BY_OTHERS


@pytest.mark.failure_mode(37)
@pytest.mark.parametrize("is_made_from_ours", [False, True])
def test_rollback_takes_back_ours_and_no_other_tools_write(node: ScriptNode, is_made_from_ours: bool) -> None:
    """gpu-operator#301: NVIDIA's toolkit wrote the file between our swap and the failure."""
    node.install()
    journal = node.host.path(f"{transaction.STATE}/journal")
    journal.write_text(journal.read_text().replace("committed", "restarting"))
    soci = b'[proxy_plugins.soci]\naddress = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"\n'
    written = OLD_CONFIG + b"[plugins.nvidia]\n" + (soci if is_made_from_ours else b"")
    node.host.path(CONFIG).write_bytes(written)
    node.run("boot")
    assert node.host.read(CONFIG) == (OLD_CONFIG if is_made_from_ours else written)
    assert node.host.read(FIRST.unit_path) is None


@pytest.mark.parametrize(("state", "is_put_back"), [("restarting", False), ("committed", True)])
def test_boot_waits_for_a_look_and_leaves_an_install_at_work_alone(
    node: ScriptNode, state: str, is_put_back: bool
) -> None:
    """The lock is also held by those who only look, while the operating system rewrites and restarts."""
    node.install()
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    journal = node.host.path(f"{transaction.STATE}/journal")
    journal.write_text(journal.read_text().replace("state=committed", f"state={state}"))
    lock = node.root / "var/lib/soci-cluster/lock"
    with subprocess.Popen(["flock", str(lock), "sleep", "2"]):
        while subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0:
            pass
        node.run("boot")
        assert node.host.read(CONFIG) == (NEW_CONFIG if is_put_back else OLD_CONFIG)


def test_users_are_the_containers_on_mounted_layers(node: ScriptNode) -> None:
    node.stage()
    node.mount_table.write_text(LAZY)
    users = sorted(node.run("mounts").stdout.split())
    assert users == ["/run/c/lazy/rootfs", "/run/c/new/rootfs", "/run/c/short/rootfs"]


@pytest.mark.failure_mode(29)
def test_the_daemon_is_not_restarted_under_lazy_containers(node: ScriptNode) -> None:
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


@pytest.mark.failure_mode(29)
def test_the_daemon_is_not_restarted_under_a_container_that_came_during_the_install(node: ScriptNode) -> None:
    node.install()
    before = node.etc()
    (node.fake / "lazy").write_text(LAZY)
    (node.fake / "on-daemon-reload-daemon-reload").write_text('cp "$FAKE/lazy" "$MOUNTINFO"\n')
    (node.fake / "calls").write_text("")
    outcome = node.apply(node.stage("2-b", version="2", snapshotter_action="restart"))
    assert outcome.outcome == "rolled-back"
    assert outcome.cause.startswith("busy: ")
    assert node.calls("systemctl restart", "systemctl stop soci-snapshotter.service") == []
    assert node.etc() == before


@pytest.mark.failure_mode(34)
def test_upgrade_and_back(node: ScriptNode) -> None:
    """runtime-class-manager#577: n+1 replaces n and back again; the first original stays."""
    original = node.etc()
    node.install()
    assert node.apply(node.stage("2-b", version="2", snapshotter_action="restart")).outcome == "committed"
    assert node.apply(node.stage("3-c", version="1", snapshotter_action="restart")).outcome == "committed"
    assert [path.name for path in (node.root / "opt/soci-cluster/versions").iterdir()] == ["1"]
    assert node.run("remove").returncode == 0
    assert node.etc() == original


# --- side by side ------------------------------------------------------------------------------------------

PAUSE_MOUNT = (
    "46 21 0:46 / /run/c/pause rw - overlay overlay rw,lowerdir=2/fs,upperdir={data}/8/fs,workdir=w\n"
)


def flip(
    node: ScriptNode, name: str = "2-b", slot: Slot = SECOND, config: bytes = FLIPPED_CONFIG, **plan: str
) -> str:
    """Stage the change to the daemon of another slot, in version 2."""
    fields = {"snapshotter_action": "start", "is_switch": "1", "slot_is_new": "1" if slot == SECOND else "0"}
    return node.stage(name, "2", slot=slot, config=config, **(fields | plan))


def of_slot(node: ScriptNode, slot: Slot) -> list[bytes | None]:
    return [node.host.read(path) for path in (slot.config, slot.unit_path)]


def touched(node: ScriptNode, slot: Slot) -> list[str]:
    """The calls that start, stop or signal the slot's daemon."""
    return [line for line in node.calls("systemctl") if slot.unit in line and "is-active" not in line]


@pytest.fixture
def lazy_node(node: ScriptNode) -> ScriptNode:
    """A node with an install whose daemon serves containers lazily."""
    node.install()
    node.mount_table.write_text(LAZY)
    (node.fake / "containers").write_text("reader soci\n")
    (node.fake / "calls").write_text("")
    return node


@pytest.fixture
def flipped(lazy_node: ScriptNode) -> ScriptNode:
    """The same after a change to the second slot, with the first daemon still in use."""
    assert lazy_node.apply(flip(lazy_node)).outcome == "committed"
    (lazy_node.fake / "snapshots-soci").write_text("a\nb\n")
    (lazy_node.fake / "snapshots-soci-b").write_text("c Active\n")
    for slot in (FIRST, SECOND):
        (lazy_node.root / slot.data.lstrip("/") / "snapshotter").mkdir(parents=True)
    (lazy_node.fake / "calls").write_text("")
    return lazy_node


@pytest.mark.failure_mode(29)
@pytest.mark.failure_mode(34)
def test_second_daemon_starts_beside_the_first(lazy_node: ScriptNode) -> None:
    """Running lazily loaded containers go on: their daemon is not touched (soci#275, #1648)."""
    old = of_slot(lazy_node, FIRST)
    (lazy_node.fake / "images").write_text(INCOMPLETE_IMAGE + COMPLETE_IMAGE)
    outcome = lazy_node.apply(flip(lazy_node))
    assert (outcome.outcome, outcome.containerd_restarts) == ("committed", 1)
    assert touched(lazy_node, FIRST) == []
    assert of_slot(lazy_node, FIRST) == old
    assert (lazy_node.fake / "loaded-config").read_bytes() == FLIPPED_CONFIG
    order = lazy_node.calls("systemctl start", "systemctl restart", "ctr --connect-timeout")
    assert [line.split(" --namespace")[0] for line in order] == [
        f"systemctl start {SECOND.unit}",
        f"ctr --connect-timeout 1s --address {SECOND.socket}",
        "systemctl restart containerd.service",
    ]
    assert "--snapshotter soci-b example.org/pause:1" in lazy_node.calls("ctr --namespace k8s.io run")[0]
    # The image is known, yet not on the node: the kubelet must pull it again, by the new daemon (soci#1389).
    assert lazy_node.calls("ctr --namespace k8s.io images rm") == [
        "ctr --namespace k8s.io images rm --sync old.example/image:1"
    ]
    versions = {path.name for path in (lazy_node.root / "opt/soci-cluster/versions").iterdir()}
    assert versions == {"1", "2"}, "the old daemon may have to be started again"


def test_change_within_a_slot_forgets_no_image(node: ScriptNode) -> None:
    """Its images are lazily loaded by that very daemon."""
    node.install()
    (node.fake / "images").write_text(INCOMPLETE_IMAGE)
    (node.fake / "calls").write_text("")
    staged = node.stage("2-b", version="2", snapshotter_action="restart", containerd_restart="1")
    assert node.apply(staged).outcome == "committed"
    assert node.calls("ctr --namespace k8s.io images rm") == []


@pytest.mark.parametrize("fault", ["fail-start-soci-snapshotter-b.service", "canary-fails"])
def test_failed_flip_leaves_the_first_daemon_and_its_containers_alone(
    lazy_node: ScriptNode, fault: str
) -> None:
    """What was created under the second one meanwhile goes before containerd forgets that one."""
    before = lazy_node.etc()
    lazy_node.set(fault)
    with (lazy_node.fake / "containers").open("a") as file:
        file.write("created-meanwhile soci-b\n")
    (lazy_node.fake / "snapshots-soci-b").write_text("d\n")
    outcome = lazy_node.apply(flip(lazy_node))
    assert outcome.outcome == "rolled-back"
    assert lazy_node.etc() == before
    assert touched(lazy_node, FIRST) == []
    assert not (lazy_node.fake / f"active-{SECOND.unit}").exists()
    if fault == "canary-fails":
        assert (lazy_node.fake / "containers").read_text() == "reader soci\n"
        assert (lazy_node.fake / "snapshots-soci-b").read_text() == ""
    assert (lazy_node.fake / "loaded-config").read_bytes() == NEW_CONFIG


@pytest.mark.failure_mode(29)
def test_replaced_daemon_stays_while_a_container_uses_it(flipped: ScriptNode) -> None:
    """Lazily or not: to delete a container its daemon is needed."""
    flipped.mount_table.write_text(PAUSE_MOUNT.format(data=DATA))
    done = flipped.run("retire", "soci")
    assert (done.returncode, done.stderr) == (1, "1 containers are still on soci\n")
    flipped.mount_table.write_text("")
    done = flipped.run("retire", "soci")
    assert done.returncode == 1
    assert "has not deleted yet" in done.stderr
    assert touched(flipped, FIRST) == []
    assert None not in of_slot(flipped, FIRST)


def ended(node: ScriptNode) -> None:
    """The containers of the first daemon end."""
    node.mount_table.write_text("")
    (node.fake / "containers").write_text("new soci-b\n")


def test_replaced_daemon_is_retired(flipped: ScriptNode) -> None:
    """containerd forgets its snapshots first; else it would take them for present at the next use."""
    ended(flipped)
    second = of_slot(flipped, SECOND)
    done = flipped.run("retire", "soci")
    assert (done.returncode, done.stderr) == (0, "")
    order = flipped.calls(
        "ctr --namespace k8s.io snapshots --snapshotter soci rm", "systemctl kill", "systemctl stop"
    )
    assert order == [
        "ctr --namespace k8s.io snapshots --snapshotter soci rm a",
        "ctr --namespace k8s.io snapshots --snapshotter soci rm b",
        f"systemctl kill --signal=INT {FIRST.unit}",
        f"systemctl stop {FIRST.unit}",
    ]
    assert of_slot(flipped, FIRST) == [None, None]
    assert not flipped.host.exists(FIRST.data)
    assert flipped.calls("systemctl restart") == [], "containerd is left alone"
    assert of_slot(flipped, SECOND) == second
    assert touched(flipped, SECOND) == []
    assert (flipped.fake / "snapshots-soci-b").read_text() == "c Active\n"
    assert [path.name for path in (flipped.root / "opt/soci-cluster/versions").iterdir()] == ["2"]
    assert flipped.run("retire", "soci").returncode == 0, "there is nothing left to do"


def test_retirement_cut_short_is_finished_by_the_next_call(tmp_path: Path) -> None:
    """A power cut at each of its calls of systemd and containerd."""
    for cut_at_call in range(1, 60):
        node = ScriptNode(tmp_path / str(cut_at_call))
        node.install()
        node.apply(flip(node))
        ended(node)
        (node.fake / "snapshots-soci").write_text("a\nb\n")
        (node.root / FIRST.data.lstrip("/") / "snapshotter").mkdir(parents=True)
        (node.fake / "calls").write_text("")
        first = node.run("retire", "soci", cut_at_call=cut_at_call)
        (node.fake / f"active-{FIRST.unit}").unlink(missing_ok=True)
        done = node.run("retire", "soci")
        assert (done.returncode, done.stderr) == (0, ""), cut_at_call
        assert of_slot(node, FIRST) == [None, None]
        assert (node.fake / "snapshots-soci").read_text() == ""
        assert not node.host.exists(FIRST.data)
        if first.returncode == 0:
            return
    pytest.fail("the retirement never ran to its end")


def test_slot_in_use_is_never_retired(flipped: ScriptNode) -> None:
    ended(flipped)
    assert "new containers are created" in flipped.run("retire", "soci-b").stderr
    flipped.host.path(CONFIG).write_bytes(NEW_CONFIG)  # somebody turned containerd back
    assert "does not name the snapshotter soci-b any more" in flipped.run("retire", "soci").stderr
    assert flipped.run("retire", "overlayfs").returncode == 1
    assert touched(flipped, FIRST) + touched(flipped, SECOND) == []


@pytest.mark.failure_mode(34)
def test_back_to_the_first_slot_and_retire_the_second(flipped: ScriptNode) -> None:
    ended(flipped)
    assert flipped.run("retire", "soci").returncode == 0
    back = flip(flipped, "3-c", FIRST, FLIPPED_CONFIG.replace(b'"soci-b"', b'"soci"', 1))
    assert flipped.apply(back).outcome == "committed"
    assert "new containers are created" in flipped.run("retire", "soci").stderr
    (flipped.fake / "containers").write_text("")
    assert flipped.run("retire", "soci-b").returncode == 0
    assert of_slot(flipped, SECOND) == [None, None]
    assert None not in of_slot(flipped, FIRST)


def test_remove_takes_both_daemons_away(node: ScriptNode) -> None:
    before = tree(node.root)
    node.install()
    assert node.apply(flip(node)).outcome == "committed"
    for slot in (FIRST, SECOND):
        (node.root / slot.data.lstrip("/") / "snapshotter").mkdir(parents=True)
        (node.fake / f"snapshots-{slot.name}").write_text("a\n")
    (node.fake / "containers").write_text("old soci\nnew soci-b\nother overlayfs\n")
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before
    assert (node.fake / "containers").read_text() == "other overlayfs\n"
    assert (node.fake / "snapshots-soci").read_text() == (node.fake / "snapshots-soci-b").read_text() == ""
    assert not list(node.fake.glob("active-soci*"))


@pytest.mark.failure_mode(29)
def test_remove_refuses_under_containers_of_the_replaced_daemon(flipped: ScriptNode) -> None:
    assert "lazily loaded containers are running" in flipped.run("remove").stderr
    assert touched(flipped, FIRST) == []


def test_a_mount_table_that_cannot_be_read_is_not_an_empty_one(node: ScriptNode) -> None:
    """Who reads from the daemon was not known, and it was restarted."""
    node.install()
    before = node.etc()
    node.mount_table.unlink(missing_ok=True)
    (node.fake / "calls").write_text("")
    assert node.run("mounts").returncode != 0
    outcome = node.apply(node.stage("2-b", version="2", snapshotter_action="restart"))
    assert outcome.outcome == "unchanged"
    assert "cannot be read" in outcome.cause
    assert node.calls("systemctl restart", "systemctl stop soci-snapshotter") == []
    assert node.etc() == before
