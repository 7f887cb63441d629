"""Why a rollout of the installer failed: the nodes' own words, for the user of `pulumi up`.

The Kubernetes provider's wait ends with "timed out waiting for the condition" and names no cause. The engine
then calls the error hook made here; it reads the nodes' SociReady conditions and the installer pods'
termination messages.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pulumi

JOURNAL_MARK = "| "  # begins each line of the node's journal in the installer's last words
POD_LABELS = "app.kubernetes.io/name=soci-installer"
CONDITION = "SociReady"
REQUEST_TIMEOUT_SECONDS = 10

Object = Mapping[str, Any]
Read = Callable[[str, str, str], tuple[Sequence[Object], Sequence[Object]]]


def explain(nodes: Sequence[Object], pods: Sequence[Object]) -> list[str]:
    """One line for each node whose installer is not ready: node, step, cause, remedy.

    Args:
        nodes: the cluster's nodes, as the API's JSON.
        pods: the installer's pods, as the API's JSON.
    """
    conditions = {node["metadata"]["name"]: _condition(node) for node in nodes}
    return sorted(line for pod in pods if (line := _explain_pod(pod, conditions)))


def _explain_pod(pod: Object, conditions: Mapping[str, Object]) -> str | None:
    if pod["metadata"].get("deletionTimestamp") or _is_ready(pod):
        return None
    node = pod["spec"].get("nodeName")
    name = pod["metadata"]["name"]
    if not node:
        scheduled = _find(pod.get("status", {}).get("conditions"), "PodScheduled")
        return f"pod {name}: on no node yet: {scheduled.get('message', 'not scheduled')}"
    condition = conditions.get(node, {})
    # Of an installer that waits, an earlier failure is past.
    waits = condition.get("reason") in ("WaitingForIdle", "Draining")
    said = "" if waits else _termination_message(pod)
    if not said and condition.get("status") == "False":
        said = condition.get("message", "").strip()
    if said:
        return said if said.startswith(f"node {node}:") else f"node {node}: {said}"
    state = f"its installer has said nothing; pod {name} is {_state(pod)}"
    ready = f"; {CONDITION} {condition['status']}: {condition.get('message', '')}" if condition else ""
    remedy = f"kubectl describe pod {name} --namespace {pod['metadata'].get('namespace')}"
    return f"node {node}: {state}{ready}. Remedy: {remedy}"


def _is_ready(pod: Object) -> bool:
    return _find(pod.get("status", {}).get("conditions"), "Ready").get("status") == "True"


def _condition(node: Object) -> Object:
    return _find(node.get("status", {}).get("conditions"), CONDITION)


def _find(conditions: Sequence[Object] | None, kind: str) -> Object:
    return next((entry for entry in conditions or () if entry["type"] == kind), {})


def _containers(pod: Object) -> Sequence[Object]:
    return pod.get("status", {}).get("containerStatuses") or ()


def _termination_message(pod: Object) -> str:
    """The last words of the installer: of the container that just ended, else of the one before the running
    one."""
    for container in _containers(pod):
        for state in (container.get("state"), container.get("lastState")):
            if message := ((state or {}).get("terminated") or {}).get("message"):
                return _without_breaks(message)
    return ""


def _without_breaks(message: str) -> str:
    """The words in one line, and below them the lines of the node's journal, if there are any."""
    lines = message.splitlines()
    words = " ".join(word for line in lines if not line.startswith(JOURNAL_MARK) for word in line.split())
    return "\n    ".join([words, *(line for line in lines if line.startswith(JOURNAL_MARK))])


def _state(pod: Object) -> str:
    for container in _containers(pod):
        if waiting := (container.get("state") or {}).get("waiting"):
            message = waiting.get("message")
            return waiting.get("reason", "waiting") + (f" ({message})" if message else "")
        if ended := (container.get("state") or {}).get("terminated"):
            return f"{ended.get('reason', 'ended')} (exit code {ended.get('exitCode')})"
    return pod.get("status", {}).get("phase", "of unknown state")


def read_cluster(kubeconfig: str, context: str, namespace: str) -> tuple[Sequence[Object], Sequence[Object]]:
    """Nodes and installer pods of a cluster, as the API's JSON."""
    import yaml
    from kubernetes import client, config  # heavy, and needed only when a rollout failed

    connection = config.new_client_from_config_dict(yaml.safe_load(kubeconfig), context=context or None)
    api = client.CoreV1Api(connection)
    nodes = api.list_node(_request_timeout=REQUEST_TIMEOUT_SECONDS)
    pods = api.list_namespaced_pod(
        namespace, label_selector=POD_LABELS, _request_timeout=REQUEST_TIMEOUT_SECONDS
    )
    return tuple(connection.sanitize_for_serialization(found)["items"] for found in (nodes, pods))


def report(kubeconfig: str, context: str, namespace: str, read: Read = read_cluster) -> list[str]:
    """What to tell the user about a failed rollout; never raises, since the rollout's own error must stay
    visible."""
    logs = f"kubectl logs --namespace {namespace} --selector {POD_LABELS} --prefix"
    look = f"look with: kubectl describe nodes, {logs}"
    if not kubeconfig:
        return [f"the installer has no kubeconfig to read the nodes' reasons with; {look}"]
    try:
        lines = explain(*read(kubeconfig, context, namespace))
    except Exception as error:  # noqa: BLE001 (whatever fails here must not hide the rollout's failure)
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        return [f"the nodes' reasons cannot be read ({first_line}); {look}"]
    return lines or [f"every installer pod that exists is ready by now; {look}"]


def error_hook(
    name: str,
    kubeconfig: pulumi.Input[str] | None,
    context: pulumi.Input[str] | None,
    namespace: str,
    resource: pulumi.Resource,
) -> pulumi.ErrorHook:
    """A hook for the DaemonSet that logs, for each node that failed, its step, cause and remedy.

    Args:
        name: unique name of the hook.
        kubeconfig: content of the cluster's kubeconfig; without it the hook only says where to look.
        context: the context in it; empty or None for its current one.
        namespace: where the installer's pods are.
        resource: the resource under which the lines are shown.
    """
    access = pulumi.Output.all(kubeconfig or "", context or "")

    async def explain_failure(args: pulumi.ErrorHookArgs) -> bool:
        if args.failed_operation in ("create", "update"):
            configured, chosen = await access.future(with_unknowns=True) or ("", "")
            for line in await asyncio.to_thread(report, configured, chosen, namespace):
                pulumi.log.error(line, resource)
        return False  # no retry: the kubelet retries on the nodes, and the next `pulumi up` waits again

    return pulumi.ErrorHook(name, explain_failure)
