"""A password of ECR without the AWS CLI: for a pod or a build, in which there is nothing but Python.

AWS's credentials are looked for where its SDKs look, in their order: the environment; a web identity, as a
service account's role on EKS (IRSA); the container endpoint, as Pod Identity on EKS, ECS and CodeBuild; the
instance's metadata (IMDSv2). What asks AWS is signed with Signature Version 4.

Sources: AWS SDKs and Tools Reference Guide (container credential provider, assume role with web identity,
IMDS credential provider); IAM User Guide (signature version 4); ECR API Reference (GetAuthorizationToken).
"""

import base64
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from .errors import SociIndexError

PUBLIC = "public.ecr.aws"
PUBLIC_REGION = "us-east-1"  # the only one that gives tokens of the public gallery
# What AWS's own hosts end in, and nothing else does: credentials of AWS go to such a host alone.
_DUAL_STACK = {"on.aws": "amazonaws.com", "on.amazonwebservices.com.cn": "amazonaws.com.cn"}
_DOMAINS = (
    *("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu"),
    *("c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov"),
    *_DUAL_STACK,
)
HOST = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\."
    rf"(?P<domain>{'|'.join(map(re.escape, _DOMAINS))})"
)
METADATA = "http://169.254.169.254"
ECS_ENDPOINT = "http://169.254.170.2"
TIMEOUT_SECONDS = 5
REMEDY = (
    "give the pod a role (soci:index.roleArn, or a Pod Identity association), or credentials by docker "
    "login, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
FARTHER_REMEDY = (
    "give the pod's service account a role (soci:index.roleArn, or a Pod Identity association); or its node "
    "httpPutResponseHopLimit: 2 (soci:metadataHopLimit 2), by which every pod there may do what the node may"
)
_ROLE_SESSION = "soci-index"
_NOT_AS_MEANT = (ValueError, LookupError, TypeError, AttributeError)  # of an answer that holds something else


@dataclass(frozen=True)
class Keys:
    """Credentials of AWS."""

    access: str
    secret: str
    session: str = ""


@dataclass(frozen=True)
class Request:
    """An HTTP request that is not sent yet."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


class RefusedError(OSError):
    """A request was answered with an error."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status} {said}")
        self.status = status


Send = Callable[[Request], bytes]


def password(host: str, send: Send | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """The password with which the user AWS reads and writes a registry of ECR; it lives for twelve hours.

    Args:
        host: the registry.
        send: sends a request and returns the answer; raises OSError.
        environment: of the process.

    Raises:
        SociIndexError: there are no credentials, or AWS refuses them.
    """
    ask = send or _send
    keys = find_keys(host, ask, environment)
    request = token_request(host, keys, dt.datetime.now(dt.UTC))
    try:
        answer = json.loads(ask(request))
        data = answer["authorizationData"]
        token = (data[0] if isinstance(data, list) else data)["authorizationToken"]
        return base64.b64decode(token).decode().partition(":")[2]
    except (OSError, http.client.HTTPException, *_NOT_AS_MEANT) as error:
        raise SociIndexError(f"ECR gives no token of {host} ({error})", REMEDY) from error


def is_given(environment: Mapping[str, str]) -> bool:
    """Whether a process was given credentials of AWS: without them only the instance could have some."""
    names = (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    return any(environment.get(name) for name in names)


def find_keys(host: str, send: Send, environment: Mapping[str, str]) -> Keys:
    """AWS's credentials; arguments and errors as for `password`."""
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        return Keys(
            environment["AWS_ACCESS_KEY_ID"].strip(),  # a Secret often ends with a line break
            environment["AWS_SECRET_ACCESS_KEY"].strip(),
            environment.get("AWS_SESSION_TOKEN", "").strip(),
        )
    if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environment.get("AWS_ROLE_ARN"):
        where, source = "the web identity of its service account", _of_web_identity
    elif environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or environment.get(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    ):
        where, source = "the container's endpoint", _of_container
    else:
        where, source = "the instance's metadata", _of_instance
    try:
        return source(host, send, environment)
    except (OSError, http.client.HTTPException, ET.ParseError, *_NOT_AS_MEANT) as error:
        cause = f"there are no credentials of AWS for {host}: {where} gives none ({error})"
        raise SociIndexError(cause, REMEDY) from error


def token_request(host: str, keys: Keys, now: dt.datetime) -> Request:
    """The signed request for a token of a registry.

    Raises:
        SociIndexError: it is no registry of ECR.
    """
    if host == PUBLIC:
        service, region, prefix = "ecr-public", PUBLIC_REGION, "SpencerFrontendService"
        endpoint = f"https://api.ecr-public.{region}.amazonaws.com/"
    elif found := HOST.fullmatch(host):
        service, region, prefix = "ecr", found["region"], "AmazonEC2ContainerRegistry_V20150921"
        begin = "ecr-fips" if found["fips"] else "api.ecr"
        endpoint = f"https://{begin}.{region}.{_domain(host)}/"
    else:
        raise SociIndexError(f"{host} is no registry of ECR", "docker login, for another one")
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": f"{prefix}.GetAuthorizationToken",
    }
    return signed(Request("POST", endpoint, headers, b"{}"), keys, service, region, now)


def signed(request: Request, keys: Keys, service: str, region: str, now: dt.datetime) -> Request:
    """A request with AWS's signature, version 4."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    url = urllib.parse.urlsplit(request.url)
    headers = {key.lower(): value for key, value in request.headers.items()}
    headers |= {"host": url.netloc, "x-amz-date": stamp}
    if keys.session:
        headers["x-amz-security-token"] = keys.session
    names = ";".join(sorted(headers))
    lines = [request.method, url.path or "/", url.query]
    lines += [f"{name}:{headers[name].strip()}" for name in sorted(headers)]
    lines += ["", names, hashlib.sha256(request.body).hexdigest()]
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = f"AWS4{keys.secret}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}".encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return Request(request.method, request.url, headers, request.body)


def _domain(host: str) -> str:
    """The end of AWS's hosts in the partition of a registry; a dual-stack one has another itself."""
    found = HOST.fullmatch(host)
    domain = found["domain"] if found else _DOMAINS[0]
    return _DUAL_STACK.get(domain, domain)


def _of_web_identity(host: str, send: Send, environment: Mapping[str, str]) -> Keys:
    token = Path(environment["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    found = HOST.fullmatch(host)
    region = environment.get("AWS_REGION") or (found["region"] if found else PUBLIC_REGION)
    body = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": environment["AWS_ROLE_ARN"],
        "RoleSessionName": environment.get("AWS_ROLE_SESSION_NAME") or _ROLE_SESSION,
        "WebIdentityToken": token,
    }
    headers = {"content-type": "application/x-www-form-urlencoded"}
    endpoint = f"https://sts.{region}.{_domain(host)}/"
    answer = send(Request("POST", endpoint, headers, urllib.parse.urlencode(body).encode()))
    texts = {element.tag.rpartition("}")[2]: element.text or "" for element in ET.fromstring(answer).iter()}
    return Keys(texts["AccessKeyId"], texts["SecretAccessKey"], texts["SessionToken"])


def _of_container(host: str, send: Send, environment: Mapping[str, str]) -> Keys:
    relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = f"{ECS_ENDPOINT}{relative}" if relative else environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "").strip()
    if file := environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        token = Path(file).read_text(encoding="utf-8").strip()
    return _keys(json.loads(send(Request("GET", url, {"authorization": token} if token else {}))))


def _of_instance(host: str, send: Send, environment: Mapping[str, str]) -> Keys:
    lifetime = {"x-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        session = send(Request("PUT", f"{METADATA}/latest/api/token", lifetime)).decode().strip()
    except TimeoutError as error:  # who cannot connect gets another one
        cause = (
            f"there are no credentials of AWS for {host}: the instance's metadata is there, and does not "
            f"answer ({error}), as with a hop limit of 1, by which no pod of a network of its own is answered"
        )
        raise SociIndexError(cause, FARTHER_REMEDY) from error
    headers = {"x-aws-ec2-metadata-token": session}
    roles = f"{METADATA}/latest/meta-data/iam/security-credentials/"
    try:
        name = send(Request("GET", roles, headers)).decode().split()[0]
    except RefusedError as refused:
        if refused.status != 404:
            raise
        raise OSError("the instance has no role") from None
    return _keys(json.loads(send(Request("GET", roles + name, headers))))


def _keys(answer: Any) -> Keys:
    if answer.get("Code", "Success") != "Success":  # such as a role that may not be assumed, with status 200
        raise OSError(f"{answer['Code']}: {answer.get('Message')}")
    return Keys(answer["AccessKeyId"], answer["SecretAccessKey"], answer["Token"])


def _send(request: Request) -> bytes:
    """Send a request; an address of the instance's own is asked without a proxy.

    Raises:
        OSError: it cannot be sent, or is refused (RefusedError); without what was asked in the text.
    """
    local = request.url.startswith("http://")
    handlers = [urllib.request.ProxyHandler({})] if local else []
    asked = urllib.request.Request(
        request.url, request.body or None, dict(request.headers), method=request.method
    )
    try:
        with urllib.request.build_opener(*handlers).open(asked, timeout=TIMEOUT_SECONDS) as answer:
            return answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        said = re.search(
            r"""essage"?\s*[>:]\s*"?([^<"]{1,200})""", error.read(1 << 16).decode("utf-8", "replace")
        )
        raise RefusedError(error.code, said[1].strip() if said else error.reason) from None
    except ValueError:  # its text has the header, which may be a secret
        raise OSError("a header of the request is not well-formed") from None
