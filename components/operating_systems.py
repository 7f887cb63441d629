"""The operating systems of EKS nodes: which of them work, what AWS calls them, and why the others do not."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .instance_types import Accelerator, accelerator, architecture, family
from .values import RefusedError


@dataclass(frozen=True)
class OperatingSystem:
    """One value of soci:operatingSystem, which is the alias of its AMIs for Karpenter, too.

    Attributes:
        eks: its name in `pulumi_eks.OperatingSystem`, with which its AMI types begin; empty where refused.
        title: its name among people.
        root: the device of a node's root disk.
        ami_types: its AMI types by architecture and accelerator (API reference of EKS, CreateNodegroup,
            `amiType`, read in November 2026).
        refusal: why it is refused.
    """

    eks: str = ""
    title: str = ""
    root: str = ""
    ami_types: Mapping[tuple[str, Accelerator], str] = field(default_factory=dict)
    refusal: str = ""

    def has_ami_type(self, name: str) -> bool:
        """Whether an AMI type is named as this system's are, so that a newer one is taken, too."""
        return bool(re.fullmatch(rf"{self.eks}_(x86_64|ARM_64)_[A-Z0-9_]+", name))

    def ami_type(self, instance_types: Iterable[str]) -> str:
        """The AMI type for nodes of these instance types, as EKS's API names it.

        Raises:
            RefusedError: there is none, or the types need different ones.
        """
        needed: dict[tuple[str, Accelerator], str] = {}
        for instance_type in instance_types:
            needed.setdefault(self._needed(instance_type), instance_type)
        (first, one), *others = needed.items()
        if others:
            second, other = others[0]
            raise RefusedError(
                f"{one} needs the AMI {self.ami_types[first]} and {other} needs {self.ami_types[second]}, "
                "and the nodes of a group have one",
                f"keep the types like {one}, and make those like {other} a group of their own in "
                "soci:nodeGroups",
            )
        return self.ami_types[first]

    def _needed(self, instance_type: str) -> tuple[str, Accelerator]:
        """What the AMI of a type is chosen by; refuses a type for which there is none."""
        of = family(instance_type)
        if of.letters == "mac":
            raise RefusedError(
                f"{instance_type} runs macOS alone, and EKS has no AMI for it",
                "take a Linux type, such as m6i.xlarge",
            )
        if of.letters == "a":
            raise RefusedError(
                f"{instance_type} is a first generation Graviton, on which {self.title} does not run",
                "take a newer Graviton type, such as m7g.xlarge",
            )
        key = (architecture(instance_type), accelerator(instance_type))
        if key not in self.ami_types:
            raise RefusedError(
                f"no AMI of EKS has a driver for the accelerator of {instance_type}",
                "take a type with a driver, such as g5.xlarge or inf2.xlarge, or set soci:amiType to "
                f"{self.ami_types[(key[0], Accelerator.NONE)]} and bring the driver",
            )
        return key


DEFAULT = "al2023"
OPERATING_SYSTEMS: Mapping[str, OperatingSystem] = {
    "al2023": OperatingSystem(
        eks="AL2023",
        title="Amazon Linux 2023",
        root="/dev/xvda",
        # Neuron on arm64 has none.
        ami_types={
            ("amd64", Accelerator.NONE): "AL2023_x86_64_STANDARD",
            ("arm64", Accelerator.NONE): "AL2023_ARM_64_STANDARD",
            ("amd64", Accelerator.NVIDIA): "AL2023_x86_64_NVIDIA",
            ("arm64", Accelerator.NVIDIA): "AL2023_ARM_64_NVIDIA",
            ("amd64", Accelerator.NEURON): "AL2023_x86_64_NEURON",
        },
    ),
    "al2": OperatingSystem(refusal="Amazon Linux 2 is past its end of support on EKS"),
    "bottlerocket": OperatingSystem(
        refusal="Bottlerocket's containerd obeys only its own settings API; a DaemonSet cannot change it"
    ),
}
SERVED: Mapping[str, OperatingSystem] = {
    name: system for name, system in OPERATING_SYSTEMS.items() if not system.refusal
}
