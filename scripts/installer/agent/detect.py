"""What node this is, and whether SOCI can be installed on it: facts first, then pure judgement."""

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallError
from .host import Host
from .kinds import EXCLUDE, PATHS, PLAIN, Kind, Signs, kind_of

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MIN_CONTAINERD = (1, 7)
MIN_FREE_BYTES = 300 << 20
OUR_FOLDERS = ("/opt/soci-cluster", "/var/lib/soci-cluster", "/etc/soci-snapshotter-grpc")


@dataclass(frozen=True)
class Facts:
    """What was read from the node before anything was decided."""

    kind: Kind = PLAIN
    os_id: str = ""
    machine: str = "x86_64"
    init: str = "systemd"
    containerd_load: str = "loaded"
    containerd_active: str = "active"
    containerd_command: tuple[str, ...] = ("/usr/bin/containerd",)
    containerd_version: tuple[int, ...] = (2, 0, 0)
    file_systems: frozenset[str] = frozenset(("overlay", "fuse"))
    has_dev_fuse: bool = True
    read_only: str = ""
    free_bytes: int = 1 << 40

    @property
    def architecture(self) -> str:
        return ARCHITECTURES.get(self.machine, self.machine)

    @property
    def config_path(self) -> str:
        """The root configuration file: ``--config`` of the unit's command, or containerd's default."""
        return config_path(self.containerd_command)


def config_path(command: tuple[str, ...]) -> str:
    """The root configuration file that a containerd command line names."""
    for index, argument in enumerate(command):
        if argument in ("-c", "--config") and index + 1 < len(command):
            return command[index + 1]
        if argument.startswith(("--config=", "-c=")):
            return argument.partition("=")[2]
    return "/etc/containerd/config.toml"


def identify(host: Host) -> Signs:
    """Read what tells the node's kind, from which follows where to look for the rest."""
    release = parse_os_release(host.read_text("/etc/os-release") or host.read_text("/usr/lib/os-release"))
    return Signs(release.get("ID", ""), frozenset(path for path in PATHS if host.exists(path)))


def kind_of_node(host: Host) -> Kind:
    """The node's kind."""
    return kind_of(identify(host))


def read_facts(host: Host, machine: str) -> Facts:
    """Read the node. Nothing is written; a missing fact is an empty one."""
    signs = identify(host)
    kind = kind_of(signs)
    init = host.read_text("/proc/1/comm").strip()
    unit: dict[str, str] = {}
    version: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    if init == "systemd":
        unit = show(host, kind.containerd_unit, "LoadState", "ActiveState", "ExecStart")
        command = parse_exec_start(unit.get("ExecStart", ""))
        if command:
            version = parse_version(host.run(command[0], "--version").output)
    if not host.exists("/dev/fuse"):
        host.run("modprobe", "fuse")
    config_folder = str(Path(host.resolve(config_path(command))).parent)
    folders = ("/etc", "/opt", "/var/lib", "/etc/systemd/system", config_folder)
    return Facts(
        kind=kind,
        os_id=signs.os_id,
        machine=machine,
        init=init,
        containerd_load=unit.get("LoadState", ""),
        containerd_active=unit.get("ActiveState", ""),
        containerd_command=command,
        containerd_version=version,
        file_systems=frozenset(
            line.split()[-1] for line in host.read_text("/proc/filesystems").splitlines() if line
        ),
        has_dev_fuse=host.exists("/dev/fuse"),
        read_only=next((folder for folder in (*folders, *OUR_FOLDERS) if host.is_read_only(folder)), ""),
        free_bytes=min(host.free_bytes(folder) for folder in (*OUR_FOLDERS, *folders)),
    )


def check(facts: Facts, mode: str, sha256: dict[str, str]) -> None:
    """Refuse nodes that SOCI cannot be installed on, before anything was changed.

    Raises:
        InstallError: with the cause and what to do instead.
    """

    def refuse(cause: str, remedy: str) -> None:
        raise InstallError("preflight", cause, remedy)

    if facts.kind.refusal:
        refuse(*facts.kind.refusal)
    if facts.init != "systemd":
        refuse(
            f"PID 1 is {facts.init or 'not visible'}, not systemd", f"use nodes with systemd, or {EXCLUDE}"
        )
    if facts.read_only:
        refuse(f"{facts.read_only} is mounted read-only ({facts.os_id or 'unknown system'})", EXCLUDE)
    if facts.architecture not in ARCHITECTURES.values():
        refuse(f"SOCI has no release for {facts.machine}", EXCLUDE)
    if facts.architecture not in sha256:
        refuse(
            f"no digest is configured for {facts.architecture}", f"set soci:sha256 for {facts.architecture}"
        )
    if facts.containerd_load != "loaded" or not facts.containerd_command:
        refuse(
            f"there is no {facts.kind.containerd_unit}",
            f"use nodes that run containerd under systemd, or {EXCLUDE}",
        )
    if facts.containerd_active != "active":
        refuse(f"{facts.kind.containerd_unit} is {facts.containerd_active}", "repair containerd first")
    if facts.containerd_version < MIN_CONTAINERD:
        found = ".".join(map(str, facts.containerd_version)) or "of unknown version"
        refuse(f"containerd is {found}, older than 1.7", "update containerd")
    if "overlay" not in facts.file_systems:
        refuse("the kernel has no overlay file system", "load the overlay module")
    if mode != "parallel" and ("fuse" not in facts.file_systems or not facts.has_dev_fuse):
        refuse("the kernel has no FUSE (/dev/fuse)", "load the fuse module, or set soci:mode to parallel")
    if facts.free_bytes < MIN_FREE_BYTES:
        refuse(f"only {facts.free_bytes >> 20} MiB are free", f"free at least {MIN_FREE_BYTES >> 20} MiB")


def parse_os_release(text: str) -> dict[str, str]:
    """Key and value of each line of os-release, unquoted."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def mount_points(text: str) -> frozenset[str]:
    """The mount points in the text of /proc/PID/mountinfo."""
    points = (line.split()[4] for line in text.splitlines())
    return frozenset(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in points)


def mount_point_of(host: Host, path: str) -> str:
    """The mount point below which ``path`` lies. A hard link cannot cross mount points, even inside one file
    system (link(2), EXDEV)."""
    points = mount_points(host.read_text("/proc/1/mountinfo"))
    place = host.resolve(path) + "/"
    return max((point for point in points if place.startswith(point.rstrip("/") + "/")), key=len, default="/")


def parse_version(text: str) -> tuple[int, ...]:
    """The version in the output of ``containerd --version``; empty when there is none."""
    match = re.search(r"\bv?(\d+)\.(\d+)(?:\.(\d+))?\b", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def parse_exec_start(text: str) -> tuple[str, ...]:
    """The command of the last ``{ path=... ; argv[]=... ; ... }`` in systemctl show's ExecStart."""
    found = re.findall(r"argv\[\]=(.*?) ; ", text)
    return tuple(found[-1].split()) if found else ()


def show(host: Host, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a systemd unit; empty when systemctl fails."""
    output = host.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).output
    return {key: value for key, _, value in (line.partition("=") for line in output.splitlines())}
