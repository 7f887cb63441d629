"""The kinds of nodes: a row each, and the first that matches is the node's.

What differs between operating systems and distributions stands here and nowhere else: who the node is, why it
is refused, the units of containerd and the kubelet, and who else writes containerd's configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import nodeadm
from .containerd_config import Path
from .slots import FIRST, SECOND, Slot

EXCLUDE = "exclude this node with soci:nodeSelector"
EKS = "/etc/eks"
EKS_PAUSE_ARCHIVE = f"{EKS}/pause.tar"  # with it the AMI brings the sandbox image, which cannot be pulled
RANCHER = "/var/lib/rancher/{}/agent/etc/containerd"
SNAP_KUBELET = "snap.kubelet-eks.daemon.service"


@dataclass(frozen=True)
class Signs:
    """What tells the kinds of nodes apart."""

    os_id: str = ""  # ID of os-release
    paths: frozenset[str] = frozenset()  # those of `PATHS` that exist


@dataclass(frozen=True)
class Generator:
    """A tool of the operating system that writes containerd's configuration anew at each boot.

    ``path`` is the file of ours that it reads; ``render`` makes the text of it from the table where this
    containerd keeps its image keys, and the slot in use.
    """

    path: str
    render: Callable[[Path, Slot], str]


@dataclass(frozen=True)
class Kind:
    """One kind of node. ``looks_for`` are the paths whose existence ``is_it`` asks for."""

    name: str
    is_it: Callable[[Signs], bool]
    looks_for: tuple[str, ...] = ()
    refusal: tuple[str, str] | None = None  # cause and remedy
    containerd_unit: str = "containerd.service"
    kubelet_unit: str = "kubelet.service"
    pause_archive: str = ""  # an archive of the sandbox image, should the node have it
    generator: Generator | None = None  # None: nobody writes containerd's configuration anew

    @property
    def journal(self) -> str:
        """The command that shows what the node's daemons said."""
        return "journalctl " + " ".join(f"-u {unit}" for unit in self.daemons)

    @property
    def daemons(self) -> tuple[str, ...]:
        """The units of containerd and of the snapshotters."""
        return (self.containerd_unit, FIRST.unit, SECOND.unit)


def _having(*paths: str) -> Callable[[Signs], bool]:
    return lambda signs: signs.paths.issuperset(paths)


def _with_own_containerd(name: str) -> Kind:
    path = RANCHER.format(name)
    refusal = (f"{name} brings its own containerd", f"use its containerd template; {EXCLUDE}")
    return Kind(name, _having(path), (path,), refusal)


BOTTLEROCKET = Kind(
    "Bottlerocket",
    lambda signs: signs.os_id == "bottlerocket",
    refusal=(
        "Bottlerocket's root is read-only",
        f"set its snapshotter in the node group's user data; {EXCLUDE}",
    ),
)
# Its kubelet is a snap: sysbox#430, amazon-eks-ami#2073.
UBUNTU_EKS = Kind(
    "Ubuntu's image for EKS",
    _having(f"/etc/systemd/system/{SNAP_KUBELET}"),
    (f"/etc/systemd/system/{SNAP_KUBELET}",),
    kubelet_unit=SNAP_KUBELET,
    pause_archive=EKS_PAUSE_ARCHIVE,
)
AL2023 = Kind(
    "Amazon Linux 2023 on EKS",
    _having(EKS, nodeadm.PROGRAM),
    (EKS, nodeadm.PROGRAM),
    pause_archive=EKS_PAUSE_ARCHIVE,
    generator=Generator(nodeadm.DROP_IN, nodeadm.render),
)
OTHER_EKS = Kind("another image for EKS", _having(EKS), (EKS,), pause_archive=EKS_PAUSE_ARCHIVE)
PLAIN = Kind("plain", lambda signs: True)

KINDS = (
    BOTTLEROCKET,
    _with_own_containerd("k3s"),
    _with_own_containerd("rke2"),
    UBUNTU_EKS,
    AL2023,
    OTHER_EKS,
    PLAIN,
)
PATHS = tuple(dict.fromkeys(path for kind in KINDS for path in kind.looks_for))


def kind_of(signs: Signs) -> Kind:
    """The first kind that the signs fit; `PLAIN` fits all."""
    return next(kind for kind in KINDS if kind.is_it(signs))
