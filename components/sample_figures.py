"""What SOCI gained for the sample, in one line: its pull, its start, its lazily loaded layers, bytes moved.

It is read once, after the sample has run: from the pod and its Events, and from the soci-doctor of its node,
which the installer's pod there runs.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pulumi

from .failure import JOB_LABEL, POD_LABELS, Access, Connect
from .live_cluster import LiveCluster, Object, UnreadableError, first_line, within
from .names import in_containerd
from .node_look import LOOK
from .pull_time import pull_seconds

DOCTOR_SECONDS = 20.0
SECONDS = 60.0  # for all of it; a credential program may wait for a person
MOST_CHARACTERS = 300
CONTAINER = "sample"
NOT_READ = "not known: only the `pulumi up` that runs the sample reads them"
_REASON = re.compile(r"[a-z-]{1,40}")


def in_words(pod: Object, events: Sequence[Object], layers: str) -> str:
    """The line.

    Args:
        pod: the sample's, which has been started, as the API's JSON.
        events: the Events about it, as the API's JSON.
        layers: what is said of the image's layers.
    """
    return "; ".join(part for part in (_pull(events), _start(pod), layers) if part)


def is_pulled(events: Sequence[Object]) -> bool:
    """Whether the sample's image was pulled for it, by the Events about its pod."""
    return _pull_seconds(events) is not None


def _pull(events: Sequence[Object]) -> str:
    seconds = _pull_seconds(events)
    if seconds is not None:
        return f"pull {seconds:.1f} s"
    return "its image was on the node already" if _pulled(events) else ""


def _pull_seconds(events: Sequence[Object]) -> float | None:
    try:
        return pull_seconds(_pulled(events)[-1])
    except (IndexError, ValueError):
        return None


def _pulled(events: Sequence[Object]) -> list[str]:
    """What the kubelet says of the sample's image, once it is there."""
    own = f"spec.containers{{{CONTAINER}}}"
    return [
        event.get("message", "")
        for event in events
        if event.get("reason") == "Pulled" and event["involvedObject"].get("fieldPath") == own
    ]


def _start(pod: Object) -> str:
    for status in pod["status"].get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated") or {}
        if status.get("name") == CONTAINER and ended.get("startedAt"):
            created = pod["metadata"]["creationTimestamp"]
            said = f"started {_seconds(created, ended['startedAt']):.0f} s after its creation"
            finished = ended.get("finishedAt")
            return f"{said}, done after {_seconds(created, finished):.0f} s" if finished else said
    return ""


def _seconds(begin: str, end: str) -> float:
    """Between two of the API's times; 0 when the clock that wrote the second one is behind."""
    return max((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds(), 0)


def layers_in_words(image: Mapping[str, Any], *, is_new: bool) -> str:
    """What is said of an image in the report of soci-doctor.

    Args:
        image: as the report has it.
        is_new: whether it has just been pulled; else what was moved for it was moved at another time.
    """
    lazy, layers = image["lazyLayers"], image["layers"]
    said = f"{lazy} of {layers} layers lazily loaded"
    if lazy:
        said += f", {image['lazyBytes'] / 1e6:.0f} of {image['bytes'] / 1e6:.0f} MB"
    elif _REASON.fullmatch(image.get("why") or ""):  # the name of one of the doctor's findings
        said += f" (soci-doctor: {image['why']})"
    # An installer from before it could be known does not say it.
    if is_new and (moved := image.get("movedBytes")) is not None:
        said += f"; {moved / 1e6:.0f} MB moved"
        # It begins seconds after the mount, and goes on after the sample's end.
        said += " by now, background fetch included" if image.get("inBackground") else ""
    return said


def read(job: str, image: str, kubeconfig: str, context: str, connect: Connect = LiveCluster) -> str:
    """The line about a sample that has run, or why there is none; never raises, as the sample has run.

    Args:
        job: its Job, `namespace/name`.
        image: its image.
        kubeconfig: content of the cluster's kubeconfig.
        context: of that; empty for its current one.
        connect: makes the cluster.
    """
    if not kubeconfig:
        return "not known: there is no kubeconfig to read them with"
    try:
        line = within(SECONDS, lambda: _read(job, image, connect(kubeconfig, context)))
    except Exception as error:  # noqa: BLE001 (whatever fails here must not fail the sample)
        line = f"not known: {first_line(error)}"
    # Nodes and users have written parts of it.
    return "".join(one if one.isprintable() else " " for one in line)[:MOST_CHARACTERS]


def _read(job: str, image: str, cluster: LiveCluster) -> str:
    namespace, _, name = job.partition("/")
    objects = f"/api/v1/namespaces/{namespace}"
    pods = cluster.items(f"{objects}/pods", labelSelector=f"{JOB_LABEL}={name}")
    if not pods:
        raise UnreadableError("the sample's pod is gone")
    pod = next((pod for pod in pods if pod["status"].get("phase") == "Succeeded"), pods[0])
    about = f"involvedObject.uid={pod['metadata']['uid']}"
    events = cluster.items(f"{objects}/events", fieldSelector=about)
    try:
        layers = _on_node(cluster, pod["spec"]["nodeName"], in_containerd(image), is_new=is_pulled(events))
    except UnreadableError as error:
        layers = f"its layers are not known: {first_line(error)}"
    return in_words(pod, events, layers)


def _on_node(cluster: LiveCluster, node: str, image: str, *, is_new: bool) -> str:
    """What a node's soci-doctor says of an image, which has just been pulled or not.

    Raises:
        UnreadableError: there is no report, or it is not readable.
    """
    here = f"spec.nodeName={node}"
    for installer in cluster.items("/api/v1/pods", labelSelector=POD_LABELS, fieldSelector=here):
        name, namespace = installer["metadata"]["name"], installer["metadata"]["namespace"]
        text = cluster.run(namespace, name, "installer", ["sh", "-c", LOOK], DOCTOR_SECONDS)
        try:
            images = json.loads(text)["images"]
            said = (layers_in_words(one, is_new=is_new) for one in images if image in one["names"])
            return next(said, f"the image has left {node}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the report of {node} is not readable") from error
    raise UnreadableError(f"no installer's pod is on {node}")


class SampleFigures:
    """Keeps the line about a sample from the `up` that ran it to the next one that does.

    Args:
        name: of the resource that keeps it.
        image: the sample's.
        access: kubeconfig and context.
        parent: the sample.
    """

    def __init__(self, name: str, image: str, access: Access, parent: pulumi.Resource) -> None:
        self._name, self._image, self._access, self._parent = name, image, access, parent
        self._read: dict[str, str] = {}  # by the Job's identifier
        # The sample has run: whatever fails here is a warning.
        options = pulumi.ResourceHookOptions(ignore_errors=True)
        self.hook = pulumi.ResourceHook(name, self._after_create, options)
        """Belongs to the Job's `after_create`."""

    async def _after_create(self, args: pulumi.ResourceHookArgs) -> None:
        kubeconfig, context = await self._access.future() or ("", "")
        self._read[args.id] = await asyncio.to_thread(read, args.id, self._image, kubeconfig, context)

    def of(self, job: pulumi.CustomResource) -> pulumi.Output[str]:
        """The line about this Job."""
        kept = pulumi.Stash(
            self._name,
            input=job.id.apply(lambda identifier: self._read.get(identifier, NOT_READ)),
            opts=pulumi.ResourceOptions(
                parent=self._parent,
                # Only the `up` that made the Job knows the line.
                ignore_changes=["input"],
                replacement_trigger=job.id,
            ),
        )
        return kept.output.apply(lambda line: line or "")
