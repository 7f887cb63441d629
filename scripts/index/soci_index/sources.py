"""Which images: named, listed in files, found in Kubernetes manifests, or run by a cluster's pods."""

import importlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

from .errors import SociIndexError, UsageError

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
KUBECTL_SECONDS = 120
_MANIFEST = re.compile(r"^\s*(apiVersion|kind)\s*:", re.MULTILINE)


def of_text(text: str, name: str) -> list[str]:
    """The images of a file: Kubernetes manifests (YAML or JSON), as Helm renders them, or one image a line.

    Raises:
        UsageError: it is none of these.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            return unique(images_of(json.loads(text)))
        except ValueError as error:
            raise UsageError(f"{name} is no JSON ({error})", "one image a line, or manifests") from error
    if _MANIFEST.search(text):
        return unique(images_of(_yaml(text, name)))
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return unique(line for line in lines if line)


def of_cluster(kubectl: Iterable[str], context: str) -> list[str]:
    """The images of a cluster's pods.

    Args:
        kubectl: how it is run.
        context: of the kubeconfig; empty for its own.

    Raises:
        SociIndexError: they cannot be listed.
    """
    options = [f"--context={context}"] if context else []
    command = [*kubectl, *options, "get", "pods", "--all-namespaces", "--output", "json"]
    remedy = "see to kubectl, its context, and the right to list pods in all namespaces"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SociIndexError(f"kubectl cannot be asked ({error})", remedy) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise SociIndexError(f"kubectl get pods: {said}", remedy)
    return unique(images_of(json.loads(done.stdout)))


def images_of(content: Any) -> Iterator[str]:
    """The images that Kubernetes objects name: of containers of all kinds, and of volumes that are images."""
    if isinstance(content, list):
        for item in content:
            yield from images_of(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key in CONTAINERS and isinstance(value, list):
                yield from _named(container for container in value)
            elif key == "volumes" and isinstance(value, list):
                yield from _named(volume.get("image") for volume in value if isinstance(volume, dict))
            yield from images_of(value)


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))


def _named(holders: Iterable[Any]) -> Iterator[str]:
    for holder in holders:
        found = holder.get("image") or holder.get("reference") if isinstance(holder, dict) else None
        if isinstance(found, str) and found.strip():
            yield found.strip()


def _yaml(text: str, name: str) -> list[Any]:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        remedy = "pip install pyyaml, or JSON: kubectl create --dry-run=client --output json -f FILE"
        raise UsageError(f"{name} is YAML, and this Python has no PyYAML", remedy) from error
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else str(error)
        raise UsageError(f"{name} is no YAML ({where})", "render it first, as helm template does") from error
