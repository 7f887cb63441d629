"""What AWS is asked before a plan: a refusal is one sentence for the user, and no right to ask is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from agent.marks import TAINT
from moto_account import client

from tests.engine.conftest import Account, EksStack, default_subnets
from tests.engine.fake_cluster import FakeNodes
from tests.engine.project_stack import Stack

pytestmark = pytest.mark.slow
ABSENT = "subnet-0123456789abcdef0"
# Of us-east-1; EKS makes no control plane in the last one, use1-az3.
ZONES = ("us-east-1a", "us-east-1b", "us-east-1e")


@pytest.fixture
def network(account: Account) -> dict[str, Any]:
    """The settings of a network of the user's own: here the default VPC and two of its subnets."""
    found = default_subnets(account.client("ec2"))
    return {"vpcId": found[0]["VpcId"], "subnetIds": [subnet["SubnetId"] for subnet in found[:2]]}


@pytest.fixture
def stack(tmp_path: Path, eks_stack: EksStack) -> Stack:
    return eks_stack(tmp_path.name, {})


def test_what_aws_does_not_have_is_refused_in_one_sentence(stack: Stack, network: dict[str, Any]) -> None:
    stack.set(**network, nodeSubnetIds=[ABSENT])
    said = stack.try_preview()
    assert (
        f"soci:nodeSubnetIds '[\"{ABSENT}\"]': {ABSENT} does not exist in this account and region. Remedy: "
        "pulumi config set --path 'soci:nodeSubnetIds[0]' subnet-…"
    ) in said
    assert "Traceback" not in said


def test_after_a_refusal_nothing_is_made_in_aws(stack: Stack, network: dict[str, Any]) -> None:
    """The nodes' role was."""
    stack.set(**network, nodeSubnetIds=[ABSENT])
    assert f"{ABSENT} does not exist" in stack.try_up()
    made = [item["type"] for item in json.loads(stack.state())["deployment"]["resources"]]
    assert [kind for kind in made if kind.startswith(("aws:", "eks:"))] == []


def test_what_aws_may_not_be_asked_is_not_refused(
    stack: Stack, network: dict[str, Any], account: Account
) -> None:
    account.tell(forbidden=["aws:ec2/*", "aws:eks/getClusterVersions:*", "aws:index/getCallerIdentity:*"])
    stack.set(**network, nodeSubnetIds=[ABSENT])
    assert "eks:index:ManagedNodeGroup::soci-nodes" in stack.plan()


def test_a_warning_that_needs_aws_reaches_the_user(stack: Stack) -> None:
    stack.set(instanceTypes=["m5.large"])
    said = stack.run("preview", "--non-interactive")
    assert "m5.large reaches its volumes at 566 MiB/s at most, and 600 MiB/s are paid for" in said


@pytest.fixture
def isolated(account: Account) -> dict[str, Any]:
    """The settings of a VPC of two subnets out of which nothing leads, and that has no endpoint."""
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"eu-west-1{zone}")
        for number, zone in enumerate("ab")
    ]
    return {"vpcId": vpc, "subnetIds": [each["Subnet"]["SubnetId"] for each in made]}


def test_everything_that_an_isolated_vpc_lacks_is_told_at_once(
    stack: Stack, isolated: dict[str, Any]
) -> None:
    stack.set(**isolated)
    said = stack.try_preview()
    for subnet in isolated["subnetIds"]:
        assert f"{subnet} has no way out, and its VPC has no endpoint for ec2, ecr.api, ecr.dkr, s3" in said
        assert f"{subnet} has no way out, and the API server has no address in the VPC" in said
    first = isolated["subnetIds"][0]
    for key in ("installerImage", "sampleWorkload"):
        assert re.search(f"soci:{key} .*: the nodes in {first} have no way out to public.ecr.aws", said)
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def mixed_vpc(aws_environment: dict[str, str]) -> dict[str, list[str]]:
    """A VPC as companies have them: in each zone a public subnet whose instances get no public address, and a
    private one whose way out is a NAT gateway. Its ID, and the subnets in the order of ZONES."""
    ec2 = client(aws_environment["AWS_ENDPOINT_URL"], "ec2", "us-east-1")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)

    def subnets(first: int, **way_out: str) -> list[str]:
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **way_out)
        made = []
        for number, zone in enumerate(ZONES, first):
            network = f"10.0.{number}.0/24"
            subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=network, AvailabilityZone=zone)["Subnet"]
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
            made.append(subnet["SubnetId"])
        return made

    public = subnets(0, GatewayId=gateway)
    nat = ec2.create_nat_gateway(SubnetId=public[0])["NatGateway"]["NatGatewayId"]
    return {"vpc": [vpc], "public": public, "private": subnets(100, NatGatewayId=nat)}


@pytest.fixture
def mixed(tmp_path: Path, eks_stack: EksStack, mixed_vpc: dict[str, list[str]]) -> Stack:
    """A stack in that VPC that says nothing of the subnets yet."""
    settings = {
        "aws:region": "us-east-1",
        "soci:vpcId": mixed_vpc["vpc"][0],
        "soci:sampleWorkload": {"enabled": False},
    }
    return eks_stack(tmp_path.name, settings)


def test_a_vpc_of_public_and_private_subnets_is_refused_where_aws_would_refuse_it(
    mixed: Stack, mixed_vpc: dict[str, list[str]]
) -> None:
    """Control plane and nodes were put into all of them, and failed in the middle of the first `up`."""
    public, private = mixed_vpc["public"], mixed_vpc["private"]
    mixed.set(subnetIds=[*public, *private])
    said = mixed.try_preview()
    for subnet in (public[2], private[2]):
        assert f"{subnet} is in the zone use1-az3, where EKS makes no control plane" in said
    for subnet in public:
        assert f"{subnet} is public but gives its nodes no public address" in said
    assert "Traceback" not in said


def is_open(node: dict[str, Any]) -> bool:
    return TAINT not in [taint["key"] for taint in node["spec"].get("taints", [])]


def test_a_vpc_of_public_and_private_subnets_gets_a_cluster_whose_nodes_are_in_the_private_ones(
    mixed: Stack, mixed_vpc: dict[str, list[str]], cluster: FakeNodes
) -> None:
    """A group may be where EKS makes no control plane, with instances that are offered there."""
    public, private = mixed_vpc["public"], mixed_vpc["private"]
    further = {"nodes": {}, "there": {"nodeSubnetIds": [private[2]], "instanceTypes": ["m4.xlarge"]}}
    mixed.set(publicSubnetIds=public[:2], privateSubnetIds=private[:2], nodeGroups=further)
    mixed.up()
    made = json.loads(mixed.state())["deployment"]["resources"]
    of_nodes = {
        item["urn"].rpartition("::")[2]: item["inputs"]["subnetIds"]
        for item in made
        if item["type"] == "aws:eks/nodeGroup:NodeGroup"
    }
    assert of_nodes == {"soci-nodes": private[:2], "soci-there": [private[2]]}
    (control_plane,) = [item["inputs"] for item in made if item["type"] == "aws:eks/cluster:Cluster"]
    assert sorted(control_plane["vpcConfig"]["subnetIds"]) == sorted([*public[:2], *private[:2]])
    assert {*map(is_open, cluster.api.call("GET", "/api/v1/nodes")["items"])} == {True}
    mixed.up("--expect-no-changes")
    mixed.destroy()
