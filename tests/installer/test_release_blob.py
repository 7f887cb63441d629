"""A release out of an OCI registry: with the node's credentials, which go nowhere else."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from agent import credential_helper, credential_providers, registry_auth, release, release_blob
from agent import install as agent_install
from agent.credential import Credential
from agent.credential_helper import HELPER, NOT_FOUND
from agent.errors import InstallError
from agent.host import Result
from agent.plan import Registration, Task
from agent.registry_auth import parse_challenges
from pki import Authority

from tests.fakes.node import INSTALLER, FakeHost, FakeNode, furnish, run_here, tree
from tests.fakes.oci_registry import (
    IDENTITY_TOKEN,
    PASSWORD,
    REPOSITORY,
    TOKEN,
    USER,
    Registry,
    recorded_connections,
    serving,
    sha256,
)
from tests.fakes.settings import agent_settings
from tests.installer.test_release import GOOD

ASSET = "soci-snapshotter-1.2.3-linux-amd64-static.tar.gz"
DIGEST = sha256(GOOD)
NO_VARIABLES: Mapping[str, str] = {}
SECRETS = (PASSWORD, IDENTITY_TOKEN, TOKEN, "hunter2")


@pytest.fixture
def oci() -> Iterator[Registry]:
    with serving() as registry:
        registry.push("v1.2.3", {ASSET: GOOD})
        yield registry


def answers(username: str, secret: str) -> Any:
    """A node's credential helper that knows every registry."""

    def helper(command: Any, text: str) -> Result:
        return Result(0, json.dumps({"ServerURL": text, "Username": username, "Secret": secret}) + "\n", "")

    return helper


def install(
    host: FakeHost, oci: Registry, digest: str = DIGEST, variables: Mapping[str, str] = NO_VARIABLES
) -> None:
    url = release.archive_url(oci.release_url, "1.2.3", "amd64", digest)
    release.install(host, url, "1.2.3", digest, variables)


@pytest.mark.parametrize("redirects", ["", "store", "itself"])
@pytest.mark.parametrize(
    ("challenge", "credentials"),
    [
        ("", None),
        ("Basic", (USER, PASSWORD)),
        ("Bearer", (USER, PASSWORD)),
        ("Bearer", ("<token>", IDENTITY_TOKEN)),
    ],
)
def test_a_release_is_installed_out_of_a_registry(
    oci: Registry, fake_host: FakeHost, challenge: str, credentials: tuple[str, str] | None, redirects: str
) -> None:
    oci.challenge, oci.redirects = challenge, redirects
    if credentials:
        fake_host.answers[HELPER] = answers(*credentials)
    install(fake_host, oci)
    assert release.is_present(fake_host, "1.2.3", DIGEST)
    assert all(command == (HELPER, "get") for command in fake_host.commands)
    assert [header for _, header in oci.store.seen] == ([""] if redirects == "store" else [])


def test_the_credentials_are_those_of_the_registry_with_its_port(oci: Registry, fake_host: FakeHost) -> None:
    asked: list[str] = []
    oci.challenge = "Basic"

    def helper(command: Any, text: str) -> Result:
        asked.append(text)
        return answers(USER, PASSWORD)(command, text)

    fake_host.answers[HELPER] = helper
    install(fake_host, oci)
    assert asked == [oci.address]


def test_no_credentials_are_asked_for_where_none_are_wanted(oci: Registry, fake_host: FakeHost) -> None:
    install(fake_host, oci)
    assert fake_host.commands == []


@pytest.mark.parametrize(
    ("challenge", "helper", "cause"),
    [
        ("Basic", None, "it wants credentials, and this node has none"),
        ("Basic", lambda *_: Result(1, NOT_FOUND + "\n", ""), "it wants credentials, and this node has none"),
        ("Basic", answers(USER, "hunter2, the wrong one"), "401"),
        ("Bearer", None, "401"),
        ("Bearer", answers(USER, "hunter2, the wrong one"), "401"),
        ("Basic", lambda *_: Result(1, "hunter2", "panic"), "credential helper failed for .*: status 1"),
        ("Basic", lambda *_: Result(124, "", "did not end"), "credential helper failed for .*: status 124"),
        ("Basic", lambda *_: Result(0, "hunter2", ""), "something else than credentials"),
        ("Basic", lambda *_: Result(0, '["hunter2"]', ""), "something else than credentials"),
        ("Basic", lambda *_: Result(0, '{"Username": "hunter2"}', ""), "something else than credentials"),
    ],
)
def test_a_registry_that_does_not_let_the_node_in_changes_nothing_and_tells_no_secret(
    oci: Registry, fake_host: FakeHost, challenge: str, helper: Any, cause: str
) -> None:
    oci.challenge = challenge
    # Without a helper on the node, the one of this program knows nothing either.
    fake_host.answers["sh"] = lambda *_: Result(1, NOT_FOUND + "\n", "")
    if helper:
        fake_host.answers[HELPER] = helper
    furnish(fake_host.root)
    fake_host.path("/run").mkdir()
    before = tree(fake_host.root)
    with pytest.raises(InstallError, match=cause) as caught:
        install(fake_host, oci)
    assert caught.value.step == "download"
    assert oci.release_url in caught.value.cause or oci.address in caught.value.cause
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    assert tree(fake_host.root) == before


def test_over_plain_http_no_credentials_leave_the_node() -> None:
    assert registry_auth.may_carry_credentials("https://registry.example/v2/")
    assert not registry_auth.may_carry_credentials("http://registry.example:5000/v2/")
    assert not registry_auth.may_carry_credentials("http://127.0.0.1.evil.example/v2/")
    assert registry_auth.may_carry_credentials("http://127.0.0.1:5000/v2/")
    assert registry_auth.may_carry_credentials("http://[::1]:5000/v2/")


def test_a_challenge_that_came_over_plain_http_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is on the way names a token server of his own, with TLS."""
    given: list[Credential | None] = []

    def token(opener: Any, realm: str, query: Any, credential: Credential | None, timeout: float) -> str:
        given.append(credential)
        return "anonymous"

    monkeypatch.setattr(release_blob, "token", token)
    challenge = ['Bearer realm="https://evil.example/token",service="a"']
    for url in ("http://registry.example/v2/", "https://registry.example/v2/"):
        release_blob._authorization(
            urllib.request.OpenerDirector(), url, challenge, 1, lambda: Credential(USER, PASSWORD)
        )
    assert given == [None, Credential(USER, PASSWORD)]


@pytest.mark.failure_mode(46)
def test_a_blob_that_is_not_what_its_digest_says_is_not_unpacked(oci: Registry, fake_host: FakeHost) -> None:
    oci.store.blobs[f"sha256:{DIGEST}"] = b"<html>another</html>"
    with pytest.raises(InstallError, match=f"an HTML page with sha256 .*, not {DIGEST}"):
        install(fake_host, oci)
    assert tree(fake_host.root) == {}


def test_a_blob_that_is_not_there_is_named(oci: Registry, fake_host: FakeHost) -> None:
    with pytest.raises(InstallError, match=f"@sha256:{'0' * 64}: HTTP Error 404"):
        install(fake_host, oci, "0" * 64)


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("/etc/pki/tls/certs/ca-bundle.crt", {}),
        ("/opt/corp/ca.pem", {"SSL_CERT_FILE": "/opt/corp/ca.pem"}),
        ("/opt/corp/certs/a.crt", {"SSL_CERT_DIR": "/opt/absent:/opt/corp/certs:/etc/ssl/certs"}),
    ],
)
def test_the_nodes_authorities_are_trusted(
    fake_host: FakeHost, tmp_path: Path, place: str, variables: dict[str, str]
) -> None:
    """The image in which this runs knows nothing of a company's own authority."""
    authority = Authority(tmp_path / "pki")
    authority.create()
    fake_host.write("/etc/ssl/ca-bundle.pem", b"")
    fake_host.write("/opt/corp/certs/README", b"no certificate")
    with serving(authority.sign("registry", "registry", "test", "IP:127.0.0.1")) as oci:
        oci.push("v1.2.3", {ASSET: GOOD})
        with pytest.raises(InstallError, match="CERTIFICATE_VERIFY_FAILED"):
            install(fake_host, oci, variables=variables)
        # As on AL2023, where the bundle is a link to another place.
        extracted = "/etc/pki/ca-trust/extracted/pem/bundle.pem"
        fake_host.write(extracted, "# Müller CA\n".encode() + authority.certificate.read_bytes())
        fake_host.path(place).parent.mkdir(parents=True, exist_ok=True)
        fake_host.path(place).symlink_to(extracted)
        install(fake_host, oci, variables=variables)
    assert release.is_present(fake_host, "1.2.3", DIGEST)


def test_a_registry_is_trusted_by_the_ca_that_a_hosts_toml_names(fake_host: FakeHost, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.create()
    pem = authority.certificate.read_text()
    with serving(authority.sign("registry", "registry", "test", "IP:127.0.0.1")) as oci:
        oci.push("v1.2.3", {ASSET: GOOD})
        url = release.archive_url(oci.release_url, "1.2.3", "amd64", DIGEST)
        release.install(fake_host, url, "1.2.3", DIGEST, {}, authorities=pem)
    assert release.is_present(fake_host, "1.2.3", DIGEST)


def test_before_the_node_has_a_helper_the_one_of_this_program_is_run_and_leaves_nothing(
    fake_host: FakeHost,
) -> None:
    """A first install out of a private registry: its helper finds its list of providers beside itself."""
    furnish(fake_host.root)
    seen: dict[str, Any] = {}

    def shell(command: Any, text: str) -> Result:
        program = fake_host.path(command[1])
        assert command == ("sh", f"/run/soci-cluster/first-install/{Path(HELPER).name}", "get")
        seen.update({file.name: file.read_text() for file in program.parent.iterdir()})
        assert {file.stat().st_mode & 0o777 for file in program.parent.iterdir()} == {0o600}
        return answers(USER, f"for {text}")(command, text)

    fake_host.answers["sh"] = shell
    found = credential_helper.get(fake_host, "registry.example", {})
    assert found == Credential(USER, "for registry.example")
    assert seen == {
        "docker-credential-soci-cluster": (INSTALLER / "docker-credential-soci-cluster").read_text(),
        "providers": credential_providers.render(credential_providers.read(fake_host)),
    }
    assert not fake_host.exists("/run/soci-cluster")
    fake_host.answers[HELPER] = answers("<token>", "installed")
    assert credential_helper.get(fake_host, "docker.io", {}) == Credential("<token>", "installed")


def test_a_first_install_reads_its_registry_with_the_kubelets_plugin(
    oci: Registry, root: Path, tmp_path: Path
) -> None:
    """The real helper, with the list of the kubelet's plugins, before anything of ours is on the node."""
    plugins, config = tmp_path / "plugins", "/etc/kubernetes/providers.yaml"
    plugins.mkdir()
    auth = {oci.address: {"username": USER, "password": PASSWORD}}
    answer = {"kind": "CredentialProviderResponse", "cacheKeyType": "Registry", "auth": auth}
    # It reaches its cloud through the proxy alone, which containerd has, and the kubelet has not.
    reached = '[ "$HTTPS_PROXY$https_proxy" = http://p:1http://p:1 ] || exit 1'
    (plugins / "corp").write_text(
        f"#!/bin/sh\ncat >/dev/null\n{reached}\ncat <<'END'\n{json.dumps(answer)}\nEND\n"
    )
    (plugins / "corp").chmod(0o755)
    furnish(root)
    node = FakeNode(root)
    kind = "credentialprovider.kubelet.k8s.io/v1"
    provider = {
        "name": "corp",
        "matchImages": [oci.address],
        "defaultCacheDuration": "1h",
        "apiVersion": kind,
    }
    listed = {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [provider],
    }
    node.write(config, json.dumps(listed).encode())
    node.run_kubelet(
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        f"--image-credential-provider-config={config}",
        f"--image-credential-provider-bin-dir={plugins}",
    )

    def shell(command: Any, text: str) -> Result:
        pairs = [f"{name}={value}" for name, value in (node.environments[-1] or {}).items()]
        return run_here(["env", "-i", *pairs, "sh", str(node.path(command[1])), *command[2:]], text)

    node.answers["sh"] = shell
    oci.challenge = "Bearer"
    install(node, oci, variables={"HTTPS_PROXY": "http://p:1"})
    assert release.is_present(node, "1.2.3", DIGEST)
    assert not [path for path in tree(node.root) if "first-install" in path]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"'], {"basic"}),
        (["Bearer realm=https://a/token,service=a"], {"bearer"}),
        (
            ['bearer realm="https://a/token", scope="repository:a:pull,push"', 'Basic realm="a"'],
            {"bearer", "basic"},
        ),
        (['Basic realm="a", Bearer realm="https://a/token",service="a"'], {"bearer", "basic"}),
        (['Bearer realm = "https://a/token" , service = a'], {"bearer"}),
        (['Basic realm="of \\"us\\", all", Bearer realm="https://a/token"'], {"basic", "bearer"}),
        (["Negotiate"], set()),
        ([], set()),
    ],
)
def test_challenges_as_registries_write_them(headers: list[str], expected: set[str]) -> None:
    found = parse_challenges(headers)
    assert set(found) == expected
    if "bearer" in found:
        assert found["bearer"]["realm"] == "https://a/token"
        assert found["bearer"].get("scope", "repository:a:pull,push") == "repository:a:pull,push"


@pytest.mark.failure_mode(47)
def test_a_node_without_internet_installs_from_its_registry_alone(
    oci: Registry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole install: no name is looked up, no other address is asked, containerd is to fetch nothing."""
    asked = recorded_connections(monkeypatch)
    oci.challenge, oci.redirects = "Bearer", ""
    furnish(root)
    node = FakeNode(root)
    node.answers[HELPER] = answers(USER, PASSWORD)
    settings = agent_settings(version="1.2.3", release_url=oci.release_url, sha256={"amd64": DIGEST})
    task = Task(node, settings, INSTALLER, "x86_64", lambda: Registration(True, "soci-system"))
    done = agent_install.install(task, lambda busy: pytest.fail("nobody is busy"))
    assert done.changed
    assert release.is_present(node, "1.2.3", DIGEST)
    assert set(asked) == {("127.0.0.1", oci.server_port)}
    blob = f"/v2/{REPOSITORY}/blobs/sha256:{DIGEST}"
    assert [path.partition("?")[0] for path, _ in oci.seen] == [blob, "/token", blob]
    assert not [command for command in node.commands if "fetch" in command or "pull" in command]


def test_an_archive_that_is_too_large_is_not_read_to_its_end(
    oci: Registry, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "MAX_BYTES", 100)
    with pytest.raises(InstallError, match="larger than"):
        install(fake_host, oci)
