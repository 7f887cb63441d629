"""What AWS is asked before anything is made, with the functions of the AWS provider, for the guards.

Nothing is ever changed. A question that AWS does not answer (no right to ask, no credentials, a provider that
does not know the function) is no error: what it would have told is not known.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pulumi

from . import eks_checks, node_tuning, problems
from .guards import Answers
from .problems import Finding, SociConfigError
from .settings import Settings

Answer = Mapping[str, Any]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Answer | None]]

# The filters for the subnets that AWS made in the default VPC; no other VPC has such ones (the VPC guide,
# "Work with your default VPC and default subnets"). Who adds one there may not mean it for this cluster.
DEFAULT_SUBNETS = ({"name": "default-for-az", "values": ["true"]},)

# The provider's words for a question that was understood and has no answer. All else says nothing about AWS.
_NOTHING_THERE = re.compile("no matching|returned no results")


def checked(
    component: pulumi.ComponentResource, settings: Settings, groups: Mapping[str, Settings]
) -> pulumi.Output[Answers]:
    """Warn of what is slow or dear, refuse what AWS says cannot work, say how nodes will be set, and hand on
    what AWS said.

    What depends on this output is registered after AWS has answered, and not at all after a refusal. The
    refusals that need no answer are those of configuration.py.

    Raises, in the output:
        SociConfigError: every refusal, a line each.
    """
    _warn(eks_checks.warnings(settings, groups), settings, component)

    async def ask_aws() -> Answers:
        answers = await gather(settings, groups, asker(component))
        _warn(eks_checks.warnings_by_aws(settings, groups, answers), settings, component)
        if found := eks_checks.refusals_by_aws(settings, groups, answers):
            raise SociConfigError("\n".join(problems.of_finding(settings, one) for one in found))
        for line in node_tuning.foreseen(groups, answers):
            pulumi.log.info(line, component)
        return answers

    return pulumi.Output.from_input(ask_aws())


def _warn(found: Iterable[Finding], settings: Settings, component: pulumi.ComponentResource) -> None:
    for one in found:
        pulumi.log.warn(problems.of_finding(settings, one), component)


def asker(component: pulumi.ComponentResource) -> Ask:
    """How the component's AWS provider is asked: a function's token and arguments -> its answer, empty when
    there is nothing of the kind, None when it is not known."""
    # Without the version, the engine would start another AWS provider than that of the resources.
    options = pulumi.InvokeOptions(parent=component, version=version("pulumi-aws"))

    async def ask(token: str, arguments: Mapping[str, Any]) -> Answer | None:
        try:
            return await pulumi.runtime.invoke_async(token, dict(arguments), options) or None
        except Exception as error:  # noqa: BLE001 (the SDK raises no other)
            pulumi.log.debug(f"{token} was not answered: {error}", component)
            return {} if _NOTHING_THERE.search(str(error)) else None

    return ask


async def gather(settings: Settings, groups: Mapping[str, Settings], ask: Ask) -> Answers:
    """Ask everything that the guards want to know of these settings.

    Every round of questions delays the plan by an answer of AWS. There is one, a second one for the subnets
    of the default VPC, and one more where no way leads out of a subnet.
    """
    types = dict.fromkeys(one for group in groups.values() for one in group.instance_types)
    network, machines, zones, versions = await asyncio.gather(
        _network(settings, groups, ask),
        _each(types, lambda one: ask("aws:ec2/getInstanceType:getInstanceType", {"instanceType": one})),
        _zones(types, ask),
        ask("aws:eks/getClusterVersions:getClusterVersions", {"includeAll": True}),
    )
    return Answers(
        **network,
        instance_types=machines,
        zones=zones,
        versions={
            row["clusterVersion"]: row.get("versionStatus")
            for row in (versions or {}).get("clusterVersions", [])
        },
    )


async def _network(settings: Settings, groups: Mapping[str, Settings], ask: Ask) -> dict[str, Any]:
    vpc, default_vpc, default_subnets = settings.vpc_id, None, None
    if not vpc:
        found, inside = await asyncio.gather(
            ask("aws:ec2/getVpc:getVpc", {"default": True}),
            ask("aws:ec2/getSubnets:getSubnets", {"filters": list(DEFAULT_SUBNETS)}),
        )
        if not found:
            return {} if found is None else {"default_vpc": ""}
        vpc = default_vpc = found["id"]
        default_subnets = None if inside is None else inside.get("ids", [])
    of_groups = (name for group in groups.values() for name in group.node_subnet_ids)
    of_cluster = (*settings.subnet_ids, *settings.public_subnet_ids, *settings.private_subnet_ids)
    names = dict.fromkeys([*of_cluster, *(default_subnets or ()), *of_groups])
    subnets, routes = await asyncio.gather(
        _each(names, lambda name: ask("aws:ec2/getSubnet:getSubnet", {"id": name})),
        _routes(names, vpc, ask),
    )
    is_isolated = any(eks_checks.way_out(of_subnet) == "none" for of_subnet in routes.values())
    endpoints = await _endpoints(vpc, subnets.values(), ask) if is_isolated else {}
    return {
        "default_vpc": default_vpc,
        "default_subnets": default_subnets,
        "subnets": subnets,
        "routes": routes,
        "endpoints": endpoints,
    }


async def _each(names: Iterable[str], ask: Callable[[str], Awaitable[Any]]) -> dict[str, Any]:
    """What is asked of each name, without what is not known."""
    wanted = list(names)
    answers = await asyncio.gather(*map(ask, wanted))
    return {name: answer for name, answer in zip(wanted, answers, strict=True) if answer is not None}


async def _zones(types: Collection[str], ask: Ask) -> dict[str, list[str]]:
    """The ids of the zones in which each instance type is offered, where they are known."""
    question = {
        "locationType": "availability-zone-id",
        "filters": [{"name": "instance-type", "values": list(types)}],
    }
    answer = await ask("aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings", question)
    if answer is None:
        return {}
    # Two lists, of which those at the same place belong together.
    offered = list(zip(answer.get("instanceTypes") or (), answer.get("locations") or (), strict=True))
    return {one: [zone for name, zone in offered if name == one] for one in types}


async def _routes(subnets: Collection[str], vpc: str, ask: Ask) -> dict[str, Sequence[Answer]]:
    """The routes of each subnet, where they are known: those of its own table, else of the VPC's main one."""
    if not subnets:
        return {}
    token = "aws:ec2/getRouteTable:getRouteTable"
    of_main = {"vpcId": vpc, "filters": [{"name": "association.main", "values": ["true"]}]}
    # The main one at the same time: in most VPCs some subnet has it.
    own, main = await asyncio.gather(
        _each(subnets, lambda name: ask(token, {"subnetId": name})), ask(token, of_main)
    )
    tables = {name: table or main or {} for name, table in own.items()}
    return {name: table["routes"] for name, table in tables.items() if "routes" in table}


async def _endpoints(vpc: str, subnets: Collection[Answer], ask: Ask) -> dict[str, bool]:
    """Whether the VPC has each endpoint that nodes need, where it is known."""
    regions = {subnet["region"] for subnet in subnets if subnet.get("region")}
    if not regions:
        return {}
    identity, found = await asyncio.gather(
        ask("aws:index/getCallerIdentity:getCallerIdentity", {}),
        _each(eks_checks.NEEDED_ENDPOINTS, lambda service: _has_endpoint(service, vpc, min(regions), ask)),
    )
    # Of subnets that another account shares, AWS shows the endpoints to their owner only.
    account = (identity or {}).get("accountId")
    is_own = bool(account) and {subnet.get("ownerId") for subnet in subnets if subnet} == {account}
    return found if is_own else {}


async def _has_endpoint(service: str, vpc: str, region: str, ask: Ask) -> bool | None:
    if region.startswith("cn-"):
        return None  # some services have other names there
    name = f"com.amazonaws.{region}.{service}"
    answer = await ask("aws:ec2/getVpcEndpoint:getVpcEndpoint", {"vpcId": vpc, "serviceName": name})
    return None if answer is None else bool(answer)
