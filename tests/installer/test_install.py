"""The agent's decisions from facts to the staged transaction, on a fake node."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent import images, install, release, transaction
from agent.errors import InstallError
from agent.host import Result
from agent.install import Node, Task
from agent.settings import Settings
from fake_node import INSTALLER, FakeHost, tree

CONFIG = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "example.org/pause:3.10"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"""
IN_SERVICE, FRESH = Node(False, "soci-system"), Node(True, "soci-system")
LOOKING = {"systemctl", "/usr/bin/containerd", "unshare", "readlink", "sh"}
DIGEST = hashlib.sha256(b"archive").hexdigest()


class Machine(FakeHost):
    """A node with containerd 1.7 whose host script always commits."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for path, text in {
            "etc/os-release": "ID=debian\n",
            "etc/containerd/config.toml": CONFIG,
            "proc/1/comm": "systemd\n",
            "proc/filesystems": "nodev\toverlay\nnodev\tfuse\n",
            "dev/fuse": "",
            "opt/x": "",
            "var/lib/x": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.running = ""
        self.unit = ""
        header = "REF TYPE DIGEST STATUS SIZE UNPACKED\n"
        self.ctr = {"images check": header + "example.org/pause:3.10 t d complete (1/1) 1 true\n"}
        self.lazy = ""
        self.answers = {
            "systemctl": self._systemctl,
            "/usr/bin/containerd": lambda command, text: Result(0, "containerd x v1.7.35 y", ""),
            "unshare": lambda command, text: Result(0, text, ""),
            "readlink": lambda command, text: Result(0, self.running, ""),
            "sh": lambda command, text: Result(0, self.lazy, ""),
            "env": self._ctr,
            "systemd-run": self._commit,
        }

    def _systemctl(self, command: Sequence[str], text: str) -> Result:
        if "containerd.service" in command:
            start = "{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd ; ignore_errors=no }"
            return Result(0, f"LoadState=loaded\nActiveState=active\nExecStart={start}\n", "")
        active = "active" if self.running else "inactive"
        start = (
            "{ path=/usr/bin/s ; argv[]=/usr/bin/s --address fd:// ; ignore_errors=no }" if self.unit else ""
        )
        pid = "7" if self.running else "0"
        return Result(
            0, f"FragmentPath={self.unit}\nExecStart={start}\nActiveState={active}\nMainPID={pid}\n", ""
        )

    def _ctr(self, command: Sequence[str], text: str) -> Result:
        arguments = " ".join(command[6:])
        return next(
            (Result(0, out, "") for start, out in self.ctr.items() if arguments.startswith(start)),
            Result(1, "", ""),
        )

    def _commit(self, command: Sequence[str], text: str) -> Result:
        directory = self.path(command[-1])
        for line in (directory / "files").read_text().splitlines():
            _, path, *_, name = line.split("\t")
            target = self.path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / "new" / name, target)
        self.path(transaction.STATE).joinpath("journal").write_text("state=committed\n")
        self.running = f"{release.VERSIONS}/0.16.1/soci-snapshotter-grpc"
        (directory / "result").write_text(
            "outcome=committed\ncontainerd_down_ms=160\ncontainerd_restarts=1\n"
        )
        return Result(0, "", "")


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(root)

    def unpack(host: Machine, url: str, version: str, digest: str) -> None:
        for program in release.PROGRAMS:
            host.write(f"{release.VERSIONS}/{version}/{program}", b"program", 0o755)
        host.write(f"{release.VERSIONS}/{version}/{release.DIGEST_FILE}", digest.encode())

    monkeypatch.setattr(release, "install", unpack)
    return machine


def task(machine: Machine, node: Node = FRESH, existing_nodes: str = "refuse", mode: str = "lazy") -> Task:
    settings = Settings(
        "0.16.1", mode, "https://example.org", {"amd64": DIGEST}, existing_nodes=existing_nodes
    )
    return Task(machine, settings, INSTALLER, "x86_64", lambda: node, sleep=lambda seconds: None)


def never(users: str) -> None:
    pytest.fail(f"waited for {users}")


def test_first_install(machine: Machine) -> None:
    done = install.install(task(machine), never)
    assert done == install.Installed(True, 0.16, 1)
    assert 'snapshotter = "soci"' in machine.read_text("/etc/containerd/config.toml")
    assert machine.read_text(install.UNIT).count("--address /run/soci-snapshotter-grpc/") == 1


def test_second_run_writes_nothing_and_restarts_nothing(machine: Machine) -> None:
    """Ten pod deletes, zero restarts (gpu-operator#594, #712; dragonfly-charts#294)."""
    install.install(task(machine), never)
    before = tree(machine.root)
    machine.commands.clear()
    for _ in range(10):
        assert not install.install(task(machine), never).changed
    assert tree(machine.root) == before
    assert {command[0] for command in machine.commands} <= LOOKING
    assert not any("restart" in command for command in machine.commands)


def test_running_version_is_read_from_the_process(machine: Machine) -> None:
    """Not from a marker file (RCM#577)."""
    install.install(task(machine), never)
    machine.running = f"{release.VERSIONS}/0.15.0/soci-snapshotter-grpc"
    assert install.install(task(machine), never).changed


def test_unit_of_the_operating_system_is_adopted(machine: Machine) -> None:
    """nodeadm's unit is not overwritten, and its socket is kept."""
    machine.unit = install.UNIT
    machine.write(install.UNIT, b"[Service]\nExecStart=/usr/bin/s --address fd://\n")
    install.install(task(machine), never)
    assert machine.read_text(install.UNIT).startswith("[Service]\nExecStart=/usr/bin/s")
    assert "--address fd://" in machine.read_text(install.ADOPTION)


def test_node_in_service_is_refused(machine: Machine) -> None:
    machine.ctr |= {"containers ls": "c1\nc2\n", "tasks ls": "TASK PID STATUS\nc1 7 RUNNING\nc2 8 STOPPED\n"}
    before = tree(machine.root)
    with pytest.raises(InstallError, match="1 containers of workloads") as caught:
        install.install(task(machine, IN_SERVICE), never)
    assert "soci:existingNodes" in caught.value.remedy
    assert tree(machine.root) == before


@pytest.mark.parametrize(("node", "existing"), [(FRESH, "refuse"), (IN_SERVICE, "migrate")])
def test_node_in_service_is_taken_when_asked(machine: Machine, node: Node, existing: str) -> None:
    machine.ctr |= {"containers ls": "c1\n", "tasks ls": "c1 7 RUNNING\n"}
    assert install.install(task(machine, node, existing), never).changed


def test_waits_for_lazy_containers_before_a_restart(machine: Machine) -> None:
    """The daemon is never restarted under them (soci#275, #1648)."""
    install.install(task(machine), never)
    machine.lazy = "/run/c/1/rootfs\n"
    before = tree(machine.root)
    waited = []

    def on_waiting(users: str) -> None:
        waited.append(users)
        assert tree(machine.root) == before
        machine.lazy = "" if len(waited) == 2 else machine.lazy

    assert install.install(task(machine, mode="lazy-or-parallel"), on_waiting).changed
    assert waited == ["/run/c/1/rootfs"] * 2


def test_images_without_their_layers_are_pulled_again(machine: Machine) -> None:
    """discard_unpacked_layers leaves images that cannot be unpacked for soci (core-kit#580, stargz#2080)."""
    machine.ctr["images check"] += (
        "example.org/app:1 t d incomplete (1/9) 1/9 false\nexample.org/b:1 t d complete (2/2) 1 true\n"
    )
    install.install(task(machine), never)
    directory = next((machine.root / "var/lib/soci-cluster/txn").iterdir())
    assert (directory / "images-to-pull-again").read_text() == "example.org/app:1\n"


def test_pause_without_content_comes_from_the_archive(machine: Machine) -> None:
    """On EKS the pause image cannot be pulled (amazon-eks-ami#2710)."""
    machine.ctr["images check"] = "example.org/pause:3.10 t d incomplete (1/2) 1 true\n"
    machine.write(images.EKS_PAUSE_ARCHIVE, b"tar")
    install.install(task(machine), never)
    directory = next((machine.root / "var/lib/soci-cluster/txn").iterdir())
    assert f"pause_archive={images.EKS_PAUSE_ARCHIVE}\n" in (directory / "plan.env").read_text()


def test_pause_without_content_stops_before_the_swap(machine: Machine) -> None:
    """No sandbox could start afterwards (nydus-snapshotter#631, soci#1389)."""
    machine.ctr["images check"] = ""
    with pytest.raises(InstallError, match="sandbox image"):
        install.install(task(machine), never)
    assert machine.read_text("/etc/containerd/config.toml") == CONFIG
    assert not machine.exists(transaction.STATE)


def test_killed_transaction_is_undone_first(machine: Machine) -> None:
    """An earlier pod and its transaction were killed (gpu-operator#456, kata-containers#13551)."""
    machine.write(f"{transaction.STATE}/journal", b"state=armed\ntransaction=1-a\n")

    def undo(command: Sequence[str], text: str) -> Result:
        if "rollback" in command:
            machine.write(f"{transaction.STATE}/journal", b"state=rolled-back\n")
        return Result(0, "", "")

    machine.answers["sh"] = undo
    assert install.install(task(machine), never).changed
    assert ("sh", transaction.SCRIPT, "rollback", "1-a") in machine.commands


def test_vain_restart_is_not_repeated(machine: Machine) -> None:
    """149 restarts of a daemon that could not come up (aicr#1688)."""

    def fail(command: Sequence[str], text: str) -> Result:
        result = "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n"
        machine.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")

    machine.answers["systemd-run"] = fail
    for _ in range(3):
        with pytest.raises(InstallError, match="no"):
            install.install(task(machine), never)
    assert sum(command[0] == "systemd-run" for command in machine.commands) == 1


def test_killed_transaction_says_nothing_against_the_change(machine: Machine) -> None:
    """gpu-operator#456: the next run converges at once, although the rollback restarted containerd."""
    commit = machine.answers["systemd-run"]

    def killed(command: Sequence[str], text: str) -> Result:
        result = "outcome=rolled-back\nstep=interrupted\ncause=killed\ncontainerd_restarts=1\n"
        machine.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")

    machine.answers["systemd-run"] = killed
    with pytest.raises(InstallError, match="killed"):
        install.install(task(machine), never)
    machine.answers["systemd-run"] = commit
    assert install.install(task(machine), never).changed


def test_failure_is_not_recent_for_years_after_the_clock_was_set_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that boots with a wrong clock, fails, and is then set right."""
    commit = machine.answers["systemd-run"]

    def fail(command: Sequence[str], text: str) -> Result:
        result = "outcome=rolled-back\nstep=restart\ncause=no\ncontainerd_restarts=2\n"
        machine.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")

    machine.answers["systemd-run"] = fail
    with pytest.raises(InstallError, match="no"):
        install.install(task(machine), never)
    machine.answers["systemd-run"] = commit
    year_ago = time.time() - 365 * 86400
    monkeypatch.setattr(install.time, "time", lambda: year_ago)
    assert install.install(task(machine), never).changed


def test_full_disk_at_staging_is_reported_as_such(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """stargz#1349; it used to end the agent with a traceback and no word to the API."""

    def full(*arguments: object, **options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transaction, "stage", full)
    with pytest.raises(InstallError, match="No space left") as caught:
        install.install(task(machine), never)
    assert caught.value.step == "stage"


def test_staged_transaction_of_another_installer_is_left_alone(machine: Machine) -> None:
    """Two pods for a moment, at a rollout: one must not delete what the other is about to apply."""
    other = f"{transaction.STATE}/txn/1-other"
    machine.write(f"{other}/plan.env", b"")
    machine.write(f"{transaction.STATE}/txn/1-failed/result", b"outcome=unchanged\n")
    install.install(task(machine), never)
    assert machine.exists(other)
    assert not machine.exists(f"{transaction.STATE}/txn/1-failed")


def test_symbolic_link_is_resolved_on_the_host(machine: Machine) -> None:
    """The link stays a link; its target is what is edited."""
    config = machine.root / "etc/containerd/config.toml"
    config.rename(machine.root / "etc/real.toml")
    config.symlink_to("/etc/real.toml")
    install.install(task(machine), never)
    assert config.is_symlink()
    assert "soci" in (machine.root / "etc/real.toml").read_text()


def test_failure_without_a_restart_is_tried_again_at_once(machine: Machine) -> None:
    """Only restarts of containerd are worth sparing; whatever else failed may be over already."""
    commit = machine.answers["systemd-run"]

    def fail(command: Sequence[str], text: str) -> Result:
        result = "outcome=rolled-back\nstep=verify\ncause=no\ncontainerd_restarts=0\n"
        machine.write(f"{command[-1]}/result", result.encode())
        return Result(0, "", "")

    machine.answers["systemd-run"] = fail
    with pytest.raises(InstallError, match="no"):
        install.install(task(machine), never)
    machine.answers["systemd-run"] = commit
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
