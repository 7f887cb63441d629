"""The parts of an image reference, by distribution's grammar, with the names that Docker Hub has."""

import re
from dataclasses import dataclass

DOCKER_HUB = "index.docker.io"  # as the credential helpers' protocol has it
HUB_NAMES = ("docker.io", DOCKER_HUB, "registry-1.docker.io")
HUB_API = "registry-1.docker.io"
LONGEST_NAME = 255  # of a file
# It becomes the name of a file; an address in brackets is none of these, and is refused.
_HOST = re.compile(r"(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"  # distribution's grammar of references
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_REFERENCE = re.compile(r"\w[\w.-]{0,127}|[a-z0-9+._-]+:[0-9a-f]{32,}", re.ASCII)


@dataclass(frozen=True)
class Image:
    """An image reference in its parts; ``name`` is as the pod has it, ``host`` in lower case."""

    name: str
    host: str
    repository: str
    reference: str  # tag or digest


def is_host(name: str) -> bool:
    """Whether a registry's host may be the name of a file."""
    return len(name) <= LONGEST_NAME and bool(_HOST.fullmatch(name))


def parse_image(name: str) -> Image | None:
    """The parts of an image reference; None for one that names no image of a registry."""
    rest, _, digest = name.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and (
        any(character in head for character in ".:") or head == "localhost" or head != head.lower()
    ):
        host, path = head.lower(), tail
    else:
        host, path = DOCKER_HUB, rest
    host = DOCKER_HUB if host in HUB_NAMES else host
    repository, _, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    reference = digest or tag or "latest"
    if not (is_host(host) and _REPOSITORY.fullmatch(repository) and _REFERENCE.fullmatch(reference)):
        return None
    return Image(name, host, repository, reference)
