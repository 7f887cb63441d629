"""Real faults on real nodes: the old state is back within a minute, with the step and the cause."""

import re
import threading
import time

import pytest
from agent import detect, transaction
from agent.errors import InstallError
from agent.install import Installed
from agent.transaction import journal_state

from tests.faults.nodes.lab_node import CONFIG, HEALTHY_WITHIN_S, PROGRAMS, Health, LabNode, Pods
from tests.waiting import wait_for

pytestmark = pytest.mark.root

# A containerd that works with the node's own configuration and not with ours.
REFUSES = f"""
case "$*" in *config*|*--version*) exec "$0.real" "$@" ;; esac
if grep -q soci {CONFIG}; then echo "containerd: the candidate is refused" >&2; exit 1; fi
exec "$0.real" "$@"
"""
# The same one, in which the CRI plugin cannot load: its snapshotter does not exist.
LOADS_NO_CRI = f"""
case "$*" in *config*|*--version*) exec "$0.real" "$@" ;; esac
if ! grep -q soci {CONFIG}; then exec "$0.real" "$@"; fi
sed 's/^\\( *snapshotter = \\)"soci"/\\1"missing"/' {CONFIG} >/run/missing.toml
exec "$0.real" --config /run/missing.toml "$@"
"""
LATE = """
for argument; do [ "$argument" != --address ] || is_daemon=1; done
[ -n "$is_daemon" ] && sleep 60
exec "$0.real" "$@"
"""

STAGED_AND_LITTLE_MORE = (
    "172k"  # 128 KiB reserved, eleven small files in pages of 4 KiB: no room for a journal
)


def failure(node: LabNode) -> InstallError:
    with pytest.raises(InstallError) as caught:
        node.install()
    return caught.value


def old_state_after(health: Health, step: str, cause: str, restarts: int | None = None) -> None:
    """Install, and find the node as it was, with this step and cause (a regular expression) as the reason.

    Without a restart it never was anything else; with one it is again a minute after the install's begin.
    """
    starts, began = health.node.containerd_starts(), time.monotonic()
    error = failure(health.node)
    health.assert_old_state()
    took = time.monotonic() - began
    assert re.fullmatch(step, error.step), error
    assert re.search(cause, error.cause), error
    if restarts == 0:
        assert health.node.containerd_starts() == starts
    else:
        assert took < HEALTHY_WITHIN_S
    assert journal_state(health.node.host).get("state") != "committed"


@pytest.mark.failure_mode(9)
@pytest.mark.parametrize("folder", ["/opt/soci-cluster", "/var/lib/soci-cluster"])
def test_full_disk_is_refused(node: LabNode, health: Health, folder: str):
    """stargz#1349: a full disk left a half-written configuration."""
    node.sh(f"mkdir -p {folder} && mount -t tmpfs -o size=8m small {folder}")
    try:
        old_state_after(health, "preflight", "only 8 MiB are free", restarts=0)
    finally:
        node.sh(f"umount {folder}")


@pytest.mark.failure_mode(9)
@pytest.mark.parametrize(
    ("folder", "left", "step"),
    [
        ("/opt/soci-cluster", "1m", "unpack"),
        ("/var/lib/soci-cluster", "8k", "stage"),
        ("/var/lib/soci-cluster", STAGED_AND_LITTLE_MORE, "journal|snapshotter"),
        ("/etc/soci-snapshotter-grpc", "0", "snapshotter"),
    ],
)
def test_disk_that_fills_up_after_the_preflight_stops_the_install(
    node: LabNode, health: Health, monkeypatch: pytest.MonkeyPatch, *, folder: str, left: str, step: str
):
    """stargz#1349: somebody else takes the space while the install is at work."""
    node.sh(f"mkdir -p {folder} && mount -t tmpfs -o size=320m small {folder}")
    check = detect.check

    def then_fill(*arguments) -> None:
        check(*arguments)
        node.sh(f"mount -o remount,size={left if left != '0' else '4k'} {folder}")
        if left == "0":
            node.sh(f"head -c 4096 /dev/zero >{folder}/fill")

    monkeypatch.setattr(detect, "check", then_fill)
    try:
        old_state_after(health, step, "^(?!.*damaged).*([Nn]o space (is )?left)", restarts=0)
    finally:
        node.sh(f"umount {folder} && rmdir {folder}")


@pytest.mark.parametrize("folder", ["/etc/systemd/system", "/etc/containerd"])
def test_read_only_directory_is_refused_or_rolled_back(node: LabNode, health: Health, folder: str):
    """zeropod#109: a read-only host ended half changed."""
    node.sh(f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}")
    try:
        old_state_after(health, "preflight", f"{folder} is mounted read-only", restarts=0)
    finally:
        node.sh(f"umount {folder}")


@pytest.mark.failure_mode(8)
def test_configuration_that_is_a_mount_of_its_own_is_refused(node: LabNode, health: Health):
    """A rename cannot replace it, and a write in place would be torn by a power cut."""
    node.sh(f"mount --bind {CONFIG} {CONFIG}")
    try:
        old_state_after(health, "preflight", f"{CONFIG} is a mount point of its own", restarts=0)
    finally:
        node.sh(f"umount {CONFIG}")


def test_configuration_in_a_mounted_directory_is_changed_there(node: LabNode, health: Health):
    folder = CONFIG.rpartition("/")[0]
    node.sh(f"mount --bind {folder} {folder}")
    try:
        node.install()
        health.assert_new_state()
    finally:
        node.sh(f"umount {folder}")


@pytest.mark.failure_mode(13)
def test_daemon_that_dies_at_once_leaves_containerd_alone(node: LabNode, health: Health):
    """nydus-snapshotter#796: containerd was restarted onto a snapshotter that never came up."""
    node.plant_daemon('echo "no such flag" >&2; exit 1')
    old_state_after(health, "snapshotter", "no such flag", restarts=0)


@pytest.mark.full
@pytest.mark.failure_mode(13)
def test_daemon_that_never_answers_leaves_containerd_alone(node: LabNode, health: Health):
    """nydus-snapshotter#796."""
    node.plant_daemon("exec sleep 10000")
    old_state_after(health, "snapshotter", "did not start|does not answer", restarts=0)


@pytest.mark.full
@pytest.mark.failure_mode(12)
def test_containerd_is_restarted_only_after_a_late_daemon_answers(node: LabNode, health: Health):
    """nydus-snapshotter#796: the socket comes 60 seconds late."""
    node.plant_daemon(LATE)
    assert node.install().containerd_restarts == 1
    assert node.started_at("containerd") > node.started_at("soci-snapshotter") > 60
    health.assert_new_state()


@pytest.mark.failure_mode(15)
def test_containerd_that_refuses_the_new_configuration_gets_the_old_one_back(node: LabNode, health: Health):
    """aicr#1688: 149 restarts on a configuration that containerd does not start with."""
    health.replace_containerd(REFUSES)
    old_state_after(health, "restart", "the candidate is refused")


@pytest.mark.failure_mode(14)
def test_cri_plugin_that_does_not_load_is_a_failure(node: LabNode, health: Health):
    """coco-operator#483: containerd is active, so the install was called a success."""
    health.replace_containerd(LOADS_NO_CRI)
    old_state_after(health, "restart", "CRI plugin did not load")


@pytest.mark.failure_mode(19)
def test_stop_job_that_hangs_until_its_timeout_only_delays_the_install(node: LabNode, health: Health):
    """nvidia-container-toolkit#433: the result of the restart was not awaited."""
    node.write("/etc/systemd/system/containerd.service.d/hang.conf", "[Service]\nExecStop=/bin/sleep 10000\n")
    node.sh("systemctl daemon-reload")
    done = node.install()
    assert done.containerd_restarts == 1
    assert done.containerd_down_seconds > 3  # the node's DefaultTimeoutStopSec: the restart was awaited
    health.assert_new_state()


@pytest.mark.full
@pytest.mark.failure_mode(19)
@pytest.mark.failure_mode(21)
def test_stop_job_that_hangs_for_good_is_reported(node: LabNode, health: Health):
    """nvidia-container-toolkit#433; the node keeps serving meanwhile, and no mark says done."""
    drop_in = "/etc/systemd/system/containerd.service.d/hang.conf"
    node.write(drop_in, "[Service]\nExecStop=/bin/sleep 10000\nTimeoutStopSec=600\n")
    node.sh("systemctl daemon-reload")
    starts = node.containerd_starts()
    error = failure(node)
    assert error.step == "restart"
    assert "did not stop and start within 90 s: SubState=stop" in error.cause
    assert node.cri_answers()
    assert node.containerd_starts() == starts
    assert health.files | {drop_in: node.files()[drop_in]} == node.files()
    node.sh(f"rm {drop_in} && systemctl daemon-reload; pkill -x sleep || :")
    assert node.install().changed  # it rolls back what was left of the first try before
    health.assert_new_state()


@pytest.mark.failure_mode(37)
def test_two_installers_at_once_end_in_one_install(node: LabNode, health: Health):
    """No lock is shared by any installer of this kind: two of them wrote the file in turns."""
    results: list[Installed | InstallError] = []

    def run() -> None:
        try:
            results.append(node.install())
        except InstallError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    installed = [result for result in results if isinstance(result, Installed)]
    assert sum(result.containerd_restarts for result in installed) == 1, results
    for loser in (result for result in results if isinstance(result, InstallError)):
        assert loser.step == "lock"
        assert "changed while the install was being prepared" in loser.cause
    assert not node.install().changed
    health.assert_new_state()


@pytest.mark.parametrize(
    "moved_s", [-20 * 365 * 86400, 20 * 365 * 86400], ids=["20 years ago", "in 20 years"]
)
def test_wrong_clock_changes_nothing_about_install_and_retry(
    node: LabNode, health: Health, monkeypatch, moved_s
):
    """Only the agent's clock is moved: the lab's nodes share the machine's."""
    true_time = time.time
    health.replace_containerd(REFUSES)
    assert failure(node).step == "restart"
    node.sh("mv /usr/local/bin/containerd.real /usr/local/bin/containerd && systemctl restart containerd")
    monkeypatch.setattr(transaction.time, "time", lambda: true_time() + moved_s)
    assert node.install().containerd_restarts == 1
    health.assert_new_state()


@pytest.mark.failure_mode(21)
def test_same_change_is_not_tried_again_at_once_after_a_vain_restart(node: LabNode, health: Health):
    """gpu-operator#594 and RCM: the kubelet starts a failed installer again and again."""
    health.replace_containerd(REFUSES)
    first = failure(node)
    starts = node.containerd_starts()
    second = failure(node)
    assert (second.step, "not tried again yet" in second.cause) == (first.step, True)
    assert node.containerd_starts() == starts
    health.assert_old_state()


@pytest.mark.failure_mode(33)
def test_unit_of_the_operating_system_is_adopted_and_not_overwritten(node: LabNode, health: Health):
    """AL2023 carries a unit of the same name with another command, started by a socket."""
    node.fetch_release()
    node.sh(f"cp {PROGRAMS}/soci-snapshotter-grpc /usr/bin/")
    unit = "/etc/systemd/system/soci-snapshotter.service"
    socket = "/etc/systemd/system/soci-snapshotter.socket"
    node.write(
        unit, "[Service]\nType=notify\nExecStart=/usr/bin/soci-snapshotter-grpc --address fd://\nRestart=no\n"
    )
    path = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"
    node.write(
        socket, f"[Socket]\nListenStream={path}\nSocketMode=0660\n[Install]\nWantedBy=sockets.target\n"
    )
    node.sh("systemctl daemon-reload && systemctl enable --now soci-snapshotter.socket")
    before = node.sh(f"cat {unit} {socket}")
    assert node.install().containerd_restarts == 1
    assert node.sh(f"cat {unit} {socket}") == before
    running = node.sh("readlink /proc/$(systemctl show soci-snapshotter -p MainPID --value)/exe").strip()
    assert running == f"{PROGRAMS}/soci-snapshotter-grpc"
    health.assert_new_state()


@pytest.mark.failure_mode(17)
def test_ten_runs_without_change_restart_nothing(node: LabNode, health: Health):
    """gpu-operator#594, #712, dragonfly-charts#294: each pod of the installer runs the agent once."""
    node.install()
    starts, files = node.containerd_starts(), node.files()
    assert [node.install().changed for _ in range(10)] == [False] * 10
    assert (node.containerd_starts(), node.files()) == (starts, files)
    health.assert_new_state()


@pytest.mark.failure_mode(18)
def test_pods_that_are_created_and_deleted_across_the_restart_all_end_well(node: LabNode, pods: Pods):
    """gpu-operator#991, containerd#10437, amazon-eks-ami#1716: pods stuck in Created or Terminating."""
    doomed = [pods.start(node) for _ in range(3)]
    installer = threading.Thread(target=node.install)
    installer.start()
    created = [pods.create(node) for _ in range(3)]
    pods.delete(*doomed)
    installer.join()
    pods.await_running(*created)
    names = lambda: {pod.metadata.name for pod in pods.api.list_namespaced_pod("default").items}  # noqa: E731
    wait_for(lambda: not names() & set(doomed), 60, "deleted pods gone")


@pytest.mark.failure_mode(48)
def test_static_daemon_runs_without_the_nodes_c_library(node: LabNode):
    """AWS DLC guide: the dynamic build does not start on an older glibc."""
    node.fetch_release()
    node.sh(
        f"mkdir -p /tmp/empty && cp {PROGRAMS}/soci-snapshotter-grpc /tmp/empty/ &&"
        " chroot /tmp/empty /soci-snapshotter-grpc --version && rm -r /tmp/empty"
    )
