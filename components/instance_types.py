"""What the name of an EC2 instance type says: architecture, accelerator, disks of its own, size; and the AMI
type that EKS has for it.

A name is read by its grammar, so that a family newer than this file is understood too:

    c7gn.2xlarge    letters `c`, generation 7, attributes `g` (Graviton) and `n` (network), size `2xlarge`
    p6e-gb200.36xlarge    the same with a suffix: here the Grace Blackwell chip, which is arm64

Sources, read in November 2026: the EC2 guide "Instance type naming conventions"; the EKS guide "Use
EKS-optimized accelerated AMIs for GPU instances" (which families have an AMI with their driver); the API
reference of EKS, CreateNodegroup, `amiType`; the table of instance types of karpenter-provider-aws 1.14.
Pure functions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from .values import RefusedError

# Letters, generation, attributes, suffix. Some have their memory in between (u-6tb1), Macs may have no
# generation (mac-m4).
_FAMILY = re.compile(r"([a-z]+)(?:-[0-9]+tb)?((?<=mac)|[0-9]+)([a-z]*)(?:-([a-z0-9]+))?")


class Accelerator(Enum):
    """What computes beside the processor, and has a driver in one of EKS's AMIs or in none."""

    NONE = "none"
    NVIDIA = "NVIDIA"
    NEURON = "Neuron"
    OTHER = "other"


# The AMI types of Amazon Linux 2023, by architecture and accelerator; Neuron on arm64 has none.
AMI_TYPES: Mapping[tuple[str, Accelerator], str] = {
    ("amd64", Accelerator.NONE): "AL2023_x86_64_STANDARD",
    ("arm64", Accelerator.NONE): "AL2023_ARM_64_STANDARD",
    ("amd64", Accelerator.NVIDIA): "AL2023_x86_64_NVIDIA",
    ("arm64", Accelerator.NVIDIA): "AL2023_ARM_64_NVIDIA",
    ("amd64", Accelerator.NEURON): "AL2023_x86_64_NEURON",
}

# Memory in GiB and processors of the sizes that differ from `Nxlarge` (4 processors for each N).
_SMALL_MEMORY_GIB = {"nano": 0.5, "micro": 1, "small": 2}
_SMALL_PROCESSORS = {"nano": 2, "micro": 2, "small": 2, "medium": 2, "large": 2, "xlarge": 4}


@dataclass(frozen=True)
class Family:
    """A family's name in its parts, such as `g`, 5, `g` and no suffix for g5g."""

    name: str
    letters: str
    generation: int
    attributes: str
    suffix: str


def family(instance_type: str) -> Family:
    """The family of an instance type.

    Raises:
        RefusedError: it is not named as instance types are.
    """
    name, _, size = instance_type.partition(".")
    parts = _FAMILY.fullmatch(name)
    if not parts or not size:
        raise RefusedError(f"{instance_type} is not named as EC2 instance types are, such as m6i.xlarge")
    return Family(name, parts[1], int(parts[2] or 0), parts[3], parts[4] or "")


def is_readable(instance_type: str) -> bool:
    """Whether the name is one that `family` can read."""
    try:
        family(instance_type)
    except RefusedError:
        return False
    return True


def architecture(instance_type: str) -> str:
    """amd64, or arm64: Graviton (attribute g, and a1) and Grace Blackwell (suffix gb…)."""
    of = family(instance_type)
    is_arm = "g" in of.attributes or of.letters == "a" or of.suffix.startswith("gb")
    return "arm64" if is_arm else "amd64"


def accelerator(instance_type: str) -> Accelerator:
    """The accelerator of an instance type.

    OTHER is one without a driver in EKS's AMIs: AMD's GPUs (g4ad), NVIDIA's of before g4dn and p3, Gaudi and
    Qualcomm (dl), video (vt) and FPGAs (f).
    """
    of = family(instance_type)
    if of.letters in ("inf", "trn"):
        return Accelerator.NEURON
    if of.letters in ("g", "gr", "p"):
        is_amd = of.letters == "g" and "a" in of.attributes
        is_too_old = of.generation < {"g": 4, "gr": 1, "p": 3}[of.letters]
        return Accelerator.OTHER if is_amd or is_too_old else Accelerator.NVIDIA
    return Accelerator.OTHER if of.letters in ("dl", "vt", "f") else Accelerator.NONE


def has_instance_store(instance_type: str) -> bool:
    """Whether it has NVMe disks of its own, which nodeadm can make a RAID 0 of."""
    of = family(instance_type)
    if "d" in of.attributes or of.letters in ("im", "is", "trn", "f"):
        return True
    if of.letters in ("g", "gr", "p"):
        return of.generation >= 5 and "g" not in of.attributes
    return of.letters in ("i", "d") and of.generation >= 3


def processors(instance_type: str) -> int | None:
    """The number of virtual processors, at most; None for a size that does not say it (metal)."""
    size = instance_type.partition(".")[2]
    if number := re.fullmatch(r"([0-9]+)xlarge", size):
        return 4 * int(number[1])
    return _SMALL_PROCESSORS.get(size)


def small_memory_gib(instance_type: str) -> float | None:
    """The memory in GiB of the sizes nano, micro and small; None for the others, which have more."""
    return _SMALL_MEMORY_GIB.get(instance_type.partition(".")[2])


def ami_type(instance_types: Iterable[str]) -> str:
    """The AMI type of Amazon Linux 2023 for nodes of these instance types, as EKS's API names it.

    Raises:
        RefusedError: there is none, or the types need different ones.
    """
    needed: dict[tuple[str, Accelerator], str] = {}
    for instance_type in instance_types:
        needed.setdefault(_needed(instance_type), instance_type)
    (first, one), *others = needed.items()
    if others:
        second, other = others[0]
        raise RefusedError(
            f"{one} needs the AMI {AMI_TYPES[first]} and {other} needs {AMI_TYPES[second]}, and the nodes of "
            "a group have one",
            f"keep the types like {one}, and make those like {other} a group of their own in soci:nodeGroups",
        )
    return AMI_TYPES[first]


def _needed(instance_type: str) -> tuple[str, Accelerator]:
    """What the AMI of a type is chosen by; refuses a type for which there is none."""
    of = family(instance_type)
    if of.letters == "mac":
        raise RefusedError(
            f"{instance_type} runs macOS alone, and EKS has no AMI for it",
            "take a Linux type, such as m6i.xlarge",
        )
    if of.letters == "a":
        raise RefusedError(
            f"{instance_type} is a first generation Graviton, on which Amazon Linux 2023 does not run",
            "take a newer Graviton type, such as m7g.xlarge",
        )
    key = (architecture(instance_type), accelerator(instance_type))
    if key not in AMI_TYPES:
        raise RefusedError(
            f"no AMI of EKS has a driver for the accelerator of {instance_type}",
            "take a type with a driver, such as g5.xlarge or inf2.xlarge, or set soci:amiType to "
            f"{AMI_TYPES[(key[0], Accelerator.NONE)]} and bring the driver",
        )
    return key
