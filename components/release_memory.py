"""Which digests the releases had that were installed on a cluster: a release never changes, so a version that
has another digest one day is not what it was.

The memory is an annotation of the installer's DaemonSet. There it is the same for everybody who runs `pulumi
up`, wherever the stack's state is and whatever happened to it; whoever may change it may change the
DaemonSet, and is root on the nodes already. A state would know the present version only: what is not declared
any more leaves it.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping

import pulumi

from .live_cluster import LiveCluster, Object, UnreadableError
from .names import DOMAIN
from .other_installers import daemon_sets
from .ownership import Ownership, owner_of
from .rules import ARCHITECTURES
from .settings import Settings

ANNOTATION = f"{DOMAIN}/release-digests"
PATH = f'metadata.annotations["{ANNOTATION}"]'
"""Of the annotation, in the DaemonSet's properties."""

Digests = Mapping[str, Mapping[str, str]]
"""The sha256 of releases' archives, by version and architecture."""


class ReleaseMemory:
    """What the cluster of an installer remembers, and what is to be added to it.

    The cluster is asked once: with two answers one part of a run could go by other digests than the next.
    """

    annotation: pulumi.Output[str]
    """What the DaemonSet's annotation is to be. Whatever takes it is not made when the release has another
    digest than the one that is remembered."""

    def __init__(self, ownership: Ownership, settings: Settings, digests: Mapping[str, str]) -> None:
        self._ownership = ownership
        self._settings = settings
        self._digests = digests
        self._answer: asyncio.Future[Digests | None] | None = None
        self.annotation = pulumi.Output.from_input(self._text())

    async def keep(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """The transform of the DaemonSet: a cluster that cannot be asked, in a preview, forgets nothing."""
        if await self._remembered() is not None:
            return None
        args.opts.ignore_changes = [*(args.opts.ignore_changes or []), PATH]
        return pulumi.ResourceTransformResult(args.props, args.opts)

    async def _text(self) -> str:
        version, remembered = self._settings.version, await self._remembered() or {}
        changed = refusal(version, self._settings.release_url, self._digests, remembered.get(version, {}))
        if changed and not self._settings.sha256:
            raise pulumi.RunError(changed)
        return text(remembered, version, self._digests, are_given=bool(self._settings.sha256))

    async def _remembered(self) -> Digests | None:
        """None when the cluster cannot be asked."""
        if self._answer is None:
            self._answer = asyncio.ensure_future(self._ask())
        return await self._answer

    async def _ask(self) -> Digests | None:
        cluster = await self._ownership.cluster()
        if cluster is None:
            return None
        owner = await self._ownership.owner.future() or ""
        return await asyncio.to_thread(read, cluster, self._settings.namespace, owner)


def read(cluster: LiveCluster, namespace: str, owner: str) -> Digests | None:
    """What a cluster remembers of this installer; None when it cannot be asked.

    Before it is there, that of the same owner in another namespace counts: the one that it takes over from.
    Not afterwards: whoever may make a DaemonSet anywhere could have it remember what never was.
    """
    try:
        found = daemon_sets(cluster)
    except UnreadableError:
        return None
    own = [item for item in found if item["metadata"]["namespace"] == namespace]
    predecessors = [item for item in found if owner and owner_of(item) == owner]
    return of_daemon_sets(own or predecessors)


def of_daemon_sets(found: Iterable[Object]) -> Digests:
    """What the annotations say; of two, the later one. What is no digest is left out."""
    known: dict[str, dict[str, str]] = {}
    for daemon_set in found:
        try:
            said = json.loads((daemon_set["metadata"].get("annotations") or {}).get(ANNOTATION, "{}"))
        except ValueError:
            continue
        for version, digests in said.items() if isinstance(said, dict) else ():
            for architecture, digest in digests.items() if isinstance(digests, dict) else ():
                is_one = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
                if is_one and architecture in ARCHITECTURES and re.fullmatch(r"\d+\.\d+\.\d+", version):
                    known.setdefault(version, {})[architecture] = digest
    return known


def text(known: Digests, version: str, digests: Mapping[str, str], *, are_given: bool = False) -> str:
    """The annotation: what was known, and the digests of a version that were read.

    Those that somebody has given are not remembered, since they may be mistyped; what they contradict is
    forgotten, since it was replaced on purpose.
    """
    before = known.get(version, {})
    if are_given:
        now = {name: digest for name, digest in before.items() if digests.get(name, digest) == digest}
    else:
        now = {**before, **digests}
    both = {**known, version: now}
    return json.dumps({name: found for name, found in both.items() if found}, sort_keys=True)


def refusal(
    version: str, release_url: str, digests: Mapping[str, str], known: Mapping[str, str]
) -> str | None:
    """Why digests that were read are not to be installed; None when they are those that are known, or new."""
    changed = {name: digest for name, digest in digests.items() if known.get(name, digest) != digest}
    if not changed:
        return None
    told = "; ".join(
        f"for {name} it has sha256 {digest} now, and had {known[name]} when it was installed on this cluster"
        for name, digest in sorted(changed.items())
    )
    accepted = " && ".join(
        f"pulumi config set --path soci:sha256.{name} {digest}" for name, digest in sorted(digests.items())
    )
    return (
        f"soci:version '{version}': the release at {release_url} is not the one that it was: {told}. A "
        "release does not change: find out who replaced it, and compare with upstream's .sha256sum file. "
        f"Remedy: the old archive back, or another soci:releaseUrl; to accept what is there now, {accepted}"
    )
