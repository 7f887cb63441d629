"""The host script's functions and constants, without a run of it."""

import os
import subprocess

from agent import transaction

from tests.fakes.node import INSTALLER

SCRIPT = transaction.host_script(INSTALLER).decode()


def call(code: str) -> str:
    """What shell code prints that has the script's functions and constants.

    Raises:
        subprocess.CalledProcessError: the code failed; what it said is a note of the error.
    """
    try:
        done = subprocess.run(
            ["sh", "-s"],
            input=f"{SCRIPT}\n{code}\n",
            env={**os.environ, "SOCI_HOST_MAIN": "noop", "ROOT": ""},
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return done.stdout
