"""`make up KUBECONTEXT=name`: the kubeconfig that has the context, found where kubectl looks."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lab_client import REPOSITORY

DEFAULT = "~/.kube/config"


class NoContextError(Exception):
    """No kubeconfig that kubectl reads has the context; the text says which files were looked at."""


def kubeconfig(environment: Mapping[str, str]) -> str:
    """Return kubectl's files as a value of soci:kubeconfig: those that the variable KUBECONFIG lists, each
    with its whole path, or else the one in the home directory (client-go, tools/clientcmd/loader.go)."""
    listed = [entry for entry in environment.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return os.pathsep.join(map(os.path.abspath, listed)) or DEFAULT


def require(context: str, value: str) -> None:
    """Raise NoContextError unless the kubeconfig has the context, and all that this one needs."""
    sys.path.insert(0, str(REPOSITORY))
    from components.kubeconfig import cluster_server, read_kubeconfig
    from components.values import RefusedError

    try:
        cluster_server(read_kubeconfig(value), context)
    except RefusedError as error:
        files = [value] if value == DEFAULT else value.split(os.pathsep)
        looked = ", ".join(
            file if Path(file).expanduser().is_file() else f"{file} (absent)" for file in files
        )
        raise NoContextError(
            f"the context {context} cannot be used: {error.reason}; looked at: {looked}. "
            "Remedy: one of `kubectl config get-contexts -o name`, or KUBECONFIG=file"
        ) from error


def of_another(context: str, of_stack: str) -> str:
    """Why a stack may not be destroyed as that of a context; empty when it is that one's.

    Args:
        context: the one that was named.
        of_stack: the one that the stack's configuration has; empty for none.
    """
    if not of_stack:
        return (
            "the stack existing has no context: nothing was deployed by make up KUBECONTEXT=name. "
            "Remedy: make down, for the lab"
        )
    if of_stack != context:
        return (
            f"the stack existing is of the context {of_stack}, and would be taken from that cluster. "
            f"Remedy: make down KUBECONTEXT={of_stack}"
        )
    return ""
