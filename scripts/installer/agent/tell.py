"""What the user hears of an install: the pod's log and last words, the node's condition, Events."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from . import detect, drain, drift, lazy, remedies, serving, soci_registries
from .api import Api, ApiError, retry
from .errors import InstallError, clean
from .host import Host
from .install import Installed
from .kinds import PLAIN
from .log import Log, in_words
from .marks import Marks, try_uncordon

TERMINATION_LOG = Path("/dev/termination-log")
JOURNAL_MARK = "| "  # by which `pulumi up` tells the journal from the reason
INSTALLING, INSTALLED, UNINSTALLED = "Installing", "Installed", "Uninstalled"
AWAY = "SnapshotterAway"
LIMITED = "RegistriesLimited"
WAITING, DRAINING = "WaitingForIdle", "Draining"  # reasons of the condition by which `pulumi up` knows a wait
LOOKING = ("preflight", "wait", "verify")  # what every start does, also where nothing is to be changed
FAILURE_SECONDS = 10.0
MESSAGE_LOOKED_AT = 200  # characters: the end of a long one is cut off
REPORT_SECONDS = 3600.0


class Teller:
    """Tells of one node. After one failed report, steps are no longer sent to the API: no install waits."""

    def __init__(self, api: Api, marks: Marks, log: Log) -> None:
        self._api = api
        self._marks = marks
        self._log = log
        self._is_heard = True

    def step(self, step: str) -> None:
        """Tell that a step begins; the API only of those by which the node is being changed."""
        self._log.begin(step)
        if step in LOOKING or not self._is_heard:
            return
        try:
            self._api.emit(
                self._api.on_node, "Normal", INSTALLING, f"node {self._api.node_name}: step {step}"
            )
            self._marks.set_condition(None, INSTALLING, f"step {step}")
        except ApiError as error:
            self._is_heard = False
            self._log(f"steps are not told to the API server any more: {error}")

    def success(
        self, version: str, mode: str, done: Installed, seconds: float, notes: Sequence[str] = ()
    ) -> None:
        """Mark the node, until the API takes it: the node serves SOCI already, only its taint waits for this.

        ``notes`` is what does not work all the same.

        Raises:
            InstallError: the API does not take it.
        """
        took = self._log.seconds()
        details = None
        if done.changed:
            details = {
                "verifiedSeconds": round(seconds, 3),
                "containerdDownSeconds": done.containerd_down_seconds,
                "containerdRestarts": done.containerd_restarts,
                "steps": {step: round(taken, 3) for step, taken in took.items()},
                "version": version,
            }
        message = f"SOCI {version} serves this node's images in {mode} mode"
        if done.healed.in_words:
            message += f"; {done.healed.in_words}"
            self._log(done.healed.in_words)
        if done.healed.forgotten:
            self._log(f"these images are going to be pulled anew: {', '.join(done.healed.forgotten)}")
        if done.replaced:
            message += f"; {done.on_replaced} containers still on the old daemon"
        limits = soci_registries.in_words(done.limits)
        if limits:
            message += f"; {limits}"
        is_news = bool(limits) and not self._has_said(limits)
        message += "".join(f"; {note}" for note in notes)
        try:
            # An earlier pod of the installer may have been killed before it could lift its cordon.
            retry(self._marks.uncordon, REPORT_SECONDS)
            retry(lambda: self._marks.put(version, details, message), REPORT_SECONDS)
        except ApiError as error:
            raise InstallError(
                "report", f"the node serves SOCI but is not marked: {error}", "check RBAC"
            ) from error
        if is_news:
            for limit in done.limits:
                self._log(f"{limit.in_words}. Remedy: {limit.remedy}")
            line = f"node {self._api.node_name}: {limits}. Remedy: {done.limits[0].remedy}"
            self._try(lambda: self.event("Warning", LIMITED, line))
        if done.changed:
            try:
                self.event("Normal", INSTALLED, f"node {self._api.node_name}: {message} ({in_words(took)})")
            except ApiError as error:
                self._log(f"no event: {error}")

    def _has_said(self, words: str) -> bool:
        """Whether the node's condition says so already; if that is not to be had, nothing is said again."""
        try:
            return words[:MESSAGE_LOOKED_AT] in self._marks.message()
        except ApiError:
            return True

    def drifted(self, error: InstallError) -> None:
        """Tell what others changed: until it is put right nobody shall take the node for one that serves."""
        message = f"{error.cause}. Remedy: {error.remedy}"
        line = f"node {self._api.node_name}: {message}"
        self._log(line)
        self._not_served(error.reason, message)
        self._try(lambda: self.event("Warning", error.reason, line))

    def were_put_back(self, host: Host) -> None:
        """Tell of the files that the node put back by itself, since the daemon did not start with them."""
        for path in drift.files_put_back(host):
            line = (
                f"node {self._api.node_name}: {path} was changed by others, and the daemon did not start so; "
                f"the installed one is back, theirs is in {drift.REPLACED}. Remedy: end what changes it"
            )
            self._log(line)
            self._try(lambda line=line: self.event("Warning", drift.DRIFTED, line))
        drift.forget_files_put_back(host)

    def away(self) -> None:
        """Tell that the daemon of an installed node does not run and is being started; once for all."""
        message = f"the snapshotter's daemon does not run. Remedy: {remedies.DAEMON_AWAY}"
        if self._marks.last_condition == (AWAY, message):
            return
        self._log(message)
        self._not_served(AWAY, message)

    def _not_served(self, reason: str, message: str) -> None:
        self._try(self._marks.remove_label)
        self._try(lambda: self._marks.set_condition(False, reason, message))

    def uninstalled(self, seconds: float) -> None:
        """Tell that SOCI was taken off the node."""
        self._log(f"SOCI was taken off the node in {seconds:.2f} s")
        with contextlib.suppress(ApiError):
            self.event("Normal", UNINSTALLED, f"node {self._api.node_name}: SOCI was taken off")

    def failure(self, host: Host, error: InstallError) -> None:
        """Say why on every channel; an unreachable API must not hide the message."""
        line = f"node {self._api.node_name}: step {error.step}: {error.cause}. Remedy: {error.remedy}"
        self._log(line)
        journal = error.last_words or (last_words(host) if error.concerns_daemons else ())
        words = [line[:2500], *(f"{JOURNAL_MARK}{clean(text)[:160]}" for text in journal)]
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_text("\n".join(words))  # of which the kubelet keeps 4096 bytes
        self._try(lambda: self._marks.set_condition(error.still_serves, error.reason, str(error)))
        self._try(lambda: self.event("Warning", error.reason, line))
        # Last: on a node that does not serve, the look takes long.
        if error.still_serves or serving.serves(host):
            self._try(self._marks.put_label)  # an earlier run may have taken it
        else:
            self._try(self._marks.remove_label)

    def _try(self, action: Callable[[], None]) -> None:
        """Tell the API server; when it does not take it, the log has to do."""
        try:
            retry(action, FAILURE_SECONDS)
        except ApiError as error:
            self._log(f"not reported: {error}")

    def event(self, kind: str, reason: str, message: str) -> None:
        """Emit an Event (``kind`` Normal or Warning) on the node, and on the DaemonSet, for Pulumi.

        Pulumi shows a Warning of the DaemonSet again in each `up` as long as the API server keeps it, and
        without its age: it begins with its time.
        """
        self._api.emit(self._api.on_node, kind, reason, message)
        daemonset = self._api.get(self._api.daemonset_path)
        on_daemonset = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "name": self._api.daemonset,
            "namespace": self._api.namespace,
            "uid": daemonset["metadata"]["uid"],
        }
        self._api.emit(on_daemonset, kind, reason, message, begins_with_time=kind == "Warning")


class Waiting:
    """While lazily loaded containers forbid a restart of their daemon: drains the node if that is the policy,
    and tells for whom it waits, as often as that changes."""

    def __init__(self, api: Api, marks: Marks, policy: str, log: Callable[[str], None]) -> None:
        self._api = api
        self._marks = marks
        self._policy = policy
        self._log = log
        self._is_first = True

    def tell(self, busy: lazy.Busy) -> None:
        """Say it; called again and again while nothing changes.

        Raises:
            InstallError: the right to evict pods is missing.
        """
        count = sum(map(len, busy.mounts.values()))
        served = f"{count} lazily loaded containers run on the old daemon"
        if self._policy != "drain" and self._is_first:
            try_uncordon(self._marks, self._log)  # of a drain that the policy was before
        self._is_first = False
        if self._policy == "drain":
            reason, message = DRAINING, f"drain: {served}; {self._drain(busy)}"
        else:
            remedy = "drain the node, or set soci:upgradePolicy to drain or side-by-side"
            if self._policy == "side-by-side":
                served = f"{count} lazily loaded containers run on the two daemons, and one has to be idle"
                remedy = "recreate these pods, or drain the node"
            reason = WAITING
            message = f"idle: {served}: {lazy.in_words(busy.pods)}. Remedy: {remedy}"
        if self._marks.last_condition == (reason, message):
            return
        self._log(message)
        with contextlib.suppress(ApiError):
            self._marks.set_condition(False, reason, message)

    def _drain(self, busy: lazy.Busy) -> str:
        try:
            return drain.drain(self._api, self._marks, busy.pods)
        except ApiError as error:
            if error.status == 403:
                raise InstallError(
                    "drain", str(error), "run pulumi up again: it grants what is missing"
                ) from error
            return f"{lazy.in_words(busy.pods)}: {error}"


def last_words(host: Host) -> list[str]:
    """The end of the node's journal on containerd and SOCI's daemon, as it is now."""
    try:
        kind = detect.kind_of_node(host)
    except OSError:
        kind = PLAIN
    choice = [argument for unit in kind.daemons for argument in ("-u", unit)]
    return host.run("journalctl", *choice, "-n", "6", "-o", "cat", "--no-pager").output.splitlines()
