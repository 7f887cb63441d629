"""`make down`: take away what `make up` made."""

import argparse
import json
import os
import shutil
import subprocess
import sys

import kubecontext
from lab_client import LAB_DIRECTORY, REPOSITORY, lab

from components.live_cluster import UnreadableError

STACK = ("--stack", "existing")


def destroy_in_context(context: str) -> int | str:
    """Destroy the `existing` stack if it is on the cluster of this context; the exit status, or why not."""
    if problem := why_not(context):
        return f"make down KUBECONTEXT={context}: {problem}"
    return subprocess.run(["pulumi", "destroy", *STACK], cwd=REPOSITORY, check=False).returncode


def why_not(context: str) -> str:
    """Why the stack is not destroyed; empty when it is on the cluster of the context."""
    if not shutil.which("pulumi"):
        return "the Pulumi CLI is not on PATH. Remedy: install it"
    exported = ask("stack", "export")
    if exported.returncode:
        return (
            f"the stack existing cannot be read: {' '.join(exported.stderr.split())}. Remedy: pulumi login "
            "to where it is; make down, for the lab"
        )
    configured = ask("config", "get", "soci:context")
    found = kubecontext.deployed(
        json.loads(exported.stdout), "" if configured.returncode else configured.stdout.strip()
    )
    names: set[str] = set()
    try:
        if found.clusters:
            names = kubecontext.cluster_names(context, kubecontext.kubeconfig(os.environ))
    except kubecontext.NoContextError as error:
        return str(error)
    except UnreadableError as error:
        return (
            f"cannot verify that the stack is on the cluster of this context: {error}. Remedy: check the "
            "network and the context's credentials, or pulumi destroy --stack existing, which does not ask"
        )
    return kubecontext.of_another(context, names, found)


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the Pulumi CLI says of the stack."""
    command = ["pulumi", *arguments, *STACK]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


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
