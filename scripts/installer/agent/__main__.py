"""``python3 -B -m agent``: bring this pod's node to the wanted state, report, then become the watcher.

``python3 -B -m agent leave``: the pod's end. Take SOCI off the node if the installer itself was deleted.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from . import drain, report, settings, users
from .errors import InstallError, clean
from .host import ENTER_HOST, Host
from .install import Installed, Node, Task, install
from .log import Log, in_words
from .progress import Progress
from .transaction import SCRIPT, host_script
from .uninstall import claim, is_claimed_by_another, is_final, uninstall
from .waiting import Waiting, uncordon
from .watch import END_SIGNAL, handle_end

PAYLOAD = Path("/opt/soci-cluster")
TERMINATION_LOG = Path("/dev/termination-log")
READY_FILE = Path("/run/soci-verified")
REPORT_SECONDS = 3600.0
MARKS_SECONDS = 20.0
RETIRE_SECONDS = 30
JOURNAL_MARK = "| "  # by which `pulumi up` tells the journal from the reason


class PodEndsError(BaseException):
    """SIGTERM, while an install is at work."""


log = Log(os.environ.get("NODE_NAME", ""))


def main() -> int:
    """Install or uninstall, and report; the exit status when it failed. Does not return when it succeeded."""
    environment = os.environ
    namespace = environment.get("POD_NAMESPACE", "soci-system")
    daemonset = environment.get("DAEMONSET_NAME", "soci-installer")
    node = environment["NODE_NAME"]
    reporter = report.Reporter(node, environment.get("POD_NAME", ""), namespace, daemonset)
    host = Host(Path("/host"))
    owner = f"{namespace}/{daemonset}"
    try:
        wanted = settings.load(PAYLOAD / "settings.json", namespace)
        if sys.argv[1:] == ["leave"]:
            return leave(host, reporter, wanted, owner)
        handle_end(_pod_ends)
        READY_FILE.unlink(missing_ok=True)
        if wanted.state == "absent":
            be_absent(host, reporter, wanted)
        else:
            be_present(host, reporter, wanted, owner)
    except PodEndsError:
        return leave(host, reporter, wanted, owner)
    except InstallError as error:
        return fail(host, reporter, error)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user has to be told)
        defect = InstallError(
            "internal", f"{type(error).__name__}: {error}", "report this with the pod's log"
        )
        log(traceback.format_exc())
        return fail(host, reporter, defect)
    return 0


def _pod_ends(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise PodEndsError


def be_present(host: Host, reporter: report.Reporter, wanted: settings.Settings, owner: str) -> None:
    """Install, report, and become the watcher."""
    started = time.monotonic()
    pod = users.Pod(wanted.namespace, reporter.pod_name)
    task = Task(
        host,
        wanted,
        PAYLOAD,
        os.uname().machine,
        lambda: _node(reporter, wanted.namespace),
        pod,
        on_step=Progress(reporter, log).begin,
    )
    try:
        done = install(task, Waiting(reporter, wanted.upgrade_policy, log).tell)
    except (InstallError, PodEndsError):
        uncordon(reporter, log)  # a pod that ends must not leave its node cordoned
        raise
    claim(host, owner)
    seconds = time.monotonic() - started
    log.add(done.steps)
    log(f"verified in {seconds:.2f} s, containerd restarts {done.containerd_restarts}")
    succeed(reporter, wanted, done, seconds)
    if done.has_installer:
        move(reporter)
    READY_FILE.touch()
    program = "/" + "/".join(Path(done.program).parts[-2:])  # whatever is mounted where on the host
    arguments = [str(host.path(done.slot.socket)), program, str(READY_FILE)]
    if done.replaced:
        # The watcher has the replaced daemon retired, then runs this program again, which says so.
        arguments += [str(RETIRE_SECONDS), *ENTER_HOST, SCRIPT, "retire", done.replaced.name]
    become_watcher(*arguments)


def be_absent(host: Host, reporter: report.Reporter, wanted: settings.Settings) -> None:
    """Uninstall, report, and become a process that only waits."""
    uncordon(reporter, log)
    started = time.monotonic()
    if take_back(host, reporter, wanted.force_uninstall):
        log(f"SOCI was taken off the node in {time.monotonic() - started:.2f} s")
        with contextlib.suppress(report.ApiError):
            reporter.event("Normal", "Uninstalled", f"node {reporter.node_name}: SOCI was taken off")
    # Again, or for the first time: a node that joins has the taint, and what ended an earlier container of
    # this pod may have been its own uninstall.
    try:
        report.retry(reporter.take_marks, REPORT_SECONDS)
    except report.ApiError as error:
        raise InstallError("report", f"the node's marks stay: {error}", "check RBAC") from error
    READY_FILE.touch()
    become_watcher()


def leave(host: Host, reporter: report.Reporter, wanted: settings.Settings, owner: str) -> int:
    """The pod ends: uninstall if the installer was deleted; if not, or if nobody knows, SOCI stays."""
    if is_claimed_by_another(host, owner):
        log("another installer has taken this node over")
        return 0
    try:
        if not is_final(reporter.was_deleted):
            log("the installer stays, and SOCI on this node")
            return 0
    except report.ApiError as error:
        log(f"SOCI stays on this node: nobody says whether the installer was deleted: {error}")
        return 0
    log("the installer was deleted")
    try:
        take_back(host, reporter, wanted.force_uninstall)
    except InstallError as error:
        return fail(host, reporter, error)
    return 0


def take_back(host: Host, reporter: report.Reporter, force: bool) -> bool:
    """Uninstall, and the marks with it: first, since this container may not outlive the rest. False when
    there was nothing to uninstall.

    Raises:
        InstallError: the node's marks are as before.
    """
    taken: report.Json = {}

    def before() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the uninstall may end this very container
        taken.update(_tell(reporter.take_marks, "its marks stay, see kubectl describe node") or {})

    try:
        was_there = uninstall(host, host_script(PAYLOAD), force, before)
    except InstallError:
        _tell(lambda: reporter.put_marks(taken), "its label is not put back")
        raise
    if not was_there:
        before()
    return was_there


def _tell(action: Callable[[], report.Json | None], otherwise: str) -> report.Json | None:
    """Tell the API, if it can be told: it may have forgotten the installer's rights already."""
    try:
        return report.retry(action, MARKS_SECONDS)
    except report.ApiError as error:
        log(f"{otherwise}: {error}")
        return None


def _node(reporter: report.Reporter, namespace: str) -> Node:
    try:
        node = report.retry(reporter.node, 60)
    except report.ApiError as error:
        raise InstallError(
            "preflight", f"the API server does not say whether the node is new: {error}", "check RBAC"
        ) from error
    return Node(report.is_waiting_for_soci(node), namespace)


def fail(host: Host, reporter: report.Reporter, error: InstallError) -> int:
    """Say why on every channel; an unreachable API must not hide the message."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    line = f"node {reporter.node_name}: step {error.step}: {error.cause}. Remedy: {error.remedy}"
    log(line)
    journal = [clean(text)[:160] for text in error.last_words or last_words(host)]
    words = [line[:2500], *(f"{JOURNAL_MARK}{text}" for text in journal)]
    with contextlib.suppress(OSError):
        TERMINATION_LOG.write_text("\n".join(words))  # of which the kubelet keeps 4096 bytes
    for action in (
        lambda: reporter.condition(error.still_serves, error.reason, str(error)),
        lambda: reporter.event("Warning", error.reason, line),
    ):
        try:
            report.retry(action, 10)
        except report.ApiError as api_error:
            log(f"not reported: {api_error}")
    return 1


def last_words(host: Host) -> list[str]:
    """The end of the node's journal on containerd and the snapshotter, as it is now."""
    units = ("containerd", "soci-snapshotter", "soci-snapshotter-b")
    choice = [argument for unit in units for argument in ("-u", unit)]
    return host.run("journalctl", *choice, "-n", "6", "-o", "cat", "--no-pager").output.splitlines()


def succeed(reporter: report.Reporter, wanted: settings.Settings, done: Installed, seconds: float) -> None:
    """Report until the API takes it: the node serves SOCI already, only its taint waits for this."""
    details = None
    if done.changed:
        details = {
            "verifiedSeconds": round(seconds, 3),
            "containerdDownSeconds": done.containerd_down_seconds,
            "containerdRestarts": done.containerd_restarts,
            "steps": {step: round(taken, 3) for step, taken in log.seconds().items()},
            "version": wanted.version,
        }
    message = f"SOCI {wanted.version} serves this node's images in {wanted.mode} mode"
    if done.replaced:
        message += f"; {done.on_replaced} containers still on the old daemon"
    try:
        # An earlier pod of the installer may have been killed before it could lift its cordon.
        report.retry(lambda: drain.uncordon(reporter), REPORT_SECONDS)
        report.retry(lambda: reporter.success(wanted.version, details, message), REPORT_SECONDS)
    except report.ApiError as error:
        raise InstallError(
            "report", f"the node serves SOCI but is not marked: {error}", "check RBAC"
        ) from error
    if done.changed:
        try:
            took = in_words(log.seconds())
            reporter.event("Normal", "Installed", f"node {reporter.node_name}: {message} ({took})")
        except report.ApiError as error:
            log(f"no event: {error}")


def move(reporter: report.Reporter) -> None:
    """Have this pod made anew, under the new daemon: the old one could never be retired because of it."""
    try:
        report.retry(reporter.delete_pod, REPORT_SECONDS)
    except report.ApiError as error:
        log(f"this pod stays on the old daemon: {error}")
    else:
        time.sleep(REPORT_SECONDS)  # SIGTERM ends this


def become_watcher(*arguments: str) -> None:
    """Replace this process by the small one that keeps the pod's readiness true to the snapshotter, and runs
    this program again, with `leave`, at the pod's end. Without arguments it only waits for that end."""
    watcher = Path(__file__).with_name("watch.py")
    signal.pthread_sigmask(signal.SIG_BLOCK, [END_SIGNAL])
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", str(watcher), *arguments])


if __name__ == "__main__":
    sys.exit(main())
