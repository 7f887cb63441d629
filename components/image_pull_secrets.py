"""imagePullSecrets of the pods that are made here: the names of Secrets that others make, and the credentials
of registries, from which a Secret is made beside the pods.

A credential never stands in a refusal, whatever the user called a secret.
"""

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from . import values
from .names import DOCKER_HUB_KEY, DOCKER_HUB_NAMES, PULL_SECRET
from .values import RefusedError

TYPE = "kubernetes.io/dockerconfigjson"
KEY = ".dockerconfigjson"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_KEYS = ("registry", "username", "password")


@dataclass(frozen=True)
class Login:
    """The credentials of one registry, which is named as images name it, with port and path where these have
    some. User name and password are text, or outputs of other resources.
    """

    registry: str
    username: Any
    password: Any


def read(value: Any) -> tuple[str | Login, ...]:
    """A list of names of Secrets and of credentials, as a configuration or a program gives it.

    Raises:
        RefusedError: an entry that cannot work. Of its values none is told.
    """
    found = tuple(_entry(number, item) for number, item in enumerate(values.items(value)))
    seen: dict[str, int] = {}
    for number, item in enumerate(found):
        of = f"the Secret {item}" if isinstance(item, str) else f"the registry {_key(item.registry)}"
        if of in seen:
            kind = "name the same Secret" if isinstance(item, str) else "are for the same registry"
            raise RefusedError(f"entries {seen[of]} and {number} {kind}")
        seen[of] = number
    if PULL_SECRET in found and logins(found):
        raise RefusedError(
            f"entry {found.index(PULL_SECRET)}: {PULL_SECRET} is the Secret that is made of the others here"
        )
    return found


def _entry(number: int, item: Any) -> str | Login:
    if isinstance(item, Login):
        item = {"registry": item.registry, "username": item.username, "password": item.password}
    if isinstance(item, Mapping):
        return _login(f"entry {number}", item)
    if not isinstance(item, str):
        raise RefusedError(
            f"entry {number}: must be the name of a Secret, or an object with {', '.join(_KEYS)}"
        )
    name = item.strip()
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"entry {number}: not the name of a Secret (lower-case letters, digits, - and ., at most 253)"
        )
    return name


def _login(entry: str, item: Mapping[Any, Any]) -> Login:
    if set(item) == {"name"}:
        raise RefusedError(f"{entry}: a Secret that others make is given by its name alone, as text")
    if set(item) != set(_KEYS):
        raise RefusedError(f"{entry}: must hold {', '.join(_KEYS)}, and nothing else")
    registry = _text(entry, "registry", item["registry"])
    if "://" in registry:
        raise RefusedError(
            f"{entry}: registry must have no http:// or https:// before it, as in an image's name"
        )
    if not _REGISTRY.fullmatch(registry):
        raise RefusedError(f"{entry}: registry must be a host such as registry.example:5000")
    return Login(registry, *(_credential(entry, key, item[key]) for key in ("username", "password")))


def _credential(entry: str, key: str, value: Any) -> Any:
    """A user name or password; an output is checked when it is known."""
    if isinstance(value, pulumi.Output):
        return value
    found = _text(entry, key, value)
    if key == "username" and ":" in found:
        raise RefusedError(
            f"{entry}: username must have no colon: registries take it for the password's beginning"
        )
    return found


def _text(entry: str, key: str, value: Any) -> str:
    try:
        # A blank may belong to a password; the end of the line from which it was read does not.
        found = value.strip("\r\n") if key == "password" and isinstance(value, str) else values.text(value)
    except RefusedError as refused:
        raise RefusedError(f"{entry}: {key} {refused.reason}") from None
    if not found.strip():
        raise RefusedError(f"{entry}: {key} is empty")
    return found


def logins(found: Collection[str | Login]) -> list[Login]:
    """The entries from which a Secret is made."""
    return [item for item in found if isinstance(item, Login)]


def references(found: Sequence[str | Login], made: pulumi.Input[str]) -> list[Any]:
    """imagePullSecrets of a pod; ``made`` is the name of the Secret that is made of the credentials."""
    names: list[pulumi.Input[str]] = [item for item in found if isinstance(item, str)]
    return [{"name": name} for name in [*names, *([made] if logins(found) else [])]]


def data(found: Collection[Login], key: str = "imagePullSecrets") -> pulumi.Output[dict[str, str]]:
    """The `data` of the Secret; an output that is a secret. `key` is the setting that they are from.

    Raises:
        pulumi.RunError: an output turns out to be no user name or password.
    """
    known = [
        {"registry": item.registry, "username": item.username, "password": item.password} for item in found
    ]
    return pulumi.Output.secret(pulumi.Output.from_input(known).apply(lambda logins: _data(logins, key)))


def _data(known: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    try:
        checked = [_login(f"credentials for {item['registry']}", item) for item in known]
    except RefusedError as refused:
        reason = refused.reason
    else:
        text = docker_config(checked)
        return {KEY: base64.b64encode(text.encode()).decode()}
    raise pulumi.RunError(f"soci:{key} [not shown]: {reason}. Remedy: give the output of the right resource")


def docker_config(known: Collection[Login]) -> str:
    """The Docker configuration of these credentials, whose values are text, as `kubectl create secret
    docker-registry` writes it."""
    auths = {}
    for login in known:
        pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        auths[_key(login.registry)] = {
            "username": login.username,
            "password": login.password,
            "auth": pair,
        }
    return json.dumps({"auths": auths}, sort_keys=True)


def _key(registry: str) -> str:
    return DOCKER_HUB_KEY if registry in DOCKER_HUB_NAMES else registry
