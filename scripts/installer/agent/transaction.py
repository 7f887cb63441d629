"""A change of the node as one transaction: staged here, committed or rolled back by the host script."""

import contextlib
import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .errors import InstallError
from .host import Host, Result

PROGRAMS = "/opt/soci-cluster"
STATE = "/var/lib/soci-cluster"
LOCK = f"{STATE}/lock"  # whoever changes the node holds it
SCRIPT = f"{PROGRAMS}/soci-host.sh"
DEADLINE_SECONDS = 400
POLL_SECONDS = 0.05
POLLS_PER_LOOK = 20  # at the unit itself, which may have been killed
FORGET_FAILURE_SECONDS = 600
RESERVED_BYTES = 128 << 10
TAKING_LONGER_SECONDS = 30  # beyond the dead man's timer
BUSY = "busy: "  # begins the cause when lazily loaded containers run; their mount points follow


class Role(StrEnum):
    """What a managed file is for. It decides what is restarted when the file changes.

    The files are written in this order and restored in the reverse one.
    """

    # Finishes or rolls back at a boot what was cut short; also what no daemon reads: nothing is restarted.
    RECOVERY = "recovery"
    # Read by the snapshotter's daemon: a change restarts it. Each slot has its own, at a path of its own.
    DAEMON = "daemon"
    GENERATOR = "generator"  # read by a tool that writes containerd's configuration
    SHARED = "shared"  # containerd's configuration, which others write, too: a change restarts containerd
    GENERATED = "generated"  # the same, written anew at each boot: nobody's own work is in it

    @property
    def is_read_by_containerd(self) -> bool:
        return self in (Role.SHARED, Role.GENERATED)


class ManifestLine(NamedTuple):
    """A managed file in the manifest, by its columns in their order; host/00-head.sh tells of them."""

    role: str
    path: str
    mode: str
    owner: str
    old: str  # digests, as `sha256` writes them
    new: str
    name: str


@dataclass(frozen=True)
class File:
    """One managed file: its content now and then; None for no file."""

    role: Role
    path: str
    old: bytes | None
    new: bytes | None
    mode: str = "0644"
    owner: str = "0:0"

    @property
    def name(self) -> str:
        return self.path.strip("/").replace("/", ".")

    @property
    def is_changed(self) -> bool:
        return self.old != self.new

    def manifest_line(self) -> str:
        digests = sha256(self.old), sha256(self.new)
        line = ManifestLine(self.role, self.path, self.mode, self.owner, *digests, self.name)
        return "\t".join(line) + "\n"


@dataclass(frozen=True)
class Outcome:
    """The host script's word on a transaction."""

    outcome: str
    step: str = ""
    cause: str = ""
    containerd_down_seconds: float = 0.0
    containerd_restarts: int = 0
    steps: tuple[tuple[str, float], ...] = ()  # name and seconds, in their order
    last_words: tuple[str, ...] = ()  # of the daemons' journal, when it failed

    @property
    def busy_mounts(self) -> tuple[str, ...]:
        """The mount points of the lazily loaded containers because of which nothing was changed."""
        return tuple(self.cause.removeprefix(BUSY).split()) if self.cause.startswith(BUSY) else ()


def sha256(content: bytes | None) -> str:
    """Hex digest of a content; ``absent`` for no file, as in the manifest."""
    return "absent" if content is None else hashlib.sha256(content).hexdigest()


def host_script(payload: Path) -> bytes:
    """The host script, of its parts in the installer's program: one file, so that it changes as a whole.

    Raises:
        FileNotFoundError: there is no part; an empty script would succeed at everything.
    """
    parts = sorted((payload / "host").glob("*.sh"))
    if not parts:
        raise FileNotFoundError(f"{payload}/host has no part of the host script")
    return b"\n".join(part.read_bytes() for part in parts)


def journal_state(host: Host) -> dict[str, str]:
    """The journal's fields; empty before the first transaction."""
    return _pairs(host.read_text(f"{STATE}/journal"))


def run_script(host: Host, script: bytes, *arguments: str, timeout: float = 60) -> Result:
    """Run a verb of the host script: the installed one if it is this very ``script``, which then need not be
    sent along."""
    if host.read(SCRIPT) == script:
        return host.run("sh", SCRIPT, *arguments, timeout=timeout)
    return host.run("sh", "-s", *arguments, text=script.decode(), timeout=timeout)


def run_for(host: Host, seconds: int, verb: str) -> Result:
    """Run a verb of the installed host script for up to ``seconds``. The limit is kept on the node: to end
    nsenter would not end the script."""
    limit = ("timeout", "-k", "5", str(seconds))
    return host.run(*limit, "sh", SCRIPT, verb, timeout=seconds + 10)


def recorded_plan(host: Host) -> dict[str, str]:
    """The plan of the transaction that the journal names; empty before the first one."""
    name = journal_state(host).get("transaction", "")
    return _pairs(host.read_text(f"{STATE}/txn/{name}/plan.env"))


def installed_plan(host: Host) -> dict[str, str]:
    """The plan of what is installed, whatever became of a later transaction; empty when nothing is."""
    return _pairs(host.read_text(f"{STATE}/current/plan.env"))


def recorded_files(host: Host) -> dict[str, str]:
    """The digest of each managed file as it was installed last; empty when nothing is installed."""
    return {line.path: line.new for line in manifest_lines(host.read_text(f"{STATE}/current/files"))}


def manifest_lines(manifest: str) -> list[ManifestLine]:
    """The lines of a manifest; one that was cut short is no line."""
    lines = (line.split("\t") for line in manifest.splitlines())
    return [ManifestLine(*fields) for fields in lines if len(fields) == len(ManifestLine._fields)]


def new_id() -> str:
    """A name for a transaction; also part of its unit's name."""
    return f"{int(time.time())}-{secrets.token_hex(3)}"


def stage(
    host: Host, name: str, files: Sequence[File], plan: dict[str, str], carried: Sequence[str] = ()
) -> str:
    """Write a transaction's directory to the node's disk; its path on the host.

    ``carried`` has a line for each image whose layers were copied to soci's directory.
    """
    directory = f"{STATE}/txn/{name}"
    _forget_failed(host)
    host.write(f"{directory}/reserve", bytes(RESERVED_BYTES), 0o600)  # room on the disk for a rollback
    for file in files:
        if file.new is not None:
            host.write(f"{directory}/new/{file.name}", file.new, 0o600)
    host.write(f"{directory}/files", _manifest(files), 0o600)
    host.write(f"{directory}/script", sha256(host.read(SCRIPT) or b"").encode(), 0o600)
    host.write(f"{directory}/carried", "".join(carried).encode(), 0o600)
    host.write(f"{directory}/log", b"", 0o600)
    host.write(
        f"{directory}/plan.env", "".join(f"{key}={value}\n" for key, value in plan.items()).encode(), 0o600
    )
    host.path(STATE).chmod(0o700)
    return directory


def _manifest(files: Sequence[File]) -> bytes:
    return "".join(file.manifest_line() for file in files).encode()


def _forget_failed(host: Host) -> None:
    """Remove what earlier, failed tries left, but neither the current nor the committed transaction.

    One without a result may be another installer's, at work or about to be, unless it is old.
    """
    link = host.path(f"{STATE}/current")
    journal = journal_state(host)
    # The journal's, too: it is at work, or committed and killed before it became the current one.
    # Not once it was rolled back; a boot leaves no result of that.
    name, is_rolled_back = journal.get("transaction", ""), journal.get("state") == "rolled-back"
    kept = {link.readlink().name if link.is_symlink() else "", "" if is_rolled_back else name}
    folder = host.path(f"{STATE}/txn")
    for entry in folder.iterdir() if folder.is_dir() else ():
        has_result = host.exists(f"{STATE}/txn/{entry.name}/result")
        is_over = entry.suffix == ".gone" or has_result or (is_rolled_back and entry.name == name)
        is_old = abs(time.time() - entry.stat().st_mtime) > 2 * DEADLINE_SECONDS
        if entry.name not in kept and (is_over or is_old):
            shutil.rmtree(entry, ignore_errors=True)


def commit(host: Host, name: str, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Have the host script apply a staged transaction, outside of this pod's life, and wait for its word.

    Raises:
        InstallError: the script could not be started, or said nothing within its deadline.
    """
    directory = f"{STATE}/txn/{name}"
    unit = f"soci-cluster-txn-{name}"
    started = host.run("systemd-run", "--quiet", "--collect", f"--unit={unit}", SCRIPT, "apply", directory)
    if started.code not in (0, 124) and not _has_begun(host, name):
        raise InstallError("commit", f"systemd-run: {started.error.strip()}", "see journalctl on the node")
    deadline = time.monotonic() + _patience(host, name)
    polls = 0
    while time.monotonic() < deadline:
        if outcome := _result(host, directory):
            return outcome
        sleep(POLL_SECONDS)
        polls += 1
        if polls % POLLS_PER_LOOK == 0 and not _is_running(host, name):
            if not host.read_text(f"{directory}/result"):
                wait_for_running(host, sleep)  # it was killed: roll back what it began
            break
    if outcome := _result(host, directory):
        return outcome
    journal = journal_state(host)
    if journal.get("state") == "committed" and journal.get("transaction") == name:
        return Outcome("committed")  # only its report is lost
    raise InstallError("commit", "the host script gave no result", f"see journalctl -u {unit} on the node")


def wait_for_running(host: Host, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until no transaction is at work: an earlier pod may have been killed while its own goes on.

    Raises:
        InstallError: the transaction neither ended nor could be rolled back.
    """
    started = time.monotonic()
    while journal_state(host).get("state") in ("armed", "restarting"):
        name = journal_state(host).get("transaction", "")
        if not _is_running(host, name) or time.monotonic() - started > _patience(host, name):
            result = host.run("sh", SCRIPT, "rollback", name, timeout=180)
            if result.code != 0 and journal_state(host).get("state") in ("armed", "restarting"):
                raise InstallError(
                    "recovery", f"transaction {name}: {result.error.strip()}", "reboot the node"
                )
            return
        sleep(0.2)


def _patience(host: Host, name: str) -> float:
    """Seconds after which the transaction's own timer must have rolled it back."""
    plan = _pairs(host.read_text(f"{STATE}/txn/{name}/plan.env"))
    # An earlier version's transaction made the copies of layers, too.
    seconds = float(plan.get("deadline_seconds", DEADLINE_SECONDS)) + float(plan.get("copy_seconds", 0))
    return seconds + TAKING_LONGER_SECONDS


def _has_begun(host: Host, name: str) -> bool:
    """Whether systemd started the transaction although it did not say so: then its directory is needed."""
    return _is_running(host, name) or journal_state(host).get("transaction") == name


def _is_running(host: Host, name: str) -> bool:
    try:
        return is_at_work(host, f"soci-cluster-txn-{name}.service")
    except InstallError:
        return True  # it may be; whoever waits for its end has a deadline


def is_at_work(host: Host, unit: str) -> bool:
    """Whether the unit runs, or is about to.

    Raises:
        InstallError: systemd does not say.
    """
    answer = host.run("systemctl", "is-active", unit)
    state = answer.output.strip()
    if not state:
        raise InstallError(
            "preflight", f"systemctl is-active {unit}: {answer.last_error}", "see whether systemd answers"
        )
    return state in ("active", "activating", "deactivating")


def remember_failure(
    host: Host, name: str, files: Sequence[File], script: bytes, error: InstallError
) -> None:
    """Leave the record of a change that failed while it was prepared, for `recent_failure`. Without room on
    the disk it is not remembered."""
    directory = f"{STATE}/txn/{name}"
    with contextlib.suppress(OSError):
        _forget_failed(host)
        host.write(f"{directory}/files", _manifest(files), 0o600)
        host.write(f"{directory}/script", sha256(script).encode(), 0o600)
        host.write(
            f"{directory}/result",
            f"outcome=unchanged\nstep={error.step}\ncause={error.cause}\n".encode(),
            0o600,
        )


def recent_failure(host: Host, files: Sequence[File], script: bytes, now: float) -> Outcome | None:
    """The outcome of the very same change, if it restarted containerd or made copies in vain minutes ago.

    The kubelet starts a failed installer again and again; each try would restart containerd twice, or copy
    gigabytes. Another host script is another change: it may have the remedy.
    """
    manifest = _manifest(files)
    folder = host.path(f"{STATE}/txn")
    for entry in folder.iterdir() if folder.is_dir() else ():
        path = f"{STATE}/txn/{entry.name}"
        result = _result(host, path)
        if not result:
            continue
        ran = host.read_text(f"{path}/script")
        # A clock that was set back must not keep a failure recent for years.
        is_recent = 0 <= now - entry.stat().st_mtime < FORGET_FAILURE_SECONDS
        was_costly = result.containerd_restarts > 0 or result.step in ("copy", "deadline")
        # A kill says nothing against the change.
        was_in_vain = result.outcome in ("rolled-back", "unchanged") and result.step != "interrupted"
        is_same = host.read(f"{path}/files") == manifest and ran == sha256(script)
        if was_costly and was_in_vain and is_recent and is_same:
            return result
    return None


def _result(host: Host, directory: str) -> Outcome | None:
    """What the host script said of the transaction, once it has."""
    text = host.read_text(f"{directory}/result")
    if not text:
        return None
    words = host.read_text(f"{directory}/last-words").splitlines()
    return replace(parse_result(text), last_words=tuple(words))


def parse_result(text: str) -> Outcome:
    """Read the host script's result file."""
    pairs = _pairs(text)
    return Outcome(
        outcome=pairs.get("outcome", "broken"),
        step=pairs.get("step", ""),
        cause=pairs.get("cause", ""),
        containerd_down_seconds=int(pairs.get("containerd_down_ms") or 0) / 1000,
        containerd_restarts=int(pairs.get("containerd_restarts") or 0),
        steps=_steps(pairs.get("steps", "")),
    )


def _steps(text: str) -> tuple[tuple[str, float], ...]:
    """Name and seconds of each step, from ``name:milliseconds`` of its beginning; the last one is the end."""
    begun = [(name, int(at)) for name, _, at in (part.partition(":") for part in text.split())]
    return tuple((name, (end - at) / 1000) for (name, at), (_, end) in pairwise(begun))


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in text.splitlines())}
