"""The host script's uninstall, run for real in a directory in place of the root, with fakes of its tools."""

import os
import shutil
from pathlib import Path

import pytest
from agent import transaction
from agent.kinds import UBUNTU_EKS
from agent.slots import FIRST, SECOND, Slot

from tests.fakes.node import tree
from tests.fakes.script_node import (
    CONFIG,
    DATA,
    FLIPPED_CONFIG,
    LAZY,
    NEW_CONFIG,
    OLD_CONFIG,
    ScriptNode,
)
from tests.fakes.sourced_script import call

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

UNIT = FIRST.unit_path
ADOPTION = FIRST.adoption
IMAGES = """\
example.org/pause:1 t d incomplete (1/2) 1 KiB/2 KiB false
example.org/lazy:1 t d incomplete (3/9) 1 KiB/2 GiB false
example.org/old:1 t d incomplete (3/9) 1 KiB/2 GiB true
example.org/whole:1 t d complete (9/9) 2 GiB/2 GiB false
"""


def in_use(node: ScriptNode) -> None:
    """A kubelet, two pods' containers under soci and one from before, images and snapshots."""
    node.set("active-kubelet.service")
    (node.fake / "containers").write_text("sandbox soci\napp soci\nearlier overlayfs\n")
    (node.fake / "tasks").write_text("sandbox 7 RUNNING\napp 8 RUNNING\nearlier 9 RUNNING\n")
    (node.fake / "images").write_text(IMAGES)
    (node.fake / "snapshots-soci").write_text("sha256:1 Committed\nsha256:2 sha256:1 Committed\n")
    (node.root / "var/lib/soci-snapshotter-grpc/snapshotter").mkdir(parents=True)
    (node.root / "run/soci-snapshotter-grpc").mkdir(parents=True)
    (node.fake / "calls").write_text("")


def test_snapshots_are_removed_children_first(node: ScriptNode) -> None:
    """Each is asked for once: the kubelet is stopped meanwhile, and a node can have thousands."""
    node.install()
    in_use(node)
    (node.fake / "snapshots-soci").write_text(
        "1 Committed\n2 1 Committed\n3 2 Active\n4 Committed\nextract-5-a sha256:9 2 Active\n"
    )
    assert node.run("remove").returncode == 0
    assert (node.fake / "snapshots-soci").read_text() == ""
    removed = [
        call.split(" rm ")[1] for call in node.calls("ctr --namespace k8s.io snapshots") if " rm " in call
    ]
    assert sorted(removed) == ["1", "2", "3", "4", "extract-5-a sha256:9"], "containerd: UnpackKeyFormat"


CONTENT = "sha256:c0f1 1kB 1min containerd.io/gc.ref.snapshot.{slot}={chain}\n"


@pytest.mark.failure_mode(41)
@pytest.mark.parametrize("slot", [FIRST, SECOND])
def test_no_record_of_a_layer_stays_whose_child_the_garbage_collection_took(
    node: ScriptNode, slot: Slot
) -> None:
    """containerd removes no layer with a child, and its garbage collection leaves a child's name behind
    (core/metadata/gc.go): every later pull of such a layer failed with "target snapshot already exists"."""
    node.install()
    if slot is SECOND:
        node.apply(node.stage("2-b", slot=SECOND, config=FLIPPED_CONFIG))
    in_use(node)
    (node.fake / "content").write_text(CONTENT.format(slot=slot.name, chain="sha256:2"))
    (node.fake / f"snapshots-{slot.name}").write_text("sha256:1 Committed\nsha256:2 sha256:1 Committed\n")
    (node.fake / "had-child").write_text("sha256:1\n")
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert (node.fake / f"snapshots-{slot.name}").read_text() == ""


@pytest.mark.failure_mode(41)
def test_no_record_of_a_layer_stays_that_the_daemon_has_not(node: ScriptNode) -> None:
    """Its store may have been wiped, and a daemon that does not start tells nothing of it."""
    node.install()
    in_use(node)
    (node.fake / "content").write_text(CONTENT.format(slot="soci", chain="sha256:4"))
    (node.fake / "records-soci").write_text("sha256:3\nsha256:4 sha256:3\n")
    assert node.run("remove").returncode == 0
    assert (node.fake / "records-soci").read_text() == ""


def test_image_volumes_of_pods_are_unmounted(node: ScriptNode) -> None:
    """containerd does it with the pod, which the kubelet, stopped meanwhile, cannot end."""
    node.install()
    in_use(node)
    volume = "/run/containerd/io.containerd.grpc.v1.cri/image-volumes/sandbox/image"
    node.mount_table.write_text(
        f"46 21 0:46 / {volume} rw - overlay o rw,lowerdir={DATA}/5/fs,upperdir={DATA}/9/fs\n"
    )
    done = node.run("remove", "--force")
    assert done.returncode == 0, done.stderr
    assert node.calls("umount") == [f"umount {volume}"]


def test_no_credential_stays_in_memory(node: ScriptNode) -> None:
    secret = node.root / "run/soci-cluster/pull-secrets/registry.example:5000"
    secret.parent.mkdir(parents=True)
    secret.write_text("{}\n")
    secret.parent.with_name("pull-secrets.problems").write_text("")
    node.install()
    in_use(node)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert not (node.root / "run/soci-cluster").exists()


@pytest.mark.failure_mode(40)
def test_remove_returns_the_node_byte_for_byte(node: ScriptNode) -> None:
    """The old configuration is also in effect again, by one restart (kata-containers#11072)."""
    (node.root / "run").mkdir()
    before = tree(node.root)
    node.install()
    in_use(node)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before
    assert node.calls("systemctl restart") == ["systemctl restart containerd.service"]
    assert (node.fake / "loaded-config").read_bytes() == OLD_CONFIG
    assert not (node.fake / "active-soci-snapshotter.service").exists()


def test_remove_takes_the_credentials_out_of_memory(node: ScriptNode) -> None:
    node.install()
    for path in ("credentials/registry.example", "pull-secrets/registry.example"):
        node.host.write(f"/run/soci-cluster/{path}", b"{}", 0o600)
    assert node.run("remove").returncode == 0
    assert not (node.root / "run/soci-cluster").exists()
    assert not (node.root / "opt/soci-cluster").exists()


def test_a_lost_record_makes_no_original_of_the_credential_helper(node: ScriptNode) -> None:
    """Its files do not begin with our words; all in our folder is ours."""
    node.install()
    shutil.rmtree(node.root / "var/lib/soci-cluster")
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    node.clear("active-soci-snapshotter.service")
    assert node.apply(node.stage("2-b")).outcome == "committed"
    originals = (node.root / "var/lib/soci-cluster/originals/files").read_text().splitlines()
    of_helper = [line.split("\t")[4] for line in originals if "/credentials/" in line]
    assert of_helper == ["absent"] * 2
    assert node.run("remove").returncode == 0
    assert not (node.root / "opt/soci-cluster").exists()


def test_directories_that_were_there_before_stay(node: ScriptNode) -> None:
    for path in ("var/lib/soci-snapshotter-grpc", "etc/systemd/system/containerd.service.d"):
        (node.root / path).mkdir()
    before = tree(node.root)
    node.install()
    assert node.run("remove").returncode == 0
    assert tree(node.root) == before


def test_a_directory_that_a_later_install_made_in_one_of_an_earlier_goes_first(node: ScriptNode) -> None:
    """One pass is all that the retirement of a daemon makes."""
    folders = ["/etc/soci-snapshotter-grpc-b", "/etc/soci-snapshotter-grpc-b/certificates"]
    for folder in folders:
        node.host.path(folder).mkdir(parents=True)
    state = node.root / "var/lib/soci-cluster"
    node.host.write(
        f"{transaction.STATE}/originals/folders", "".join(f"{path}\n" for path in folders).encode()
    )
    call(f"ROOT={node.root} && remove_folders {state}")
    assert not any(node.host.exists(folder) for folder in folders)


@pytest.mark.failure_mode(24)
@pytest.mark.failure_mode(41)
def test_install_and_remove_any_number_of_times(node: ScriptNode) -> None:
    """kata-containers#10167."""
    before = tree(node.root)
    for round_ in range(3):
        assert node.apply(node.stage(f"{round_}-a")).outcome == "committed"
        assert node.run("remove").returncode == 0
        assert tree(node.root) == before


def test_containers_go_gently_and_the_kubelet_does_not_see_it(node: ScriptNode) -> None:
    """Their records outlive the restart: the kubelet takes the pods' networks down by them."""
    node.install()
    in_use(node)
    assert node.run("remove").returncode == 0
    calls = node.calls(
        "systemctl stop kubelet", "systemctl restart containerd", "systemctl start kubelet", "ctr"
    )
    wanted = [
        "systemctl stop kubelet.service",
        "ctr --namespace k8s.io tasks kill app",
        "ctr --namespace k8s.io tasks rm --force app",
        "ctr --namespace k8s.io snapshots --snapshotter soci rm sha256:1",
        "systemctl restart containerd.service",
        "ctr --namespace k8s.io containers rm --keep-snapshot app",
        "systemctl start kubelet.service",
    ]
    assert [call for call in calls if call in wanted] == wanted
    assert not any("earlier" in call for call in calls if "info" not in call)


def test_the_kubelet_is_stopped_and_started_by_the_name_of_its_own_unit(node: ScriptNode) -> None:
    """Ubuntu's image for EKS has it as a snap (H18): it would make containers while they are taken away."""
    unit = UBUNTU_EKS.kubelet_unit
    assert node.apply(node.stage(kubelet_unit=unit)).outcome == "committed"
    in_use(node)
    node.clear("active-kubelet.service")
    node.set(f"active-{unit}")
    assert node.run("remove").returncode == 0
    restart = "systemctl restart containerd.service"
    changes = node.calls("systemctl stop", "systemctl start", restart)
    of_both = [call for call in changes if "kubelet" in call or call == restart]
    assert of_both == [f"systemctl stop {unit}", restart, f"systemctl start {unit}"]
    assert (node.fake / f"active-{unit}").exists()


def test_images_that_only_soci_could_unpack_are_pulled_again(node: ScriptNode) -> None:
    """A lazily loaded image has no blobs; the kubelet takes it for present (soci#1389)."""
    node.install()
    in_use(node)
    assert node.run("remove").returncode == 0
    assert node.calls("ctr --namespace k8s.io images rm --sync") == [
        "ctr --namespace k8s.io images rm --sync example.org/lazy:1"
    ]


@pytest.mark.parametrize("source", ["archive", "registry"])
def test_pause_is_startable_before_anything_goes(node: ScriptNode, source: str) -> None:
    """amazon-eks-ami#2710: on EKS the pause image cannot be pulled."""
    node.install()
    in_use(node)
    node.set("no-pause")
    if source == "archive":
        node.set("no-registry")
        node.host.write("/etc/eks/pause.tar", b"tar")
    assert node.run("remove").returncode == 0
    calls = node.calls("ctr --namespace k8s.io run", "systemctl stop kubelet")
    assert "--snapshotter overlayfs example.org/pause:1" in calls[0]
    assert calls.index("systemctl stop kubelet.service") == 2


@pytest.mark.failure_mode(29)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no-pause", "the sandbox image example.org/pause:1 does not start under overlayfs"),
        ("original-refused", "invalid configuration"),
        ("lazy", "lazily loaded containers are running: default/pod-of-lazy new short"),
        ("no-answer", "containerd does not answer"),
    ],
)
def test_refused_in_words_with_nothing_changed(node: ScriptNode, fault: str, reason: str) -> None:
    """Layers mounted lazily would be broken for good (soci#275, #1648); without pause no pod could start."""
    node.install()
    in_use(node)
    (node.fake / "containers").write_text("lazy soci\n")
    node.set("no-registry")
    node.set(fault)
    if fault == "lazy":
        node.mount_table.write_text(LAZY)
    before = node.etc()
    done = node.run("remove")
    assert done.returncode == 1
    assert reason in done.stderr
    assert node.etc() == before
    assert node.is_installed()
    assert node.journal() == "committed"
    assert node.calls("systemctl restart", "ctr --namespace k8s.io tasks kill") == []
    assert (node.fake / "active-kubelet.service").exists()
    if fault == "no-answer":
        return
    asked = node.run("removable")
    assert asked.returncode == 1
    assert reason in asked.stderr


def test_forced_under_lazy_containers(node: ScriptNode) -> None:
    node.install()
    node.mount_table.write_text(LAZY)
    (node.fake / "containers").write_text("lazy soci\nplain soci\nshort soci\nnew soci\n")
    assert node.run("remove", "--force").returncode == 0
    assert not node.host.exists(transaction.STATE)


def test_files_of_containers_that_do_not_end_are_not_deleted(node: ScriptNode) -> None:
    """A shim that hangs, or a container of another tool: its directory is in use, whatever is forced."""
    node.install()
    node.mount_table.write_text(LAZY)
    (node.fake / "containers").write_text("lazy soci\nplain soci\nshort soci\nnew soci\n")
    kept = node.root / "var/lib/soci-snapshotter-grpc/snapshotter"
    kept.mkdir(parents=True)
    node.set("hung")
    done = node.run("remove", "--force")
    assert done.returncode == 1
    assert "did not end" in done.stderr
    assert node.is_installed()
    assert (node.journal(), kept.exists()) == ("committed", True)


@pytest.mark.failure_mode(37)
def test_a_file_that_others_changed_is_refused(node: ScriptNode) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(b"version = 2 # and nvidia\n")
    done = node.run("remove")
    assert done.returncode == 1
    assert "changed by someone" in done.stderr
    assert node.host.read(CONFIG) == b"version = 2 # and nvidia\n"
    assert node.run("remove", "--force").returncode == 0


def test_what_others_wrote_before_our_next_install_is_not_lost_either(node: ScriptNode) -> None:
    """The next version's install takes the file over as it is; the original lacks what others wrote."""
    node.install()
    changed = NEW_CONFIG + b"# and nvidia\n"
    node.host.path(CONFIG).write_bytes(changed)
    directory = node.stage("2-b", version="2", config=changed, snapshotter_action="restart")
    assert node.apply(directory).outcome == "committed"
    done = node.run("remove")
    assert done.returncode == 1
    assert "changed by someone" in done.stderr
    assert node.host.read(CONFIG) == changed


@pytest.mark.failure_mode(40)
@pytest.mark.parametrize("fault", ["restart", "cri", "soci-stays"])
def test_containerd_that_does_not_come_back_is_told_and_put_back(node: ScriptNode, fault: str) -> None:
    """zeropod drops the restart's result; coco-operator#483: active, but its CRI plugin is not loaded."""
    node.install()
    in_use(node)
    flags = {
        "restart": "fail-restart-containerd.service-without-soci",
        "cri": "cri-fails-without-soci",
        "soci-stays": "soci-stays",
    }
    node.set(flags[fault])
    done = node.run("remove")
    assert done.returncode == 1
    assert "SOCI was put in place again" in done.stderr
    assert done.stderr.startswith("verify-plugins: ") is (fault == "soci-stays")
    assert node.is_installed()
    assert node.journal() == "committed"
    assert (node.fake / "loaded-config").read_bytes() == NEW_CONFIG
    assert (node.fake / "active-kubelet.service").exists()
    node.clear(flags[fault])
    assert node.run("remove").returncode == 0


def test_a_kubelet_that_cannot_be_stopped_leaves_the_node_installed(node: ScriptNode) -> None:
    node.install()
    in_use(node)
    node.set("fail-stop-kubelet.service")
    assert node.run("remove").returncode == 1
    assert node.is_installed()
    assert node.journal() == "committed"


@pytest.mark.failure_mode(33)
@pytest.mark.parametrize("was_active", [True, False])
def test_a_unit_of_the_operating_system_goes_back_to_what_it_was(node: ScriptNode, was_active: bool) -> None:
    """nodeadm's unit is adopted by a drop-in; its data directory is the system's, too."""
    node.host.write(UNIT, b"[Service] # of the system\n")
    data = node.root / "var/lib/soci-snapshotter-grpc"
    data.mkdir()
    (data / "theirs").touch()
    if was_active:
        node.set("active-soci-snapshotter.service")
    before = tree(node.root)
    directory = Path(node.stage())
    text = (directory / "files").read_text()
    name = UNIT.strip("/").replace("/", ".")
    (directory / "new" / name).rename(directory / "new" / f"{name}.d.50-soci-cluster.conf")
    lines = [line.split("\t") for line in text.splitlines()]
    for fields in lines:
        if fields[1] == UNIT:
            fields[1], fields[4], fields[6] = ADOPTION, "absent", f"{name}.d.50-soci-cluster.conf"
    (directory / "files").write_text("".join("\t".join(fields) + "\n" for fields in lines))
    assert node.apply(str(directory)).outcome == "committed"
    assert node.host.exists(ADOPTION)
    (node.fake / "calls").write_text("")
    assert node.run("remove").returncode == 0
    assert tree(node.root) == before
    assert (node.fake / "active-soci-snapshotter.service").exists() == was_active
    restarted = "systemctl restart soci-snapshotter.service" in node.calls("systemctl restart")
    assert restarted == was_active


SOCI_OF_THE_SYSTEM = (
    "[proxy_plugins]\n  [proxy_plugins.soci]\n"
    "[plugins.'io.containerd.cri.v1.images']\n  snapshotter = 'soci'\n"
)


def test_a_snapshotter_that_was_soci_before_keeps_its_containers(node: ScriptNode) -> None:
    """The system itself had chosen SOCI (EKS FastImagePull): only the configuration goes back."""
    node.host.path(CONFIG).write_bytes(NEW_CONFIG)
    (node.fake / "loaded-config").write_bytes(NEW_CONFIG)
    node.install()
    in_use(node)
    (node.fake / "original-dump").write_text(SOCI_OF_THE_SYSTEM)
    assert node.run("remove").returncode == 0
    words = ("ctr --namespace k8s.io tasks", "ctr --namespace k8s.io snapshots", "systemctl stop kubelet")
    assert node.calls(*words) == []


def test_a_snapshotter_that_was_soci_before_is_checked_as_any_other(node: ScriptNode) -> None:
    """What containerd runs with after the restart is not what the node's own files said before."""
    node.install()
    (node.fake / "original-dump").write_text(SOCI_OF_THE_SYSTEM)
    done = node.run("remove")
    assert done.returncode == 1
    assert done.stderr.startswith("verify-snapshotter: ")
    assert "its snapshotter is overlayfs, not soci; SOCI was put in place again" in done.stderr


@pytest.mark.failure_mode(33)
def test_the_daemon_that_the_operating_system_brought_stays_where_ours_ran_beside_it(
    node: ScriptNode,
) -> None:
    """Lazily loaded containers ran on it at the first install, side by side; it was never adopted."""
    node.host.write(UNIT, b"[Service] # of the system\n")
    node.host.path(CONFIG).write_bytes(NEW_CONFIG)
    (node.fake / "loaded-config").write_bytes(NEW_CONFIG)
    (node.fake / "original-dump").write_text(SOCI_OF_THE_SYSTEM)
    data = node.root / "var/lib/soci-snapshotter-grpc"
    data.mkdir()
    (data / "theirs").touch()
    node.set(f"active-{FIRST.unit}")
    before = tree(node.root)
    plan = {"slot_is_new": "1", "is_switch": "1"}
    directory = node.stage(slot=SECOND, config=FLIPPED_CONFIG, **plan)
    assert node.apply(directory).outcome == "committed"
    assert (node.root / "var/lib/soci-cluster/originals/snapshotter-was").read_text() == "active\n"
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before
    assert (node.fake / f"active-{FIRST.unit}").exists()


def test_pods_that_came_back_between_two_tries_are_ended_like_the_others(node: ScriptNode) -> None:
    """Whoever failed to restore the files started the kubelet again, and containerd still ran with soci."""
    node.install()
    in_use(node)
    node.set("fail-daemon-reload-daemon-reload")
    assert node.run("remove").returncode == 1
    assert node.journal() == "restoring"
    assert (node.fake / "active-kubelet.service").exists()
    node.clear("fail-daemon-reload-daemon-reload")
    (node.fake / "containers").write_text("again soci\n")
    (node.fake / "tasks").write_text("again 9 RUNNING\n")
    node.mount_table.write_text(LAZY.replace("/run/c/lazy/", "/run/c/again/").splitlines(True)[2])
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    ended = node.calls("ctr --namespace k8s.io tasks kill again", "systemctl restart containerd")
    assert ended == ["ctr --namespace k8s.io tasks kill again", "systemctl restart containerd.service"]


@pytest.mark.parametrize("gone", ["programs", "script-only", "record"])
def test_half_deleted_by_hand(node: ScriptNode, gone: str) -> None:
    before = tree(node.root)
    node.install()
    program = node.root / "opt/soci-cluster"
    if gone == "programs":
        shutil.rmtree(program / "versions")
    elif gone == "script-only":
        shutil.rmtree(program)
        node.host.write(transaction.SCRIPT, node.script, 0o755)
    else:
        shutil.rmtree(node.root / transaction.STATE.strip("/"))
    done = node.run("remove")
    if gone == "record":
        assert done.returncode == 1
        assert "is gone: replace the node" in done.stderr
        assert node.is_installed()
        assert (program / "versions").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert tree(node.root) == before


def test_nothing_to_remove_is_no_failure(node: ScriptNode) -> None:
    before = tree(node.root)
    node.host.write(transaction.SCRIPT, node.script, 0o755)
    assert node.run("removable").returncode == 0
    assert node.run("remove").returncode == 0
    assert tree(node.root) == before


def test_an_install_that_was_cut_short_is_undone_first(node: ScriptNode) -> None:
    before = tree(node.root)
    node.stage()
    node.cut_at("daemon-reload-daemon-reload")
    node.run("apply", node.stage("2-b"))
    assert node.journal() == "armed"
    assert node.run("remove").returncode == 0
    assert tree(node.root) == before


def test_no_install_begins_in_an_uninstall_that_has_not_ended(node: ScriptNode) -> None:
    node.install()
    in_use(node)
    node.cut_at("stop-kubelet.service")
    node.run("remove")
    assert node.journal() == "removing"
    outcome = node.apply(node.stage("2-b"))
    assert (outcome.outcome, outcome.cause) == ("unchanged", "an uninstall has not ended")
    node.run("rollback", "1-a")
    assert node.journal() == "removing"


def test_directory_that_was_made_for_copies_goes_where_nothing_was_ever_installed(node: ScriptNode) -> None:
    """The installer was deleted while layers were copied: all there is, is the record of the directory."""
    before = tree(node.root)
    node.host.write(transaction.SCRIPT, node.script, 0o755)
    data = "/var/lib/soci-snapshotter-grpc"
    node.host.write("/var/lib/soci-cluster/originals/folders", f"{data}\n".encode())
    node.host.path(f"{data}/carried-by-soci-cluster").mkdir(parents=True)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before


def test_unit_of_the_user_that_calls_the_script_is_no_install(node: ScriptNode) -> None:
    node.host.write(transaction.SCRIPT, node.script, 0o755)
    node.host.write("/var/lib/soci-cluster/lock", b"")
    text = b"[Service]\nExecStart=/opt/soci-cluster/soci-host.sh status\n"
    node.host.write("/etc/systemd/system/their-look.service", text)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr


def test_files_of_an_install_whose_record_is_lost_are_not_taken_for_the_nodes_own(node: ScriptNode) -> None:
    """/var/lib came back empty, /etc stayed: the next install begins anew."""
    node.install()
    shutil.rmtree(node.host.path(transaction.STATE))
    node.host.path(CONFIG).write_bytes(OLD_CONFIG)
    assert node.apply(node.stage("2-b")).outcome == "committed"
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert set(node.etc()) == {CONFIG.removeprefix("/etc/")}
