"""A password of ECR with nothing but Python: against the signature of AWS's own SDK, and answers as AWS's."""

import base64
import datetime as dt
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from soci_index import credentials, ecr_token
from soci_index.ecr_token import Keys, Request
from soci_index.errors import SociIndexError

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
NOW = dt.datetime(2026, 11, 27, 5, 30, tzinfo=dt.UTC)
KEYS = Keys("AKIDEXAMPLE", "secret-key", "session-token")
TOKEN = {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:the-password").decode()}]}
OF_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}


class Aws:
    """Answers by the beginning of the URL, and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, bytes | str]) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> bytes:
        self.asked.append(request)
        for begin, answer in self.answers.items():
            if request.url.startswith(begin):
                return answer.encode() if isinstance(answer, str) else answer
        raise OSError(f"nobody answers at {urllib.parse.urlsplit(request.url).netloc}")


def aws(**answers: str) -> Aws:
    return Aws({"https://api.ecr": json.dumps(TOKEN), **answers})


@pytest.mark.parametrize("keys", [KEYS, Keys("AKIDEXAMPLE", "secret-key")])
def test_a_request_is_signed_as_the_sdk_of_aws_signs_it(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ecr_token.token_request(HOST, keys, NOW)
    theirs = AWSRequest(
        method=ours.method,
        url=ours.url,
        data=ours.body,
        headers={key: ours.headers[key] for key in ("content-type", "x-amz-target")},
    )
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)
    )
    credentials = Credentials(keys.access, keys.secret, keys.session or None)
    SigV4Auth(credentials, "ecr", "eu-west-1").add_auth(theirs)
    assert ours.headers["authorization"] == theirs.headers["Authorization"]


@pytest.mark.parametrize(
    ("host", "endpoint", "scope"),
    [
        (HOST, "https://api.ecr.eu-west-1.amazonaws.com/", "eu-west-1/ecr/"),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            "https://api.ecr.cn-north-1.amazonaws.com.cn/",
            "cn-north-1/ecr/",
        ),
        (
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            "https://ecr-fips.us-east-1.amazonaws.com/",
            "us-east-1/ecr/",
        ),
        (
            "123456789012.dkr-ecr.eu-west-1.on.aws",
            "https://api.ecr.eu-west-1.amazonaws.com/",
            "eu-west-1/ecr/",
        ),
        (
            "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
            "https://api.ecr.cn-north-1.amazonaws.com.cn/",
            "cn-north-1/ecr/",
        ),
        ("public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com/", "us-east-1/ecr-public/"),
    ],
)
def test_each_registry_has_its_endpoint(host: str, endpoint: str, scope: str) -> None:
    request = ecr_token.token_request(host, KEYS, NOW)
    assert request.url == endpoint
    assert f"/{scope}aws4_request" in request.headers["authorization"]


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        "123456789012.dkr.ecr.eu-west-1.evil.example",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
        "123456789012.dkr.ecr.eu-west-1.amazonaws-com.example",
    ],
)
def test_credentials_of_aws_are_for_hosts_of_aws_alone(host: str) -> None:
    """A name that only looks like ECR's got a token, or the token of the service account itself."""
    assert not credentials.is_ecr(host)
    with pytest.raises(SociIndexError, match=f"{host} is no registry of ECR"):
        ecr_token.token_request(host, KEYS, NOW)


def test_the_password_is_that_of_the_answer() -> None:
    answering = aws()
    assert ecr_token.password(HOST, answering, OF_ENVIRONMENT) == "the-password"
    (asked,) = answering.asked
    assert asked.headers["x-amz-target"].endswith(".GetAuthorizationToken")
    assert "x-amz-security-token" not in asked.headers


def test_the_public_gallery_answers_with_one_token_and_no_list() -> None:
    answer = {"authorizationData": TOKEN["authorizationData"][0]}
    answering = Aws({"https://api.ecr-public": json.dumps(answer)})
    assert ecr_token.password("public.ecr.aws", answering, OF_ENVIRONMENT) == "the-password"


def test_a_service_accounts_role_is_assumed_with_its_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("jwt\n")
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(file), "AWS_ROLE_ARN": "arn:aws:iam::1:role/index"}
    answer = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA</AccessKeyId>"
        "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken></Credentials>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    answering = aws(**{"https://sts.eu-west-1.amazonaws.com/": answer})
    assert ecr_token.password(HOST, answering, environment) == "the-password"
    assumed, asked = answering.asked
    form = urllib.parse.parse_qs(assumed.body.decode())
    assert (form["WebIdentityToken"], form["RoleArn"]) == (["jwt"], [environment["AWS_ROLE_ARN"]])
    assert asked.headers["x-amz-security-token"] == "t"


def test_pod_identity_is_asked_with_the_pods_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("pod-token")
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
    }
    keys = json.dumps({"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t"})
    answering = aws(**{"http://169.254.170.23/v1/credentials": keys})
    assert ecr_token.password(HOST, answering, environment) == "the-password"
    assert answering.asked[0].headers == {"authorization": "pod-token"}


def test_a_build_is_asked_at_the_address_of_its_host() -> None:
    keys = json.dumps({"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t"})
    answering = aws(**{"http://169.254.170.2/v2/credentials/x": keys})
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}
    assert ecr_token.password(HOST, answering, environment) == "the-password"


def test_the_nodes_role_is_the_last_that_is_asked_for() -> None:
    top = "http://169.254.169.254/latest/"
    roles = f"{top}meta-data/iam/security-credentials/"
    keys = json.dumps({"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t"})
    answering = Aws(
        {
            f"{top}api/token": "imds",
            f"{roles}node-role": keys,
            roles: "node-role\n",
            "https://api.ecr": json.dumps(TOKEN),
        }
    )
    assert ecr_token.password(HOST, answering, {}) == "the-password"
    assert [request.method for request in answering.asked] == ["PUT", "GET", "GET", "POST"]
    assert answering.asked[2].headers == {"x-aws-ec2-metadata-token": "imds"}


ROLES = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
OF_INSTANCE = {"http://169.254.169.254/latest/api/token": "imds", ROLES: "node-role"}
NOT_ASSUMED = json.dumps({"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"})


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ({f"{ROLES}node-role": NOT_ASSUMED}, "AssumeRoleUnauthorizedAccess: EC2 cannot assume the role"),
        ({f"{ROLES}node-role": "[]"}, ".*"),
    ],
)
def test_an_instance_without_a_role_of_use_is_told_as_that(answers: dict[str, str], cause: str) -> None:
    answering = Aws({**answers, **{key: text for key, text in OF_INSTANCE.items() if key not in answers}})
    with pytest.raises(SociIndexError, match=rf"the instance's metadata gives none \({cause}\)"):
        ecr_token.password(HOST, answering, {})


def test_a_secret_in_a_request_that_cannot_be_sent_is_not_told() -> None:
    """Python's HTTP client quotes the whole header."""
    environment = OF_ENVIRONMENT | {"AWS_SESSION_TOKEN": "SESSION\nHIDDEN"}
    with pytest.raises(SociIndexError, match="a header of the request is not well-formed") as raised:
        ecr_token.password(HOST, environment=environment)
    assert "HIDDEN" not in str(raised.value)


def test_credentials_may_end_with_a_line_break_as_secrets_often_do() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a\n", "AWS_SECRET_ACCESS_KEY": "b\n", "AWS_SESSION_TOKEN": "c\n"}
    assert ecr_token.find_keys(HOST, aws(), environment) == Keys("a", "b", "c")


def test_a_pod_that_the_metadata_does_not_answer_is_told_of_the_hop_limit() -> None:
    """The answer ends at the node: the connection stands, and nothing comes."""

    def silent(request: Request) -> bytes:
        raise TimeoutError("timed out")

    with pytest.raises(SociIndexError, match="hop limit of 1") as refused:
        ecr_token.password(HOST, silent, {})
    for words in ("soci:index.roleArn", "httpPutResponseHopLimit: 2", "soci:metadataHopLimit 2"):
        assert words in refused.value.remedy


@pytest.mark.parametrize("answer", ["", "[]", "{}", "<html>", '{"authorizationData": []}'])
def test_an_answer_that_holds_no_token_is_told_without_it(answer: str) -> None:
    with pytest.raises(SociIndexError, match=rf"ECR gives no token of {HOST} .*Remedy: give the pod a role"):
        ecr_token.password(HOST, Aws({"https://api.ecr": answer}), OF_ENVIRONMENT)


def test_nothing_anywhere_is_told_with_where_it_was_looked_for() -> None:
    with pytest.raises(SociIndexError, match="the instance's metadata gives none") as refused:
        ecr_token.password(HOST, Aws({}), {})
    assert "soci:index.roleArn" in refused.value.remedy


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without AWS, its CLI and a login."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize(
    ("host", "environment", "cli", "token"),
    [
        (HOST, {}, False, "of python"),
        (HOST, {}, True, "of the CLI"),
        ("public.ecr.aws", OF_ENVIRONMENT, False, "of python"),
        ("public.ecr.aws", {}, False, ""),
        ("registry.example", OF_ENVIRONMENT, False, ""),
    ],
)
def test_ecr_is_asked_without_the_cli_where_there_is_none(
    bare: pytest.MonkeyPatch, host: str, environment: dict[str, str], cli: bool, token: str
) -> None:
    """In a stock Python image; the public gallery is read by nobody in particular unless keys are given."""
    place = Path(os.environ["DOCKER_CONFIG"])
    for name, value in environment.items():
        bare.setenv(name, value)
    if cli:
        (place / "aws").write_text("#!/bin/sh\necho of the CLI\n")
        (place / "aws").chmod(0o755)
    bare.setattr(ecr_token, "password", lambda host: "of python")
    given = credentials.Credentials(place).environment(host)
    assert given.get(credentials.variable(host), "") == token


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that refuses as AWS does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (
                b'{"__type":"AccessDeniedException","message":"User is not authorized to perform: ecr:Get"}'
            )
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_aws_says_to_a_refusal_is_told(refusing: str) -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{refusing}/v1"}
    with pytest.raises(SociIndexError, match="400 User is not authorized to perform: ecr:Get"):
        ecr_token.password(HOST, environment=environment)
