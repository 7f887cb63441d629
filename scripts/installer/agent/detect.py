"""What node this is, and whether SOCI can be installed on it: facts first, then pure judgement."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from . import containerd_config, daemon_environment, remedies, units
from .errors import InstallError
from .host import Host
from .kinds import EXCLUDE, PATHS, PLAIN, Kind, Signs, kind_of
from .kubelet import Kubelet, option, read_kubelet
from .slots import FIRST, SECOND
from .transaction import PROGRAMS, STATE

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Before it neither garbage collection nor ephemeral-storage limits see a proxy snapshotter: containerd#10095.
MIN_CONTAINERD = (1, 7, 16)
MIN_FREE_BYTES = 300 << 20
OUR_FOLDERS = (PROGRAMS, STATE, "/etc/soci-snapshotter-grpc")
SYSTEM_FOLDERS = ("/etc", "/opt", "/var/lib", "/etc/systemd/system")
# What the host script and the agent run on the node, and not every system has.
TOOLS = ("systemctl", "systemd-run", "journalctl", "flock", "unshare", "mount", "umount", "timeout", "awk")
TOOLS += ("grep", "sed", "find", "sync", "sha256sum", "readlink", "cut", "sort", "tail", "head", "wc", "tr")
LIST_MISSING = 'for tool; do command -v "$tool" >/dev/null || echo "$tool"; done'
NEEDS = ("Requires", "Requisite", "BindsTo", "PartOf")  # by which a restart of one unit is one of another


KUBELET = Kubelet(PLAIN.kubelet_unit)


@dataclass(frozen=True)
class Process:
    """A process: the program that it runs, its command line, and what of its environment matters here."""

    program: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What was read from the node before anything was decided."""

    kind: Kind = PLAIN
    os_id: str = ""
    machine: str = "x86_64"
    init: str = "systemd"
    containerd_load: str = "loaded"
    containerd_active: str = "active"
    containerd_start: tuple[str, ...] = ("/usr/bin/containerd",)  # by its unit
    containerd_process: Process | None = None  # of its unit
    containerd_needs: frozenset[str] = frozenset()  # units whose restart restarts it
    containerd_version: tuple[int, ...] = (2, 0, 0)
    file_systems: frozenset[str] = frozenset(("overlay", "fuse"))
    has_dev_fuse: bool = True
    kubelet: Kubelet | None = KUBELET
    missing_tools: tuple[str, ...] = ()
    read_only: str = ""
    noexec: str = ""  # the mount point, where our programs could not be run
    mounted: str = ""  # one of our own directories that is a mount point
    linked: str = ""  # one of them that is a symbolic link
    free_bytes: int = 1 << 40

    @property
    def architecture(self) -> str:
        return ARCHITECTURES.get(self.machine, self.machine)

    @property
    def containerd_command(self) -> tuple[str, ...]:
        """How containerd is started: as its unit says, or as it runs where the unit has a variable or a
        wrapper."""
        if self.containerd_process and not is_plain(self.containerd_start):
            return (self.containerd_process.program, *self.containerd_process.command[1:])
        return self.containerd_start

    @property
    def config_path(self) -> str:
        """The root configuration file: ``--config`` of the command, or containerd's default."""
        return config_path(self.containerd_command)


def is_plain(command: tuple[str, ...]) -> bool:
    """Whether a unit's command line says by itself which containerd runs with which options."""
    return (
        bool(command) and Path(command[0]).name == "containerd" and not any("$" in word for word in command)
    )


def effective_configuration(
    host: Host, program: str, path: str, seconds: float
) -> dict[containerd_config.Path, object]:
    """What a containerd makes of a configuration file.

    Raises:
        ValueError: it does not say in so many seconds, or what it says is no TOML.
    """
    result = host.run(program, "--config", path, "config", "dump", timeout=seconds)
    if result.code != 0:
        raise ValueError(result.last_error)
    return containerd_config.flatten(tomllib.loads(result.output))


def config_path(command: tuple[str, ...]) -> str:
    """The root configuration file that a containerd command line names."""
    return option(command, "config", "c") or containerd_config.DEFAULT_FILE


def identify(host: Host) -> Signs:
    """Read what tells the node's kind, from which follows where to look for the rest."""
    release = parse_os_release(host.read_text("/etc/os-release") or host.read_text("/usr/lib/os-release"))
    return Signs(release.get("ID", ""), frozenset(path for path in PATHS if host.exists(path)))


def kind_of_node(host: Host) -> Kind:
    """The node's kind."""
    return kind_of(identify(host))


def read_facts(host: Host, machine: str) -> Facts:
    """Read the node. Nothing is written.

    Raises:
        InstallError: a question that the rest depends on got no answer.
    """
    signs = identify(host)
    kind = kind_of(signs)
    init = host.read_text("/proc/1/comm").strip()
    facts = Facts(
        kind=kind,
        os_id=signs.os_id,
        machine=machine,
        init=init,
        containerd_load="",
        containerd_active="",
        containerd_start=(),
        containerd_version=(),
        kubelet=None,
    )
    if init == "systemd" and not kind.refusal:
        facts = _read_daemons(host, facts)
    if not host.exists("/dev/fuse"):
        host.run("modprobe", "fuse")
    config_folder = str(Path(host.resolve(facts.config_path)).parent)
    folders = (*SYSTEM_FOLDERS, config_folder)
    mounts = read_mounts(host.read_text("/proc/1/mountinfo"))
    place = mount_point_of(host, PROGRAMS)
    return replace(
        facts,
        file_systems=frozenset(
            line.split()[-1] for line in host.read_text("/proc/filesystems").splitlines() if line
        ),
        has_dev_fuse=host.exists("/dev/fuse"),
        read_only=next((folder for folder in (*folders, *OUR_FOLDERS) if host.is_read_only(folder)), ""),
        noexec=place if "noexec" in mounts.get(place, ()) else "",
        mounted=next((folder for folder in (PROGRAMS, STATE) if host.resolve(folder) in mounts), ""),
        linked=next((folder for folder in (PROGRAMS, STATE) if host.path(folder).is_symlink()), ""),
        free_bytes=min(host.free_bytes(folder) for folder in (*OUR_FOLDERS, *folders)),
    )


def _read_daemons(host: Host, facts: Facts) -> Facts:
    """The same with what systemd and the processes say of containerd and the kubelet."""
    names = ("LoadState", "ActiveState", "ExecStart", "MainPID", *NEEDS)
    unit = units.show(host, facts.kind.containerd_unit, *names)
    kubelet = read_kubelet(host)
    facts = replace(
        facts,
        kind=replace(facts.kind, kubelet_unit=kubelet.unit) if kubelet else facts.kind,
        containerd_load=unit.get("LoadState", ""),
        containerd_active=unit.get("ActiveState", ""),
        containerd_start=parse_exec_start(unit.get("ExecStart", "")),
        containerd_process=read_process(host, units.main_pid(unit)),
        containerd_needs=frozenset(name for key in NEEDS for name in unit.get(key, "").split()),
        kubelet=kubelet,
        missing_tools=_missing_tools(host),
    )
    if not facts.containerd_command:
        return facts
    return replace(
        facts,
        containerd_version=parse_version(host.run(facts.containerd_command[0], "--version").output),
    )


def read_process(host: Host, pid: int) -> Process | None:
    """The process ``pid``; None when there is none.

    Raises:
        InstallError: its environment cannot be seen.
    """
    if not pid:
        return None
    program = program_of(host, pid)
    command = host.read_text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
    if not program or not command[0]:
        return None
    return Process(program, tuple(command), daemon_environment.of_process(host, pid))


def start_ticks(stat: str) -> int:
    """Clock ticks from the machine's boot to a process's start, of the text of /proc/PID/stat (proc(5)); 0
    when it has none. The program's name in it may have blanks."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def program_of(host: Host, pid: int) -> str:
    """The program that a process runs, a path on the node; empty when that cannot be seen."""
    link = host.run("readlink", f"/proc/{pid}/exe")
    return link.output.strip().removesuffix(" (deleted)") if link.code == 0 else ""


def _missing_tools(host: Host) -> tuple[str, ...]:
    result = host.run("sh", "-c", LIST_MISSING, "tools", *TOOLS)
    return tuple(result.output.split()) if result.code == 0 else ("sh",)


def check(facts: Facts, mode: str, sha256: dict[str, str]) -> None:
    """Refuse nodes that SOCI cannot be installed on, before anything was changed.

    Raises:
        InstallError: with the cause and what to do instead.
    """

    if facts.kind.refusal:
        refuse(*facts.kind.refusal)
    if facts.init != "systemd":
        refuse(
            f"PID 1 is {facts.init or 'not visible'}, not systemd", f"use nodes with systemd, or {EXCLUDE}"
        )
    if facts.read_only:
        remedy = EXCLUDE
        if facts.read_only not in (*SYSTEM_FOLDERS, *OUR_FOLDERS):  # Flatcar's is in /usr/share
            remedy = (
                f"copy {facts.config_path} to /etc/containerd and name the copy by `--config` in a drop-in "
                f"of {facts.kind.containerd_unit}, or {EXCLUDE}"
            )
        refuse(f"{facts.read_only} is mounted read-only ({facts.os_id or 'unknown system'})", remedy)
    if facts.architecture not in ARCHITECTURES.values():
        refuse(f"SOCI has no release for {facts.machine}", EXCLUDE)
    if facts.architecture not in sha256:
        refuse(
            f"no digest is configured for {facts.architecture}", f"set soci:sha256 for {facts.architecture}"
        )
    if facts.containerd_load != "loaded" or not facts.containerd_command:
        used = f"; the kubelet uses {facts.kubelet.runtime}" if facts.kubelet else ""
        refuse(
            f"there is no {facts.kind.containerd_unit}{used}",
            f"use nodes that run containerd under systemd, or {EXCLUDE}",
        )
    if facts.containerd_active != "active":
        refuse(f"{facts.kind.containerd_unit} is {facts.containerd_active}", "repair containerd first")
    _check_command(facts)
    if facts.containerd_version < MIN_CONTAINERD:
        found = ".".join(map(str, facts.containerd_version)) or "of unknown version"
        refuse(
            f"containerd is {found}, older than 1.7.16: garbage collection and limits of ephemeral storage "
            "do not see the snapshotter (containerd#10095)",
            "update containerd",
        )
    if needed := facts.containerd_needs & {FIRST.unit, SECOND.unit}:
        refuse(
            f"{facts.kind.containerd_unit} requires {', '.join(sorted(needed))}: each restart of the daemon "
            "would be one of containerd",
            f"use Wants= in its place, or {EXCLUDE}",
        )
    if facts.kubelet is None:
        refuse(
            "no kubelet runs here as a service of systemd: the uninstall could not stop it",
            f"run the kubelet as a systemd service, or {EXCLUDE}",
        )
    if facts.missing_tools:
        refuse(f"the node has no {', '.join(facts.missing_tools)}", f"install them, or {EXCLUDE}")
    if facts.noexec:
        refuse(
            f"{facts.noexec} is mounted noexec: programs in {PROGRAMS} cannot run",
            f"mount it with exec, or {EXCLUDE}",
        )
    if facts.mounted:
        refuse(
            f"{facts.mounted} is a mount point of its own: it cannot be removed again",
            "mount the directory around it instead",
        )
    if facts.linked:
        refuse(
            f"{facts.linked} is a symbolic link: it cannot be removed again",
            "link or mount the directory around it instead",
        )
    if "overlay" not in facts.file_systems:
        refuse("the kernel has no overlay file system", "load the overlay module")
    if mode != "parallel" and ("fuse" not in facts.file_systems or not facts.has_dev_fuse):
        refuse("the kernel has no FUSE (/dev/fuse)", "load the fuse module, or set soci:mode to parallel")
    if facts.free_bytes < MIN_FREE_BYTES:
        refuse(f"only {facts.free_bytes >> 20} MiB are free", f"free at least {MIN_FREE_BYTES >> 20} MiB")


def refuse(cause: str, remedy: str) -> NoReturn:
    """End the install before anything was changed."""
    raise InstallError("preflight", cause, remedy)


def _check_command(facts: Facts) -> None:
    """Refuse a containerd whose program or file is not to be found out, or is another after a restart."""
    unit, process = facts.kind.containerd_unit, facts.containerd_process
    if is_plain(facts.containerd_start):
        running = config_path(process.command) if process else facts.config_path
        if running != facts.config_path:
            refuse(
                f"{unit} was changed since containerd started: it runs with {running}, and would with "
                f"{facts.config_path}",
                f"restart {unit}, then try again",
            )
    elif process is None or Path(process.program).name != "containerd":
        program = process.program if process else "not to be seen"
        refuse(
            f"which containerd {unit} runs, and with which file, cannot be found out: its main "
            f"process is {program}",
            f"have the wrapper end in `exec containerd`, or {EXCLUDE}",
        )
    if not facts.config_path.startswith("/"):
        refuse(f"{unit} names its file by the relative path {facts.config_path}", "write it from / on")


def boot_time(host: Host) -> int:
    """When the node was started, in seconds since 1970; 0 when that cannot be told (proc(5))."""
    lines = host.read_text("/proc/stat").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def check_effective(host: Host, facts: Facts, effective: Mapping[containerd_config.Path, object]) -> None:
    """Refuse a containerd that SOCI would not serve, or that would not start again, by its effective
    configuration.

    Raises:
        InstallError: with the cause and what to do instead.
    """
    address = containerd_config.server_address(effective)
    socket = other_socket(host, facts.kubelet, address) if facts.kubelet else ""
    if socket:
        if socket in (FIRST.socket, SECOND.socket):
            refuse(
                f"the kubelet pulls images through SOCI's own socket {socket}, as the operating system "
                "set it up",
                remedies.PULLS_THROUGH_SOCI,
            )
        refuse(
            f"the kubelet uses {socket}, not this containerd ({facts.kind.containerd_unit}, {address})",
            EXCLUDE,
        )
    both = containerd_config.names(effective, "required_plugins") & containerd_config.names(
        effective, "disabled_plugins"
    )
    if both:
        refuse(
            f"containerd could not start again: {', '.join(sorted(both))} is both required and disabled",
            f"repair {facts.config_path}",
        )
    folder = containerd_config.verifiers(effective)
    place = host.path(host.resolve(folder))
    if folder and place.is_dir() and any(place.iterdir()):
        refuse(
            f"containerd has image verifiers in {folder}, and pulls with SOCI would not be verified by them",
            f"verify images at admission and empty that directory, or {EXCLUDE}",
        )


def other_socket(host: Host, kubelet: Kubelet, address: str) -> str:
    """The socket other than containerd's ``address`` that the kubelet uses; empty when there is none."""
    sockets = (kubelet.runtime, kubelet.images)
    return next((socket for socket in sockets if host.resolve(socket) != host.resolve(address)), "")


def parse_os_release(text: str) -> dict[str, str]:
    """Key and value of each line of os-release, unquoted."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def read_mounts(text: str) -> dict[str, tuple[str, ...]]:
    """The mount points in the text of /proc/PID/mountinfo, each with the options of the last mount on it."""
    fields = (line.split() for line in text.splitlines())
    return {
        re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4]): tuple(words[5].split(","))
        for words in fields
    }


def mount_points(text: str) -> frozenset[str]:
    """The mount points in the text of /proc/PID/mountinfo."""
    return frozenset(read_mounts(text))


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
