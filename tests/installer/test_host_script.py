"""The host script, run for real in a directory that stands for the root, with fakes of the daemons' tools.

The fakes in fakes/ log their calls. What a power cut leaves is found by a kill at each of its renames.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from agent import transaction
from agent.host import Host
from agent.transaction import File
from fake_node import INSTALLER, tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

FAKES = Path(__file__).parent / "fakes"
CONFIG = "/etc/containerd/config.toml"
OLD_CONFIG = b"version = 2 # the node's own\n"
NEW_CONFIG = b'version = 2 # the node\'s own\n[proxy_plugins.soci]\ntype = "snapshot"\n'
SOCI_CONFIG = "/etc/soci-snapshotter-grpc/config.toml"
UNIT = "/etc/systemd/system/soci-snapshotter.service"
BOOT = "/etc/systemd/system/soci-cluster-boot.service"
HOOK = "/etc/systemd/system/containerd.service.d/10-soci-cluster.conf"


class Node:
    """A node's root, the state of its fake daemons, and the script on it."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        self.fake = path / "fake"
        self.fake.mkdir(parents=True)
        config = self.root / CONFIG.lstrip("/")
        config.parent.mkdir(parents=True)
        config.write_bytes(OLD_CONFIG)
        config.chmod(0o640)
        (self.root / "etc/systemd/system").mkdir(parents=True)
        (self.root / "opt").mkdir()
        (self.root / "var/lib").mkdir(parents=True)
        self.set("active-containerd.service")
        (self.fake / "loaded-config").write_bytes(OLD_CONFIG)
        self.host = Host(self.root)
        self.mount_table = self.fake / "mountinfo"
        self.mount_table.write_text("")

    def set(self, flag: str) -> None:
        (self.fake / flag).touch()

    def clear(self, flag: str) -> None:
        (self.fake / flag).unlink()

    def files(self, version: str = "1") -> list[File]:
        """The managed files of an install, as they are and as they shall be."""
        texts = {
            SOCI_CONFIG: f"# {version}\n",
            UNIT: f"[Service] # {version}\n",
            BOOT: "[Service] # boot\n",
            HOOK: "[Unit] # hook\n",
        }
        files = [File("soci", path, self.host.read(path), text.encode()) for path, text in texts.items()]
        return [*files, File("containerd", CONFIG, self.host.read(CONFIG), NEW_CONFIG, "0640")]

    def stage(self, name: str = "1-a", version: str = "1", **plan: str) -> str:
        self.host.write(transaction.SCRIPT, (INSTALLER / "soci-host.sh").read_bytes(), 0o755)
        (self.root / "opt/soci-cluster/versions" / version).mkdir(parents=True, exist_ok=True)
        files = self.files(version)
        fields = {
            "version": version,
            "snapshotter_action": "start",
            "containerd_restart": "1" if files[-1].is_changed else "0",
            "path": f"{FAKES}:{os.environ['PATH']}",
            "pause_image": "example.org/pause:1",
            "deadline_seconds": "400",
        }
        return str(
            self.host.path(transaction.stage(self.host, name, files, fields | plan, ["old.example/image:1"]))
        )

    def run(
        self, *arguments: str, cut_at: int = 0, cut_after: bool = False
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "FAKE": str(self.fake),
            "MOUNTINFO": str(self.mount_table),
            "CUT_AT": str(cut_at),
            "CUT_AFTER": "1" if cut_after else "",
        }
        (self.fake / "renames").unlink(missing_ok=True)
        return subprocess.run(
            ["sh", str(self.root / "opt/soci-cluster/soci-host.sh"), *arguments],
            check=False,
            env=environment,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def apply(self, directory: str) -> transaction.Outcome:
        self.run("apply", directory)
        return transaction.parse_result((Path(directory) / "result").read_text())

    def install(self) -> None:
        assert self.apply(self.stage()).outcome == "committed"

    def calls(self, *starts: str) -> list[str]:
        lines = (self.fake / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith(starts)]

    def journal(self) -> str:
        return transaction.journal_state(self.host).get("state", "")

    def etc(self) -> dict[str, tuple[int, bytes]]:
        return {
            path: entry
            for path, entry in tree(self.root / "etc").items()
            if (self.root / "etc" / path).is_file()
        }

    def is_installed(self) -> bool:
        wanted = {file.path: file.new for file in self.files()}
        return all(self.host.read(path) == content for path, content in wanted.items())


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


@pytest.mark.failure_mode(37)
@pytest.mark.parametrize("is_made_from_ours", [False, True])
def test_rollback_takes_back_ours_and_no_other_tools_write(node: Node, is_made_from_ours: bool) -> None:
    """gpu-operator#301: NVIDIA's toolkit wrote the file between our swap and the failure."""
    node.install()
    journal = node.host.path(f"{transaction.STATE}/journal")
    journal.write_text(journal.read_text().replace("committed", "restarting"))
    soci = b'[proxy_plugins.soci]\naddress = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"\n'
    written = OLD_CONFIG + b"[plugins.nvidia]\n" + (soci if is_made_from_ours else b"")
    node.host.path(CONFIG).write_bytes(written)
    node.run("boot")
    assert node.host.read(CONFIG) == (OLD_CONFIG if is_made_from_ours else written)
    assert node.host.read(UNIT) is None


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


def test_remove_returns_the_node_byte_for_byte(node: Node) -> None:
    """The old configuration is also in effect again, by one restart (kata-containers#11072)."""
    before = tree(node.root)
    node.install()
    (node.root / "var/lib/soci-snapshotter-grpc/snapshotter").mkdir(parents=True)
    (node.fake / "calls").write_text("")
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert tree(node.root) == before
    assert node.calls("systemctl restart") == ["systemctl restart containerd.service"]
    assert (node.fake / "loaded-config").read_bytes() == OLD_CONFIG


def test_install_remove_install(node: Node) -> None:
    """kata-containers#10167."""
    node.install()
    assert node.run("remove").returncode == 0
    node.install()
    assert node.is_installed()


@pytest.mark.parametrize("cut_at", range(1, 6))
def test_power_cut_in_remove_ends_on_the_original(node: Node, cut_at: int) -> None:
    before = node.etc()
    node.install()
    node.run("remove", cut_at=cut_at)
    if node.host.exists(HOOK):
        node.run("boot")
    if node.journal() == "committed":
        assert node.is_installed()
    else:
        assert node.host.read(CONFIG) == OLD_CONFIG
    if node.host.exists(transaction.SCRIPT):
        assert node.run("remove").returncode == 0
    assert set(node.etc()) - set(before) <= {"containerd/config.toml.soci-cluster-new"}


def test_remove_refuses_a_file_that_others_changed(node: Node) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(b"version = 2 # and nvidia\n")
    done = node.run("remove")
    assert done.returncode == 1
    assert "changed by someone" in done.stderr
    assert node.host.read(CONFIG) == b"version = 2 # and nvidia\n"
    assert node.run("remove", "--force").returncode == 0


DATA = "/var/lib/soci-snapshotter-grpc/snapshotter/snapshots"
LAZY = f"""\
21 1 0:5 / / rw - ext4 /dev/sda rw
40 21 0:40 / {DATA}/6/fs rw,nodev - fuse.rawBridge soci rw
41 21 0:41 / /run/c/lazy/rootfs rw - overlay overlay rw,lowerdir={DATA}/6/fs:{DATA}/5/fs,upperdir={DATA}/9/fs
42 21 0:42 / /run/c/plain/rootfs rw - overlay overlay rw,lowerdir={DATA}/5/fs,upperdir={DATA}/8/fs,workdir=w
43 21 0:43 / /run/c/other/rootfs rw - overlay overlay rw,lowerdir=6/fs:5/fs,upperdir=/var/lib/containerd/9/fs
44 21 0:44 / /run/c/short/rootfs rw - overlay overlay rw,lowerdir=5/fs:6/fs,upperdir={DATA}/10/fs,workdir=w
45 21 0:45 / /run/c/new rw - overlay o rw,lowerdir+={DATA}/5/fs,lowerdir+={DATA}/6/fs,upperdir={DATA}/1/fs
"""


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


def test_remove_refuses_under_lazy_containers(node: Node) -> None:
    node.install()
    node.mount_table.write_text(LAZY)
    done = node.run("remove")
    assert done.returncode == 1
    assert "drain the node first" in done.stderr
    assert node.is_installed()


def test_upgrade_and_back(node: Node) -> None:
    """RCM#577: version n+1 replaces n and back again; the first original stays the one to return to."""
    original = node.etc()
    node.install()
    assert node.apply(node.stage("2-b", version="2", snapshotter_action="restart")).outcome == "committed"
    assert node.apply(node.stage("3-c", version="1", snapshotter_action="restart")).outcome == "committed"
    assert [path.name for path in (node.root / "opt/soci-cluster/versions").iterdir()] == ["1"]
    assert node.run("remove").returncode == 0
    assert node.etc() == original
