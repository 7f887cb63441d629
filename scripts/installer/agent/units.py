"""What systemd says of the node's units."""

from collections.abc import Mapping

from .errors import InstallError
from .host import Host


def show(host: Host, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a systemd unit; one that there is not has a LoadState that says so.

    Raises:
        InstallError: systemctl fails, which says nothing about the unit.
    """
    result = host.run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
    if result.code != 0:
        cause = f"systemctl show {unit}: {result.last_error}"
        raise InstallError("preflight", cause, "see to systemd on the node, then try again")
    return {key: value for key, _, value in (line.partition("=") for line in result.output.splitlines())}


def main_pid(unit: Mapping[str, str]) -> int:
    """The main process by the shown properties of a unit, 0 when it has none."""
    pid = unit.get("MainPID", "")
    return int(pid) if pid.isdigit() else 0
