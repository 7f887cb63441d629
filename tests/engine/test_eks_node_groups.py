"""Several node groups of a new EKS cluster, its subnets, and what is handed on to pulumi-eks.

AWS is moto; the aws and eks plugins are stand-ins: test_aws_stand_ins.py says what they share with the true
ones.
"""

import base64
import json
from typing import Any

import eks_nodes
import pytest
from agent.marks import TAINT
from moto_account import client

from tests.engine.conftest import Account, EksStack, default_subnets
from tests.engine.fake_cluster import ANY_OTHER, FakeNodes
from tests.engine.project_stack import QUIET, REPOSITORY, Project, Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
CLUSTER, NODE_GROUP = "aws:eks/cluster:Cluster", "aws:eks/nodeGroup:NodeGroup"
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
GROUPS = {
    "cpu": {"instanceTypes": ["m7g.large"], "capacityType": "spot"},
    "gpu": {
        "instanceTypes": ["g5.xlarge"],
        "autoscaled": True,
        "nodeLabels": {"team": "vision"},
        "nodeTaints": ["nvidia.com/gpu=present:NoSchedule"],
        "volumeThroughput": 1000,
    },
    "inf": {"instanceTypes": ["inf2.xlarge"]},
}


@pytest.fixture(scope="module")
def stack(eks_stack: EksStack, aws_environment: dict[str, str]) -> Stack:
    """A stack with three groups, which the tests of this module take through its life, in their order."""
    settings = {
        "soci:version": "0.16.0",
        "soci:maxUnavailable": "50%",
        "soci:nodeCount": 1,
        "soci:nodeGroups": GROUPS,
        "soci:tags": {"team": "a"},
        "soci:sampleWorkload": {"enabled": False},
    }
    # One zone has no subnet yet; a test makes it.
    ec2 = client(aws_environment["AWS_ENDPOINT_URL"], "ec2", "eu-west-1")
    ec2.delete_subnet(SubnetId=default_subnets(ec2)[-1]["SubnetId"])
    return eks_stack("groups", settings)


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes, account: Account) -> None:
    """Every test here counts only when the nodes answered, and begins with an account like any other."""


def made(stack: Stack, token: str) -> dict[str, dict[str, Any]]:
    """The inputs of the resources of a type, by name, as the stack's state has them."""
    resources = json.loads(stack.state())["deployment"]["resources"]
    return {item["urn"].rpartition("::")[2]: item["inputs"] for item in resources if item["type"] == token}


def nodes_of(cluster: FakeNodes, group: str) -> list[dict[str, Any]]:
    nodes = cluster.api.call("GET", "/api/v1/nodes")["items"]
    return [node for node in nodes if node["metadata"]["name"].startswith(f"soci-{group}-")]


def test_each_group_has_nodes_of_its_own_kind_and_soci_on_them(stack: Stack, cluster: FakeNodes) -> None:
    stack.up()
    kinds = {
        name: (group["amiType"], group.get("capacityType")) for name, group in made(stack, NODE_GROUP).items()
    }
    assert kinds == {
        "soci-cpu": ("AL2023_ARM_64_STANDARD", "SPOT"),
        "soci-gpu": ("AL2023_x86_64_NVIDIA", None),
        "soci-inf": ("AL2023_x86_64_NEURON", None),
    }
    for group in GROUPS:
        (node,) = nodes_of(cluster, group)
        assert node["metadata"]["labels"]["soci-cluster.io/version"] == "0.16.0"
        assert TAINT not in [taint["key"] for taint in node["spec"].get("taints", [])]
    (gpu,) = nodes_of(cluster, "gpu")
    assert gpu["metadata"]["labels"]["team"] == "vision"
    assert gpu["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    (cpu,) = nodes_of(cluster, "cpu")
    assert cpu["metadata"]["labels"]["kubernetes.io/arch"] == "arm64"


def test_what_pulumi_eks_has_no_argument_for_is_set_on_what_it_makes(stack: Stack) -> None:
    templates = made(stack, LAUNCH_TEMPLATE)
    disks = {name: template["blockDeviceMappings"][0]["ebs"] for name, template in templates.items()}
    fast = {"volumeSize": 100, "volumeType": "gp3", "iops": 4000, "throughput": 1000}
    assert disks["soci-gpu-launchTemplate"] == fast
    assert disks["soci-cpu-launchTemplate"] == fast | {"iops": 3000, "throughput": 600}
    for template in templates.values():
        assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1
        assert template["tags"] == {"team": "a"}
        tagged = {each["resourceType"]: each["tags"] for each in template["tagSpecifications"]}
        assert tagged == {kind: {"team": "a"} for kind in ("instance", "volume", "network-interface")}
        assert "imageId" not in template
    assert "userData" not in templates["soci-cpu-launchTemplate"]
    assert "RAID0" in base64.b64decode(templates["soci-gpu-launchTemplate"]["userData"]).decode()
    updates = [group["updateConfig"] for group in made(stack, NODE_GROUP).values()]
    assert updates == [{"maxUnavailablePercentage": 50}] * 3


def test_second_up_and_refresh_change_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")
    stack.run("refresh", *QUIET, "--expect-no-changes")


def test_a_new_subnet_in_the_default_vpc_changes_nothing(stack: Stack, account: Account) -> None:
    ec2 = account.client("ec2")
    has_one = {subnet["AvailabilityZone"] for subnet in default_subnets(ec2)}
    zones = {zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    (zone,) = zones - has_one
    ec2.create_default_subnet(AvailabilityZone=zone)
    assert stack.plan() == {}


def test_other_subnets_of_the_users_own_are_another_group(stack: Stack) -> None:
    subnet = made(stack, NODE_GROUP)["soci-cpu"]["subnetIds"][0]
    stack.set(nodeGroups=GROUPS | {"cpu": {**GROUPS["cpu"], "nodeSubnetIds": [subnet]}})
    plan = stack.plan()
    stack.set(nodeGroups=GROUPS)
    assert {name: plan.get(f"{NODE_GROUP}::soci-{name}") for name in GROUPS} == {
        "cpu": "replace",
        "gpu": None,
        "inf": None,
    }
    assert f"{CLUSTER}::soci-eks-eksCluster" not in plan


def test_no_update_turns_back_what_an_autoscaler_did(
    stack: Stack, cluster: FakeNodes, account: Account
) -> None:
    eks = account.client("eks")
    cluster_name = stack.outputs()["clusterName"]
    names = eks.list_nodegroups(clusterName=cluster_name)["nodegroups"]
    for group in ("gpu", "cpu"):
        (name,) = [name for name in names if name.startswith(f"soci-{group}")]
        eks.update_nodegroup_config(
            clusterName=cluster_name, nodegroupName=name, scalingConfig={"desiredSize": 2}
        )
    stack.up("--refresh")
    sizes = {}
    for name in names:
        described = eks.describe_nodegroup(clusterName=cluster_name, nodegroupName=name)["nodegroup"]
        sizes[name.rpartition("-")[0]] = described["scalingConfig"]["desiredSize"]
    # The one that is not said to be autoscaled goes back.
    assert sizes == {"soci-cpu": 1, "soci-gpu": 2, "soci-inf": 1}


def test_arguments_of_pulumi_eks_arrive(stack: Stack) -> None:
    groups = GROUPS | {"inf": {**GROUPS["inf"], "eksNodeGroup": {"forceUpdateVersion": True}}}
    stack.set(
        eksCluster={"endpointPrivateAccess": True, "enabledClusterLogTypes": ["audit"]}, nodeGroups=groups
    )
    stack.up()
    (cluster,) = made(stack, CLUSTER).values()
    assert cluster["enabledClusterLogTypes"] == ["audit"]
    assert cluster["vpcConfig"]["endpointPrivateAccess"] is True
    assert cluster["accessConfig"]["authenticationMode"] == "API"
    forced = {name: group.get("forceUpdateVersion") for name, group in made(stack, NODE_GROUP).items()}
    assert forced == {"soci-cpu": None, "soci-gpu": None, "soci-inf": True}
    stack.up("--expect-no-changes")


def test_a_quota_that_is_reached_is_told_with_the_settings_that_avoid_it(
    stack: Stack, account: Account
) -> None:
    words = "api error VcpuLimitExceeded: You have requested more vCPU capacity than your current limit"
    account.tell(refusals={NODE_GROUP: words})
    stack.set(nodeGroups=GROUPS | {"more": {"instanceTypes": ["m7g.large"]}}, eksCluster=None)
    said = stack.try_up()
    assert "the account's limit of vCPUs for this kind of instance is reached. Remedy: have the EC2" in said
    assert "soci:nodeCount" in said
    assert set(made(stack, NODE_GROUP)) == {f"soci-{name}" for name in GROUPS}, "the others are left alone"


def test_a_group_that_goes_takes_no_other_along(stack: Stack, cluster: FakeNodes) -> None:
    stack.set(nodeGroups={"cpu": GROUPS["cpu"]}, eksCluster=None)
    stack.up()
    assert set(made(stack, NODE_GROUP)) == {"soci-cpu"}
    assert [len(nodes_of(cluster, group)) for group in GROUPS] == [1, 0, 0]


def test_a_node_of_a_group_that_starts_from_none_gets_soci_when_an_autoscaler_starts_it(
    stack: Stack, cluster: FakeNodes, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = {"autoscaled": True, "nodeCount": 0, "minNodeCount": 0}
    stack.set(nodeGroups={"cpu": GROUPS["cpu"], "empty": empty})
    stack.up()
    assert nodes_of(cluster, "empty") == []
    cluster.failing[ANY_OTHER] = "download: not yet. Remedy: wait"
    eks = account.client("eks")
    name = stack.outputs()["clusterName"]
    (group,) = [
        one for one in eks.list_nodegroups(clusterName=name)["nodegroups"] if one.startswith("soci-empty")
    ]
    eks.update_nodegroup_config(clusterName=name, nodegroupName=group, scalingConfig={"desiredSize": 1})
    # moto starts no nodes; this is what the stand-in does when a program changes the size.
    monkeypatch.setenv("SOCI_LAB_EKS", stack.environment["SOCI_LAB_EKS"])
    eks_nodes.scale(eks.describe_nodegroup(clusterName=name, nodegroupName=group)["nodegroup"])
    (node,) = nodes_of(cluster, "empty")
    assert TAINT in [taint["key"] for taint in node["spec"]["taints"]]
    cluster.failing.clear()
    new = node["metadata"]["name"]
    wait_for(lambda: cluster.serving()[new], 60, "SOCI on the node")
    stack.up("--expect-no-changes")
    stack.up("--refresh")
    assert cluster.serving()[new]


PROGRAM = f"""
import sys

sys.path.insert(0, {str(REPOSITORY)!r})
import pulumi
from components import SociCluster


def encrypted(args):
    if args.type_ != "aws:ec2/launchTemplate:LaunchTemplate":
        return None
    (disk,) = args.props["blockDeviceMappings"]
    disk = {{**disk, "ebs": {{**disk["ebs"], "encrypted": "true"}}}}
    return pulumi.ResourceTransformResult({{**args.props, "blockDeviceMappings": [disk]}}, args.opts)


SociCluster(
    "own",
    {{
        "sha256": {{"amd64": "a" * 64}},
        "sample_workload": {{"enabled": False}},
        "node_groups": {{"one": {{"instance_types": ["m6i.large"]}}}},
        "eks_cluster_options": {{"endpointPrivateAccess": True}},
    }},
    pulumi.ResourceOptions(transforms=[encrypted]),
)
"""


@pytest.fixture
def project(aws_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A program of a user's own with a SociCluster, to be previewed only."""
    return Project(tmp_path_factory.mktemp("own"), aws_environment, PROGRAM)


def previewed(project: Project) -> dict[str, dict[str, Any]]:
    """What `pulumi preview` would make: {type::name: inputs}."""
    done = project.pulumi("preview", "--json")
    assert done.returncode == 0, done.stdout
    return {
        "::".join(step["urn"].split("::")[2:]).rsplit("$", 1)[-1]: step["newState"].get("inputs", {})
        for step in json.loads(done.stdout[done.stdout.index("{") :])["steps"]
    }


def test_a_transform_of_the_user_has_the_last_word_on_what_is_inside(project: Project) -> None:
    project.config(**{"aws:region": "eu-west-1"})
    (disk,) = previewed(project)[f"{LAUNCH_TEMPLATE}::own-one-launchTemplate"]["blockDeviceMappings"]
    assert disk["ebs"]["encrypted"] == "true"
    assert disk["ebs"]["throughput"] == 600


def test_a_default_vpc_with_a_zone_that_eks_refuses_works(project: Project, account: Account) -> None:
    project.config(**{"aws:region": "us-east-1"})
    chosen = previewed(project)[f"{CLUSTER}::own-eks-eksCluster"]["vpcConfig"]["subnetIds"]
    subnets = account.client("ec2", "us-east-1").describe_subnets(SubnetIds=chosen)["Subnets"]
    zones = {subnet["AvailabilityZoneId"] for subnet in subnets}
    assert len(zones) > 2
    assert "use1-az3" not in zones


def test_the_policies_of_another_partition_are_its_own(project: Project, account: Account) -> None:
    project.config(**{"aws:region": "eu-west-1"})
    account.tell(partition="aws-us-gov")
    policies = {
        name: inputs["policyArn"]
        for name, inputs in previewed(project).items()
        if name.startswith("aws:iam/rolePolicyAttachment:RolePolicyAttachment::own-Amazon")
    }
    assert len(policies) == 4
    assert {arn.partition(":iam")[0] for arn in policies.values()} == {"arn:aws-us-gov"}
