"""The functions of the aws stand-in: answered by moto where it can, else by the file of the test (aws_world).

Names and shapes are those of pulumi-aws' schema; of each answer, what a program of this project may read.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from aws_resources import Cluster
from aws_world import addon_build, check_allowed, client, dns_suffix, partition, region, told
from botocore.exceptions import ClientError

Inputs = dict[str, Any]
Answer = dict[str, Any]


class NoResultError(LookupError):
    """AWS has none, or several, of what the function must find one of."""


def call(token: str, inputs: Inputs) -> Answer:
    """Return the answer of a function.

    Raises DeniedError when the test's file forbids it, NoResultError when AWS has no answer, and
    NotImplementedError when the stand-in does not know the function.
    """
    if token not in FUNCTIONS:
        raise NotImplementedError(f"the aws stand-in has no function {token}; it has {', '.join(FUNCTIONS)}")
    check_allowed(token)
    try:
        return FUNCTIONS[token](inputs)
    except (ClientError, NoResultError) as error:
        # The plugin's own words for what AWS does not find by its id.
        is_absent = isinstance(error, ClientError) and ".NotFound" in str(error)
        said = f"no matching {token.rpartition(':')[2].removeprefix('get')} found" if is_absent else error
        raise NoResultError(f"invoking {token}: {said}") from error


def get_partition(inputs: Inputs) -> Answer:
    suffix = dns_suffix()
    reverse = ".".join(reversed(suffix.split(".")))
    return {"id": partition(), "partition": partition(), "dnsSuffix": suffix, "reverseDnsPrefix": reverse}


def get_region(inputs: Inputs) -> Answer:
    name = inputs.get("region") or inputs.get("name") or region()
    return {"id": name, "name": name, "region": name, "description": name}


def get_caller_identity(inputs: Inputs) -> Answer:
    found = client("sts").get_caller_identity()
    return {
        "id": found["Account"],
        "accountId": found["Account"],
        "arn": found["Arn"],
        "userId": found["UserId"],
    }


def get_availability_zones(inputs: Inputs) -> Answer:
    zones = client("ec2").describe_availability_zones(**filters(inputs))["AvailabilityZones"]
    return {
        "id": region(),
        "names": [zone["ZoneName"] for zone in zones],
        "zoneIds": [zone["ZoneId"] for zone in zones],
    }


def get_vpc(inputs: Inputs) -> Answer:
    wanted = dict(inputs)
    if "default" in wanted:
        extra = {"name": "is-default", "values": [str(wanted["default"]).lower()]}
        wanted["filters"] = [*(wanted.get("filters") or []), extra]
    chosen = {"VpcIds": [wanted["id"]]} if wanted.get("id") else {}
    vpc = only(client("ec2").describe_vpcs(**chosen, **filters(wanted))["Vpcs"], "EC2 VPC")
    return {
        "id": vpc["VpcId"],
        "cidrBlock": vpc["CidrBlock"],
        "default": vpc.get("IsDefault", False),
        "state": vpc["State"],
        "tags": tags(vpc),
    }


def get_subnets(inputs: Inputs) -> Answer:
    found = client("ec2").describe_subnets(**filters(inputs))["Subnets"]
    return {"id": region(), "ids": [subnet["SubnetId"] for subnet in found]}


def get_subnet(inputs: Inputs) -> Answer:
    chosen = {"SubnetIds": [inputs["id"]]} if inputs.get("id") else {}
    subnet = only(client("ec2").describe_subnets(**chosen, **filters(inputs))["Subnets"], "EC2 Subnet")
    return {
        "id": subnet["SubnetId"],
        "availabilityZone": subnet["AvailabilityZone"],
        "availabilityZoneId": subnet["AvailabilityZoneId"],
        "availableIpAddressCount": subnet["AvailableIpAddressCount"],
        "cidrBlock": subnet["CidrBlock"],
        "defaultForAz": subnet["DefaultForAz"],
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
        "ownerId": subnet["OwnerId"],
        "region": region(),
        "state": subnet["State"],
        "tags": tags(subnet),
        "vpcId": subnet["VpcId"],
    }


def get_route_table(inputs: Inputs) -> Answer:
    named = {"subnetId": "association.subnet-id", "vpcId": "vpc-id", "gatewayId": "association.gateway-id"}
    extra = [{"name": name, "values": [inputs[key]]} for key, name in named.items() if inputs.get(key)]
    chosen = {"RouteTableIds": [inputs["routeTableId"]]} if inputs.get("routeTableId") else {}
    wanted = filters({**inputs, "filters": [*(inputs.get("filters") or []), *extra]})
    table = only(client("ec2").describe_route_tables(**chosen, **wanted)["RouteTables"], "EC2 Route Table")
    targets = {
        "cidrBlock": "DestinationCidrBlock",
        "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
        "gatewayId": "GatewayId",
        "natGatewayId": "NatGatewayId",
        "transitGatewayId": "TransitGatewayId",
        "vpcPeeringConnectionId": "VpcPeeringConnectionId",
    }
    routes = [{key: route.get(name, "") for key, name in targets.items()} for route in table["Routes"]]
    associations = [
        {"main": item["Main"], "subnetId": item.get("SubnetId", "")} for item in table["Associations"]
    ]
    return {
        "id": table["RouteTableId"],
        "routeTableId": table["RouteTableId"],
        "vpcId": table["VpcId"],
        "associations": associations,
        "routes": routes,
        "tags": tags(table),
    }


def get_route_tables(inputs: Inputs) -> Answer:
    extra = [{"name": "vpc-id", "values": [inputs["vpcId"]]}] if inputs.get("vpcId") else []
    wanted = filters({**inputs, "filters": [*(inputs.get("filters") or []), *extra]})
    found = client("ec2").describe_route_tables(**wanted)["RouteTables"]
    return {"id": region(), "ids": [table["RouteTableId"] for table in found]}


def get_vpc_endpoint(inputs: Inputs) -> Answer:
    named = {"serviceName": "service-name", "vpcId": "vpc-id", "state": "vpc-endpoint-state"}
    extra = [{"name": name, "values": [inputs[key]]} for key, name in named.items() if inputs.get(key)]
    chosen = {"VpcEndpointIds": [inputs["id"]]} if inputs.get("id") else {}
    wanted = filters({**inputs, "filters": [*(inputs.get("filters") or []), *extra]})
    found = only(client("ec2").describe_vpc_endpoints(**chosen, **wanted)["VpcEndpoints"], "EC2 VPC Endpoint")
    return {
        "id": found["VpcEndpointId"],
        "serviceName": found["ServiceName"],
        "state": found["State"],
        "subnetIds": found.get("SubnetIds") or [],
        "vpcEndpointType": found.get("VpcEndpointType", "Gateway"),
        "vpcId": found["VpcId"],
    }


def get_instance_type(inputs: Inputs) -> Answer:
    name = inputs["instanceType"]
    found = client("ec2").describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    item = only(found, "EC2 Instance Type")
    storage, disks = item.get("InstanceStorageInfo") or {}, []
    for disk in storage.get("Disks", []):
        disks.append({"count": disk["Count"], "size": disk["SizeInGB"], "type": disk["Type"]})
    gpus = [
        {
            "count": gpu["Count"],
            "manufacturer": gpu["Manufacturer"],
            "memorySize": gpu["MemoryInfo"]["SizeInMiB"],
            "name": gpu["Name"],
        }
        for gpu in (item.get("GpuInfo") or {}).get("Gpus", [])
    ]
    neurons = (item.get("NeuronInfo") or {}).get("NeuronDevices", [])
    limits = item["EbsInfo"].get("EbsOptimizedInfo") or {}
    network = item["NetworkInfo"]
    return {
        "id": name,
        "instanceType": name,
        "bareMetal": item["BareMetal"],
        "currentGeneration": item["CurrentGeneration"],
        "defaultVcpus": item["VCpuInfo"]["DefaultVCpus"],
        "ebsPerformanceBaselineIops": limits.get("BaselineIops", 0),
        "ebsPerformanceBaselineThroughput": limits.get("BaselineThroughputInMBps", 0),
        "ebsPerformanceMaximumIops": limits.get("MaximumIops", 0),
        "ebsPerformanceMaximumThroughput": limits.get("MaximumThroughputInMBps", 0),
        "efaSupported": network.get("EfaSupported", False),
        "gpuses": gpus,
        "instanceDisks": disks,
        "instanceStorageSupported": item["InstanceStorageSupported"],
        "memorySize": item["MemoryInfo"]["SizeInMiB"],
        "networkPerformance": network["NetworkPerformance"],
        "neuronDevices": [{"count": device["Count"], "name": device["Name"]} for device in neurons],
        "supportedArchitectures": item["ProcessorInfo"]["SupportedArchitectures"],
        "totalInstanceStorage": storage.get("TotalSizeInGB", 0),
    }


def get_instance_types(inputs: Inputs) -> Answer:
    pages = client("ec2").get_paginator("describe_instance_types").paginate(**filters(inputs))
    return {
        "id": region(),
        "instanceTypes": [item["InstanceType"] for page in pages for item in page["InstanceTypes"]],
    }


def get_instance_type_offerings(inputs: Inputs) -> Answer:
    where = inputs.get("locationType") or "region"
    found = client("ec2").describe_instance_type_offerings(LocationType=where, **filters(inputs))
    offerings = found["InstanceTypeOfferings"]
    return {
        "id": region(),
        "instanceTypes": [item["InstanceType"] for item in offerings],
        "locationTypes": [where for _ in offerings],
        "locations": [item["Location"] for item in offerings],
    }


def get_addon_version(inputs: Inputs) -> Answer:
    most_recent = bool(inputs.get("mostRecent"))
    return {
        "id": inputs["addonName"],
        "addonName": inputs["addonName"],
        "kubernetesVersion": inputs["kubernetesVersion"],
        "mostRecent": most_recent,
        "version": addon_build(inputs["addonName"], inputs["kubernetesVersion"], most_recent),
    }


def get_cluster(inputs: Inputs) -> Answer:
    cluster = client("eks").describe_cluster(name=inputs["name"])["cluster"]
    network = {"subnetIds": cluster["resourcesVpcConfig"]["subnetIds"]}
    found = Cluster().read(inputs["name"], {"name": inputs["name"], "vpcConfig": network})
    return {**found, "id": inputs["name"], "certificateAuthorities": [found["certificateAuthority"]]}


def get_cluster_versions(inputs: Inputs) -> Answer:
    carried = told("clusterVersions", {"1.35": "STANDARD_SUPPORT", "1.36": "STANDARD_SUPPORT"})
    rows = [{"clusterVersion": name, "versionStatus": status} for name, status in carried.items()]
    return {"id": region(), "clusterVersions": rows}


def get_clusters(inputs: Inputs) -> Answer:
    return {"id": region(), "names": client("eks").list_clusters()["clusters"]}


def get_parameter(inputs: Inputs) -> Answer:
    name = inputs["name"]
    image = f"ami-{hashlib.sha256(name.encode()).hexdigest()[:17]}"
    value = told("amis", {}).get(name, image)
    return {"id": name, "name": name, "type": "String", "value": value, "insecureValue": value, "version": 1}


FUNCTIONS: dict[str, Callable[[Inputs], Answer]] = {
    "aws:ec2/getInstanceType:getInstanceType": get_instance_type,
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": get_instance_type_offerings,
    "aws:ec2/getInstanceTypes:getInstanceTypes": get_instance_types,
    "aws:ec2/getRouteTable:getRouteTable": get_route_table,
    "aws:ec2/getRouteTables:getRouteTables": get_route_tables,
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ec2/getSubnets:getSubnets": get_subnets,
    "aws:ec2/getVpc:getVpc": get_vpc,
    "aws:ec2/getVpcEndpoint:getVpcEndpoint": get_vpc_endpoint,
    "aws:eks/getAddonVersion:getAddonVersion": get_addon_version,
    "aws:eks/getCluster:getCluster": get_cluster,
    "aws:eks/getClusterVersions:getClusterVersions": get_cluster_versions,
    "aws:eks/getClusters:getClusters": get_clusters,
    "aws:index/getAvailabilityZones:getAvailabilityZones": get_availability_zones,
    "aws:index/getCallerIdentity:getCallerIdentity": get_caller_identity,
    "aws:index/getPartition:getPartition": get_partition,
    "aws:index/getRegion:getRegion": get_region,
    "aws:ssm/getParameter:getParameter": get_parameter,
}


def filters(inputs: Inputs) -> dict[str, Any]:
    """Return a function's filters and tags as EC2's API takes them."""
    chosen = [{"Name": item["name"], "Values": item["values"]} for item in inputs.get("filters") or []]
    chosen += [{"Name": f"tag:{key}", "Values": [value]} for key, value in (inputs.get("tags") or {}).items()]
    if inputs.get("state") and "serviceName" not in inputs:
        chosen.append({"Name": "state", "Values": [inputs["state"]]})
    return {"Filters": chosen} if chosen else {}


def only(found: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """Return the one that was found."""
    if len(found) == 1:
        return found[0]
    raise NoResultError(f"no matching {what} found" if not found else f"multiple {what}s matched")


def tags(resource: dict[str, Any]) -> dict[str, str]:
    """Return an EC2 resource's tags as a map."""
    return {item["Key"]: item["Value"] for item in resource.get("Tags") or []}
