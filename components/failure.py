"""Why a rollout of the installer, or a Job, failed: the cluster's own words, for who runs `pulumi up`.

The Kubernetes provider's wait ends with "timed out waiting for the condition" and names no cause. The engine
then calls an error hook made here. For a rollout it reads the nodes' conditions, the DaemonSet and the
installer pods' termination messages; for a Job its pods and Events.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from . import other_installers
from .live_cluster import LiveCluster, Object, first_line
from .names import INSTALLER
from .ownership import is_refused_creation

JOURNAL_MARK = "| "  # begins each line of the node's journal in the installer's last words
POD_LABELS = f"app.kubernetes.io/name={INSTALLER}"
CONDITION = "SociReady"
# The DaemonSet controller's own marks of the template that a pod was made from.
TEMPLATE_ANNOTATION = "deprecated.daemonset.template.generation"
TEMPLATE_LABEL = "pod-template-generation"
JOB_LABEL = "job-name"  # the one with a prefix begins with Kubernetes 1.27
NO_END = "the node's kubelet is away, or the pod's program is in a read that does not return"
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")

Access = pulumi.Output[Any]  # [content of the kubeconfig, context]; both may be empty
Connect = Callable[[str, str], LiveCluster]


@dataclass(frozen=True)
class Rollout:
    """What a rollout of the installer was to reach, and within which limits."""

    namespace: str
    version: str
    is_absent: bool
    max_unavailable: str
    timeout_seconds: int


@dataclass(frozen=True)
class JobKind:
    """What a Job is for.

    Attributes:
        title: what it is called.
        mend: what to mend when its pod fails.
        limit: the setting of its time limit.
        without: how to do without it.
        says_remedy: whether it says in its last words what to do, in the lines that have a remedy.
    """

    title: str
    mend: str
    limit: str
    without: str
    says_remedy: bool = False


SAMPLE = JobKind(
    "the sample",
    "mend soci:sampleWorkload.image or soci:sampleWorkload.command",
    "soci:rolloutTimeoutSeconds",
    "pulumi config set --path soci:sampleWorkload.enabled false",
)
IMAGE_INDEX = JobKind(
    "the image index",
    "mend soci:index.images or soci:indexCredentials, or set soci:index.jobs lower or soci:index.diskGiB "
    "higher",
    "soci:index.timeoutSeconds",
    "pulumi config rm soci:index",
    says_remedy=True,
)


@dataclass(frozen=True)
class Job:
    """A Job that runs once, and its time limit; ``deleted_pods`` are those that had not ended after it, and
    that the program has deleted."""

    kind: JobKind
    namespace: str
    name: str
    limit_seconds: int
    deleted_pods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What the cluster shows of a rollout, as the API's JSON."""

    nodes: Sequence[Object]
    pods: Sequence[Object]
    daemon_set: Object | None


def explain(rollout: Rollout, found: Found) -> list[str]:
    """One line for each node on which the rollout is held up: node, step, cause, remedy; and a last one that
    counts the nodes."""
    nodes = {node["metadata"]["name"]: node for node in found.nodes}
    dead = {name: node for name, node in nodes.items() if _is_dead(node)}
    here = {pod["spec"]["nodeName"] for pod in found.pods if pod["spec"].get("nodeName")}
    lines = [_explain_node(dead[name]) for name in sorted(here & set(dead))]
    living = [
        pod
        for pod in found.pods
        if pod["spec"].get("nodeName") not in dead and not pod["metadata"].get("deletionTimestamp")
    ]
    current = [pod for pod in living if _is_current(pod, found.daemon_set)]
    waiting = [pod for pod in living if pod not in current and _is_ready(pod)]
    troubled = [pod for pod in living if pod not in waiting and not _is_ready(pod)]
    lines += sorted(_explain_pod(pod, nodes) for pod in troubled)
    done = sum(_is_ready(pod) for pod in current)
    return lines + _count(rollout, found, done, len(waiting), bool(lines))


def _count(rollout: Rollout, found: Found, done: int, waiting: int, is_held_up: bool) -> list[str]:
    status = (found.daemon_set or {}).get("status", {})
    wanted = max(status.get("desiredNumberScheduled", 0), done + waiting)
    if done == wanted:
        return []
    goal = f"{done} of {wanted} nodes "
    goal += "are free of SOCI" if rollout.is_absent else f"have SOCI {rollout.version} as configured"
    if waiting and is_held_up:
        return [
            f"{goal}; {waiting} more blocked by the nodes above (soci:maxUnavailable is "
            f"{rollout.max_unavailable})"
        ]
    if is_held_up:
        return [goal]
    return [
        f"{goal}; the rollout goes on by itself. Remedy: pulumi up again, to wait for its end; set "
        f"soci:rolloutTimeoutSeconds (now {rollout.timeout_seconds}) or soci:maxUnavailable (now "
        f"{rollout.max_unavailable}) higher for a cluster of this size"
    ]


def _is_dead(node: Object) -> bool:
    ready = find_condition(node, "Ready")
    return bool(ready) and ready.get("status") != "True"


def _explain_node(node: Object) -> str:
    ready = find_condition(node, "Ready")
    since = ready.get("lastTransitionTime", "an unknown time")
    reason = " ".join(f"{ready.get('reason', '')}: {ready.get('message', '')}".split()).strip(": ")
    return (
        f"node {node['metadata']['name']}: NotReady since {since} ({reason}); its installer cannot be "
        "changed. Remedy: repair the node or delete it (kubectl delete node), or leave it out with "
        "soci:nodeSelector; else the others go on without it, one by one, some minutes after its last word"
    )


def _is_current(pod: Object, daemon_set: Object | None) -> bool:
    """Whether a pod was made from the DaemonSet's present template, not from that of an older version."""
    annotations = (daemon_set or {"metadata": {}})["metadata"].get("annotations") or {}
    made_from = (pod["metadata"].get("labels") or {}).get(TEMPLATE_LABEL)
    return TEMPLATE_ANNOTATION not in annotations or made_from == annotations[TEMPLATE_ANNOTATION]


def _explain_pod(pod: Object, nodes: dict[str, Object]) -> str:
    node = pod["spec"].get("nodeName")
    name = pod["metadata"]["name"]
    if not node:
        return f"pod {name}: on no node yet: {_unscheduled(pod)}"
    condition = find_condition(nodes.get(node, {}), CONDITION)
    # Of an installer that waits, an earlier failure is past.
    waits = condition.get("reason") in ("WaitingForIdle", "Draining")
    said = "" if waits else _termination_message(pod)
    if not said and condition.get("status") == "False":
        said = condition.get("message", "").strip()
    if said:
        return said if said.startswith(f"node {node}:") else f"node {node}: {said}"
    state = f"its installer has said nothing; pod {name} is {_state(pod)}"
    ready = f"; {CONDITION} {condition['status']}: {condition.get('message', '')}" if condition else ""
    look = f"kubectl describe pod {name} --namespace {pod['metadata'].get('namespace')}"
    if _waiting(pod).get("reason") in NO_IMAGE:
        look = f"check soci:installerImage, and that the nodes can pull it; {look}"
    return f"node {node}: {state}{ready}. Remedy: {look}"


def _is_ready(pod: Object) -> bool:
    return has_condition(pod, "Ready")


def has_condition(item: Object, kind: str) -> bool:
    """Whether an object of the API has a condition, and it is true."""
    return find_condition(item, kind).get("status") == "True"


def find_condition(item: Object, kind: str) -> Object:
    """A condition of an object of the API; empty when it has none of that kind."""
    conditions = item.get("status", {}).get("conditions") or ()
    return next((entry for entry in conditions if entry["type"] == kind), {})


def _unscheduled(pod: Object) -> str:
    return find_condition(pod, "PodScheduled").get("message", "not scheduled")


def _containers(pod: Object) -> Sequence[Object]:
    """The states of a pod's containers; of the installer's pod its own alone, as long as it is not ready."""
    states = pod.get("status", {}).get("containerStatuses") or ()
    own = [state for state in states if state.get("name") == "installer" and not state.get("ready")]
    return own or states


def _termination_message(pod: Object) -> str:
    """The last words of a pod: of the container that just ended, else of the one before the running one."""
    return _without_breaks(_terminated(pod))


def _terminated(pod: Object) -> str:
    """The same as the pod wrote them."""
    for container in _containers(pod):
        for state in (container.get("state"), container.get("lastState")):
            if message := ((state or {}).get("terminated") or {}).get("message"):
                return message
    return ""


def _without_breaks(message: str) -> str:
    """The words in one line, and below them the lines of the node's journal, if there are any."""
    lines = message.splitlines()
    words = " ".join(word for line in lines if not line.startswith(JOURNAL_MARK) for word in line.split())
    return "\n    ".join([words, *(line for line in lines if line.startswith(JOURNAL_MARK))])


def _waiting(pod: Object) -> Object:
    """What the first container that waits waits for."""
    states = ((container.get("state") or {}).get("waiting") for container in _containers(pod))
    return next((state for state in states if state), {})


def _state(pod: Object) -> str:
    if pod.get("status", {}).get("reason") == "Evicted":
        return f"Evicted ({pod['status'].get('message', '')})"
    if waiting := _waiting(pod):
        message = waiting.get("message")
        return waiting.get("reason", "waiting") + (f" ({message})" if message else "")
    for container in _containers(pod):
        if ended := (container.get("state") or {}).get("terminated"):
            return f"{ended.get('reason', 'ended')} (exit code {ended.get('exitCode')})"
    return pod.get("status", {}).get("phase", "of unknown state")


def read_rollout(cluster: LiveCluster, namespace: str) -> Found:
    """What a cluster shows of a rollout.

    Raises:
        UnreadableError: the cluster cannot be read.
    """
    return Found(
        nodes=cluster.items("/api/v1/nodes"),
        pods=cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=POD_LABELS),
        daemon_set=cluster.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{INSTALLER}"),
    )


def report_rollout(
    rollout: Rollout, kubeconfig: str, context: str, connect: Connect = LiveCluster
) -> list[str]:
    """What to tell the user about a failed rollout; never raises, since its own error must stay visible."""
    logs = f"kubectl logs --namespace {rollout.namespace} --selector {POD_LABELS} --prefix"
    look = f"look with: kubectl describe nodes, {logs}"
    if not kubeconfig:
        return [f"the installer has no kubeconfig to read the nodes' reasons with; {look}"]
    try:
        lines = explain(rollout, read_rollout(connect(kubeconfig, context), rollout.namespace))
    except Exception as error:  # noqa: BLE001 (whatever fails here must not hide the rollout's failure)
        return [f"the nodes' reasons cannot be read ({first_line(error)}); {look}"]
    return lines or [f"every installer pod is ready by now: pulumi up again; {look}"]


def explain_job(job: Job, pods: Sequence[Object], events: Sequence[Object]) -> str:
    """Why a Job failed, with the remedy.

    Args:
        job: the Job.
        pods: what is left of its pods, as the API's JSON; one that has not ended at the limit is deleted.
        events: the Events about the Job and its pods, as the API's JSON.
    """
    warnings = [event for event in events if event.get("type") == "Warning"]
    of_pods = [event for event in warnings if event["involvedObject"].get("kind") == "Pod"]
    refused = [event for event in warnings if event.get("reason") == "FailedCreate"]
    ended = [pod for pod in pods if _containers(pod)]
    remedy = job.kind.mend
    late = f"did not end within {job.limit_seconds} s"
    failed = f"{job.kind.title}, Job {job.namespace}/{job.name}, failed"
    if job.deleted_pods:
        reason = f"{'; '.join(job.deleted_pods)} {late}, nor when it was told to: {NO_END}"
        remedy = "repair the node or delete it, then pulumi up"
    elif ended:
        last = max(ended, key=lambda pod: pod["metadata"].get("creationTimestamp") or "")
        where = f"{job.namespace}/{last['metadata']['name']} on node {last['spec'].get('nodeName')}"
        said = _termination_message(last)
        words = [line for line in _terminated(last).splitlines() if "Remedy: " in line]
        if words and job.kind.says_remedy:
            return "\n    ".join([f"{failed}: pod {where}: {_state(last)}:", *words])
        reason = f"pod {where}: {_state(last)}" + (f": {said}" if said else "")
    elif of_pods:
        # A back-off says least: what it backs off from is told by the Events before it.
        last = max(of_pods, key=lambda event: (event.get("reason") != "BackOff", len(event["message"])))
        where = f"{job.namespace}/{last['involvedObject'].get('name')}"
        if kubelet := (last.get("source") or {}).get("host"):
            where += f" on node {kubelet}"
        reason = f"pod {where} {late}: {last.get('reason')}: {_in_one_line(last)}"
    elif refused:
        reason = f"no pod could be made: {_in_one_line(refused[-1])}"
        remedy = f"mend what the namespace {job.namespace} lets in"
    else:
        reason = f"its pod {late}"
        remedy += f", or set {job.kind.limit} higher"
    return f"{failed}: {reason}. Remedy: {remedy}, or do without it: {job.kind.without}"


def _in_one_line(event: Object) -> str:
    return " ".join(event.get("message", "").split())


def report_job(job: Job, kubeconfig: str, context: str, connect: Connect = LiveCluster) -> list[str]:
    """What to tell the user about a failed Job; never raises."""
    look = f"look with: kubectl describe job {job.name} --namespace {job.namespace}"
    if not kubeconfig:
        return [f"{job.kind.title} has no kubeconfig to read the reason with; {look}"]
    try:
        cluster = connect(kubeconfig, context)
        namespace = f"/api/v1/namespaces/{job.namespace}"
        pods = cluster.items(f"{namespace}/pods", labelSelector=f"{JOB_LABEL}={job.name}")
        events = [
            event
            for event in cluster.items(f"{namespace}/events")
            if f"{event['involvedObject'].get('name')}-".startswith(f"{job.name}-")
        ]
        return [explain_job(job, pods, events)]
    except Exception as error:  # noqa: BLE001 (whatever fails here must not hide the Job's failure)
        return [f"{job.kind.title}'s reason cannot be read ({first_line(error)}); {look}"]


def unattended_nodes(kubeconfig: str, context: str, connect: Connect = LiveCluster) -> list[str] | None:
    """The names of the nodes that have SOCI and that no installer selects; None when the cluster cannot be
    read."""
    try:
        return other_installers.unattended(connect(kubeconfig, context))
    except Exception:  # noqa: BLE001 (whatever fails here must not hide what it is asked for)
        return None


def rollout_hook(name: str, access: Access, rollout: Rollout, resource: pulumi.Resource) -> pulumi.ErrorHook:
    """A hook for the DaemonSet that logs, for each node that failed, its step, cause and remedy.

    Args:
        name: unique name of the hook.
        access: kubeconfig and context; without them the hook only says where to look.
        rollout: what it was to reach.
        resource: the resource under which the lines are shown.
    """
    return error_hook(name, access, resource, lambda _, *access: report_rollout(rollout, *access))


def error_hook(
    name: str, access: Access, resource: pulumi.Resource, report: Callable[[Object, str, str], list[str]]
) -> pulumi.ErrorHook:
    """A hook that logs what a report on the object's metadata, with kubeconfig and context, says."""

    async def explain_failure(args: pulumi.ErrorHookArgs) -> bool:
        if args.failed_operation in ("create", "update") and not is_refused_creation(args):
            kubeconfig, context = await access.future(with_unknowns=True) or ("", "")
            metadata = (args.new_inputs or {}).get("metadata", {})
            for line in await asyncio.to_thread(report, metadata, kubeconfig, context):
                pulumi.log.error(line, resource)
        return False  # no retry: the kubelet retries on the nodes, and the next `pulumi up` waits again

    return pulumi.ErrorHook(name, explain_failure)
