"""Why AWS refused something in the middle of a `pulumi up`: cause and remedy in one sentence, beside the
engine's own error.

AWS's words are long, hold request IDs, and name what AWS calls a thing, not the setting. The codes are those
of the EKS and EC2 API references and of EKS's list of node group health issues.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

AGAIN = "pulumi up again: it goes on where this one ended"
INTERRUPTED = 'docs/operations.md ("An interrupted pulumi up")'


@dataclass(frozen=True)
class Refusal:
    """Words of AWS, and what they mean.

    Attributes:
        pattern: a regular expression that is found in the words; its named groups may stand in the others.
        cause: what happened.
        remedy: what to do.
    """

    pattern: str
    cause: str
    remedy: str


# The first one that is found counts: a narrow one comes before a wide one.
REFUSALS = (
    Refusal(
        r"ExpiredToken|RequestExpired|token (?:included in the request )?(?:is|has) expired",
        "the AWS credentials expired while pulumi ran",
        f"get new ones (aws sso login, or the job's role anew), then {AGAIN}, and nothing is lost",
    ),
    Refusal(
        r"ServiceLinkedRoleCreationNotPermitted|service[- ]linked role|CreateServiceLinkedRole",
        "the account has no service-linked role yet that EKS, EC2 Spot or Auto Scaling needs, and these "
        "credentials may not make one",
        "have an administrator run aws iam create-service-linked-role --aws-service-name SERVICE (eks, "
        "eks-nodegroup, spot or autoscaling, each with .amazonaws.com), then pulumi up",
    ),
    Refusal(
        r"not authorized to perform: (?P<action>[\w-]+:\w+)",
        "these AWS credentials lack the right {action}",
        "allow {action} (a permissions boundary or an organization's policy may deny it, too), then "
        "pulumi up",
    ),
    Refusal(
        r"AccessDenied|UnauthorizedOperation",
        "these AWS credentials lack a right, which AWS does not name",
        "aws sts decode-authorization-message, or CloudTrail's last AccessDenied, names it; allow it, then "
        "pulumi up",
    ),
    Refusal(
        r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded|AsgInstanceLaunchFailures.*vCPU limit",
        "the account's limit of vCPUs for this kind of instance is reached",
        "have the EC2 quota raised in Service Quotas, or set soci:nodeCount lower or a smaller "
        "soci:instanceTypes, then pulumi up",
    ),
    Refusal(
        r"InsufficientInstanceCapacity|InsufficientCapacity|UnfulfillableCapacity|SpotMaxPriceTooLow",
        "AWS has no such instance to give in these zones at the moment",
        "name more types in soci:instanceTypes, or other zones in soci:nodeSubnetIds, or try later: "
        "pulumi up",
    ),
    Refusal(
        r"UnsupportedAvailabilityZoneException",
        "EKS makes no control plane in one of the subnets' zones",
        "leave that zone's subnet out of soci:subnetIds, then pulumi up",
    ),
    Refusal(
        r"instance type .*is not supported in your requested Availability Zone|InstanceTypeNotSupported",
        "one of the subnets' zones does not have this instance type",
        "leave that zone's subnet out of soci:nodeSubnetIds, or set another soci:instanceTypes, then "
        "pulumi up",
    ),
    Refusal(
        r"ResourceInUseException.*[Cc]luster already exists with name: (?P<name>[\w-]+)",
        "there is an EKS cluster {name} already, which this stack's state does not have",
        "when an interrupted pulumi up made it, take it in as " + INTERRUPTED + " says; else set another "
        "soci:clusterName",
    ),
    Refusal(
        r"ResourceInUseException.*[Nn]ode[Gg]roup already exists with name",
        "the cluster has a node group of this name already, which this stack's state does not have",
        "take it in as " + INTERRUPTED + " says, or delete it with aws eks delete-nodegroup, then pulumi up",
    ),
    Refusal(
        r"ResourceInUseException.*has nodegroups attached",
        "the cluster has a node group that this stack's state does not have",
        "find it with aws eks list-nodegroups, delete it with aws eks delete-nodegroup, then the same again",
    ),
    Refusal(
        r"[Cc]luster .*is not in ACTIVE status|[Cc]luster status is (?:CREATING|UPDATING)",
        "AWS is still at work on the cluster",
        "wait for it with aws eks wait cluster-active --name NAME, then pulumi up",
    ),
    Refusal(
        r"ResourceNotFoundException.*[Nn]o cluster found for name: (?P<name>[\w-]+)",
        "the EKS cluster {name} is gone: somebody deleted it beside this stack",
        "pulumi up --refresh makes a new one, pulumi destroy ends the stack",
    ),
    Refusal(
        r"LaunchTemplate\w*\.NotFound|Ec2LaunchTemplateNotFound|Ec2LaunchTemplateVersionMismatch",
        "the node group's launch template was deleted or changed beside this stack",
        "pulumi up --refresh",
    ),
    Refusal(
        r"InvalidAMIID|AmiIdNotFound|Requested AMI for this version",
        "AWS has no such AMI in this region for this Kubernetes version",
        "leave soci:eksNodeGroup.amiId out, or give one of this region, then pulumi up",
    ),
    Refusal(
        r"InsufficientFreeAddresses",
        "a subnet has too few free addresses",
        "set larger ones in soci:nodeSubnetIds, then pulumi up",
    ),
    Refusal(
        r"(?:ResourceLimitExceeded|LimitExceeded)\w*:",
        "a limit of the AWS account is reached",
        "have it raised in Service Quotas, or delete what is not needed, then pulumi up",
    ),
    Refusal(
        r"PodEvictionFailure",
        "a disruption budget kept the pods of an old node",
        "kubectl get poddisruptionbudgets --all-namespaces shows which one; loosen it, then pulumi up",
    ),
    Refusal(
        r"NodeCreationFailure",
        "instances started, and did not join the cluster",
        "check that the nodes' subnets have a way to the cluster's endpoint and to ECR (NAT or VPC "
        "endpoints), then pulumi up",
    ),
    Refusal(
        r"Throttl|RequestLimitExceeded|Rate exceeded",
        "AWS took no more requests for a while",
        AGAIN,
    ),
)


def explain(words: str) -> str:
    """Cause and remedy of a refusal of AWS in one sentence; empty when its words are not known."""
    for refusal in REFUSALS:
        if found := re.search(refusal.pattern, words, re.DOTALL):
            return f"{refusal.cause}. Remedy: {refusal.remedy}".format(**found.groupdict())
    return ""


def explain_all(errors: Sequence[str]) -> str:
    """The same of the errors of an operation, the newest first: of the first that is known."""
    return next((told for told in map(explain, errors) if told), "")


class Explainer:
    """Says once what each refusal of AWS means, for all AWS resources of a component."""

    def __init__(self, name: str, component: pulumi.ComponentResource) -> None:
        """
        Args:
            name: the component's.
            component: the resource under which it is said.
        """
        self._component = component
        self._told: set[str] = set()
        self._hook = pulumi.ErrorHook(f"{name}-aws-refusal", self._explain)

    def transform(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """The transform of the component's children, those of pulumi-eks among them: each resource of AWS
        gets the hook."""
        if not args.type_.startswith("aws:"):
            return None
        hooks = args.opts.hooks or pulumi.ResourceHookBinding()
        hooks.on_error = [*(hooks.on_error or []), self._hook]
        args.opts.hooks = hooks
        return pulumi.ResourceTransformResult(args.props, args.opts)

    def _explain(self, args: pulumi.ErrorHookArgs) -> bool:
        told = explain_all(args.errors)
        if told and told not in self._told:
            self._told.add(told)
            pulumi.log.error(f"{args.name}: {told}", self._component)
        return False  # no retry: the provider has its own, and the next `pulumi up` goes on
