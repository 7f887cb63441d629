"""The daemon's Docker credential helper, docker-credential-soci-cluster: where it is, and how it is asked.

Protocol: github.com/docker/docker-credential-helpers.
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import credential_providers
from .credential import Credential
from .daemon_environment import in_both_cases
from .errors import InstallError, clean
from .host import Host, Result
from .pull_secret_content import parse_file

FOLDER = "/opt/soci-cluster/credentials"  # the daemon's Docker configuration
HELPER = f"{FOLDER}/docker-credential-soci-cluster"
LIST = f"{FOLDER}/providers"
CONFIG = '{"credsStore":"soci-cluster"}\n'
PAYLOAD = Path(__file__).resolve().parents[1]
MEMORY = "/run/soci-cluster"  # which the uninstall removes
FOR_NOW = f"{MEMORY}/first-install"
SECONDS = 30.0
SOURCE_SECONDS = 16.0  # the helper's own limit, and a little
NOT_FOUND = "credentials not found in native keychain"  # a helper's word for none, which it prints
# All at once, with the daemon's environment, of which no word is in the command line.
SOURCES = """
set -f
IFS='
'
for pair in $(tr '\\0' '\\n' <"/proc/$1/environ"); do
  case ${pair%%=*} in '' | *[!A-Za-z0-9_]* | [0-9]*) ;; *) export "$pair" ;; esac
done
unset IFS
helper=$2
shift 2
for host; do
  printf '%s' "$host" | "$helper" source | while IFS= read -r line; do echo "$host $line"; done &
done
wait
"""


@dataclass(frozen=True)
class Source:
    """Where the daemon's credentials for a registry come from, in the helper's words, and which sources
    failed, each with its cause."""

    found: str
    failed: tuple[str, ...] = ()


def get(
    host: Host, registry: str, environment: Mapping[str, str], *, is_own: bool = False
) -> Credential | None:
    """What the helper knows for a registry; None when it knows nothing.

    On a node that has none yet, before a first install, it is there only while it runs, in memory.

    Args:
        host: the node.
        registry: the registry's host, with its port.
        environment: the daemon's proxies and trust, with which plugins reach their cloud.
        is_own: without the pull secrets of pods.

    Raises:
        InstallError: it failed, which does not say that there are no credentials.
        OSError: its files cannot be written.
    """

    verb, variables = "own" if is_own else "get", in_both_cases(environment)

    def ask(*command: str) -> Result:
        return host.run(*command, verb, text=registry, timeout=SECONDS, environment=variables)

    result = ask(HELPER)
    if result.code == 127:
        texts = {
            HELPER: (PAYLOAD / Path(HELPER).name).read_text(encoding="utf-8"),
            LIST: credential_providers.render(credential_providers.read(host)),
        }
        try:
            for path, text in texts.items():
                host.write(f"{FOR_NOW}/{Path(path).name}", text.encode(), 0o600)
            # By sh: /run may be mounted noexec.
            result = ask("sh", f"{FOR_NOW}/{Path(HELPER).name}")
        finally:
            for folder in (FOR_NOW, f"{MEMORY}/credentials"):  # what it keeps for the next question
                shutil.rmtree(host.path(folder), ignore_errors=True)
            with contextlib.suppress(OSError):
                host.path(MEMORY).rmdir()
    if result.code and NOT_FOUND in result.output:
        return None
    found = None if result.code else parse_file(result.output)
    if found is None:
        # Its output is not told: it may hold the secret.
        reason = f"status {result.code}" if result.code else "it printed something else than credentials"
        raise InstallError(
            "download",
            f"the node's credential helper failed for {registry}: {reason}",
            f"see why {HELPER} fails on the node",
        )
    return found


def sources(host: Host, pid: int, registries: Sequence[str]) -> dict[str, Source]:
    """Registry to the source of its credentials, as the daemon of this process gets them.

    Raises:
        ValueError: the daemon asks no helper of ours, or nobody knows.
    """
    variables = host.environment_of(pid)
    if variables is None:
        raise ValueError("the daemon's environment cannot be seen")
    if (configuration := variables.get("DOCKER_CONFIG", "")) != FOLDER:
        raise ValueError(f"the daemon has DOCKER_CONFIG={configuration}, not {FOLDER}")
    command = ("env", "-i", "sh", "-c", SOURCES, "sources", str(pid), HELPER, *registries)
    result = host.run(*command, timeout=SOURCE_SECONDS)
    if result.code != 0:
        raise ValueError(clean(result.last_error))
    return parse_sources(result.output)


def parse_sources(said: str) -> dict[str, Source]:
    """Registry to source, of what SOURCES prints."""
    lines: dict[str, list[str]] = {}
    for line in said.splitlines():
        registry, _, words = line.partition(" ")
        lines.setdefault(registry, []).append(words)
    return {
        registry: Source(words[-1], tuple(word.removeprefix("failed ") for word in words[:-1]))
        for registry, words in sorted(lines.items())
    }
