"""A slot's daemon as the node has it: its unit is ours, or the operating system's, which is adopted.

A unit that is not ours is never overwritten: a drop-in gives it our program and configuration.
"""

import os
import re
from dataclasses import dataclass

from . import detect, units
from .host import Host
from .kinds import EXCLUDE
from .slots import OUR_MARK, Slot
from .transaction import recorded_files, sha256


@dataclass(frozen=True)
class Daemon:
    """A slot's daemon on the node: whose unit it is, its command, and the program that runs now."""

    slot: Slot
    is_ours: bool
    command: tuple[str, ...]
    is_active: bool
    running_program: str
    pid: int = 0  # of its process, 0 when there is none
    needs_reload: bool = False  # systemd has not read the unit's files as they are now

    def exec_start(self, program: str) -> str:
        """The command line that the unit gets, with ``program`` of a release."""
        # A unit with a socket of its own hands that over: binding the path again would take it from systemd.
        from_systemd = not self.is_ours and "fd://" in self.command
        address = "fd://" if from_systemd else self.slot.socket
        options = f"--config {self.slot.config} --root {self.slot.data} --log-level info"
        return f"{program} --address {address} {options}"


def read_daemon(host: Host, slot: Slot) -> Daemon:
    """The unit and the process of a slot's daemon.

    Raises:
        InstallError: the unit is masked, or nobody says what it is or runs.
    """
    names = ("LoadState", "FragmentPath", "ExecStart", "ActiveState", "MainPID", "NeedDaemonReload")
    unit = units.show(host, slot.unit, *names)
    if unit.get("LoadState") == "masked":
        detect.refuse(f"{slot.unit} is masked", f"systemctl unmask {slot.unit}, or {EXCLUDE}")
    path = unit.get("FragmentPath", "")
    is_ours = not path or host.read_text(path).startswith(OUR_MARK)
    pid = units.main_pid(unit)
    program = detect.program_of(host, pid) if pid else ""
    if pid and not program:
        detect.refuse(f"it cannot be seen what the process {pid} of {slot.unit} runs", "try again")
    return Daemon(
        slot=slot,
        is_ours=is_ours,
        command=detect.parse_exec_start(unit.get("ExecStart", "")),
        is_active=unit.get("ActiveState") == "active",
        running_program=program,
        pid=pid,
        needs_reload=unit.get("NeedDaemonReload") == "yes",
    )


def check_override(host: Host, daemon: Daemon) -> None:
    """Refuse a unit of which another's drop-in starts another program than what is installed: each restart
    of the daemon would be one in vain, again and again. A wrapper around ours is nobody's business.

    Raises:
        InstallError: the unit runs another program.
    """
    slot = daemon.slot
    path = slot.unit_path if daemon.is_ours else slot.adoption
    content = host.read(path)
    if recorded_files(host).get(path) != sha256(content) or content is None or daemon.needs_reload:
        return  # the transaction writes it and has systemd read it
    ours = re.findall(r"^ExecStart=(/\S+)", content.decode(errors="replace"), re.MULTILINE)
    in_effect = daemon.command[0] if daemon.command else ""
    if (
        in_effect
        and daemon.running_program
        and ours
        and not (in_effect in ours or daemon.running_program in ours)
    ):
        detect.refuse(
            f"a drop-in of {slot.unit} that is not ours has it run {daemon.running_program}",
            f"take ExecStart out of it (systemctl cat {slot.unit} shows it), then systemctl daemon-reload",
        )


def is_starting(host: Host, slot: Slot) -> bool:
    """Whether the slot's daemon runs and is not ready yet; not whether it is about to be started again."""
    unit = units.show(host, slot.unit, "ActiveState", "SubState")
    return unit.get("ActiveState") == "activating" and unit.get("SubState") == "start"


def started_at(host: Host, daemon: Daemon) -> float:
    """When the daemon's process was started, in seconds since 1970; 0 when that cannot be told (proc(5))."""
    ticks = detect.start_ticks(host.read_text(f"/proc/{daemon.pid}/stat"))
    boot = detect.boot_time(host)
    return boot + ticks / os.sysconf("SC_CLK_TCK") if ticks and boot else 0.0
