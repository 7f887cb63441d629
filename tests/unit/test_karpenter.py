"""What a NodePool and an EC2NodeClass hold, and which are refused."""

import re
from typing import Any

import pulumi
import pytest
from agent.marks import TAINT

from components import SociConfigError, ec2_node_class, node_pool, startup_taints

STARTUP = {"key": TAINT, "value": "true", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
ON_DEMAND = {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}
NODES: dict[str, Any] = {
    "role": "karpenter-nodes",
    "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
    "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
}


def pool(**template: Any) -> dict[str, Any]:
    """The spec of a rendered NodePool whose template has this spec."""
    return node_pool("gpu", {"template": {"spec": template}})["spec"]["template"]["spec"]


def test_pool_starts_its_nodes_with_taint_and_label() -> None:
    found = node_pool("gpu")
    assert (found["apiVersion"], found["kind"], found["metadata"]) == (
        "karpenter.sh/v1",
        "NodePool",
        {"name": "gpu"},
    )
    template = found["spec"]["template"]
    assert template["metadata"]["labels"] == {"soci-cluster.io/pool": "soci"}
    assert template["spec"] == {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
        "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
        "startupTaints": [STARTUP],
    }


def test_pool_keeps_every_field_of_karpenters_own() -> None:
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "other"}
    given = {
        "limits": {"cpu": "100"},
        "disruption": {"consolidateAfter": "5m"},
        "template": {
            "metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}},
            "spec": {
                "nodeClassRef": reference,
                "expireAfter": "Never",
                "requirements": [ON_DEMAND],
                "taints": [GPU],
                "startupTaints": [GPU, STARTUP],
            },
        },
    }
    spec = node_pool("gpu", given, pool="gpu")["spec"]
    assert (spec["limits"], spec["disruption"]) == (given["limits"], given["disruption"])
    metadata, template = spec["template"]["metadata"], spec["template"]["spec"]
    assert metadata["labels"] == {"soci-cluster.io/pool": "gpu", "team": "vision"}
    assert metadata["annotations"] == {"a": "b"}
    assert (template["nodeClassRef"], template["expireAfter"], template["taints"]) == (
        reference,
        "Never",
        [GPU],
    )
    assert template["requirements"][1:] == [ON_DEMAND]
    assert template["startupTaints"] == [GPU, STARTUP], "ours once, whoever named it"
    assert given["template"]["spec"]["requirements"] == [ON_DEMAND], "the caller's own object is left alone"


def test_startup_taint_is_one_of_several() -> None:
    cilium = {"key": "node.cilium.io/agent-not-ready", "value": "true", "effect": "NoExecute"}
    assert startup_taints([cilium]) == [cilium, STARTUP]


def test_startup_taint_among_the_lasting_ones_is_refused() -> None:
    """The pods of such a pool wait for ever; tests/engine/test_karpenter.py shows Karpenter at it."""
    with pytest.raises(SociConfigError) as refused:
        pool(taints=[GPU, {"key": TAINT, "value": "true", "effect": "NoSchedule"}])
    assert str(refused.value) == (
        f"NodePool gpu: spec.template.spec.taints holds {TAINT}, and Karpenter, which takes these for "
        "lasting, would start no node. Remedy: leave it out, it stands in startupTaints already"
    )


@pytest.mark.parametrize(
    "requirement",
    [
        {"operator": "In", "values": ["windows"]},
        {"operator": "NotIn", "values": ["linux"]},
        {"operator": "DoesNotExist"},
    ],
)
def test_pool_without_linux_is_refused(requirement: dict[str, Any]) -> None:
    with pytest.raises(SociConfigError, match=r"leave out kubernetes\.io/os linux.* Remedy: drop"):
        pool(requirements=[{"key": "kubernetes.io/os", **requirement}])


def test_own_requirement_of_linux_is_not_doubled() -> None:
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    assert pool(requirements=[linux, ON_DEMAND])["requirements"] == [linux, ON_DEMAND]


def test_class_has_a_disk_for_images_and_keeps_the_nodes_role_from_pods() -> None:
    spec = ec2_node_class("gpu", NODES)["spec"]
    (root,) = spec["blockDeviceMappings"]
    assert (root["deviceName"], root["rootVolume"]) == ("/dev/xvda", True)
    assert root["ebs"] == {
        "volumeType": "gp3",
        "volumeSize": "100Gi",
        "iops": 3000,
        "throughput": 600,
        "encrypted": True,
        "deleteOnTermination": True,
    }
    assert spec["metadataOptions"] == {"httpTokens": "required", "httpPutResponseHopLimit": 1}
    assert spec["amiSelectorTerms"] == [{"alias": "al2023@latest"}]
    assert "instanceStorePolicy" not in spec


def test_class_takes_size_speed_and_instance_store() -> None:
    spec = ec2_node_class(
        "gpu",
        NODES,
        volume_gib=500,
        volume_iops=8000,
        volume_throughput=1000,
        hop_limit=2,
        instance_store=True,
    )["spec"]
    disk = spec["blockDeviceMappings"][0]["ebs"]
    assert (disk["volumeSize"], disk["iops"], disk["throughput"]) == ("500Gi", 8000, 1000)
    assert spec["metadataOptions"]["httpPutResponseHopLimit"] == 2
    assert spec["instanceStorePolicy"] == "RAID0"


def test_karpenters_own_fields_go_first() -> None:
    own = {
        "amiSelectorTerms": [{"id": "ami-1"}],
        "amiFamily": "AL2023",
        "metadataOptions": {"httpTokens": "optional"},
    }
    assert ec2_node_class("gpu", {**NODES, **own})["spec"].items() >= own.items()


@pytest.mark.parametrize(
    ("family", "cause"),
    [
        ({"amiSelectorTerms": [{"alias": "bottlerocket@latest"}]}, "obeys only its own settings API"),
        (
            {"amiFamily": "Bottlerocket", "amiSelectorTerms": [{"id": "ami-1"}]},
            "obeys only its own settings API",
        ),
        ({"amiSelectorTerms": [{"alias": "al2@latest"}]}, "past its end of support"),
        ({"amiSelectorTerms": [{"alias": "windows2022@latest"}]}, "Linux with systemd and containerd only"),
    ],
)
def test_class_on_which_the_installer_cannot_work_is_refused(family: dict[str, Any], cause: str) -> None:
    with pytest.raises(
        SociConfigError, match=rf"EC2NodeClass gpu: spec\.ami.*{cause}.* Remedy: amiSelectorTerms"
    ):
        ec2_node_class("gpu", {**NODES, **family})


def test_class_that_turns_on_the_amis_own_soci_is_refused() -> None:
    gate = "kind: NodeConfig\nspec: {featureGates: {FastImagePull: true}}\n"
    with pytest.raises(SociConfigError) as refused:
        ec2_node_class("gpu", {**NODES, "userData": gate})
    assert str(refused.value) == (
        "EC2NodeClass gpu: spec.userData: nodeadm's FastImagePull turns on the AMI's own SOCI, and both "
        "write the same files. Remedy: take FastImagePull out of the NodeConfig"
    )
    off = gate.replace("true", "false")
    assert ec2_node_class("gpu", {**NODES, "userData": off})["spec"]["userData"] == off


def test_class_says_at_once_all_that_it_lacks() -> None:
    with pytest.raises(SociConfigError) as refused:
        ec2_node_class("gpu", {"role": "a", "instanceProfile": "b"})
    lines = str(refused.value).splitlines()
    assert [re.split("[:.] ", line)[1] for line in lines] == [
        "spec.subnetSelectorTerms is missing",
        "spec.securityGroupSelectorTerms is missing",
        "spec needs either role or instanceProfile",
    ]
    assert all("Remedy: " in line for line in lines)


def test_what_is_not_known_yet_is_not_judged() -> None:
    """Role, subnets and AMI are often outputs of resources."""
    unknown: Any = pulumi.Output.from_input("later")
    spec = ec2_node_class(
        "gpu",
        {
            **NODES,
            "role": unknown,
            "userData": unknown,
            "subnetSelectorTerms": [{"id": unknown}],
            "amiSelectorTerms": [{"alias": unknown}],
        },
    )["spec"]
    assert spec["role"] is unknown
    found = pool(
        taints=unknown, requirements=[{"key": "kubernetes.io/os", "operator": "In", "values": [unknown]}]
    )
    assert found["taints"] is unknown
