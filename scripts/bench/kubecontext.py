"""`make up KUBECONTEXT=name`: the kubeconfig that has the context, found where kubectl looks; and whether a
stack is on the cluster of a context."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab_client  # noqa: F401 (puts the components on the path)

from components.cluster_identity import KUBE_SYSTEM
from components.kubeconfig import cluster_server, read_kubeconfig
from components.live_cluster import LiveCluster, UnreadableError
from components.values import RefusedError

DEFAULT = "~/.kube/config"


class NoContextError(Exception):
    """No kubeconfig that kubectl reads has the context; the text says which files were looked at."""


def kubeconfig(environment: Mapping[str, str]) -> str:
    """Return kubectl's files as a value of soci:kubeconfig: those that the variable KUBECONFIG lists, each
    with its whole path, or else the one in the home directory (client-go, tools/clientcmd/loader.go)."""
    listed = [entry for entry in environment.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return os.pathsep.join(map(os.path.abspath, listed)) or DEFAULT


def require(context: str, value: str) -> tuple[str, str]:
    """The kubeconfig's content, and the address of the API server that the context leads to.

    Raises:
        NoContextError: the kubeconfig has no such context, or not all that this one needs.
    """
    try:
        content = read_kubeconfig(value)
        return content, cluster_server(content, context)
    except RefusedError as error:
        files = [value] if value == DEFAULT else value.split(os.pathsep)
        looked = ", ".join(
            file if Path(file).expanduser().is_file() else f"{file} (absent)" for file in files
        )
        raise NoContextError(
            f"the context {context} cannot be used: {error.reason}; looked at: {looked}. "
            "Remedy: one of `kubectl config get-contexts -o name`, or KUBECONFIG=file"
        ) from error


def cluster_names(context: str, value: str) -> set[str]:
    """What a Kubernetes provider may call the cluster of a context (`components/cluster_identity.py`).

    Raises:
        NoContextError: the kubeconfig has no such context, or not all that this one needs.
        UnreadableError: the cluster does not say which it is.
    """
    content, server = require(context, value)
    namespace = LiveCluster(content, context).get(KUBE_SYSTEM)
    if not namespace:
        raise UnreadableError("it has no namespace kube-system")
    return {namespace["metadata"]["uid"], server}


@dataclass(frozen=True)
class Deployed:
    """What a stack says of the cluster that it is on.

    Attributes:
        has_resources: whether anything was made.
        clusters: the names that its Kubernetes providers have for their cluster; those of an older version of
            this program may have none.
        context: the one in its configuration; empty for none. It may be another than that of the last `up`.
    """

    has_resources: bool
    clusters: frozenset[str]
    context: str


def deployed(state: Mapping[str, Any], context: str) -> Deployed:
    """What a stack's state, as `pulumi stack export` prints it, and the context of its configuration say."""
    resources = (state.get("deployment") or {}).get("resources") or []
    providers = (entry for entry in resources if entry["type"] == "pulumi:providers:kubernetes")
    names = (provider.get("inputs", {}).get("clusterIdentifier") for provider in providers)
    return Deployed(bool(resources), frozenset(name for name in names if name), context)


def of_another(context: str, names: Collection[str], found: Deployed) -> str:
    """Why a stack may not be destroyed as that of a context; empty when it is on that one's cluster.

    Args:
        context: the one that was named.
        names: those of its cluster.
        found: what the stack says of its own.
    """
    if not found.has_resources:
        return "the stack existing has nothing on any cluster. Remedy: make down, for the lab"
    is_same = found.clusters <= set(names) if found.clusters else found.context == context
    if is_same:
        return ""
    problem = "the stack existing is on another cluster, from which it would be taken"
    if found.context in ("", context):
        return f"{problem}. Remedy: name a context that leads to that cluster"
    return f"{problem}. Remedy: make down KUBECONTEXT={found.context}, if that context leads to it"
