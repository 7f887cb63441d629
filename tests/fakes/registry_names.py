"""What registries are called in credentials, for every reader of such names: one table, so that all agree.

The helper matches in sh (the kubelet's ``matchImages``) and in awk (keys of answers and of Docker
configurations), the agent in Python (keys of pull secrets), the components in Python (this machine's Docker
configuration). Docker Hub, whose names differ from reader to reader, is in their own tests.
"""

import base64
from typing import Any

# A key's host, the host that is asked for, whether the one is for the other: the kubelet's rules.
NAMES = (
    ("registry.example", "registry.example", True),
    ("registry.example", "other.example", False),
    ("registry.example", "a.registry.example", False),
    ("a.registry.example", "registry.example", False),
    ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", True),
    ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com.cn", False),
    ("*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", False),
    ("*.*.*.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", True),
    ("1234*.dkr.ecr.eu-*-?.amazonaws.com", "12345.dkr.ecr.eu-west-1.amazonaws.com", True),
    ("1234*.dkr.ecr.eu-*-?.amazonaws.com", "12345.dkr.ecr.eu-west-10.amazonaws.com", False),
    ("Registry.EXAMPLE", "registry.example", True),
    ("*.EXAMPLE", "registry.example", True),
    ("registry.example", "Registry.Example", True),
    ("registry.example", "registry.example:5000", False),
    ("registry.example:5000", "registry.example:5000", True),
    ("registry.example:5000", "registry.example", False),
    ("registry.example:5001", "registry.example:5000", False),
    ("*:5000", "registry:5000", True),
    ("*.*.*", "registry.example:5000", False),
    ("registry?example", "registry.example", False),
    ("registry*", "registry.example", False),
    ("reg_istry.example", "reg_istry.example", True),
    ("re+gistry.example", "reegistry.example", False),
)


def basic(text: str) -> str:
    """A user with password, as an ``auth`` has it."""
    return base64.b64encode(text.encode()).decode()


TOKEN = "<token>"  # the user by which the helpers' protocol knows an identity token

# An entry of ``auths``, and the user with password in it; None for none, which a reader may also refuse.
ENTRIES: tuple[tuple[dict[str, Any], tuple[str, str] | None], ...] = (
    ({"auth": basic("user:pass:word")}, ("user", "pass:word")),
    ({"auth": basic('user:é"\\\n\x7f😀')}, ("user", 'é"\\\n\x7f😀')),
    ({"auth": basic("u:p"), "username": "other", "password": "o", "email": "a@b"}, ("u", "p")),
    ({"auth": basic("user:word\0\0")}, ("user", "word")),
    ({"username": "user", "password": 'wo"rd\\'}, ("user", 'wo"rd\\')),
    ({"auth": "", "username": "user", "password": "word"}, ("user", "word")),
    ({"auth": basic("user:"), "identitytoken": "long"}, (TOKEN, "long")),
    ({"identitytoken": "", "auth": basic("u:p")}, ("u", "p")),
    ({}, None),
    ({"auth": ""}, None),
    ({"auth": "?"}, None),
    ({"auth": basic("user")}, None),
    ({"auth": basic("user:")}, None),
    ({"auth": basic(":word")}, None),
    ({"username": "user"}, None),
    ({"password": "word"}, None),
    ({"username": "", "password": "word"}, None),
)
