"""The host script's functions and constants, without a run of it."""

import os
import subprocess
from pathlib import Path

from agent import transaction

from tests.fakes.node import INSTALLER

SCRIPT = transaction.host_script(INSTALLER).decode()


def say(tmp_path: Path, commands: str, *words: str) -> list[str]:
    """The lines that the words expand to in the script's shell, after these commands."""
    script = tmp_path / "soci-host.sh"
    script.write_text(SCRIPT)
    line = f'. "$1"\n{commands}\nprintf "%s\\n" ' + " ".join(f'"{word}"' for word in words)
    environment = {name: value for name, value in os.environ.items() if name != "ROOT"}
    done = subprocess.run(
        ["sh", "-c", line, "sh", str(script)],
        check=True,
        env={**environment, "SOCI_HOST_MAIN": "noop"},
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()
