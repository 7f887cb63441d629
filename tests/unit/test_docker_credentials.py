"""The user's Docker configuration, as Docker, its helpers and its older versions leave it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from components.docker_credentials import Credentials, CredentialsError, of_registry

PAIR = base64.b64encode(b"robot:hunter2:more").decode()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def configure(folder: Path, **content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_a_configuration_there_are_none(folder: Path) -> None:
    assert of_registry("registry.example") is None
    configure(folder)
    assert of_registry("registry.example") is None


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v1/", "registry.example"),
        ("http://registry.example:5000", "registry.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
    ],
)
def test_what_docker_login_wrote_is_found(folder: Path, key: str, host: str) -> None:
    configure(folder, auths={"other.example": {"auth": "x"}, key: {"auth": PAIR}})
    assert of_registry(host) == Credentials("robot", "hunter2:more")


def test_an_identity_token_is_one_whatever_else_stands_there(folder: Path) -> None:
    entry = {
        "auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(),
        "identitytoken": "i",
    }
    configure(folder, auths={"a.azurecr.io": entry})
    assert of_registry("a.azurecr.io") == Credentials("", "i")


def test_an_entry_that_only_says_that_the_store_has_it_holds_none(folder: Path) -> None:
    configure(folder, auths={"registry.example": {}})
    assert of_registry("registry.example") is None


def test_a_registrys_own_helper_comes_before_the_store(folder: Path) -> None:
    answer = """read -r key; printf '{"ServerURL":"%s","Username":"%s","Secret":"for %s"}' "$key" """
    helper(folder, "own", f'{answer} AWS "$key"')
    helper(folder, "all", f'{answer} "<token>" "$key"')
    configure(folder, credHelpers={"registry.example:5000": "own"}, credsStore="all")
    assert of_registry("registry.example:5000") == Credentials("AWS", "for registry.example:5000")
    assert of_registry("other.example") == Credentials("", "for other.example")
    assert of_registry("docker.io") == Credentials("", "for https://index.docker.io/v1/")


def test_what_the_store_does_not_know_may_stand_in_the_file(folder: Path) -> None:
    helper(folder, "all", "echo credentials not found in native keychain; exit 1")
    configure(folder, credsStore="all", auths={"registry.example": {"auth": PAIR}})
    assert of_registry("registry.example") == Credentials("robot", "hunter2:more")
    assert of_registry("other.example") is None


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo hunter2; exit 1", "docker-credential-all ended with status 1 for registry.example"),
        ("echo hunter2", "docker-credential-all answers with something else than credentials"),
        ("echo '[\"hunter2\"]'", "docker-credential-all answers with something else than credentials"),
        (None, "docker-credential-all cannot be asked"),
    ],
)
def test_a_helper_that_fails_is_no_answer_and_its_words_are_not_told(
    folder: Path, script: str | None, cause: str
) -> None:
    if script:
        helper(folder, "all", script)
    configure(folder, credsStore="all")
    with pytest.raises(CredentialsError, match=cause) as raised:
        of_registry("registry.example")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "[]", "\ufeffx"])
def test_a_configuration_that_is_none_is_told(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CredentialsError, match=r"config.json (cannot be read|holds no object)"):
        of_registry("registry.example")


def test_a_damaged_entry_is_told_without_its_content(folder: Path) -> None:
    configure(folder, auths={"registry.example": {"auth": "hunter2*"}})
    with pytest.raises(CredentialsError, match=r"`auth` for registry\.example is damaged") as raised:
        of_registry("registry.example")
    assert "hunter2" not in str(raised.value)
