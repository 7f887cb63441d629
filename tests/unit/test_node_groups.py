"""The nodes of a new EKS cluster: what each group asks AWS for, and which shapes are refused."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pulumi
import pulumi_eks as eks
import pytest
import yaml

from components import SociCluster, SociClusterArgs, SociConfigError, from_config
from components.configuration import from_arguments
from components.eks_rules import ami_type
from components.node_groups import NODE_POLICIES, launch_template, node_group
from components.settings import Settings, node_groups_of, plain_arguments
from tests.unit.mocks import ANSWERS, DIGESTS, Recorder, transformed

# What pulumi-eks gives the launch template and the node group (nodegroup.ts of 4.4).
TEMPLATE = {
    "blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 100}}],
    "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2, "httpEndpoint": "enabled"},
}
GROUP = {"version": "1.36", "amiType": "AL2023_x86_64_STANDARD", "subnetIds": ["subnet-1"]}


def made(run, **args: Any) -> dict[str, Any]:
    return run(lambda: SociCluster("soci", cast(SociClusterArgs, {"sha256": DIGESTS} | args)).outputs())


def as_config(config: dict[str, Any]) -> dict[str, str]:
    """Settings as Pulumi hands them on: text, or JSON."""
    return {
        f"soci:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()
    }


def groups(**config: Any) -> dict[str, Settings]:
    return node_groups_of(from_config(as_config(config)))


def refusal(**config: Any) -> list[str]:
    with pytest.raises(SociConfigError) as refused:
        from_config(as_config(config))
    return str(refused.value).splitlines()


def children(recorder: Recorder, name: str, type_: str, props: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What a child of a resource becomes by that resource's transforms."""
    return transformed(type_, f"{name}-child", props, recorder.resources[name].transforms)


def test_one_group_is_the_short_form(recorder: Recorder, run) -> None:
    made(run, instance_types=["m7g.large"], node_count=3)
    (name,) = recorder.of_type(":ManagedNodeGroup")
    assert name == "soci-nodes"
    nodes = recorder.inputs(name)
    assert nodes["instanceTypes"] == ["m7g.large"]
    assert nodes["scalingConfig"] == {"desiredSize": 3, "minSize": 1, "maxSize": 4}
    assert "ignoreScalingChanges" not in nodes
    assert "subnetIds" not in nodes


def test_each_group_has_a_shape_of_its_own_and_the_rest_of_the_flat_settings(recorder: Recorder, run) -> None:
    made(
        run,
        volume_gib=200,
        node_groups={
            "cpu": {"instance_types": ["m7g.xlarge"], "capacity_type": "spot"},
            "gpu": {
                "instance_types": ["g6.xlarge"],
                "node_count": 0,
                "min_node_count": 0,
                "autoscaled": True,
                "node_labels": {"team": "vision"},
                "node_taints": ["nvidia.com/gpu=present:NoSchedule", "dedicated:NoExecute"],
                "volume_gib": 500,
            },
        },
    )
    assert sorted(recorder.of_type(":ManagedNodeGroup")) == ["soci-cpu", "soci-gpu"]
    cpu, gpu = recorder.inputs("soci-cpu"), recorder.inputs("soci-gpu")
    assert (cpu["amiType"], gpu["amiType"]) == ("AL2023_ARM_64_STANDARD", "AL2023_x86_64_NVIDIA")
    assert (cpu["diskSize"], gpu["diskSize"]) == (200, 500)
    assert (cpu["capacityType"], gpu.get("capacityType")) == ("SPOT", None)
    assert (cpu.get("ignoreScalingChanges"), gpu["ignoreScalingChanges"]) == (None, True)
    assert gpu["scalingConfig"] == {"desiredSize": 0, "minSize": 0, "maxSize": 4}
    assert gpu["labels"] == {"team": "vision", "soci-cluster.io/pool": "soci"}
    startup = {"key": "soci-cluster.io/not-ready", "value": "true", "effect": "NO_SCHEDULE"}
    assert cpu["taints"] == [startup]
    assert gpu["taints"] == [
        startup,
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"},
        {"key": "dedicated", "value": "", "effect": "NO_EXECUTE"},
    ]


def test_a_group_of_a_program_and_one_of_the_configuration_are_the_same() -> None:
    args: Any = {"node_groups": {"gpu": {"instance_types": ["g6.xlarge"], "volume_gib": 500}}}
    by_config = from_config(
        {"soci:nodeGroups": '{"gpu": {"instanceTypes": ["g6.xlarge"], "volumeGiB": 500}}'}
    )
    assert from_arguments(args) == by_config
    assert from_arguments(plain_arguments(by_config)) == by_config


def test_every_problem_of_every_group_is_told_at_once_with_its_path() -> None:
    told = refusal(
        mode="eager",
        nodeGroups={
            "gpu": {"volumeGiB": 5, "volumGiB": 5, "version": "0.16.1", "instanceTypes": ["g6.xlarge"]},
            "cpu": {"instanceTypes": ["m6i.large", "m7g.large"], "nodeCount": 9},
            "Big": {},
        },
    )
    rm = "pulumi config rm --path soci:nodeGroups"
    assert told == [
        "soci:mode 'eager': must be lazy or parallel or lazy-or-parallel. "
        "Remedy: pulumi config set soci:mode lazy",
        "soci:nodeGroups.gpu.volumeGiB '5': must be a whole number of GiB from 20 to 16384. "
        "Remedy: pulumi config set --path soci:nodeGroups.gpu.volumeGiB 100",
        "soci:nodeGroups.gpu.volumGiB [not shown]: there is no such setting of a node group. "
        f"Remedy: did you mean soci:nodeGroups.gpu.volumeGiB? {rm}.gpu.volumGiB",
        "soci:nodeGroups.gpu.version '0.16.1': there is no such setting of a node group (soci:version is one "
        f"of the cluster). Remedy: {rm}.gpu.version",
        "soci:nodeGroups.Big [not shown]: a group is named by a lower-case letter, then letters, digits and "
        "-, at most 32 in all. Remedy: give the group another name",
        "soci:nodeGroups.cpu.nodeCount '9': must lie between soci:minNodeCount and soci:maxNodeCount (1 to "
        "4). Remedy: pulumi config set --path soci:nodeGroups.cpu.nodeCount 4",
        'soci:nodeGroups.cpu.instanceTypes \'["m6i.large", "m7g.large"]\': m6i.large needs the AMI '
        "AL2023_x86_64_STANDARD and m7g.large needs AL2023_ARM_64_STANDARD, and the nodes of a group have "
        "one. Remedy: keep the types like m6i.large, and make those like m7g.large a group of their own in "
        "soci:nodeGroups",
    ]


def test_the_groups_in_the_documents_are_accepted() -> None:
    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    config = yaml.safe_load(document.split("```yaml\n")[1].split("```")[0])["config"]
    told = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    assert set(node_groups_of(from_config(told))) == {"cpu", "gpu"}


def test_what_a_group_takes_from_a_bad_flat_setting_is_told_once() -> None:
    (told,) = refusal(nodeCount="many", nodeGroups={"a": {}, "b": {}})
    assert told.startswith("soci:nodeCount 'many': must be a whole number of nodes")


def test_a_secret_group_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pulumi.runtime.set_all_config({}, ["soci:nodeGroups"])
    try:
        (told,) = refusal(nodeGroups={"gpu": {"capacityType": "hunter2"}})
    finally:
        pulumi.runtime.set_all_config({}, [])
    assert told.startswith("soci:nodeGroups.gpu.capacityType [secret]: must be on-demand or spot")


@pytest.mark.parametrize(
    ("config", "path", "reason"),
    [
        ({"nodeTaints": ["a=b"]}, "nodeTaints", "'a=b' is not a taint such as dedicated=gpu:NoSchedule"),
        ({"nodeTaints": ["a:Never"]}, "nodeTaints", "'a:Never' is not a taint"),
        ({"nodeTaints": ["a=b:NoSchedule", "a=c:NoSchedule"]}, "nodeTaints", "is there twice"),
        (
            {"nodeTaints": ["soci-cluster.io/not-ready:NoSchedule"]},
            "nodeTaints",
            "is a taint of SociCluster's own",
        ),
        ({"nodeLabels": {"soci-cluster.io/pool": "x"}}, "nodeLabels", "is a label of SociCluster's own"),
        ({"nodeLabels": {"eks.amazonaws.com/x": "x"}}, "nodeLabels", "is a label of EKS's own"),
        ({"nodeLabels": {"node-role.kubernetes.io/gpu": ""}}, "nodeLabels", "with which no kubelet starts"),
        ({"nodeCount": 0, "minNodeCount": 0}, "nodeCount", "without a node SOCI is nowhere installed"),
        ({"nodeCount": 0}, "nodeCount", "must lie between"),
        ({"volumeType": "gp2"}, "volumeType", "must be gp3 or io2"),
        ({"volumeIops": 100}, "volumeIops", "must be 0 or a whole number of operations per second"),
        ({"volumeThroughput": 1000, "volumeIops": 3000}, "volumeIops", "1000 MiB/s need 4000 operations"),
        ({"volumeIops": 90000}, "volumeIops", "gp3 has at most 80000 operations per second"),
        (
            {"volumeIops": 30000, "volumeGiB": 20},
            "volumeGiB",
            "30000 operations per second need 60 GiB of gp3",
        ),
        ({"capacityType": "SPOT"}, "capacityType", "must be on-demand or spot"),
        ({"amiType": "BOTTLEROCKET_x86_64"}, "amiType", "must be an AMI type of EKS for Amazon Linux 2023"),
        ({"metadataHopLimit": 0}, "metadataHopLimit", "must be a whole number of hops from 1 to 64"),
        ({"nodeSubnetIds": ["a"]}, "nodeSubnetIds", "must hold subnet ids"),
        (
            {"eksNodeGroup": {"amiId": "ami-1"}, "amiType": "AL2023_x86_64_NVIDIA"},
            "amiType",
            "has an amiId, too",
        ),
        (
            {
                "eksNodeGroup": {"nodeadmExtraOptions": []},
                "instanceTypes": ["trn1.2xlarge"],
                "instanceStore": False,
            },
            "eksNodeGroup",
            "pulumi-eks looks for the AMI itself, and does not know AL2023_x86_64_NEURON",
        ),
        (
            {"eksNodeGroup": {"kubeletExtraArgs": "-v=4"}, "instanceTypes": ["m6id.large"]},
            "instanceStore",
            "with kubeletExtraArgs pulumi-eks writes the user data, to which the RAID 0 cannot be added",
        ),
    ],
)
def test_a_group_that_cannot_be_is_refused(config: dict[str, Any], path: str, reason: str) -> None:
    flat = [line for line in refusal(**config) if line.startswith(f"soci:{path} ")]
    assert [line for line in flat if reason in line], flat
    if reason.startswith("without a node"):
        return
    nested = refusal(nodeGroups={"one": config})
    assert [line for line in nested if line.startswith(f"soci:nodeGroups.one.{path} ") and reason in line], (
        nested
    )


def test_no_group_may_be_without_a_node_but_all_of_them() -> None:
    none = {"nodeCount": 0, "minNodeCount": 0}
    assert groups(nodeCount=1, minNodeCount=0, maxNodeCount=5)["nodes"].min_node_count == 0
    assert groups(nodeGroups={"gpu": none, "cpu": {}})["gpu"].node_count == 0
    (told,) = refusal(nodeGroups={"gpu": none, "cpu": none})
    assert "without a node SOCI is nowhere installed" in told


@pytest.mark.parametrize(
    ("config", "key", "reason"),
    [
        ({"privateSubnetIds": ["subnet-1", "subnet-2"]}, "vpcId", "soci:privateSubnetIds needs the VPC"),
        (
            {"vpcId": "vpc-1", "subnetIds": ["subnet-1", "subnet-2"], "publicSubnetIds": ["subnet-3"]},
            "publicSubnetIds",
            "stands in the place of soci:subnetIds",
        ),
        ({"vpcId": "vpc-1", "privateSubnetIds": ["subnet-1"]}, "privateSubnetIds", "at least two"),
        ({"vpcId": "vpc-1"}, "subnetIds", "soci:vpcId needs the subnets"),
    ],
)
def test_subnets_that_cannot_be_are_refused(config: dict[str, Any], key: str, reason: str) -> None:
    (told,) = refusal(**config)
    assert told.startswith(f"soci:{key} ")
    assert reason in told


def test_nodes_are_in_the_private_subnets_or_in_their_own(recorder: Recorder, run) -> None:
    made(
        run,
        vpc_id="vpc-1",
        public_subnet_ids=["subnet-1", "subnet-2"],
        private_subnet_ids=["subnet-3", "subnet-4"],
        node_groups={"a": {}, "b": {"node_subnet_ids": ["subnet-5"]}},
    )
    cluster = recorder.inputs("soci-eks")
    assert cluster["vpcId"] == "vpc-1"
    assert cluster["publicSubnetIds"] == ["subnet-1", "subnet-2"]
    assert cluster["privateSubnetIds"] == ["subnet-3", "subnet-4"]
    assert "subnetIds" not in cluster
    assert recorder.inputs("soci-a")["subnetIds"] == ["subnet-3", "subnet-4"]
    assert recorder.inputs("soci-b")["subnetIds"] == ["subnet-5"]


def test_the_default_vpc_is_taken_without_the_zones_that_eks_refuses(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones = "aws:index/getAvailabilityZones:getAvailabilityZones"
    monkeypatch.setitem(ANSWERS, zones, {"zoneIds": ["use1-az1", "use1-az3", "use1-az2"]})
    asked: dict[str, Any] = {}

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        asked[args.token.rpartition(":")[2]] = args.args
        return Recorder.call(recorder, args)

    monkeypatch.setattr(recorder, "call", call)
    made(run)
    assert asked["getSubnets"]["filters"] == [
        {"name": "default-for-az", "values": ["true"]},
        {"name": "availability-zone-id", "values": ["use1-az1", "use1-az2"]},
    ]
    cluster = recorder.inputs("soci-eks")
    assert (cluster["vpcId"], cluster["subnetIds"]) == ("vpc-0", ["subnet-1", "subnet-2"])


def test_of_the_default_vpc_aws_is_asked_once(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the checks were told is what the cluster gets; each further round was a wait before it."""
    zones = {"subnet-1": "use1-az1", "subnet-2": "use1-az3", "subnet-3": "use1-az2"}
    monkeypatch.setitem(ANSWERS, "aws:ec2/getSubnets:getSubnets", {"ids": list(zones)})
    asked: list[tuple[str, str]] = []

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        asked.append((args.token.rpartition(":")[2], json.dumps(args.args, sort_keys=True)))
        if "getSubnet:" in args.token:
            return {"availabilityZoneId": zones[args.args["id"]], "vpcId": "vpc-0"}, []
        return Recorder.call(recorder, args)

    monkeypatch.setattr(recorder, "call", call)
    made(run)
    assert [question for question, count in Counter(asked).items() if count > 1] == []
    functions = [function for function, _ in asked]
    assert (functions.count("getVpc"), functions.count("getSubnets")) == (1, 1)
    cluster = recorder.inputs("soci-eks")
    assert (cluster["vpcId"], cluster["subnetIds"]) == ("vpc-0", ["subnet-1", "subnet-3"])


CLUSTER, NODE_GROUP = "aws:eks/cluster:Cluster", "aws:eks/nodeGroup:NodeGroup"


def test_subnets_that_were_looked_up_stay_and_those_that_were_set_act(recorder: Recorder, run) -> None:
    made(run, node_groups={"a": {}, "b": {"node_subnet_ids": ["subnet-5"]}})
    assert children(recorder, "soci-eks", CLUSTER, {})[1].ignore_changes == ["vpcConfig.subnetIds"]
    assert children(recorder, "soci-a", NODE_GROUP, GROUP)[1].ignore_changes == ["subnetIds"]
    assert children(recorder, "soci-b", NODE_GROUP, GROUP)[1].ignore_changes is None
    made(run, vpc_id="vpc-1", subnet_ids=["subnet-1", "subnet-2"])
    assert children(recorder, "soci-eks", CLUSTER, {})[1].ignore_changes is None
    assert children(recorder, "soci-nodes", NODE_GROUP, GROUP)[1].ignore_changes is None


def test_the_disk_is_fast_enough_for_images_and_has_its_size() -> None:
    ebs = launch_template(TEMPLATE, Settings())["blockDeviceMappings"]
    assert ebs == [
        {
            "deviceName": "/dev/xvda",
            "ebs": {"volumeSize": 100, "volumeType": "gp3", "iops": 3000, "throughput": 600},
        }
    ]


@pytest.mark.parametrize(
    ("config", "disk"),
    [
        ({"volumeThroughput": 2000}, {"volumeType": "gp3", "iops": 8000, "throughput": 2000}),
        ({"volumeIops": 12000}, {"volumeType": "gp3", "iops": 12000, "throughput": 600}),
        ({"volumeType": "io2", "volumeThroughput": 1000}, {"volumeType": "io2", "iops": 4000}),
    ],
)
def test_a_disk_has_the_operations_that_its_throughput_needs(
    config: dict[str, Any], disk: dict[str, Any]
) -> None:
    template = launch_template(TEMPLATE, groups(**config)["nodes"])
    assert template["blockDeviceMappings"][0]["ebs"] == {"volumeSize": 100} | disk


def test_tags_are_on_whatever_a_group_starts(recorder: Recorder, run) -> None:
    """AWS gives a node group's tags to none of them."""
    made(run, tags={"team": "a"})
    template, _ = children(recorder, "soci-nodes", "aws:ec2/launchTemplate:LaunchTemplate", TEMPLATE)
    assert template["tags"] == {"team": "a"}
    assert template["tagSpecifications"] == [
        {"resourceType": kind, "tags": {"team": "a"}} for kind in ("instance", "volume", "network-interface")
    ]
    assert not {"tags", "tagSpecifications"} & launch_template(TEMPLATE, Settings()).keys()


def test_the_metadata_service_answers_the_node_alone() -> None:
    assert launch_template(TEMPLATE, Settings())["metadataOptions"] == {
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
        "httpEndpoint": "enabled",
    }
    two = groups(metadataHopLimit=2)["nodes"]
    assert launch_template(TEMPLATE, two)["metadataOptions"]["httpPutResponseHopLimit"] == 2


def test_the_instance_store_holds_the_images_where_there_is_one() -> None:
    group = groups(instanceTypes=["m6i.large", "m6id.large"])["nodes"]
    document = base64.b64decode(launch_template(TEMPLATE, group)["userData"]).decode()
    head, part, end = document.split("--//")[0], document.split("--//")[1], document.split("--//")[2]
    assert 'multipart/mixed; boundary="//"' in head
    assert end.strip() == "--"
    kind, _, config = part.strip().partition("\n\n")
    assert kind == "Content-Type: application/node.eks.aws"
    assert yaml.safe_load(config) == {
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {"instance": {"localStorage": {"strategy": "RAID0"}}},
    }
    none = {"instanceTypes": ["m6i.large"]}, {"instanceTypes": ["m6id.large"], "instanceStore": False}
    assert ["userData" in launch_template(TEMPLATE, groups(**config)["nodes"]) for config in none] == [
        False
    ] * 2


@pytest.mark.parametrize(
    ("amount", "update"),
    [
        ("1", {"maxUnavailable": 1}),
        ("250", {"maxUnavailable": 100}),
        ("10%", {"maxUnavailablePercentage": 10}),
    ],
)
def test_eks_replaces_as_many_nodes_at_a_time_as_the_installer_changes(
    amount: str, update: dict[str, int]
) -> None:
    group = from_config({"soci:maxUnavailable": amount})
    assert node_group(GROUP, group)["updateConfig"] == update


@pytest.mark.parametrize("instance_type", ["trn1.2xlarge", "g5g.xlarge"])
def test_an_ami_type_that_pulumi_eks_does_not_know_reaches_the_node_group(
    recorder: Recorder, run, instance_type: str
) -> None:
    made(run, instance_types=[instance_type])
    nodes = recorder.inputs("soci-nodes")
    assert not {"amiType", "operatingSystem"} & nodes.keys()
    group, _ = children(recorder, "soci-nodes", NODE_GROUP, {"version": "1.36"})
    expected = {"trn1.2xlarge": "AL2023_x86_64_NEURON", "g5g.xlarge": "AL2023_ARM_64_NVIDIA"}
    assert group["amiType"] == expected[instance_type]


def test_an_ami_of_the_users_own_has_no_type() -> None:
    group = groups(eksNodeGroup={"amiId": "ami-1"}, instanceTypes=["g5g.xlarge"])["nodes"]
    assert ami_type(group) == ""
    assert "amiType" not in node_group({"subnetIds": []}, group)


def test_every_ami_type_of_pulumi_eks_is_one_that_it_may_hear_of(recorder: Recorder, run) -> None:
    made(run, instance_types=["g6.xlarge"])
    nodes = recorder.inputs("soci-nodes")
    assert (nodes["amiType"], nodes["operatingSystem"]) == (eks.AmiType.AL2023_X86_64_NVIDIA.value, "AL2023")


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_policies_are_those_of_the_partition(
    recorder: Recorder, run, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, "aws:index/getPartition:getPartition", {"partition": partition})
    made(run)
    arns = {recorder.inputs(f"soci-{policy}")["policyArn"] for policy in NODE_POLICIES}
    assert arns == {f"arn:{partition}:iam::aws:policy/{policy}" for policy in NODE_POLICIES}


def test_a_node_can_be_entered_by_session_manager() -> None:
    assert "AmazonSSMManagedEC2InstanceDefaultPolicy" in NODE_POLICIES


def test_the_engine_asks_the_program_for_no_transform_that_changes_nothing(recorder: Recorder, run) -> None:
    """It asks for each of them, at each of the resources inside, one after the other."""
    made(run)
    assert [len(recorder.resources[name].transforms) for name in ("soci-eks", "soci-nodes")] == [1, 1]
    made(run, vpc_id="vpc-1", subnet_ids=["subnet-1", "subnet-2"])
    assert [len(recorder.resources[name].transforms) for name in ("soci-eks", "soci-nodes")] == [0, 1]
