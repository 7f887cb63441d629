"""`make down`: take away what `make up` made."""

import argparse
import shutil
import subprocess
import sys

import kubecontext
from lab_client import LAB_DIRECTORY, REPOSITORY, lab


def destroy_in_context(context: str) -> int | str:
    """Destroy the `existing` stack if it is of this context; the exit status, or why not."""
    if not shutil.which("pulumi"):
        return f"make down KUBECONTEXT={context}: the Pulumi CLI is not on PATH; install it first"
    ask = ["pulumi", "config", "get", "soci:context", "--stack", "existing"]
    asked = subprocess.run(ask, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if problem := kubecontext.of_another(context, asked.stdout.strip() if asked.returncode == 0 else ""):
        return f"make down KUBECONTEXT={context}: {problem}"
    return subprocess.run(
        ["pulumi", "destroy", "--stack", "existing"], cwd=REPOSITORY, check=False
    ).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--context",
        help="the kubeconfig context that `make up KUBECONTEXT=…` deployed to",
    )
    arguments = parser.parse_args()
    if arguments.context:
        sys.exit(destroy_in_context(arguments.context))
    # The nodes go with the lab and take the stack's resources along: no `pulumi destroy` is needed first.
    lab("reset")
    print(f"The lab is gone; {LAB_DIRECTORY} is removed, the cache of built binaries is kept.")


if __name__ == "__main__":
    main()
