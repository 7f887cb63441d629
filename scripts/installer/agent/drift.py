"""Drift: what others changed on a node since the install, and how often it is put right.

Two tools that each put their own state back must not do so for ever: each time containerd is restarted.
"""

import contextlib
from datetime import UTC, datetime

from . import detect
from .errors import InstallError
from .host import Host
from .plan import Plan, Seen
from .transaction import STATE, Role, recorded_files, sha256

REPAIRS = f"{STATE}/repairs"  # when, in seconds since 1970, a line each
# Of host/72-mend-daemon.sh: the daemon's files that the node put back by itself, and what others had written.
PUT_BACK, REPLACED = f"{STATE}/put-back", f"{STATE}/replaced"
DRIFTED = "Drifted"  # the reason of condition and Event
BOOT_SECONDS = 300  # from a boot to the end of what runs once at it
PAUSE_SECONDS = 600
HOUR_SECONDS, IN_AN_HOUR = 3600, 3


class DriftError(InstallError):
    """Others changed the node, as ``seen``; ``seconds`` until it is put right, None for never."""

    def __init__(self, cause: str, remedy: str, seconds: float | None, seen: Seen) -> None:
        super().__init__("drift", cause, remedy)
        self.seconds = seconds
        self.seen = seen

    @property
    def reason(self) -> str:
        return DRIFTED


def found(host: Host, plan: Plan) -> str:
    """In words, what others changed; empty when nothing, or when something else is wanted than was installed:
    then it is an ordinary change."""
    recorded = recorded_files(host)
    own = [file for file in plan.files if not file.role.is_read_by_containerd]
    if not recorded or any(recorded.get(file.path) != sha256(file.new) for file in own):
        return ""
    changed = [*(file.path for file in plan.files if file.is_changed), *plan.changed_programs]
    words = [f"{path} was {became(host, path)}{_likely_by(host, plan, path)}" for path in changed]
    if plan.is_switch:
        words.append(f"containerd's snapshotter is {plan.snapshotter}, not {plan.slot.name}")
    return "; ".join(words) if changed else ""


def _likely_by(host: Host, plan: Plan, path: str) -> str:
    """Who is known to write the file at the boot of such a node, if it was written then: the node does not
    keep who did."""
    generator = plan.kind.generator
    generated = {file.path for file in plan.files if file.role is Role.GENERATED} | {plan.slot.config}
    at = host.changed_at(path)
    if not generator or path not in generated or at is None:
        return ""
    after_boot = at - detect.boot_time(host)
    return f" (likely by {generator.name}, at the boot)" if 0 <= after_boot < BOOT_SECONDS else ""


def became(host: Host, path: str) -> str:
    """What became of a file that others changed, and when."""
    at = host.changed_at(path)
    if at is None:
        return "removed"
    return f"changed at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def files_put_back(host: Host) -> list[str]:
    """The files that the node put back by itself, until they are forgotten."""
    return sorted(set(host.read_text(PUT_BACK).split()))


def forget_files_put_back(host: Host) -> None:
    """Tell of them no more."""
    with contextlib.suppress(OSError):
        host.path(PUT_BACK).unlink(missing_ok=True)


def seconds_to_wait(host: Host, now: float) -> float:
    """Seconds until the next repair may be made, 0 for now. ``now`` is in seconds since 1970."""
    times = _times(host, now)
    waits = [times[-1] + PAUSE_SECONDS - now] if times else []
    if len(times) >= IN_AN_HOUR:
        waits.append(times[-IN_AN_HOUR] + HOUR_SECONDS - now)
    return max([0.0, *waits])


def remember(host: Host, now: float) -> None:
    """Record that a repair is made at ``now``."""
    times = [*_times(host, now), now]
    host.write(REPAIRS, "".join(f"{int(at)}\n" for at in times[-IN_AN_HOUR:]).encode(), 0o600)


def _times(host: Host, now: float) -> list[float]:
    """Of the repairs of the last hour. A clock that was set back must not make them last for years."""
    times = [float(word) for word in host.read_text(REPAIRS).split() if word.isdigit()]
    return [at for at in times if now - HOUR_SECONDS < at <= now]
