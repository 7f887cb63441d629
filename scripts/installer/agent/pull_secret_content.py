"""What pull secrets say: which credentials there are for which registries, and which images they are for.

A key of ``auths`` is matched with an image as the kubelet does it (kubernetes,
pkg/credentialprovider/keyring.go): as many parts of the domain, each a glob, the same port, a prefix of the
path.
"""

import base64
import fnmatch
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .credential import IDENTITY_TOKEN, Credential
from .image_reference import DOCKER_HUB, HUB_NAMES, Image, is_host, parse_image

Json = dict[str, Any]

LARGEST_CREDENTIAL = 16 << 10  # characters; tokens of clouds are some 2 KiB
GLOBS = 64  # in a secret
NAMED = 5  # entries of a secret that cannot be used, at most
SECRETS_OF_POD, IMAGES_OF_POD = 32, 256
_TYPES = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


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

    @functools.cached_property
    def _by_host(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault("" if entry.is_glob else entry.host, []).append(entry)
        return found

    def for_host(self, host: str) -> list[Entry]:
        """The entries that may be for an image of this host."""
        return [*self._by_host.get(host, ()), *self._by_host.get("", ())]


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
    entries, problems, globs = [], [], 0
    for number, (name, auth) in enumerate(auths.items(), 1):
        try:
            found = _entry(str(name), auth if isinstance(auth, dict) else {})
        except Exception as error:  # noqa: BLE001 (one tenant's text is not to stop what all others have)
            found = f"cannot be read ({type(error).__name__})"
        globs += isinstance(found, Entry) and found.is_glob
        if isinstance(found, Entry) and not (found.is_glob and globs > GLOBS):
            entries.append(found)
        else:
            # By its number: people put passwords into keys.
            why = found if isinstance(found, str) else f"is one pattern more than {GLOBS}"
            problems.append(f"its entry {number} {why}")
    if len(problems) > NAMED:
        problems[NAMED:] = [f"{len(problems) - NAMED} more of its entries cannot be used either"]
    return Content(tuple(entries), tuple(problems))


def _entry(key: str, auth: Mapping[str, Any]) -> Entry | str:
    """An entry, or why there is none."""
    host, slash, path = re.sub(r"^https?://", "", key.strip()).partition("/")
    host = host.lower()
    path = re.sub(r"^v[12](?:/|$)", "", path) if slash else ""
    host = DOCKER_HUB if host in HUB_NAMES else host
    # A glob stands for one part of a name or less.
    if not is_host(re.sub(r"\[[^\]:/]*\]|[*?]", "x", host)):
        return "names no registry"
    credential = _credential(auth)
    if not credential:
        return "has no user with password"
    if len(credential.user) + len(credential.secret) > LARGEST_CREDENTIAL:
        return f"has a credential of more than {LARGEST_CREDENTIAL >> 10} KiB"
    return Entry(host, path, credential)


def _credential(auth: Mapping[str, Any]) -> Credential | None:
    if token := auth.get("identitytoken"):
        return Credential(IDENTITY_TOKEN, str(token))
    user, secret = auth.get("username"), auth.get("password")
    if encoded := auth.get("auth"):
        try:
            user, _, secret = base64.b64decode(str(encoded), validate=True).decode().partition(":")
        except ValueError:  # no base64, no UTF-8, or not even ASCII
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
    used: frozenset[Image] = frozenset()  # of the images those that were pulled for it


def read_pod(pod: Json) -> Pod:
    """A Pod, as the API's JSON."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    secrets = (entry.get("name") for entry in spec.get("imagePullSecrets") or ())
    status = pod.get("status") or {}
    images: dict[Image, bool] = {}
    for name, is_used in itertools.islice(_images(spec, status), IMAGES_OF_POD):
        if image := parse_image(name):
            images[image] = is_used or images.get(image, False)
    names = dict.fromkeys(f"{namespace}/{name}" for name in secrets if name)
    return Pod(
        tuple(itertools.islice(names, SECRETS_OF_POD)),
        tuple(images),
        status.get("phase") in ("Succeeded", "Failed"),
        frozenset(image for image, is_used in images.items() if is_used),
    )


def _images(spec: Json, status: Json) -> Iterator[tuple[str, bool]]:
    """Each image, and whether it was pulled: the kubelet tells its digest once there is a container. Volumes
    are there before any container."""
    is_running = status.get("phase") == "Running"
    has_any = is_running
    for kind in ("initContainer", "container", "ephemeralContainer"):
        told = {one.get("name"): bool(one.get("imageID")) for one in status.get(f"{kind}Statuses") or ()}
        has_any |= any(told.values())
        for container in spec.get(f"{kind}s") or ():
            yield container.get("image") or "", told.get(container.get("name"), is_running)
    for volume in spec.get("volumes") or ():
        yield (volume.get("image") or {}).get("reference") or "", has_any
