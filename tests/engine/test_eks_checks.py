"""What AWS is asked before a plan: a refusal is one sentence for the user, and no right to ask is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Account, EksStack, default_subnets
from tests.engine.project_stack import Stack

ABSENT = "subnet-0123456789abcdef0"


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
