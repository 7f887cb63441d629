"""EcrImageIndex: what is pushed to ECR gets its SOCI index, by a build that the push starts.

Sources: ECR User Guide (the event `ECR Image Action`), EventBridge User Guide (event patterns, input
transformers), CodeBuild User Guide (service role, runtimes, StartBuild, local caching).
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from . import configuration, program, release, settings, values
from .arguments import EcrImageIndexArgs
from .image_index import common_options
from .problems import SociConfigError

IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"  # has Python and the AWS CLI
ARCHITECTURE = "amd64"
PYTHON = "3.12"
KEY = "soci-index.zip"
COMPUTE_TYPES = tuple(f"BUILD_GENERAL1_{size}" for size in ("SMALL", "MEDIUM", "LARGE", "XLARGE", "2XLARGE"))
WITHOUT_CACHE = COMPUTE_TYPES[-1]  # CodeBuild has no local cache for it
CACHE = "/root/soci-index"  # builds run as root, and CodeBuild takes a cache's path as it is written
# Those that CloudWatch Logs takes, up to two years.
RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)
MINUTES = range(5, 2161)  # of a build
# Of a repository: what reads an image and what pushes one. Nothing is deleted.
ECR_ACTIONS = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
LOCAL_CACHE: "aws.codebuild.ProjectCacheArgsDict" = {"type": "LOCAL", "modes": ["LOCAL_CUSTOM_CACHE"]}
_REPOSITORY = re.compile(r"[a-z0-9*]([a-z0-9._/-]|(?<!\*)\*){0,255}")
_OWN = ("repositories", "compute_type", "timeout_minutes", "log_retention_days")


class EcrImageIndex(pulumi.ComponentResource):
    """Images that get their SOCI index when they are pushed to ECR. It needs no cluster.

    An EventBridge rule hears of each push to the repositories, in the AWS provider's account and region, and
    starts a CodeBuild project that runs soci-index for the pushed tag. Tags that end in the suffix are left
    out, so that it does not chase itself; with `replace`, its own push starts one more build, which finds
    the index there. Several pushes are built side by side, as many as the account may: of a project with a
    limit of its own, CodeBuild drops what is above it. ECR sends its events by best effort: what was missed,
    and what was there before, is indexed by starting the project by hand with REPOSITORY and TAG.

    The build may read and push images of these repositories, read its program and write its log; the rule may
    start the build. Program and log are encrypted with AWS's keys. zTOCs stay on the build's host, for
    a later build that CodeBuild happens to start there.

    Raises:
        SociConfigError: an argument that cannot work (before anything is created).
    """

    project: pulumi.Output[str]
    """Name of the CodeBuild project."""
    log_group: pulumi.Output[str]
    """Name of its log group."""

    def __init__(
        self, name: str, args: EcrImageIndexArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        given: dict[str, Any] = {key: value for key, value in args.items() if value is not None}
        own = _read(given)
        rest = {key: value for key, value in given.items() if key not in _OWN}
        self._settings = configuration.from_ecr_index_arguments(rest, _OWN)
        super().__init__("soci:index:EcrImageIndex", name, given, opts)
        self._name = name
        digests = release.pin(self._settings.version, self._settings.release_url, self._settings.sha256, self)
        if ARCHITECTURE not in digests:
            raise pulumi.RunError(
                f"SOCI {self._settings.version} has no digest for {ARCHITECTURE}, on which builds run. "
                "Remedy: give it in sha256, or leave sha256 out"
            )
        invoke = pulumi.InvokeOptions(parent=self)
        account = aws.get_caller_identity_output(opts=invoke).account_id
        region = aws.get_region_output(opts=invoke).region
        partition = aws.get_partition_output(opts=invoke)
        registry = pulumi.Output.format("{0}.dkr.ecr.{1}.{2}", account, region, partition.dns_suffix)
        prefix = pulumi.Output.format("arn:{0}:ecr:{1}:{2}:repository/", partition.partition, region, account)
        bucket = self._bucket()
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-log", retention_in_days=own["log_retention_days"], opts=self._child()
        )
        arns = prefix.apply(lambda begin: [begin + repository for repository in own["repositories"]])
        role = self._role("build", "codebuild.amazonaws.com", account)
        policy = self._policy(
            role,
            "build",
            pulumi.Output.all(arns, bucket.arn, log_group.arn).apply(lambda known: build_statements(*known)),
        )
        command = shell(common_options(self._settings, {ARCHITECTURE: digests[ARCHITECTURE]}))
        project = aws.codebuild.Project(
            f"{name}-build",
            description="Gives images their SOCI index",
            service_role=role.arn,
            build_timeout=own["timeout_minutes"],
            artifacts={"type": "NO_ARTIFACTS"},
            source={
                "type": "S3",
                "location": pulumi.Output.format("{0}/{1}", bucket.bucket, KEY),
                "buildspec": buildspec(command),
            },
            environment={
                "type": "LINUX_CONTAINER",
                "compute_type": own["compute_type"],
                "image": IMAGE,
                "environment_variables": [
                    {"name": "REGISTRY", "value": registry},
                    {"name": "REPOSITORY", "value": ""},
                    {"name": "TAG", "value": ""},
                ],
            },
            cache=None if own["compute_type"] == WITHOUT_CACHE else LOCAL_CACHE,
            logs_config={"cloudwatch_logs": {"group_name": log_group.name}},
            opts=self._child(depends_on=[policy]),
        )
        self._rule(own["repositories"], project, account)
        self.project, self.log_group = project.name, log_group.name
        self.register_outputs({"project": self.project, "logGroup": self.log_group})

    def _child(self, **options: object) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)  # ty: ignore[invalid-argument-type]

    def _bucket(self) -> "aws.s3.Bucket":
        """The bucket from which a build takes its program."""
        bucket = aws.s3.Bucket(f"{self._name}-program", force_destroy=True, opts=self._child())
        aws.s3.BucketPublicAccessBlock(
            f"{self._name}-program",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._child(),
        )
        files: dict[str, pulumi.Asset | pulumi.Archive] = {
            f"soci_index/{path}": pulumi.StringAsset(text) for path, text in program.INDEX.files().items()
        }
        aws.s3.BucketObjectv2(
            f"{self._name}-program",
            bucket=bucket.bucket,
            key=KEY,
            source=pulumi.AssetArchive(files),
            server_side_encryption="AES256",
            opts=self._child(),
        )
        return bucket

    def _role(self, kind: str, service: str, account: pulumi.Output[str]) -> "aws.iam.Role":
        return aws.iam.Role(
            f"{self._name}-{kind}",
            assume_role_policy=account.apply(lambda known: json.dumps(trust(service, known))),
            opts=self._child(),
        )

    def _policy(
        self, role: "aws.iam.Role", kind: str, statements: pulumi.Output[list[dict[str, Any]]]
    ) -> "aws.iam.RolePolicy":
        return aws.iam.RolePolicy(
            f"{self._name}-{kind}",
            role=role.name,
            policy=statements.apply(lambda known: json.dumps({"Version": "2012-10-17", "Statement": known})),
            opts=self._child(),
        )

    def _rule(
        self, repositories: Sequence[str], project: "aws.codebuild.Project", account: pulumi.Output[str]
    ) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-push",
            description="Images pushed to ECR that get their SOCI index",
            event_pattern=json.dumps(event_pattern(repositories, tag_suffix(self._settings.index))),
            opts=self._child(),
        )
        role = self._role("push", "events.amazonaws.com", account)
        start = project.arn.apply(
            lambda arn: [{"Effect": "Allow", "Action": "codebuild:StartBuild", "Resource": arn}]
        )
        policy = self._policy(role, "push", start)
        aws.cloudwatch.EventTarget(
            f"{self._name}-push",
            rule=rule.name,
            arn=project.arn,
            role_arn=role.arn,
            input_transformer={
                "input_paths": {"repository": "$.detail.repository-name", "tag": "$.detail.image-tag"},
                "input_template": json.dumps(
                    {
                        "environmentVariablesOverride": [
                            {"name": "REPOSITORY", "type": "PLAINTEXT", "value": "<repository>"},
                            {"name": "TAG", "type": "PLAINTEXT", "value": "<tag>"},
                        ]
                    }
                ),
            },
            opts=self._child(depends_on=[policy]),
        )


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are this component's alone, with their defaults.

    Raises:
        SociConfigError: one of them cannot work.
    """
    try:
        repositories = values.texts(given.get("repositories", ()))
    except values.RefusedError as refused:
        raise _refusal("repositories", refused.reason, '["team/app"]') from None
    for repository in repositories:
        if not _REPOSITORY.fullmatch(repository):
            reason = f"'{repository}' is no repository's name, such as team/app, or team/* for several"
            raise _refusal("repositories", reason, '["team/app"], without the registry before it')
    if not repositories:
        raise _refusal("repositories", "without one, nothing is indexed", '["team/app"]')
    compute = given.get("compute_type", COMPUTE_TYPES[0])
    if compute not in COMPUTE_TYPES:
        raise _refusal("compute_type", f"must be {' or '.join(COMPUTE_TYPES)}", COMPUTE_TYPES[0])
    minutes, days = given.get("timeout_minutes", 60), given.get("log_retention_days", 30)
    if minutes not in MINUTES:
        raise _refusal("timeout_minutes", f"must be a number from {MINUTES[0]} to {MINUTES[-1]}", "60")
    if days not in RETENTION_DAYS:
        raise _refusal("log_retention_days", f"must be one of {', '.join(map(str, RETENTION_DAYS))}", "30")
    return {
        "repositories": list(dict.fromkeys(repositories)),
        "compute_type": compute,
        "timeout_minutes": int(minutes),
        "log_retention_days": int(days),
    }


def _refusal(name: str, reason: str, good: str) -> SociConfigError:
    return SociConfigError(f"EcrImageIndex: {name}: {reason}. Remedy: {name}={good}")


def tag_suffix(index: settings.IndexSettings) -> str:
    """The end of the tags that the program itself pushes; empty when it pushes none of its own."""
    return index.suffix if index.index_version == "v2" else ""


def event_pattern(repositories: Sequence[str], suffix: str) -> dict[str, Any]:
    """The events of pushes to these repositories by a tag that does not end in the suffix. The manifest of a
    single platform is pushed without a tag."""
    return {
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {
            "action-type": ["PUSH"],
            "result": ["SUCCESS"],
            "repository-name": [{"wildcard": name} if "*" in name else name for name in repositories],
            "image-tag": [{"anything-but": {"suffix": suffix}} if suffix else {"exists": True}],
        },
    }


def build_statements(repositories: Sequence[str], bucket: str, log_group: str) -> list[dict[str, Any]]:
    """What a build may; each argument is an ARN, or several."""
    return [
        # A token is for the whole registry; what it opens is what its role may.
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": list(ECR_ACTIONS), "Resource": list(repositories)},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": f"{bucket}/{KEY}"},
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": f"{log_group}:*",
        },
    ]


def trust(service: str, account: str) -> dict[str, Any]:
    """That a service of AWS may take a role, for this account alone."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": service},
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }


def shell(options: Sequence[str]) -> str:
    """The one command of a build: it does nothing for a push without a tag."""
    quoted = shlex.join(options)
    return (
        # A push without a tag, or of what cosign attaches to an image, is none of an image.
        'case "$TAG" in ""|sha256-*.sig|sha256-*.att|sha256-*.sbom) exit 0;; esac; '
        f'python3 -B -m soci_index --cache={CACHE} {quoted} "$REGISTRY/$REPOSITORY:$TAG"'
    )


def buildspec(command: str) -> str:
    """A build of one command, as CodeBuild reads it; JSON is YAML, too."""
    return json.dumps(
        {
            "version": 0.2,
            "phases": {
                "install": {"runtime-versions": {"python": PYTHON}},
                "build": {"commands": [command]},
            },
            "cache": {"paths": [f"{CACHE}/ztocs/**/*"]},
        }
    )
