"""SampleWorkload: a pod from a large image that runs once on a node with SOCI, to see the gain and try an
upgrade."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as k8s

from .installer import VERSION_LABEL, labels
from .settings import SampleSettings


class SampleWorkloadArgs(TypedDict):
    """What the sample runs, and for which SOCI version."""

    version: str
    """SOCI version that the node must carry."""
    image: NotRequired[str]
    """Image of the pod. Default: a TensorFlow image of several gigabytes."""
    command: NotRequired[list[str]]
    """What it runs; empty for the image's own command."""


class SampleWorkload(pulumi.ComponentResource):
    """One pod, which runs once: a finished pod uses no lazily loaded layer, so it does not hold up a version
    change."""

    pod: pulumi.Output[str]
    """The pod, `namespace/name`."""

    def __init__(
        self, name: str, args: SampleWorkloadArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("soci:index:SampleWorkload", name, dict(args), opts)
        default = SampleSettings()
        container: k8s.core.v1.ContainerArgsDict = {
            "name": "sample",
            "image": args.get("image", default.image),
        }
        if command := args.get("command", list(default.command)):
            container["command"] = command
        # Autonamed: a change of image, command or version starts a new pod before the old one is deleted.
        pod = k8s.core.v1.Pod(
            f"{name}-pod",
            metadata={"labels": labels("sample", args["version"])},
            spec={
                "restart_policy": "Never",
                "node_selector": {VERSION_LABEL: args["version"]},
                "containers": [container],
            },
            opts=pulumi.ResourceOptions(parent=self, custom_timeouts=pulumi.CustomTimeouts(create="20m")),
        )
        self.pod = pulumi.Output.format("{0}/{1}", pod.metadata["namespace"], pod.metadata["name"])
        self.register_outputs({"pod": self.pod})
