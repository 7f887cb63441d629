"""``python3 -B -m agent``: install SOCI on this pod's node, report, then become the watcher."""

import contextlib
import os
import sys
import time
from pathlib import Path

from . import containerd_config, report, settings
from .errors import InstallError
from .host import Host
from .install import Installed, Node, Task, install

PAYLOAD = Path("/opt/soci-cluster")
TERMINATION_LOG = Path("/dev/termination-log")
READY_FILE = Path("/run/soci-verified")
REPORT_SECONDS = 3600.0


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
    try:
        wanted = settings.load(PAYLOAD / "settings.json", namespace)
        task = Task(host, wanted, PAYLOAD, os.uname().machine, lambda: _node(reporter, namespace))
        done = install(task, Waiting(reporter).tell)
    except InstallError as error:
        return fail(reporter, error)
    seconds = time.monotonic() - started
    log(f"verified in {seconds:.2f} s, containerd restarts {done.containerd_restarts}")
    succeed(reporter, wanted, done, seconds)
    READY_FILE.touch()
    become_watcher(host)
    return 0


class Waiting:
    """Tells the API once that the node waits, and each time the reason changes."""

    def __init__(self, reporter: report.Reporter) -> None:
        self._reporter = reporter
        self._last = ""

    def tell(self, users: str) -> None:
        if users == self._last:
            return
        self._last = users
        count = len(users.split())
        message = f"idle: {count} lazily loaded containers run on the old daemon. Remedy: drain the node."
        log(message)
        with contextlib.suppress(report.ApiError):
            self._reporter.condition(False, "WaitingForIdle", message)


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
    report.retry(lambda: reporter.success(wanted.version, details, message), REPORT_SECONDS)
    if done.changed:
        try:
            reporter.event("Normal", "Installed", f"node {reporter.node_name}: {message}")
        except report.ApiError as error:
            log(f"no event: {error}")


def become_watcher(host: Host) -> None:
    """Replace this process by the small one that keeps the pod's readiness true to the snapshotter."""
    watcher = Path(__file__).with_name("watch.py")
    arguments = [str(host.path(containerd_config.SOCKET)), "/soci-snapshotter-grpc", str(READY_FILE)]
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", str(watcher), *arguments])


if __name__ == "__main__":
    sys.exit(main())
