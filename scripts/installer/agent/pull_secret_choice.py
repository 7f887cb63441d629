"""Which credential is kept for each registry: SOCI asks by the registry's host alone, so there is one.

Where there are several ways to a host, each is tried on the images that the node's pods have from it; the one
that reads most of them is kept, and what it does not read is named. The node's own way is one of them: what
the credential helper answers without pull secrets, or nobody's. It needs no file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .credential import Credential
from .image_reference import Image
from .pull_secret_content import Content, Pod

# id of the doctor's finding, its subject, its cause
Problem = tuple[str, str, str]
CONFLICT = "conflicting-credentials"
NAMED = 5  # images and secrets, at most
OWN = Credential("", "")  # the node's own way, whatever that is at the moment

# What one namespace may bring, and a node: memory, files and questions are bounded by these.
HOSTS_OF_NAMESPACE, HOSTS = 64, 256
CREDENTIALS_OF_NAMESPACE, CREDENTIALS = 4, 8  # for one host
IMAGES_OF_CREDENTIAL, IMAGES = 10, 100  # of one host; in one namespace, and in all
QUESTIONS = 4000

ENDED, WAITING, IN_USE = range(3)  # what an image is to its pods; only one in use was pulled for certain

Question = tuple[Image, Credential]
Answers = Mapping[Question, bool | None]  # None: the registry did not say


@dataclass
class Claim:
    """Who brings a credential for a host, and for which images; with the least of them that they are."""

    secrets: set[str] = field(default_factory=set)
    images: dict[Image, int] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return any(self.images.values())


Claims = dict[str, dict[Credential, Claim]]


@dataclass
class Choice:
    """``kept``: host to credential. ``questions``: all that has to be known of the hosts with several ways.
    ``decided``: what registries' answers decided, `OWN` among it."""

    kept: dict[str, Credential] = field(default_factory=dict)
    questions: set[Question] = field(default_factory=set)
    decided: dict[str, Credential] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def claims(pods: Mapping[str, Pod], contents: Mapping[str, Content]) -> tuple[Claims, list[str]]:
    """Host to the credentials for it, `OWN` with the images of the pods that have none for them; and in words
    what is too much. Only a host that a pod with the secret has an image from is claimed: the kubelet uses
    none for another one either. A pod that has ended still claims: its image is on the node, and the next pod
    of the same owner starts from it."""
    found: Claims = {}
    images: dict[tuple[str, str, Credential], set[Image]] = {}
    brought: dict[tuple[str, str], set[Credential]] = {}
    hosts: dict[str, set[str]] = {}
    cut: set[str] = set()
    for state, name, pod, image in _uses(pods):
        namespace, host = name.partition("/")[0], image.host
        bringing = _credentials(pod, image, contents)
        if not bringing and (state == ENDED or any(secret not in contents for secret in pod.secrets)):
            continue  # what its secret has is not known (any more)
        if bringing and not _fits(hosts.setdefault(namespace, set()), host, HOSTS_OF_NAMESPACE):
            cut.add(f"namespace {namespace} has pull secrets for more than {HOSTS_OF_NAMESPACE} registries")
            continue
        for credential in bringing or {OWN: set()}:
            if bringing and not _fits(
                brought.setdefault((namespace, host), set()), credential, CREDENTIALS_OF_NAMESPACE
            ):
                cut.add(
                    f"namespace {namespace} has more than {CREDENTIALS_OF_NAMESPACE} credentials for {host}"
                )
                continue
            claim = found.setdefault(host, {}).setdefault(credential, Claim())
            claim.secrets |= bringing.get(credential, set())
            if _fits(images.setdefault((namespace, host, credential), set()), image, IMAGES_OF_CREDENTIAL):
                claim.images[image] = max(state, claim.images.get(image, ENDED))
    claimed = {host: of_host for host, of_host in sorted(found.items()) if set(of_host) != {OWN}}
    for host in list(claimed)[HOSTS:]:
        del claimed[host]
        cut.add(f"the pods of this node have pull secrets for more than {HOSTS} registries")
    return claimed, sorted(cut)


def _uses(pods: Mapping[str, Pod]) -> list[tuple[int, str, Pod, Image]]:
    """Every image of every pod, first those in use."""
    uses = [
        (ENDED if pod.has_ended else IN_USE if image in pod.used else WAITING, name, pod, image)
        for name, pod in pods.items()
        for image in pod.images
    ]
    return sorted(uses, key=lambda use: (-use[0], use[1], use[3].name))


def _fits(known: set, item: object, most: int) -> bool:
    """Take one more, unless there are enough."""
    if item not in known and len(known) >= most:
        return False
    known.add(item)
    return True


def _credentials(pod: Pod, image: Image, contents: Mapping[str, Content]) -> dict[Credential, set[str]]:
    """What a pod has for an image: credential to the secrets that hold it."""
    found: dict[Credential, set[str]] = {}
    for secret in pod.secrets:
        for entry in contents[secret].for_host(image.host) if secret in contents else ():
            if entry.is_for(image):
                found.setdefault(entry.credential, set()).add(secret)
    return found


def choose(
    claimed: Mapping[str, Mapping[Credential, Claim]],
    present: Mapping[str, Credential],
    answers: Answers,
    owns: Mapping[str, bool | None],
    decided: Mapping[str, Credential],
) -> Choice:
    """One credential for each host, or none where the node's own way is better.

    Args:
        claimed: what `claims` found.
        present: host to the credential that is kept so far.
        answers: what the registries said to the questions of earlier choices.
        owns: host to whether the node has credentials of its own for it; None, or missing, is not known.
        decided: that of the last choice.
    """
    choice = Choice()
    rivals = {host: _rivals(candidates, owns.get(host)) for host, candidates in claimed.items()}
    # The fewest questions first: who brings many does not leave others without an answer.
    for host, ways in sorted(rivals.items(), key=lambda item: (_size(item[1]), item[0])):
        own = owns.get(host)
        order = _order(ways, own, present.get(host), decided.get(host))
        best, compared = order[0], order[:CREDENTIALS]
        images = _images(ways[credential] for credential in compared)
        questions = {(image, credential) for image in images for credential in compared}
        if len(order) > 1 and len(choice.questions) + len(questions) > QUESTIONS:
            choice.problems.append((CONFLICT, host, "there are too many credentials and images to compare"))
        elif len(order) > 1:
            choice.questions |= questions
            if questions <= answers.keys():
                known = [
                    image
                    for image in images
                    if all(answers[image, credential] is not None for credential in compared)
                ]
                if known:
                    best = choice.decided[host] = _best(compared, images, known, answers, own)
                elif decided.get(host) == best:
                    choice.decided[host] = best
                elif OWN in ways and own is not None:
                    best = OWN if own else next(way for way in order if way != OWN)
            elif decided.get(host) == best:
                choice.decided[host] = best
            if any(way.is_live for way in ways.values()):
                choice.problems += _problems(host, ways, best, images, answers)
            if len(order) > len(compared):
                cause = f"of {len(order)} different credentials for it only {len(compared)} are compared"
                choice.problems.append((CONFLICT, host, cause))
        if best != OWN:
            choice.kept[host] = best
    return choice


def _rivals(candidates: Mapping[Credential, Claim], own: bool | None) -> dict[Credential, Claim]:
    """The ways to a host between which is chosen."""
    brought = {credential: claim for credential, claim in candidates.items() if credential != OWN}
    found = {credential: claim for credential, claim in brought.items() if claim.is_live} or brought
    if own or OWN in candidates:
        found[OWN] = candidates.get(OWN, Claim())
    return found


def _size(ways: Mapping[Credential, Claim]) -> int:
    return len(ways) * len(_images(ways.values()))


def _order(
    ways: Mapping[Credential, Claim],
    own: bool | None,
    present: Credential | None,
    decided: Credential | None,
) -> list[Credential]:
    """The ways, first the one that stays while nothing is known."""
    # In a fixed order, so that equal ones do not take turns.
    order = sorted(
        ways,
        key=lambda credential: (credential == OWN, -len(ways[credential].images), *_names(ways[credential])),
    )
    if decided and decided in ways:
        first = decided
    elif present and present in ways:
        first = present
    elif OWN in ways and (own is not False or IN_USE in ways[OWN].images.values()):
        first = OWN  # pods read with it, and nobody brings that to an end by a secret of his own
    else:
        first = order[0]
    rest = [credential for credential in order if credential != first]
    return [first, *sorted(rest, key=lambda credential: credential != OWN)]


def _images(ways: Iterable[Claim]) -> dict[Image, int]:
    """The images by which the ways to a host are judged: those of pods that have not ended, if there are."""
    found: dict[Image, int] = {}
    for way in ways:
        for image, state in way.images.items():
            found[image] = max(state, found.get(image, ENDED))
    if any(found.values()):
        found = {image: state for image, state in found.items() if state != ENDED}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0].name))[:IMAGES])


def _names(claim: Claim) -> list[str]:
    return sorted(claim.secrets)


def _best(
    order: list[Credential],
    images: Mapping[Image, int],
    known: list[Image],
    answers: Answers,
    own: bool | None,
) -> Credential:
    """The way that reads most images in use; of equal ones that which reads most of the others; then the
    node's own credentials, since they are renewed and a secret ends some day; then the first one. An image
    counts when the registry said of each way whether it reads it. Before every question is answered nothing
    is decided: what is known by then would depend on which answer came first."""

    def score(credential: Credential) -> tuple[int, int, bool]:
        read = [images[image] for image in known if answers[image, credential]]
        in_use = sum(state == IN_USE for state in read)
        return in_use, len(read) - in_use, bool(own) and credential == OWN

    return max(order, key=score)


def _problems(
    host: str, ways: Mapping[Credential, Claim], kept: Credential, images: Iterable[Image], answers: Answers
) -> Iterator[Problem]:
    """What cannot be read with the credential that is kept though another one could, or nobody knows."""

    def with_another(image: Image) -> bool:
        return any(answers.get((image, credential)) for credential in ways)

    images = list(images)
    lost = [image.name for image in images if answers.get((image, kept)) is False and with_another(image)]
    silent = [
        image.name
        for image in images
        if any(answers.get((image, credential), False) is None for credential in ways)
    ]
    others = sorted(
        {
            secret
            for credential, claim in ways.items()
            if credential not in (kept, OWN)
            for secret in claim.secrets
        }
    )
    own = "the node's own credentials"
    are_not = [f"that of {in_short(others)}"] if others else []
    are_not += [own] if OWN in ways and kept != OWN else []
    said = f"pods of this node have {len(ways)} different credentials for it"
    is_kept = f"{own} are kept" if kept == OWN else f"that of {in_short(_names(ways[kept]))} is kept"
    with_kept = f"{is_kept}, not {' or '.join(are_not)}"
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
