"""What comes out is what `soci convert` makes of the whole image, to the byte."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.index.conftest import Command
from tests.index.made_images import (
    AMD64,
    ARM64,
    DOCKER_CONFIG,
    DOCKER_GZIP,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    DOCKER_TAR,
    GZIP,
    INDEX,
    TAR,
    ZSTD,
    Pushed,
    Repository,
    digest_of,
    layer,
    plain_layer,
)

ARMV6 = {"architecture": "arm", "os": "linux", "variant": "v6"}
DOCKER = (DOCKER_MANIFEST, DOCKER_CONFIG)


def two_platforms(repository: Repository, tag: str, media_type: str = INDEX) -> Pushed:
    amd64 = repository.image(
        [layer("base"), layer("amd64"), layer("small", 1000)], annotations={"z": "<y> & \u2028é", "a": "b"}
    )
    arm64 = repository.image(
        [layer("base"), layer("arm64"), plain_layer("plain")],
        platform=ARM64,
        types=DOCKER,
        layer_types=[DOCKER_GZIP, DOCKER_GZIP, DOCKER_TAR],
    )
    members = [(amd64, AMD64), (arm64, ARM64)]
    return repository.index(members, tag=tag, media_type=media_type, annotations={"of": "all"}, unknown=1)


def one_without_a_large_layer(repository: Repository, tag: str) -> Pushed:
    large = repository.image([layer("base")])
    small = repository.image([layer("small", 1000)], platform=ARMV6)
    return repository.index([(large, AMD64), (small, ARMV6)], tag=tag)


IMAGES = {
    "two platforms": two_platforms,
    "a manifest list of Docker": lambda repository, tag: two_platforms(repository, tag, DOCKER_INDEX),
    "one platform": lambda repository, tag: repository.image([layer("base"), layer("app")], tag=tag),
    "one platform of another machine, of Docker": lambda repository, tag: repository.image(
        [layer("base")], tag=tag, platform=ARM64, types=DOCKER, layer_types=[DOCKER_GZIP]
    ),
    "a zstd layer": lambda repository, tag: repository.image(
        [layer("base"), layer("z")], tag=tag, layer_types=[GZIP, ZSTD]
    ),
    "a layer that is not compressed": lambda repository, tag: repository.image(
        [plain_layer("tar"), layer("base")], tag=tag, layer_types=[TAR, GZIP]
    ),
    "one of two without a large layer": one_without_a_large_layer,
}


def whole(programs: dict[str, Path], source: str, directory: Path, *flags: str) -> str:
    """The digest of what `soci` makes of the whole image."""
    layout, converted = directory / "layout", directory / "converted"
    run = [
        str(programs["oras"]),
        "cp",
        "--no-tty",
        "--from-plain-http",
        source,
        "--to-oci-layout",
        f"{layout}:x",
    ]
    subprocess.run(run, check=True, capture_output=True)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [entry for entry in index["manifests"] if entry.pop("annotations", None)]
    (layout / "index.json").write_text(json.dumps(index))
    soci = [str(programs["soci"]), "convert", "--standalone", "--format", "oci-dir", "--all-platforms"]
    subprocess.run(
        [*soci, "--min-layer-size", str(1 << 20), *flags, str(layout), str(converted)],
        check=True,
        capture_output=True,
    )
    return json.loads((converted / "index.json").read_text())["manifests"][0]["digest"]


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_put_together_of_its_layers_is_the_converted_whole(
    command: Command, repository: Repository, place: str, tmp_path: Path, kind: str
) -> None:
    IMAGES[kind](repository, "1")
    [found] = command.json(f"{place}:1")
    assert found["digest"] == whole(command.programs, f"{repository.place}:1", tmp_path)
    assert repository.get("1-soci").digest == found["digest"]


def test_the_span_is_the_one_asked_for(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    two_platforms(repository, "1")
    [found] = command.json(f"{place}:1", "--span-size", "64KiB")
    assert found["digest"] == whole(
        command.programs, f"{repository.place}:1", tmp_path, "--span-size", "65536"
    )


def test_a_prefetch_list_is_the_one_that_soci_makes(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    two_platforms(repository, "1")
    paths = ["/opt/base/1", "opt/amd64/2", "/opt/plain/0", "/opt/base/0", "/opt/none"]
    listed = tmp_path / "prefetch.json"
    listed.write_text(json.dumps(paths))
    flags = ("--span-size", "65536")
    [found] = command.json(f"{place}:1", *flags, "--prefetch", str(listed))
    expected = whole(
        command.programs, f"{repository.place}:1", tmp_path, *flags, "--prefetch-files-json", str(listed)
    )
    assert found["digest"] == expected
    assert "linux/amd64: no indexed layer has /opt/none" in found["notes"]
    assert command.json(f"{place}:1", *flags, "--prefetch", str(listed))[0]["status"] == "present"
    assert command.json(f"{place}:1", *flags)[0]["digest"] != expected


def test_every_blob_of_the_indexed_image_is_in_the_registry(
    command: Command, repository: Repository, place: str
) -> None:
    two_platforms(repository, "1")
    command.json(f"{place}:1")
    for descriptor in repository.get("1-soci").content["manifests"]:
        manifest = repository.get(descriptor["digest"])
        assert manifest.descriptor["size"] == descriptor["size"]
        for blob in (manifest.content["config"], *manifest.content["layers"]):
            assert digest_of(repository.get_blob(blob["digest"])) == blob["digest"]
