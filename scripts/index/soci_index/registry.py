"""Registries, as `oras` talks to them."""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .credentials import Credentials, is_ecr
from .errors import SociIndexError
from .oci import Json
from .processes import Children
from .references import Reference

_NOT_FOUND = ("not found", "name unknown", "manifest unknown")
_UNKNOWN_USER = ("unauthorized", "credential not found")


class RegistryError(SociIndexError):
    """A registry does not do what it is asked for."""


class NotFoundError(RegistryError):
    """There is no such thing in the registry."""


class DeniedError(RegistryError):
    """Who we are there may not do it."""


_REFUSALS = (
    (
        DeniedError,
        ("401", *_UNKNOWN_USER),
        "docker login {host}, with an account that may read and write {place}",
    ),
    (
        DeniedError,
        ("403", "denied", "forbidden"),
        "give the account of docker login {host} the right to read and write {place}",
    ),
    (RegistryError, ("server gave http response",), "--plain-http {host}, for a registry without TLS"),
    (RegistryError, ("certificate",), "--ca-file with the authority of {host}"),
    (
        RegistryError,
        ("429", "toomanyrequests"),
        "wait, or docker login {host}: registries let known users do more",
    ),
)


@dataclass(frozen=True)
class Registry:
    """The registries of a run.

    Attributes:
        oras: the program.
        children: runs it.
        scratch: a directory for what it writes.
        credentials: what it needs to know who we are.
        plain_http: hosts without TLS.
        ca_file: PEM of authorities, or empty.
    """

    oras: Path
    children: Children
    scratch: Path
    credentials: Credentials
    plain_http: tuple[str, ...] = ()
    ca_file: str = ""

    def manifest(self, source: Reference, reference: str) -> tuple[Json, bytes]:
        """A manifest or index: its descriptor, as the registry has it, and its bytes.

        Raises:
            NotFoundError: there is none.
            RegistryError: it cannot be had.
        """
        with tempfile.NamedTemporaryFile(dir=self.scratch) as file:
            command = ["manifest", "fetch", "--descriptor", "--output", file.name]
            text = self._run(source, [*command, *self._options(source.host), source.at(reference)])
            return json.loads(text), Path(file.name).read_bytes()

    def has(self, source: Reference, reference: str) -> bool:
        """Whether there is such a tag or digest; raises RegistryError."""
        command = ["manifest", "fetch", "--descriptor", *self._options(source.host), source.at(reference)]
        try:
            self._run(source, command)
        except NotFoundError:
            return False
        return True

    def small_blob(self, source: Reference, digest: str) -> bytes:
        """The bytes of a blob that fits into the memory; raises RegistryError."""
        command = ["blob", "fetch", "--output", "-", *self._options(source.host), source.at(digest)]
        return self._run(source, command)

    def save_blob(self, source: Reference, digest: str, file: Path) -> None:
        """Put a blob into a file; raises RegistryError."""
        command = ["blob", "fetch", "--output", str(file), *self._options(source.host), source.at(digest)]
        self._run(source, command)

    def open_blob(self, source: Reference, digest: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        """The process that writes a blob to its standard output, and why it cannot to `errors`."""
        command = ["blob", "fetch", "--output", "-", *self._options(source.host), source.at(digest)]
        return self.children.start(
            [self.oras, *command],
            self.credentials.environment(source.host),
            stderr=errors,
        )

    def referrers(self, source: Reference, digest: str) -> list[Json]:
        """Descriptors of what refers to a manifest: artifactType, digest. Raises RegistryError."""
        command = ["discover", "--format", "json", "--depth", "1", *self._options(source.host)]
        try:
            found = json.loads(self._run(source, [*command, source.at(digest)]))
        except NotFoundError:
            return []
        return list(found.get("referrers") or found.get("manifests") or [])

    def push(self, layout: Path, digest: str, target: Reference, tag: str = "") -> None:
        """Copy a manifest of an OCI layout, and what it refers to, to a repository; the tag last.

        What the repository has already is not asked of the layout, which need not hold it.

        Raises:
            RegistryError: it refuses.
        """
        command = ["cp", "--no-tty", "--from-oci-layout", *self._options(target.host, "to-")]
        self._run(target, [*command, f"{layout}@{digest}", f"{target.place}:{tag}" if tag else target.place])

    def copy(self, source: Reference, digest: str, target: Reference, tag: str = "") -> None:
        """Copy a manifest and what it refers to to another repository; an empty tag is none.

        Within a registry the blobs are mounted, not moved.

        Raises:
            RegistryError: one of them refuses.
        """
        options = [*self._options(source.host, "from-"), *self._options(target.host, "to-")]
        place = f"{target.place}:{tag}" if tag else target.place
        self._run(target, ["cp", "--no-tty", *options, source.at(digest), place], source.host)

    def _options(self, host: str, prefix: str = "") -> list[str]:
        options = [f"--{prefix}registry-config={path}" for path in self.credentials.configurations(host)]
        if host in self.plain_http:
            options.append(f"--{prefix}plain-http")
        if self.ca_file:
            options.append(f"--{prefix}ca-file={self.ca_file}")
        return options

    def _run(self, place: Reference, arguments: Sequence[str], other_host: str = "") -> bytes:
        environment = self.credentials.environment(place.host)
        if other_host:
            environment |= self.credentials.environment(other_host)
        status, output, errors = self.children.run([self.oras, *arguments], environment)
        if status:
            raise refusal(place, errors)
        return output


def refusal(place: Reference, errors: str) -> RegistryError:
    """Why oras did not do it, out of what it wrote to its standard error."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
    words = said[0].removeprefix("Error:").strip() if said else "oras ended without a word"
    lower = errors.lower()
    if helper := re.search(r'exec: "(docker-credential-[^"]+)": executable file not found', errors):
        cause = f"{place.host}: {helper[1]}, which the Docker configuration names, is not on PATH"
        return RegistryError(
            cause, f"install it, or take it out of the configuration and docker login {place.host}"
        )
    is_unknown = any(mark in lower for mark in _UNKNOWN_USER)
    if not is_unknown and any(mark in lower for mark in _NOT_FOUND):
        return NotFoundError(f"{place.host}: {words}", f"check the name: {place.name}")
    if is_unknown and is_ecr(place.host):
        remedy = (
            "docker-credential-ecr-login or the AWS CLI on PATH, and a role that may read and write there"
        )
        return DeniedError(f"{place.host}: {words}", remedy)
    for kind, marks, remedy in _REFUSALS:
        if any(_is_said(mark, lower) for mark in marks):
            return kind(f"{place.host}: {words}", remedy.format(host=place.host, place=place.place))
    return RegistryError(f"{place.host}: {words}", f"see to the registry {place.host}, and run this again")


def _is_said(mark: str, words: str) -> bool:
    """A status is a word of its own: ports and digests have such digits, too."""
    return bool(re.search(rf"\b{mark}\b", words)) if mark.isdecimal() else mark in words
