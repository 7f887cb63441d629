"""The startup taint and the pool's label as each kind of node group takes them; a kubeconfig by name."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pytest
import yaml
from agent.marks import TAINT
from pulumi.runtime.mocks import MockMonitor

import components
from components import kubeconfig, release
from tests.unit.mocks import DIGESTS, Recorder

DOCUMENT = Path(__file__).parents[2] / "docs/own-nodes.md"
PROGRAMS = re.findall(
    r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
)
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
ARN = "arn:aws-cn:eks:cn-north-1:123456789012:cluster/demo"
FOUND = {
    "name": "demo",
    "arn": ARN,
    "endpoint": "https://demo.eks.example",
    "certificateAuthorities": [{"data": "Y2E="}],
}


def test_managed_groups_of_both_packages_take_the_taint_and_the_label(recorder: Recorder, run) -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        taints, labels = components.managed_group_taints(), components.pool_labels("gpu")
        group = aws.eks.NodeGroup(
            "aws",
            cluster_name="demo",
            node_role_arn="arn",
            subnet_ids=["subnet-1"],
            scaling_config={"desired_size": 0, "min_size": 0, "max_size": 5},
            taints=taints,
            labels=labels,
        )
        eks.ManagedNodeGroup("eks", cluster=eks.Cluster("cluster"), taints=taints, labels=labels)
        return {"id": group.id}

    run(program)
    for name in ("aws", "eks"):
        inputs = recorder.inputs(name)
        assert inputs["taints"] == [{"key": TAINT, "value": "true", "effect": "NO_SCHEDULE"}], name
        assert inputs["labels"] == {"soci-cluster.io/pool": "gpu"}, name


def test_self_managed_group_takes_the_taint_and_a_node_config(recorder: Recorder, run) -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        group = eks.NodeGroupV2(
            "own",
            cluster=eks.Cluster("cluster"),
            taints=components.self_managed_group_taints(),
            nodeadm_extra_options=[components.node_config()],
        )
        return {"urn": group.urn}

    run(program)
    inputs = recorder.inputs("own")
    assert inputs["taints"] == {TAINT: {"value": "true", "effect": "NoSchedule"}}
    assert inputs["nodeadmExtraOptions"][0]["contentType"] == "application/node.eks.aws"


def test_node_config_holds_every_taint_and_the_labels() -> None:
    part = components.node_config({"team": "vision", "zone": "a"}, [GPU])
    found = yaml.safe_load(str(part["content"]))
    assert (found["apiVersion"], found["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
    assert found["spec"]["kubelet"] == {
        "config": {"registerWithTaints": [GPU, {"key": TAINT, "value": "true", "effect": "NoSchedule"}]},
        "flags": ["--node-labels=team=vision,zone=a"],
    }


def test_kubelet_gets_all_taints_by_one_flag() -> None:
    """Of two flags it would take the last alone."""
    assert components.kubelet_flags(taints=[GPU, {"key": "spot", "effect": "NoExecute"}]) == [
        "--node-labels=soci-cluster.io/pool=soci",
        f"--register-with-taints=nvidia.com/gpu=present:NoSchedule,spot=:NoExecute,{TAINT}=true:NoSchedule",
    ]


def test_cluster_autoscaler_is_told_of_the_taint_and_of_an_empty_group() -> None:
    assert components.autoscaler_flag() == f"--startup-taint={TAINT}"
    hint = "k8s.io/cluster-autoscaler/node-template"
    assert components.autoscaler_tags("demo", taints=[GPU]) == {
        "k8s.io/cluster-autoscaler/enabled": "true",
        "k8s.io/cluster-autoscaler/demo": "owned",
        f"{hint}/label/soci-cluster.io/pool": "soci",
        f"{hint}/taint/nvidia.com/gpu": "present:NoSchedule",
        f"{hint}/taint/{TAINT}": "true:NoSchedule",
    }


# The prefixes of cluster-autoscaler (its utils/taints/taints.go): a taint of such a key needs no
# flag. `--startup-taint` is compared with the whole key; `--startup-taint-prefix` came with 1.36 only.
BUILT_IN_PREFIXES = (
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
)


def is_startup_taint(key: str, flag: str) -> bool:
    """cluster-autoscaler's rule, given one of its flags."""
    name, _, value = flag.partition("=")
    named = key == value if name == "--startup-taint" else key.startswith(value)
    return named or key.startswith(BUILT_IN_PREFIXES)


@pytest.mark.parametrize("made", ["managed", "self-managed", "node config", "flags", "Karpenter"])
def test_cluster_autoscaler_takes_the_taint_of_every_kind_of_nodes_for_one_that_passes(made: str) -> None:
    """Without the flag it would not: a group of no node would never be scaled up."""
    config = yaml.safe_load(str(components.node_config()["content"]))["spec"]["kubelet"]["config"]
    by_kind = {
        "managed": [taint["key"] for taint in components.managed_group_taints()],
        "self-managed": list(components.self_managed_group_taints()),
        "node config": [taint["key"] for taint in config["registerWithTaints"]],
        "flags": [components.kubelet_flags()[1].partition("=")[2].partition("=")[0]],
        "Karpenter": [taint["key"] for taint in components.startup_taints()],
    }
    keys = [str(key) for key in by_kind[made]]
    assert [is_startup_taint(key, components.autoscaler_flag()) for key in keys] == [True]
    assert not any(key.startswith(BUILT_IN_PREFIXES) for key in keys)


@pytest.fixture
def asked(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[pulumi.runtime.MockCallArgs]:
    """What was asked of AWS, which has a cluster of the name demo."""
    calls: list[pulumi.runtime.MockCallArgs] = []

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        calls.append(args)
        return FOUND, []

    monkeypatch.setattr(recorder, "call", call)
    return calls


def kubeconfig_of(run, **arguments: Any) -> dict[str, Any]:
    content = run(lambda: {"content": components.eks_kubeconfig("demo", **arguments)})["content"]
    assert kubeconfig.cluster_server(content, "") == "https://demo.eks.example"
    return json.loads(content)


def test_kubeconfig_by_name_leads_to_the_cluster_in_its_own_region(
    asked: list[pulumi.runtime.MockCallArgs], run
) -> None:
    found = kubeconfig_of(run)
    assert [(call.token, call.args["name"]) for call in asked] == [("aws:eks/getCluster:getCluster", "demo")]
    assert found["clusters"][0]["cluster"]["certificate-authority-data"] == "Y2E="
    command = found["users"][0]["user"]["exec"]
    assert (command["apiVersion"], command["command"]) == ("client.authentication.k8s.io/v1beta1", "aws")
    words = "--region cn-north-1 eks get-token --cluster-name demo --output json"
    assert command["args"] == words.split()


def test_kubeconfig_by_name_takes_the_role_and_the_profile_that_the_cluster_lets_in(
    asked: list[pulumi.runtime.MockCallArgs], run
) -> None:
    role = pulumi.Output.from_input("arn:aws:iam::1:role/admin")
    found = kubeconfig_of(run, region="cn-north-1", role_arn=role, profile="team")
    assert asked[0].args["region"] == "cn-north-1"
    arguments = found["users"][0]["user"]["exec"]["args"]
    assert arguments[-4:] == ["--role-arn", "arn:aws:iam::1:role/admin", "--profile", "team"]


@pytest.fixture
def documented(
    recorder: Recorder,
    asked: list[pulumi.runtime.MockCallArgs],
    run,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Recorder]:
    """Runs a program of the document; returns the recorder with what it made."""
    monkeypatch.setitem(sys.modules, "soci_cluster", components)
    monkeypatch.setattr(release, "pin", lambda *_: DIGESTS)
    given = {
        "nodeRoleArn": "arn:role",
        "nodeRole": "role",
        "instanceProfile": "profile",
        "clusterName": "demo",
        "subnetIds": '["subnet-1"]',
    }

    def run_program(program: str) -> Recorder:
        pulumi.runtime.set_all_config({f"soci:{key}": value for key, value in given.items()})
        recorder.desired_nodes = 0 if "node_pool" in program else 2

        def execute() -> dict[str, pulumi.Output[Any]]:
            exec(compile(program, str(DOCUMENT), "exec"), {"__name__": "__main__"})
            return {"none": pulumi.Output.from_input(None)}

        try:
            run(execute)
        finally:
            pulumi.runtime.set_all_config({})
        return recorder

    return run_program


@pytest.mark.parametrize("program", [pytest.param(text, id=title) for title, text in PROGRAMS])
def test_documented_program_makes_nodes_with_the_taint_and_an_installer_for_them(
    program: str, documented: Callable[[str], Recorder]
) -> None:
    recorder = documented(program)
    groups = [
        resource.inputs
        for resource in recorder.resources.values()
        if resource.typ.endswith((":ManagedNodeGroup", ":NodeGroup", ":NodeGroupV2", ":NodePool"))
    ]
    assert len(groups) == 1
    shape = json.dumps(groups, default=str)
    assert TAINT in shape
    assert '"soci-cluster.io/pool": "soci"' in shape
    (daemon_set,) = recorder.of_type(":DaemonSet")
    inputs = recorder.inputs(daemon_set)
    assert components.pool_labels().items() <= inputs["spec"]["template"]["spec"]["nodeSelector"].items()
    # Karpenter starts and ends nodes when it likes; a group that is replaced must be waited for.
    is_waited_for = "soci-cluster.io/nodes" in inputs["metadata"]["annotations"]
    assert is_waited_for is ("node_pool" not in program)


@pytest.fixture
def gone_with(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The resource with which each one goes, by their names; the mocks do not tell."""
    found: dict[str, str] = {}
    register = MockMonitor.RegisterResource

    def noting(monitor: MockMonitor, request: Any) -> Any:
        found[request.name] = request.deletedWith.rpartition("::")[2]
        return register(monitor, request)

    monkeypatch.setattr(MockMonitor, "RegisterResource", noting)
    return found


@pytest.mark.parametrize("program", [pytest.param(text, id=title) for title, text in PROGRAMS])
def test_documented_program_says_in_which_cluster_its_objects_are(
    program: str, documented: Callable[[str], Recorder], gone_with: dict[str, str]
) -> None:
    recorder = documented(program)
    (provider,) = recorder.of_type("pulumi:providers:kubernetes")
    assert recorder.inputs(provider)["clusterIdentifier"].startswith("arn:")
    (installer,) = recorder.of_type(":SociInstaller")
    assert [name for name in [gone_with[installer]] if name] == recorder.of_type("eks:index:Cluster")


def test_every_way_of_making_nodes_has_a_program() -> None:
    assert [title for title, _ in PROGRAMS] == [
        "A managed group",
        "A cluster that exists, by its name",
        "A self-managed group",
        "Karpenter",
    ]
