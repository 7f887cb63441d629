"""SampleWorkload: a Job of a large image that runs once on a node with SOCI, to see the gain and try an
upgrade."""

import pulumi
import pulumi_kubernetes as k8s

from . import configuration, failure, image_pull_secrets, settings
from .arguments import SampleWorkloadArgs
from .cluster_access import access_of
from .installer import labels
from .job_hooks import JobHooks
from .names import VERSION_LABEL
from .sample_figures import CONTAINER, SampleFigures


class SampleWorkload(pulumi.ComponentResource):
    """A Job of one pod, which runs once: a finished pod uses no lazily loaded layer, so it does not hold up a
    version change."""

    # A Job rather than a Pod: the provider waits for a Pod that failed, or never starts, without an end
    # (its time limit starts anew with every event), while a Job that failed ends the wait. That is also why
    # the limit is the Job's own.

    pod: pulumi.Output[str]
    """The Job, `namespace/name`."""
    figures: pulumi.Output[str]
    """What came of it, in a line: pull and start, how many layers were lazily loaded, and bytes moved."""

    def __init__(
        self, name: str, args: SampleWorkloadArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        given = {key: value for key, value in args.items() if key not in ("kubeconfig", "context")}
        chosen = configuration.from_sample_arguments(given)
        shown = {
            key: settings.protected(["sample_workload"], value)
            for key, value in given.items()
            if key != "image_pull_secrets"
        }
        super().__init__("soci:index:SampleWorkload", name, shown, opts)
        limit = chosen.rollout_timeout_seconds
        access = access_of(self, args.get("kubeconfig"), args.get("context"))
        sample, version = chosen.sample_workload, chosen.version
        container: k8s.core.v1.ContainerArgsDict = {
            "name": CONTAINER,
            "image": settings.protected(["sample_workload"], sample.image),
            # What it said last is shown when it fails.
            "termination_message_policy": "FallbackToLogsOnError",
        }
        if sample.command:
            container["command"] = settings.protected(["sample_workload"], list(sample.command))
        pod: k8s.core.v1.PodSpecArgsDict = {
            "restart_policy": "Never",
            "node_selector": {VERSION_LABEL: version},
            "containers": [container],
        }
        if chosen.image_pull_secrets:
            made = self._pull_secret(name, chosen)
            pod["image_pull_secrets"] = image_pull_secrets.references(chosen.image_pull_secrets, made)
        figures = SampleFigures(f"{name}-figures", sample.image, access, self)
        # Autonamed: a change of image, command or version starts a new one before the old one is deleted.
        job = k8s.batch.v1.Job(
            f"{name}-job",
            metadata={
                "labels": labels("sample", version),
                # One that failed is made anew by the next `pulumi up`.
                "annotations": {"pulumi.com/replaceUnready": "true"},
            },
            spec={
                "backoff_limit": 0,
                "active_deadline_seconds": limit,
                "template": {
                    "metadata": {"labels": labels("sample", version)},
                    "spec": pod,
                },
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                # The provider's own limit is for its clock alone: the Job has the true one.
                custom_timeouts=pulumi.CustomTimeouts(create=f"{limit + 60}s"),
                hooks=JobHooks(name, failure.SAMPLE, access, limit, self).binding([figures.hook]),
            ),
        )
        self.pod = pulumi.Output.format("{0}/{1}", job.metadata["namespace"], job.metadata["name"])
        self.figures = figures.of(job)
        self.register_outputs({"pod": self.pod, "figures": self.figures})

    def _pull_secret(self, name: str, chosen: settings.Settings) -> pulumi.Input[str]:
        """The name of the Secret of the credentials for the sample's image; empty when there are none."""
        logins = image_pull_secrets.logins(chosen.image_pull_secrets)
        if not logins:
            return ""
        # Autonamed, too: other credentials run the sample anew, which tries them.
        secret = k8s.core.v1.Secret(
            f"{name}-registries",
            metadata={"labels": labels("sample", chosen.version)},
            type=image_pull_secrets.TYPE,
            data=image_pull_secrets.data(logins),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return secret.metadata["name"]
