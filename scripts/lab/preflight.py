"""What the lab asks of the machine: every problem named at once, in words, each with its remedy."""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from settings import ADDRESS, API_PORT, REGISTRY_PORT, RELEASE_PORT, VERSIONS, LabError

DISK_GB = 12
MEMORY_GB = 4
PORTS = {API_PORT: "kube-apiserver", REGISTRY_PORT: "registry", RELEASE_PORT: "releases"}

# Programs the lab runs, and the Debian packages that carry them.
PACKAGES = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "skopeo": "skopeo",
    "busybox": "busybox-static",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "iptables": "iptables",
    "gcc": "gcc",
    "openssl": "openssl",
    "ip": "iproute2",
    "tc": "iproute2",
    "nsenter": "util-linux",
}
LIBRARIES = {"libz.a": "zlib1g-dev", "libc.a": "libc6-dev"}


@dataclass(frozen=True)
class Machine:
    """What was found; the defaults are a machine on which everything is well."""

    system: str = "Linux"
    architecture: str = "x86_64"
    python: tuple[int, int] = (3, 11)
    root: bool = True
    free_disk_gb: float = DISK_GB
    memory_gb: float = MEMORY_GB
    ports_in_use: tuple[int, ...] = ()
    kernel_features: frozenset[str] = frozenset({"overlay", "fuse", "bridge"})
    go: str = VERSIONS["go"]
    apt: bool = True
    missing_packages: tuple[str, ...] = ()


def problems(machine: Machine, needs_go: bool = True) -> list[str]:
    """Return what keeps the lab from running there, each as "what. Remedy: ..."; empty when nothing does."""
    found = []
    go_remedy = f"install Go {VERSIONS['go']} or newer from https://go.dev/dl/"
    if machine.system != "Linux" or machine.architecture != "x86_64":
        where = f"{machine.system} on {machine.architecture}"
        found.append(f"this machine runs {where}. Remedy: use a Linux machine with an x86-64 processor")
    if machine.python < (3, 11):
        found.append(f"Python is {_text(machine.python)}. Remedy: install Python 3.11 or newer")
    if not machine.root:
        found.append(
            "not root with CAP_SYS_ADMIN, which mounts and namespaces need. Remedy: run it with sudo"
        )
    if machine.free_disk_gb < DISK_GB:
        found.append(f"{machine.free_disk_gb:.1f} GB of disk are free. Remedy: make it {DISK_GB} GB")
    if machine.memory_gb < MEMORY_GB:
        found.append(f"{machine.memory_gb:.1f} GB of memory. Remedy: use a machine with {MEMORY_GB} GB")
    for port in machine.ports_in_use:
        remedy = f"stop what listens there (ss -ltnp 'sport = :{port}')"
        found.append(f"port {port}, the lab's {PORTS[port]}, is in use by another. Remedy: {remedy}")
    for feature in sorted({"overlay", "fuse", "bridge"} - machine.kernel_features):
        found.append(f"the kernel has no {feature}. Remedy: modprobe {feature}, or use a kernel that has it")
    if needs_go and not machine.go:
        found.append(f"Go is not on PATH. Remedy: {go_remedy}")
    elif needs_go and _numbers(machine.go) < _numbers(VERSIONS["go"]):
        found.append(f"Go is {machine.go}. Remedy: {go_remedy}")
    if machine.missing_packages and not machine.apt:
        names = " ".join(machine.missing_packages)
        found.append(f"there is no apt-get to install programs. Remedy: install what Debian calls {names}")
    return found


def observe(disk: Path, own_ports: set[int]) -> Machine:
    """Look at this machine; `disk` is a path on the disk to fill, own_ports are those the lab holds."""
    while not disk.exists():
        disk = disk.parent
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        python=(sys.version_info.major, sys.version_info.minor),
        root=os.geteuid() == 0 and _may_mount(),
        free_disk_gb=shutil.disk_usage(disk).free / 1e9,
        memory_gb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9,
        ports_in_use=tuple(port for port in PORTS if port not in own_ports and port in _listening()),
        kernel_features=frozenset(_kernel_features()),
        go=_go_version(),
        apt=bool(shutil.which("apt-get")),
        missing_packages=tuple(missing_packages()),
    )


def missing_packages() -> list[str]:
    """Return the Debian packages whose programs or libraries this machine lacks."""
    packages = {package for program, package in PACKAGES.items() if not shutil.which(program)}
    for library, package in LIBRARIES.items():
        if not [*Path("/usr/lib").glob(f"*-linux-gnu/{library}"), *Path("/usr/lib").glob(library)]:
            packages.add(package)
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def install_packages(packages: list[str]) -> None:
    """Install Debian packages; raise LabError with apt's words when that fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    for command in (["apt-get", "update"], install):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0 and command[1] != "update":  # an unrelated source may be out of reach
            words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise LabError(f"{' '.join(command)} failed (exit {done.returncode}):\n{words}")


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _listening() -> set[int]:
    """Return the TCP ports somebody listens on, on any address or the lab's (proc(5), net/tcp: state 0A)."""
    lab = "".join(f"{int(part):02X}" for part in reversed(ADDRESS.split(".")))
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].rpartition(":")
            if fields[3] == "0A" and (set(address) == {"0"} or address == lab):
                ports.add(int(port, 16))
    return ports


def _may_mount() -> bool:
    """Return whether this process has CAP_SYS_ADMIN (capabilities(7): number 21), as not every root has."""
    capabilities = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(capabilities) and bool(int(capabilities[1], 16) >> 21 & 1)


def _kernel_features() -> set[str]:
    features = set()
    for feature in ("overlay", "fuse", "bridge"):
        if shutil.which("modprobe"):
            subprocess.run(["modprobe", "--quiet", feature], capture_output=True, check=False)
    try:
        file_systems = Path("/proc/filesystems").read_text().split()
    except OSError:
        return features
    features = {"overlay", "fuse"} & set(file_systems)
    if not Path("/dev/fuse").exists():
        features.discard("fuse")
    built_in = Path(f"/lib/modules/{platform.release()}/modules.builtin")
    if Path("/sys/module/bridge").exists() or (built_in.exists() and "/bridge.ko" in built_in.read_text()):
        return features | {"bridge"}
    # Without a module list only trying tells: a bridge that lives for a moment.
    probe = f"lab-probe{os.getpid() % 10000}"
    add = subprocess.run(["ip", "link", "add", probe, "type", "bridge"], capture_output=True, check=False)
    if add.returncode == 0:
        subprocess.run(["ip", "link", "delete", probe], capture_output=True, check=False)
        features.add("bridge")
    return features


def _go_version() -> str:
    if not shutil.which("go"):
        return ""
    # Not in a module's directory: there the command would fetch the toolchain the module asks for.
    done = subprocess.run(["go", "env", "GOVERSION"], cwd="/", capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("go")
