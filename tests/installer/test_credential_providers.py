"""The list of the kubelet's credential provider plugins: from flags and files as nodes have them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from agent import credential_providers
from agent.errors import InstallError

from tests.fakes.credential_node import ECR, CredentialNode, response
from tests.fakes.node import KUBELET_PID, FakeHost, process
from tests.installer.cloud_nodes import EKS_ECR

EKS = "/etc/eks/image-credential-provider"
FLAGS = (
    "/usr/bin/kubelet",
    f"--image-credential-provider-config={EKS}/config.json",
    "--image-credential-provider-bin-dir",
    EKS,
)
# As nodeadm writes it (amazon-eks-ami, nodeadm/internal/kubelet/image-credential-provider.go).
CONFIG = json.loads(EKS_ECR.text)
OF_AZURE = """\
# acr
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: acr-credential-provider
  matchImages:
    - "*.azurecr.io"
    - "*.azurecr.cn"
  defaultCacheDuration: "10m"
  apiVersion: credentialprovider.kubelet.k8s.io/v1beta1
  args:
  - /etc/kubernetes/azure.json
  - "--registry-mirror=mcr.microsoft.com:abcd.azurecr.io"
  env:
  - name: AZURE_CLOUD
    value: "a b=c"
"""


def run_kubelet(host: FakeHost, *command: str, environment: bytes = b"PATH=/usr/bin\0") -> None:
    for path, text in process(KUBELET_PID, command, "/system.slice/kubelet.service").items():
        host.write(f"/{path}", text.encode())
    host.write(f"/proc/{KUBELET_PID}/environ", environment)


def put(host: FakeHost, path: str, content: Any) -> None:
    host.write(path, (content if isinstance(content, str) else json.dumps(content, indent=2)).encode())


@pytest.fixture
def eks(fake_host: FakeHost) -> FakeHost:
    """A node of EKS."""
    run_kubelet(fake_host, *FLAGS)
    put(fake_host, f"{EKS}/config.json", CONFIG)
    put(fake_host, f"{EKS}/ecr-credential-provider", "#!/bin/sh\n")
    return fake_host


def with_entry(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, "providers": [{**CONFIG["providers"][0], **changes}]}


def test_a_node_of_eks(eks: FakeHost) -> None:
    found = credential_providers.read(eks)
    assert found.problems == ()
    assert found.paths == (f"{EKS}/config.json", EKS)
    assert credential_providers.render(found).splitlines()[1:] == [
        "docker /var/lib/kubelet/config.json",
        "docker /root/.docker/config.json",
        "docker /.docker/config.json",
        "dockercfg /var/lib/kubelet/.dockercfg",
        "dockercfg /root/.dockercfg",
        "dockercfg /.dockercfg",
        "provider ecr-credential-provider",
        f"executable {EKS}/ecr-credential-provider",
        "apiVersion credentialprovider.kubelet.k8s.io/v1",
        "cache 43200",
        "match *.dkr.ecr.*.amazonaws.com",
        "match *.dkr-ecr.*.on.aws",
        "match public.ecr.aws",
        "end",
    ]


def test_the_same_node_gives_the_same_text(eks: FakeHost) -> None:
    """A text that changes by itself would be a transaction at each look."""
    one, other = b"AWS_REGION=r\0NO_PROXY=x\0", b"NO_PROXY=x\0INVOCATION_ID=1\0AWS_REGION=r\0"
    run_kubelet(eks, *FLAGS, environment=one)
    text = credential_providers.render(credential_providers.read(eks))
    run_kubelet(eks, *FLAGS, environment=other)
    assert credential_providers.render(credential_providers.read(eks)) == text


def test_a_configuration_in_yaml_with_arguments_and_environment(fake_host: FakeHost) -> None:
    run_kubelet(
        fake_host,
        "/usr/local/bin/kubelet",
        "--image-credential-provider-bin-dir=/var/lib/kubelet/credential-provider/",
        "--image-credential-provider-config=/var/lib/kubelet/credential-provider-config.yaml",
        "--root-dir=/data/kubelet",
    )
    put(fake_host, "/var/lib/kubelet/credential-provider-config.yaml", OF_AZURE)
    put(fake_host, "/var/lib/kubelet/credential-provider/acr-credential-provider", "")
    found = credential_providers.read(fake_host)
    assert found.problems == ()
    (provider,) = found.providers
    assert provider.program == "/var/lib/kubelet/credential-provider/acr-credential-provider"
    assert provider.api_version == "credentialprovider.kubelet.k8s.io/v1beta1"
    assert provider.match_images == ("*.azurecr.io", "*.azurecr.cn")
    assert provider.arguments[0] == "/etc/kubernetes/azure.json"
    assert provider.environment == (("AZURE_CLOUD", "a b=c"),)
    assert found.docker[0] == "/data/kubelet/config.json"


def test_a_directory_of_configurations_is_read_in_the_order_of_their_names(eks: FakeHost) -> None:
    """Kubernetes 1.34 and newer."""
    run_kubelet(eks, "/kubelet", f"--image-credential-provider-config={EKS}/d/", *FLAGS[2:])
    put(eks, f"{EKS}/d/20.yaml", OF_AZURE)
    put(eks, f"{EKS}/d/10.json", CONFIG)
    put(eks, f"{EKS}/d/30.yml", OF_AZURE.replace("acr-", "other-"))
    put(eks, f"{EKS}/d/README", "no configuration")
    found = credential_providers.read(eks)
    names = [provider.name for provider in found.providers]
    assert names == ["ecr-credential-provider", "acr-credential-provider", "other-credential-provider"]
    assert found.paths == (
        f"{EKS}/d/",
        *(f"{EKS}/d/{name}" for name in ("10.json", "20.yaml", "30.yml")),
        EKS,
    )


@pytest.mark.parametrize(
    "flags", [(), FLAGS[1:2], FLAGS[2:], ("--image-credential-provider-config=", *FLAGS[2:])]
)
def test_a_kubelet_without_plugins_gives_an_empty_list(eks: FakeHost, flags: tuple[str, ...]) -> None:
    run_kubelet(eks, "/usr/bin/kubelet", *flags)
    found = credential_providers.read(eks)
    assert (found.providers, found.problems, found.paths) == ((), (), ())


@pytest.mark.parametrize("gone", ["comm", "cmdline", "environ"])
def test_a_kubelet_that_cannot_be_seen_gives_no_list(eks: FakeHost, gone: str) -> None:
    """Between two kubelets, or while one ends, nobody can say which plugins there are."""
    eks.write(f"/proc/{KUBELET_PID}/{gone}", b"")
    with pytest.raises(InstallError, match="cannot be seen"):
        credential_providers.read(eks)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{", "cannot be read"),
        ("", "it is no CredentialProviderConfig"),
        ("providers: !!python/object:x {}", "cannot be read"),
        ("[" * 100000, "cannot be read"),
        ({**CONFIG, "kind": "KubeletConfiguration"}, "it is no CredentialProviderConfig"),
        ({**CONFIG, "apiVersion": "kubelet.config.k8s.io/v9"}, "'kubelet.config.k8s.io/v9' is not known"),
        ({**CONFIG, "providers": {}}, "providers is no list"),
        ({**CONFIG, "providers": ["x"]}, "a provider is no mapping"),
        (with_entry(name="../x"), "cannot have the name '../x'"),
        (with_entry(name="a\nprovider b"), "a provider's name is no text of one line"),
        (with_entry(name=None), "a provider's name is no text of one line"),
        (with_entry(apiVersion="v2"), "the apiVersion 'v2' of ecr-credential-provider"),
        (with_entry(args=["a\nexecutable /bin/sh"]), "an argument of ecr-credential-provider is no text"),
        (with_entry(matchImages="*"), "matchImages is no list"),
        (with_entry(defaultCacheDuration="soon"), "defaultCacheDuration of ecr-credential-provider is no"),
        (with_entry(env=[{"name": "A B", "value": "x"}]), "has a variable 'A B'"),
        (
            with_entry(env=[{"name": "A", "value": {"secret": "s"}}]),
            "the variable A of ecr-credential-provider",
        ),
    ],
)
def test_what_cannot_be_read_is_named_and_is_no_refusal(eks: FakeHost, content: Any, cause: str) -> None:
    put(eks, f"{EKS}/config.json", content)
    found = credential_providers.read(eks)
    assert found.providers == ()
    ((subject, said),) = found.problems
    assert subject == f"{EKS}/config.json"
    assert cause in said
    assert "'s'" not in said
    assert f"{EKS}/config.json" in found.paths


def test_a_missing_file_and_a_missing_plugin_are_named(eks: FakeHost) -> None:
    eks.path(f"{EKS}/ecr-credential-provider").unlink()
    program = f"{EKS}/ecr-credential-provider"
    assert credential_providers.read(eks).problems == (
        ("ecr-credential-provider", f"there is no program {program}"),
    )
    eks.path(f"{EKS}/config.json").unlink()
    ((subject, _),) = credential_providers.read(eks).problems
    assert subject == f"{EKS}/config.json"


def test_a_plugin_that_needs_a_service_account_is_left_out_and_named(eks: FakeHost) -> None:
    """KEP-4412: the kubelet alone can ask for such a token."""
    attributes = {"serviceAccountTokenAudience": "sts", "cacheType": "ServiceAccount"}
    put(eks, f"{EKS}/config.json", with_entry(tokenAttributes={**attributes, "requireServiceAccount": True}))
    found = credential_providers.read(eks)
    assert (found.providers, found.needing_account) == ((), ("ecr-credential-provider",))
    put(eks, f"{EKS}/config.json", with_entry(tokenAttributes={**attributes, "requireServiceAccount": False}))
    found = credential_providers.read(eks)
    assert ([provider.name for provider in found.providers], found.needing_account) == (
        ["ecr-credential-provider"],
        (),
    )


def test_of_the_kubelets_environment_plugins_have_the_way_and_no_secret(eks: FakeHost) -> None:
    kept = {
        "AWS_REGION": "eu-west-1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "SSL_CERT_FILE": "/etc/ssl/x.pem",
        "no_proxy": "169.254.169.254,10.0.0.0/8,[::1]",
    }
    secret = {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "topsecret",
        "AWS_SESSION_TOKEN": "topsecret",
        "AZURE_CLIENT_SECRET": "topsecret",
        "HTTP_PROXY": "http://user:topsecret@proxy.example",
    }
    others = {"PATH": "/usr/bin", "NODE_IP": "10.0.0.1", "AWS_ODD": "a\nprovider x", "AWS_EMPTY": ""}
    pairs = {**others, **kept, **secret}
    run_kubelet(
        eks, *FLAGS, environment="".join(f"{k}={v}\0" for k, v in pairs.items()).encode() + b"no-pair\0"
    )
    found = credential_providers.read(eks)
    assert dict(found.environment) == kept
    text = credential_providers.render(found)
    assert "topsecret" not in text
    assert "AKIA" not in text
    assert found.left_out == tuple(sorted(secret))
    assert found.problems == ()
    assert text.index("environment AWS_REGION=eu-west-1") < text.index("provider ")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12h0m0s", 43200),
        ("10m", 600),
        ("1m30.9s", 90),
        ("999ms", 0),
        ("90000ms", 90),
        ("1h1us1\u00b5s1ns", 3600),
        ("0", 0),
        (0, 0),
        (".5h", 1800),
        ("9" * 400 + "h", 86400),
    ],
)
def test_the_default_cache_duration_becomes_seconds(eks: FakeHost, written: Any, seconds: int) -> None:
    put(eks, f"{EKS}/config.json", with_entry(defaultCacheDuration=written))
    found = credential_providers.read(eks)
    assert found.problems == ()
    assert f"\ncache {seconds}\n" in credential_providers.render(found)


def test_patterns_are_written_in_lower_case_as_the_helper_asks(eks: FakeHost) -> None:
    """The path is kept: an image there is asked for."""
    put(eks, f"{EKS}/config.json", with_entry(matchImages=["*.Registry.EXAMPLE:5000/Team"]))
    found = credential_providers.read(eks)
    assert found.problems == ()
    assert "\nmatch *.registry.example:5000/Team\n" in credential_providers.render(found)


@pytest.mark.parametrize("pattern", ["r[a-z].example", "r\\*.example/team"])
def test_a_pattern_that_the_helper_does_not_match_is_named(eks: FakeHost, pattern: str) -> None:
    put(eks, f"{EKS}/config.json", with_entry(matchImages=["*.example", pattern, "a.example/[x]"]))
    found = credential_providers.read(eks)
    assert [provider.name for provider in found.providers] == ["ecr-credential-provider"]
    ((subject, cause),) = found.problems
    assert subject == "ecr-credential-provider"
    assert f"its pattern {pattern} has other characters" in cause


def test_the_helper_asks_by_the_list_as_it_is_written(fake_host: FakeHost, tmp_path: Path) -> None:
    """Both sides of the list, with what is awkward in YAML and in sh."""
    node = CredentialNode(tmp_path / "node")
    program = node.provide(f"env >{tmp_path}/environment; echo '{response('token')}'", name="plugin")
    config = with_entry(
        name="plugin",
        matchImages=["*.DKR.ECR.*.amazonaws.com"],
        args=["a  b", "$(id)", "'", "", "-n"],
        env=[{"name": "ODD", "value": " two  blanks $HOME ' \" \\ "}],
    )
    run_kubelet(
        fake_host,
        "/usr/bin/kubelet",
        "--image-credential-provider-config=/c",
        f"--image-credential-provider-bin-dir={program.parent}",
    )
    put(fake_host, "/c", config)
    (node.path / "providers").write_text(credential_providers.render(credential_providers.read(fake_host)))
    if subprocess.run(["id", "-u"], capture_output=True, check=True).stdout != b"0\n":
        pytest.skip("the helper answers root only")
    assert node.run(ECR)[0] == 0
    assert node.requests()[0].splitlines()[1] == "a  b $(id) '  -n"
    assert "ODD= two  blanks $HOME ' \" \\ \n" in (tmp_path / "environment").read_text()
