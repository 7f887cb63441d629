"""Where the indexed image goes: what is there already, what shares its place, and what has no such place."""

import json
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from awkward_registry import Auth, AwkwardRegistry, Fault
from soci_index import attached

from tests.index.conftest import Command
from tests.index.made_images import AMD64, ARM64, MIN_LAYER, Repository, digest_of, layer
from tests.waiting import wait_for

SMALL = 1000  # bytes of a layer that needs no zTOC


def delete(repository: Repository, digest: str) -> None:
    """Delete a manifest, as a registry's clean-up of what has no tag does."""
    url = f"http://{repository.host}/v2/{repository.name}/manifests/{digest}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


def test_with_copy_all_an_image_without_large_layers_has_its_name_too_also_when_it_is_pushed_anew(
    command: Command, repository: Repository, place: str
) -> None:
    """ImageIndex tells that name to pods."""
    repository.image([layer("first", SMALL)], tag="1")
    assert command.json(f"{place}:1")[0]["target"] == ""
    for seed in ("first", "second"):
        image = repository.image([layer(seed, SMALL)], tag="1")
        for _ in ("written", "there"):
            [found] = command.json(f"{place}:1", "--copy-all")
            assert (found["status"], found["target"]) == ("nothing", f"{place}:1-soci")
            [copied] = repository.get("1-soci").content["manifests"]
            assert repository.get(copied["digest"]).content["layers"] == image.content["layers"]


def test_an_image_that_has_its_index_is_copied_where_it_is_asked_for(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    [indexed] = command.json(f"{place}:1")
    assert command.json(f"{place}:1-soci")[0]["status"] == "present"
    [placed] = command.json(f"{place}:1-soci", "--to-tag", "prod")
    assert (placed["status"], placed["digest"]) == ("indexed", indexed["digest"])
    assert repository.get("prod").digest == indexed["digest"]
    assert command.json(f"{place}:1-soci", "--to-tag", "prod")[0]["status"] == "present"


def test_an_index_that_was_deleted_behind_its_tag_is_made_again(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    [first] = command.json(f"{place}:1")
    index = first["platforms"][0]["index"]
    delete(repository, index)
    [again] = command.json(f"{place}:1")
    assert (again["status"], again["platforms"][0]["index"]) == ("indexed", index)
    assert repository.get(index).digest == index


def test_a_layer_that_one_repository_does_not_give_is_read_from_the_next(
    command: Command, store: str, registry: AwkwardRegistry
) -> None:
    host = store.removeprefix("http://")
    base = layer("shared base")
    for name in ("where/without", "where/with"):
        Repository(host, name).image([base], tag="1")
    asked = threading.Event()
    registry.faults = [
        Fault(status=404, repository="where/without", path=digest_of(base)),
        Fault(kinds=("manifests",), repository="where/with", gate=asked),  # it comes second
    ]
    places = [f"{registry.name}/where/{name}:1" for name in ("without", "with")]
    with ThreadPoolExecutor() as pool:
        done = pool.submit(command.json, *places, status=1)
        try:
            wait_for(lambda: registry.count(kind="blobs", status=404) > 0, 60, "a question for the layer")
        finally:
            asked.set()
        found = {entry["image"]: entry["status"] for entry in done.result()}
    assert found == {places[0]: "failed", places[1]: "indexed"}


def test_two_images_that_would_be_one_are_refused_and_the_others_indexed(
    command: Command, repository: Repository, place: str
) -> None:
    """A rollout between two pushes of a tag: both digests run in the cluster."""
    old, new = (repository.image([layer(seed)], tag="1") for seed in ("old", "new"))
    repository.image([layer("other")], tag="2")
    names = [f"{place}:1@{old.digest}", f"{place}:1@{new.digest}", f"{place}:2"]
    found = {entry["image"]: entry for entry in command.json(*names, status=1)}
    assert [found[name]["status"] for name in names] == ["failed", "failed", "indexed"]
    assert f"would all be {place}:1-soci" in found[names[0]]["problem"]
    with pytest.raises(urllib.error.HTTPError):
        repository.get("1-soci")


def pods(*images: str) -> str:
    """What `kubectl get pods` prints of pods with these images."""
    return json.dumps({"items": [{"spec": {"containers": [{"image": image}]}} for image in images]})


@pytest.mark.parametrize("way", ["named", "cluster"])
@pytest.mark.parametrize("options", [(), ("--replace",)], ids=["beside", "replace"])
def test_an_image_by_its_tag_and_by_tag_and_digest_is_one(
    command: Command, repository: Repository, place: str, way: str, options: tuple[str, ...]
) -> None:
    """As the pods of a cluster name it, some by one and some by the other; also once the tag was moved to the
    indexed image itself."""
    image = repository.image([layer("base")], tag="1")
    names = [f"{place}:1@{image.digest}", f"{place}:1"]
    file = command.directory / "pods.json"
    file.write_text(pods(*names))
    which = names if way == "named" else ["--cluster", "--kubectl", f"sh -c 'cat {file}'"]
    for made in (1, 0):
        found = {entry["image"]: entry for entry in command.json(*which, *options)}
        tagged, pinned = found[names[1]], found[names[0]]
        assert [tagged["ztocsMade"], pinned["ztocsMade"]] == [made, 0]
        assert (pinned["target"], pinned["digest"]) == (tagged["target"], tagged["digest"])
        assert pinned["notes"] == [f"it is {names[1]}, which is indexed once"]
        assert tagged["digest"] == repository.get("1" if options else "1-soci").digest


def test_an_image_whose_tag_has_moved_on_has_no_place_beside_the_newer_one(
    command: Command, repository: Repository, place: str
) -> None:
    old, new = (repository.image([layer(seed)], tag="1") for seed in ("old", "new"))
    names = [f"{place}:1@{old.digest}", f"{place}:1", f"{place}:1@{new.digest}"]
    found = {entry["image"]: entry for entry in command.json(*names, status=1)}
    assert [found[name]["status"] for name in names] == ["failed", "indexed", "indexed"]
    problem = found[names[0]]["problem"]
    assert f"{place}:1 shows another image now ({new.digest}), for which {place}:1-soci is" in problem
    assert "--to-tag" in problem
    indexed = repository.get("1-soci").content["manifests"][0]
    assert repository.get(indexed["digest"]).content["layers"] == new.content["layers"]


def test_what_keeps_an_image_from_its_index_is_told_of_both_its_names(
    command: Command, repository: Repository, place: str
) -> None:
    image = repository.image([layer("base")], tag="1")
    repository.image([b"x"], tag=f"{image.digest.replace(':', '-')}.sig", layer_types=["a/b"])
    names = [f"{place}:1", f"{place}:1@{image.digest}"]
    found = command.json(*names, status=1)
    assert [entry["image"] for entry in found] == names
    assert all("a signature (" in entry["problem"] for entry in found)


def test_one_digest_by_two_tags_has_its_index_by_both(
    command: Command, repository: Repository, place: str
) -> None:
    image = repository.image([layer("base")], tag="1")
    found = command.json(*(f"{place}:{tag}@{image.digest}" for tag in ("1", "stable")))
    assert [entry["target"] for entry in found] == [f"{place}:1-soci", f"{place}:stable-soci"]
    assert repository.get("1-soci").digest == repository.get("stable-soci").digest


def test_a_pod_with_a_name_that_is_none_does_not_keep_the_other_images_from_their_index(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    file = command.directory / "images"
    file.write_text(f"{place}/App:1\n{place}:1\n{place}:{'a' * 125}\n")
    found = {entry["image"]: entry for entry in command.json("--file", str(file), status=1)}
    assert found[f"{place}:1"]["status"] == "indexed"
    assert "is no image reference" in found[f"{place}/App:1"]["problem"]
    assert "is no tag" in found[f"{place}:{'a' * 125}"]["problem"]


def test_a_signature_of_an_image_that_is_copied_elsewhere_is_not_left_behind_in_silence(
    command: Command, repository: Repository, place: str
) -> None:
    image = repository.image([layer("base")], tag="1")
    repository.image([b"x"], tag=f"{image.digest.replace(':', '-')}.sig", layer_types=["a/b"])
    elsewhere = ("--index-version", "v1", "--to-repository", f"{place}-elsewhere")
    [found] = command.json(f"{place}:1", *elsewhere, status=1)
    assert "a signature (" in found["problem"]
    assert "is not copied with it" in found["problem"]
    assert command.json(f"{place}:1", *elsewhere, "--unsigned")[0]["status"] == "indexed"


def test_a_signature_of_a_platform_that_is_written_anew_without_an_index_counts_too(
    command: Command, repository: Repository, place: str
) -> None:
    """Its manifest has blanks, as BuildKit writes it: what SOCI's convert makes of it has another digest."""
    amd64 = repository.image([layer("base")])
    arm64 = repository.image([layer("small", SMALL)], platform=ARM64)
    repository.index([(amd64, AMD64), (arm64, ARM64)], tag="1")
    repository.image([b"x"], tag=f"{arm64.digest.replace(':', '-')}.sig", layer_types=["a/b"])
    [found] = command.json(f"{place}:1", status=1)
    assert "a signature (" in found["problem"]


def test_harbors_bill_of_materials_is_one() -> None:
    assert attached.kind("application/vnd.goharbor.harbor.sbom.v1") == attached.BILL


def test_a_helper_of_the_docker_configuration_that_is_not_installed_is_named(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    repository.image([layer("base")], tag="1")
    registry.auth = Auth.BASIC
    home = command.directory / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker/config.json").write_text(json.dumps({"credHelpers": {registry.name: "nosuch"}}))
    [found] = command.json(f"{place}:1", status=1)
    assert (
        "docker-credential-nosuch, which the Docker configuration names, is not on PATH" in found["problem"]
    )


def test_an_index_without_a_layer_that_is_asked_for_by_its_size_does_not_count(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("large", 1_500_000), layer("larger", 3_000_000)], tag="1")
    words = [word.replace(MIN_LAYER, "2MiB") for word in command.words(f"{place}:1")]
    subprocess.run(words, env=command.variables(), check=True, capture_output=True)
    [found] = command.json(f"{place}:1")
    assert (found["status"], found["platforms"][0]["ztocs"]) == ("indexed", 2)


def test_a_tag_does_not_go_back_to_the_digest_of_an_older_push(
    command: Command, repository: Repository, place: str
) -> None:
    """A rollout: pods still name the digest that the tag had."""
    old = repository.image([layer("old")], tag="1")
    repository.image([layer("new")], tag="1")
    [newer] = command.json(f"{place}:1", "--replace")
    [found] = command.json(f"{place}:1@{old.digest}", "--replace", status=1)
    assert f"is another image than {old.digest}" in found["problem"]
    assert repository.get("1").digest == newer["digest"]


def test_a_platform_that_changed_without_an_index_is_not_left_at_its_old_state(
    command: Command, repository: Repository, place: str
) -> None:
    amd64 = repository.image([layer("base")])
    for seed in ("first", "second"):
        arm64 = repository.image([layer(seed, SMALL)], platform=ARM64)
        repository.index([(amd64, AMD64), (arm64, ARM64)], tag="1")
        assert command.json(f"{place}:1")[0]["status"] == "indexed"
        small = repository.get("1-soci").content["manifests"][1]["digest"]
        assert repository.get(small).content["layers"] == arm64.content["layers"]


def test_an_image_whose_index_was_cleaned_up_while_its_tag_was_elsewhere_is_whole_again(
    command: Command, repository: Repository, place: str
) -> None:
    first = [layer("first")]
    repository.image(first, tag="1")
    index = command.json(f"{place}:1")[0]["platforms"][0]["index"]
    repository.image([layer("second")], tag="1")
    command.json(f"{place}:1")
    delete(repository, index)
    repository.image(first, tag="1")
    assert command.json(f"{place}:1")[0]["status"] == "indexed"
    assert repository.get(index).digest == index


def test_an_indexed_image_is_not_copied_elsewhere_without_its_signature_in_silence(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    [indexed] = command.json(f"{place}:1")
    repository.image([b"x"], tag=f"{indexed['digest'].replace(':', '-')}.sig", layer_types=["a/b"])
    [found] = command.json(f"{place}:1-soci", "--to-repository", f"{place}-elsewhere", status=1)
    assert "is not copied with it" in found["problem"]


def test_a_small_image_by_tag_and_digest_keeps_its_own_tag(
    command: Command, repository: Repository, place: str
) -> None:
    image = repository.image([layer("small", SMALL)], tag="1")
    command.json(f"{place}:1@{image.digest}", "--replace", "--copy-all")
    assert repository.get("1").digest == image.digest
