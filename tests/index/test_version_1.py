"""`--index-version v1`: the index lies beside an image that stays as it is."""

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from awkward_registry import AwkwardRegistry

from tests.index.conftest import Command
from tests.index.made_images import AMD64, ARM64, Json, Pushed, Repository, layer

V1 = "application/vnd.amazon.soci.index.v1+json"


def two_platforms(repository: Repository) -> tuple[Pushed, Pushed, Pushed]:
    amd64 = repository.image([layer("base"), layer("amd64")])
    arm64 = repository.image([layer("base"), layer("arm64")], platform=ARM64)
    return repository.index([(amd64, AMD64), (arm64, ARM64)], tag="1"), amd64, arm64


def referrers(repository: Repository, digest: str) -> list[Json]:
    url = f"http://{repository.host}/v2/{repository.name}/referrers/{digest}"
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)["manifests"]


def test_each_platform_has_an_index_that_refers_to_it_and_the_image_is_the_same(
    command: Command, repository: Repository, place: str
) -> None:
    image, *members = two_platforms(repository)
    [found] = command.json(f"{place}:1", "--index-version", "v1")
    assert (found["status"], found["target"], found["digest"]) == ("indexed", f"{place}:1", image.digest)
    assert repository.get("1").digest == image.digest
    for platform, member in zip(found["platforms"], members, strict=True):
        [index] = referrers(repository, member.digest)
        assert (index["digest"], index["artifactType"]) == (platform["index"], V1)
        assert repository.get(index["digest"]).content["subject"] == member.descriptor
    [again] = command.json(f"{place}:1", "--index-version", "v1")
    assert again["status"] == "present"
    assert again["platforms"] == found["platforms"]


def test_it_is_the_index_that_soci_makes_of_the_whole_image(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    repository.image([layer("base"), layer("app")], tag="1")
    [found] = command.json(f"{place}:1", "--index-version", "v1")
    oras = [str(command.programs["oras"]), "cp", "--no-tty", "--from-plain-http", f"{repository.place}:1"]
    subprocess.run([*oras, "--to-oci-layout", f"{tmp_path}/layout:1"], check=True, capture_output=True)
    soci = [str(command.programs["soci"]), "create-push", "--min-layer-size", str(1 << 20)]
    done = subprocess.run(
        [*soci, f"{tmp_path}/layout", f"{repository.place}-whole"], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == found["platforms"][0]["index"]


def test_a_registry_without_referrers_gets_the_tag_that_stands_for_them(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    registry.referrers = False
    image = repository.image([layer("base")], tag="1")
    [found] = command.json(f"{place}:1", "--index-version", "v1")
    [index] = repository.get(image.digest.replace(":", "-")).content["manifests"]
    assert index["digest"] == found["platforms"][0]["index"]
    assert index["artifactType"] == V1


def test_another_repository_gets_the_image_under_its_own_tag(
    command: Command, repository: Repository, place: str
) -> None:
    image = repository.image([layer("base")], tag="1")
    other = Repository(repository.host, f"{repository.name}-other")
    command.json(f"{place}:1", "--index-version", "v1", "--to-repository", f"{place}-other")
    assert other.get("1").digest == image.digest
    assert len(referrers(other, image.digest)) == 1


@pytest.mark.parametrize("option", [["--to-tag", "2"], ["--replace"], ["--suffix=-x"]])
def test_it_has_no_tag(command: Command, option: list[str]) -> None:
    done = command.run("registry.example/team/app:1", "--index-version", "v1", *option)
    assert done.returncode == 2
    assert "an index v1 lies beside the image: it has no tag" in done.stderr
