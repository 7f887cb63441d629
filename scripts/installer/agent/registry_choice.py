"""Which credential is kept for each registry: SOCI asks by the registry's host alone, so there is one.

Where the pods of a node have different ones for a host, each is tried on the images that need one; the one
that reads most of them is kept, and what it does not read is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .registry_auth import Credential
from .registry_credentials import Content, Image, Pod, is_host

# id of the doctor's finding, its subject, its cause
Problem = tuple[str, str, str]
CONFLICT = "conflicting-credentials"
NAMED = 5  # images and secrets, at most
UNUSED = 50  # registries of which no pod has an image, at most: some secrets list all that a company has

Question = tuple[Image, Credential]
Answers = Mapping[Question, bool | None]  # None: the registry did not say


@dataclass
class Claim:
    """Who brings a credential for a host, and for which images that are in use."""

    secrets: set[str] = field(default_factory=set)
    images: set[Image] = field(default_factory=set)


@dataclass
class Choice:
    """``kept``: host to credential. ``questions``: all that has to be known of the hosts with several."""

    kept: dict[str, Credential] = field(default_factory=dict)
    questions: set[Question] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def claims(pods: Mapping[str, Pod], contents: Mapping[str, Content]) -> dict[str, dict[Credential, Claim]]:
    """Host to the credentials for it. A pod that has ended still claims: its image is on the node, and the
    next pod of the same owner starts from it; its images are not in use."""
    found: dict[str, dict[Credential, Claim]] = {}
    used: set[str] = set()
    for pod in pods.values():
        for secret in pod.secrets:
            for entry in contents[secret].entries if secret in contents else ():
                images = {image for image in pod.images if entry.is_for(image)}
                hosts = {image.host for image in images}
                used |= hosts
                if not entry.is_glob:
                    hosts.add(entry.host)  # it may be that of a mirror
                for host in filter(is_host, hosts):
                    claim = found.setdefault(host, {}).setdefault(entry.credential, Claim())
                    claim.secrets.add(secret)
                    if not pod.has_ended:
                        claim.images |= {image for image in images if image.host == host}
    for host in sorted(set(found) - used)[UNUSED:]:
        del found[host]
    return found


def choose(
    claimed: Mapping[str, Mapping[Credential, Claim]], present: Mapping[str, Credential], answers: Answers
) -> Choice:
    """One credential for each host.

    Args:
        claimed: what `claims` found.
        present: host to the credential that is kept so far.
        answers: what the registries said to the questions of earlier choices.
    """
    choice = Choice()
    for host, candidates in sorted(claimed.items()):
        in_use = {credential: claim for credential, claim in candidates.items() if claim.images}
        rivals = in_use or dict(candidates)
        # In a fixed order, so that equal ones do not take turns.
        order = sorted(
            rivals, key=lambda credential: (-len(rivals[credential].images), *_names(rivals[credential]))
        )
        before = present.get(host)
        if before in rivals:
            order = [before, *(credential for credential in order if credential != before)]
        images = sorted(
            {image for claim in rivals.values() for image in claim.images}, key=lambda image: image.name
        )
        choice.kept[host] = order[0]
        if len(order) > 1 and images:
            choice.questions |= {(image, credential) for image in images for credential in order}
            choice.kept[host] = _best(order, images, answers)
            choice.problems += _problems(host, rivals, choice.kept[host], images, answers)
    return choice


def _names(claim: Claim) -> list[str]:
    return sorted(claim.secrets)


def _best(order: list[Credential], images: list[Image], answers: Answers) -> Credential:
    """The credential that reads most; of equal ones the first. An image counts when the registry said of each
    whether it reads it. Before every question is answered the first one stays: what is known by then would
    depend on which answer came first."""
    if any((image, credential) not in answers for image in images for credential in order):
        return order[0]
    known = [
        image for image in images if all(answers.get((image, credential)) is not None for credential in order)
    ]
    return max(order, key=lambda credential: sum(bool(answers[image, credential]) for image in known))


def _problems(
    host: str, rivals: Mapping[Credential, Claim], kept: Credential, images: list[Image], answers: Answers
) -> Iterator[Problem]:
    """What cannot be read with the credential that is kept though another one could, or nobody knows."""

    def with_another(image: Image) -> bool:
        return any(answers.get((image, credential)) for credential in rivals)

    lost = [image.name for image in images if answers.get((image, kept)) is False and with_another(image)]
    silent = [
        image.name
        for image in images
        if any(answers.get((image, credential), False) is None for credential in rivals)
    ]
    others = {
        secret for credential, claim in rivals.items() if credential != kept for secret in claim.secrets
    }
    said = f"pods of this node have {len(rivals)} different credentials for it"
    with_kept = f"that of {in_short(_names(rivals[kept]))} is kept, not that of {in_short(sorted(others))}"
    if lost:
        yield CONFLICT, host, f"{said}; {with_kept}, which alone reads {in_short(lost)}"
    if silent:
        yield (
            CONFLICT,
            host,
            f"{said}; {with_kept}, and the registry does not say who reads {in_short(silent)}",
        )


def in_short(names: list[str]) -> str:
    """A list in words."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
