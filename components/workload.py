"""SampleWorkload: a pod from a large image that runs once on a node with SOCI, to see the gain and try an
upgrade."""

import asyncio
from typing import NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as k8s

from . import failure
from .installer import VERSION_LABEL, labels
from .settings import SampleSettings, Settings


class SampleWorkloadArgs(TypedDict):
    """What the sample runs, and for which SOCI version."""

    version: str
    """SOCI version that the node must carry."""
    image: NotRequired[str]
    """Image of the pod. Default: a TensorFlow image of several gigabytes."""
    command: NotRequired[list[str]]
    """What it runs; empty for the image's own command."""
    timeout_seconds: NotRequired[int]
    """How long it may take, in seconds, its image's pull included. Default: 600."""
    kubeconfig: NotRequired[pulumi.Input[str]]
    """Content of the cluster's kubeconfig. Used to name the pod, and to show why it failed."""
    context: NotRequired[pulumi.Input[str]]
    """The kubeconfig's context to use for that. Default: its current one."""


class SampleWorkload(pulumi.ComponentResource):
    """A Job of one pod, which runs once: a finished pod uses no lazily loaded layer, so it does not hold up a
    version change."""

    # A Job rather than a Pod: the provider waits for a Pod that failed, or never starts, without an end
    # (its time limit starts anew with every event), while a Job that failed ends the wait. That is also why
    # the limit is the Job's own.

    pod: pulumi.Output[str]
    """The pod, `namespace/name`; the Job's name when the cluster cannot be read."""

    def __init__(
        self, name: str, args: SampleWorkloadArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        shown = {key: value for key, value in args.items() if key not in ("kubeconfig", "context")}
        super().__init__("soci:index:SampleWorkload", name, shown, opts)
        default = SampleSettings()
        limit = args.get("timeout_seconds", Settings().rollout_timeout_seconds)
        access = pulumi.Output.all(args.get("kubeconfig") or "", args.get("context") or "")
        container: k8s.core.v1.ContainerArgsDict = {
            "name": "sample",
            "image": args.get("image", default.image),
            # What it said last is shown when it fails.
            "termination_message_policy": "FallbackToLogsOnError",
        }
        if command := args.get("command", list(default.command)):
            container["command"] = command
        # Autonamed: a change of image, command or version starts a new one before the old one is deleted.
        job = k8s.batch.v1.Job(
            f"{name}-job",
            metadata={
                "labels": labels("sample", args["version"]),
                # One that failed is made anew by the next `pulumi up`.
                "annotations": {"pulumi.com/replaceUnready": "true"},
            },
            spec={
                "backoff_limit": 0,
                "active_deadline_seconds": limit,
                "template": {
                    "metadata": {"labels": labels("sample", args["version"])},
                    "spec": {
                        "restart_policy": "Never",
                        "node_selector": {VERSION_LABEL: args["version"]},
                        "containers": [container],
                    },
                },
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                hooks=pulumi.ResourceHookBinding(
                    on_error=[failure.sample_hook(f"{name}-failure", access, limit, self)]
                ),
            ),
        )
        # The status is known once the Job has run: only then there is a pod to name.
        ran = pulumi.Output.all(job.metadata["namespace"], job.metadata["name"], access, job.status)
        self.pod = pulumi.Output.unsecret(
            ran.apply(lambda found: asyncio.to_thread(failure.sample_pod, found[0], found[1], *found[2]))
        )
        self.register_outputs({"pod": self.pod})
