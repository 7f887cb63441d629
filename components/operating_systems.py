"""The operating systems of EKS nodes: which of them work, and why the others do not."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OperatingSystem:
    """One value of soci:operatingSystem: its name in `pulumi_eks.OperatingSystem`, or why it is refused."""

    eks: str = ""
    refusal: str = ""


OPERATING_SYSTEMS: Mapping[str, OperatingSystem] = {
    "al2023": OperatingSystem(eks="AL2023"),
    "al2": OperatingSystem(refusal="Amazon Linux 2 is past its end of support on EKS"),
    "bottlerocket": OperatingSystem(
        refusal="Bottlerocket's containerd obeys only its own settings API; a DaemonSet cannot change it"
    ),
}
