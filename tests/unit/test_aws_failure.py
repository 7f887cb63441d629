"""AWS's words, each with cause and remedy. The words are those of AWS's documentation and of reports."""

import re

import pytest

from components.aws_failure import REFUSALS, explain, explain_all
from components.settings import FIELDS

SAID = {
    "ExpiredTokenException: The security token included in the request is expired": "aws sso login",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted: The provided credentials do not have permission to "
    "create the service-linked role for EC2 Spot Instances.": "create-service-linked-role",
    "AccessDeniedException: User: arn:aws:iam::123456789012:user/me is not authorized to perform: "
    "iam:CreateServiceLinkedRole on resource: arn:aws:iam::123456789012:role/x": "iam create-service-linked",
    "AccessDeniedException: User: arn:aws:iam::123456789012:user/me is not authorized to perform: "
    "eks:CreateNodegroup on resource: arn:aws:eks:eu-west-1:123456789012:cluster/c": "allow eks:CreateNode",
    "UnauthorizedOperation: You are not authorized to perform this operation. Encoded authorization failure "
    "message: abc": "decode-authorization-message",
    "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 16 allows": (
        "Service Quotas"
    ),
    "AsgInstanceLaunchFailures: Could not launch On-Demand Instances. InsufficientInstanceCapacity - We "
    "currently do not have sufficient p5.48xlarge capacity in the Availability Zone you requested": (
        "soci:instanceTypes"
    ),
    "UnsupportedAvailabilityZoneException: Cannot create cluster because EKS does not support us-east-1e": (
        "soci:subnetIds"
    ),
    "Unsupported - Your requested instance type (m7i.large) is not supported in your requested Availability "
    "Zone (us-east-1e).": "soci:nodeSubnetIds",
    "ResourceInUseException: Cluster already exists with name: production": "soci:clusterName",
    "ResourceInUseException: NodeGroup already exists with name soci-nodes and cluster name production": (
        "aws eks delete-nodegroup"
    ),
    "ResourceInUseException: Cluster has nodegroups attached": "aws eks list-nodegroups",
    "InvalidRequestException: Cluster 'production' is not in ACTIVE status": "aws eks wait cluster-active",
    "ResourceNotFoundException: No cluster found for name: production.": "pulumi up --refresh",
    "Ec2LaunchTemplateNotFound: We couldn't find the Amazon EC2 launch template": "pulumi up --refresh",
    "InvalidLaunchTemplateId.NotFound: The specified launch template, lt-1, does not exist": "up --refresh",
    "InvalidAMIID.NotFound: The image id '[ami-1]' does not exist": "soci:eksNodeGroup.amiId",
    "InsufficientFreeAddresses: One or more of the subnets has too few": "soci:nodeSubnetIds",
    "ResourceLimitExceeded: Maximum number of clusters reached": "Service Quotas",
    "PodEvictionFailure: Reached max retries while trying to evict pods": "poddisruptionbudgets",
    "NodeCreationFailure: Instances failed to join the kubernetes cluster": "NAT or VPC endpoints",
    "ThrottlingException: Rate exceeded": "pulumi up again",
}


@pytest.mark.parametrize(("words", "remedy"), SAID.items(), ids=lambda text: text.partition(":")[0][:50])
def test_a_refusal_has_one_sentence_with_cause_and_remedy(words: str, remedy: str) -> None:
    told = explain(f"creating EKS Thing: operation error EKS: Create, StatusCode: 400, {words}\n")
    cause, _, advice = told.partition(". Remedy: ")
    assert cause
    assert remedy in advice
    assert "\n" not in told


def test_every_refusal_has_words_that_it_and_no_earlier_one_takes() -> None:
    first = {
        next(item.pattern for item in REFUSALS if re.search(item.pattern, words, re.DOTALL)) for words in SAID
    }
    assert first == {item.pattern for item in REFUSALS}


def test_a_remedy_names_settings_that_there_are() -> None:
    named = {key for item in REFUSALS for key in re.findall(r"soci:(\w+)", item.remedy)}
    assert named
    assert named <= set(FIELDS)


def test_what_is_not_known_is_left_to_the_engine() -> None:
    assert explain("InvalidParameterException: The role is wrong") == ""
    assert explain_all(["nothing known", "ThrottlingException: Rate exceeded"]).startswith("AWS took no more")
    assert explain_all([]) == ""


def test_the_cluster_of_that_name_is_named() -> None:
    words = "ResourceInUseException: Cluster already exists with name: production"
    assert "EKS cluster production " in explain(words)
