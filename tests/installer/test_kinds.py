"""Which kind a node is, from what was read of it, and what follows for its units and archives."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent import detect, kinds, nodeadm
from agent.host import Host, Result
from agent.kinds import Signs, kind_of

from tests.fakes.node import INSTALLER, FakeHost

SNAP = "/etc/systemd/system/snap.kubelet-eks.daemon.service"
K3S, RKE2 = (f"/var/lib/rancher/{name}/agent/etc/containerd" for name in ("k3s", "rke2"))
SIGNS = {
    "Bottlerocket": Signs("bottlerocket"),
    "Talos": Signs("talos"),
    "Google Kubernetes Engine": Signs("ubuntu", frozenset({kinds.GKE_CONFIGURATION})),
    "k3s": Signs("ubuntu", frozenset({K3S})),
    "rke2": Signs("ubuntu", frozenset({RKE2, "/etc/eks"})),
    "k0s": Signs("debian", frozenset({kinds.K0S_CONTAINERD})),
    "MicroK8s": Signs("ubuntu", frozenset({kinds.MICROK8S_CONTAINERD})),
    "Ubuntu's image for EKS": Signs("ubuntu", frozenset({"/etc/eks", SNAP})),
    "Amazon Linux 2023 on EKS": Signs("amzn", frozenset({"/etc/eks", "/usr/bin/nodeadm"})),
    "another image for EKS": Signs("amzn", frozenset({"/etc/eks"})),
    "plain": Signs("debian"),
}


@pytest.mark.parametrize("name", SIGNS)
def test_the_first_kind_that_fits_is_the_nodes(name: str) -> None:
    assert kind_of(SIGNS[name]).name == name


def test_every_kind_is_some_nodes() -> None:
    missing = {kind.name for kind in kinds.KINDS} - {kind_of(signs).name for signs in SIGNS.values()}
    assert not missing, f"SIGNS has no node of {missing}"


def test_kubelet_that_is_a_snap_has_the_snaps_unit() -> None:
    """sysbox#430: the uninstall has to stop it, or it makes the containers anew that are being removed."""
    assert kind_of(SIGNS["Ubuntu's image for EKS"]).kubelet_unit == "snap.kubelet-eks.daemon.service"
    others = ("Amazon Linux 2023 on EKS", "another image for EKS", "plain")
    assert {kind_of(SIGNS[name]).kubelet_unit for name in others} == {"kubelet.service"}


def test_nodes_of_eks_may_have_an_archive_of_the_sandbox_image() -> None:
    """amazon-eks-ami#2710: it cannot be pulled."""
    have = {name for name, signs in SIGNS.items() if kind_of(signs).pause_archive == "/etc/eks/pause.tar"}
    assert have == {"Ubuntu's image for EKS", "Amazon Linux 2023 on EKS", "another image for EKS"}


def test_nodeadm_writes_containerds_configuration_on_al2023_only() -> None:
    writers = {name: kind_of(signs).generator for name, signs in SIGNS.items()}
    generator = writers.pop("Amazon Linux 2023 on EKS")
    assert generator
    assert (generator.path, generator.render) == (nodeadm.DROP_IN, nodeadm.render)
    assert set(writers.values()) == {None}


def test_signs_are_read_from_the_node(root: Path) -> None:
    for path in ("usr/lib", "etc/eks", "usr/bin/nodeadm"):
        (root / path).mkdir(parents=True)
    (root / "usr/lib/os-release").write_text('ID="amzn"\n')
    assert detect.identify(Host(root)) == SIGNS["Amazon Linux 2023 on EKS"]


def test_facts_are_read_of_the_kinds_own_units(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    other = kinds.Kind("other", lambda signs: True, containerd_unit="other.service")
    monkeypatch.setattr(kinds, "KINDS", (other,))
    fake_host.write("/proc/1/comm", b"systemd\n")
    shown: list[str] = []

    def show(command: Sequence[str], text: str) -> Result:
        shown.append(command[2])
        return Result(0, "LoadState=not-found\n", "")

    fake_host.answers["systemctl"] = show
    facts = detect.read_facts(fake_host, "x86_64")
    assert (facts.kind, shown) == (other, ["other.service"])
    assert (
        other.journal
        == "journalctl -u other.service -u soci-snapshotter.service -u soci-snapshotter-b.service"
    )


# What a version that did not write its kind down left on a node can only be read by the names of that day.
OF_OLDER_VERSIONS = re.compile(
    r"^(know_kind_of_older_plan|read_older_line)\(\) \{$.*?^\}$", re.MULTILINE | re.DOTALL
)
# A unit as people and scripts also name it, without its ending.
COMMAND = re.compile(
    r"(?:systemctl(?: --?[\w=-]+)* [a-z-]+|-u) [\"']?(?:containerd|kubelet|soci-snapshotter)(?![\w*{-])"
)


def named_units_and_paths(text: str) -> set[str]:
    """What of a text a node of another kind, or in the other slot, does not have."""
    units = {unit for kind in kinds.KINDS for unit in (kind.containerd_unit, kind.kubelet_unit)}
    paths = {path for kind in kinds.KINDS for path in (*kind.looks_for, kind.pause_archive) if path}
    read = OF_OLDER_VERSIONS.sub("", text)
    return {word for word in {"rancher", *units, *paths} if word in read} | set(COMMAND.findall(read))


def test_units_and_paths_of_a_kind_stand_in_its_row_alone() -> None:
    """What kata-deploy has on 28 lines of 6 files for k0s. A remedy, a template and the host script have none
    either."""
    program = [
        *(INSTALLER / "agent").glob("*.py"),
        *(INSTALLER / "host").glob("*.sh"),
        *(path for path in INSTALLER.iterdir() if path.is_file()),
        *(INSTALLER.parents[1] / "components").rglob("*.py"),
    ]
    found = {path.name: words for path in program if (words := named_units_and_paths(path.read_text()))}
    assert found.pop("kinds.py")
    assert found.pop("nodeadm.py")
    assert found == {}


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("see journalctl -u containerd", True),
        ("systemctl restart kubelet", True),
        ("systemctl --no-block restart soci-snapshotter", True),
        ("see journalctl -u 'soci-snapshotter*'", False),  # of either slot
        ('systemctl restart "$PLAN_containerd_unit"', False),
        ("restart kubelet.service", True),
    ],
)
def test_a_unit_is_also_found_without_its_ending(text: str, is_named: bool) -> None:
    assert bool(named_units_and_paths(text)) is is_named
