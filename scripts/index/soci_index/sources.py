"""Which images: named, listed in files, found in Kubernetes manifests, or run by a cluster's pods."""

import importlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .errors import SociIndexError, UsageError

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# In objects of Argo Workflows and Tekton; in other ones, such as a chart's values, they may be anything.
WORKFLOW_GROUPS = ("argoproj.io/", "tekton.dev/")
WORKFLOW_CONTAINERS, WORKFLOW_CONTAINER = ("steps", "sidecars"), ("container", "script", "stepTemplate")
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


def of_cluster(kubectl: Iterable[str], context: str, namespaces: Sequence[str] = ()) -> list[str]:
    """The images of a cluster's pods.

    Args:
        kubectl: how it is run.
        context: of the kubeconfig; empty for its own.
        namespaces: those whose pods count; empty for all.

    Raises:
        SociIndexError: they cannot be listed.
    """
    command = [*kubectl, *([f"--context={context}"] if context else []), "get", "pods"]
    if not namespaces:
        return unique(_of_pods([*command, "--all-namespaces"], "all namespaces"))
    listed = (_of_pods([*command, f"--namespace={name}"], name) for name in namespaces)
    return unique(image for images in listed for image in images)


def _of_pods(question: Sequence[str], where: str) -> list[str]:
    """The images of the pods for which kubectl is asked."""
    command = [*question, "--output", "json"]
    remedy = f"see to kubectl, its context, and the right to list pods in {where}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SociIndexError(f"kubectl cannot be asked ({error})", remedy) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise SociIndexError(f"kubectl get pods: {said}", remedy)
    return list(images_of(json.loads(done.stdout)))


def images_of(content: Any, is_workflow: bool = False) -> Iterator[str]:
    """The images that Kubernetes objects name: of containers of all kinds, and of volumes that are images.

    Args:
        content: objects, or a part of one.
        is_workflow: whether the part is of an object of Argo Workflows or Tekton.
    """
    if isinstance(content, list):
        for item in content:
            yield from images_of(item, is_workflow)
    elif isinstance(content, dict):
        if "apiVersion" in content:
            is_workflow = _is_workflow(content)
        for key, value in content.items():
            if isinstance(value, list):
                if key in CONTAINERS or (is_workflow and key in WORKFLOW_CONTAINERS):
                    yield from _named(value)
                elif key == "volumes":
                    yield from _named(volume.get("image") for volume in value if isinstance(volume, dict))
            elif is_workflow and key in WORKFLOW_CONTAINER:
                yield from _named([value])
            yield from images_of(value, is_workflow)


def _is_workflow(thing: dict[Any, Any]) -> bool:
    """Whether an object runs containers in the words of Argo Workflows or Tekton. Argo CD's applications, of
    the same group, have a chart's values instead."""
    is_of_group = str(thing["apiVersion"]).startswith(WORKFLOW_GROUPS)
    return is_of_group and not str(thing.get("kind")).startswith("Application")


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

    class Loader(yaml.SafeLoader):
        """What YAML 1.1 has more than Kubernetes, a value's sign and dates, stays text."""

    for tag in ("value", "timestamp"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", yaml.SafeLoader.construct_yaml_str)
    try:
        return list(yaml.load_all(text, Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else str(error)
        raise UsageError(f"{name} is no YAML ({where})", "render it first, as helm template does") from error
