"""Who soci-index is to registries: Docker's configuration, its helpers, and for ECR AWS's environment."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import distribution
import pytest
from awkward_registry import Auth, AwkwardRegistry, User, certificate
from pki import Authority
from release import release_directory
from soci_index import credentials, tools
from soci_index.credentials import Credentials
from soci_index.errors import SociIndexError
from soci_index.processes import Children
from soci_index.references import parse
from soci_index.registry import Registry

from tests.index.conftest import LOCAL, Command
from tests.index.made_images import Repository, layer

PASSWORD = "correct horse"


def log_in(command: Command, host: str, user: str, password: str) -> Path:
    """What `docker login` leaves where no credential store is set."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    file = Path(command.variables()["HOME"], ".docker/config.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return file


@pytest.mark.parametrize("auth", [Auth.BASIC, Auth.BEARER])
def test_an_image_of_a_private_registry_is_indexed_as_the_docker_user(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry, auth: Auth
) -> None:
    repository.image([layer("base")], tag="1")
    registry.auth, registry.users = auth, {"ada": User(PASSWORD)}
    [refused] = command.json(f"{place}:1", status=1)
    assert f"docker login {registry.name}" in refused["problem"]
    log_in(command, registry.name, "ada", PASSWORD)
    assert command.json(f"{place}:1")[0]["status"] == "indexed"
    assert {request.user for request in registry.requests(method="PUT") if request.status < 300} == {"ada"}


def test_a_helper_of_the_docker_configuration_is_asked_and_the_secret_stays_with_it(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry, tmp_path: Path
) -> None:
    repository.image([layer("base")], tag="1")
    registry.auth, registry.users = Auth.BASIC, {"ada": User(PASSWORD)}
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(f'#!/bin/sh\necho \'{{"Username":"ada","Secret":"{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    file = log_in(command, "other.example", "bob", "no matter")
    file.write_text(json.dumps({"credHelpers": {registry.name: "test"}}))
    command.environment["PATH"] = f"{helper.parent}:{os.environ['PATH']}"
    done = command.run(f"{place}:1")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    kept = [path for path in command.cache.rglob("*") if path.is_file()]
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []


@pytest.fixture(params=["htpasswd", "tokens"])
def true_registry(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[distribution.Distribution, Path]]:
    """Distribution's own registry over TLS, and the file of its authority."""
    authority = Authority(tmp_path / "pki")
    files = certificate(authority, [LOCAL])
    served = distribution.Distribution(
        tmp_path / "distribution",
        LOCAL,
        files,
        tokens=request.param == "tokens",
        users={"ada": User(distribution.PASSWORD)},
        authority=authority.certificate,
    )
    yield served, authority.certificate
    served.close()


def test_distributions_registry_takes_both_kinds_of_index(
    command: Command,
    repository: Repository,
    place: str,
    true_registry: tuple[distribution.Distribution, Path],
) -> None:
    served, authority = true_registry
    repository.image([layer("base"), layer("app")], tag="1")
    image = f"{served.name}/team/app:1"
    log_in(command, served.name, "ada", distribution.PASSWORD)
    oras = [str(command.programs["oras"]), "cp", "--no-tty", "--from-plain-http", f"{repository.place}:1"]
    copy = [*oras, "--to-ca-file", str(authority), image]
    subprocess.run(copy, check=True, capture_output=True, env=command.variables())
    trusted = ("--ca-file", str(authority))
    [indexed] = command.json(image, *trusted, plain_http=False)
    assert indexed["status"] == "indexed"
    assert command.json(image, *trusted, plain_http=False)[0]["status"] == "present"
    # It has no referrers API.
    for status in ("indexed", "present"):
        [beside] = command.json(image, "--index-version", "v1", *trusted, plain_http=False)
        assert beside["status"] == status
    [refused] = command.json(image, status=1, plain_http=False)
    assert f"--ca-file with the authority of {served.name}" in refused["problem"]


AWS = """#!/bin/sh
echo "$*" >> {log}
[ "$*" = "{words}" ] && echo {token} || {{ echo 'Unable to locate credentials' >&2; exit 255; }}
"""


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH for an AWS CLI, and an empty Docker configuration."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "bin" / "aws"


def test_a_registry_of_ecr_is_asked_with_a_token_of_the_aws_cli(
    command: Command,
    registry: AwkwardRegistry,
    repository: Repository,
    aws: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stand-in for ECR has another name, as no name server tells one of AWS's."""
    monkeypatch.setattr(credentials, "HOST", re.compile(r"127\.0\.0\.1:(?P<region>\d+)"))
    registry.auth, registry.users = Auth.ECR, {"AWS": User("")}
    region, token = registry.name.partition(":")[2], registry.issue("AWS")
    log = command.directory / "log"
    words = f"ecr get-login-password --region {region}"
    aws.write_text(AWS.format(log=log, words=words, token=token))
    aws.chmod(0o755)
    image = repository.image([layer("base")], tag="1")
    work = command.directory / "work"
    work.mkdir()
    known = Registry(command.programs["oras"], Children(), work, Credentials(work), (registry.name,))
    source = parse(f"{registry.name}/{repository.name}:1")
    for _ in range(2):
        assert known.manifest(source, "1")[0]["digest"] == image.digest
    assert log.read_text().splitlines() == [words]
    assert [path.name for path in work.rglob("*") if token in path.read_text()] == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "ecr get-login-password --region eu-central-1"),
        (
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            "ecr get-login-password --region us-gov-west-1",
        ),
        ("123456789012.dkr-ecr.us-west-2.on.aws", "ecr get-login-password --region us-west-2"),
        ("public.ecr.aws", "ecr-public get-login-password --region us-east-1"),
    ],
)
def test_the_region_is_that_of_the_registry(aws: Path, tmp_path: Path, host: str, words: str) -> None:
    aws.write_text(AWS.format(log=tmp_path / "log", words=words, token="secret"))
    aws.chmod(0o755)
    known = Credentials(tmp_path)
    variables = known.environment(host)
    assert variables[credentials.variable(host)] == "secret"
    [users, own] = known.configurations(host)
    assert users == tmp_path / "docker" / "config.json"
    assert json.loads(own.read_text()) == {"credHelpers": {host: "soci-index"}}
    helper = subprocess.run(
        ["docker-credential-soci-index", "get"],
        input=host,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(helper.stdout) == {"ServerURL": host, "Username": "AWS", "Secret": "secret"}


def test_awss_own_helper_comes_before_the_cli_and_a_login_before_both(aws: Path, tmp_path: Path) -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    for name in ("aws", "docker-credential-ecr-login"):
        (aws.parent / name).write_text("#!/bin/sh\nexit 1\n")
        (aws.parent / name).chmod(0o755)
    known = Credentials(tmp_path)
    assert known.environment(host) == {}
    assert json.loads(known.configurations(host)[1].read_text()) == {"credHelpers": {host: "ecr-login"}}
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {host: {}}}))
    assert known.configurations(host) == []


def test_a_refusal_of_the_aws_cli_is_told(aws: Path, tmp_path: Path) -> None:
    aws.write_text(AWS.format(log=tmp_path / "log", words="never", token="secret"))
    aws.chmod(0o755)
    with pytest.raises(SociIndexError, match=r"Unable to locate credentials.*docker login public\.ecr"):
        Credentials(tmp_path).environment("public.ecr.aws")


@pytest.fixture
def artifact(command: Command, repository: Repository) -> Repository:
    """SOCI's release in a registry, as soci:releaseUrl takes it."""
    machine = tools.architecture()
    asset = f"soci-snapshotter-{tools.SOCI_VERSION}-linux-{machine}-static.tar.gz"
    release = release_directory() / f"releases/v{tools.SOCI_VERSION}" / asset
    oras = command.programs["oras"]
    push = [str(oras), "push", "--no-tty", "--plain-http", f"{repository.place}:v{tools.SOCI_VERSION}", asset]
    subprocess.run(push, check=True, capture_output=True, cwd=release.parent)
    return repository


def connect(command: Command, *plain_http: str, ca_file: str = "") -> Callable[[Path], Registry]:
    work = command.directory / "work"
    work.mkdir(exist_ok=True)
    return lambda oras: Registry(oras, Children(), work, Credentials(work), plain_http, ca_file)


@pytest.mark.usefixtures("artifact")
def test_soci_comes_out_of_a_registry_too(command: Command, place: str) -> None:
    oras = str(command.programs["oras"])
    wanted = tools.Wanted(oras=oras, soci_releases=f"oci+http://{place}")
    found = tools.get(wanted, command.cache, connect(command))
    assert found.soci.read_bytes() == command.programs["soci"].read_bytes()
    other = tools.Wanted(oras=oras, soci_releases=f"oci+http://{place}", soci_version="0.15.0")
    with pytest.raises(SociIndexError, match=r"has no release 0\.15\.0"):
        tools.get(other, command.cache, connect(command))


@pytest.mark.usefixtures("artifact")
def test_soci_comes_out_of_a_private_ecr_as_who_the_pod_is(
    command: Command, place: str, registry: AwkwardRegistry, aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "HOST", re.compile(r"127\.0\.0\.1:(?P<region>\d+)"))
    registry.auth, registry.users = Auth.ECR, {"AWS": User("")}
    region, token = registry.name.partition(":")[2], registry.issue("AWS")
    words = f"ecr get-login-password --region {region}"
    aws.write_text(AWS.format(log=command.directory / "log", words=words, token=token))
    aws.chmod(0o755)
    wanted = tools.Wanted(oras=str(command.programs["oras"]), soci_releases=f"oci://{place}")
    found = tools.get(wanted, command.cache, connect(command, registry.name))
    assert found.soci.read_bytes() == command.programs["soci"].read_bytes()
