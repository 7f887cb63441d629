"""EcrImageIndex under Pulumi's mocks: which pushes start a build, what the build does, and what it may."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
import soci_index.index

from components import EcrImageIndex, EcrImageIndexArgs, SociConfigError, ecr_image_index, program
from tests.unit import mocks
from tests.unit.mocks import DIGESTS, Recorder

Run = Callable[[Callable[[], dict[str, pulumi.Output[Any]]]], dict[str, Any]]
PREFIX = "arn:aws:ecr:eu-west-1:123456789012:repository/"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": "123456789012"},
        "aws:index/getRegion:getRegion": {"region": "eu-west-1"},
        "aws:index/getPartition:getPartition": {"partition": "aws", "dnsSuffix": "amazonaws.com"},
    }
    monkeypatch.setattr(mocks, "ANSWERS", mocks.ANSWERS | answers)


def index(**args: Any) -> Callable[[], dict[str, pulumi.Output[Any]]]:
    def program() -> dict[str, pulumi.Output[Any]]:
        given = {"repositories": ["team/app"], "sha256": DIGESTS} | args
        made = EcrImageIndex("ecr", cast(EcrImageIndexArgs, given))
        return {"project": made.project, "log": made.log_group}

    return program


class Everything(Recorder):
    """Remembers resources of one name and several types, too."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[pulumi.runtime.MockResourceArgs] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        identifier, outputs = super().new_resource(args)
        self.all.append(args)
        if args.typ.startswith("aws:"):
            outputs |= {"arn": f"arn:of:{args.typ.rpartition(':')[2]}:{args.name}", "name": f"{args.name}-1"}
            outputs |= {"bucket": outputs.get("bucket", f"{args.name}-1")}
        return identifier, outputs

    def inputs_of(self, kind: str, name: str = "") -> dict[str, Any]:
        (found,) = [item for item in self.all if item.typ.endswith(f":{kind}") and item.name.endswith(name)]
        return dict(found.inputs)


@pytest.fixture
def everything(recorder: Recorder) -> Everything:
    found = Everything()
    pulumi.runtime.set_mocks(found, project="soci", stack="test")
    return found


def statements(everything: Everything, kind: str) -> list[dict[str, Any]]:
    return json.loads(everything.inputs_of("RolePolicy", kind)["policy"])["Statement"]


def test_a_build_may_read_and_push_these_repositories_read_its_program_and_write_its_log(
    everything: Everything, run: Run
) -> None:
    run(index(repositories=["team/app", "base/*"]))
    token, images, source, log = statements(everything, "build")
    assert (token["Action"], token["Resource"]) == ("ecr:GetAuthorizationToken", "*")
    assert images["Resource"] == [f"{PREFIX}team/app", f"{PREFIX}base/*"]
    assert {"ecr:BatchGetImage", "ecr:PutImage"} <= set(images["Action"])
    assert not [action for action in images["Action"] if "Delete" in action or "*" in action]
    assert source["Resource"] == "arn:of:Bucket:ecr-program/soci-index.zip"
    assert log["Resource"] == "arn:of:LogGroup:ecr-log:*"
    (start,) = statements(everything, "push")
    assert start == {
        "Effect": "Allow",
        "Action": "codebuild:StartBuild",
        "Resource": "arn:of:Project:ecr-build",
    }


def test_each_role_is_for_one_service_and_this_account(everything: Everything, run: Run) -> None:
    run(index())
    for kind, service in (("build", "codebuild"), ("push", "events")):
        (statement,) = json.loads(everything.inputs_of("Role", kind)["assumeRolePolicy"])["Statement"]
        assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_its_program_is_public_to_nobody(everything: Everything, run: Run) -> None:
    run(index())
    block = everything.inputs_of("BucketPublicAccessBlock")
    assert all(value is True for key, value in block.items() if key != "bucket")
    archive = everything.inputs_of("BucketObjectv2")["source"]
    assert set(archive.assets) == {f"soci_index/{path}" for path in program.INDEX.files()}


def test_the_build_is_no_root_of_docker_and_ends(everything: Everything, run: Run) -> None:
    run(index(timeout_minutes=30, compute_type="BUILD_GENERAL1_LARGE", log_retention_days=7))
    project = everything.inputs_of("Project")
    assert project["environment"]["computeType"] == "BUILD_GENERAL1_LARGE"
    assert not project["environment"].get("privilegedMode")
    assert project["buildTimeout"] == 30
    assert "concurrentBuildLimit" not in project
    assert project["logsConfig"]["cloudwatchLogs"]["groupName"] == "ecr-log-1"
    assert everything.inputs_of("LogGroup")["retentionInDays"] == 7
    variables = {item["name"]: item["value"] for item in project["environment"]["environmentVariables"]}
    assert variables["REGISTRY"] == "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("compute_type", "keeps"), [("BUILD_GENERAL1_SMALL", True), ("BUILD_GENERAL1_2XLARGE", False)]
)
def test_a_build_leaves_its_ztocs_on_its_host_where_codebuild_can(
    everything: Everything, run: Run, compute_type: str, keeps: bool
) -> None:
    run(index(compute_type=compute_type))
    project = everything.inputs_of("Project")
    assert project.get("cache") == ({"type": "LOCAL", "modes": ["LOCAL_CUSTOM_CACHE"]} if keeps else None)
    spec = json.loads(project["source"]["buildspec"])
    words = shlex.split(spec["phases"]["build"]["commands"][0])
    cache = soci_index.index.parse([word for word in words if word.startswith("--cache=")] + ["a:1"]).cache
    # Whole directories, and nothing of layers or programs.
    assert spec["cache"]["paths"] == [f"{cache}/ztocs/**/*"]


def test_the_rule_hands_repository_and_tag_to_the_build(everything: Everything, run: Run) -> None:
    run(index())
    target = everything.inputs_of("EventTarget")
    assert (target["arn"], target["roleArn"]) == ("arn:of:Project:ecr-build", "arn:of:Role:ecr-push")
    template = target["inputTransformer"]["inputTemplate"]
    for key, value in {"<repository>": "team/app", "<tag>": "1.2"}.items():
        template = template.replace(key, value)
    handed = {item["name"]: item["value"] for item in json.loads(template)["environmentVariablesOverride"]}
    assert handed == {"REPOSITORY": "team/app", "TAG": "1.2"}


# --- which pushes start a build ---

# As the ECR User Guide shows it.
PUSH: dict[str, Any] = {
    "source": "aws.ecr",
    "detail-type": "ECR Image Action",
    "detail": {
        "result": "SUCCESS",
        "repository-name": "team/app",
        "image-digest": f"sha256:{'7' * 64}",
        "action-type": "PUSH",
        "image-tag": "1",
    },
}


def matches(pattern: Any, event: Any) -> bool:
    """Whether an event matches, by the rules of EventBridge that the patterns here use."""
    if isinstance(pattern, dict):
        return all(matches(part, event.get(key)) for key, part in pattern.items())
    return any(_matches_one(wanted, event) for wanted in pattern)


def _matches_one(wanted: Any, value: Any) -> bool:
    if not isinstance(wanted, dict):
        return value == wanted
    ((kind, argument),) = wanted.items()
    if value is None:
        return kind == "exists" and not argument
    if kind == "exists":
        return bool(argument)
    if kind == "wildcard":
        begin, _, end = argument.partition("*")
        return value.startswith(begin) and value.endswith(end)
    assert kind == "anything-but"
    return not value.endswith(argument["suffix"])


@pytest.mark.parametrize(
    ("change", "starts"),
    [
        ({}, True),
        ({"image-tag": "1-soci"}, False),
        ({"image-tag": "soci-1"}, True),
        ({"image-tag": None}, False),
        ({"action-type": "DELETE"}, False),
        ({"result": "FAILURE"}, False),
        ({"repository-name": "team/other"}, False),
        ({"repository-name": "base/debian"}, True),
    ],
)
def test_only_a_pushed_tag_that_is_not_its_own_starts_a_build(change: dict[str, Any], starts: bool) -> None:
    pattern = ecr_image_index.event_pattern(["team/app", "base/*"], "-soci")
    detail = {key: value for key, value in (PUSH["detail"] | change).items() if value is not None}
    assert matches(pattern, PUSH | {"detail": detail}) is starts


def test_without_a_suffix_every_tag_starts_a_build_and_what_has_none_does_not() -> None:
    pattern = ecr_image_index.event_pattern(["team/app"], "")
    assert matches(pattern, PUSH)
    untagged = {key: value for key, value in PUSH["detail"].items() if key != "image-tag"}
    assert not matches(pattern, PUSH | {"detail": untagged})


# --- what a build runs ---


def built(tmp_path: Path, command: str, **variables: str) -> list[str]:
    """The words with which a build's command calls python3."""
    (tmp_path / "python3").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$HOME/words"\n')
    (tmp_path / "python3").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), **variables}
    subprocess.run(["sh", "-ec", command], env=environment, check=True)
    words = tmp_path / "words"
    return words.read_text().splitlines() if words.exists() else []


def test_the_build_indexes_the_pushed_tag(everything: Everything, run: Run, tmp_path: Path) -> None:
    run(index())
    spec = json.loads(everything.inputs_of("Project")["source"]["buildspec"])
    (command,) = spec["phases"]["build"]["commands"]
    words = built(tmp_path, command, REGISTRY="registry.example", REPOSITORY="team/app", TAG="1.2")
    assert words[:3] == ["-B", "-m", "soci_index"]
    assert {"--suffix=-soci", f"--soci-sha256=amd64={'a' * 64}"} <= set(words)
    assert words[-1] == "registry.example/team/app:1.2"
    assert soci_index.index.parse(words[3:]).images == ["registry.example/team/app:1.2"]


@pytest.mark.parametrize("tag", ["", f"sha256-{'a' * 64}.sig", f"sha256-{'a' * 64}.att"])
def test_a_build_for_a_push_that_is_no_images_does_nothing(tmp_path: Path, tag: str) -> None:
    """A manifest without a tag; what cosign attaches to an image."""
    command = ecr_image_index.shell(["--suffix=-soci"])
    assert built(tmp_path, command, REGISTRY="registry.example", REPOSITORY="team/app", TAG=tag) == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"repositories": []}, r"EcrImageIndex: repositories: without one, nothing is indexed. Remedy: repo"),
        ({"repositories": "team/app"}, r"repositories: must be a list"),
        (
            {"repositories": ["123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1"]},
            r"is no repository's name",
        ),
        ({"repositories": ["team/**"]}, r"is no repository's name"),
        (
            {"compute_type": "SMALL"},
            r"compute_type: must be BUILD_GENERAL1_SMALL or .*Remedy: compute_type=BUILD",
        ),
        ({"timeout_minutes": 1}, r"timeout_minutes: must be a number from 5 to 2160"),
        ({"log_retention_days": 2}, r"log_retention_days: must be one of 1, 3"),
        (
            {"suffix": ""},
            r"soci:index .*suffix: without one, the indexed image would take the tag of the image",
        ),
        ({"version": "0.12.0"}, r"needs SOCI 0.13.0 or newer"),
        ({"schedule": "@daily"}, r"soci:schedule \[not shown\]: is no argument of this component"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_exists(
    everything: Everything, args: dict[str, Any], told: str
) -> None:
    with pytest.raises(SociConfigError, match=told):
        index(**args)()
    assert everything.all == []


def test_a_release_without_the_builds_architecture_is_refused(everything: Everything) -> None:
    with pytest.raises(pulumi.RunError, match=r"has no digest for amd64, on which builds run\. Remedy: "):
        index(sha256={"arm64": "b" * 64})()
