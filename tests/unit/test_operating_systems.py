"""The operating systems of EKS nodes, and the AMI type that instance types need."""

import pulumi_eks as eks
import pytest

from components.instance_types import Accelerator
from components.operating_systems import DEFAULT, OPERATING_SYSTEMS, SERVED
from components.values import RefusedError


def test_each_operating_system_is_one_of_eks_or_refused() -> None:
    for name, system in OPERATING_SYSTEMS.items():
        assert bool(system.eks) != bool(system.refusal), name


def test_of_each_that_works_all_is_known_that_nodes_are_made_from() -> None:
    for system in SERVED.values():
        assert eks.OperatingSystem(system.eks)
        assert system.title
        assert system.root
        assert system.ami_types.keys() >= {("amd64", Accelerator.NONE), ("arm64", Accelerator.NONE)}
        assert all(map(system.has_ami_type, system.ami_types.values()))
    assert DEFAULT in SERVED


@pytest.mark.parametrize(
    ("types", "ami"),
    [
        (["m6i.xlarge", "m5.xlarge", "r7a.large"], "AL2023_x86_64_STANDARD"),
        (["m7g.xlarge", "c8gn.large"], "AL2023_ARM_64_STANDARD"),
        (["g5.xlarge", "g4dn.xlarge", "p5.48xlarge"], "AL2023_x86_64_NVIDIA"),
        (["g5g.xlarge"], "AL2023_ARM_64_NVIDIA"),
        (["p6e-gb200.36xlarge"], "AL2023_ARM_64_NVIDIA"),
        (["inf2.xlarge", "trn1.2xlarge"], "AL2023_x86_64_NEURON"),
    ],
)
def test_the_ami_follows_from_the_family(types: list[str], ami: str) -> None:
    assert SERVED[DEFAULT].ami_type(types) == ami


@pytest.mark.parametrize(
    ("types", "reason", "remedy"),
    [
        (
            ["m6i.xlarge", "m7g.xlarge"],
            "m6i.xlarge needs the AMI AL2023_x86_64_STANDARD and m7g.xlarge needs "
            "AL2023_ARM_64_STANDARD, and "
            "the nodes of a group have one",
            "keep the types like m6i.xlarge, and make those like m7g.xlarge a group of their own in "
            "soci:nodeGroups",
        ),
        (
            ["g5.xlarge", "inf2.xlarge"],
            "g5.xlarge needs the AMI AL2023_x86_64_NVIDIA and inf2.xlarge needs "
            "AL2023_x86_64_NEURON, and the "
            "nodes of a group have one",
            "keep the types like g5.xlarge, and make those like inf2.xlarge a group of their own in "
            "soci:nodeGroups",
        ),
        (
            ["mac-m4.metal"],
            "mac-m4.metal runs macOS alone, and EKS has no AMI for it",
            "take a Linux type, such as m6i.xlarge",
        ),
        (
            ["a1.large"],
            "a1.large is a first generation Graviton, on which Amazon Linux 2023 does not run",
            "take a newer Graviton type, such as m7g.xlarge",
        ),
        (
            ["g4ad.xlarge"],
            "no AMI of EKS has a driver for the accelerator of g4ad.xlarge",
            "take a type with a driver, such as g5.xlarge or inf2.xlarge, or set soci:amiType to "
            "AL2023_x86_64_STANDARD and bring the driver",
        ),
        (
            ["xlarge"],
            "xlarge is not named as EC2 instance types are, such as m6i.xlarge",
            "",
        ),
    ],
)
def test_types_without_one_ami_are_refused(types: list[str], reason: str, remedy: str) -> None:
    with pytest.raises(RefusedError) as refused:
        SERVED[DEFAULT].ami_type(types)
    assert (refused.value.reason, refused.value.remedy) == (reason, remedy)
