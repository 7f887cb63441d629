"""Reboots: whoever writes containerd's configuration at boot, the node comes up on soci, in order."""

from pathlib import Path

import pytest
from agent import nodeadm
from binaries import build

from tests.faults.nodes.lab_node import CONFIG, SAMPLE_WITH_INDEX, VERSIONS, Health, LabNode, Pods
from tests.waiting import wait_for

pytestmark = pytest.mark.root
STAND_IN = Path(__file__).with_name("nodeadm-stand-in.sh")
UNITS = "/etc/systemd/system"
# Slow on purpose: whatever is not ordered after it reads the file before it was written.
REWRITES = """\
[Unit]
DefaultDependencies=no
Before=containerd.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sleep 10; cp /etc/eks-original.toml {config}'
[Install]
WantedBy=multi-user.target
"""
NODEADM_CONFIG = """\
[Unit]
DefaultDependencies=no
After=local-fs.target
[Service]
Type=oneshot
ExecStart=/usr/bin/nodeadm config
[Install]
WantedBy=multi-user.target
"""
NODEADM_RUN = """\
[Unit]
After=nodeadm-config.service lab-network.service
[Service]
Type=oneshot
ExecStart=/usr/bin/nodeadm run
[Install]
WantedBy=multi-user.target
"""


def start_by_nodeadm(node: LabNode, program: str) -> None:
    """At the next boot nodeadm writes containerd's configuration and starts it and the kubelet."""
    node.sh(f"mkdir -p /etc/eks && cp {CONFIG} /etc/eks/template.toml")
    node.write(nodeadm.PROGRAM, program, 0o755)
    node.write(f"{UNITS}/nodeadm-config.service", NODEADM_CONFIG)
    node.write(f"{UNITS}/nodeadm-run.service", NODEADM_RUN)
    node.sh("systemctl enable nodeadm-config nodeadm-run && systemctl disable containerd kubelet 2>&1")


def assert_serves(node: LabNode, pods: Pods) -> None:
    """SOCI is in effect, containerd was started after it, and an indexed image is loaded lazily."""
    wait_for(node.cri_answers, 60, "the CRI answers")
    assert node.effective_snapshotter() == "soci"
    assert 0 < node.started_at("soci-snapshotter") <= node.started_at("containerd")
    pods.start(node, SAMPLE_WITH_INDEX, ["/bin/sh", "-c", "sleep 9999"])
    assert " fuse.rawBridge " in node.sh("cat /proc/self/mountinfo")


def boot_log(node: LabNode) -> str:
    """What the host script said at this boot, as the boot unit and right before containerd."""
    return node.sh("journalctl -b -o cat -u soci-cluster-boot -u containerd | grep '^soci-cluster:' || :")


@pytest.mark.failure_mode(7)
@pytest.mark.failure_mode(35)
def test_plain_reboot_keeps_soci_and_starts_containerd_once(node: LabNode, pods: Pods):
    """gpu-operator#1651, #1734, nvidia-container-toolkit#1040."""
    node.install()
    node.reboot()
    assert_serves(node, pods)
    assert node.sh("journalctl -b -u containerd -o cat | grep -c '^Started containerd'").strip() == "1"
    assert "SystemdCgroup = false" in node.sh("containerd config dump")
    assert not node.install().changed


@pytest.mark.failure_mode(35)
def test_original_written_back_by_the_operating_system_is_replaced_before_containerd_starts(
    node: LabNode, pods: Pods
):
    """gpu-operator#1651, #1734: nodeadm-config.service writes the file at each boot."""
    node.sh(f"cp {CONFIG} /etc/eks-original.toml")
    node.write(f"{UNITS}/nodeadm-config.service", REWRITES.format(config=CONFIG))
    node.sh("systemctl enable nodeadm-config.service")
    node.install()
    node.reboot()
    assert_serves(node, pods)
    assert "was written back to the node's original" in boot_log(node)
    assert not node.install().changed


@pytest.mark.failure_mode(35)
def test_nodeadm_itself_writes_the_keys_where_it_reads_drop_ins(node: LabNode, pods: Pods):
    """amazon-eks-ami: from v20251023 on nodeadm merges /etc/eks/nodeadm.d; here a stand-in does."""
    start_by_nodeadm(node, STAND_IN.read_text())
    node.install()
    node.reboot()
    assert_serves(node, pods)
    assert node.host.read(CONFIG) != node.host.read("/etc/eks/template.toml")
    assert "was changed since the install and is left as it is" in boot_log(node)
    assert not node.install().changed


@pytest.mark.failure_mode(35)
def test_older_nodeadm_without_drop_ins_comes_up_on_soci_too(node: LabNode, pods: Pods):
    """amazon-eks-ami before v20251023: the drop-in is dead text, and the boot unit does it."""
    start_by_nodeadm(node, STAND_IN.read_text().replace("/etc/eks/nodeadm.d", "/nowhere"))
    node.install()
    node.reboot()
    assert_serves(node, pods)
    assert not node.install().changed


@pytest.mark.failure_mode(36)
def test_containerd_upgraded_by_the_operating_system_comes_up_on_soci(pool, pods: Pods):
    """amazon-eks-ami#2710, #2729, k3s#8754, #9976: 1.7 becomes 2.3 between boots, the file stays schema 2."""
    node = pool.make(VERSIONS["containerd"]["1.7"])
    try:
        node.install()
        for program in build(f"containerd-{VERSIONS['containerd']['2.3']}").iterdir():
            node.host.write(f"/usr/local/bin/{program.name}", program.read_bytes(), 0o755)
        node.reboot()
        assert "2.3" in node.sh("containerd --version")
        assert node.host.read_text(CONFIG).splitlines()[1] == "version = 2"
        assert_serves(node, pods)
        assert not node.install().changed
    finally:
        pods.close()
        pods.names.clear()
        pool.discard(node)


@pytest.mark.failure_mode(35)
def test_file_changed_by_another_tool_since_is_left_as_it_is_and_reported(
    node: LabNode, pods: Pods, health: Health
):
    """gpu-operator#1651: what another tool wrote is not ours to take back."""
    node.install()
    node.edit(CONFIG, lambda text: text + "\n# another tool was here\n")
    changed = node.host.read(CONFIG)
    node.reboot()
    assert_serves(node, pods)
    assert node.host.read(CONFIG) == changed
    assert f"{CONFIG} was changed since the install and is left as it is" in boot_log(node)


@pytest.mark.failure_mode(43)
def test_kubelet_restart_on_a_verified_node_fails_no_pod(node: LabNode, pods: Pods, health: Health):
    """cilium#29405 and Kata's label-stability loop: the kubelet starts anew on a node in service."""
    node.install()
    node.sh("systemctl restart kubelet")
    health.assert_new_state()
    assert "CreatePodSandbox" not in node.sh("journalctl -u kubelet -o cat | grep -i error || :")
