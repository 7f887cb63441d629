"""`soci-index IMAGE...` on a registry: what is kept, what is skipped, what is refused, and what it costs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from awkward_registry import AwkwardRegistry, Fault

from tests.index.conftest import Command
from tests.index.made_images import (
    AMD64,
    ARM64,
    CONFIG,
    FOREIGN,
    GZIP,
    MANIFEST,
    UNKNOWN,
    WINDOWS,
    ZSTD,
    Pushed,
    Repository,
    digest_of,
    layer,
)
from tests.waiting import wait_for

INDEX_DIGEST = "com.amazon.soci.index-digest"
V1 = "application/vnd.amazon.soci.index.v1+json"
V2 = "application/vnd.amazon.soci.index.v2+json"


def two_platforms(repository: Repository, tag: str = "1", app: str = "app") -> Pushed:
    amd64 = repository.image([layer("base"), layer(f"{app} amd64")])
    arm64 = repository.image([layer("base arm64"), layer(f"{app} arm64")], platform=ARM64)
    return repository.index([(amd64, AMD64), (arm64, ARM64)], tag=tag)


def platforms(index: Pushed) -> list[str]:
    return [
        descriptor["platform"]["architecture"]
        for descriptor in index.content["manifests"]
        if descriptor.get("artifactType") != V2
    ]


def layers_read(registry: AwkwardRegistry, *layers: bytes) -> list[int]:
    """How often each layer's bytes were fetched."""
    asked = [request.path for request in registry.requests(kind="blobs", method="GET")]
    return [sum(path.endswith(digest_of(content)) for path in asked) for content in layers]


# Which images


def test_what_helm_renders_is_read_from_standard_input(
    command: Command, repository: Repository, place: str
) -> None:
    rendered = ""
    for tag in ("1", "2"):
        repository.image([layer(f"app {tag}")], tag=tag)
        rendered += f"---\nkind: Pod\nspec:\n  containers:\n  - name: app\n    image: {place}:{tag}\n"
    words = command.words("--file", "-", "--output", "json")
    done = subprocess.run(
        words, input=rendered, env=command.variables(), capture_output=True, text=True, check=True
    )
    found = {entry["image"]: entry["status"] for entry in json.loads(done.stdout)["images"]}
    assert found == {f"{place}:1": "indexed", f"{place}:2": "indexed"}


# What is kept


def test_the_cache_forgets_what_no_run_uses_and_what_a_killed_one_left(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base"), layer("app")], tag="1")
    command.json(f"{place}:1")
    used, unused = [entry for entry in (command.cache / "ztocs").glob("*/*/*/*") if entry.is_dir()]
    left, made_now = used.parent / ".left", used.parent / ".made-now"
    left.mkdir()
    made_now.mkdir()
    months_ago = time.time() - 100 * 86400
    for old in (unused, left):
        os.utime(old, (months_ago, months_ago))
    command.json(f"{place}:1")
    assert (used.exists(), unused.exists(), left.exists(), made_now.exists()) == (True, False, False, True)


def test_an_image_of_two_platforms_keeps_both_and_both_are_indexed(
    command: Command, repository: Repository, place: str
) -> None:
    """Copying without --all, and converting without --all-platforms, left the one of the copying machine."""
    before = two_platforms(repository)
    [found] = command.json(f"{place}:1")
    after = repository.get("1-soci")
    assert platforms(after) == platforms(before) == ["amd64", "arm64"]
    assert [platform["index"] != "" for platform in found["platforms"]] == [True, True]
    named = [
        repository.get(descriptor["digest"]).content["annotations"][INDEX_DIGEST]
        for descriptor in after.content["manifests"][:2]
    ]
    assert named == [descriptor["digest"] for descriptor in after.content["manifests"][2:]]
    assert repository.get("1").digest == before.digest


def test_only_the_platform_asked_for_is_indexed_and_the_other_one_stays(
    command: Command, repository: Repository, place: str
) -> None:
    two_platforms(repository)
    [found] = command.json(f"{place}:1", "--platform", "linux/arm64")
    assert [platform["platform"] for platform in found["platforms"]] == ["linux/arm64/v8"]
    after = repository.get("1-soci")
    assert platforms(after) == ["amd64", "arm64"]
    assert len(after.content["manifests"]) == 3


def test_a_platform_that_is_not_there_is_named(command: Command, repository: Repository, place: str) -> None:
    two_platforms(repository)
    [found] = command.json(f"{place}:1", "--platform", "linux/s390x", status=1)
    assert "has no platform linux/s390x; it has linux/amd64, linux/arm64" in found["problem"]


def test_an_attestation_stays_as_it_is_and_names_the_indexed_manifest(
    command: Command, repository: Repository, place: str
) -> None:
    amd64 = repository.image([layer("base")])
    statement = b'{"predicateType":"https://slsa.dev/provenance/v1"}'
    attestation = repository.image(
        [statement], platform=UNKNOWN, layer_types=["application/vnd.in-toto+json"]
    )
    attestation.descriptor["annotations"] = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": amd64.digest,
    }
    repository.index([(amd64, AMD64), (attestation, UNKNOWN)], tag="1")
    command.json(f"{place}:1")
    image, kept, _ = repository.get("1-soci").content["manifests"]
    assert kept["digest"] == attestation.digest
    assert kept["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    }
    assert image["digest"] != amd64.digest


def test_windows_is_carried_and_named(command: Command, repository: Repository, place: str) -> None:
    linux = repository.image([layer("base")])
    windows = repository.image([layer("windows")], platform=WINDOWS, layer_types=[FOREIGN])
    repository.index([(linux, AMD64), (windows, WINDOWS)], tag="1")
    [found] = command.json(f"{place}:1")
    assert [platform["why"] for platform in found["platforms"]] == [
        "",
        "SOCI is for Linux, not for windows; carried as it is",
    ]
    assert platforms(repository.get("1-soci")) == ["amd64", "amd64"]


def test_a_reference_by_digest_gets_a_tag_of_its_digest(
    command: Command, repository: Repository, place: str
) -> None:
    image = two_platforms(repository)
    [found] = command.json(f"{place}@{image.digest}")
    assert found["target"] == f"{place}:{image.digest.replace(':', '-')}-soci"
    assert repository.get(found["target"].rpartition(":")[2]).digest == found["digest"]


def test_the_tag_itself_moves_only_when_that_is_asked_for(
    command: Command, repository: Repository, place: str
) -> None:
    before = two_platforms(repository)
    [found] = command.json(f"{place}:1", "--replace")
    assert repository.get("1").digest == found["digest"] != before.digest
    assert f"what 1 was before is {place}@{before.digest}" in found["notes"]
    assert repository.get(before.digest).digest == before.digest


def test_a_tag_with_its_digest_moves_when_it_is_still_that_image(
    command: Command, repository: Repository, place: str
) -> None:
    before = two_platforms(repository)
    other = repository.image([layer("other")], tag="2")
    [refused] = command.json(f"{place}:2@{before.digest}", "--replace", status=1)
    assert f"{place}:2 is another image than {before.digest}" in refused["problem"]
    assert "without the digest" in refused["problem"]
    assert repository.get("2").digest == other.digest
    [found] = command.json(f"{place}:1@{before.digest}", "--replace")
    assert repository.get("1").digest == found["digest"] != before.digest
    assert command.json(f"{place}:1@{before.digest}", "--replace")[0]["status"] == "present"


def test_another_repository_gets_the_image_whole(
    command: Command, repository: Repository, place: str, store: str
) -> None:
    two_platforms(repository)
    [found] = command.json(f"{place}:1", "--to-repository", f"{place}-indexed")
    other = Repository(store.removeprefix("http://"), f"{repository.name}-indexed")
    after = other.get("1-soci")
    assert after.digest == found["digest"]
    for descriptor in after.content["manifests"]:
        for blob in other.get(descriptor["digest"]).content["layers"]:
            assert digest_of(other.get_blob(blob["digest"])) == blob["digest"]


# What is skipped


def test_an_image_that_was_indexed_is_not_indexed_again(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    two_platforms(repository)
    [first] = command.json(f"{place}:1")
    shutil.rmtree(command.cache)
    registry.forget()
    [again] = command.json(f"{place}:1")
    [itself] = command.json(f"{place}:1-soci")
    assert [again["status"], itself["status"]] == ["present", "present"]
    assert again["digest"] == itself["digest"] == first["digest"]
    assert registry.requests(method="PUT") == registry.requests(method="POST") == []
    assert layers_read(registry, layer("base")) == [0]


def test_another_image_at_the_target_is_not_overwritten(
    command: Command, repository: Repository, place: str
) -> None:
    two_platforms(repository)
    other = repository.image([layer("other")], tag="1-soci")
    [found] = command.json(f"{place}:1", status=1)
    assert f"{place}:1-soci is there, and is no indexed image" in found["problem"]
    assert repository.get("1-soci").digest == other.digest


def test_an_artifact_at_the_target_is_moved_by_force_alone(
    command: Command, repository: Repository, place: str
) -> None:
    two_platforms(repository)
    types = (MANIFEST, "application/vnd.cncf.helm.config.v1+json")
    chart = repository.image([b"chart"], tag="1-soci", types=types, layer_types=["a/b"])
    [found] = command.json(f"{place}:1", status=1)
    assert f"{place}:1-soci is there, and is no indexed image" in found["problem"]
    assert repository.get("1-soci").digest == chart.digest
    [forced] = command.json(f"{place}:1", "--force")
    assert repository.get("1-soci").digest == forced["digest"]


def test_a_target_that_cannot_be_looked_at_is_not_taken_for_empty(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    two_platforms(repository)
    other = repository.image([layer("other")], tag="1-soci")
    registry.faults = [Fault(status=410, path="manifests/1-soci", times=1)]
    [found] = command.json(f"{place}:1", status=1)
    assert found["status"] == "failed"
    assert registry.requests(method="PUT") == []
    assert repository.get("1-soci").digest == other.digest


def test_a_target_that_may_not_be_read_is_left_to_the_push(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    two_platforms(repository)
    registry.faults = [Fault(status=403, path="manifests/1-soci", times=1)]
    assert command.json(f"{place}:1")[0]["status"] == "indexed"


def test_an_index_of_an_older_image_at_the_target_is_replaced(
    command: Command, repository: Repository, place: str
) -> None:
    two_platforms(repository)
    [first] = command.json(f"{place}:1")
    two_platforms(repository, app="newer")
    [second] = command.json(f"{place}:1")
    assert second["status"] == "indexed"
    assert repository.get("1-soci").digest == second["digest"] != first["digest"]


def test_layers_that_cannot_have_a_ztoc_are_named(
    command: Command, repository: Repository, place: str
) -> None:
    layers = [layer("base"), layer("z"), layer("small", 1000), layer("foreign")]
    repository.image(layers, tag="1", layer_types=[GZIP, ZSTD, GZIP, FOREIGN])
    [found] = command.json(f"{place}:1")
    [platform] = found["platforms"]
    assert platform["ztocs"] == 1
    assert [entry["why"].partition(",")[0] for entry in platform["skipped"]] == [
        "compressed with zstd",
        "smaller than the minimum of 1 MiB",
        "foreign: its bytes are not in the registry",
    ]


def test_an_image_without_a_large_layer_needs_no_index(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    repository.image([layer("small", 1000)], tag="1")
    done = command.run(f"{place}:1")
    assert done.returncode == 0
    assert "nothing to index: no layer can have a zTOC" in done.stdout
    assert registry.requests(method="PUT") == []


# What is refused


@pytest.mark.parametrize(
    ("by", "what"),
    [
        (".sig", "a signature"),
        (".att", "an attestation"),
        (".sbom", "a bill of materials"),
        ("application/vnd.cncf.notary.signature", "a signature"),
        ("application/vnd.in-toto+json", "an attestation"),
        ("application/vnd.dsse.envelope.v1+json", "an attestation"),
        ("application/spdx+json", "a bill of materials"),
    ],
    ids=["sig", "att", "sbom", "notary", "in-toto", "dsse", "spdx"],
)
def test_an_image_that_is_signed_or_described_is_indexed_only_without_that_or_beside_it(
    command: Command, repository: Repository, place: str, by: str, what: str
) -> None:
    """By a tag of cosign's, or by a referrer of that type."""
    image = two_platforms(repository)
    if by.startswith("."):
        repository.image([b"x"], tag=f"{image.digest.replace(':', '-')}{by}", layer_types=["a/b"])
    else:
        repository.image([b"x"], types=(MANIFEST, by), layer_types=["a/b"], subject=image.descriptor)
    [found] = command.json(f"{place}:1", status=1)
    assert f"{place}:1 has {what} (" in found["problem"]
    assert "--index-version v1" in found["problem"]
    assert command.json(f"{place}:1", "--index-version", "v1")[0]["status"] == "indexed"
    assert command.json(f"{place}:1", "--unsigned")[0]["status"] == "indexed"


def test_what_is_no_image_is_named(command: Command, repository: Repository, place: str) -> None:
    chart = "application/vnd.cncf.helm.config.v1+json"
    repository.image([b"chart"], tag="1", types=(MANIFEST, chart), layer_types=["a/b"])
    found = command.json(f"{place}:1", f"{place}:none", status=1)
    assert f"{place}:1 is no container image ({chart})" in found[0]["problem"]
    assert "not found" in found[1]["problem"]
    assert f"check the name: {place}:none" in found[1]["problem"]


def test_a_manifest_that_is_damaged_is_named_and_the_other_image_is_indexed(
    command: Command, repository: Repository, place: str
) -> None:
    damaged = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG}, "layers": []}
    repository.manifest(json.dumps(damaged).encode(), MANIFEST, "damaged")
    repository.image([layer("base")], tag="1")
    found = command.json(f"{place}:damaged", f"{place}:1", status=1)
    assert [image["status"] for image in found] == ["failed", "indexed"]
    assert f"{place}:damaged has a manifest that is none" in found[0]["problem"]


def test_a_registry_that_takes_no_artifacts_is_named_and_its_tag_is_not_there(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    two_platforms(repository)
    registry.artifacts = False
    [found] = command.json(f"{place}:1", status=1)
    assert "unsupported config media type" in found["problem"]
    assert "this registry may not take artifacts" in found["problem"]
    assert (
        registry.requests(kind="manifests", method="PUT", path=f"/v2/{repository.name}/manifests/1-soci")
        == []
    )


def test_a_damaged_layer_is_named_with_its_image_and_nothing_is_pushed(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    repository.image([layer("base"), layer("broken")[:-400_000] + bytes(400_000)], tag="1")
    [found] = command.json(f"{place}:1", status=1)
    assert f"layer {digest_of(layer('broken')[:-400_000] + bytes(400_000))} of {place}:1" in found["problem"]
    assert registry.requests(method="PUT") == []


def test_a_layer_that_is_cut_short_is_asked_for_again_and_then_named(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    repository.image([layer("base")], tag="1")
    cut = Fault(kinds=("blobs",), cut_after=500_000, path=digest_of(layer("base")))
    registry.faults = [cut]
    [found] = command.json(f"{place}:1", status=1)
    assert f"layer {digest_of(layer('base'))} of {place}:1" in found["problem"]
    cut.times = 2
    registry.forget()
    assert command.json(f"{place}:1")[0]["status"] == "indexed"


# What it costs


def test_a_new_tag_on_an_old_base_reads_its_new_layers_only(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    repository.image([layer("base"), layer("one")], tag="1")
    repository.image([layer("base"), layer("two")], tag="2")
    command.json(f"{place}:1")
    registry.forget()
    [second] = command.json(f"{place}:2")
    assert layers_read(registry, layer("base"), layer("one"), layer("two")) == [0, 0, 1]
    assert (second["ztocsMade"], second["ztocsKept"]) == (1, 1)
    assert second["readBytes"] == len(layer("two"))


def test_a_layer_of_several_images_is_read_once_and_none_is_pushed(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    for tag in ("1", "2", "3"):
        repository.image([layer("base"), layer(tag)], tag=tag)
    registry.forget()
    found = command.json(*(f"{place}:{tag}" for tag in ("1", "2", "3")))
    assert [image["status"] for image in found] == ["indexed"] * 3
    assert layers_read(registry, layer("base")) == [1]
    pushed = sum(image["pushedBytes"] for image in found)
    assert pushed < len(layer("base"))
    assert sum(image["ztocsMade"] for image in found) == 4


def test_a_damaged_ztoc_in_the_cache_is_made_anew(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    command.json(f"{place}:1")
    [ztoc] = (command.cache / "ztocs").rglob("ztoc")
    ztoc.write_bytes(b"damaged")
    [again] = command.json(f"{place}:1", "--to-tag", "again")
    assert again["ztocsMade"] == 1
    assert repository.get("again").digest == repository.get("1-soci").digest


def test_a_cache_that_takes_no_more_keeps_no_image_from_its_index(
    command: Command, repository: Repository, place: str
) -> None:
    """A volume that is full, or whose files are another user's: the zTOCs serve this run alone."""
    repository.image([layer("base"), layer("app")], tag="1")
    command.json(f"{place}:1", "--to-tag", "first")
    shutil.rmtree(command.cache / "ztocs")
    (command.cache / "ztocs").touch()
    [found] = command.json(f"{place}:1")
    assert found["ztocsMade"] == 2
    assert repository.get("1-soci").digest == repository.get("first").digest


def test_a_layer_larger_than_the_disk_it_may_take_is_named(
    command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base")], tag="1")
    [found] = command.json(f"{place}:1", "--disk", "2MiB", status=1)
    assert "needs 2 MiB of disk while it is worked on, of 2 MiB" in found["problem"]
    assert command.json(f"{place}:1", "--disk", "4MiB")[0]["status"] == "indexed"


def bytes_below(directory: Path) -> int:
    """What the files of a tree hold, as far as they stay while this looks."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def test_the_disk_that_is_really_used_stays_below_its_bound(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry
) -> None:
    """Four layers may be worked on at a time, and there is room for one; each comes for half a second."""
    contents = [layer(name) for name in ("one", "two", "three", "four")]
    repository.image(contents, tag="1")
    registry.faults = [Fault(kinds=("blobs",), bytes_per_second=2 * len(contents[0]))]
    words = command.words(f"{place}:1", "--jobs", "4", "--disk", "4MiB")
    process, most = subprocess.Popen(words, env=command.variables(), stderr=subprocess.PIPE), 0
    while process.poll() is None:
        most = max(most, bytes_below(command.cache / "work"))
        time.sleep(0.01)
    process.communicate()
    assert process.returncode == 0
    assert len(contents[0]) < most < 4 << 20


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_what_it_made_and_the_next_one_goes_on(
    command: Command, repository: Repository, place: str, registry: AwkwardRegistry, number: signal.Signals
) -> None:
    repository.image([layer("base"), layer("app")], tag="1")
    gate = threading.Event()
    registry.faults = [Fault(path=digest_of(layer("app")), gate=gate)]
    registry.forget()
    process = subprocess.Popen(
        command.words(f"{place}:1", "--jobs", "1"), env=command.variables(), stderr=subprocess.PIPE
    )
    try:
        asked = f"/v2/{repository.name}/blobs/{digest_of(layer('app'))}"
        wait_for(lambda: bool(registry.requests(path=asked)), 30, "the layer is asked for")
        process.send_signal(number)
        assert process.wait(20) == {signal.SIGKILL: -9}.get(number, 130)
    finally:
        gate.set()
    registry.faults = []
    is_killed = number is signal.SIGKILL
    assert len(list((command.cache / "work").iterdir())) == int(is_killed)
    registry.forget()
    [found] = command.json(f"{place}:1")
    assert found["status"] == "indexed"
    assert layers_read(registry, layer("base"), layer("app")) == [0, 1]
    assert list((command.cache / "work").iterdir()) == []
