"""What the aws stand-in takes for AWS: a moto server, and beside it a file that a test edits.

AWS_ENDPOINT_URL    the moto server; without it the stand-in refuses to do anything
SOCI_LAB_AWS        a JSON file, read anew at each use; every key is optional:

    addons            {add-on: {"default": build, "mostRecent": build}}: the builds that AWS has
    addonSeconds      how long an add-on waits for a node that takes its pods (30; AWS: 20 minutes)
    amis              {SSM parameter: AMI}: the newest AMIs
    clusterSeconds    how long EKS makes a cluster (0; AWS: 10 minutes)
    clusterVersions   {Kubernetes release: its status}: those that EKS carries (1.35 and 1.36)
    drainSeconds      how long nodes that go are drained (0.5; AWS: up to 15 minutes)
    endSeconds        how long what was in a cluster may take to go with it (30)
    expired           true: the credentials have expired
    forbidden         patterns of functions that may not be called: ["aws:ec2/*", "aws:eks/getAddonVersion:*"]
    groupSeconds      how long EKS makes a node group (0; AWS: 3 minutes)
    nodeSeconds       how long new nodes may take until they are ready, when old ones wait for them (30)
    refusals          {pattern of resource types: AWS's words}: what is refused to be made, changed, deleted
    partition         "aws", "aws-cn", ...; default: that of the region
"""

import fnmatch
import functools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import boto3

DEFAULT_REGION = "eu-west-1"
LOOK_SECONDS = 0.1
DNS_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}
_region = {"name": ""}
_clients = threading.Lock()


class DeniedError(Exception):
    """The caller may not do this."""


class RefusedError(Exception):
    """AWS refuses the request, in about these words."""


def use_region(name: str | None) -> None:
    """Take the region of the provider's configuration; None means that of the environment."""
    _region["name"] = name or ""


def region() -> str:
    """Return the region in which everything happens."""
    return _region["name"] or os.environ.get("AWS_REGION") or DEFAULT_REGION


def client(service: str) -> Any:
    """Return the moto server's client of an AWS service."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        raise RuntimeError(
            "the aws stand-in never talks to AWS: set AWS_ENDPOINT_URL to a moto server, or install the true "
            "plugin (pulumi plugin install resource aws)"
        )
    with _clients:
        return _client(service, endpoint, region())


@functools.cache
def _client(service: str, endpoint: str, region_name: str) -> Any:
    """Make a client once, since each costs 0.2 s, and one at a time: boto's session is not made for more."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region_name,
        aws_access_key_id="stand-in",
        aws_secret_access_key="stand-in",
    )


def told(key: str, default: Any) -> Any:
    """Return what the test's file says at the moment, the default where it says nothing."""
    path = os.environ.get("SOCI_LAB_AWS")
    if not path or not Path(path).exists():
        return default
    return json.loads(Path(path).read_text() or "{}").get(key, default)


def partition() -> str:
    """Return the partition, which stands in every ARN."""
    prefixes = {"us-gov-": "aws-us-gov", "cn-": "aws-cn"}
    usual = next((name for prefix, name in prefixes.items() if region().startswith(prefix)), "aws")
    return told("partition", usual)


def dns_suffix() -> str:
    """Return the domain of the partition's services."""
    return DNS_SUFFIXES.get(partition(), "amazonaws.com")


def addon_build(addon: str, kubernetes_version: str, most_recent: bool) -> str:
    """Return the build of an EKS add-on for a Kubernetes release: EKS's default, or the most recent."""
    minor = kubernetes_version.partition(".")[2]
    start = {"kube-proxy": f"v{kubernetes_version}.0", "coredns": f"v1.13.{minor}"}.get(
        addon, f"v1.21.{minor}"
    )
    usual = {"default": f"{start}-eksbuild.1", "mostRecent": f"{start}-eksbuild.2"}
    return {**usual, **told("addons", {}).get(addon, {})}["mostRecent" if most_recent else "default"]


def check_allowed(token: str) -> None:
    """Raise DeniedError in AWS's way when the test's file forbids this function, RefusedError when the
    credentials expired."""
    check_credentials(f"invoking {token}")
    if any(fnmatch.fnmatchcase(token, pattern) for pattern in told("forbidden", [])):
        service, _, function = token.removeprefix("aws:").partition("/")
        action = f"{service}:{function.partition(':')[0].replace('get', 'Describe', 1)}"
        raise DeniedError(
            f"invoking {token}: api error AccessDenied: User: arn:{partition()}:iam::123456789012:user/me "
            f"is not authorized to perform: {action}"
        )


def check_credentials(doing: str) -> None:
    """Raise RefusedError in AWS's way when the test's file says that the credentials have expired."""
    if told("expired", False):
        raise RefusedError(
            f"{doing}: operation error, https response error StatusCode: 403, api error "
            "ExpiredTokenException: The security token included in the request is expired"
        )


def check_accepted(token: str, doing: str) -> None:
    """Raise RefusedError when the test's file has AWS refuse this type, or the credentials expired."""
    check_credentials(f"{doing} {token}")
    for pattern, words in told("refusals", {}).items():
        if fnmatch.fnmatchcase(token, pattern):
            raise RefusedError(f"{doing} {token}: {words}")


def await_made(setting: str, doing: str) -> None:
    """Wait as long as AWS makes something, asking now and then whether it is there.

    Args:
        setting: the key of the test's file that has the seconds.
        doing: what is waited for, for the error.

    Raises:
        RefusedError: the credentials expired meanwhile. AWS goes on.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < told(setting, 0):
        time.sleep(LOOK_SECONDS)
        check_credentials(doing)
