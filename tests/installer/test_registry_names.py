"""Each reader of registries' names and of Docker's entries, on the same tables."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from agent import credential_providers
from agent.credential_providers import Provider, Providers
from agent.image_reference import parse_image
from agent.pull_secret_content import read_secret

from components.docker_credentials import Credentials, CredentialsError, of_registry
from tests.fakes.credential_node import SHELLS, V1, CredentialNode, response
from tests.fakes.registry_names import ENTRIES, NAMES, TOKEN

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the helper answers root only")


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> CredentialNode:
    return CredentialNode.under(request.param, tmp_path / "node")


def secret_of(auths: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}}


@AS_ROOT
@pytest.mark.parametrize(("key", "host", "matches"), NAMES)
def test_the_helper_asks_a_plugin_for_what_its_patterns_match(
    node: CredentialNode, key: str, host: str, matches: bool
) -> None:
    """The shell's matcher alone: the answer is for the very host."""
    program = node.answer(response("token", host), name="plugin")
    provider = Provider("plugin", str(program), V1, (key,))
    list_of_plugins = credential_providers.render(Providers(providers=(provider,)))
    (node.path / "providers").write_text(list_of_plugins)
    assert (node.run(host)[0] == 0) is matches
    assert len(node.requests()) == matches


@AS_ROOT
@pytest.mark.parametrize(("key", "host", "matches"), NAMES)
def test_the_helper_takes_from_an_answer_what_is_for_the_host(
    node: CredentialNode, key: str, host: str, matches: bool
) -> None:
    """The matcher in awk alone: the plugin is for the very host."""
    node.answer(response("token", key), match=[host.lower()])
    assert (node.run(host)[0] == 0) is matches
    assert len(node.requests()) == 1


@pytest.mark.parametrize(("key", "host", "matches"), NAMES)
def test_a_pull_secret_is_for_the_images_that_its_key_matches(key: str, host: str, matches: bool) -> None:
    image = parse_image(f"{host}/team/app:1")
    assert image
    entries = read_secret(secret_of({key: {"username": "u", "password": "p"}})).entries
    assert any(entry.is_for(image) for entry in entries) is matches


@AS_ROOT
@pytest.mark.parametrize(("entry", "expected"), ENTRIES)
def test_the_helper_reads_an_entry(
    node: CredentialNode, entry: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    node.docker(json.dumps({"auths": {"registry.example": entry}}, indent="\t"))
    status, output, _ = node.run("registry.example")
    answer = json.loads(output.encode("utf-8", "surrogateescape")) if status == 0 else None
    assert (answer and (answer["Username"], answer["Secret"])) == expected


@pytest.mark.parametrize(("entry", "expected"), ENTRIES)
def test_a_pull_secrets_entry_is_read(entry: dict[str, Any], expected: tuple[str, str] | None) -> None:
    content = read_secret(secret_of({"registry.example": entry}))
    found = [(entry.credential.user, entry.credential.secret) for entry in content.entries]
    assert found == ([expected] if expected else [])
    assert bool(content.problems) is (expected is None)


@pytest.mark.parametrize(("entry", "expected"), ENTRIES)
def test_this_machines_entry_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: dict[str, Any],
    expected: tuple[str, str] | None,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example": entry}}))
    try:
        found = of_registry("registry.example")
    except CredentialsError:  # a damaged one is refused where somebody can mend it
        found = None
    user, secret = expected or ("", "")
    assert found == (Credentials("" if user == TOKEN else user, secret) if expected else None)
