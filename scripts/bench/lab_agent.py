"""The installer's agent, driven on a lab node from this machine: no pod, no API server, seconds a run."""

import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLER = REPOSITORY / "scripts" / "installer"
sys.path[:0] = [str(REPOSITORY), str(INSTALLER), str(REPOSITORY / "scripts" / "lab")]

import release as lab_release  # noqa: E402 (found through the path above)
from agent import release  # noqa: E402
from agent.host import PATH, Host, Result  # noqa: E402
from agent.install import Installed, install  # noqa: E402
from agent.lazy import Busy  # noqa: E402
from agent.plan import Registration, Task  # noqa: E402
from agent.settings import Settings, parse  # noqa: E402
from nodes import Node  # noqa: E402
from settings import ADDRESS, RELEASE_PORT, VERSIONS, state_directory  # noqa: E402

from components import Settings as ComponentSettings  # noqa: E402
from components.program import node_settings  # noqa: E402

VERSION = VERSIONS["soci"]
T = TypeVar("T")
CGROUPS = 0x02000000  # CLONE_NEWCGROUP; Python has os.setns since 3.12
RELEASES = f"http://{ADDRESS}:{RELEASE_PORT}/releases"


def wanted_settings() -> Settings:
    """What the `local` stack would install, on nodes in service, too."""
    name = f"soci-snapshotter-{VERSION}-linux-amd64-static.tar.gz"
    folder = lab_release.release_directory() / f"releases/v{VERSION}"
    digest = (folder / f"{name}.sha256sum").read_text().split()[0]
    chosen = ComponentSettings(version=VERSION, release_url=RELEASES, existing_nodes="migrate")
    return parse(node_settings(chosen, {"amd64": digest}))


class LabHost(Host):
    """A lab node from this machine, which reaches what the node reaches."""

    def in_network(self, work: Callable[[], T]) -> T:
        return work()


@contextlib.contextmanager
def in_cgroups_of(pid: int | None) -> Generator[None]:
    """See control groups as a process does: the agent reads there of which unit the kubelet is."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/cgroup") as theirs, open("/proc/self/ns/cgroup") as ours:
        if libc.setns(theirs.fileno(), CGROUPS):
            raise OSError(ctypes.get_errno(), "the node's control groups cannot be entered")
        try:
            yield
        finally:
            libc.setns(ours.fileno(), CGROUPS)


def never_waits(busy: Busy) -> None:
    raise AssertionError(f"the install waits for {busy}")


@dataclass(frozen=True)
class AgentNode:
    """A running lab node as the agent sees it. A reboot changes its leader, so nothing of it is kept here."""

    name: str

    @property
    def machine(self) -> Node:
        return Node.load(state_directory(), self.name)

    @property
    def host(self) -> Host:
        return LabHost(Path(f"/proc/{self.machine.leader}/root"), self.run)

    def run(
        self,
        command: Sequence[str],
        text: str = "",
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """The agent's runner: `nsenter` into this node instead of the pod's own."""
        line = self.machine.command(list(command))
        try:
            done = subprocess.run(
                line,
                check=False,
                input=text,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=None if environment is None else {"PATH": PATH, **environment},
            )
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{command[0]} did not end in {timeout:g} s")
        return Result(done.returncode, done.stdout, done.stderr)

    def sh(self, script: str, timeout: float = 60) -> str:
        """Run a shell script on the node and return its output; raise RuntimeError when it fails."""
        done = self.run(["sh", "-ec", script], timeout=timeout)
        if done.code != 0:
            raise RuntimeError(f"{self.name}: {script!r} exited {done.code}: {done.output}{done.error}")
        return done.output

    def install(self, payload: Path = INSTALLER, **changes) -> Installed:
        """Run the agent once, with these changes to the settings; raises what `install` raises."""
        wanted = replace(wanted_settings(), **changes)
        task = Task(self.host, wanted, payload, "x86_64", lambda: Registration(True, "soci-system"))
        with in_cgroups_of(self.machine.leader):
            return install(task, never_waits)

    def fetch_release(self) -> None:
        """Put the release on the node, as the agent's first half does."""
        wanted = wanted_settings()
        digest = wanted.sha256["amd64"]
        if not release.is_present(self.host, VERSION, digest):
            url = release.archive_url(RELEASES, VERSION, "amd64", digest)
            release.install(self.host, url, VERSION, digest, {})
