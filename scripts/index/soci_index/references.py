"""Image references, by distribution's grammar, and where the indexed image goes."""

import re
from dataclasses import dataclass, replace

from .errors import UsageError

DOCKER_HUB = "docker.io"
SUFFIX = "-soci"  # of the indexed image's tag, unless another is asked for
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """An image in a registry.

    Attributes:
        name: as the user wrote it.
        host: of the registry, with its port.
        repository: with `library/` on Docker Hub.
        tag: empty for a reference by digest alone.
        digest: empty for a reference by tag.
    """

    name: str
    host: str
    repository: str
    tag: str
    digest: str

    @property
    def place(self) -> str:
        """Registry and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def pinned(self) -> str:
        """What is read: the digest, where there is one, else the tag."""
        return f"{self.place}@{self.digest}" if self.digest else self.tagged

    @property
    def tagged(self) -> str:
        """Its place by the tag, whatever it is pinned to."""
        return f"{self.place}:{self.tag}"

    def at(self, reference: str) -> str:
        """A tag or digest of the same repository."""
        return f"{self.place}{'@' if reference.startswith('sha256:') else ':'}{reference}"


def parse(name: str) -> Reference:
    """The parts of an image reference.

    Raises:
        UsageError: it names no image of a registry.
    """
    rest, at, digest = name.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        host, path = head, tail
    else:
        host, path = DOCKER_HUB, rest
    host = DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host
    repository, colon, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    is_cut = bool(colon) and not tag
    tag = tag or ("" if digest else "latest")
    if is_cut or not (
        _HOST.fullmatch(host)
        and _REPOSITORY.fullmatch(repository)
        and (_TAG.fullmatch(tag) if tag else True)
        and (_DIGEST.fullmatch(digest) if at else True)
    ):
        raise UsageError(f"{name!r} is no image reference", "write registry/repository:tag, or @sha256:…")
    return Reference(name, host, repository, tag, digest)


def target_of(
    source: Reference, *, suffix: str = SUFFIX, tag: str = "", repository: str = "", in_place: bool = False
) -> Reference:
    """Where the indexed image of a source goes.

    Args:
        source: the image.
        suffix: what its tag gets behind it; of a digest alone the tag is sha256-<hex>.
        tag: in the place of that.
        repository: another one; with a slash at its end, the prefix of the source's own.
        in_place: the source's own tag is moved.

    Raises:
        UsageError: there is no such place.
    """
    own = source.tag or source.digest.replace(":", "-")
    if in_place and not source.tag:
        raise UsageError(f"{source.name} has no tag that could be moved", "name:tag, or --to-tag")
    chosen = tag or (own if in_place else f"{own}{suffix}")
    if not _TAG.fullmatch(chosen):
        raise UsageError(f"{chosen!r}, for {source.name}, is no tag", "--to-tag or --suffix with another one")
    place = source
    if repository:
        whole = f"{repository}{source.repository}" if repository.endswith("/") else repository
        if ":" in whole.rpartition("/")[2] or "@" in whole:
            raise UsageError(f"{repository!r} is no repository", "registry.example/team/image")
        place = parse(f"{whole}:{chosen}")
    return replace(place, name=f"{place.place}:{chosen}", tag=chosen, digest="")
