"""What the settings of soci:index accept: images, the name of the indexed ones, a schedule.

Pure functions, as in rules.py.
"""

import re
from collections.abc import Sequence
from typing import Any

from . import image_pull_secrets, rules, values
from .names import full_name, is_host
from .values import RefusedError

OLDEST_VERSION = (0, 13, 0)
"""The first SOCI release whose `soci` makes an index without containerd."""
MAX_TAG = 128  # characters, by the OCI distribution specification
MAX_OBJECT_NAME = 253  # characters, of most objects in Kubernetes
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# Where only their makers push.
_PUBLIC = ("registry.k8s.io/", "mcr.microsoft.com/", "public.ecr.aws/docker/library/", "docker.io/library/")
_REPOSITORY = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?/([a-z0-9]+([._-]+[a-z0-9]+)*(/|$))*")
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Fields of a schedule as Kubernetes reads it (github.com/robfig/cron, ParseStandard): name, lowest, highest,
# and the names of values from the lowest on.
_FIELDS: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)


def images(value: Any) -> tuple[str, ...]:
    """Images by tag or digest, each once."""
    found = tuple(dict.fromkeys(rules.image(name) for name in values.texts(value)))
    for name in found:
        if not tag_of(name) and "@" not in name:
            raise RefusedError(
                f"{name} has no tag",
                f"write {name}:TAG; `latest` is not assumed, since it names another image from time to time",
            )
    return found


def tag_of(image: str) -> str:
    """An image's tag; empty when it has none."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def repository(value: Any) -> str:
    """A repository with its registry, or, with a slash at its end, what comes before one; or empty."""
    found = values.text(value)
    if found and not (_REPOSITORY.fullmatch(found) and is_host(found.partition("/")[0])):
        raise RefusedError(
            "must be a repository such as registry.example/team/app, or registry.example/team/"
        )
    return found


def suffix(value: Any) -> str:
    """The end of a tag, or empty."""
    found = values.text(value)
    if not re.fullmatch(r"[\w.-]{0,64}", found, re.ASCII):
        raise RefusedError("must be the end of a tag: letters, digits, _, . and -, at most 64")
    return found


def contradictions(
    images: Sequence[str], suffix: str, repository: str, replace: bool, version: str
) -> list[tuple[str, str]]:
    """What is wrong between these settings, each good alone: reason and remedy."""
    if public := [name for name in images if full_name(name).startswith(_PUBLIC) and not repository]:
        reason = f"images: {public[0]} is in a repository to which only its makers push"
        return [(reason, _remedy("set --path soci:index.repository registry.example/mirror/, one of yours"))]
    if repository and not repository.endswith("/") and len(images) > 1:
        reason = f"repository: {repository} is for one image, and there are {len(images)}"
        return [(reason, _remedy(f"set --path soci:index.repository {repository}/, for all of them"))]
    if version == "v1":
        if replace:
            return [("replace: an index v1 leaves tags as they are", _remedy("rm --path soci:index.replace"))]
        return []
    if replace and suffix:
        reason = f"replace: an image's own tag is moved only without a suffix, and the suffix is '{suffix}'"
        return [(reason, _remedy("set --path soci:index.suffix ''"))]
    if not (replace or suffix or repository):
        reason = "suffix: without one, the indexed image would take the tag of the image itself"
        return [(reason, _remedy("set --path soci:index.replace true, if that is meant"))]
    found = []
    for name in images:
        if replace and not tag_of(name):
            found.append((f"replace: {name} has no tag that could be moved", "name the image by its tag"))
        if suffix and tag_of(name).endswith(suffix):
            found.append(
                (
                    f"images: {name} has the suffix of indexed images already",
                    f"name the image without {suffix}",
                )
            )
        if len(tag_of(name) + suffix) > MAX_TAG:
            found.append(
                (
                    f"images: {name}{suffix} has a tag of more than {MAX_TAG} characters",
                    "take a shorter suffix",
                )
            )
    return found


def _remedy(arguments: str) -> str:
    return f"pulumi config {arguments}"


def indexed(image: str, suffix: str, repository: str, version: str) -> str:
    """The name of an image when it has its index, by which a node loads it lazily; soci-index gives it."""
    if version == "v1" and not repository:
        return image
    name, _, digest = image.partition("@")
    tag = tag_of(image)
    path = name.removesuffix(f":{tag}") if tag else name
    if repository.endswith("/"):
        path = repository + full_name(path).partition("/")[2]
    elif repository:
        path = repository
    end = suffix if version == "v2" else ""
    return f"{path}:{tag or digest.replace(':', '-')}{end}"


def incompatible(name: str) -> bool:
    """Whether upstream calls the registry of an indexed image incompatible with SOCI indexes
    (soci-snapshotter, docs/registry-support.md)."""
    host = full_name(name).partition("/")[0]
    return host == "quay.io" or host.endswith("-docker.pkg.dev")


def registries(value: Any) -> tuple[str, ...]:
    """Registries, as images name them: HOST or HOST:PORT."""
    found = values.texts(value)
    for host in found:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", host):
            raise RefusedError(f"'{host}' is no registry such as registry.example:5000")
    return found


def claim(value: Any) -> str:
    """The name of a PersistentVolumeClaim, or empty."""
    found = values.text(value)
    if found and not (len(found) <= MAX_OBJECT_NAME and _OBJECT_NAME.fullmatch(found)):
        raise RefusedError(
            "must be the name of a PersistentVolumeClaim: lower-case letters, digits, - and ., at most "
            f"{MAX_OBJECT_NAME}"
        )
    return found


def tolerations(value: Any) -> tuple[str, ...]:
    """Taints, as kubectl writes them."""
    found = values.texts(value)
    for text in found:
        rules.taint(text)
    return found


def credentials(value: Any) -> tuple[str | image_pull_secrets.Login, ...]:
    """One Secret's name, or the credentials of registries: one file holds them for the program."""
    found = image_pull_secrets.read(value)
    named = [item for item in found if isinstance(item, str)]
    if named and len(found) > 1:
        raise RefusedError(
            f"the Secret {named[0]} stands beside others, and only one file can hold them",
            "put everything into that Secret (kubectl create secret generic NAME --type "
            "kubernetes.io/dockerconfigjson --from-file .dockerconfigjson=FILE)",
        )
    return found


def certificates(value: Any) -> str:
    """Certificates in PEM, or empty."""
    found = values.text(value)
    if found and "-----BEGIN CERTIFICATE-----" not in found:
        raise RefusedError("must hold certificates in PEM")
    if "PRIVATE KEY" in found:
        raise RefusedError("must hold certificates alone, without a private key")
    return found


def schedule(value: Any) -> str:
    """A CronJob's schedule, or empty."""
    found = " ".join(values.text(value).split())
    if not found or found in _DESCRIPTORS:
        return found
    words = found.split(" ")
    if len(words) != len(_FIELDS):
        raise RefusedError(
            "must be five fields: minute, hour, day of the month, month, day of the week; such as 0 3 * * *"
        )
    for word, (name, low, high, names) in zip(words, _FIELDS, strict=True):
        for part in word.lower().split(","):
            if not _is_part(part, low, high, names):
                raise RefusedError(
                    f"'{part}' is no {name}: from {low} to {high}, *, A-B, or one of these with /N"
                )
    return found


def _is_part(part: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Whether this is *, ?, A or A-B, each maybe with /N."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = [low + names.index(end) if end in names else end for end in span.split("-")]
    if len(ends) > 2 or not all(str(end).isdecimal() for end in ends):
        return False
    numbers = [int(end) for end in ends]
    return low <= numbers[0] <= numbers[-1] <= high
