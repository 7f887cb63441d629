"""The commands of the package, as they are installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.engine.project_stack import PATIENCE_S, REPOSITORY

COMMANDS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
# What pip writes for a command, and from where its module came.
PROGRAM = """import sys
from {module} import {function}
print(sys.modules["{module}"].__file__, file=sys.stderr)
sys.argv[0] = "{name}"
sys.exit({function}())"""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_starts_out_of_the_wheel(package: Path, tmp_path: Path, name: str) -> None:
    module, _, function = COMMANDS[name].partition(":")
    program = PROGRAM.format(module=module, function=function, name=name)
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["usage:", name]), done.stdout + done.stderr
    assert Path(done.stderr.splitlines()[0]).is_relative_to(package)
