"""The time limit of a Job that runs once, where its pod cannot end.

Kubernetes (1.31 and newer) says that a Job has failed only once its pods have ended; until then it has the
condition `FailureTarget` (kubernetes.io/docs/concepts/workloads/controllers/job, "Terminal Job conditions").
A pod does not end when its node's kubelet is away, or its program is in a read that does not return. The
provider waits for a Job without an end: its own limit starts anew with every event. So the program deletes
the object of such a pod, as `kubectl delete pod --force` does, and the Job fails.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeGuard

import pulumi

from .failure import JOB_LABEL, Access, Job, JobKind, find_condition
from .live_cluster import LiveCluster, Object, first_line

LOOK_SECONDS = 10.0
GRACE_SECONDS = 60.0  # for a pod that can end: twice what a kubelet gives its containers
FAILS, IS_OVER = "FailureTarget", ("Complete", "Failed")
ENDED = ("Succeeded", "Failed")  # phases of a pod

Say = Callable[[str], None]
Sleep = Callable[[float], object]


def job_limit_hook(
    name: str, kind: JobKind, access: Access, limit_seconds: int, resource: pulumi.Resource
) -> pulumi.ResourceHook:
    """A hook for a Job's `before_create` that keeps its limit.

    Args:
        name: unique name of the hook.
        kind: what the Job is for.
        access: kubeconfig and context; without them nothing is done.
        limit_seconds: the Job's `activeDeadlineSeconds`.
        resource: the resource under which lines are shown.
    """

    async def keep_limit(args: pulumi.ResourceHookArgs) -> None:
        kubeconfig, context = await access.future(with_unknowns=True) or ("", "")
        metadata = (args.new_inputs or {})["metadata"]
        job = Job(kind, metadata["namespace"], metadata["name"], limit_seconds)
        loop = asyncio.get_running_loop()

        def warn(line: str) -> None:
            loop.call_soon_threadsafe(pulumi.log.warn, line, resource)

        def watch() -> None:
            time.sleep(limit_seconds)
            try:
                see_to_end(job, LiveCluster(kubeconfig, context), warn)
            except Exception as error:  # noqa: BLE001 (told; whoever runs `pulumi up` can do it by hand)
                warn(_untended(job, error))

        if kubeconfig:
            # It ends with the program, which is there for as long as the provider waits.
            threading.Thread(target=watch, name=name, daemon=True).start()

    return pulumi.ResourceHook(name, keep_limit, pulumi.ResourceHookOptions(ignore_errors=True))


def see_to_end(job: Job, cluster: LiveCluster, say: Say, sleep: Sleep = time.sleep) -> None:
    """Wait for the end of a Job whose limit has passed, and delete those of its pods that do not end.

    Args:
        job: the Job.
        cluster: where it is.
        say: is told what is done.
        sleep: waits for so many seconds.

    Raises:
        UnreadableError: the cluster cannot be read, or lets this user delete no pod.
    """
    fails_for, deleted, is_told = 0.0, set[str](), False
    while _goes_on(found := cluster.get(f"/apis/batch/v1/namespaces/{job.namespace}/jobs/{job.name}")):
        if _has(found, FAILS):
            fails_for += LOOK_SECONDS
        elif found["spec"].get("suspend") and not is_told:
            say(_suspended(job))
            is_told = True
        if fails_for > GRACE_SECONDS:
            of_job = f"{JOB_LABEL}={job.name}"
            for pod in cluster.items(f"/api/v1/namespaces/{job.namespace}/pods", labelSelector=of_job):
                name = pod["metadata"]["name"]
                if name not in deleted and pod["status"].get("phase") not in ENDED:
                    say(_stuck(job, pod))
                    cluster.delete_pod(job.namespace, name)
                    deleted.add(name)
        sleep(LOOK_SECONDS)


def _suspended(job: Job) -> str:
    return (
        f"{job.kind.title}, Job {job.namespace}/{job.name}, is suspended, and waits without a limit. Remedy: "
        f"let what suspends it (Kueue, say) admit it, or do without it: {job.kind.without}"
    )


def _stuck(job: Job, pod: Object) -> str:
    return (
        f"pod {job.namespace}/{pod['metadata']['name']} on node {pod['spec'].get('nodeName')} does not end: "
        "the node's kubelet is away, or its program is in a read that does not return. Its object is "
        f"deleted, so that {job.kind.title} can fail"
    )


def _untended(job: Job, error: Exception) -> str:
    pods = f"--namespace {job.namespace} --selector {JOB_LABEL}={job.name}"
    return (
        f"{job.kind.title} may wait for a pod that cannot end ({first_line(error)}). Remedy: kubectl get "
        f"pods {pods}, and if it is Terminating, kubectl delete pods --force {pods}"
    )


def _goes_on(job: Object | None) -> TypeGuard[Object]:
    return job is not None and not any(_has(job, kind) for kind in IS_OVER)


def _has(job: Object, kind: str) -> bool:
    return find_condition(job.get("status", {}).get("conditions"), kind).get("status") == "True"
