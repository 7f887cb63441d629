"""What AWS is asked for the guards, and what becomes of its answers."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aws_functions
import aws_world
import boto3
import grpc
import pulumi
import pytest
from moto import mock_aws

from components import SociCluster, aws_questions
from components.guards import Answers
from components.problems import SociConfigError
from components.settings import Settings
from tests.unit.mocks import DIGESTS, Recorder

SUBNET = {
    "vpcId": "vpc-1",
    "availabilityZoneId": "euw1-az1",
    "mapPublicIpOnLaunch": False,
    "region": "eu-west-1",
    "ownerId": "111111111111",
}
ISOLATED = {
    ("getSubnet", "subnet-a"): SUBNET,
    ("getRouteTable", "subnet-a"): {"routes": []},
    ("getVpcEndpoint", "com.amazonaws.eu-west-1.ec2"): {},
}
NAT = {"cidrBlock": "0.0.0.0/0", "gatewayId": "", "natGatewayId": "nat-1"}
OF_TYPES = {"getInstanceType", "getInstanceTypeOfferings", "getClusterVersions"}


class Aws:
    """Answers from a table: function and the argument that tells its questions apart -> the answer."""

    def __init__(self, answers: Mapping[tuple[str, str], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def ask(self, token: str, arguments: Mapping[str, Any]) -> Any:
        function = token.rpartition(":")[2]
        assert token.split("/")[1] == f"{function}:{function}"
        self.asked.append((function, arguments))
        known = ("subnetId", "id", "instanceType", "serviceName", "vpcId")
        about = next((str(arguments[key]) for key in known if key in arguments), "")
        return self.answers.get((function, about))


class DistantAws(Aws):
    """Its answers come when nobody asks anything more: what was asked in each round."""

    def __init__(self, answers: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(answers)
        self.rounds: list[set[str]] = []
        self.answered = 0

    async def ask(self, token: str, arguments: Mapping[str, Any]) -> Any:
        number = self.answered
        self.rounds += [set()] * (number + 1 - len(self.rounds))
        self.rounds[number] = self.rounds[number] | {token.rpartition(":")[2]}
        # All that can be asked without this answer takes fewer turns of the loop.
        for _ in range(50):
            await asyncio.sleep(0)
        self.answered = number + 1
        return await super().ask(token, arguments)


def gather(aws: Aws, **settings: Any) -> Answers:
    shape = Settings(**settings)
    return asyncio.run(aws_questions.gather(shape, {"nodes": shape}, aws.ask))


def test_subnets_routes_machines_and_releases_are_asked() -> None:
    aws = Aws(
        {
            ("getSubnet", "subnet-a"): SUBNET,
            ("getSubnet", "subnet-b"): {},
            ("getRouteTable", "subnet-a"): {"routes": [NAT]},
            # A subnet without a table of its own has the VPC's main one.
            ("getRouteTable", "subnet-b"): {},
            ("getRouteTable", "vpc-1"): {"routes": []},
            ("getInstanceType", "m6i.xlarge"): {"ebsPerformanceMaximumThroughput": 1250.0},
            ("getInstanceTypeOfferings", ""): {"instanceTypes": ["m6i.xlarge"], "locations": ["euw1-az1"]},
            ("getClusterVersions", ""): {
                "clusterVersions": [{"clusterVersion": "1.36", "versionStatus": "STANDARD_SUPPORT"}]
            },
            ("getCallerIdentity", ""): {"accountId": "111111111111"},
            ("getVpcEndpoint", "com.amazonaws.eu-west-1.ec2"): {"id": "vpce-1"},
            ("getVpcEndpoint", "com.amazonaws.eu-west-1.s3"): {},
        }
    )
    assert gather(aws, vpc_id="vpc-1", subnet_ids=("subnet-a", "subnet-b")) == Answers(
        subnets={"subnet-a": SUBNET, "subnet-b": {}},
        routes={"subnet-a": [NAT], "subnet-b": []},
        endpoints={"ec2": True, "s3": False},
        instance_types={"m6i.xlarge": {"ebsPerformanceMaximumThroughput": 1250.0}},
        zones={"m6i.xlarge": ["euw1-az1"]},
        versions={"1.36": "STANDARD_SUPPORT"},
    )


def test_endpoints_are_asked_only_where_nothing_else_leads_out() -> None:
    aws = Aws({("getSubnet", "subnet-a"): SUBNET, ("getRouteTable", "subnet-a"): {"routes": [NAT]}})
    gather(aws, vpc_id="vpc-1", private_subnet_ids=("subnet-a",))
    assert "getVpcEndpoint" not in {function for function, _ in aws.asked}


@pytest.mark.parametrize(
    ("account", "known"),
    [({"accountId": "111111111111"}, {"ec2": False}), ({"accountId": "222222222222"}, {}), (None, {})],
)
def test_endpoints_of_a_subnet_that_another_account_shares_are_not_known(account: Any, known: Any) -> None:
    """AWS shows them to the owner of the VPC only."""
    aws = Aws({**ISOLATED, ("getCallerIdentity", ""): account})
    assert gather(aws, vpc_id="vpc-1", private_subnet_ids=("subnet-a",)).endpoints == known


def test_endpoints_of_a_subnet_without_a_known_owner_are_not_known() -> None:
    subnet = {key: value for key, value in SUBNET.items() if key != "ownerId"}
    answers = {("getSubnet", "subnet-a"): subnet, ("getCallerIdentity", ""): {"accountId": "111111111111"}}
    aws = Aws({**ISOLATED, **answers})
    assert gather(aws, vpc_id="vpc-1", private_subnet_ids=("subnet-a",)).endpoints == {}


def test_a_default_vpc_without_subnets_is_told_from_one_whose_subnets_are_not_known() -> None:
    vpc = {("getVpc", ""): {"id": "vpc-1"}}
    assert gather(Aws({**vpc, ("getSubnets", ""): {"ids": []}})).default_subnets == []
    assert gather(Aws(vpc)).default_subnets is None


def test_of_the_default_vpc_its_subnets_are_asked() -> None:
    aws = Aws(
        {
            ("getVpc", ""): {"id": "vpc-1"},
            ("getSubnets", ""): {"ids": ["subnet-a"]},
            ("getSubnet", "subnet-a"): SUBNET,
        }
    )
    found = gather(aws)
    assert (found.default_vpc, found.default_subnets, found.subnets) == (
        "vpc-1",
        ["subnet-a"],
        {"subnet-a": SUBNET},
    )
    assert ("getSubnets", {"filters": [{"name": "default-for-az", "values": ["true"]}]}) in aws.asked


def test_two_rounds_of_questions_tell_all_of_the_default_vpc() -> None:
    """Each is an answer of AWS that the plan waits for."""
    aws = DistantAws(
        {
            ("getVpc", ""): {"id": "vpc-1"},
            ("getSubnets", ""): {"ids": ["subnet-a"]},
            ("getSubnet", "subnet-a"): SUBNET,
            ("getRouteTable", "subnet-a"): {"routes": [NAT]},
        }
    )
    assert gather(aws).subnets == {"subnet-a": SUBNET}
    assert aws.rounds == [{"getVpc", "getSubnets", *OF_TYPES}, {"getSubnet", "getRouteTable"}]


def test_two_rounds_of_questions_tell_what_a_vpc_without_a_way_out_lacks() -> None:
    aws = DistantAws({**ISOLATED, ("getCallerIdentity", ""): {"accountId": "111111111111"}})
    assert gather(aws, vpc_id="vpc-1", private_subnet_ids=("subnet-a",)).endpoints == {"ec2": False}
    assert aws.rounds == [{"getSubnet", "getRouteTable", *OF_TYPES}, {"getCallerIdentity", "getVpcEndpoint"}]


def test_one_question_tells_the_zones_of_all_instance_types() -> None:
    offered = {
        "instanceTypes": ["m6i.xlarge", "g6.xlarge", "m6i.xlarge"],
        "locations": ["euw1-az1", "euw1-az3", "euw1-az2"],
    }
    aws = Aws({("getInstanceTypeOfferings", ""): offered})
    types = ("m6i.xlarge", "g6.xlarge", "p2.xlarge")
    found = gather(aws, instance_types=types).zones
    assert found == {"m6i.xlarge": ["euw1-az1", "euw1-az2"], "g6.xlarge": ["euw1-az3"], "p2.xlarge": []}
    assert [function for function, _ in aws.asked].count("getInstanceTypeOfferings") == 1


def test_an_account_without_a_default_vpc_is_known_as_such() -> None:
    assert gather(Aws({("getVpc", ""): {}})) == Answers(default_vpc="")


@pytest.mark.parametrize("given", [{}, {"vpc_id": "vpc-1", "subnet_ids": ("subnet-a", "subnet-b")}])
def test_without_answers_nothing_is_known(given: dict[str, Any]) -> None:
    assert gather(Aws({}), **given) == Answers()


class Refusal(grpc.RpcError):
    """What the engine says when a provider's function fails."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return self.words


class Component(pulumi.ComponentResource):
    def __init__(self, name: str) -> None:
        super().__init__("soci:index:Test", name)


# The words of the AWS provider and of the engine.
NO_VPC = "invocation of aws:ec2/getVpc:getVpc returned an error: no matching EC2 VPC found"
NO_TABLE = (
    "invocation of aws:ec2/getRouteTable:getRouteTable returned an error: query returned no results. "
    "Please change your search criteria and try again"
)
DENIED = "operation error EC2: DescribeVpcs, api error UnauthorizedOperation: You are not authorized"
UNKNOWN = "unknown function 'aws:eks/getClusterVersions:getClusterVersions'"
SEVERAL = "multiple EC2 VPCs matched; use additional constraints to reduce matches to a single EC2 VPC"


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ({"id": "vpc-1"}, {"id": "vpc-1"}),
        (NO_VPC, {}),
        (NO_TABLE, {}),
        (DENIED, None),
        (UNKNOWN, None),
        (SEVERAL, None),
        ({}, None),
    ],
)
def test_a_refusal_to_answer_is_no_answer_and_no_failure(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch, said: Any, understood: Any
) -> None:
    asked = []

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[Any, Any]:
        asked.append((args.token, args.args))
        if isinstance(said, str):
            raise Refusal(said)
        return said, []

    monkeypatch.setattr(recorder, "call", call)

    def program() -> dict[str, pulumi.Output[Any]]:
        ask = aws_questions.asker(Component("c"))
        return {"answer": pulumi.Output.from_input(ask("aws:ec2/getVpc:getVpc", {"default": True}))}

    assert run(program) == {"answer": understood}
    assert asked == [("aws:ec2/getVpc:getVpc", {"default": True})]


def checked(recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch, vpc: Any) -> None:
    """Run a program with one resource that depends on the checks; AWS answers only for the default VPC."""

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[Any, Any]:
        if "getVpc:" in args.token and isinstance(vpc, str):
            raise Refusal(vpc)
        return vpc if "getVpc:" in args.token else {}, []

    monkeypatch.setattr(recorder, "call", call)
    shape = Settings()

    def program() -> dict[str, pulumi.Output[Any]]:
        component = Component("c")
        done = aws_questions.checked(component, shape, {"nodes": shape})
        pulumi.CustomResource("test:index:After", "after", {"input": done.apply(lambda _: "made")})
        return {}

    run(program)


def test_after_a_refusal_nothing_is_made_that_depends_on_the_checks(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a language host does: of the outputs of what was not made, nobody reads the error.
    asyncio.get_event_loop().set_exception_handler(lambda *_: None)
    with pytest.raises(SociConfigError) as refused:
        checked(recorder, run, monkeypatch, NO_VPC)
    assert str(refused.value) == (
        "soci:vpcId '': this account has no default VPC in the region. "
        "Remedy: pulumi config set soci:vpcId vpc-…, or aws ec2 create-default-vpc"
    )
    assert "after" not in recorder.resources


@pytest.mark.parametrize("vpc", [{"id": "vpc-1"}, DENIED])
def test_what_is_right_or_not_known_is_made(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch, vpc: Any
) -> None:
    checked(recorder, run, monkeypatch, vpc)
    assert recorder.inputs("after") == {"input": "made"}


def test_without_a_default_vpc_no_cluster_is_made_and_the_remedy_is_said(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's own words for it, which pulumi-eks would show, name no setting."""
    asyncio.get_event_loop().set_exception_handler(lambda *_: None)
    answer = recorder.call

    def call(args: pulumi.runtime.MockCallArgs) -> tuple[Any, Any]:
        if "getVpc:" in args.token:
            raise Refusal(NO_VPC)
        return answer(args)

    monkeypatch.setattr(recorder, "call", call)

    def program() -> dict[str, pulumi.Output[Any]]:
        SociCluster("soci", {"sha256": DIGESTS})
        return {}

    with pytest.raises(SociConfigError, match="no default VPC"):
        run(program)
    assert recorder.of_type(":Cluster") == []


def test_a_warning_names_the_key_and_the_remedy(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(recorder, "call", lambda _: ({}, []))
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: said.append(message))
    shape = Settings(kubernetes_version="9.99")

    def program() -> dict[str, pulumi.Output[Any]]:
        return {"done": aws_questions.checked(Component("c"), shape, {"nodes": shape})}

    run(program)
    assert said == [
        "soci:kubernetesVersion '9.99': EKS did not carry Kubernetes 9.99 on 2026-11-26, when this program's "
        "list was read. Remedy: pulumi config set soci:kubernetesVersion 1.36"
    ]


@mock_aws
def test_the_stand_in_answers_what_the_guards_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it did not know an answer, tests with the engine were silent about the guards that need it."""
    keys = {"aws_access_key_id": "stand-in", "aws_secret_access_key": "stand-in"}
    monkeypatch.setattr(
        aws_functions, "client", lambda service: boto3.client(service, region_name="eu-west-1", **keys)
    )
    ec2 = aws_functions.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-west-1a")["Subnet"]
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.eu-west-1.s3")

    async def ask(token: str, arguments: Mapping[str, Any]) -> Any:
        try:
            return aws_functions.call(token, dict(arguments))
        except aws_functions.NoResultError:
            return {}

    shape = Settings(vpc_id=vpc, private_subnet_ids=(made["SubnetId"],))
    found = asyncio.run(aws_questions.gather(shape, {"nodes": shape}, ask))
    assert found.endpoints == {"ec2": False, "ecr.api": False, "ecr.dkr": False, "s3": True}
    assert found.versions["1.36"] == "STANDARD_SUPPORT"


def test_questions_at_the_same_time_share_one_client_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them made one of its own, and all waited for all of these."""
    made: list[str] = []
    other_asks = threading.Event()

    def slowly(service: str, **_: Any) -> str:
        made.append(service)
        other_asks.wait(1)
        return service

    def ask(number: int) -> Any:
        if number:
            other_asks.set()
        return aws_world.client("ec2")

    monkeypatch.setattr(aws_world.boto3, "client", slowly)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    aws_world._client.cache_clear()
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ask, range(2))) == ["ec2", "ec2"]
    aws_world._client.cache_clear()
    assert made == ["ec2"]
