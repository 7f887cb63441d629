"""A forwarding proxy with CONNECT, Debian's tinyproxy, that tells what went through it."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from background import Process, free_port
from cache import cached
from settings import VERSIONS, LabError

PACKAGE = "tinyproxy-bin"
REQUEST = re.compile(r"Request \(file descriptor \d+\): (\S+) (\S+) HTTP")
# The proxy looks names up, and its clients do not: it sees a file of names that is nobody else's.
WITH_NAMES = 'mount --bind "$1" /etc/hosts; shift; exec "$@"'


def program() -> Path:
    """Return the proxy's program out of the Debian package, which would start it as a service if installed.

    Raises LabError with apt's words when the package cannot be had.
    """

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for command in (["apt-get", "update"], ["apt-get", "download", PACKAGE]):
                done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            archives = list(Path(scratch).glob("*.deb"))
            if not archives:
                raise LabError(f"apt-get download {PACKAGE} failed: {done.stderr.strip()}")
            subprocess.run(["dpkg-deb", "-x", archives[0], directory], check=True)

    return cached(f"{PACKAGE}-{VERSIONS['debian']}", make) / "usr/bin/tinyproxy"


class Proxy:
    """The proxy at an address, on a port of its own.

    names are those that it knows beside the machine's own: host -> address. With a user it asks for user and
    password.
    """

    def __init__(
        self, address: str, names: dict[str, str] | None = None, user: str = "", password: str = ""
    ) -> None:
        self.address, self.port = address, free_port(address)
        self._directory = Path(tempfile.mkdtemp(prefix="lab-proxy-"))
        self._log = self._directory / "log"
        configuration = [
            f"Listen {address}",
            f"Port {self.port}",
            f'LogFile "{self._log}"',
            "LogLevel Connect",
            "MaxClients 500",
            "Timeout 600",
        ]
        credentials = ""
        if user:
            configuration.append(f"BasicAuth {user} {password}")
            credentials = f"{user}:{password}@"
        self.url = f"http://{credentials}{address}:{self.port}"
        file = self._directory / "tinyproxy.conf"
        file.write_text("\n".join([*configuration, ""]))
        command = [str(program()), "-d", "-c", str(file)]
        if names:
            hosts = self._directory / "hosts"
            own = "".join(f"{where} {name}\n" for name, where in names.items())
            hosts.write_text(Path("/etc/hosts").read_text() + own)
            command = ["unshare", "--mount", "sh", "-ec", WITH_NAMES, "sh", str(hosts), *command]
        self._process = Process(self._directory / "output", command)
        deadline = time.monotonic() + 5
        while not self._listens():
            if time.monotonic() > deadline:
                raise LabError(f"the proxy does not listen on {address}:{self.port}: {self._process.words()}")
            time.sleep(0.05)

    def destinations(self) -> list[str]:
        """Return host:port of each CONNECT, and the URL of each other request, in their order."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return [found[2] for found in REQUEST.finditer(text)]

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((self.address, self.port)) == 0

    def close(self) -> None:
        self._process.stop()
        shutil.rmtree(self._directory)
