"""While lazily loaded containers forbid a restart of their daemon: drain the node, tell for whom it waits."""

import contextlib
from collections.abc import Callable

from . import drain, report, users
from .errors import InstallError
from .install import Busy

UNCORDON_SECONDS = 20.0

Log = Callable[[str], None]


class Waiting:
    """Drains the node if that is the policy; tells the API for whom it waits, as often as that changes."""

    def __init__(self, reporter: report.Reporter, policy: str, log: Log) -> None:
        self._reporter = reporter
        self._policy = policy
        self._log = log
        self._is_first = True

    def tell(self, busy: Busy) -> None:
        """Say it; called again and again while nothing changes."""
        count = sum(map(len, busy.mounts.values()))
        served = f"{count} lazily loaded containers run on the old daemon"
        if self._policy != "drain" and self._is_first:
            uncordon(self._reporter, self._log)  # of a drain that the policy was before
        self._is_first = False
        if self._policy == "drain":
            reason, message = "Draining", f"drain: {served}; {self._drain(busy)}"
        else:
            remedy = "drain the node, or set soci:upgradePolicy to drain or side-by-side"
            if self._policy == "side-by-side":
                served = f"{count} lazily loaded containers run on the two daemons, and one has to be idle"
                remedy = "recreate these pods, or drain the node"
            reason = "WaitingForIdle"
            message = f"idle: {served}: {users.in_words(busy.pods)}. Remedy: {remedy}"
        if self._reporter.told == (reason, message):
            return
        self._log(message)
        with contextlib.suppress(report.ApiError):
            self._reporter.condition(False, reason, message)

    def _drain(self, busy: Busy) -> str:
        try:
            return drain.drain(self._reporter, busy.pods)
        except report.ApiError as error:
            if error.status == 403:
                raise InstallError(
                    "drain", str(error), "run pulumi up again: it grants what is missing"
                ) from error
            return f"{users.in_words(busy.pods)}: {error}"


def uncordon(reporter: report.Reporter, log: Log) -> None:
    """Lift a cordon of ours, if the API server takes it now; else the next start of the installer does it."""
    try:
        report.retry(lambda: drain.uncordon(reporter), UNCORDON_SECONDS)
    except report.ApiError as error:
        log(f"not uncordoned: {error}")
