"""Taking SOCI off a node: because the settings ask for it, or because the pod ends with its DaemonSet.

The host script does the work, in a unit of its own: it ends every container that was created under SOCI, and
the installer's own is often one of them.
"""

import shutil
import time
from collections.abc import Callable

from . import detect
from .credential_helper import MEMORY
from .errors import InstallError
from .host import Host
from .transaction import PROGRAMS, SCRIPT, STATE, is_at_work, journal_state, wait_for_running

UNIT = "soci-cluster-remove.service"
REMOVING = ("removing", "restoring", "cleaning")  # of the journal
SCRIPT_SECONDS = 900
POLL_SECONDS = 0.5

Sleep = Callable[[float], None]


class RefusedError(InstallError):
    """The node cannot be taken back now. Nothing has changed: SOCI serves it as before."""

    still_serves = True

    @property
    def reason(self) -> str:
        return "UninstallRefused"


def is_begun_or_installed(host: Host) -> bool:
    """Whether anything of ours is on the node."""
    return any(host.exists(path) for path in (STATE, f"{STATE}.removed", PROGRAMS))


def uninstall(
    host: Host, script: bytes, force: bool, before: Callable[[], None], sleep: Sleep = time.sleep
) -> bool:
    """Return the node to what it was before the first install; False when nothing of ours is on it.

    ``before`` is called when nothing speaks against it any more. This process may not live on after that:
    whoever calls again finds the node clean, or goes on.

    Raises:
        RefusedError: lazily loaded containers run, others changed files, or no pod could start afterwards.
        InstallError: it failed; the cause says in which state the node is.
    """
    wait_for_running(host, sleep)
    while is_at_work(host, UNIT):
        sleep(POLL_SECONDS)
    if not is_begun_or_installed(host):
        shutil.rmtree(host.path(MEMORY), ignore_errors=True)  # of a first install that was killed
        return False
    if host.read(SCRIPT) != script:
        host.write(SCRIPT, script, 0o755)
    options = ("--force",) if force else ()
    asked = host.run("sh", SCRIPT, "removable", *options, timeout=SCRIPT_SECONDS)
    if asked.code != 0:
        raise RefusedError("uninstall", _last_line(asked.error), "drain the node, or set soci:forceUninstall")
    before()
    done = host.run("sh", SCRIPT, "remove", *options, timeout=SCRIPT_SECONDS)
    if done.code != 0:
        remedy = f"see {detect.kind_of_node(host).journal} -u {UNIT} on the node"
        said = _last_line(done.error)
        check, _, cause = said.partition(": ")
        # A check of the node is told as the step that it is after an install.
        failed = (check, cause) if check.startswith("verify-") else ("uninstall", said)
        raise InstallError(*failed, remedy)
    return True


def finish_begun(host: Host, script: bytes, sleep: Sleep = time.sleep) -> None:
    """End an uninstall that was cut short, so that the node can be installed again. Raises as `uninstall`."""
    while is_at_work(host, UNIT):
        sleep(POLL_SECONDS)
    if host.exists(f"{STATE}.removed") or journal_state(host).get("state") in REMOVING:
        uninstall(host, script, False, lambda: None, sleep)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["the host script gave no reason"])[-1].strip()
