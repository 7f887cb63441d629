"""An AWS account for the stand-ins: a moto server, and an `aws` program that gives the API server's token."""

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import boto3
from background import Process, free_port

# What `aws eks get-token` prints; the tests' API server knows the token.
TOKEN = "stand-in-token"
CREDENTIAL = {
    "apiVersion": "client.authentication.k8s.io/v1beta1",
    "kind": "ExecCredential",
    "spec": {},
    "status": {"token": TOKEN},
}
# pulumi-eks asks for the version; with that of before 1.24.0 or 2.7.0 it refuses to begin.
AWS_CLI = f"""#!/bin/sh
case "$1" in
--version) echo aws-cli/2.31.0 Python/3.13.7 Linux/6.1 ;;
*) echo '{json.dumps(CREDENTIAL)}' ;;
esac
"""
# The regions whose default VPC has a way out, as every region's has on AWS and none in moto.
REGIONS = ("eu-west-1", "us-east-1")


@contextlib.contextmanager
def moto_account(directory: Path, environment: Mapping[str, str]) -> Generator[dict[str, str]]:
    """Start the account; yield the environment in which the stand-ins and `aws` use it.

    Args:
        directory: where its log, its `aws` and what a test tells the stand-ins (aws.json) are.
        environment: the environment of the CLI without it.

    Raises:
        TimeoutError: moto did not answer.
    """
    program = directory / "aws"
    program.write_text(AWS_CLI)
    program.chmod(0o755)
    port = free_port()
    moto = Process(
        directory / "moto.log",
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_answer(f"{url}/moto-api/", moto)
        for region in REGIONS:
            _open_default_vpc(client(url, "ec2", region))
        yield {
            **environment,
            "PATH": f"{directory}{os.pathsep}{environment['PATH']}",
            "AWS_ENDPOINT_URL": url,
            "SOCI_LAB_AWS": str(directory / "aws.json"),
        }
    finally:
        moto.stop()


def client(url: str, service: str, region: str) -> Any:
    """Return a client of a service of the account whose moto server is at that URL."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def _open_default_vpc(ec2: Any) -> None:
    """Give the default VPC the internet gateway that it has on AWS."""
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(
        RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )


def _await_answer(url: str, process: Process, patience_s: float = 60) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + patience_s
    while True:
        try:
            opener.open(url, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise TimeoutError(f"{url} does not answer: {process.words()}") from None
            time.sleep(0.1)
