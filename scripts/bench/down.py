"""`make down`: take away what `make up` made."""

import argparse
import subprocess
import sys

from lab_client import LAB_DIRECTORY, REPOSITORY, lab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--context",
        help="the kubeconfig context that `make up KUBECONTEXT=…` deployed to",
    )
    arguments = parser.parse_args()
    if arguments.context:
        command = ["pulumi", "destroy", "--stack", "existing"]
        sys.exit(subprocess.run(command, cwd=REPOSITORY, check=False).returncode)
    # The nodes go with the lab and take the stack's resources along: no `pulumi destroy` is needed first.
    lab("reset")
    print(f"The lab is gone; {LAB_DIRECTORY} is removed, the cache of built binaries is kept.")


if __name__ == "__main__":
    main()
