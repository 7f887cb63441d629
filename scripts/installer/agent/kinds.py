"""The kinds of nodes: a row each, and the first that matches is the node's.

What differs between operating systems and distributions stands here and nowhere else: who the node is, why it
is refused, the units of containerd and the kubelet, and who else writes containerd's configuration. What
version 0.1 of the installer did not write down on a node, host/10-files.sh knows by the names of that day.
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
K0S_CONTAINERD = "/etc/k0s/containerd.toml"  # k0s writes it when it runs its own containerd
GKE_CONFIGURATION = "/etc/systemd/system/kube-node-configuration.service"
SNAP_KUBELET = "snap.kubelet-eks.daemon.service"
MICROK8S_CONTAINERD = "/etc/systemd/system/snap.microk8s.daemon-containerd.service"


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

    name: str
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
        """The units of containerd and of SOCI's daemons."""
        return (self.containerd_unit, FIRST.unit, SECOND.unit)


def _having(*paths: str) -> Callable[[Signs], bool]:
    return lambda signs: signs.paths.issuperset(paths)


def _rancher(name: str) -> Kind:
    path = RANCHER.format(name)
    refusal = (
        f"{name} brings its own containerd: a child of {name}'s service, which writes its configuration anew "
        "at each start",
        f"put the keys into {path}/config-v3.toml.tmpl (config.toml.tmpl for containerd 1.7); {EXCLUDE}",
    )
    return Kind(name, _having(path), (path,), refusal)


BOTTLEROCKET = Kind(
    "Bottlerocket",
    lambda signs: signs.os_id == "bottlerocket",
    refusal=(
        "Bottlerocket's root is read-only",
        f"set its snapshotter in the node group's user data; {EXCLUDE}",
    ),
)
TALOS = Kind(
    "Talos",
    lambda signs: signs.os_id == "talos",
    refusal=(
        "Talos has no systemd, and its root is read-only",
        "add a system extension with the snapshotter, and its keys to the machine configuration as "
        f"/etc/cri/conf.d/20-customization.part; {EXCLUDE}",
    ),
)
# kubernetes' cluster/gce/gci/node.yaml: the unit runs configure-helper.sh at each boot.
GKE = Kind(
    "Google Kubernetes Engine",
    lambda signs: signs.os_id == "cos" or GKE_CONFIGURATION in signs.paths,
    (GKE_CONFIGURATION,),
    refusal=(
        "GKE writes containerd's configuration anew at each boot and restarts containerd, and the root of "
        "Container-Optimized OS is read-only",
        f"use GKE's own Image streaming; {EXCLUDE}",
    ),
)
K0S = Kind(
    "k0s",
    _having(K0S_CONTAINERD),
    (K0S_CONTAINERD,),
    refusal=(
        "k0s brings its own containerd: it and the kubelet are children of k0s's service, and k0s writes "
        f"{K0S_CONTAINERD} anew at each start",
        f"put the keys into a file of /etc/k0s/containerd.d; {EXCLUDE}",
    ),
)
MICROK8S = Kind(
    "MicroK8s",
    _having(MICROK8S_CONTAINERD),
    (MICROK8S_CONTAINERD,),
    refusal=(
        "MicroK8s writes containerd's configuration anew at each start of it, and its kubelet is a part of "
        "kubelite, as the API server is",
        f"put the keys into /var/snap/microk8s/current/args/containerd-template.toml; {EXCLUDE}",
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
    generator=Generator("nodeadm", nodeadm.DROP_IN, nodeadm.render),
)
OTHER_EKS = Kind("another image for EKS", _having(EKS), (EKS,), pause_archive=EKS_PAUSE_ARCHIVE)
PLAIN = Kind("plain", lambda signs: True)

KINDS = (
    BOTTLEROCKET,
    TALOS,
    GKE,
    _rancher("k3s"),
    _rancher("rke2"),
    K0S,
    MICROK8S,
    UBUNTU_EKS,
    AL2023,
    OTHER_EKS,
    PLAIN,
)
PATHS = tuple(dict.fromkeys(path for kind in KINDS for path in kind.looks_for))


def kind_of(signs: Signs) -> Kind:
    """The first kind that the signs fit; `PLAIN` fits all."""
    return next(kind for kind in KINDS if kind.is_it(signs))
