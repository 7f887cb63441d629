"""What the condition and the Events tell to do, and what soci-doctor does, are the same words."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from agent import __main__ as program
from agent import containerd_config, detect, doctor_checks, drift, heal, slots
from agent.api import Api
from agent.doctor_checks import Look, Unit
from agent.doctor_images import Image, Layer
from agent.errors import InstallError
from agent.heal import Healed
from agent.host import Host
from agent.kubelet import Kubelet
from agent.lazy import Pod
from agent.log import Log
from agent.plan import NOTHING_SEEN

from tests.fakes.api import FakeApi

POD = Pod("team", "one", "0123456789")
IMAGE = "registry.example/app:1"
WHAT = "/etc/containerd/config.toml"
NOW = 1_800_000_000.0
EFFECTIVE: dict[containerd_config.Path, object] = {("grpc", "address"): Kubelet.runtime}


def of_doctor(finding: str, **look: object) -> str:
    """The remedy of the doctor's one finding on such a node."""
    found = doctor_checks.findings(Look(journal="committed", **look))  # ty: ignore[invalid-argument-type]
    (remedy,) = [entry["remedy"] for entry in found if entry["id"] == finding]
    return remedy


def agent_on(root: Path, server: FakeApi) -> program.Agent:
    api = Api("node1", "soci-installer-x", "soci-system", "soci-installer", server)
    return program.Agent(Host(root), api, Log("node1", write=lambda line: None))


def test_of_pods_on_dead_mounts() -> None:
    remedy = of_doctor("dead-mounts", dead_pods=(str(POD),))
    server = FakeApi()
    heal.tell_pods(Api("node1", "x", "soci-system", "soci-installer", server), [POD])
    ((_, event),) = server.writes
    assert remedy in event["message"]
    assert remedy in Healed(broken=(POD,)).in_words


def test_of_an_image_that_is_held() -> None:
    layer = Layer("sha256:1", 1, "gzip", "dead")
    remedy = of_doctor("poisoned-image", images=(Image((IMAGE,), (layer,), True),))
    assert remedy in Healed(held=((IMAGE, POD),)).in_words


def test_of_a_daemon_that_is_away(root: Path) -> None:
    server = FakeApi()
    agent_on(root, server).teller.away()
    remedy = of_doctor("daemon-away", daemon=Unit(slots.FIRST.unit, "inactive"))
    assert remedy in server.condition["message"]


@pytest.mark.parametrize(("policy", "seconds"), [("report", 0.0), ("repair", 0.0), ("repair", 600.0)])
def test_of_drift(root: Path, monkeypatch: pytest.MonkeyPatch, policy: str, seconds: float) -> None:
    monkeypatch.setattr(program, "time", SimpleNamespace(time=lambda: NOW))
    server = FakeApi()
    agent = agent_on(root, server)
    if seconds:
        drift.remember(agent.host, NOW)
    try:
        agent._allow_repair(policy, WHAT, NOTHING_SEEN)
    except drift.DriftError as refused:
        agent.teller.drifted(refused)
    remedy = of_doctor("drift", changed_files=((WHAT, "removed"),), on_drift=policy, repair_seconds=seconds)
    assert server.condition["message"] == f"{WHAT}. Remedy: {remedy}"


def test_of_a_kubelet_that_pulls_through_soci(root: Path) -> None:
    facts = detect.Facts(kubelet=Kubelet("kubelet.service", Kubelet.runtime, slots.FIRST.socket))
    with pytest.raises(InstallError) as refused:
        detect.check_effective(Host(root), facts, EFFECTIVE)
    endpoint = {"kubelet_image_endpoint": slots.FIRST.socket, "soci": {("x",): 1}}
    assert refused.value.remedy == of_doctor("kubelet-cannot-pull", **endpoint)
