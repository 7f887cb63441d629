"""A release in an OCI registry, as the deploying machine reads its digests."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components import oci_registry, release
from components.docker_credentials import Credentials, CredentialsError
from components.oci_registry import RegistryError, Repository, manifest
from components.problems import SociConfigError
from components.rules import is_oci, release_url
from components.values import RefusedError
from tests.fakes.oci_registry import (
    IDENTITY_TOKEN,
    PASSWORD,
    REPOSITORY,
    USER,
    Registry,
    recorded_connections,
    serving,
    sha256,
)

CONTENT = {architecture: f"archive for {architecture}".encode() for architecture in ("amd64", "arm64")}
FILES = {release.asset_name("0.16.1", name): content for name, content in CONTENT.items()}
DIGESTS = {name: sha256(content) for name, content in CONTENT.items()}


@pytest.fixture
def oci(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as registry:
        registry.push("v0.16.1", FILES)
        yield registry


def nobody(host: str) -> Credentials | None:
    return None


def digests(
    oci: Registry, ask: Any = nobody, version: str = "0.16.1"
) -> tuple[dict[str, str], dict[str, str]]:
    def read(repository: Repository, tag: str) -> Any:
        return manifest(repository, tag, ask)

    return release.oci_digests(version, oci.release_url, read)


@pytest.mark.parametrize(
    ("challenge", "credentials"),
    [
        ("", None),
        ("Basic", Credentials(USER, PASSWORD)),
        ("Bearer", Credentials(USER, PASSWORD)),
        ("Bearer", Credentials("", IDENTITY_TOKEN)),
    ],
)
@pytest.mark.parametrize("tag", ["v0.16.1", "0.16.1"])
def test_the_digests_are_those_of_the_layers(
    oci: Registry, challenge: str, credentials: Credentials | None, tag: str
) -> None:
    oci.manifests = {tag: oci.manifests["v0.16.1"]}
    oci.challenge = challenge
    asked: list[str] = []

    def ask(host: str) -> Credentials | None:
        asked.append(host)
        return credentials

    assert digests(oci, ask) == (DIGESTS, {})
    assert set(asked) == ({oci.address} if credentials else set())


def test_nothing_but_the_registry_is_asked(oci: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a closed network every other question would take its whole time limit."""
    asked = recorded_connections(monkeypatch)
    monkeypatch.setattr(oci_registry, "of_registry", nobody)
    assert release.pin("0.16.1", oci.release_url, {}) == DIGESTS
    assert set(asked) == {("127.0.0.1", oci.server_port)}


def test_given_digests_ask_nobody(oci: Registry) -> None:
    assert release.pin("0.16.1", oci.release_url, {"amd64": "a" * 64}) == {"amd64": "a" * 64}
    assert oci.seen == []


def test_an_architecture_without_a_layer_is_told_beside_those_that_have_one(oci: Registry) -> None:
    amd64 = release.asset_name("0.16.1", "amd64")
    oci.push("v0.16.1", {f"./dist/{amd64}": CONTENT["amd64"], "NOTICE.md": b"n"})
    found, missing = digests(oci)
    assert found == {"amd64": DIGESTS["amd64"]}
    assert missing == {
        "arm64": f"{oci.release_url}:v0.16.1 has no layer titled {release.asset_name('0.16.1', 'arm64')}"
    }


def without_digest(found: dict[str, Any]) -> None:
    for layer in found["layers"]:
        layer["digest"] = "sha256:12"


def doubled(found: dict[str, Any]) -> None:
    found["layers"] += [dict(layer, digest=f"sha256:{'0' * 64}") for layer in found["layers"]]


def an_index(found: dict[str, Any]) -> None:
    found["manifests"] = found.pop("layers")


def without_annotations(found: dict[str, Any]) -> None:
    for layer in found["layers"]:
        del layer["annotations"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_digest, "has more than one layer, or a damaged one, titled"),
        (doubled, "has more than one layer, or a damaged one, titled"),
        (an_index, "has no layer titled"),
        (without_annotations, "has no layer titled"),
    ],
)
def test_another_artifact_is_refused(oci: Registry, change: Any, reason: str) -> None:
    found = json.loads(oci.manifests["v0.16.1"])
    change(found)
    oci.manifests["v0.16.1"] = json.dumps(found).encode()
    digests_found, missing = digests(oci)
    assert digests_found == {}
    assert all(reason in told for told in missing.values())


def failing(host: str) -> Credentials | None:
    raise CredentialsError("docker-credential-x ended with status 1")


@pytest.mark.parametrize(
    ("challenge", "ask", "reason"),
    [
        ("Basic", nobody, "wants credentials, and this machine's Docker configuration has none for it"),
        (
            "Bearer",
            nobody,
            r"cannot be read \(HTTP status 401; docker login 127.0.0.1:\d+ on this machine\?\)",
        ),
        ("Basic", lambda _: Credentials(USER, "hunter2, another"), r"cannot be read \(HTTP status 401"),
        ("Basic", failing, "cannot be read: docker-credential-x ended with status 1"),
    ],
)
def test_a_registry_that_does_not_let_one_in_is_told_without_a_secret(
    oci: Registry, challenge: str, ask: Any, reason: str
) -> None:
    oci.challenge = challenge
    with pytest.raises(RegistryError, match=reason) as raised:
        manifest(Repository.parse(oci.release_url), "v0.16.1", ask)
    assert "hunter2" not in str(raised.value)


def test_a_version_that_is_not_there_names_the_tags_and_the_ways_out(
    oci: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_registry, "of_registry", nobody)
    with pytest.raises(SociConfigError) as raised:
        release.pin("0.16.2", oci.release_url, {})
    assert f"{oci.release_url} has neither the tag v0.16.2 nor 0.16.2. Remedy: " in str(raised.value)
    assert str(raised.value).count("neither") == 1


def test_no_registry_at_all_is_told() -> None:
    repository = Repository("http", "127.0.0.1:1", "a")
    with pytest.raises(RegistryError, match=r"cannot be read \(.*refused"):
        manifest(repository, "v1", nobody)


def test_docker_hub_is_where_its_registry_is() -> None:
    repository = Repository.parse("oci://docker.io/team/soci")
    assert repository.url("v1") == "https://registry-1.docker.io/v2/team/soci/manifests/v1"


@pytest.mark.parametrize(
    "address",
    [
        f"oci://registry.example/{REPOSITORY}",
        "oci://123456789012.dkr.ecr.eu-west-1.amazonaws.com/soci_a__b-c.d",
        "oci+http://10.0.0.1:5000/soci",
    ],
)
def test_a_repository_is_a_release_url(address: str) -> None:
    assert is_oci(release_url(f" {address}/ "))
    assert release_url(f"{address}/") == address


@pytest.mark.parametrize(
    "address",
    [
        "oci://registry.example",
        "oci://registry.example/soci:v0.16.1",
        f"oci://registry.example/soci@sha256:{'0' * 64}",
        "oci://user:hunter2@registry.example/soci",
        "oci://registry.example/Soci",
        "oci://registry.example/soci?x=1",
        "oci://registry.example//soci",
        "oci:registry.example/soci",
    ],
)
def test_what_is_no_repository_is_refused(address: str) -> None:
    with pytest.raises(
        RefusedError, match=r"must be (oci://REGISTRY/REPOSITORY|an http://, https:// or oci://)"
    ):
        release_url(address)


def test_a_challenge_that_came_over_plain_http_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is on the wire named a token server of his own, and was sent the user's password."""
    told: list[Any] = []

    def token(realm: str, query: Any, credentials: Any) -> str:
        told.append(credentials)
        return "anonymous"

    monkeypatch.setattr(oci_registry, "_token", token)
    challenges = ['Bearer realm="https://evil.example/token",scope="repository:x:pull"']
    ask = lambda: Credentials(USER, PASSWORD)  # noqa: E731
    assert oci_registry._authorization("http://registry.example/v2/", challenges, ask) == "Bearer anonymous"
    assert told == [None]
    oci_registry._authorization("https://registry.example/v2/", challenges, ask)
    assert told[1:] == [Credentials(USER, PASSWORD)]


def test_where_a_registry_redirects_to_does_not_say_who_gets_its_credentials(oci: Registry) -> None:
    oci.challenge = "Bearer"
    asked: list[str] = []

    def redirect(request: Any, body: bytes) -> None:
        request.send(307, Location=f"http://{oci.address}{request.path}")

    with serving() as front:
        front.answer = redirect
        _, missing = digests(front, asked.append)
    assert f"{oci.address}, where it redirects to, wants credentials" in missing["amd64"]
    assert asked == []
