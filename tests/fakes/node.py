"""A node that exists only as a directory and a table of answers."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from agent import carry, slots, transaction
from agent.host import Host, Result

from tests.fakes.ctr import FakeCtr

REPOSITORY = Path(__file__).parents[2]
INSTALLER = REPOSITORY / "scripts" / "installer"
PIDS = {slots.FIRST.unit: 7, slots.SECOND.unit: 8}  # of the daemons that run
CONTAINERD_PID, KUBELET_PID = 5, 6
KUBELET = ("/usr/bin/kubelet", "--container-runtime-endpoint=unix:///run/containerd/containerd.sock")
CONFIG = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "example.org/pause:3.10"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"""

T = TypeVar("T")


class FakeHost(Host):
    """A host whose commands are answered by functions of (arguments, standard input)."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, self._answer)
        self.commands: list[tuple[str, ...]] = []
        self.environments: list[Mapping[str, str] | None] = []  # of the commands
        self.answers: dict[str, Callable[[Sequence[str], str], Result]] = {}

    def in_network(self, work: Callable[[], T]) -> T:
        return work()

    def _answer(
        self, command: Sequence[str], text: str, timeout: float, environment: Mapping[str, str] | None
    ) -> Result:
        self.commands.append(tuple(command))
        self.environments.append(environment)
        if f"--unit={carry.UNIT}" in command:  # it is waited for, as if it ran here
            command = command[len(carry.IN_UNIT) :]
        if command[0] == "timeout" and "timeout" not in self.answers:
            command = command[4:]
        answer = self.answers.get(command[0])
        return answer(command, text) if answer else Result(127, "", f"{command[0]}: not found")


def process(pid: int, command: Sequence[str], cgroup: str) -> dict[str, str]:
    """What /proc has of a process, by path."""
    folder = f"proc/{pid}"
    return {
        f"{folder}/comm": f"{command[0].rpartition('/')[2]}\n",
        f"{folder}/cmdline": "".join(f"{word}\0" for word in command),
        f"{folder}/cgroup": f"0::{cgroup}\n",
        f"{folder}/environ": "PATH=/usr/bin\0",
    }


def daemon_processes() -> dict[str, str]:
    """What /proc has of containerd and of the kubelet, by path."""
    containerd = process(CONTAINERD_PID, ("/usr/bin/containerd",), "/system.slice/containerd.service")
    return containerd | process(KUBELET_PID, KUBELET, "/system.slice/kubelet.service")


def furnish(root: Path) -> None:
    """The files of a node with containerd 1.7 on which SOCI can be installed."""
    for path, text in {
        "etc/os-release": "ID=debian\n",
        "etc/containerd/config.toml": CONFIG,
        "proc/1/comm": "systemd\n",
        "proc/filesystems": "nodev\toverlay\nnodev\tfuse\n",
        **daemon_processes(),
        "dev/fuse": "",
        "opt/x": "",
        "var/lib/x": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


class FakeNode(FakeHost):
    """A furnished node with containerd 1.7 whose host script always commits."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.running: dict[str, str] = {}  # unit -> program
        self.unit = ""  # of the operating system
        self.unit_load = "loaded"
        self.override = ""  # the program that a drop-in of somebody else's has the daemon's unit run
        self.exec_start = "{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd ; ignore_errors=no }"
        self.containerd_unit = ""  # further properties of it
        self.containerd = "/usr/bin/containerd"
        self.ctr = FakeCtr()
        self.ctr.add("example.org/pause:3.10", "complete")
        self.lazy: dict[str, str] = {}  # of each slot
        self.answers = {
            "systemctl": self._systemctl,
            "/usr/bin/containerd": lambda command, text: Result(0, "containerd x v1.7.35 y", ""),
            "unshare": lambda command, text: Result(0, text, ""),
            "readlink": lambda command, text: Result(0, self._programs()[command[1]], ""),
            "sh": self._script,
            "env": self.ctr,
            "systemd-run": self._commit,
        }

    def _systemctl(self, command: Sequence[str], text: str) -> Result:
        if "containerd.service" in command:
            shown = f"LoadState=loaded\nActiveState=active\nExecStart={self.exec_start}\n"
            return Result(0, f"{shown}MainPID={CONTAINERD_PID}\n{self.containerd_unit}", "")
        unit = command[2]
        active = "active" if unit in self.running else "inactive"
        path = self.unit if unit == slots.FIRST.unit else ""
        start = "{ path=/usr/bin/s ; argv[]=/usr/bin/s --address fd:// ; ignore_errors=no }" if path else ""
        if self.override:
            start = f"{{ path={self.override} ; argv[]={self.override} --root /x ; ignore_errors=no }}"
        pid = PIDS[unit] if unit in self.running else 0
        shown = f"LoadState={self.unit_load}\nFragmentPath={path}\nExecStart={start}\n"
        return Result(0, f"{shown}ActiveState={active}\nMainPID={pid}\n", "")

    def run_containerd(self, *command: str, program: str = "") -> None:
        """The main process of containerd's unit has this command line; ``program`` is what it runs."""
        self.containerd = program or command[0]
        self.add_files(process(CONTAINERD_PID, command, "/system.slice/containerd.service"))

    def set_environment(self, **variables: str) -> None:
        """Containerd was started anew, with these variables."""
        text = "".join(f"{name}={value}\0" for name, value in variables.items())
        self.add_files({f"proc/{CONTAINERD_PID}/environ": f"PATH=/bin\0{text}"})

    def run_kubelet(self, *options: str, cgroup: str = "/system.slice/kubelet.service") -> None:
        self.add_files(process(KUBELET_PID, ("/usr/bin/kubelet", *options), cgroup))

    def add_files(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            self.write(path, text.encode())

    def _programs(self) -> dict[str, str]:
        """What each process runs, by the link that shows it."""
        daemons = {f"/proc/{PIDS[unit]}/exe": program for unit, program in self.running.items()}
        return {f"/proc/{CONTAINERD_PID}/exe": self.containerd, **daemons}

    def _script(self, command: Sequence[str], text: str) -> Result:
        verb, *arguments = command[2:]
        if verb == "verify":
            return Result(0, "outcome=verified\nsteps= verify-cri:1000 verify-plugins:1200 end:1500\n", "")
        return Result(0, self.lazy.get(" ".join(reversed(arguments)), "") if verb == "mounts" else "", "")

    def _commit(self, command: Sequence[str], text: str) -> Result:
        directory = self.path(command[-1])
        for line in transaction.manifest_lines((directory / "files").read_text()):
            target = self.path(line.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if line.new == "absent":
                target.unlink(missing_ok=True)
            else:
                shutil.copyfile(directory / "new" / line.name, target)
        state = self.path(transaction.STATE)
        (state / "journal").write_text(f"state=committed\ntransaction={directory.name}\n")
        (state / "current").unlink(missing_ok=True)
        (state / "current").symlink_to(f"txn/{directory.name}")
        slot = slots.in_use(self.plan()["slot"])
        unit = self.read_text(slot.adoption) or self.read_text(slot.unit_path)
        self.running[slot.unit] = unit.split("ExecStart=")[-1].split()[0]
        (directory / "result").write_text(
            "outcome=committed\ncontainerd_down_ms=160\ncontainerd_restarts=1\n"
        )
        return Result(0, "", "")

    def plan(self) -> dict[str, str]:
        """The last transaction's plan."""
        directories = (self.root / "var/lib/soci-cluster/txn").iterdir()
        directory = max(directories, key=lambda directory: directory.stat().st_mtime_ns)
        return dict(line.split("=", 1) for line in (directory / "plan.env").read_text().splitlines())


def run_here(command: Sequence[str], text: str = "", timeout: float = 60) -> Result:
    """Runs host commands on this machine: for programs that only look."""
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True, timeout=timeout)
    return Result(done.returncode, done.stdout, done.stderr)


def run_below(root: Path, command: Sequence[str]) -> Result:
    """Run a host command on this machine, with the paths in it below ``root``."""
    return run_here([_below(root, word) if word.startswith("/") else word for word in command])


def _below(root: Path, path: str) -> str:
    return path if path.startswith(str(root)) else f"{root}{path}"


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``root``: its mode and bytes, to show that nothing changed."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }
