"""``python3 -B -m agent``: install SOCI on this pod's node, report, then become the watcher."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from . import drain, report, settings, users
from .errors import InstallError
from .host import ENTER_HOST, Host
from .install import Busy, Installed, Node, Task, install
from .transaction import SCRIPT

PAYLOAD = Path("/opt/soci-cluster")
TERMINATION_LOG = Path("/dev/termination-log")
READY_FILE = Path("/run/soci-verified")
REPORT_SECONDS = 3600.0
UNCORDON_SECONDS = 20.0
RETIRE_SECONDS = 30


def log(message: str) -> None:
    """One line to the pod's log."""
    print(message, file=sys.stderr, flush=True)


def main() -> int:
    """Install and report; the exit status when it failed. Does not return when it succeeded."""
    started = time.monotonic()
    READY_FILE.unlink(missing_ok=True)
    environment = os.environ
    namespace = environment.get("POD_NAMESPACE", "soci-system")
    reporter = report.Reporter(
        environment["NODE_NAME"],
        environment.get("POD_NAME", ""),
        namespace,
        environment.get("DAEMONSET_NAME", "soci-installer"),
    )
    host = Host(Path("/host"))
    # The end of the pod, too, must lift a cordon.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        wanted = settings.load(PAYLOAD / "settings.json", namespace)
        pod = users.Pod(namespace, environment.get("POD_NAME", ""))
        task = Task(host, wanted, PAYLOAD, os.uname().machine, lambda: _node(reporter, namespace), pod)
        done = install(task, Waiting(reporter, wanted.upgrade_policy).tell)
    except (InstallError, SystemExit) as error:
        uncordon(reporter)
        if isinstance(error, SystemExit):
            raise
        return fail(reporter, error)
    seconds = time.monotonic() - started
    log(f"verified in {seconds:.2f} s, containerd restarts {done.containerd_restarts}")
    succeed(reporter, wanted, done, seconds)
    if done.has_installer:
        move(reporter)
    READY_FILE.touch()
    become_watcher(host, wanted.version, done)
    return 0


class Waiting:
    """While lazily loaded containers forbid a restart: drains the node if that is the policy, and tells
    the API for whom it waits, as often as that changes."""

    def __init__(self, reporter: report.Reporter, policy: str) -> None:
        self._reporter = reporter
        self._policy = policy
        self._last = ""

    def tell(self, busy: Busy) -> None:
        count = sum(map(len, busy.mounts.values()))
        served = f"{count} lazily loaded containers run on the old daemon"
        if self._policy == "drain":
            reason, message = "Draining", f"drain: {served}; {self._drain(busy)}"
        else:
            remedy = "drain the node, or set soci:upgradePolicy to drain or side-by-side"
            if self._policy == "side-by-side":
                served = f"{count} lazily loaded containers run on the two daemons, and one has to be idle"
                remedy = "recreate these pods, or drain the node"
            reason, message = (
                "WaitingForIdle",
                f"idle: {served}: {users.in_words(busy.pods)}. Remedy: {remedy}",
            )
        if message == self._last:
            return
        log(message)
        with contextlib.suppress(report.ApiError):
            self._reporter.condition(False, reason, message)
            self._last = message

    def _drain(self, busy: Busy) -> str:
        try:
            return drain.drain(self._reporter, busy.pods)
        except report.ApiError as error:
            if error.status == 403:
                raise InstallError(
                    "drain", str(error), "run pulumi up again: it grants what is missing"
                ) from error
            return f"{users.in_words(busy.pods)}: {error}"


def uncordon(reporter: report.Reporter) -> None:
    """Lift a cordon of ours, if the API server takes it now; else the next start of the installer does it."""
    try:
        report.retry(lambda: drain.uncordon(reporter), UNCORDON_SECONDS)
    except report.ApiError as error:
        log(f"not uncordoned: {error}")


def _node(reporter: report.Reporter, namespace: str) -> Node:
    try:
        node = report.retry(reporter.node, 60)
    except report.ApiError as error:
        raise InstallError(
            "preflight", f"the API server does not say whether the node is new: {error}", "check RBAC"
        ) from error
    return Node(report.is_waiting_for_soci(node), namespace)


def fail(reporter: report.Reporter, error: InstallError) -> int:
    """Say why on every channel; an unreachable API must not hide the message."""
    line = f"node {reporter.node_name}: step {error.step}: {error.cause}. Remedy: {error.remedy}"
    log(line)
    with contextlib.suppress(OSError):
        TERMINATION_LOG.write_text(line[:4000])
    for action in (
        lambda: reporter.condition(False, error.reason, str(error)),
        lambda: reporter.event("Warning", error.reason, line),
    ):
        try:
            report.retry(action, 10)
        except report.ApiError as api_error:
            log(f"not reported: {api_error}")
    return 1


def succeed(reporter: report.Reporter, wanted: settings.Settings, done: Installed, seconds: float) -> None:
    """Report until the API takes it: the node serves SOCI already, only its taint waits for this."""
    details = None
    if done.changed:
        details = {
            "verifiedSeconds": round(seconds, 3),
            "containerdDownSeconds": done.containerd_down_seconds,
            "containerdRestarts": done.containerd_restarts,
            "version": wanted.version,
        }
    message = f"SOCI {wanted.version} serves this node's images in {wanted.mode} mode"
    if done.replaced:
        message += f"; {done.on_replaced} containers still on the old daemon"
    # An earlier pod of the installer may have been killed before it could lift its cordon.
    report.retry(lambda: drain.uncordon(reporter), REPORT_SECONDS)
    report.retry(lambda: reporter.success(wanted.version, details, message), REPORT_SECONDS)
    if done.changed:
        try:
            reporter.event("Normal", "Installed", f"node {reporter.node_name}: {message}")
        except report.ApiError as error:
            log(f"no event: {error}")


def move(reporter: report.Reporter) -> None:
    """Have this pod made anew, under the new daemon: the old one could never be retired because of it."""
    try:
        report.retry(reporter.delete_pod, REPORT_SECONDS)
    except report.ApiError as error:
        log(f"this pod stays on the old daemon: {error}")
    else:
        time.sleep(REPORT_SECONDS)  # the kubelet ends this


def become_watcher(host: Host, version: str, done: Installed) -> None:
    """Replace this process by the small one that keeps the pod's readiness true to the snapshotter.

    It also has the replaced daemon retired, and then runs this program again, which says so.
    """
    watcher = Path(__file__).with_name("watch.py")
    program = f"/{version}/soci-snapshotter-grpc"
    arguments = [str(host.path(done.slot.socket)), program, str(READY_FILE)]
    if done.replaced:
        arguments += [str(RETIRE_SECONDS), *ENTER_HOST, SCRIPT, "retire", done.replaced.name]
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", str(watcher), *arguments])


if __name__ == "__main__":
    sys.exit(main())
