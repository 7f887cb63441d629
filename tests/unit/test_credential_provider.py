"""The stand-in for a credential provider plugin of the kubelet: what it answers, and how it does not."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nodes
import pytest
from awkward_registry import AwkwardRegistry, User
from settings import HERE

ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
IMAGE = f"{ECR}/team/app:1"
API = "credentialprovider.kubelet.k8s.io/v1"


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the plugin as the kubelet does, with those lines in its file."""
    shutil.copy2(HERE / "node/ecr-credential-provider", tmp_path)

    def run(*lines: str, image: str = IMAGE, version: str = API) -> subprocess.CompletedProcess[str]:
        (tmp_path / "stand-in").write_text("\n".join([*lines, ""]))
        request = {"kind": "CredentialProviderRequest", "apiVersion": version, "image": image}
        return subprocess.run(
            [tmp_path / "ecr-credential-provider"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=1 if "behaviour=hang" in lines else 20,
            check=False,
        )

    return run


@pytest.fixture
def registry():
    made = AwkwardRegistry("http://127.0.0.1:1")
    made.users = {"AWS": User("")}
    yield made
    made.close()


def test_it_answers_with_a_token_of_ecr_for_half_of_its_life(ask, registry, tmp_path):
    registry.token_seconds = 100
    done = ask(f"api={registry.api.url}")
    answer = json.loads(done.stdout)
    assert (answer["kind"], answer["apiVersion"]) == ("CredentialProviderResponse", API)
    assert answer["cacheKeyType"] == "Registry"
    assert 45 <= int(answer["cacheDuration"].removesuffix("s")) <= 50
    assert answer["auth"][ECR]["username"] == "AWS"
    assert len(base64.b64decode(answer["auth"][ECR]["password"])) > 1000
    calls = (tmp_path / "calls").read_text()
    assert calls.split()[1:] == [IMAGE, "answer"]
    assert answer["auth"][ECR]["password"] not in calls


def test_a_token_without_life_is_not_to_be_kept(ask, registry):
    registry.token_seconds = 1
    assert json.loads(ask(f"api={registry.api.url}").stdout)["cacheDuration"] is None


@pytest.mark.parametrize(
    ("lines", "image", "version", "words"),
    [
        ([], IMAGE, API, "no EC2 IMDS role found"),
        (["behaviour=fail"], IMAGE, API, "AccessDeniedException"),
        (["api=http://127.0.0.1:1"], IMAGE, API, "operation error ECR"),
        (["api=http://127.0.0.1:1"], "quay.io/a", API, "is not a valid ECR repository URL"),
        (["api=http://127.0.0.1:1"], IMAGE, "example/v1", "no kind is registered"),
    ],
)
def test_its_failures_are_told(ask, lines, image, version, words):
    done = ask(*lines, image=image, version=version)
    assert done.returncode == 1
    assert done.stdout == ""
    assert words in done.stderr


def test_it_answers_for_further_hosts_when_told_to(ask, registry):
    done = ask(f"api={registry.api.url}", "hosts='*.example *.registry.lab'", image="a.registry.lab/app")
    assert list(json.loads(done.stdout)["auth"]) == ["a.registry.lab"]


def test_it_can_be_out_of_order(ask):
    assert json.loads(ask("behaviour=null").stdout)["auth"] is None
    with pytest.raises(json.JSONDecodeError):
        json.loads(ask("behaviour=rubbish").stdout)
    with pytest.raises(subprocess.TimeoutExpired):
        ask("behaviour=hang")


def test_it_can_fail_for_all_but_the_kubelet(ask, registry):
    done = ask(f"api={registry.api.url}", "others=fail")
    assert "AccessDeniedException" in done.stderr


def test_kubelets_of_the_lab_have_it_for_the_hosts_of_ecr():
    (provider,) = nodes.credential_provider_configuration()["providers"]
    assert provider["name"] == "ecr-credential-provider"
    assert "*.dkr.ecr.*.amazonaws.com" in provider["matchImages"]
    unit = (HERE / "node/kubelet.service").read_text()
    assert f"--image-credential-provider-config=/etc/{nodes.CREDENTIAL_PROVIDERS}/config.json" in unit
    assert f"--image-credential-provider-bin-dir=/etc/{nodes.CREDENTIAL_PROVIDERS} " in unit
