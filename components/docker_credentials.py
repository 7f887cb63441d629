"""The credentials of registries that the user's Docker configuration has, credential helpers included.

What it holds and where it is: docker/cli, cli/config; the helpers' protocol:
docker/docker-credential-helpers.
"""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .names import DOCKER_HUB_KEY, DOCKER_HUB_NAMES

HELPER_SECONDS = 30
NOT_FOUND = "credentials not found in native keychain"
IDENTITY_TOKEN = "<token>"  # the user name with which a helper says that its secret is one


class CredentialsError(Exception):
    """The configuration or a helper of it failed; the message holds no credentials."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password; without a user name, `secret` is an identity token."""

    username: str
    secret: str


def of_registry(host: str) -> Credentials | None:
    """The credentials for a registry's host (with its port), None when there are none.

    Raises:
        CredentialsError: the configuration cannot be read, or the helper that it names fails.
    """
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{path} cannot be read ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise CredentialsError(f"{path} holds no object")
    key = DOCKER_HUB_KEY if host in DOCKER_HUB_NAMES else host
    helpers = found.get("credHelpers")
    helper = (helpers.get(key) if isinstance(helpers, dict) else None) or found.get("credsStore")
    # What a store does not know may stand in the file all the same, from before the store was chosen.
    return (_of_helper(str(helper), key) if helper else None) or _of_file(found, host)


def _of_helper(name: str, key: str) -> Credentials | None:
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
        if done.returncode and NOT_FOUND in done.stdout:
            return None
        if done.returncode:
            raise CredentialsError(f"{program} ended with status {done.returncode} for {key}")
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialsError(f"{program} cannot be asked ({type(error).__name__})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise CredentialsError(f"{program} answers with something else than credentials for {key}") from error
    return Credentials("" if username == IDENTITY_TOKEN else username, secret)


def _of_file(found: dict[str, Any], host: str) -> Credentials | None:
    auths = found.get("auths")
    by_host = {_host(key): entry for key, entry in auths.items()} if isinstance(auths, dict) else {}
    entry = by_host.get(_host(DOCKER_HUB_KEY) if host in DOCKER_HUB_NAMES else host)
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):
        return Credentials("", str(entry["identitytoken"]))
    username, secret = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"])).decode()
        except ValueError as error:
            raise CredentialsError(f"the Docker configuration's `auth` for {host} is damaged") from error
        username, _, secret = pair.partition(":")
        secret = secret.strip("\0")
    return Credentials(username, secret) if username and secret else None


def _host(key: str) -> str:
    """The host in a key, which older versions of Docker wrote as a URL."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]
