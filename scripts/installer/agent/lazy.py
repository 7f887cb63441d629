"""Lazily loaded containers: who runs on layers that a daemon serves, and to which pods they belong.

A restart of the daemon breaks them for good (soci-snapshotter#275, #1648). The mount table says which they
are, containerd's own labels name their pods: neither the kubelet nor the API server is asked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from .ctr import Ctr
from .errors import InstallError
from .host import Host
from .slots import Slot
from .transaction import SCRIPT, run_script

POD_LABEL = "io.kubernetes.pod"  # set by the kubelet on each container: pkg/kubelet/types/labels.go


@dataclass(frozen=True, order=True)
class Pod:
    """A pod as containerd's labels name it; ``uid`` tells it from a later one of the same name."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


NO_POD = Pod("", "")


@dataclass(frozen=True)
class Busy:
    """Containers that a daemon restart would break: their mount points by slot, and their pods."""

    mounts: Mapping[Slot, tuple[str, ...]]
    pods: tuple[Pod, ...]


def busy_with(slot: Slot, mounts: tuple[str, ...], ctr: Ctr) -> Busy:
    """The slot's daemon with the containers at these mount points, and their pods."""
    return Busy({slot: mounts}, tuple(pods_of(ctr, mounts)))


def lazy_mounts(host: Host, script: bytes, slot: Slot) -> tuple[str, ...]:
    """Mount points of the containers that the slot's daemon serves lazily; none when it may be restarted.

    Raises:
        InstallError: the node does not say.
    """
    return _mounts(host, script, slot.name)


def all_mounts(host: Host, script: bytes, slot: Slot) -> tuple[str, ...]:
    """Mount points of all containers, sandboxes among them, whose files are in the slot's directory.

    Raises:
        InstallError: the node does not say.
    """
    return _mounts(host, script, slot.name, "all")


def _mounts(host: Host, script: bytes, *words: str) -> tuple[str, ...]:
    result = run_script(host, script, "mounts", *words)
    if result.code != 0:
        cause = f"the mounts of containers cannot be read: {result.last_error}"
        raise InstallError("preflight", cause, f"run `{SCRIPT} mounts` on the node")
    return tuple(result.output.split())


def has_pod(ctr: Ctr, mounts: Sequence[str], pod: Pod) -> bool:
    """Whether a container of the pod is among those with these mount points.

    Raises:
        InstallError: containerd does not say.
    """
    query = f'labels."{POD_LABEL}.namespace"=={pod.namespace},labels."{POD_LABEL}.name"=={pod.name}'
    return not set(ctr.ask("containers", "ls", "-q", query).split()).isdisjoint(map(_container, mounts))


def pods_of(ctr: Ctr, mounts: Sequence[str]) -> list[Pod]:
    """The pods of containers, by their mount points: a root file system is ``.../<container id>/rootfs``, an
    image volume ``.../image-volumes/<sandbox id>/<image id>`` (containerd, container_image_mount.go).
    """
    return sorted({pod_of(ctr, _container(mount)) for mount in mounts})


def _container(mount: str) -> str:
    return PurePosixPath(mount).parent.name


def pod_of(ctr: Ctr, container: str) -> Pod:
    """The pod of a container; one that is no pod's, or is gone by now, stands for itself."""
    try:
        labels = json.loads(ctr.run("containers", "info", container) or "{}").get("Labels") or {}
    except ValueError:
        labels = {}
    namespace, name = labels.get(f"{POD_LABEL}.namespace", ""), labels.get(f"{POD_LABEL}.name", "")
    return (
        Pod(namespace, name, labels.get(f"{POD_LABEL}.uid", ""))
        if name
        else Pod("", f"container {container[:12]}")
    )


def in_words(pods: Sequence[Pod], limit: int = 5) -> str:
    """The names of the first pods, and how many more there are."""
    names = ", ".join(map(str, pods[:limit]))
    return f"{names} and {len(pods) - limit} more" if len(pods) > limit else names
