"""What soci:index accepts, and what is refused with which remedy."""

import json
from typing import Any

import pytest

from components import SociConfigError, from_config, index_rules
from components.settings import IndexSettings

IMAGE = "registry.example/team/app:1"
DIGEST = f"sha256:{'a' * 64}"


def refusal(credentials: Any = None, config: dict[str, Any] | None = None, **index: Any) -> str:
    """What is said of these parts of soci:index."""
    raw = {f"soci:{key}": value for key, value in (config or {}).items()}
    raw["soci:index"] = json.dumps({"images": [IMAGE]} | index)
    if credentials is not None:
        raw["soci:indexCredentials"] = json.dumps(credentials)
    with pytest.raises(SociConfigError) as refused:
        from_config(raw)
    return str(refused.value)


def test_nothing_is_indexed_unless_images_are_named() -> None:
    assert from_config({}).index == IndexSettings()
    assert IndexSettings().images == ()


def test_parts_are_read_by_their_keys() -> None:
    raw = {
        "images": [IMAGE, IMAGE],
        "schedule": " 0  3 * * *",
        "diskGiB": "40",
        "plainHttp": ["registry:5000"],
        "cacheClaim": "ztocs.team-1",
    }
    index = from_config({"soci:index": json.dumps(raw)}).index
    assert (index.images, index.schedule, index.disk_gib) == ((IMAGE,), "0 3 * * *", 40)
    assert (index.plain_http, index.cache_claim) == (("registry:5000",), "ztocs.team-1")


@pytest.mark.parametrize(
    "schedule",
    [
        "@daily",
        "*/15 * * * *",
        "0 3 * * 1-5",
        "0,30 0-6/2 1 JAN,dec sun",
        "0 0 ? * mon-fri",
        "5/10 23 31 12 6",
    ],
)
def test_a_schedule_of_kubernetes_is_taken(schedule: str) -> None:
    assert index_rules.schedule(schedule) == schedule


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("daily", "must be five fields"),
        ("0 3 * *", "must be five fields"),
        ("0 0 3 * * *", "must be five fields"),
        ("60 3 * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 0 * *", "'0' is no day of the month"),
        ("0 3 * 13 *", "'13' is no month"),
        ("0 3 * * 7", "'7' is no day of the week"),
        ("0 3 * * fri-mon", "'fri-mon' is no day of the week"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("1-2-3 * * * *", "'1-2-3' is no minute"),
        (", * * * *", "'' is no minute"),
        ("CRON_TZ=UTC 0 3 * *", "'cron_tz=utc' is no minute"),
    ],
)
def test_what_no_cron_job_would_have_is_refused(schedule: str, told: str) -> None:
    said = refusal(schedule=schedule)
    assert f"schedule: {told}" in said
    assert "Remedy: pulumi config set --path soci:index.schedule '0 3 * * *'" in said


@pytest.mark.parametrize(
    ("parts", "told", "remedy"),
    [
        (
            {"images": ["registry.example/app"]},
            "registry.example/app has no tag",
            "write registry.example/app:TAG",
        ),
        ({"images": ["registry.example:5000/app"]}, "has no tag", "registry.example:5000/app:TAG"),
        ({"images": ["An Image:1"]}, "not an image reference", "soci:index.images[0]"),
        ({"images": "app:1"}, "must be a list", "soci:index.images[0]"),
        (
            {"images": ["python:3.13"]},
            "only its makers push",
            "soci:index.repository registry.example/mirror/",
        ),
        ({"images": ["docker.io/library/python:3.13"]}, "only its makers push", "soci:index.repository"),
        ({"images": ["registry.k8s.io/pause:3.10"]}, "only its makers push", "soci:index.repository"),
        ({"images": ["registry.example/app:1-soci"]}, "has the suffix of indexed images already", "name the"),
        ({"images": [f"registry.example/app:{'1' * 125}"]}, "more than 128 characters", "shorter suffix"),
        ({"suffix": ""}, "would take the tag of the image itself", "soci:index.replace true"),
        ({"replace": True}, "moved only without a suffix, and the suffix is '-soci'", "soci:index.suffix ''"),
        (
            {"suffix": "", "replace": True, "images": [f"registry.example/app@{DIGEST}"]},
            "has no tag that could be moved",
            "by its tag",
        ),
        ({"suffix": "/soci"}, "must be the end of a tag", "soci:index.suffix=-soci"),
        (
            {"indexVersion": "v1", "replace": True},
            "an index v1 leaves tags as they are",
            "rm --path soci:index.replace",
        ),
        ({"indexVersion": "v3"}, "must be v2 or v1", "soci:index.indexVersion v2"),
        (
            {"repository": "team/app"},
            "must be a repository",
            "soci:index.repository registry.example/mirror/",
        ),
        ({"repository": "registry.example/app:1"}, "must be a repository", "soci:index.repository"),
        (
            {"repository": "registry.example/all", "images": [IMAGE, "registry.example/b:1"]},
            "is for one image, and there are 2",
            "registry.example/all/",
        ),
        ({"roleArn": "soci"}, "must be the ARN of an IAM role", "soci:index.roleArn ARN"),
        ({"diskGiB": 1}, "must be a whole number of GiB from 4", "soci:index.diskGiB 20"),
        ({"cacheClaim": "My_Claim"}, "must be the name of a PersistentVolumeClaim", "soci:index.cacheClaim"),
        ({"cacheClaim": "a..b"}, "lower-case letters, digits, - and .", "rm --path soci:index.cacheClaim"),
        ({"cacheClaim": "a" * 254}, "at most 253", "soci:index.cacheClaim"),
        ({"jobs": 0}, "must be a whole number of layers", "soci:index.jobs 2"),
        ({"plainHttp": ["http://registry"]}, "'http://registry' is no registry", "HOST:PORT"),
        ({"caCertificates": "ca.pem"}, "must hold certificates in PEM", "cat ca.pem"),
        ({"toleratedTaints": ["gpu"]}, "'gpu' is not a taint", "soci:index.toleratedTaints[0]"),
        ({"namespace": "soci-system"}, "is the installer's", "rm --path soci:index.namespace"),
        ({"namespace": "default"}, "must be a namespace of", "soci:index.namespace soci-index"),
        ({"image": IMAGE}, "'image' is not one of images, schedule", "rm --path soci:index.image"),
    ],
)
def test_what_cannot_work_is_refused_at_plan_time(parts: dict[str, Any], told: str, remedy: str) -> None:
    said = refusal(**parts)
    assert len(said.splitlines()) == 1
    assert said.startswith("soci:index ")
    assert told in said
    assert remedy in said.partition("Remedy: ")[2]


def test_a_release_that_soci_index_cannot_use_is_refused() -> None:
    old = refusal(config={"version": "0.12.0"})
    assert "soci:index " in old
    assert "needs SOCI 0.13.0 or newer. Remedy: pulumi config set soci:version 0.13.0" in old


def test_what_is_wrong_with_an_index_does_not_matter_when_nothing_is_indexed() -> None:
    raw = json.dumps({"suffix": "", "namespace": "soci-system"})
    assert from_config({"soci:index": raw, "soci:version": "0.10.0"}).index.images == ()


def test_two_secrets_cannot_be_one_file() -> None:
    login = {"registry": "registry.example", "username": "robot", "password": "hunter2-secret"}
    said = refusal(credentials=["one", login])
    assert "soci:indexCredentials [not shown]: the Secret one stands beside others" in said
    assert "hunter2" not in said
    assert from_config({"soci:indexCredentials": '["one"]'}).index_credentials == ("one",)


def test_an_authority_with_its_private_key_is_refused() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
    assert index_rules.certificates(pem) == pem
    assert "without a private key" in refusal(caCertificates=f"{pem}\n-----BEGIN PRIVATE KEY-----\nMII")


@pytest.mark.parametrize(
    ("image", "suffix", "repository", "version", "name"),
    [
        (IMAGE, "-soci", "", "v2", f"{IMAGE}-soci"),
        (IMAGE, "", "", "v2", IMAGE),
        (IMAGE, "-soci", "", "v1", IMAGE),
        (f"registry.example/app@{DIGEST}", "-soci", "", "v2", f"registry.example/app:sha256-{'a' * 64}-soci"),
        (f"{IMAGE}@{DIGEST}", "-soci", "", "v2", f"{IMAGE}-soci"),
        ("registry:5000/app:1", "-x", "mirror.example/", "v2", "mirror.example/app:1-x"),
        ("python:3.13", "-soci", "mirror.example/hub/", "v2", "mirror.example/hub/library/python:3.13-soci"),
        ("team/app:1", "-soci", "mirror.example/", "v2", "mirror.example/team/app:1-soci"),
        (IMAGE, "-soci", "mirror.example/one", "v2", "mirror.example/one:1-soci"),
        (IMAGE, "-soci", "mirror.example/one", "v1", "mirror.example/one:1"),
    ],
)
def test_the_name_of_the_indexed_image(
    image: str, suffix: str, repository: str, version: str, name: str
) -> None:
    assert index_rules.indexed(image, suffix, repository, version) == name
