"""Where SociCluster's EKS cluster is: its VPC and subnets, the user's or those of the default VPC."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pulumi
import pulumi_aws as aws

from .aws_questions import DEFAULT_SUBNETS
from .eks_checks import REFUSED_ZONES, takes_control_plane
from .guards import Answers
from .settings import Settings

# The subnets of AWS resources that pulumi-eks makes.
_SUBNETS = {"aws:eks/cluster:Cluster": "vpcConfig.subnetIds", "aws:eks/nodeGroup:NodeGroup": "subnetIds"}


def arguments(
    chosen: Settings, checked: pulumi.Output[Answers], component: pulumi.ComponentResource
) -> dict[str, Any]:
    """The VPC and the subnets, as arguments of eks.Cluster. They are known when AWS was `checked`, so that
    nothing is made of what was refused."""
    if not chosen.vpc_id:
        return _default_vpc(checked, component)
    subnets = {
        "subnet_ids": list(chosen.subnet_ids),
        "public_subnet_ids": list(chosen.public_subnet_ids),
        "private_subnet_ids": list(chosen.private_subnet_ids),
    }
    vpc = checked.apply(lambda _: chosen.vpc_id)
    return {"vpc_id": vpc, **{name: ids for name, ids in subnets.items() if ids}}


def node_subnets(group: Settings) -> list[str] | None:
    """The subnets of a group's nodes; None for all those of the cluster."""
    return list(group.node_subnet_ids or group.private_subnet_ids or group.public_subnet_ids) or None


def keep_found(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """A transform for subnets that were looked up: what exists keeps those that it has."""
    if args.type_ not in _SUBNETS:
        return None
    return pulumi.ResourceTransformResult(args.props, keeping_found(args))


def keeping_found(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceOptions:
    """The options of a resource with subnets that were looked up, with which it keeps those that it has.
    Other ones replace a node group, and one more in the default VPC is no reason for that."""
    kept = [_SUBNETS[args.type_]] if args.type_ in _SUBNETS else []
    return pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(ignore_changes=kept))


def _default_vpc(checked: pulumi.Output[Answers], component: pulumi.ComponentResource) -> dict[str, Any]:
    """The account's default VPC and its subnets in zones that EKS takes: as AWS said for the checks, else
    asked here, where an answer that fails is an error."""
    vpc: pulumi.Output[str] = checked.apply(
        lambda answers: answers.default_vpc or _ask("getVpc", {"default": True}, component)["id"]
    )
    subnets = checked.apply(lambda answers: _known_subnets(answers) or _asked_subnets(component))
    return {"vpc_id": vpc, "subnet_ids": subnets}


def _known_subnets(answers: Answers) -> list[str]:
    """The default VPC's subnets in zones that EKS takes; none unless the zone of each is known."""
    found = {
        name: answers.subnets.get(name, {}).get("availabilityZoneId")
        for name in answers.default_subnets or ()
    }
    return [name for name, zone in found.items() if takes_control_plane(zone)] if all(found.values()) else []


def _asked_subnets(component: pulumi.ComponentResource) -> pulumi.Output[list[str]]:
    # Neither a local zone, which only an account that asked for it has.
    zones = aws.get_availability_zones_output(
        filters=[{"name": "zone-type", "values": ["availability-zone"]}],
        opts=pulumi.InvokeOutputOptions(parent=component),
    ).zone_ids.apply(lambda ids: [zone for zone in ids if zone not in REFUSED_ZONES])
    filters = [*DEFAULT_SUBNETS, {"name": "availability-zone-id", "values": zones}]
    return _ask("getSubnets", {"filters": filters}, component)["ids"]


def _ask(function: str, about: Mapping[str, Any], component: pulumi.ComponentResource) -> pulumi.Output[Any]:
    """The answer of a function of aws.ec2, which is not imported: that takes as long as all the rest."""
    return pulumi.runtime.invoke_output(
        f"aws:ec2/{function}:{function}",
        about,
        pulumi.InvokeOutputOptions(parent=component, version=version("pulumi-aws")),
    )
