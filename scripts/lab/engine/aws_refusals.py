"""What AWS refuses of what the aws stand-in is to make; read in AWS's documentation, never observed."""

from typing import Any

from aws_world import RefusedError, client

Properties = dict[str, Any]
# Zones, by ID, in which EKS makes no control plane (Amazon EKS user guide, "Subnet requirements").
REFUSED_ZONES = ("use1-az3", "usw1-az2", "cac1-az3")


def subnets_of(identifiers: list[str]) -> list[Properties]:
    """Return the subnets as EC2 describes them; raise ClientError when one does not exist."""
    return client("ec2").describe_subnets(SubnetIds=identifiers)["Subnets"]


def check_control_plane(subnets: list[Properties]) -> None:
    """Refuse subnets in which EKS makes no control plane."""
    for subnet in subnets:
        if subnet["AvailabilityZoneId"] in REFUSED_ZONES:
            raise RefusedError(
                "creating EKS Cluster: api error UnsupportedAvailabilityZoneException: Cannot create cluster "
                "because EKS does not support creating control plane instances in "
                f"{subnet['AvailabilityZone']}, the targeted availability zone"
            )
    if len({subnet["AvailabilityZone"] for subnet in subnets}) < 2:
        raise RefusedError(
            "creating EKS Cluster: api error InvalidParameterException: Subnets specified must be in at "
            "least two different AZs"
        )


def check_nodes(inputs: Properties) -> None:
    """Refuse a node group that EKS refuses at once."""
    if inputs.get("diskSize") and inputs.get("launchTemplate"):
        raise RefusedError(
            "creating EKS Node Group: api error InvalidParameterException: Disk size must be specified "
            "within the launch template."
        )
    types, ami = inputs.get("instanceTypes") or [], inputs.get("amiType") or "AL2023_x86_64_STANDARD"
    if ami == "CUSTOM" or not types:
        return
    found = client("ec2").describe_instance_types(InstanceTypes=types)["InstanceTypes"]
    architecture = "arm64" if "ARM" in ami else "x86_64"
    wrong = [
        item["InstanceType"]
        for item in found
        if architecture not in item["ProcessorInfo"]["SupportedArchitectures"]
    ]
    if wrong:
        raise RefusedError(
            f"creating EKS Node Group: api error InvalidParameterException: [{', '.join(wrong)}] is not a "
            f"valid instance type for requested amiType {ami}"
        )


def public_without_addresses(identifiers: list[str]) -> list[str]:
    """Return those of the subnets whose instances reach nothing: public, and without a public address."""
    return [
        subnet["SubnetId"]
        for subnet in subnets_of(identifiers)
        if is_public(subnet) and not subnet["MapPublicIpOnLaunch"]
    ]


def is_public(subnet: Properties) -> bool:
    """Say whether the subnet's way out is an internet gateway."""
    own = {"association.subnet-id": subnet["SubnetId"]}
    main = {"vpc-id": subnet["VpcId"], "association.main": "true"}
    tables = route_tables(own) or route_tables(main)
    return any(route.get("GatewayId", "").startswith("igw-") for table in tables for route in table["Routes"])


def route_tables(wanted: dict[str, str]) -> list[Properties]:
    """Return the route tables of which all this is so."""
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    return client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
