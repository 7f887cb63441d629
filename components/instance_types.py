"""What the name of an EC2 instance type says: architecture, accelerator, disks of its own, size.

A name is read by its grammar, so that a family newer than this file is understood too:

    c7gn.2xlarge    letters `c`, generation 7, attributes `g` (Graviton) and `n` (network), size `2xlarge`
    p6e-gb200.36xlarge    the same with a suffix: here the Grace Blackwell chip, which is arm64

Sources, read in November 2026: the EC2 guide "Instance type naming conventions"; the EKS guide "Use
EKS-optimized accelerated AMIs for GPU instances" (which families have an AMI with their driver); the table of
instance types of karpenter-provider-aws 1.14. Pure functions.
"""

import re
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
