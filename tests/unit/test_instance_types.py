"""What is read from the names of EC2 instance types, held against what AWS says of them."""

import pytest

from components.instance_types import (
    Accelerator,
    accelerator,
    architecture,
    has_instance_store,
    processors,
    small_memory_gib,
)

NONE, NVIDIA, NEURON, OTHER = Accelerator.NONE, Accelerator.NVIDIA, Accelerator.NEURON, Accelerator.OTHER

# Type, architecture, accelerator, NVMe disks of its own: the EC2 guide, "Instance types".
KNOWN = [
    ("t3.medium", "amd64", NONE, False),
    ("t4g.medium", "arm64", NONE, False),
    ("m6i.xlarge", "amd64", NONE, False),
    ("m6idn.xlarge", "amd64", NONE, True),
    ("m7g.xlarge", "arm64", NONE, False),
    ("m7i-flex.large", "amd64", NONE, False),
    ("m8azn.large", "amd64", NONE, False),
    ("c7gn.2xlarge", "arm64", NONE, False),
    ("c8gb.large", "arm64", NONE, False),
    ("c8gd.large", "arm64", NONE, True),
    ("r5ad.large", "amd64", NONE, True),
    ("r7iz.large", "amd64", NONE, False),
    ("x2gd.medium", "arm64", NONE, True),
    ("x8aedz.large", "amd64", NONE, True),
    ("hpc6id.32xlarge", "amd64", NONE, True),
    ("hpc7g.4xlarge", "arm64", NONE, False),
    ("i3.large", "amd64", NONE, True),
    ("i2.xlarge", "amd64", NONE, False),
    ("i8ge.large", "arm64", NONE, True),
    ("im4gn.large", "arm64", NONE, True),
    ("is4gen.medium", "arm64", NONE, True),
    ("d2.xlarge", "amd64", NONE, False),
    ("d3en.xlarge", "amd64", NONE, True),
    ("z1d.large", "amd64", NONE, True),
    ("u-6tb1.56xlarge", "amd64", NONE, False),
    ("u7i-12tb.224xlarge", "amd64", NONE, False),
    ("g4dn.xlarge", "amd64", NVIDIA, True),
    ("g5.xlarge", "amd64", NVIDIA, True),
    ("g5g.xlarge", "arm64", NVIDIA, False),
    ("g6e.xlarge", "amd64", NVIDIA, True),
    ("gr6f.4xlarge", "amd64", NVIDIA, True),
    ("p3.2xlarge", "amd64", NVIDIA, False),
    ("p4de.24xlarge", "amd64", NVIDIA, True),
    ("p5.48xlarge", "amd64", NVIDIA, True),
    ("p6-b200.48xlarge", "amd64", NVIDIA, True),
    ("p6e-gb200.36xlarge", "arm64", NVIDIA, True),
    ("inf2.xlarge", "amd64", NEURON, False),
    ("trn1n.32xlarge", "amd64", NEURON, True),
    ("trn2.48xlarge", "amd64", NEURON, True),
    ("g3s.xlarge", "amd64", OTHER, False),
    ("g4ad.xlarge", "amd64", OTHER, True),
    ("p2.xlarge", "amd64", OTHER, False),
    ("dl2q.24xlarge", "amd64", OTHER, False),
    ("vt1.3xlarge", "amd64", OTHER, False),
    ("f2.6xlarge", "amd64", OTHER, True),
    # Of generations that do not exist yet: the grammar goes on.
    ("m12gdn.large", "arm64", NONE, True),
    ("g11.xlarge", "amd64", NVIDIA, True),
    ("trn7.xlarge", "amd64", NEURON, True),
]


@pytest.mark.parametrize("known", KNOWN, ids=[row[0] for row in KNOWN])
def test_a_name_says_architecture_accelerator_and_disks(known: tuple[str, str, Accelerator, bool]) -> None:
    name = known[0]
    assert known == (name, architecture(name), accelerator(name), has_instance_store(name))


@pytest.mark.parametrize(
    ("name", "number", "memory"),
    [
        ("t3.nano", 2, 0.5),
        ("t4g.micro", 2, 1),
        ("t3.small", 2, 2),
        ("t3.medium", 2, None),
        ("m6i.large", 2, None),
        ("m6i.xlarge", 4, None),
        ("p5.48xlarge", 192, None),
        ("m6i.metal", None, None),
        ("m7i.metal-24xl", None, None),
    ],
)
def test_a_name_says_processors_and_a_small_memory(
    name: str, number: int | None, memory: float | None
) -> None:
    assert (processors(name), small_memory_gib(name)) == (number, memory)
