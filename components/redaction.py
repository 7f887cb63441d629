"""How values are shown in refusals, and how secret ones are kept out of them."""

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pulumi

# What comes before the @ of an address (that of an image's digest excepted), what comes after its ? or #, and
# what YAML calls an entry of a mapping, as a kubeconfig holds its token.
_CREDENTIALS = re.compile(r":\S*@(?!sha256:)|://\S*[?#]|\?\S*=|:\s")
# Names of what people keep secrets in; a user and a password, in the place of an address.
_SECRET_NAME = re.compile(r"passw|token|secret|credential|user_?data|private_?key|api_?key", re.IGNORECASE)
_PAIR = re.compile(r"(?:\w+://)?(?!\w+://)[^\s:/@]+:(?!\d+/?$)[^\s@]+$")
# What begins or names a secret wherever it is written: a header's value, a word and its value, tokens of
# Kubernetes and OIDC (JWT), GitHub and AWS.
_SECRET = re.compile(
    r"^(?:Bearer|Basic)\s|(?i:passw\w*|token|secret|pwd|(?:api|access|private)[_-]?key)\w*=|\beyJ[\w-]+\."
    r"|\bgh[a-z]_\w|\b(?:AKIA|ASIA)[A-Z0-9]{8}"
)
_HOST = re.compile(r"[^\s:/@]+:\d+(?:/|$)")


def is_config_secret(key: str) -> bool:
    """Whether Pulumi's configuration calls the value of a key, without its `soci:`, a secret."""
    # The variable is where `get_config_env` finds the values, too.
    name = f"soci:{key}"
    return pulumi.runtime.is_config_secret(name) or name in pulumi.runtime.get_config_secret_keys_env()


def shortened(value: Any) -> str:
    """A plain value in one short line; a long one by its beginning."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    text = value if isinstance(value, str) else json.dumps(value, default=lambda item: type(item).__name__)
    return text if len(text) <= 80 else f"{text[:60]}…"


def credentials_in(value: Any) -> list[str]:
    """The texts in a value that may hold credentials, wherever it was written: none of them may be shown."""
    return [
        text
        for text in _texts(value)
        if _CREDENTIALS.search(text) or _SECRET.search(text) or _is_encoded(text)
    ]


def may_hold_secret(path: str, value: Any) -> bool:
    """Whether a value is kept back for the names that lead to it or are in it, or as a private key."""
    names = [path, *_names(value)]
    return any(map(_SECRET_NAME.search, names)) or any("-----BEGIN" in text for text in _texts(value))


def is_pair(value: Any) -> bool:
    """Whether a value is a user and a password rather than an address."""
    return any(map(_PAIR.match, _texts(value)))


def is_pair_of_no_host(value: Any) -> bool:
    """Whether a value is a user and a password where addresses of hosts and of AWS (ARN) stand, too."""
    texts = (text for text in _texts(value) if not text.startswith("arn:"))
    return any(_PAIR.match(text) and not _HOST.match(text.partition("://")[2] or text) for text in texts)


def _is_encoded(text: str) -> bool:
    """Whether a text is a user and a password in Base64, as a Docker configuration has them."""
    try:
        decoded_text = base64.b64decode(text, validate=True).decode("ascii")
    except ValueError:
        return False
    return decoded_text.isprintable() and bool(re.fullmatch(r"[^\s:]+:\S+", decoded_text))


def without_secret(message: str, secret: Any) -> str:
    """The message, without any part of a secret value."""
    parts = sorted({text for text in _texts(secret) if text}, key=len, reverse=True)
    patterns = (
        re.escape(text) if len(text) > 3 else rf"(?<![\w.]){re.escape(text)}(?![\w.])" for text in parts
    )
    return re.sub("|".join(patterns), "[secret]", message) if parts else message


def _names(value: Any) -> Iterable[str]:
    """Every key in a value, which may be an object or a list in JSON."""
    return (text for text, is_name in _parts(value) if is_name)


def _texts(value: Any) -> Iterable[str]:
    """Every text in a value, which may be an object or a list in JSON."""
    return (text for text, _ in _parts(value))


def _parts(value: Any, is_name: bool = False) -> Iterable[tuple[str, bool]]:
    """Every text in a value, and whether it is a key, or in one."""
    if isinstance(value, str):
        found = decoded(value)
        yield from [(value.strip(), is_name)] if found is value else _parts(found, is_name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_parts(key, True), *_parts(item, is_name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, is_name)
    elif value is not None:
        yield str(value), is_name


def decoded(value: Any) -> Any:
    """The object or list that a text is in JSON; any other value as it is."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return found if isinstance(found, dict | list) else value
