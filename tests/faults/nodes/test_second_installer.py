"""Another installer of a container runtime (as NVIDIA's toolkit is) before, after and in the middle of ours.

The stand-in does what `nvidia-ctk runtime configure` does to containerd's configuration: a runtime of its
own, in the root file of 1.x and in a drop-in of 2.x, and then a restart of containerd.
"""

from pathlib import Path

import pytest
from agent.errors import InstallError

from tests.faults.nodes.lab_node import CONFIG, Health, LabNode, payload_that
from tests.faults.script_points import POINTS, find
from tests.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.failure_mode(37)]
RUNTIME = {
    "1": '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]\n',
    "2": "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]\n",
}
TYPE = 'runtime_type = "io.containerd.runc.v2"\n'
DROP_IN = "/etc/containerd/conf.d/99-nvidia.toml"
RESTARTS = find(POINTS, "restart_containerd")


def with_runtime(text: str, containerd: str) -> str:
    return f"{text}\n{RUNTIME[containerd[0]]}{TYPE}"


def nvidia(node: LabNode, containerd: str) -> None:
    if containerd.startswith("1."):
        node.edit(CONFIG, lambda text: with_runtime(text, containerd))
    else:
        node.write(DROP_IN, with_runtime("version = 3\n", containerd))
    node.sh("systemctl restart containerd")
    wait_for(node.cri_answers, 60, "the CRI answers")


def assert_both_in_effect(node: LabNode) -> None:
    assert node.effective_snapshotter() == "soci"
    assert "runtimes.nvidia]" in node.sh("containerd config dump")


def test_installed_before_ours(node: LabNode, health: Health, containerd: str):
    """gpu-operator#301, spegel#413."""
    nvidia(node, containerd)
    node.install()
    assert_both_in_effect(node)
    health.assert_new_state()


def test_installed_after_ours(node: LabNode, health: Health, containerd: str):
    """gpu-operator#301, spegel#413."""
    node.install()
    nvidia(node, containerd)
    assert_both_in_effect(node)
    assert not node.install().changed
    health.assert_new_state()


def test_written_while_ours_is_being_prepared(node: LabNode, health: Health, containerd: str, monkeypatch):
    """No installer of this kind shares a lock: here the other one writes between our plan and our swap."""
    from agent import transaction

    stage = transaction.stage

    def then_the_other(*arguments, **options):
        directory = stage(*arguments, **options)
        node.edit(CONFIG, lambda text: with_runtime(text, containerd))
        return directory

    monkeypatch.setattr(transaction, "stage", then_the_other)
    with pytest.raises(InstallError) as caught:
        node.install()
    assert "changed while the install was being prepared" in caught.value.cause
    monkeypatch.undo()
    assert "soci" not in node.host.read_text(CONFIG)
    assert node.install().containerd_restarts == 1
    assert_both_in_effect(node)
    health.assert_new_state()


@pytest.mark.parametrize("knows_ours", [False, True], ids=["on the old file", "on our file"])
def test_written_between_our_swap_and_our_restart(
    node: LabNode, health: Health, containerd: str, tmp_path: Path, knows_ours: bool
):
    """Its write must survive our rollback, and our next run must find both in effect."""
    node.write("/etc/nvidia.toml", with_runtime("", containerd))
    base = CONFIG if knows_ours else "/etc/original.toml"
    node.sh(f"cp {CONFIG} /etc/original.toml")
    action = f"cat {base} /etc/nvidia.toml >/etc/both.toml; cp /etc/both.toml {CONFIG}"
    payload = payload_that(action, RESTARTS, tmp_path)
    if knows_ours:
        assert node.install(payload).containerd_restarts == 1
    else:
        with pytest.raises(InstallError) as caught:
            node.install(payload)
        assert caught.value.step == "verify-snapshotter"
        wait_for(node.cri_answers, 60, "the CRI answers")
        assert node.effective_snapshotter() in ("", "overlayfs")
        assert "runtimes.nvidia]" in node.sh("containerd config dump")
        assert node.install().containerd_restarts == 1
    assert_both_in_effect(node)
    health.assert_new_state()
