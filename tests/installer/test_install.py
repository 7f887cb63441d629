"""The agent's decisions from facts to the staged transaction, on a fake node."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agent import __main__ as program
from agent import (
    carry,
    drift,
    images,
    install,
    kinds,
    lazy,
    nodeadm,
    pull_secret_files,
    release,
    slots,
    transaction,
    watch,
)
from agent.api import Api
from agent.errors import InstallError
from agent.host import Result
from agent.log import Log
from agent.marks import LABEL
from agent.plan import NOTHING_SEEN, Registration, Seen, Task
from agent.pull_secret_choice import CONFLICT
from agent.slots import FIRST

from tests.fakes.api import FakeApi
from tests.fakes.node import CONFIG, INSTALLER, KUBELET_PID, FakeNode, furnish, run_below, tree
from tests.fakes.settings import agent_settings
from tests.fakes.sourced_script import call

IN_SERVICE, FRESH = Registration(False, "soci-system"), Registration(True, "soci-system")
LOOKING = {"systemctl", "/usr/bin/containerd", "unshare", "readlink", "sh", "timeout"}  # the last for verify
DIGEST = hashlib.sha256(b"archive").hexdigest()


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    furnish(root)
    machine = FakeNode(root)

    def unpack(host: FakeNode, url: str, version: str, digest: str, *way: object, **trust: str) -> None:
        for name in release.PROGRAMS:
            host.write(f"{release.VERSIONS}/{version}/{name}", b"program", 0o755)
        host.write(f"{release.VERSIONS}/{version}/{release.DIGEST_FILE}", digest.encode())
        release.note_programs(host.path(f"{release.VERSIONS}/{version}"))

    monkeypatch.setattr(release, "install", unpack)
    return machine


def task(
    machine: FakeNode,
    node: Registration = FRESH,
    *,
    version: str = "0.16.1",
    mode: str = "lazy",
    existing_nodes: str = "refuse",
    upgrade_policy: str = "when-idle",
) -> Task:
    settings = agent_settings(
        version=version,
        mode=mode,
        sha256={"amd64": DIGEST},
        existing_nodes=existing_nodes,
        upgrade_policy=upgrade_policy,
    )
    return Task(machine, settings, INSTALLER, "x86_64", lambda: node, sleep=lambda seconds: None)


def never(busy: lazy.Busy) -> None:
    pytest.fail(f"waited for {busy}")


def refused(wanted: Task, words: str) -> InstallError:
    """Why an install fails, which leaves the node as it was."""
    before = tree(wanted.host.root)
    with pytest.raises(InstallError, match=words) as caught:
        install.install(wanted, never)
    assert tree(wanted.host.root) == before
    return caught.value


def test_first_install(machine: FakeNode) -> None:
    done = install.install(task(machine), never)
    program = "/opt/soci-cluster/versions/0.16.1/soci-snapshotter-grpc"
    known = dataclasses.replace(done, seen=NOTHING_SEEN, containerd_root="")
    assert known == install.Installed(True, slots.FIRST, program, 0.16, 1)
    assert 'snapshotter = "soci"' in machine.read_text("/etc/containerd/config.toml")
    assert machine.read_text(slots.FIRST.unit_path).count("--address /run/soci-snapshotter-grpc/") == 1


@pytest.mark.failure_mode(17)
def test_second_run_writes_nothing_and_restarts_nothing(machine: FakeNode) -> None:
    """Ten pod deletes, zero restarts (gpu-operator#594, #712; dragonfly-charts#294)."""
    install.install(task(machine), never)
    before = tree(machine.root)
    machine.commands.clear()
    for _ in range(10):
        assert not install.install(task(machine), never).changed
    assert tree(machine.root) == before
    assert {command[0] for command in machine.commands} <= LOOKING
    assert not any("restart" in command for command in machine.commands)


@pytest.mark.failure_mode(34)
def test_running_version_is_read_from_the_process(machine: FakeNode) -> None:
    """Not from a marker file (runtime-class-manager#577)."""
    install.install(task(machine), never)
    machine.running[slots.FIRST.unit] = f"{release.VERSIONS}/0.15.0/soci-snapshotter-grpc"
    assert install.install(task(machine), never).changed


@pytest.mark.failure_mode(33)
def test_unit_of_the_operating_system_is_adopted(machine: FakeNode) -> None:
    """nodeadm's unit is not overwritten, and its socket is kept."""
    machine.unit = slots.FIRST.unit_path
    machine.write(slots.FIRST.unit_path, b"[Service]\nExecStart=/usr/bin/s --address fd://\n")
    install.install(task(machine), never)
    assert machine.read_text(slots.FIRST.unit_path).startswith("[Service]\nExecStart=/usr/bin/s")
    assert "--address fd://" in machine.read_text(slots.FIRST.adoption)


def test_node_in_service_is_refused(machine: FakeNode) -> None:
    tasks = "TASK PID STATUS\nc1 7 RUNNING\nc2 8 STOPPED\n"
    machine.ctr.answers |= {"containers ls": "c1\nc2\n", "tasks ls": tasks}
    refusal = refused(task(machine, IN_SERVICE), "1 containers of workloads")
    assert "soci:existingNodes" in refusal.remedy


@pytest.mark.parametrize(("node", "existing"), [(FRESH, "refuse"), (IN_SERVICE, "migrate")])
def test_node_in_service_is_taken_when_asked(machine: FakeNode, node: Registration, existing: str) -> None:
    machine.ctr.answers |= {"containers ls": "c1\n", "tasks ls": "c1 7 RUNNING\n"}
    assert install.install(task(machine, node, existing_nodes=existing), never).changed


INFO = '{"ID": "abc", "Labels": {"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": "web-1"}}'


@pytest.mark.failure_mode(29)
def test_waits_for_lazy_containers_before_a_restart(machine: FakeNode) -> None:
    """The daemon is never restarted under them (soci#275, #1648), and the pods are told by name."""
    install.install(task(machine), never)
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    machine.ctr.answers["containers info abc"] = INFO
    before = tree(machine.root)
    waited = []

    def on_waiting(busy: lazy.Busy) -> None:
        waited.append(busy)
        assert tree(machine.root) == before
        if len(waited) == 2:
            machine.lazy.clear()

    assert install.install(task(machine, mode="lazy-or-parallel"), on_waiting).changed
    assert [lazy.in_words(busy.pods) for busy in waited] == ["shop/web-1"] * 2
    assert machine.plan()["snapshotter_action"] == "restart"


def test_waiting_asks_the_mount_table_only(machine: FakeNode) -> None:
    """It may last for days, on every node."""
    install.install(task(machine), never)
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    marks = []

    def on_waiting(busy: lazy.Busy) -> None:
        marks.append(len(machine.commands))
        if len(marks) == 3:
            machine.lazy.clear()

    install.install(task(machine, mode="lazy-or-parallel"), on_waiting)
    polls = machine.commands[marks[0] : marks[2]]
    assert polls == [("sh", transaction.SCRIPT, "mounts", "soci")] * 2


@pytest.mark.failure_mode(29)
@pytest.mark.failure_mode(34)
def test_side_by_side_leaves_the_old_daemon_alone(machine: FakeNode) -> None:
    """A second daemon for new pods; the old one's unit, configuration and process are not touched."""
    install.install(task(machine), never)
    first = slots.FIRST
    old = machine.read(first.unit_path), machine.read(first.config), machine.running[first.unit]
    machine.lazy |= {"soci": "/run/c/abc/rootfs\n", "all soci": "/run/c/abc/rootfs\n/run/c/pause/rootfs\n"}
    done = install.install(task(machine, version="0.16.0", upgrade_policy="side-by-side"), never)
    assert (done.slot, done.replaced, done.on_replaced) == (slots.SECOND, first, 2)
    assert (machine.read(first.unit_path), machine.read(first.config), machine.running[first.unit]) == old
    assert machine.running[slots.SECOND.unit] == f"{release.VERSIONS}/0.16.0/soci-snapshotter-grpc"
    plan = machine.plan()
    assert (plan["slot"], plan["snapshotter_action"], plan["is_switch"], plan["slot_is_new"]) == (
        "soci-b",
        "start",
        "1",
        "1",
    )
    unit = machine.read_text(slots.SECOND.unit_path)
    assert (
        f"--address {slots.SECOND.socket} --config {slots.SECOND.config} --root {slots.SECOND.data}" in unit
    )
    config = tomllib.loads(machine.read_text("/etc/containerd/config.toml"))
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["snapshotter"] == "soci-b"
    assert set(config["proxy_plugins"]) == {"soci", "soci-b"}

    done = install.install(task(machine, version="0.16.0", upgrade_policy="side-by-side"), never)
    assert not done.changed, "the second daemon is what containerd uses now"
    assert done.replaced == first, "the leftover is found again"


@pytest.mark.parametrize(("containers", "is_there"), [("pause\n", True), ("elsewhere\n", False)])
def test_own_pod_on_the_replaced_daemon_is_noticed(
    machine: FakeNode, containers: str, is_there: bool
) -> None:
    """It would keep that daemon for ever: the pod that changed the node was created before."""
    install.install(task(machine), never)
    machine.lazy |= {"soci": "/run/c/abc/rootfs\n", "all soci": "/run/c/abc/rootfs\n/run/c/pause/rootfs\n"}
    machine.ctr.answers["containers ls -q"] = containers
    done = install.install(task(machine, version="0.16.0", upgrade_policy="side-by-side"), never)
    assert done.has_installer is is_there


def test_side_by_side_restarts_in_place_when_nobody_would_notice(machine: FakeNode) -> None:
    """It costs no restart of containerd, and no image is pulled again."""
    install.install(task(machine), never)
    done = install.install(task(machine, version="0.16.0", upgrade_policy="side-by-side"), never)
    assert (done.slot, done.replaced) == (slots.FIRST, None)
    assert machine.plan()["containerd_restart"] == "0"


def start_second_daemon(machine: FakeNode) -> None:
    """Two releases side by side, and containers read from both daemons."""
    install.install(task(machine), never)
    machine.lazy |= {"soci": "/run/c/old/rootfs\n"}
    install.install(task(machine, version="0.16.0", upgrade_policy="side-by-side"), never)
    machine.lazy |= {"soci-b": "/run/c/new/rootfs\n"}


@pytest.mark.failure_mode(34)
def test_back_to_the_old_daemon_while_it_still_runs(machine: FakeNode) -> None:
    """Version n again: what runs already is used, nothing is started."""
    start_second_daemon(machine)
    done = install.install(task(machine, upgrade_policy="side-by-side"), never)
    assert (done.slot, done.replaced) == (slots.FIRST, slots.SECOND)
    plan = machine.plan()
    assert (plan["snapshotter_action"], plan["is_switch"], plan["slot_is_new"]) == ("none", "1", "0")


@pytest.mark.failure_mode(29)
def test_side_by_side_waits_when_both_daemons_are_read_from(machine: FakeNode) -> None:
    """There is no third place; the first to become idle is used."""
    start_second_daemon(machine)
    waited = []

    def on_waiting(busy: lazy.Busy) -> None:
        waited.append(set(busy.mounts))
        machine.lazy.pop("soci")

    done = install.install(task(machine, version="0.15.0", upgrade_policy="side-by-side"), on_waiting)
    assert waited == [{slots.FIRST, slots.SECOND}]
    assert done.slot == slots.FIRST
    assert machine.plan()["snapshotter_action"] == "restart"


def test_pause_without_content_comes_from_the_archive(machine: FakeNode) -> None:
    """On EKS the pause image cannot be pulled (amazon-eks-ami#2710)."""
    machine.ctr.answers["images check"] = "example.org/pause:3.10 t d incomplete (1/2) 1 true\n"
    machine.write(kinds.EKS_PAUSE_ARCHIVE, b"tar")
    install.install(task(machine), never)
    directory = next((machine.root / "var/lib/soci-cluster/txn").iterdir())
    assert f"pause_archive={kinds.EKS_PAUSE_ARCHIVE}\n" in (directory / "plan.env").read_text()


def test_pause_without_content_stops_before_the_swap(machine: FakeNode) -> None:
    """No sandbox could start afterwards (nydus-snapshotter#631, soci#1389)."""
    machine.ctr.answers["images check"] = ""
    with pytest.raises(InstallError, match="sandbox image"):
        install.install(task(machine), never)
    assert machine.read_text("/etc/containerd/config.toml") == CONFIG
    assert not machine.exists(transaction.STATE)


@pytest.mark.failure_mode(16)
def test_killed_transaction_is_undone_first(machine: FakeNode) -> None:
    """An earlier pod and its transaction were killed (gpu-operator#456, kata-containers#13551)."""
    machine.write(f"{transaction.STATE}/journal", b"state=armed\ntransaction=1-a\n")

    def undo(command: Sequence[str], text: str) -> Result:
        if "rollback" in command:
            machine.write(f"{transaction.STATE}/journal", b"state=rolled-back\n")
        return Result(0, "", "")

    machine.answers["sh"] = undo
    assert install.install(task(machine), never).changed
    assert ("sh", transaction.SCRIPT, "rollback", "1-a") in machine.commands


def test_what_a_boot_undid_leaves_nothing_behind(machine: FakeNode) -> None:
    machine.write(f"{transaction.STATE}/journal", b"state=rolled-back\ntransaction=1-a\n")
    machine.write(f"{transaction.STATE}/txn/1-a/last-words", b"killed during the rollback\n")
    install.install(task(machine), never)
    assert not machine.exists(f"{transaction.STATE}/txn/1-a")


def fail_from_now_on(machine: FakeNode, result: str, last_words: str = "") -> None:
    """Every transaction ends with this result, and with these last words of the daemons."""

    def fail(command: Sequence[str], text: str) -> Result:
        machine.write(f"{command[-1]}/last-words", last_words.encode())
        machine.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")

    machine.answers["systemd-run"] = fail


def fail_once(machine: FakeNode, result: str, cause: str) -> None:
    """Install with a host script that ends with this result; the next one commits again."""
    commit = machine.answers["systemd-run"]
    fail_from_now_on(machine, result)
    with pytest.raises(InstallError, match=cause):
        install.install(task(machine), never)
    machine.answers["systemd-run"] = commit


def test_transaction_that_systemd_started_without_saying_so_keeps_its_directory(machine: FakeNode) -> None:
    """Its answer is lost when D-Bus times out, or systemd executes itself anew."""
    commit = machine.answers["systemd-run"]

    def silent(command: Sequence[str], text: str) -> Result:
        commit(command, text)
        name = Path(command[-1]).name
        machine.write(f"{transaction.STATE}/journal", f"state=committed\ntransaction={name}\n".encode())
        return Result(1, "", "Failed to start transient service unit: Connection timed out")

    machine.answers["systemd-run"] = silent
    assert install.install(task(machine), never).changed


def test_a_failed_transaction_brings_the_daemons_last_words_along(machine: FakeNode) -> None:
    fail_from_now_on(machine, "outcome=rolled-back\nstep=restart\ncontainerd_restarts=2\n", "one\ntwo\n")
    for _ in ("now", "and when it is not tried again"):
        with pytest.raises(InstallError) as caught:
            install.install(task(machine), never)
        assert caught.value.last_words == ("one", "two")


@pytest.mark.failure_mode(15)
def test_vain_restart_is_not_repeated(machine: FakeNode) -> None:
    """149 restarts of a daemon that could not come up (aicr#1688)."""
    fail_from_now_on(machine, "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n")
    for _ in range(3):
        with pytest.raises(InstallError, match="no"):
            install.install(task(machine), never)
    assert sum(command[0] == "systemd-run" for command in machine.commands) == 1


def test_a_change_that_failed_is_tried_at_once_by_another_host_script(
    machine: FakeNode, tmp_path: Path
) -> None:
    """A program with the remedy would otherwise wait ten minutes, and its rollout end before that."""
    fail_from_now_on(machine, "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n")
    mended = shutil.copytree(INSTALLER, tmp_path / "mended")
    (mended / "host/98-mended.sh").write_text("# with the remedy\n")
    for payload in (INSTALLER, mended):
        with pytest.raises(InstallError, match="no"):
            install.install(dataclasses.replace(task(machine), payload=payload), never)
    assert sum(command[0] == "systemd-run" for command in machine.commands) == 2


def test_killed_transaction_says_nothing_against_the_change(machine: FakeNode) -> None:
    """gpu-operator#456: the next run converges at once, although the rollback restarted containerd."""
    fail_once(
        machine, "outcome=rolled-back\nstep=interrupted\ncause=killed\ncontainerd_restarts=1\n", "killed"
    )
    assert install.install(task(machine), never).changed


def test_failure_is_not_recent_for_years_after_the_clock_was_set_back(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that boots with a wrong clock, fails, and is then set right."""
    fail_once(machine, "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n", "no")
    year_ago = time.time() - 365 * 86400
    monkeypatch.setattr(install.time, "time", lambda: year_ago)
    assert install.install(task(machine), never).changed


def test_full_disk_at_staging_is_reported_as_such(machine: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """stargz#1349; it used to end the agent with a traceback and no word to the API."""

    def full(*arguments: object, **options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transaction, "stage", full)
    with pytest.raises(InstallError, match="No space left") as caught:
        install.install(task(machine), never)
    assert caught.value.step == "stage"


@pytest.mark.failure_mode(37)
def test_staged_transaction_of_another_installer_is_left_alone(machine: FakeNode) -> None:
    """Two pods for a moment, at a rollout: one must not delete what the other is about to apply."""
    other = f"{transaction.STATE}/txn/1-other"
    machine.write(f"{other}/plan.env", b"")
    machine.write(f"{transaction.STATE}/txn/1-failed/result", b"outcome=unchanged\n")
    install.install(task(machine), never)
    assert machine.exists(other)
    assert not machine.exists(f"{transaction.STATE}/txn/1-failed")


@pytest.mark.failure_mode(9)
def test_full_disk_is_reported_as_what_it_is(machine: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system must not end the agent without a word on the node's condition."""

    def unpack(host: FakeNode, *arguments: object, **trust: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), release.VERSIONS)

    monkeypatch.setattr(release, "install", unpack)
    with pytest.raises(InstallError, match="No space left on device") as caught:
        install.install(task(machine), never)
    assert caught.value.step == "files"


def test_symbolic_link_is_resolved_on_the_host(machine: FakeNode) -> None:
    """The link stays a link; its target is what is edited."""
    config = machine.root / "etc/containerd/config.toml"
    config.rename(machine.root / "etc/real.toml")
    config.symlink_to("/etc/real.toml")
    install.install(task(machine), never)
    assert config.is_symlink()
    assert "soci" in (machine.root / "etc/real.toml").read_text()


def test_containerd_judges_under_the_name_of_its_unit(machine: FakeNode) -> None:
    """Relative imports begin where the link is, not where it leads."""
    config = machine.root / "etc/containerd/config.toml"
    config.rename(machine.root / "etc/real.toml")
    config.symlink_to("../real.toml")
    install.install(task(machine), never)
    judged = {command[-1] for command in machine.commands if command[0] == "unshare"}
    assert judged == {"/etc/containerd/config.toml"}


def test_mounted_file_is_refused(machine: FakeNode) -> None:
    """A rename over a mount point fails; writing into the file would not be one step."""
    line = "60 21 0:5 /a /etc/containerd/config.toml rw - ext4 /dev/sda rw\n"
    machine.write("/proc/1/mountinfo", line.encode())
    assert "mount the directory" in refused(task(machine), "mount point of its own").remedy


def test_failure_without_a_restart_is_tried_again_at_once(machine: FakeNode) -> None:
    """Only restarts of containerd are worth sparing; whatever else failed may be over already."""
    fail_once(machine, "outcome=rolled-back\nstep=verify\ncause=no\ncontainerd_restarts=0\n", "no")
    assert install.install(task(machine), never).changed


@pytest.mark.parametrize(
    ("image", "stored"),
    [
        ("localhost/kubernetes/pause", "localhost/kubernetes/pause:latest"),
        ("registry:5000/pause", "registry:5000/pause:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("x/pause@sha256:00", "x/pause@sha256:00"),
    ],
)
def test_pause_reference_has_its_tag(image: str, stored: str) -> None:
    """containerd 2.3 finds the image under its full name only (amazon-eks-ami#2729)."""
    assert images.with_tag(image) == stored


def with_layers(machine: FakeNode) -> None:
    """An image of one layer whose blobs were discarded once it was unpacked."""
    machine.ctr.add("example.org/app:1", "incomplete", digest="manifest")
    machine.ctr.content |= {
        "manifest": {"config": {"digest": "sha256:c0"}},
        "sha256:c0": {"rootfs": {"diff_ids": ["sha256:1"]}},
    }
    machine.ctr.snapshots = ["sha256:1"]
    prepare = "snapshots --snapshotter overlayfs prepare"
    machine.ctr.answers |= {prepare: "mount -t bind /layer / -o ro\n"}
    machine.path("/layer").mkdir()
    machine.answers["timeout"] = lambda command, text: run_below(machine.root, command)


@pytest.mark.failure_mode(22)
def test_layers_are_there_before_the_transaction_begins(machine: FakeNode) -> None:
    """It only has to move them; a `copy` that takes minutes is told as such."""
    with_layers(machine)
    steps: list[str] = []
    wanted = dataclasses.replace(task(machine), on_step=steps.append)
    commit = machine.answers["systemd-run"]
    seen = []

    def look(command: Sequence[str], text: str) -> Result:
        copies = machine.path(f"{slots.FIRST.data}/{carry.COPIES}")
        seen.append((machine.read_text(f"{command[-1]}/carried"), [path.name for path in copies.iterdir()]))
        return commit(command, text)

    machine.answers["systemd-run"] = look
    assert install.install(wanted, never).changed
    assert seen == [("sha256:c0 sha256:1\n", ["sha256:1"])]
    assert steps == ["preflight", "download", "images", "copy", "stage", "commit", "heal"]


@pytest.mark.failure_mode(9)
def test_copies_that_were_made_in_vain_are_deleted_and_not_made_again_at_once(machine: FakeNode) -> None:
    """They may be many gigabytes, and the kubelet starts a failed installer again and again."""
    with_layers(machine)
    tried = []

    def fail(command: Sequence[str], text: str) -> Result:
        tried.append(command)
        return Result(1, "", "cp: no: Input/output error\n")

    machine.answers["timeout"] = fail
    for _ in range(3):
        with pytest.raises(InstallError, match="Input/output error") as caught:
            install.install(task(machine), never)
        assert caught.value.step == "copy"
    assert len(tried) == 1
    cleared = [command for command in machine.commands if "clear-copies" in command]
    assert cleared
    assert machine.read_text("/etc/containerd/config.toml") == CONFIG
    assert not any("apply" in command for command in machine.commands)


def test_checks_of_an_unchanged_node_are_told(machine: FakeNode) -> None:
    """A node whose files are right may still not serve."""
    install.install(task(machine), never)
    done = install.install(task(machine), never)
    assert not done.changed
    assert [(step, round(seconds, 2)) for step, seconds in done.steps] == [
        ("verify-cri", 0.2),
        ("verify-plugins", 0.3),
    ]


def fail_to_verify(machine: FakeNode, result: Result) -> None:
    """The host script's checks end like this."""
    script = machine.answers["sh"]
    machine.answers["sh"] = lambda command, text: result if "verify" in command else script(command, text)


def test_check_that_fails_on_an_unchanged_node_fails_the_run_with_its_cause(machine: FakeNode) -> None:
    install.install(task(machine), never)
    result = "outcome=failed\nstep=verify-cri\ncause=containerd's CRI plugin did not load\nsteps=\n"
    fail_to_verify(machine, Result(1, result, ""))
    failure = refused(task(machine), "CRI plugin did not load")
    assert (failure.step, failure.reason) == ("verify-cri", "VerifyCriFailed")
    assert "journalctl -u containerd.service" in failure.remedy


def test_script_that_cannot_check_is_a_failure(machine: FakeNode) -> None:
    install.install(task(machine), never)
    fail_to_verify(machine, Result(127, "", "sh: not found"))
    with pytest.raises(InstallError, match="sh: not found") as caught:
        install.install(task(machine), never)
    assert caught.value.step == "verify"


def test_change_of_a_file_restarts_who_reads_it(machine: FakeNode) -> None:
    """By its role in the manifest, wherever it stands there."""
    install.install(task(machine), never)
    machine.write(slots.FIRST.config, b"# somebody's\n")
    install.install(task(machine), never)
    assert (machine.plan()["snapshotter_action"], machine.plan()["containerd_restart"]) == ("restart", "0")
    machine.write("/etc/systemd/system/soci-cluster-boot.service", b"# somebody's\n")
    install.install(task(machine), never)
    assert (machine.plan()["snapshotter_action"], machine.plan()["containerd_restart"]) == ("none", "0")
    machine.write("/etc/containerd/config.toml", CONFIG.encode())
    install.install(task(machine), never)
    assert (machine.plan()["snapshotter_action"], machine.plan()["containerd_restart"]) == ("none", "1")


def as_an_earlier_version_left_it(machine: FakeNode) -> None:
    """Its words in place of the roles, its plan and its script."""
    directory = next((machine.root / "var/lib/soci-cluster/txn").iterdir())
    lines = (line.split("\t") for line in (directory / "files").read_text().splitlines(keepends=True))
    old = ("\t".join(["containerd" if line[0] == "shared" else "soci", *line[1:]]) for line in lines)
    (directory / "files").write_text("".join(old))
    plan = "slot=soci\ndeadline_seconds=400\ncopy_seconds=7\n"
    (directory / "plan.env").write_text(plan)
    current = machine.root / "var/lib/soci-cluster/current"
    current.unlink()
    current.symlink_to(directory)
    machine.write(transaction.SCRIPT, b"#!/bin/sh\n# an earlier one\n", 0o755)


def test_node_that_an_earlier_version_installed_is_changed_without_a_restart(machine: FakeNode) -> None:
    """Only the script and the record are new; the files and the daemon stay what they are."""
    install.install(task(machine), never)
    as_an_earlier_version_left_it(machine)
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    assert install.install(task(machine), never).changed
    plan = machine.plan()
    assert (plan["snapshotter_action"], plan["containerd_restart"], plan["is_switch"]) == ("none", "0", "0")
    directories = (machine.root / "var/lib/soci-cluster/txn").iterdir()
    latest = max(directories, key=lambda directory: directory.stat().st_mtime_ns)
    roles = [line.split("\t")[0] for line in (latest / "files").read_text().splitlines()]
    assert set(roles) == {"recovery", "daemon", "shared"}
    assert not install.install(task(machine), never).changed


CREDENTIALS = "/opt/soci-cluster/credentials"
# The daemon's unit of version 0.2, which knew neither credentials nor proxies.
UNIT_OF_0_2 = """\
# Written by SociCluster; removed by `soci-host.sh remove`.
[Unit]
Description=SOCI snapshotter for containerd
Documentation=https://github.com/awslabs/soci-snapshotter
Wants=network-online.target
After=network-online.target
Before=containerd.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/opt/soci-cluster/versions/0.16.1/soci-snapshotter-grpc --root /var/lib/x
Restart=always
RestartSec=1
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"""


def as_0_2_left_it(machine: FakeNode) -> None:
    """No credentials, its own unit, and a record of just that."""
    machine.write(slots.FIRST.unit_path, UNIT_OF_0_2.encode())
    shutil.rmtree(machine.path(CREDENTIALS))
    record = machine.path(f"{transaction.STATE}/current/files")
    kept = []
    for line in record.read_text().splitlines():
        fields = line.split("\t")
        if fields[1] == slots.FIRST.unit_path:
            fields[5] = transaction.sha256(UNIT_OF_0_2.encode())
        if not fields[1].startswith(f"{CREDENTIALS}/"):
            kept.append("\t".join(fields) + "\n")
    record.write_text("".join(kept))


def test_a_node_of_0_2_gets_credentials_with_one_restart_of_its_daemon_once_it_is_idle(
    machine: FakeNode,
) -> None:
    """Helper and unit come in one transaction: no daemon is told to use a helper that is not there."""
    install.install(task(machine), never)
    as_0_2_left_it(machine)
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    before = tree(machine.root)
    machine.commands.clear()
    waited = []

    def idle(busy: lazy.Busy) -> None:
        assert tree(machine.root) == before
        assert machine.read_text(slots.FIRST.unit_path) == UNIT_OF_0_2
        waited.append(busy)
        machine.lazy.clear()

    def drifted(what: str, seen: Seen) -> None:
        pytest.fail(f"an upgrade is no drift: {what}")

    assert install.install(dataclasses.replace(task(machine), when_drifted=drifted), idle).changed
    assert len(waited) == 1
    assert len([command for command in machine.commands if command[0] == "systemd-run"]) == 1
    plan = machine.plan()
    assert (plan["snapshotter_action"], plan["containerd_restart"], plan["is_switch"]) == (
        "restart",
        "0",
        "0",
    )
    assert machine.exists(f"{CREDENTIALS}/docker-credential-soci-cluster")
    unit = machine.read_text(slots.FIRST.unit_path)
    assert f"Environment=DOCKER_CONFIG={CREDENTIALS}\n" in unit
    assert not install.install(task(machine), never).changed


def test_older_script_is_asked_nothing(machine: FakeNode) -> None:
    """It knows other verbs: the wanted one is sent along until it is installed."""
    install.install(task(machine), never)
    as_an_earlier_version_left_it(machine)
    machine.commands.clear()
    install.install(task(machine, mode="lazy-or-parallel"), never)
    asked = [command[1:3] for command in machine.commands if command[0] == "sh" and command[1] != "-c"]
    assert asked[0] == ("-s", "mounts")


def test_waits_for_a_transaction_of_an_earlier_version_as_long_as_its_own_timer_does(
    machine: FakeNode,
) -> None:
    """It made the copies of layers itself, which had their own time."""
    machine.write(f"{transaction.STATE}/txn/1-a/plan.env", b"deadline_seconds=400\ncopy_seconds=3600\n")
    assert transaction._patience(machine, "1-a") == 400 + 3600 + transaction.TAKING_LONGER_SECONDS


def test_the_plan_has_the_keys_that_the_host_script_reads(machine: FakeNode) -> None:
    install.install(task(machine), never)
    known = re.findall(r"^PLAN_([a-z_]+)=", call("default_plan; set"), re.MULTILINE)
    assert machine.plan().keys() == set(known)


def test_files_are_listed_in_the_order_in_which_their_roles_are_written(machine: FakeNode) -> None:
    install.install(task(machine), never)
    (directory,) = (machine.root / "var/lib/soci-cluster/txn").iterdir()
    lines = (directory / "files").read_text().splitlines()
    listed = [transaction.Role(line.split("\t")[0]) for line in lines]
    assert set(listed) == {"recovery", "daemon", "shared"}
    assert listed == sorted(listed, key=list(transaction.Role).index)


def test_containerd_that_was_moved_since_is_recorded_without_a_restart(machine: FakeNode) -> None:
    """The boot, the checks and the uninstall look for it where the record says."""
    install.install(task(machine), never)
    plan = machine.path(f"{transaction.STATE}/current/plan.env")
    old = plan.read_text()
    plan.write_text(old.replace("containerd_program=/usr/bin/", "containerd_program=/opt/old/"))
    done = install.install(task(machine), never)
    assert done.changed
    recorded = machine.plan()
    assert recorded["containerd_program"] == "/usr/bin/containerd"
    assert (recorded["containerd_restart"], recorded["snapshotter_action"]) == ("0", "none")
    assert not install.install(task(machine), never).changed


def test_checks_end_on_the_host_when_their_time_is_over(machine: FakeNode) -> None:
    """They would go on with the node's lock, after nsenter has ended."""
    install.install(task(machine), never)
    install.install(task(machine), never)
    (call,) = [command for command in machine.commands if "verify" in command]
    assert call[:4] == ("timeout", "-k", "5", "170")


def test_commit_that_was_cut_short_is_the_record_all_the_same(machine: FakeNode) -> None:
    """The journal names it already; the link to it is made next."""
    install.install(task(machine), never)
    machine.path(f"{transaction.STATE}/current").unlink()
    assert not install.install(task(machine), never).changed


def test_what_others_changed_is_told_before_it_is_put_right(machine: FakeNode) -> None:
    """Another tool wrote containerd's configuration anew, and nothing was lazily loaded any more (H10)."""
    install.install(task(machine), never)
    config = "/etc/containerd/config.toml"
    machine.write(config, CONFIG.encode())
    told: list[tuple[str, bytes | None]] = []

    def drifted(what: str, seen: Seen) -> None:
        told.append((what, machine.read(config)))
        assert config in dict(seen.files)

    assert install.install(dataclasses.replace(task(machine), when_drifted=drifted), never).changed
    ((what, text_then),) = told
    assert what.startswith(f"{config} was changed at ")
    assert "containerd's snapshotter is overlayfs, not soci" in what
    assert text_then == CONFIG.encode()
    assert 'snapshotter = "soci"' in machine.read_text(config)


@pytest.mark.parametrize(
    ("path", "hours_after_boot", "is_named"),
    [
        ("/etc/containerd/config.toml", 0, True),
        (slots.FIRST.config, 0, True),
        (slots.FIRST.config, 1, False),
        (slots.FIRST.unit_path, 0, False),
    ],
)
def test_the_tool_that_writes_a_file_at_the_boot_is_named_as_likely(
    machine: FakeNode, path: str, hours_after_boot: int, is_named: bool
) -> None:
    """Who changed a file, the node does not keep."""
    machine.write("/proc/stat", f"btime {int(time.time()) - 10 - hours_after_boot * 3600}\n".encode())
    machine.write(nodeadm.PROGRAM, b"")
    machine.path(kinds.EKS).mkdir(exist_ok=True)
    install.install(task(machine), never)
    machine.write(path, CONFIG.encode())
    told: list[str] = []
    wanted = dataclasses.replace(task(machine), when_drifted=lambda what, seen: told.append(what))
    install.install(wanted, never)
    (what,) = told
    assert ("UTC (likely by nodeadm, at the boot)" in what) is is_named


@pytest.mark.parametrize("path", [slots.FIRST.config, slots.FIRST.unit_path])
def test_a_file_of_ours_that_others_removed_is_drift_too(machine: FakeNode, path: str) -> None:
    install.install(task(machine), never)
    machine.path(path).unlink()
    told: list[str] = []
    wanted = dataclasses.replace(task(machine), when_drifted=lambda what, seen: told.append(what))
    install.install(wanted, never)
    assert told == [f"{path} was removed"]


def test_what_the_user_wants_otherwise_is_no_drift(machine: FakeNode) -> None:
    install.install(task(machine), never)
    wanted = dataclasses.replace(
        task(machine, mode="parallel"), when_drifted=lambda what, seen: pytest.fail(what)
    )
    assert install.install(wanted, never).changed


def test_a_node_whose_daemon_does_not_run_says_so_while_it_is_started(machine: FakeNode) -> None:
    install.install(task(machine), never)
    machine.running.clear()
    told: list[bool] = []
    assert install.install(
        dataclasses.replace(task(machine), when_away=lambda: told.append(True)), never
    ).changed
    assert told == [True]


def test_a_repair_is_counted_when_it_is_made_and_not_while_it_waits(machine: FakeNode) -> None:
    """One that waited for pods found its own entry, and was put off for ten minutes."""
    install.install(task(machine), never)
    machine.write(slots.FIRST.config, b"theirs")
    machine.lazy = {"soci": "/run/c/1/rootfs\n"}
    events: list[str] = []

    def idle(busy: lazy.Busy) -> None:
        events.append("waits")
        machine.lazy = {}

    wanted = dataclasses.replace(
        task(machine),
        when_drifted=lambda what, seen: events.append("told"),
        when_repaired=lambda: events.append("repaired"),
    )
    assert install.install(wanted, idle).changed
    assert events == ["told", "waits", "told", "repaired"]


PLUGINS = "/etc/eks/image-credential-provider"


def give_plugins(machine: FakeNode, *images: str) -> None:
    """The kubelet runs with a credential provider plugin for these images."""
    flags = (
        f"--image-credential-provider-config={PLUGINS}/c",
        f"--image-credential-provider-bin-dir={PLUGINS}",
    )
    machine.run_kubelet(*flags)
    entry = {"name": "plugin", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": images}
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig"}
    machine.write(f"{PLUGINS}/c", json.dumps({**config, "providers": [entry]}).encode())
    machine.write(f"{PLUGINS}/plugin", b"#!/bin/sh\n")


def test_other_plugins_of_the_kubelet_change_the_list_and_restart_nothing(machine: FakeNode) -> None:
    """Also below lazily loaded containers."""
    give_plugins(machine, "*.example")
    seen = install.install(task(machine), never).seen
    assert {f"{PLUGINS}/c", PLUGINS} <= dict(seen.files).keys()
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    assert not install.install(task(machine), never).changed
    give_plugins(machine, "*.example", "registry.other")
    assert install.install(task(machine), never).changed
    assert "match registry.other\n" in machine.read_text("/opt/soci-cluster/credentials/providers")
    plan = machine.plan()
    assert (plan["snapshotter_action"], plan["containerd_restart"]) == ("none", "0")


def test_plugins_that_cannot_be_read_are_no_refusal(machine: FakeNode) -> None:
    give_plugins(machine)
    machine.write(f"{PLUGINS}/c", b"{")
    assert install.install(task(machine), never).changed
    assert "provider " not in machine.read_text("/opt/soci-cluster/credentials/providers")


def test_a_kubelet_that_is_started_anew_is_noticed(machine: FakeNode) -> None:
    """Its flags say which plugins there are."""
    give_plugins(machine)
    assert install.install(task(machine), never).seen.kubelet == KUBELET_PID


def agent_on(
    machine: FakeNode, server: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> program.Agent:
    """The program on this node, which stays where it would become the watcher."""
    monkeypatch.setattr(program, "PAYLOAD", INSTALLER)
    monkeypatch.setattr(program, "READY_FILE", tmp_path / "ready")
    monkeypatch.setattr(program, "become_watcher", lambda *words: None)
    machine.path("/run").mkdir()
    identity = Api("n1", "p1", "soci-system", "soci-installer", server)
    return program.Agent(machine, identity, Log("n1", lambda line: None))


WANTED = agent_settings(sha256={"amd64": DIGEST, "arm64": DIGEST}, existing_nodes="migrate")


@pytest.mark.parametrize("mode", ["lazy", "parallel"])
def test_what_failed_parallel_pulls_leave_is_looked_for_where_there_are_such_pulls(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    became: list[tuple[str, ...]] = []
    agent = agent_on(machine, FakeApi(), monkeypatch, tmp_path)
    monkeypatch.setattr(program, "become_watcher", lambda *words: became.append(words))
    agent.present(dataclasses.replace(WANTED, mode=mode))
    look = "grep -qs /sha256: /var/lib/containerd/io.containerd.content.v1.content/ingest/*/ref"
    assert any(word.startswith(look) for word in became[0]) is (mode == "parallel")
    *_, errands = watch.parse(became[0])
    assert len(errands) == (2 if mode == "parallel" else 1)


def test_a_file_that_the_node_put_back_by_itself_is_told_once(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = FakeApi()
    agent = agent_on(machine, server, monkeypatch, tmp_path)
    agent.present(WANTED)
    machine.write(drift.PUT_BACK, f"{FIRST.config}\n{FIRST.config}\n".encode())
    for _ in range(2):
        agent.present(WANTED)
    events = [body for path, body in server.writes if path.endswith("/events")]
    told = [event["message"] for event in events if event["reason"] == drift.DRIFTED]
    assert told
    assert all(FIRST.config in message and drift.REPLACED in message for message in told)
    assert len(told) == 2, "one on the node, one on the DaemonSet"


def test_a_conflict_after_the_install_reaches_the_condition_and_leaves_it_again(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pods come when the installer is only watching."""
    became: list[tuple[str, ...]] = []
    server = FakeApi()
    agent = agent_on(machine, server, monkeypatch, tmp_path)
    monkeypatch.setattr(program, "become_watcher", lambda *words: became.append(words))

    def is_called_back() -> bool:
        *_, files, _ = watch.parse(became[-1])
        return any(watch.fingerprint(path) != known for path, known in files.items())

    agent.present(WANTED)
    conflict = (CONFLICT, "r.corp", "why it is so")
    for found in ([conflict], []):
        pull_secret_files.show(
            machine, [("pull-secrets-unread", "pods", "why"), *([] if found else [conflict])]
        )
        assert not is_called_back(), "for another problem"
        pull_secret_files.show(machine, found)
        assert is_called_back()
        agent.present(WANTED)
        assert ("registry r.corp: why it is so" in server.condition["message"]) is bool(found)


def test_a_kubelet_that_is_turned_to_socis_socket_after_the_install(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of its pulls fails, while containerd and the daemon are as they were."""
    server = FakeApi()
    agent = agent_on(machine, server, monkeypatch, tmp_path)
    agent.present(WANTED)
    assert server.node["metadata"]["labels"] == {LABEL: WANTED.version}
    machine.run_kubelet("--image-service-endpoint", f"unix://{slots.FIRST.socket}")
    before = tree(machine.root)
    with pytest.raises(InstallError) as refused:
        agent.present(WANTED)
    agent.fail(refused.value)
    assert slots.FIRST.socket in server.condition["message"]
    assert (server.condition["status"], server.condition["reason"]) == ("False", "PreflightFailed")
    assert server.node["metadata"]["labels"] == {}
    assert tree(machine.root) == before
    machine.run_kubelet()
    agent.present(WANTED)
    assert (server.condition["status"], server.node["metadata"]["labels"]) == (
        "True",
        {LABEL: WANTED.version},
    )


def test_an_upgrade_that_is_refused_leaves_the_label_of_the_version_that_serves(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = FakeApi()
    agent = agent_on(machine, server, monkeypatch, tmp_path)
    agent.present(WANTED)
    with pytest.raises(InstallError, match="no digest") as refused:
        agent.present(dataclasses.replace(WANTED, version="0.17.0", sha256={}))
    agent.fail(refused.value)
    assert server.condition["status"] == "False"
    assert server.node["metadata"]["labels"] == {LABEL: WANTED.version}


def test_a_node_of_which_only_the_broken_containers_are_not_known_has_its_label_again(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It serves, and the condition says so."""
    server = FakeApi()
    agent = agent_on(machine, server, monkeypatch, tmp_path)
    agent.present(WANTED)
    machine.running.clear()
    script = machine.answers["sh"]
    failed = Result(1, "", "no answer\n")
    machine.answers["sh"] = lambda command, text: failed if command[-1] == "heal" else script(command, text)
    with pytest.raises(InstallError) as unknown:
        agent.present(WANTED)
    agent.fail(unknown.value)
    assert server.condition["status"] == "True"
    assert server.node["metadata"]["labels"] == {LABEL: WANTED.version}


def test_without_pull_secrets_nobody_looks_for_conflicts(machine: FakeNode) -> None:
    wanted = task(machine)
    for credentials, is_watched in (("node-and-pull-secrets", True), ("node", False)):
        settings = dataclasses.replace(wanted.settings, credentials=credentials)
        seen = install.install(dataclasses.replace(wanted, settings=settings), never).seen
        assert (pull_secret_files.CONFLICTS in dict(seen.files)) is is_watched


def test_a_release_is_fetched_trusting_the_cas_of_containerds_registries(
    machine: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An oci:// release can be in a registry whose CA a hosts.toml alone names."""
    trusted: list[str] = []
    unpack = release.install

    def fetch(*arguments: Any, authorities: str) -> None:
        trusted.append(authorities)
        unpack(*arguments, authorities=authorities)

    monkeypatch.setattr(release, "install", fetch)
    machine.write(HOSTS, b'ca = "ca.pem"\n')
    machine.write(f"{HOSTS.rpartition('/')[0]}/ca.pem", PEM.encode())
    install.install(task(machine), never)
    assert trusted == [PEM]


@pytest.mark.parametrize("credentials", ["node", "node-and-pull-secrets"])
def test_pull_secrets_are_forgotten_when_they_are_not_to_be_used(machine: FakeNode, credentials: str) -> None:
    machine.write("/run/soci-cluster/pull-secrets/registry.example", b"{}")
    machine.write("/run/soci-cluster/credentials/registry.example", b"{}")
    wanted = task(machine)
    settings = dataclasses.replace(wanted.settings, credentials=credentials)
    install.install(dataclasses.replace(wanted, settings=settings), never)
    assert machine.exists("/run/soci-cluster/pull-secrets") is (credentials != "node")
    assert machine.exists("/run/soci-cluster/credentials/registry.example")


def test_pull_secrets_are_forgotten_while_the_node_waits_for_its_pods(machine: FakeNode) -> None:
    """They stayed until the install, which may be days away."""
    install.install(task(machine), never)
    machine.write("/run/soci-cluster/pull-secrets/registry.example", b"{}")
    machine.lazy["soci"] = "/run/c/abc/rootfs\n"
    machine.ctr.answers["containers info abc"] = INFO
    held: list[bool] = []

    def on_waiting(busy: lazy.Busy) -> None:
        held.append(machine.exists("/run/soci-cluster/pull-secrets"))
        machine.lazy.clear()

    wanted = task(machine, mode="lazy-or-parallel")
    settings = dataclasses.replace(wanted.settings, credentials="node")
    install.install(dataclasses.replace(wanted, settings=settings), on_waiting)
    assert held == [False]


def test_files_that_containerd_imports_are_watched_one_by_one(machine: FakeNode) -> None:
    """An edit in place changes no directory."""
    machine.write("/etc/containerd/config.toml", b'imports = ["conf.d/*.toml"]\n' + CONFIG.encode())
    machine.write("/etc/containerd/conf.d/theirs.toml", b"version = 2\n")
    watched = dict(install.install(task(machine), never).seen.files)
    assert {"/etc/containerd/conf.d", "/etc/containerd/conf.d/theirs.toml"} <= watched.keys()


def test_the_programs_and_the_drop_ins_of_the_daemon_are_watched(machine: FakeNode) -> None:
    drop_ins = f"{slots.FIRST.unit_path}.d"
    watched = dict(install.install(task(machine), never).seen.files)
    assert watched[drop_ins] == "absent"
    assert all(watched[f"{release.VERSIONS}/0.16.1/{name}"] != "absent" for name in release.PROGRAMS)
    machine.write(f"{drop_ins}/theirs.conf", b"[Service]\n")
    done = install.install(task(machine), never)
    assert f"{drop_ins}/theirs.conf" in dict(done.seen.files), "an edit in place changes no directory"


def test_a_users_own_drop_in_of_the_daemon_is_looked_at_and_left_alone(machine: FakeNode) -> None:
    """It is not ours: the node is verified as it is, and nothing is repaired again and again."""
    install.install(task(machine), never)
    machine.write(f"{slots.FIRST.unit_path}.d/theirs.conf", b"[Service]\nNice=5\n")
    before = tree(machine.root)
    wanted = dataclasses.replace(task(machine), when_drifted=lambda what, seen: pytest.fail(what))
    assert not install.install(wanted, never).changed
    assert tree(machine.root) == before


@pytest.mark.parametrize("adopted", [False, True])
def test_a_drop_in_that_runs_another_program_is_refused_and_not_put_right_for_ever(
    machine: FakeNode, adopted: bool
) -> None:
    """The daemon would be restarted every few seconds, and would be theirs each time."""
    if adopted:
        machine.unit = slots.FIRST.unit_path
        machine.write(slots.FIRST.unit_path, b"[Service]\nExecStart=/usr/bin/s --address fd://\n")
    install.install(task(machine), never)
    machine.override = machine.running[slots.FIRST.unit] = "/usr/local/bin/theirs"
    refusal = refused(task(machine), "not ours has it run /usr/local/bin/theirs")
    assert "systemctl cat soci-snapshotter.service" in refusal.remedy


def test_a_drop_in_that_wraps_our_program_is_left_alone(machine: FakeNode) -> None:
    install.install(task(machine), never)
    machine.override = "/usr/bin/numactl"
    assert not install.install(task(machine), never).changed


@pytest.mark.parametrize(("started", "action"), [(-3600, "none"), (3600, "restart")])
def test_a_program_that_others_replaced_is_drift_and_put_right(
    machine: FakeNode, started: int, action: str
) -> None:
    """A daemon that has run since before still runs ours: pods that read from it need not be waited for."""
    install.install(task(machine), never)
    path = f"{release.VERSIONS}/0.16.1/soci-snapshotter-grpc"
    machine.write(path, b"theirs")
    machine.write("/proc/stat", f"cpu 1\nbtime {int(time.time() + started)}\n".encode())
    machine.write("/proc/7/stat", f"7 (soci snap) S {' '.join(['0'] * 18)} 100 0\n".encode())
    told: list[str] = []

    def drifted(what: str, seen: Seen) -> None:
        told.append(what)
        assert path in dict(seen.files)
        assert machine.read(path) == b"theirs", "before it is put right"

    repaired: list[bool] = []
    wanted = dataclasses.replace(
        task(machine), when_drifted=drifted, when_repaired=lambda: repaired.append(True)
    )
    assert install.install(wanted, never).changed
    assert [words.partition(" at ")[0] for words in told] == [f"{path} was changed"]
    assert repaired == [True]
    assert machine.read(path) == b"program"
    assert machine.plan()["snapshotter_action"] == action
    assert not install.install(wanted, never).changed


def test_a_program_that_others_replaced_is_left_alone_where_drift_is_only_told(machine: FakeNode) -> None:
    install.install(task(machine), never)
    path = f"{release.VERSIONS}/0.16.1/soci"
    machine.write(path, b"theirs")

    def refuse(what: str, seen: Seen) -> None:
        raise InstallError("drift", what, "as the settings say")

    with pytest.raises(InstallError, match=f"{path} was changed"):
        install.install(dataclasses.replace(task(machine), when_drifted=refuse), never)
    assert machine.read(path) == b"theirs"


def test_a_daemon_that_mounts_its_layers_again_is_waited_for(machine: FakeNode) -> None:
    """To start it once more would throw that away, again and again while the registry is away."""
    install.install(task(machine), never)
    ask, states = machine.answers["systemctl"], ["activating", "activating"]

    def starting(command: Sequence[str], text: str) -> Result:
        answer = ask(command, text)
        if slots.FIRST.unit in command and "SubState" in " ".join(command) and states:
            return Result(0, f"ActiveState={states.pop()}\nSubState=start\n", "")
        return answer

    machine.answers["systemctl"] = starting
    told: list[bool] = []
    wanted = dataclasses.replace(task(machine), when_away=lambda: told.append(True))
    assert not install.install(wanted, never).changed
    assert told == [True, True]


@pytest.mark.parametrize(("started", "action"), [(-3600, "none"), (3600, "restart")])
def test_a_daemon_that_read_the_wanted_file_is_not_restarted_for_it(
    machine: FakeNode, started: int, action: str
) -> None:
    """Another tool wrote the file while the daemon ran: pods that read from it need not be waited for."""
    install.install(task(machine), never)
    machine.write(slots.FIRST.config, b"theirs")
    at = time.time() + started
    machine.write("/proc/stat", f"cpu 1\nbtime {int(at)}\n".encode())
    machine.write("/proc/7/stat", f"7 (soci snap) S {' '.join(['0'] * 18)} 100 0\n".encode())
    install.install(task(machine), never)
    assert machine.plan()["snapshotter_action"] == action
    assert machine.read(slots.FIRST.config) != b"theirs"


# Registries and proxies

HOSTS = "/etc/containerd/certs.d/r.corp/hosts.toml"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_the_daemon_has_containerds_proxies_in_a_file_that_nobody_else_reads(machine: FakeNode) -> None:
    """H02 of the cases: a corporate network, given to containerd by a drop-in."""
    machine.set_environment(HTTPS_PROXY="http://robot:hunter2@10.0.0.1:3128", NO_PROXY=".internal")
    install.install(dataclasses.replace(task(machine), api_server="10.100.0.1"), never)
    text = machine.read_text(slots.FIRST.environment)
    assert 'HTTPS_PROXY="http://robot:hunter2@10.0.0.1:3128"\n' in text
    assert "10.100.0.1" in text
    assert f"EnvironmentFile=-{slots.FIRST.environment}\n" in machine.read_text(slots.FIRST.unit_path)
    (line,) = [line for line in manifest(machine) if slots.FIRST.environment in line]
    assert line.split("\t")[:3] == ["daemon", slots.FIRST.environment, "0600"]
    others = [path for path, (_, text) in tree(machine.root).items() if b"hunter2" in text]
    staged = f"var/lib/soci-cluster/txn/{transaction.recorded_plan(machine) and current(machine)}"
    assert set(others) == {
        "proc/5/environ",
        slots.FIRST.environment.lstrip("/"),
        f"{staged}/new/etc.soci-snapshotter-grpc.environment",
    }


def current(machine: FakeNode) -> str:
    return transaction.journal_state(machine)["transaction"]


def manifest(machine: FakeNode) -> list[str]:
    return machine.read_text(f"{transaction.STATE}/current/files").splitlines()


def test_a_node_without_a_proxy_has_no_further_file(machine: FakeNode) -> None:
    install.install(task(machine), never)
    folder = machine.path(slots.FIRST.configuration)
    assert [entry.name for entry in folder.iterdir()] == ["config.toml"]
    assert not [line for line in manifest(machine) if slots.FIRST.environment in line]


def test_an_adopted_unit_has_the_environment_too(machine: FakeNode) -> None:
    machine.unit = slots.FIRST.unit_path
    machine.write(slots.FIRST.unit_path, b"[Service]\nExecStart=/usr/bin/s --address fd://\n")
    machine.set_environment(HTTP_PROXY="http://p:1")
    install.install(task(machine), never)
    assert f"EnvironmentFile=-{slots.FIRST.environment}\n" in machine.read_text(slots.FIRST.adoption)
    assert "http://p:1" in machine.read_text(slots.FIRST.environment)


def test_the_daemon_of_the_other_slot_has_an_environment_of_its_own(machine: FakeNode) -> None:
    machine.set_environment(HTTP_PROXY="http://p:1")
    machine.write(HOSTS, b'ca = "ca.pem"\n')
    machine.write(f"{HOSTS.rpartition('/')[0]}/ca.pem", PEM.encode())
    install.install(task(machine), never)
    machine.lazy = {"soci": "/run/c/1/rootfs\n"}
    install.install(task(machine, version="0.17.0", upgrade_policy="side-by-side"), never)
    for slot in (slots.FIRST, slots.SECOND):
        text = machine.read_text(slot.environment)
        assert f'SSL_CERT_DIR="{slot.certificates}:/etc/ssl/certs:/etc/pki/tls/certs"\n' in text
        assert PEM in machine.read_text(f"{slot.certificates}/registries.pem")


@pytest.mark.parametrize(
    "change",
    [
        lambda machine: machine.set_environment(HTTPS_PROXY="http://other:1"),
        lambda machine: machine.set_environment(),
        lambda machine: machine.write(HOSTS, b'[host."https://mirror.corp"]\n'),
        lambda machine: machine.write(HOSTS, b'ca = "/etc/ca.pem"\n'),
    ],
    ids=["another proxy", "no proxy any more", "a mirror", "a CA"],
)
def test_what_containerd_was_told_since_then_is_an_ordinary_change(machine: FakeNode, change) -> None:
    """The process of containerd is another one, or a watched directory changed: the installer looks again."""
    machine.set_environment(HTTPS_PROXY="http://p:1")
    machine.write("/etc/ca.pem", PEM.encode())
    install.install(task(machine), never)
    before = transaction.recorded_files(machine)
    change(machine)
    wanted = dataclasses.replace(task(machine), when_drifted=lambda what, seen: pytest.fail(what))
    done = install.install(wanted, never)
    assert done.changed
    assert transaction.recorded_files(machine) != before
    assert machine.plan()["snapshotter_action"] == "restart"
    assert machine.plan()["containerd_restart"] == "0"
    assert not install.install(wanted, never).changed


def test_a_proxy_that_is_gone_leaves_no_file(machine: FakeNode) -> None:
    machine.set_environment(HTTPS_PROXY="http://p:1")
    install.install(task(machine), never)
    machine.set_environment()
    install.install(task(machine), never)
    assert not machine.exists(slots.FIRST.environment)


def test_directories_of_registries_are_watched_before_they_are_there(machine: FakeNode) -> None:
    watched = dict(install.install(task(machine), never).seen.files)
    assert watched["/etc/containerd/certs.d"] == "absent"
    machine.write(HOSTS, b'[host."https://mirror.corp"]\n')
    watched = dict(install.install(task(machine), never).seen.files)
    assert {"/etc/containerd/certs.d", HOSTS.rpartition("/")[0], HOSTS} <= watched.keys()


def test_an_install_says_what_soci_cannot_be_told(machine: FakeNode) -> None:
    machine.write(HOSTS, b"skip_verify = true\n")
    done = install.install(task(machine), never)
    assert [limit.registry for limit in done.limits] == ["r.corp"]
    assert install.install(task(machine), never).limits == done.limits


def test_an_environment_that_cannot_be_seen_is_not_an_empty_one(machine: FakeNode) -> None:
    machine.path("/proc/5/environ").unlink()
    with pytest.raises(InstallError, match="environment of the process 5"):
        install.install(task(machine), never)
