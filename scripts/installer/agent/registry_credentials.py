"""What pull secrets say: which credentials there are for which registries, and which images they are for.

A key of ``auths`` is matched with an image as the kubelet does it (kubernetes,
pkg/credentialprovider/keyring.go): as many parts of the domain, each a glob, the same port, a prefix of the
path.
"""

import base64
import binascii
import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .registry_auth import IDENTITY_TOKEN, Credential

Json = dict[str, Any]

DOCKER_HUB = "index.docker.io"  # as the credential helpers' protocol has it
_HUB = ("docker.io", DOCKER_HUB, "registry-1.docker.io")
HUB_API = "registry-1.docker.io"
# It becomes the name of a file; an address in brackets is none of these, and is refused.
_HOST = re.compile(r"(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"  # distribution's grammar of references
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_REFERENCE = re.compile(r"\w[\w.-]{0,127}|[a-z0-9+._-]+:[0-9a-f]{32,}", re.ASCII)
_TYPES = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


@dataclass(frozen=True)
class Image:
    """An image reference in its parts; ``name`` is as the pod has it, ``host`` in lower case."""

    name: str
    host: str
    repository: str
    reference: str  # tag or digest


@dataclass(frozen=True)
class Entry:
    """A key of ``auths``: the registries and the beginning of the paths that it is for; its credential."""

    host: str  # may hold globs
    path: str
    credential: Credential

    @property
    def is_glob(self) -> bool:
        return any(character in self.host for character in "*?[")

    def is_for(self, image: Image) -> bool:
        name, _, port = self.host.partition(":")
        image_name, _, image_port = image.host.partition(":")
        parts, image_parts = name.split("."), image_name.split(".")
        return (
            port == image_port
            and len(parts) == len(image_parts)
            and image.repository.startswith(self.path)
            and all(map(fnmatch.fnmatchcase, image_parts, parts))
        )


@dataclass(frozen=True)
class Content:
    """What a secret holds, and what of it cannot be used, in words without a secret."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()


def is_host(name: str) -> bool:
    """Whether a registry's host may be the name of a file."""
    return len(name) <= 253 + len(":65535") and bool(_HOST.fullmatch(name))


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
    host = DOCKER_HUB if host in _HUB else host
    repository, _, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    reference = digest or tag or "latest"
    if not (is_host(host) and _REPOSITORY.fullmatch(repository) and _REFERENCE.fullmatch(reference)):
        return None
    return Image(name, host, repository, reference)


def read_secret(secret: Json) -> Content:
    """What a Secret, as the API's JSON, says of registries; never raises."""
    kind = str(secret.get("type"))
    key = _TYPES.get(kind)
    if not key:
        return Content(problems=(f"its type is {kind[:60]}, none of a registry's credentials",))
    try:
        content = json.loads(base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True))
        auths = content.get("auths") if key == ".dockerconfigjson" else content
        if not isinstance(auths, dict):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Content(problems=(f"its {key} is no JSON as Docker writes it",))
    entries, problems = [], []
    for name, auth in auths.items():
        found = _entry(str(name), auth if isinstance(auth, dict) else {})
        if isinstance(found, Entry):
            entries.append(found)
        else:
            problems.append(found)
    return Content(tuple(entries), tuple(problems))


def _entry(key: str, auth: Mapping[str, Any]) -> Entry | str:
    """An entry, or why there is none."""
    said = repr(key[:80])
    host, slash, path = re.sub(r"^https?://", "", key.strip()).partition("/")
    host = host.lower()
    path = re.sub(r"^v[12](?:/|$)", "", path) if slash else ""
    host = DOCKER_HUB if host in _HUB else host
    # A glob stands for one part of a name or less.
    if not is_host(re.sub(r"\[[^\]:/]*\]|[*?]", "x", host)):
        return f"its key {said} names no registry"
    credential = _credential(auth)
    return Entry(host, path, credential) if credential else f"its entry for {said} has no user with password"


def _credential(auth: Mapping[str, Any]) -> Credential | None:
    if token := auth.get("identitytoken"):
        return Credential(IDENTITY_TOKEN, str(token))
    user, secret = auth.get("username"), auth.get("password")
    if encoded := auth.get("auth"):
        try:
            user, _, secret = base64.b64decode(str(encoded), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        secret = secret.rstrip("\0")  # of older clients
    return Credential(str(user), str(secret)) if user and secret else None


def file_text(host: str, credential: Credential) -> str:
    """What the credential helper prints for a registry, in one line."""
    server = f"https://{DOCKER_HUB}/v1/" if host == DOCKER_HUB else host
    answer = {"ServerURL": server, "Username": credential.user, "Secret": credential.secret}
    return json.dumps(answer, separators=(",", ":")) + "\n"


def parse_file(text: str) -> Credential | None:
    """The credential in such a line; None when it is none."""
    try:
        answer = json.loads(text)
        return Credential(answer["Username"], answer["Secret"])
    except (ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True)
class Pod:
    """What of a pod matters here."""

    secrets: tuple[str, ...]  # namespace/name
    images: tuple[Image, ...]
    has_ended: bool = False


def read_pod(pod: Json) -> Pod:
    """A Pod, as the API's JSON."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    secrets = (entry.get("name") for entry in spec.get("imagePullSecrets") or ())
    images = {name: image for name in _images(spec) if (image := parse_image(name))}
    return Pod(
        tuple(dict.fromkeys(f"{namespace}/{name}" for name in secrets if name)),
        tuple(images.values()),
        (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"),
    )


def _images(spec: Json) -> Iterator[str]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from (container.get("image") or "" for container in spec.get(kind) or ())
    for volume in spec.get("volumes") or ():
        yield (volume.get("image") or {}).get("reference") or ""
