"""The node's kubelet as it runs: the unit that it is of, and where it finds its container runtime and images.

Flags and configuration: Kubernetes' references "kubelet" and "KubeletConfiguration"; "Kubelet Configuration
Directory" for the drop-ins. A flag goes before the drop-ins, the last of these before the file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import InstallError
from .host import Host

# A kubelet of a cluster inside of this one is in the cgroup of a pod or of another runtime's scope.
_OF_A_UNIT = re.compile(r"^(?:/\.\.)*(?:/[^/]+\.slice)*/([^/]+\.service)(?:/|$)")
RUNTIME = ("container-runtime-endpoint", "containerRuntimeEndpoint")
IMAGES = ("image-service-endpoint", "imageServiceEndpoint")


@dataclass(frozen=True)
class Kubelet:
    """``runtime`` and ``images`` are paths of sockets, as the kubelet has them; by default containerd's."""

    unit: str
    runtime: str = "/run/containerd/containerd.sock"
    images: str = "/run/containerd/containerd.sock"


@dataclass(frozen=True)
class KubeletProcess:
    """The kubelet's process, the unit that it is of, and its command line."""

    pid: int
    unit: str
    command: tuple[str, ...]


def read_kubelet(host: Host) -> Kubelet | None:
    """The kubelet that runs as a unit of systemd; None when there is no such process.

    Raises:
        InstallError: its configuration cannot be read.
    """
    process = kubelet_process(host)
    return _read(host, process.unit, process.command) if process else None


def kubelet_process(host: Host) -> KubeletProcess | None:
    """The process of the kubelet that runs as a unit of systemd; None when there is none."""
    for pid in sorted(host.path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        process = f"/proc/{pid.name}"
        if host.read_text(f"{process}/comm").strip() != "kubelet":
            continue
        unit = unit_of_cgroup(host.read_text(f"{process}/cgroup"))
        command = host.read_text(f"{process}/cmdline")
        if unit and command:  # one that ends has none, which would be one without flags
            return KubeletProcess(int(pid.name), unit, tuple(command.split("\0")))
    return None


def unit_of_cgroup(text: str) -> str:
    """The service in the text of /proc/PID/cgroup, v1 or v2; empty when the process is of none."""
    paths = (
        line.split(":", 2)[-1]
        for line in text.splitlines()
        if line.split(":")[1:2] in ([""], ["name=systemd"])
    )
    return next((match[1] for path in paths if (match := _OF_A_UNIT.match(path))), "")


def _read(host: Host, unit: str, command: Sequence[str]) -> Kubelet:
    texts = list(_configuration(host, command))
    runtime = _endpoint(command, texts, *RUNTIME) or Kubelet.runtime
    return Kubelet(unit, runtime, _endpoint(command, texts, *IMAGES) or runtime)


def _endpoint(command: Sequence[str], texts: Sequence[str], flag: str, key: str) -> str:
    found = option(command, flag) or next((value for text in texts if (value := setting(text, key))), "")
    return found.removeprefix("unix://")


def option(command: Sequence[str], *names: str) -> str:
    """The value of an option in a command line, with one dash or two, behind ``=`` or a space; the last one
    counts, as for Go's flags."""
    found = ""
    for index, argument in enumerate(command):
        name, is_joined, value = argument.partition("=")
        if argument.startswith("-") and name.lstrip("-") in names:
            found = value if is_joined else "".join(command[index + 1 : index + 2])
    return found


def setting(text: str, key: str) -> str:
    """A setting of text in a configuration in YAML or JSON; empty when it has none."""
    found = ""
    for line in text.splitlines():
        match = re.search(rf"""^(?!\s*#).*?\b{key}["']?\s*:\s*["']?([^"',}}\s#]+)""", line)
        found = match[1] if match else found
    return found


def _configuration(host: Host, command: Sequence[str]) -> Iterator[str]:
    """The texts of the kubelet's configuration, the one that counts most first."""
    folder = option(command, "config-dir")
    if folder:
        place = host.path(host.resolve(folder))
        for path in sorted(place.rglob("*.conf"), reverse=True):
            yield path.read_text(errors="replace")
    path = option(command, "config")
    if path:
        content = host.read(path)
        if content is None:
            raise InstallError(
                "preflight",
                f"the kubelet's configuration {path} cannot be read",
                "start it with an absolute path",
            )
        yield content.decode(errors="replace")
