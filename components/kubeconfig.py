"""Kubeconfigs: where they are, and which cluster they lead to."""

from pathlib import Path

import yaml

from .refusal import RefusedError


def read_kubeconfig(value: str) -> str:
    """The content of a kubeconfig given as content or as the path of a file (`~` allowed, relative to the
    project).

    Raises:
        RefusedError: the file cannot be read.
    """
    if "\n" in value.strip() or value.lstrip().startswith("{"):
        return value
    path = Path(value).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{path} cannot be read ({getattr(error, 'strerror', None) or 'not text'})"
        raise RefusedError(
            reason, "pulumi config set soci:kubeconfig PATH, the file that kubectl uses"
        ) from error


def current_context(kubeconfig: str) -> str:
    """The name of the context that a kubeconfig (content, already validated) selects itself."""
    return yaml.safe_load(kubeconfig)["current-context"]


def cluster_server(kubeconfig: str, context: str) -> str:
    """The API server's address that a kubeconfig's context (empty: its current one) leads to; it names the
    cluster.

    Raises:
        RefusedError: no kubeconfig, no such context, or a context that leads nowhere.
    """
    remedy = "pulumi config set soci:kubeconfig PATH, the file that kubectl uses"
    try:
        content = yaml.safe_load(kubeconfig)
        contexts = {entry["name"]: entry["context"]["cluster"] for entry in content["contexts"]}
        servers = {entry["name"]: entry["cluster"]["server"] for entry in content["clusters"]}
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise RefusedError("this is not a kubeconfig with contexts and clusters", remedy) from error
    name = context or content.get("current-context")
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        choose = f"pulumi config set soci:context {next(iter(sorted(contexts)), 'NAME')}"
        raise RefusedError(f"there is no such context in the kubeconfig (there are: {known})", choose)
    if contexts[name] not in servers:
        raise RefusedError(
            f"its context {name} leads to the cluster {contexts[name]}, which it does not hold", remedy
        )
    return servers[contexts[name]]
