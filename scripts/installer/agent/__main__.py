"""``python3 -B -m agent``: bring this pod's node to the wanted state, report, then become the watcher.

``python3 -B -m agent again``: the same, called by the watcher because something has changed.

``python3 -B -m agent leave``: the pod's end. Take SOCI off the node if the installer itself was deleted.

``python3 -B -m agent doctor``: only look, and print what is wrong.

``python3 -B -m agent reads``: only look, and print which files a container reads.

``python3 -B -m agent bench``: answer what soci-bench asks of the node.

``python3 -B -m agent credentials``: in a container of its own, hand pull secrets to the daemon.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

from . import drift, heal, lazy, owner, pull_secret_files, remedies, settings, stalled_rollout, tuning
from .api import Api, ApiError, Json, retry
from .errors import InstallError
from .host import ENTER_HOST, Host
from .install import install
from .log import Log
from .marks import Marks, has_startup_taint, try_uncordon
from .plan import Registration, Seen, Task
from .settings import Settings
from .tell import REPORT_SECONDS, Teller, Waiting
from .transaction import SCRIPT, host_script
from .uninstall import uninstall
from .watch import END_SIGNAL, handle_end

PAYLOAD = Path("/opt/soci-cluster")
READY_FILE = Path("/run/soci-verified")
LOOK_SECONDS = 60.0
MARKS_SECONDS = 20.0
RETIRE_SECONDS = 30


class PodEndsError(BaseException):
    """SIGTERM, while an install is at work."""


class Agent:
    """One run of this program: its node, and how it talks of it."""

    def __init__(self, host: Host, api: Api, log: Log) -> None:
        self.host = host
        self.api = api
        self.log = log
        self.marks = Marks(api)
        self.teller = Teller(api, self.marks, log)
        self.name = f"{api.namespace}/{api.daemonset}"

    def present(self, wanted: Settings) -> None:
        """Install, report, and become the watcher."""
        started = time.monotonic()
        task = Task(
            self.host,
            wanted,
            PAYLOAD,
            os.uname().machine,
            self._registration,
            lazy.Pod(self.api.namespace, self.api.pod_name),
            os.environ.get("KUBERNETES_SERVICE_HOST", ""),
            on_step=self.teller.step,
            log=self.log,
            when_drifted=lambda what, seen: self._allow_repair(wanted.on_drift, what, seen),
            when_repaired=lambda: drift.remember(self.host, time.time()),
            when_away=self.teller.away,
        )
        try:
            done = install(task, Waiting(self.api, self.marks, wanted.upgrade_policy, self.log).tell)
        except drift.DriftError as drifted:
            try_uncordon(self.marks, self.log)
            self._leave_drifted(drifted)
        except (InstallError, PodEndsError):
            try_uncordon(self.marks, self.log)  # a pod that ends must not leave its node cordoned
            raise
        owner.claim(self.host, self.name)
        seconds = time.monotonic() - started
        self.log.add(done.steps)
        self.log(f"verified in {seconds:.2f} s, containerd restarts {done.containerd_restarts}")
        hardware = tuning.read_hardware(self.host)
        self.log(f"{hardware.in_words}; {tuning.choose(hardware).in_words}")
        conflicts = pull_secret_files.conflicts(self.host)
        self.teller.success(wanted.version, wanted.mode, done, seconds, conflicts)
        self.teller.were_put_back(self.host)
        evicts = self._see_to_broken_pods(done.healed.broken, wanted.broken_pods == "evict")
        if done.has_installer:
            self._move()
        READY_FILE.touch()
        program = "/" + "/".join(Path(done.program).parts[-2:])  # whatever is mounted where on the host
        errands = [
            every(heal.AGAIN_SECONDS, heal.later(done.healed, evicts)),
            every(stalled_rollout.LOOK_SECONDS, stalled_rollout.COMMAND),
        ]
        if wanted.mode != "lazy":
            errands.append(every(heal.CUT_PULL_SECONDS, heal.clear_cut_pulls(done.containerd_root)))
        if done.replaced:
            # The watcher has the replaced daemon retired, then runs this program again, which says so.
            errands.append(every(RETIRE_SECONDS, (*ENTER_HOST, SCRIPT, "retire", done.replaced.name)))
        processes = map(str, (done.seen.daemon, done.seen.containerd, done.seen.kubelet))
        socket = str(self.host.path(done.slot.socket))
        become_watcher(
            str(READY_FILE), socket, program, *processes, *self._fingerprints(done.seen), *chain(*errands)
        )

    def _allow_repair(self, policy: str, what: str, seen: Seen) -> None:
        """Others changed the node: say so, and let it be put right if that is wanted, and not too often.

        Raises:
            DriftError: not now.
        """
        READY_FILE.unlink(missing_ok=True)
        wait = drift.seconds_to_wait(self.host, time.time())
        remedy = remedies.drift(policy, wait)
        if policy == "report" or wait:
            raise drift.DriftError(what, remedy, None if policy == "report" else wait, seen)
        self.teller.drifted(drift.DriftError(what, remedy, 0, seen))

    def _leave_drifted(self, drifted: drift.DriftError) -> NoReturn:
        """Say what others changed, and become a watcher of the files alone: nothing serves."""
        self.teller.drifted(drifted)
        errand = () if drifted.seconds is None else every(drifted.seconds, ("true",))
        seen = drifted.seen
        processes = ("0", str(seen.containerd), str(seen.kubelet))
        become_watcher("", "", "", *processes, *self._fingerprints(seen), *errand)

    def _see_to_broken_pods(self, pods: Sequence[lazy.Pod], evicts: bool) -> bool:
        """Tell them, and have them evicted if that is wanted; whether one is on its way."""
        known = [pod for pod in pods if pod.namespace]
        try:
            heal.tell_pods(self.api, known)
        except ApiError as error:
            self.log(f"pods with broken mounts are not told: {error}")
        try:
            return evicts and heal.evict(self.api, known)
        except ApiError as error:
            self.log(f"pods with broken mounts are not evicted: {error}")
        return bool(known)

    def _fingerprints(self, seen: Seen) -> list[str]:
        """Files and their fingerprints, for the watcher, which finds them below the host's root."""
        return [f"{self.host.path(self.host.resolve(path))}={known}" for path, known in seen.files]

    def absent(self, wanted: Settings) -> None:
        """Uninstall, report, and become a process that only waits."""
        try_uncordon(self.marks, self.log)
        started = time.monotonic()
        if self._take_off(wanted.force_uninstall):
            self.teller.uninstalled(time.monotonic() - started)
        # Also when there was nothing to take off: a node that joins has the taint, and the uninstall may have
        # ended an earlier container of this pod before it came here.
        try:
            retry(self.marks.remove, REPORT_SECONDS)
        except ApiError as error:
            raise InstallError("report", f"the node's marks stay: {error}", "check RBAC") from error
        READY_FILE.touch()
        become_watcher()

    def leave(self, wanted: Settings) -> int:
        """The pod ends: uninstall if the installer was deleted; if not, or if nobody knows, SOCI stays."""
        if owner.is_claimed_by_another(self.host, self.name):
            self.log("another installer has taken this node over")
            return 0
        try:
            if not owner.is_deleted(self.api):
                self.log("the installer stays, and SOCI on this node")
                return 0
        except ApiError as error:
            self.log(f"SOCI stays on this node: nobody says whether the installer was deleted: {error}")
            return 0
        self.log("the installer was deleted")
        try:
            self._take_off(wanted.force_uninstall)
        except InstallError as error:
            return self.fail(error)
        return 0

    def fail(self, error: InstallError) -> int:
        """Say why; the exit status."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.teller.failure(self.host, error)
        return 1

    def _take_off(self, force: bool) -> bool:
        """Uninstall, and remove the marks: these first, since this container may not outlive the rest. False
        when there was nothing to uninstall.

        Raises:
            InstallError: the node's marks are as before.
        """
        taken: Json = {}

        def before() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the uninstall may end this very container
            taken.update(self._if_heard(self.marks.remove, "its marks stay, see kubectl describe node") or {})

        try:
            was_there = uninstall(self.host, host_script(PAYLOAD), force, before)
        except InstallError:
            self._if_heard(lambda: self.marks.restore(taken), "its label is not put back")
            raise
        if not was_there:
            before()
        return was_there

    def _if_heard(self, action: Callable[[], Json | None], otherwise: str) -> Json | None:
        """Ask the API server, which may have forgotten the installer's rights already: then only log that."""
        try:
            return retry(action, MARKS_SECONDS)
        except ApiError as error:
            self.log(f"{otherwise}: {error}")
            return None

    def _registration(self) -> Registration:
        try:
            node = retry(self.api.node, LOOK_SECONDS)
        except ApiError as error:
            raise InstallError(
                "preflight", f"the API server does not say whether the node is new: {error}", "check RBAC"
            ) from error
        return Registration(has_startup_taint(node), self.api.namespace)

    def _move(self) -> None:
        """Have this pod made anew, under the new daemon: the old one could never be retired because of it."""
        try:
            retry(self.api.delete_pod, REPORT_SECONDS)
        except ApiError as error:
            self.log(f"this pod stays on the old daemon: {error}")
        else:
            time.sleep(REPORT_SECONDS)  # SIGTERM ends this


def main() -> int:
    """Install or uninstall, and report; the exit status when it failed. Does not return when it succeeded."""
    if sys.argv[1:] == ["doctor"]:
        from . import doctor  # no install needs it

        return doctor.main()
    if sys.argv[1:2] == ["reads"]:
        from . import reads  # nor this

        return reads.main(sys.argv[2:])
    if sys.argv[1:] == ["bench"]:
        from . import bench  # nor this

        return bench.main()
    if sys.argv[1:] == ["credentials"]:
        follow_pull_secrets()
    api = Api.of_this_pod()
    agent = Agent(Host(Path("/host")), api, Log(api.node_name))
    try:
        wanted = settings.load(PAYLOAD / "settings.json")
        if sys.argv[1:] == ["leave"]:
            return agent.leave(wanted)
        handle_end(_pod_ends)
        if sys.argv[1:] != ["again"]:
            READY_FILE.unlink(missing_ok=True)
        if wanted.state == "absent":
            agent.absent(wanted)
        else:
            agent.present(wanted)
    except PodEndsError:
        return agent.leave(wanted)
    except InstallError as error:
        return agent.fail(error)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user has to be told)
        defect = InstallError(
            "internal", f"{type(error).__name__}: {error}", "report this with the pod's log"
        )
        agent.log(traceback.format_exc())
        return agent.fail(defect)
    return 0


def _pod_ends(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise PodEndsError


def every(seconds: float, command: Sequence[str]) -> list[str]:
    """The watcher's words for a command that it runs every so many seconds; none for no command."""
    return ["--every", str(seconds), str(len(command)), *command] if command else []


def follow_pull_secrets() -> NoReturn:
    """Become the process that does it, which imports little, and is in the node's network: the kubelet's API
    server may be at the node's loopback, and registries are asked from where the daemon asks them."""
    # glibc gives each thread memory of its own, which most of these threads, one a secret, hardly use.
    os.environ["MALLOC_ARENA_MAX"] = "1"
    module = (sys.executable, "-B", "-m", "agent.pull_secrets")
    os.execvp("nsenter", ("nsenter", "-t", "1", "-n", "--", *module))


def become_watcher(*arguments: str) -> NoReturn:
    """Replace this process by the small one that keeps the pod's readiness true to SOCI's daemon, and runs
    this program again: with `again` when something has changed, with `leave` at the pod's end. Without
    arguments it only waits for that end."""
    watcher = Path(__file__).with_name("watch.py")
    signal.pthread_sigmask(signal.SIG_BLOCK, [END_SIGNAL])
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", str(watcher), *arguments])


if __name__ == "__main__":
    sys.exit(main())
