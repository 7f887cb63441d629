"""A node that exists only as a directory and a table of answers."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INSTALLER = REPOSITORY / "scripts" / "installer"
sys.path.insert(0, str(INSTALLER))

from agent.host import Host, Result  # noqa: E402


class FakeHost(Host):
    """A host whose commands are answered by functions of (arguments, standard input)."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, self._answer)
        self.commands: list[tuple[str, ...]] = []
        self.answers: dict[str, Callable[[Sequence[str], str], Result]] = {}

    def _answer(self, command: Sequence[str], text: str, timeout: float) -> Result:
        self.commands.append(tuple(command))
        answer = self.answers.get(command[0])
        return answer(command, text) if answer else Result(127, "", f"{command[0]}: not found")


def run_here(command: Sequence[str], text: str = "", timeout: float = 60) -> Result:
    """Runs host commands on this machine: for programs that only look."""
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True, timeout=timeout)
    return Result(done.returncode, done.stdout, done.stderr)


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``root``: its mode and bytes, to show that nothing changed."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }
