"""ImageIndex: a Job or CronJob that gives images their SOCI index in their registry."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from . import (
    configuration,
    failure,
    image_pull_secrets,
    index_rules,
    ownership,
    program,
    release,
    rules,
    settings,
)
from .arguments import ImageIndexArgs
from .cluster_access import access_of
from .installer import labels
from .job_hooks import JobHooks
from .names import DOMAIN, IMAGE_INDEX

PROGRAM_PATH = "/opt/soci-index"
WORK_PATH = "/work"
# Where soci-index keeps zTOCs in its cache, WORK_PATH. A directory between the two would be made by the
# container runtime, as root, and the pod could not write there.
ZTOCS_PATH = f"{WORK_PATH}/ztocs"
CREDENTIALS_PATH = "/credentials"
CA_FILE = "ca.pem"
USER = 65532  # nobody's
OWN_GIB = 2  # of the disk, for the programs and zTOCs; the rest is for layers
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
LATEST_START_SECONDS = 3600


class ImageIndex(pulumi.ComponentResource):
    """Images of a registry, kept with a SOCI index, on any cluster with amd64 or arm64 nodes.

    Without a `schedule` a Job runs once, and anew when an argument changes; the resource is done when every
    image has its index, and fails with soci-index's words when one has not. With a schedule it is done when
    the CronJob is there. Deleting it leaves the indexed images as they are. Give the cluster by a Kubernetes
    provider in `opts`.

    It has a namespace of its own rather than the installer's: that one lets privileged pods in, and whoever
    may make a pod beside these may read the credentials with which images are pushed. The pod has no right
    in the cluster, no root, no capability, nothing writable but its own directory and, where one is named,
    the claim that keeps zTOCs. The namespace and its service account, `soci-index`, have fixed names, for
    trust policies and Pod Identity associations.

    Raises:
        SociConfigError: an argument that cannot work (before anything is created).
    """

    namespace: pulumi.Output[str]
    """Its namespace."""
    service_account: pulumi.Output[str]
    """The pods' service account."""
    job: pulumi.Output[str]
    """The Job or CronJob, `namespace/name`."""
    images: pulumi.Output[list[str]]
    """The images with an index: what pods name to have them loaded lazily."""

    def __init__(self, name: str, args: ImageIndexArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        given = {key: value for key, value in args.items() if key not in ("kubeconfig", "context")}
        self._settings = configuration.from_index_arguments(given)
        if not self._settings.index.images:
            raise configuration.missing("index.images", "an ImageIndex without images does nothing")
        shown = {
            key: settings.protected(["index"], value)
            for key, value in given.items()
            if key not in ("image_pull_secrets", "index_credentials")
        }
        super().__init__("soci:index:ImageIndex", name, shown, opts)
        self._name, self._index = name, self._settings.index
        self._digests = release.pin(
            self._settings.version, self._settings.release_url, self._settings.sha256, self
        )
        for image in filter(index_rules.incompatible, indexed_images(self._index)):
            pulumi.log.warn(
                f"{image}: SOCI's makers call this registry not compatible with its indexes. Remedy: if it "
                "refuses them, pulumi config set --path soci:index.repository another.example/mirror/",
                self,
            )
        self._access = access_of(self, args.get("kubeconfig"), args.get("context"))
        self._ownership = ownership.Ownership(
            name, self, self._access, self._index.namespace, ownership.OF_IMAGE_INDEX
        )
        self.namespace = self._namespace().metadata["name"]
        account = self._account()
        self.service_account = account.metadata["name"]
        job = self._cron_job() if self._index.schedule else self._job()
        self.job = pulumi.Output.format("{0}/{1}", job.metadata["namespace"], job.metadata["name"])
        self.images = pulumi.Output.from_input(indexed_images(self._index))
        self.register_outputs(
            {
                "namespace": self.namespace,
                "serviceAccount": self.service_account,
                "job": self.job,
                "images": self.images,
            }
        )

    def _child(self, **options: object) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)  # ty: ignore[invalid-argument-type]

    def _owned(self) -> pulumi.ResourceOptions:
        """The options of a child with a fixed name, whose metadata names its owner."""
        hooks = pulumi.ResourceHookBinding(on_error=[self._ownership.refusal_hook])
        return self._child(
            transformations=[self._ownership.remember], transforms=[self._ownership.import_own], hooks=hooks
        )

    def _metadata(self, **more: Any) -> k8s.meta.v1.ObjectMetaArgsDict:
        """Of an autonamed object: a change makes a new one before the old one goes."""
        return {"namespace": self.namespace, "labels": labels("index", self._settings.version), **more}

    def _namespace(self) -> k8s.core.v1.Namespace:
        enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
        return k8s.core.v1.Namespace(
            f"{self._name}-namespace",
            metadata={
                "name": self._index.namespace,
                "labels": labels("index", self._settings.version) | enforce,
                "annotations": {ownership.ANNOTATION: self._ownership.owner},
            },
            opts=self._owned(),
        )

    def _account(self) -> k8s.core.v1.ServiceAccount:
        role = {ROLE_ANNOTATION: self._index.role_arn} if self._index.role_arn else {}
        return k8s.core.v1.ServiceAccount(
            f"{self._name}-account",
            metadata=self._metadata(
                name=IMAGE_INDEX, annotations={ownership.ANNOTATION: self._ownership.owner, **role}
            ),
            automount_service_account_token=False,
            opts=self._owned(),
        )

    def _secret(self, kind: str, logins: list[image_pull_secrets.Login]) -> k8s.core.v1.Secret:
        return k8s.core.v1.Secret(
            f"{self._name}-{kind}",
            metadata=self._metadata(),
            type=image_pull_secrets.TYPE,
            data=image_pull_secrets.data(
                logins, "indexCredentials" if kind == "credentials" else "imagePullSecrets"
            ),
            opts=self._child(),
        )

    def _job(self) -> k8s.batch.v1.Job:
        limit = self._index.timeout_seconds
        hooks = JobHooks(self._name, failure.IMAGE_INDEX, self._access, limit, self)
        return k8s.batch.v1.Job(
            f"{self._name}-job",
            # One that failed is made anew by the next `pulumi up`.
            metadata=self._metadata(annotations={"pulumi.com/replaceUnready": "true"}),
            spec=self._job_spec(),
            # The provider's own limit is for its clock alone: the Job has the true one.
            opts=self._child(
                hooks=hooks.binding(),
                custom_timeouts=pulumi.CustomTimeouts(create=f"{limit + 60}s"),
            ),
        )

    def _cron_job(self) -> k8s.batch.v1.CronJob:
        return k8s.batch.v1.CronJob(
            f"{self._name}-cron-job",
            metadata=self._metadata(),
            spec={
                "schedule": self._index.schedule,
                "time_zone": "Etc/UTC",
                "concurrency_policy": "Forbid",
                "starting_deadline_seconds": LATEST_START_SECONDS,
                "successful_jobs_history_limit": 1,
                "failed_jobs_history_limit": 3,
                "job_template": {
                    "metadata": {"labels": labels("index", self._settings.version)},
                    "spec": self._job_spec(),
                },
            },
            opts=self._child(),
        )

    def _job_spec(self) -> k8s.batch.v1.JobSpecArgsDict:
        return {
            # What fails once fails again, and what is interrupted with its node is no failure.
            "backoff_limit": 0,
            "pod_failure_policy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "on_pod_conditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "active_deadline_seconds": self._index.timeout_seconds,
            "template": {
                "metadata": {"labels": labels("index", self._settings.version)},
                "spec": self._pod(),
            },
        }

    def _pod(self) -> k8s.core.v1.PodSpecArgsDict:
        files = {f"soci_index/{path}": text for path, text in program.INDEX.files().items()}
        if self._index.ca_certificates:
            files[CA_FILE] = self._index.ca_certificates + "\n"
        volumes: list[k8s.core.v1.VolumeArgsDict] = [
            {
                "name": "program",
                "config_map": {"name": self._config_map(files), "items": program.config_map_items(files)},
            },
            {"name": "work", "empty_dir": {"size_limit": f"{self._index.disk_gib}Gi"}},
        ]
        if claim := self._index.cache_claim:
            volumes.append({"name": "ztocs", "persistent_volume_claim": {"claim_name": claim}})
        if credentials := self._credentials():
            item: k8s.core.v1.KeyToPathArgsDict = {"key": image_pull_secrets.KEY, "path": "config.json"}
            volumes.append(
                {
                    "name": "credentials",
                    "secret": {"secret_name": credentials, "items": [item], "default_mode": 0o440},
                }
            )
        # Those for the image in which it runs, which are others than those that push.
        pull = self._settings.image_pull_secrets
        logins = image_pull_secrets.logins(pull)
        made = self._secret("registries", logins).metadata["name"] if logins else ""
        return {
            "restart_policy": "Never",
            "service_account_name": self.service_account,
            # It has no right in the cluster, so it has no token either. The one for an IAM role is another.
            "automount_service_account_token": False,
            "enable_service_links": False,
            "security_context": {
                "run_as_non_root": True,
                "run_as_user": USER,
                "run_as_group": USER,
                "fs_group": USER,
                "seccomp_profile": {"type": "RuntimeDefault"},
            },
            "node_selector": {"kubernetes.io/os": "linux", **self._index.node_selector},
            "affinity": {"node_affinity": self._node_affinity()},
            "tolerations": [toleration(text) for text in self._index.tolerated_taints],
            "containers": [self._container(has_credentials=bool(credentials))],
            "volumes": volumes,
            **({"image_pull_secrets": image_pull_secrets.references(pull, made)} if pull else {}),
        }

    def _config_map(self, files: dict[str, str]) -> pulumi.Output[str]:
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        config_map = k8s.core.v1.ConfigMap(
            f"{self._name}-program",
            metadata=self._metadata(annotations={f"{DOMAIN}/program-sha256": digest}),
            data=program.config_map_data(files),
            opts=self._child(hide_diffs=["data"]),
        )
        return config_map.metadata["name"]

    def _credentials(self) -> pulumi.Input[str]:
        """The name of the Secret with which images are pushed; empty when there is none."""
        given = self._settings.index_credentials
        if logins := image_pull_secrets.logins(given):
            return self._secret("credentials", logins).metadata["name"]
        return given[0] if given else ""

    def _node_affinity(self) -> k8s.core.v1.NodeAffinityArgsDict:
        expression: k8s.core.v1.NodeSelectorRequirementArgsDict = {
            "key": "kubernetes.io/arch",
            "operator": "In",
            "values": sorted(self._digests),
        }
        return {
            "required_during_scheduling_ignored_during_execution": {
                "node_selector_terms": [{"match_expressions": [expression]}]
            }
        }

    def _container(self, *, has_credentials: bool) -> k8s.core.v1.ContainerArgsDict:
        jobs, disk = self._index.jobs, f"{self._index.disk_gib}Gi"
        mounts: list[k8s.core.v1.VolumeMountArgsDict] = [
            {"name": "program", "mount_path": PROGRAM_PATH, "read_only": True},
            {"name": "work", "mount_path": WORK_PATH},
        ]
        if self._index.cache_claim:
            mounts.append({"name": "ztocs", "mount_path": ZTOCS_PATH})
        environment = {"HOME": WORK_PATH, "TMPDIR": WORK_PATH} | proxies(self._settings)
        if has_credentials:
            mounts.append({"name": "credentials", "mount_path": CREDENTIALS_PATH, "read_only": True})
            environment["DOCKER_CONFIG"] = CREDENTIALS_PATH
        return {
            "name": "index",
            "image": self._settings.installer_image,
            "command": ["python3", "-B", "-m", "soci_index", *arguments(self._settings, self._digests)],
            "working_dir": PROGRAM_PATH,
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": {
                "requests": {"cpu": f"{500 * jobs}m", "memory": f"{256 * jobs}Mi", "ephemeral-storage": disk},
                "limits": {"memory": f"{jobs}Gi"},
            },
            "security_context": {
                "allow_privilege_escalation": False,
                "read_only_root_filesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            # What it said last is shown when it fails: of each image that has no index, why.
            "termination_message_policy": "FallbackToLogsOnError",
            "volume_mounts": mounts,
        }


def arguments(chosen: settings.Settings, digests: dict[str, str]) -> list[str]:
    """The command line of soci-index.

    Args:
        chosen: what is to be indexed, and how.
        digests: architecture -> SHA-256 of SOCI's archive.
    """
    index = chosen.index
    options = [
        f"--cache={WORK_PATH}",
        f"--disk={index.disk_gib - OWN_GIB}GiB",
        f"--jobs={index.jobs}",
        *(f"--plain-http={host}" for host in index.plain_http),
        *common_options(chosen, digests),
    ]
    if index.repository:
        options.append(f"--to-repository={index.repository}")
    if index.ca_certificates:
        options.append(f"--ca-file={PROGRAM_PATH}/{CA_FILE}")
    return [*options, *index.images]


def common_options(chosen: settings.Settings, digests: Mapping[str, str]) -> list[str]:
    """The options of soci-index that do not depend on where it runs; arguments as for `arguments`."""
    index = chosen.index
    options = [
        f"--soci-version={chosen.version}",
        *(f"--soci-sha256={architecture}={digest}" for architecture, digest in sorted(digests.items())),
        f"--soci-releases={chosen.release_url}",
        f"--oras-releases={index.oras_url}",
        f"--index-version={index.index_version}",
    ]
    if index.index_version == "v2":
        # With a suffix, also an image without large layers has the name that pods are told.
        options += ["--replace"] if index.replace else [f"--suffix={index.suffix}", "--copy-all"]
    if index.unsigned:
        options.append("--unsigned")
    return options


def indexed_images(index: settings.IndexSettings) -> list[str]:
    """The names of the images with an index."""
    return [
        index_rules.indexed(image, index.suffix, index.repository, index.index_version)
        for image in index.images
    ]


def proxies(chosen: settings.Settings) -> dict[str, str]:
    """The environment that says how pods reach the internet; nothing of what is not set."""
    found = {
        "HTTP_PROXY": chosen.http_proxy,
        "HTTPS_PROXY": chosen.https_proxy,
        "NO_PROXY": chosen.no_proxy,
    }
    return {name: value for name, value in found.items() if value}


def toleration(text: str) -> k8s.core.v1.TolerationArgsDict:
    """What tolerates a taint as kubectl writes it."""
    key, value, effect = rules.taint(text)
    return {"key": key, "operator": "Equal", "value": value, "effect": effect}
