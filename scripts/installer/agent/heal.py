"""What a start of the daemon left broken, and what becomes of it.

`soci-host.sh heal` (host/55-heal.sh) forgets images whose layers did not come back, and says who runs on
mounts that died with an earlier daemon. This tells those pods, and evicts them where that is the setting.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import daemon_words, drain, lazy, remedies
from .api import Api, ApiError
from .ctr import Ctr
from .errors import InstallError
from .host import ENTER_HOST, Host
from .lazy import Pod
from .slots import Slot
from .transaction import SCRIPT, run_for

SCRIPT_SECONDS = 450
BROKEN = "BrokenMounts"  # the reason of the Event on a pod
AGAIN_SECONDS = 20
CUT_PULL_SECONDS = 30


@dataclass(frozen=True)
class Healed:
    """What is left of it; ``answer`` is the host script's word on that: a later one that differs is news."""

    answer: str = ""
    forgotten: tuple[str, ...] = ()  # images that are going to be pulled anew
    held: tuple[tuple[str, Pod], ...] = ()  # images on which nothing starts, and who runs on each
    broken: tuple[Pod, ...] = ()  # they run on dead mounts
    said: str = ""  # what the daemon says of all images that are held, if that is the same

    @property
    def in_words(self) -> str:
        """What is wrong and what to do about it; empty when nothing is."""
        parts = []
        if self.broken:
            parts.append(
                f"the files of {lazy.in_words(self.broken)} cannot be read since the snapshotter's daemon "
                f"ended. Remedy: {remedies.DEAD_MOUNTS}"
            )
        if self.held:
            images = sorted({image for image, _ in self.held})
            pods = sorted({pod for _, pod in self.held})
            why = f" ({self.said})" if self.said else ""
            parts.append(
                f"no new container of {_some(images)} starts: its layers could not be mounted again{why}, "
                f"and {lazy.in_words(pods)} is still on them. Remedy: {remedies.HELD_IMAGE}"
            )
        return "; ".join(parts)


NOTHING = Healed()


class HealError(InstallError):
    """Nobody could tell what survived a start of the daemon; the node serves nevertheless."""

    still_serves = True


def heal(host: Host, ctr: Ctr, slot: Slot) -> Healed:
    """Have the host script see to each daemon that was started since the last look; that in ``slot`` says why
    an image is held.

    Raises:
        HealError: the host script could not look at everything.
    """
    result = run_for(host, SCRIPT_SECONDS, "heal")
    if result.code != 0:
        raise HealError("heal", result.last_error, f"see sh {SCRIPT} heal on the node")
    healed = parse(result.output, ctr)
    if not healed.held:
        return healed
    reasons = daemon_words.read(host, slot).reasons
    said = {daemon_words.in_short(reasons.get(image, "")) for image, _ in healed.held}
    return replace(healed, said=said.pop()) if len(said) == 1 else healed


def parse(answer: str, ctr: Ctr) -> Healed:
    """Read what `soci-host.sh heal` prints; a container by its pod, an image by the names people use."""
    lines = [line.split() for line in answer.splitlines()]
    words = ("forgotten", "held", "broken")
    of = {word: [line[1:] for line in lines if line and line[0] == word] for word in words}
    left = [line for line in answer.splitlines() if not line.startswith("forgotten ")]
    tagged = {container for image, container in of["held"] if _has_tag(image)}
    return Healed(
        "\n".join(left),
        tuple(image for (image,) in of["forgotten"] if _has_tag(image)),
        tuple(
            (image, lazy.pod_of(ctr, container))
            for image, container in of["held"]
            if _has_tag(image) or container not in tagged
        ),
        tuple(sorted({lazy.pod_of(ctr, container) for (container,) in of["broken"]})),
    )


def _some(images: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(images) - limit} more" if len(images) > limit else ""
    return ", ".join(images[:limit]) + more


def _has_tag(image: str) -> bool:
    """Whether this is a name with a tag: beside it, an image has the kubelet's identifier and its digest."""
    return "@" not in image and not image.startswith("sha256:")


def tell_pods(api: Api, pods: Sequence[Pod]) -> None:
    """Put a Warning Event on each pod, once in the pod's life.

    Raises:
        ApiError: the API server does not take it.
    """
    message = (
        "The files of this pod's images cannot be read any more: the SOCI snapshotter's "
        f"daemon on {api.node_name} ended under it. Remedy: {remedies.DEAD_MOUNTS}."
    )
    for pod in pods:
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
        }
        try:
            api.emit(involved, "Warning", BROKEN, message, f"{pod.name[:200]}.soci-{pod.uid[:8]}")
        except ApiError as error:
            if error.status not in (403, 404, 409):  # its namespace goes or has gone, or it was told before
                raise


def evict(api: Api, pods: Sequence[Pod]) -> bool:
    """Ask once for the eviction of each pod that a controller makes anew, here or elsewhere.

    Returns whether there is such a pod.

    Raises:
        ApiError: the API server is away, or forbids to ask.
    """
    is_any = False
    for pod in pods:
        known = drain.read(api, pod)
        if known and drain.is_made_anew(known):
            is_any = True
            drain.ask(api, pod, known)
    return is_any


def later(healed: Healed, evicts: bool) -> tuple[str, ...]:
    """The command by which the watcher finds out that something has changed; none when nothing is left.
    What is to be evicted is asked for again each time: a disruption budget may have held it back."""
    if evicts:
        return ("true",)
    if not healed.answer:
        return ()
    look = f'test "$(sh {SCRIPT} heal)" != {shlex.quote(healed.answer)}'
    return (*ENTER_HOST, "sh", "-c", look)


def clear_cut_pulls(containerd_root: str) -> tuple[str, ...]:
    """The command by which the watcher has removed what a failed parallel pull left of a layer. It never
    succeeds, as nobody is to be called back; nearly always it looks for a file's name, and no more."""
    ingests = shlex.quote(f"{containerd_root}/io.containerd.content.v1.content/ingest")
    look = f"grep -qs /sha256: {ingests}/*/ref && sh {SCRIPT} clear-cut-pulls; false"
    return (*ENTER_HOST, "sh", "-c", look)
