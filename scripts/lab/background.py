"""Background processes that end with the one that started them."""

import socket
import subprocess
from pathlib import Path


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on at the address, which is this machine's."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class Process:
    """A background process with a log; ended by stop(), and at the latest with this process."""

    def __init__(self, log: Path, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )

    def stop(self) -> None:
        """End the process, by force when it does not end within 5 s."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def words(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
