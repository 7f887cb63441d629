"""Who we are to registries: the user's Docker configuration, and for ECR what AWS's environment gives.

oras reads the user's configuration itself, helpers included. For a host of ECR that it does not name, a
second one in the run's own directory names a credential helper: AWS's own, `docker-credential-ecr-login`, or
one that hands on a token of the AWS CLI, or of ecr_token.py without it, out of the environment of oras alone.
No secret is written to a file or stands on a command line.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import ecr_token
from .ecr_token import HOST, PUBLIC, PUBLIC_REGION
from .errors import SociIndexError

AWS_HELPER = "ecr-login"
OWN_HELPER = "soci-index"
TOKEN_SECONDS = 6 * 3600  # of the twelve hours that a token of ECR lives
# The helpers' protocol: docker/docker-credential-helpers.
_HELPER = """#!/bin/sh
read -r host
host=${host#https://}
name=SOCI_INDEX_$(printf %s "${host%%/*}" | tr -c 'A-Za-z0-9' _)
eval "secret=\\${$name-}"
[ "$1" = get ] && [ "$secret" ] || { echo 'credentials not found in native keychain'; exit 1; }
printf '{"ServerURL":"%s","Username":"AWS","Secret":"%s"}\\n' "$host" "$secret"
"""


@dataclass
class Credentials:
    """What oras needs to know who we are.

    Attributes:
        directory: the run's own, for a configuration and a helper.
    """

    directory: Path
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def configurations(self, host: str) -> list[Path]:
        """The Docker configurations for a registry: where oras looks first comes first."""
        helper = self._helper(host)
        if not helper:
            return []
        own = self.directory / f"docker-{helper}.json"
        content = json.dumps({"credHelpers": {host: helper}})
        with self._lock:
            known = json.loads(own.read_text())["credHelpers"] if own.exists() else {}
            if host not in known:
                content = json.dumps({"credHelpers": {**known, host: helper}})
                own.write_text(content)
        return [users_configuration(), own]

    def environment(self, host: str) -> dict[str, str]:
        """What oras's environment has besides ours.

        Raises:
            SociIndexError: a token of ECR is needed, and AWS does not give one.
        """
        if self._helper(host) != OWN_HELPER:
            return {}
        with self._lock:
            program = self.directory / f"docker-credential-{OWN_HELPER}"
            if not program.exists():
                program.write_text(_HELPER)
                program.chmod(0o700)
            token, until = self._tokens.get(host, ("", 0.0))
            if until < time.monotonic():
                token = _token(host)
                self._tokens[host] = token, time.monotonic() + TOKEN_SECONDS
        path = f"{self.directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"PATH": path, variable(host): token}

    def _helper(self, host: str) -> str:
        """The credential helper for a host of ECR that the user has set nothing for; else empty."""
        if not is_ecr(host) or is_configured(users_configuration(), host):
            return ""
        if shutil.which(f"docker-credential-{AWS_HELPER}"):
            return AWS_HELPER
        is_public = host == PUBLIC and not ecr_token.is_given(os.environ)  # nobody has to be known there
        return "" if is_public and not shutil.which("aws") else OWN_HELPER


def variable(host: str) -> str:
    """The environment variable with which a token goes to our helper."""
    return "SOCI_INDEX_" + re.sub("[^A-Za-z0-9]", "_", host)


def is_ecr(host: str) -> bool:
    """Whether a registry is one of Amazon's ECR."""
    return host == PUBLIC or bool(HOST.fullmatch(host))


def users_configuration() -> Path:
    """The file of the user's Docker configuration, whether it is there or not."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def is_configured(path: Path, host: str) -> bool:
    """Whether a Docker configuration says something of this host itself."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return any(
            key.removeprefix("https://").removeprefix("http://").partition("/")[0] == host
            for section in ("auths", "credHelpers")
            for key in found.get(section) or {}
        )
    except (OSError, ValueError, AttributeError):
        return False


def _token(host: str) -> str:
    if not shutil.which("aws"):
        return ecr_token.password(host)
    found = HOST.fullmatch(host)
    service, region = ("ecr", found["region"]) if found else ("ecr-public", PUBLIC_REGION)
    command = ["aws", service, "get-login-password", "--region", region]
    remedy = f"log in to AWS, or docker login {host}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SociIndexError(
            f"the AWS CLI cannot be asked for a token of {host} ({error})", remedy
        ) from error
    if done.returncode or not done.stdout.strip():
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise SociIndexError(f"the AWS CLI gives no token of {host}: {said}", remedy)
    return done.stdout.strip()
