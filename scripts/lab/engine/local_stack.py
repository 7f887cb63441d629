#!/usr/bin/env python3
"""The lab's stack, `local`: `lab pulumi ARGUMENTS…` is the Pulumi CLI on it, in the project's directory.

Its settings are a copy of stacks/Pulumi.local.yaml in the lab's own directory, so that `pulumi config set`
changes the lab and not the repository. `make up` and `lab reset` put the repository's settings back.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine import prepare
from settings import REPOSITORY, LabError, state_directory

STACK = "local"
SETTINGS = f"Pulumi.{STACK}.yaml"


def environment(state: Path, fresh: bool = False) -> dict[str, str]:
    """Return the environment in which `pulumi` works on the lab's stack, once there is one.

    fresh puts the repository's settings back. Raises LabError when the CLI cannot be had or makes no stack.
    """
    state = state.absolute()
    settings = state / SETTINGS
    if fresh or not settings.exists():
        state.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / "stacks" / SETTINGS, settings)
    # Flags as variables (CLI 3.208 and newer): the copy stands for the project's file in every command.
    choice = {"PULUMI_STACK": STACK, "PULUMI_OPTION_CONFIG_FILE": str(settings)}
    found = {**os.environ, **prepare(state / "pulumi"), **choice}
    select = ["pulumi", "stack", "select", "--create", "--non-interactive", STACK]
    done = subprocess.run(select, cwd=REPOSITORY, env=found, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"there is no stack {STACK}, and none can be made: {done.stderr.strip()}")
    return found


def main() -> None:
    try:
        found = environment(state_directory())
    except LabError as error:
        sys.exit(f"lab: {error}")
    os.chdir(REPOSITORY)
    os.execvpe("pulumi", ["pulumi", *sys.argv[1:]], found)


if __name__ == "__main__":
    main()
