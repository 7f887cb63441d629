"""What AWS's refusals mean, in its own words as the provider hands them on."""

import re

import pytest

from components.aws_failure import REFUSALS, explain

CREATING = "creating EKS Cluster (production): operation error EKS: CreateCluster, https response error "
OWN_CLUSTER = (
    "User: arn:aws:iam::1:user/me is not authorized to perform: eks:CreateCluster on resource: arn:x"
)
WORDS = {
    "ExpiredTokenException: The security token included in the request is expired": "aws sso login",
    "UnauthorizedOperation: You are not authorized to perform this operation.": "aws:profile",
    f"AccessDeniedException: {OWN_CLUSTER}": "may not eks:CreateCluster. Remedy: allow eks:CreateCluster",
    "ResourceInUseException: Cluster already exists with name: production": "--name production, then",
    "ResourceInUseException: NodeGroup already exists with name nodes-1a and cluster name production": (
        "--cluster-name production --nodegroup-name nodes-1a"
    ),
    "VcpuLimitExceeded: You have requested more vCPU capacity than your current limit": "Service Quotas",
    "AsgInstanceLaunchFailures: InsufficientInstanceCapacity - no p5.48xlarge": "soci:instanceTypes",
    "UnsupportedAvailabilityZoneException: Cannot create cluster because us-east-1e": "soci:subnetIds",
    "InvalidRequest: AWSServiceRoleForAmazonEKS, a service-linked role": "create-service-linked-role",
    "NodeCreationFailure: Instances failed to join the kubernetes cluster": "reach the cluster's API",
}


@pytest.mark.parametrize("words", WORDS)
def test_a_refusal_of_aws_has_a_cause_and_a_remedy(words: str) -> None:
    said = explain([CREATING + words, "an earlier error"])
    assert WORDS[words] in said
    assert " Remedy: " in said
    assert "{" not in said


def test_what_is_not_known_is_left_to_the_providers_own_words() -> None:
    assert explain([CREATING + "InternalFailure: try again"]) == ""
    assert explain([]) == ""


def test_only_the_newest_error_counts() -> None:
    assert explain(["timed out", "ExpiredToken: x"]) == ""


def test_a_right_to_make_aws_own_role_is_told_as_that() -> None:
    """It is a denied action, too, which to allow for good is more than is needed."""
    assert "make it once" in explain(
        ["is not authorized to perform: iam:CreateServiceLinkedRole on resource: x"]
    )


def test_every_row_ends_in_what_to_do() -> None:
    """What stands in braces is a group of the words."""
    for refusal in REFUSALS:
        groups = re.compile(refusal.pattern).groups
        said = f"{refusal.cause} {refusal.remedy}".format(*("x" for _ in range(groups)))
        assert "{" not in said
        assert refusal.remedy
