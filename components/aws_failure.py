"""What AWS refuses in the middle of `pulumi up`, with cause and remedy, for who runs it.

The AWS provider's words name a request and a code of AWS. What the code means for this stack, and what to do,
is a row here; the engine calls an error hook with the words. Codes: AWS's API references of EKS, EC2 and IAM,
and "Amazon EKS managed node group errors" in the user guide of EKS.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

AGAIN = "pulumi up goes on where it was"


@dataclass(frozen=True)
class Refusal:
    """A refusal of AWS.

    Attributes:
        pattern: of AWS's words, a regular expression; its groups may stand in cause and remedy as {0}, {1}.
        cause: what it means.
        remedy: what to do.
    """

    pattern: str
    cause: str
    remedy: str


REFUSALS = (
    Refusal(
        r"ExpiredToken|RequestExpired|token included in the request is expired",
        "the AWS credentials ended in the middle; what was made until then is recorded",
        f"renew them (aws sso login, or the CI job's role with a longer session); {AGAIN}",
    ),
    Refusal(
        r"ServiceLinkedRole|service-linked role",
        "AWS may not make the service-linked role that it needs here",
        "let somebody with iam:CreateServiceLinkedRole make it once for the account: aws iam "
        "create-service-linked-role --aws-service-name eks.amazonaws.com (or eks-nodegroup, autoscaling, "
        f"spot); {AGAIN}",
    ),
    Refusal(
        r"not authorized to perform: ([\w-]+:\w+)",
        "whoever runs this may not {0}",
        f"allow {{0}}, or set aws:profile or aws:assumeRoles to one that may; {AGAIN}",
    ),
    Refusal(
        r"AccessDenied|UnauthorizedOperation|InvalidClientTokenId|UnrecognizedClient",
        "AWS does not let whoever runs this do that",
        f"set aws:profile or aws:assumeRoles to one that may; {AGAIN}",
    ),
    Refusal(
        r"ResourceInUseException.*Cluster already exists with name: ([\w-]+)",
        "the account has a cluster {0} that this stack has not: somebody else's, or of an earlier pulumi up "
        "that was killed while AWS made it",
        "pulumi config set soci:clusterName NAME; or, where nobody needs it, aws eks delete-cluster "
        "--name {0}, then pulumi up",
    ),
    Refusal(
        r"ResourceInUseException.*NodeGroup already exists with name ([\w-]+) and cluster name ([\w-]+)",
        "the cluster {1} has a node group {0} that this stack has not: of an earlier pulumi up that was "
        "killed while AWS made it",
        "aws eks delete-nodegroup --cluster-name {1} --nodegroup-name {0}, then pulumi up",
    ),
    Refusal(
        r"VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded",
        "the account's quota of EC2 has no room for these instances",
        "ask for more in Service Quotas (EC2, in this region), or set soci:nodeCount lower or "
        f"soci:instanceTypes smaller; {AGAIN}",
    ),
    Refusal(
        r"InsufficientInstanceCapacity|UnfulfillableCapacity",
        "AWS has no such instance free in these zones at the moment",
        f"name more types in soci:instanceTypes or more zones in soci:nodeSubnetIds, or wait; {AGAIN}",
    ),
    Refusal(
        r"UnsupportedAvailabilityZoneException",
        "EKS makes no control plane in one of these zones",
        "set soci:subnetIds to subnets in other zones; AWS's message names them",
    ),
    Refusal(
        r"InsufficientFreeAddresses",
        "the nodes' subnets have no free addresses",
        f"set soci:nodeSubnetIds to larger ones; {AGAIN}",
    ),
    Refusal(
        r"ResourceLimitExceededException",
        "the account has as many clusters or node groups as EKS allows it",
        f"ask for more in Service Quotas (EKS, in this region), or delete what nobody needs; {AGAIN}",
    ),
    Refusal(
        r"InvalidAMIID|Ec2LaunchTemplateVersionNotFound|Ec2LaunchTemplateNotFound",
        "the AMI or the launch template of the nodes is gone",
        "pulumi up --refresh",
    ),
    Refusal(
        r"OptInRequired|PendingVerification",
        "AWS has not opened this region or service to the account yet",
        f"enable it in the account's settings, or wait for AWS's mail; {AGAIN}",
    ),
    Refusal(
        r"NodeCreationFailure",
        "the instances run and did not join the cluster",
        "see that their subnets reach the cluster's API, ECR and S3 (NAT or VPC endpoints), then pulumi up "
        "--replace URN, with the node group's from pulumi stack --show-urns",
    ),
)


def explain(errors: Sequence[str]) -> str:
    """Cause and remedy of what the AWS provider said, in one sentence each; empty for what has no row."""
    words = " ".join(errors[:1]).replace("\n", " ")
    for refusal in REFUSALS:
        if found := re.search(refusal.pattern, words, re.IGNORECASE):
            return f"{refusal.cause}. Remedy: {refusal.remedy}".format(*found.groups())
    return ""


def transforms(name: str, component: pulumi.Resource) -> list[pulumi.ResourceTransform]:
    """Transforms by which the engine has every refusal of AWS explained, of what is made below the resource
    that they are given to; none in a preview, which makes nothing.

    Args:
        name: unique name of the hook.
        component: the resource under which the words are shown.
    """
    if pulumi.runtime.is_dry_run():
        return []

    def tell(args: pulumi.ErrorHookArgs) -> bool:
        if said := explain(args.errors):
            pulumi.log.error(f"{args.name}: {said}", component)
        return False  # no retry: AWS's provider has made its own

    binding = pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook(name, tell)])

    def of_aws(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if not args.type_.startswith("aws:"):
            return None
        options = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(hooks=binding))
        return pulumi.ResourceTransformResult(args.props, options)

    return [of_aws]
