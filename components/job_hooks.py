"""The end of a Job that runs once, as `pulumi up` waits for it: within the Job's limit, and with the cause.

Kubernetes (1.31 and newer) says that a Job has failed only once its pods have ended; until then it has the
condition `FailureTarget` (kubernetes.io/docs/concepts/workloads/controllers/job, "Terminal Job conditions").
A pod does not end when its node's kubelet is away, or its program is in a read that does not return. The
provider waits for a Job without an end: its own limit starts anew with every event. So the program deletes
the object of such a pod, as `kubectl delete pod --force` does, and the Job fails.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import pulumi

from .failure import JOB_LABEL, NO_END, Access, Job, JobKind, error_hook, has_condition, report_job
from .live_cluster import LiveCluster, Object, UnreadableError, first_line

LOOK_SECONDS = 10.0
FAILED_LOOK_SECONDS = 60.0  # after one that failed: it may have asked a person for a password
SPARE_SECONDS = 30.0  # for a pod, beyond the time that it is given to end in
FAILS, IS_OVER = "FailureTarget", ("Complete", "Failed")
OF_KUBERNETES = "batch.kubernetes.io/job-tracking"  # the finalizer that the Job controller takes off itself

Say = Callable[[str], None]


class JobHooks:
    """The hooks of one Job.

    Args:
        name: how their unique names begin.
        kind: what the Job is for.
        access: kubeconfig and context.
        limit_seconds: the Job's `activeDeadlineSeconds`.
        resource: the resource under which lines are shown.
    """

    def __init__(
        self, name: str, kind: JobKind, access: Access, limit_seconds: int, resource: pulumi.Resource
    ) -> None:
        self._name, self._kind, self._access, self._limit = name, kind, access, limit_seconds
        self._resource = resource
        self._is_told = threading.Event()  # the provider has told the Job's end
        self._watch: JobWatch | None = None

    def binding(self, after_create: Sequence[pulumi.ResourceHook] = ()) -> pulumi.ResourceHookBinding:
        """What the Job's options take; ``after_create`` are further hooks."""
        options = pulumi.ResourceHookOptions(ignore_errors=True)
        return pulumi.ResourceHookBinding(
            before_create=[pulumi.ResourceHook(f"{self._name}-limit", self._before_create, options)],
            after_create=[
                pulumi.ResourceHook(f"{self._name}-end", lambda _: self._is_told.set(), options),
                *after_create,
            ],
            on_error=[error_hook(f"{self._name}-failure", self._access, self._resource, self._report)],
        )

    async def _before_create(self, args: pulumi.ResourceHookArgs) -> None:
        kubeconfig, context = await self._access.future(with_unknowns=True) or ("", "")
        job = self._job((args.new_inputs or {})["metadata"])
        loop = asyncio.get_running_loop()

        def connect() -> LiveCluster:
            if not kubeconfig:
                raise UnreadableError("there is no kubeconfig to see to it with")
            return LiveCluster(kubeconfig, context)

        def say(line: str) -> None:
            with contextlib.suppress(RuntimeError):  # the program has ended
                loop.call_soon_threadsafe(pulumi.log.warn, line, self._resource)

        self._is_told.clear()
        self._watch = JobWatch(job, connect, say)
        # Where the program fails while the provider waits, it ends, and nobody sees to the Job.
        threading.Thread(
            target=self._watch.run,
            args=(lambda seconds: self._is_told.wait(seconds) or loop.is_closed(),),
            name=self._name,
            daemon=True,
        ).start()

    def _report(self, metadata: Object, kubeconfig: str, context: str) -> list[str]:
        self._is_told.set()
        deleted = tuple(self._watch.deleted) if self._watch else ()
        return report_job(self._job(metadata, deleted), kubeconfig, context)

    def _job(self, metadata: Object, deleted_pods: tuple[str, ...] = ()) -> Job:
        return Job(self._kind, metadata["namespace"], metadata["name"], self._limit, deleted_pods)


class JobWatch:
    """Looks at a Job from its limit on, and deletes those of its pods that do not end.

    Args:
        job: the Job.
        connect: gives its cluster; may raise `UnreadableError`.
        say: is told what is done, or cannot be done.
        clock: seconds of a clock that never jumps.

    Attributes:
        deleted: the pods whose objects were deleted, in words.
    """

    def __init__(
        self,
        job: Job,
        connect: Callable[[], LiveCluster],
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deleted: list[str] = []
        self._job, self._connect, self._clock = job, connect, clock
        self._say_to, self._said = say, set[str]()
        self._is_seen = False
        self._terminating: dict[str, float] = {}  # pods that were told to end, and when that was first seen

    def run(self, wait: Callable[[float], bool]) -> None:
        """Look until the Job's end.

        Args:
            wait: waits for so many seconds, and says whether there is nothing to wait for any more.
        """
        cluster: LiveCluster | None = None
        seconds: float = self._job.limit_seconds
        while not wait(seconds):
            try:
                cluster = cluster or self._connect()
                if not self._look(cluster):
                    return
                seconds = LOOK_SECONDS
            except Exception as error:  # noqa: BLE001 (the next look may succeed)
                self._say("untended", _untended(self._job, error))
                # One that nothing answered asks nothing again.
                cluster, seconds = None, FAILED_LOOK_SECONDS

    def _look(self, cluster: LiveCluster) -> bool:
        """See to what does not end; whether the Job still goes on."""
        job = self._job
        found = cluster.get(f"/apis/batch/v1/namespaces/{job.namespace}/jobs/{job.name}")
        if found is None:
            if self._is_seen:
                self._say("gone", _gone(job))
            return not self._is_seen
        self._is_seen = True
        if any(has_condition(found, kind) for kind in IS_OVER):
            return False
        if found["spec"].get("suspend"):
            self._say("suspended", _suspended(job))
        if has_condition(found, FAILS):
            of_job = f"{JOB_LABEL}={job.name}"
            for pod in cluster.items(f"/api/v1/namespaces/{job.namespace}/pods", labelSelector=of_job):
                if _is_of(pod, found) and pod["metadata"].get("deletionTimestamp"):
                    self._end(cluster, pod)
        return True

    def _end(self, cluster: LiveCluster, pod: Object) -> None:
        """Delete a pod that was told to end and has had its time."""
        metadata = pod["metadata"]
        name = metadata["name"]
        since = self._terminating.setdefault(name, self._clock())
        if self._clock() - since <= (metadata.get("deletionGracePeriodSeconds") or 0) + SPARE_SECONDS:
            return
        where = f"pod {self._job.namespace}/{name} on node {pod['spec'].get('nodeName')}"
        if where not in self.deleted:
            cluster.delete_pod(self._job.namespace, name)
            self.deleted.append(where)
            self._say(name, f"{where} does not end: {NO_END}. Its object was deleted")
        elif others := [held for held in metadata.get("finalizers") or () if held != OF_KUBERNETES]:
            self._say(f"{name} is held", _held(where, others))

    def _say(self, about: str, line: str) -> None:
        """Once about each thing."""
        if about not in self._said:
            self._said.add(about)
            self._say_to(line)


def _suspended(job: Job) -> str:
    return (
        f"{job.kind.title}, Job {job.namespace}/{job.name}, is suspended, and waits without a limit. Remedy: "
        f"let what suspends it (Kueue, say) admit it, or do without it: {job.kind.without}"
    )


def _gone(job: Job) -> str:
    return (
        f"{job.kind.title}, Job {job.namespace}/{job.name}, is gone: something else has deleted it. Remedy: "
        "end this command (Ctrl-C), which still waits for it; then pulumi up --refresh"
    )


def _held(where: str, finalizers: Sequence[str]) -> str:
    return (
        f"{where} is deleted, but for its finalizers {', '.join(finalizers)}. Remedy: see to the controller "
        "that takes them off"
    )


def _untended(job: Job, error: Exception) -> str:
    pods = f"--namespace {job.namespace} --selector {JOB_LABEL}={job.name}"
    return (
        f"{job.kind.title} has not ended at its limit, and whether its pod can is not known "
        f"({first_line(error)}). Remedy: kubectl get pods {pods}, and if it stays Terminating, kubectl "
        f"delete pods --force {pods}"
    )


def _is_of(pod: Object, job: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == job["metadata"]["uid"] for owner in owners)
