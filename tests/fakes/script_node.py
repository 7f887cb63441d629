"""A node's root as a directory, on which the host script runs for real with fakes of the daemons' tools.

The fakes in programs/ log their calls.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent import transaction
from agent.host import Host
from agent.slots import FIRST, Slot
from agent.transaction import File, Role

from tests.fakes.node import INSTALLER, tree

FAKES = Path(__file__).parent / "programs"
CONFIG = "/etc/containerd/config.toml"
OLD_CONFIG = b"version = 2 # the node's own\n"
IMAGES_TABLE = b'[plugins."io.containerd.grpc.v1.cri".containerd]\n'
NEW_CONFIG = OLD_CONFIG + IMAGES_TABLE + b'snapshotter = "soci"\n[proxy_plugins.soci]\n'
FLIPPED_CONFIG = NEW_CONFIG.replace(b'"soci"', b'"soci-b"') + b"[proxy_plugins.soci-b]\n"
MARK = "# Written by SociCluster\n"
BOOT = "/etc/systemd/system/soci-cluster-boot.service"
HELPER = "/opt/soci-cluster/credentials/docker-credential-soci-cluster"
PROVIDERS = "/opt/soci-cluster/credentials/providers"
HOOK = "/etc/systemd/system/containerd.service.d/10-soci-cluster.conf"

DATA = "/var/lib/soci-snapshotter-grpc/snapshotter/snapshots"
LAZY = f"""\
21 1 0:5 / / rw - ext4 /dev/sda rw
40 21 0:40 / {DATA}/6/fs rw,nodev - fuse.rawBridge soci rw
41 21 0:41 / /run/c/lazy/rootfs rw - overlay overlay rw,lowerdir={DATA}/6/fs:{DATA}/5/fs,upperdir={DATA}/9/fs
42 21 0:42 / /run/c/plain/rootfs rw - overlay overlay rw,lowerdir={DATA}/5/fs,upperdir={DATA}/8/fs,workdir=w
43 21 0:43 / /run/c/other/rootfs rw - overlay overlay rw,lowerdir=6/fs:5/fs,upperdir=/var/lib/containerd/9/fs
44 21 0:44 / /run/c/short/rootfs rw - overlay overlay rw,lowerdir=5/fs:6/fs,upperdir={DATA}/10/fs,workdir=w
45 21 0:45 / /run/c/new/rootfs rw - overlay o lowerdir+={DATA}/5/fs,lowerdir+={DATA}/6/fs,upperdir={DATA}/1/fs
"""


def furnish_layers(root: Path, count: int) -> None:
    """An image's unpacked layers, the topmost the first by name; each has a file of its number."""
    for number in range(1, count + 1):
        folder = root / f"var/lib/containerd/layers/{count - number}" / "fs"
        folder.mkdir(parents=True)
        folder.chmod(0o750)
        (folder / str(number)).write_text(f"layer {number}\n")


def program(version: str) -> str:
    """The daemon's program of a version."""
    return f"/opt/soci-cluster/versions/{version}/soci-snapshotter-grpc"


class ScriptNode:
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
        self.script = transaction.host_script(INSTALLER)
        self.host = Host(self.root)
        # Mode and content of managed files without our words at their beginning.
        self.credentials = {HELPER: ("0755", b"#!/bin/sh\n"), PROVIDERS: ("0600", b"provider one\n")}
        self.mount_table = self.fake / "mountinfo"
        self.mount_table.write_text("")

    def set(self, flag: str) -> None:
        (self.fake / flag).touch()

    def clear(self, flag: str) -> None:
        (self.fake / flag).unlink()

    def files(self, version: str = "1", slot: Slot = FIRST, config: bytes = NEW_CONFIG) -> list[File]:
        """The managed files of an install, as they are and as they shall be."""
        texts = {
            BOOT: ("recovery", f"{MARK}[Service]\nExecStart=/opt/soci-cluster/soci-host.sh boot\n"),
            HOOK: ("recovery", f"{MARK}[Unit]\n"),
            slot.config: ("daemon", f"{MARK}# {version}\n"),
            slot.unit_path: ("daemon", f"{MARK}[Service]\nExecStart={program(version)}\n"),
        }
        files = [
            File(Role(role), path, self.host.read(path), text.encode())
            for path, (role, text) in texts.items()
        ]
        recovery = [
            File(Role.RECOVERY, path, self.host.read(path), text, mode)
            for path, (mode, text) in self.credentials.items()
        ]
        return [*recovery, *files, File(Role.SHARED, CONFIG, self.host.read(CONFIG), config, "0640")]

    def stage(
        self,
        name: str = "1-a",
        version: str = "1",
        *,
        slot: Slot = FIRST,
        config: bytes = NEW_CONFIG,
        **plan: str,
    ) -> str:
        self.host.write(transaction.SCRIPT, self.script, 0o755)
        self.host.write(program(version), b"#!/bin/sh\n", 0o755)
        files = self.files(version, slot, config)
        is_first = self.host.read(CONFIG) == OLD_CONFIG
        fields = {
            "slot": slot.name,
            "slot_is_new": "1" if is_first else "0",
            "is_switch": "1" if is_first else "0",
            "snapshotter_action": "start",
            "containerd_restart": "1" if files[-1].is_changed else "0",
            "path": f"{FAKES}:{os.environ['PATH']}",
            "containerd_unit": "containerd.service",
            "kubelet_unit": "kubelet.service",
            "pause_image": "example.org/pause:1",
            "pause_archive": "/etc/eks/pause.tar",
            "deadline_seconds": "400",
            "containerd_program": str(FAKES / "containerd"),
            "containerd_config": CONFIG,
            "containerd_dump": transaction.sha256(config),
        }
        directory = self.host.path(transaction.stage(self.host, name, files, fields | plan))
        (directory / "carried").touch()
        return str(directory)

    @property
    def environment(self) -> dict[str, str]:
        """Of the script: what stands for the root, and fakes instead of the daemons' tools."""
        return {
            **os.environ,
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "FAKE": str(self.fake),
            "MOUNTINFO": str(self.mount_table),
        }

    def run(self, *arguments: str, cut_at_call: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the script to its end, or until a power cut at that call of a fake."""
        return self.run_command([*self.command(), *arguments], cut_at_call)

    def run_command(self, command: Sequence[str], cut_at_call: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            env={**self.environment, "CUT_AT_CALL": str(cut_at_call)},
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the script, as a process group of its own."""
        return subprocess.Popen(
            [*self.command(), *arguments],
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self) -> list[str]:
        return ["sh", str(self.root / "opt/soci-cluster/soci-host.sh")]

    def cut_at(self, call: str) -> None:
        """Cut the power at a call of systemctl, named ``<verb>-<unit>``."""
        (self.fake / f"on-{call}").write_text(f'rm "$FAKE/on-{call}" && kill -KILL 0\n')

    def apply(self, directory: str) -> transaction.Outcome:
        self.run("apply", directory)
        return transaction.parse_result((Path(directory) / "result").read_text())

    def install(self) -> None:
        outcome = self.apply(self.stage())
        assert outcome.outcome == "committed", f"{outcome.step}: {outcome.cause}"

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
