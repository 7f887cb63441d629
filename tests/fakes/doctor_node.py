"""A node on which SOCI serves, as the doctor reads it; a test then makes it worse."""

import contextlib
import hashlib
import json
import socket
import tempfile
import tomllib
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path

from agent import (
    containerd_config,
    credential_helper,
    daemon_words,
    doctor,
    images,
    slots,
    soci_config,
    soci_registries,
    transaction,
    tuning,
)
from agent.host import Result

from tests.fakes.ctr import FakeCtr
from tests.fakes.node import FakeHost
from tests.fakes.settings import agent_settings

MIB = 1 << 20
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
CONTAINERD_PID, DAEMON_PID, KUBELET_PID = 5, 7, 9
PIDS = {"containerd.service": CONTAINERD_PID, slots.FIRST.unit: DAEMON_PID, "kubelet.service": KUBELET_PID}
START = "7eec2d4e340e443e991da52d72421985"
ROOT_FILE = "/etc/containerd/config.toml"
EFFECTIVE = """\
version = 3
root = "/var/lib/containerd"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "soci"
disable_snapshot_annotations = false
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"
"""
SAMPLE = "registry.example/sample:1"
REGISTRY = "registry.example"


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _mount_point(container: str) -> str:
    return f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}/rootfs"


class DoctorNode(FakeHost):
    """An installed node in lazy mode, with one lazily loaded image and its pod."""

    def __init__(self, root: Path, payload: Path) -> None:
        super().__init__(root)
        self.payload = payload
        self.units = dict.fromkeys(PIDS, "active")
        self.effective = EFFECTIVE
        self.ctr = FakeCtr()
        self.ctr.active = ["pod sha256:x"]
        self.mounted: list[str] = []  # lines of mountinfo
        self.dead: dict[str, str] = {}  # mount point to what `ls` says
        self.journal: list[str] = []
        self.not_restored: list[str] = []
        self.unread: list[str] = []  # lines of the journal on what could not be read
        self.verified = "outcome=verified\n"
        self.was_verified = False
        self.sources = f"{REGISTRY} provider ecr-credential-provider\n"  # what the credential helper says
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.answers = {
            "systemctl": self._systemctl,
            "containerd": self._containerd,
            "env": self._env,
            "sh": self._sh,
            "/soci": lambda command, text: Result(0, "soci-snapshotter-grpc version v0.16.1", ""),
            "/kubelet": lambda command, text: Result(0, "Kubernetes v1.34.4", ""),
        }
        self._furnish()
        self.add(SAMPLE, [(MIB, GZIP, False), (200 * MIB, GZIP, True), (90 * MIB, GZIP, True)], index="v2")
        self.run_pod("reader")

    def put(self, path: str, text: str) -> None:
        """Write a file of the node."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def install(self, *paths: str) -> None:
        """Record these files as they are now as those of the installer."""
        lines = []
        for path in paths:
            known = transaction.sha256(self.read(path))
            lines.append("\t".join(("daemon", path, "0644", "0:0", "absent", known, path)) + "\n")
        self.put(f"{transaction.STATE}/current/files", "".join(lines))

    def add(
        self,
        name: str,
        layers: Sequence[tuple[int, str, bool]],
        index: str = "",
        others_indexed: bool = False,
    ) -> list[str]:
        """Unpack an image whose layers have a size, a media type, and are lazily loaded or not, with an index
        of version 2 or without; the chain IDs."""
        diff_ids = [digest(f"{name} {number}") for number in range(len(layers))]
        config = {"rootfs": {"diff_ids": diff_ids}}
        chains = images.chain_ids(diff_ids)
        manifest = {
            "config": {"digest": digest(f"{name} config")},
            "layers": [
                {"digest": digest(f"{name} blob {number}"), "size": size, "mediaType": kind}
                for number, (size, kind, _) in enumerate(layers)
            ],
            "annotations": {"com.amazon.soci.index-digest": digest("index")} if index == "v2" else {},
        }
        top = {
            "manifests": [
                {"digest": digest(f"{name} manifest"), "annotations": manifest["annotations"]},
                {
                    "digest": digest("of another platform"),
                    "annotations": {"com.amazon.soci.index-digest": "x"} if others_indexed else {},
                },
            ]
        }
        gc = "containerd.io/gc.ref"
        labels = {
            "config": {f"{gc}.snapshot.soci": chains[-1], "containerd.io/distribution.source.x": "y"},
            "manifest": {f"{gc}.content.config": digest(f"{name} config")},
            "index": {f"{gc}.content.m.0": digest(f"{name} manifest"), f"{gc}.content.m.1": "sha256:absent"},
        }
        for kind, blob in (("config", config), ("manifest", manifest), ("index", top)):
            self.ctr.labels[digest(f"{name} {kind}")] = labels[kind]
            path = digest(f"{name} {kind}").removeprefix("sha256:")
            self.put(f"/var/lib/containerd/{doctor.BLOBS}/{path}", json.dumps(blob))
        for known_as in (name, digest(f"{name} config")):
            self.ctr.add(known_as, "complete", digest=digest(f"{name} index"))
        for chain, (_, _, is_lazy) in zip(chains, layers, strict=True):
            self.ctr.snapshots.append(f"{chain} {chain}")
            self.ctr.usage[chain] = "0 0" if is_lazy else "4096 1"
            if is_lazy:
                self.mount()
        return list(chains)

    def mount(self) -> None:
        """One more layer that the daemon serves."""
        point = f"{slots.FIRST.data}/snapshotter/snapshots/{len(self.mounted)}/fs"
        self.mounted.append(f"9 9 0:1 / {point} rw shared:1 - fuse.rawBridge soci rw\n")
        self.put("/proc/1/mountinfo", "".join(self.mounted))

    def run_pod(self, name: str) -> str:
        """A pod of SOCI's; the mount point of its container."""
        self.ctr.containers[f"{name}-container"] = (name, SAMPLE)
        return _mount_point(f"{name}-container")

    def examine(self) -> dict:
        return doctor.examine(self, self.payload, "node1", "6.1")

    def found(self) -> dict[str, str]:
        """Each finding: its id and its subject."""
        return {finding["id"]: finding["subject"] for finding in self.examine()["findings"]}

    def _furnish(self) -> None:
        settings = agent_settings(index_versions=["v2", "v1"])
        (self.payload / "settings.json").write_text(json.dumps(asdict(settings)))
        (self.payload / "host").mkdir()
        (self.payload / "host" / "00-head.sh").write_text("# the host script\n")
        self.put("/etc/os-release", "ID=debian\n")
        self.put("/proc/filesystems", "nodev\toverlay\nnodev\tfuse\n")
        self.put("/proc/uptime", "1000.0 900.0\n")
        self.put("/dev/fuse", "")
        self.put(f"/proc/{DAEMON_PID}/status", "Name:\tsoci\nVmRSS:\t   41652 kB\n")
        self.put(f"/proc/{DAEMON_PID}/oom_score_adj", "-999\n")
        self.put(f"/proc/{DAEMON_PID}/cmdline", f"/soci\0--config\0{slots.FIRST.config}\0")
        self.put(f"/proc/{DAEMON_PID}/stat", f"7 (a b) S {'0 ' * 18}5000 0\n")
        self.put(f"/proc/{KUBELET_PID}/cmdline", "/kubelet\0--config=/etc/kubelet.yaml\0")
        self.put(f"/proc/{KUBELET_PID}/comm", "kubelet\n")
        self.put(f"/proc/{KUBELET_PID}/cgroup", "0::/system.slice/kubelet.service\n")
        self.put(f"/proc/{KUBELET_PID}/environ", "PATH=/bin\0")
        self.put(f"/proc/{DAEMON_PID}/environ", f"PATH=/bin\0DOCKER_CONFIG={credential_helper.FOLDER}\0")
        self.put("/etc/kubelet.yaml", "kind: KubeletConfiguration\n")
        self.put(credential_helper.HELPER, "#!/bin/sh\n")
        self.put(ROOT_FILE, EFFECTIVE)
        self.put(f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml", f'server = "http://{REGISTRY}"\n')
        effective = containerd_config.flatten(tomllib.loads(EFFECTIVE))
        told = soci_registries.read(self, effective, (2, 3, 7), settings.mode)
        self.put(
            slots.FIRST.config,
            soci_config.render(settings, told, False, tuning.choose(tuning.Hardware()), slots.FIRST),
        )
        self.put(f"{transaction.STATE}/journal", "state=committed\ntransaction=1\n")
        plan = f"slot=soci\ncontainerd_program=containerd\ncontainerd_config={ROOT_FILE}\npath=/bin\n"
        self.put(f"{transaction.STATE}/txn/1/plan.env", plan)
        self.install(ROOT_FILE, slots.FIRST.config)
        self.path(slots.FIRST.socket).parent.mkdir(parents=True)
        self.listener.bind(str(self.path(slots.FIRST.socket)))
        self.listener.listen()

    def _systemctl(self, command: Sequence[str], text: str) -> Result:
        unit = command[2]
        state = self.units.get(unit, "inactive")
        pid = PIDS[unit] if state == "active" else 0
        return Result(0, f"ActiveState={state}\nMainPID={pid}\nInvocationID={START}\n", "")

    def _containerd(self, command: Sequence[str], text: str) -> Result:
        return Result(0, "containerd x v2.3.7 y" if "--version" in command else self.effective, "")

    def _sh(self, command: Sequence[str], text: str) -> Result:
        if command[2] == daemon_words.JOURNAL:
            return Result(0, "\n".join((*self.journal, "---", *self.not_restored, *self.unread, "")), "")
        if command[2] == doctor.PROBE:
            return Result(0, "".join(f"{mount} {said}\n" for mount, said in self.dead.items()), "")
        match command[2:]:
            case ["mounts", "soci"] | ["mounts", "soci", "all"]:
                return Result(0, "\n".join(map(_mount_point, self.ctr.containers)), "")
            case ["verify"]:
                self.was_verified = True
                return Result(0, self.verified, "")
        return Result(0, "", "")

    def _env(self, command: Sequence[str], text: str) -> Result:
        return (
            Result(0, self.sources, "") if credential_helper.SOURCES in command else self.ctr(command, text)
        )


@contextlib.contextmanager
def doctor_node(payload: Path) -> Generator[DoctorNode]:
    """Such a node for as long as the block runs."""
    # The name of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory() as root:
        node = DoctorNode(Path(root), payload)
        yield node
        node.listener.close()
