"""`soci-index advise` on a registry: the layers are read, and the index that is advised is written."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from awkward_registry import AwkwardRegistry
from soci_index.assemble import LAYER_DIGEST, SPAN_SIZE
from soci_index.prefetch import MEDIA_TYPE as PREFETCH

from tests.index.conftest import Command
from tests.index.made_images import AMD64, ARM64, GZIP, ZSTD, Repository, digest_of, layer

LARGE = 12_000_000
# One file of three in the middle of a layer is read; the others and the other layer are not.
READ = {"path": "/opt/big/1", "size": LARGE // 3, "milliseconds": 4, "ranges": [[0, LARGE // 3]]}
OTHER = {"path": "/etc/hostname", "size": 9, "milliseconds": 1, "ranges": [[0, 9]]}
# Lazily loaded, the file comes over one connection; fetched ahead, over several.
SLOW = ("--bandwidth", "16Mbit", "--per-connection", "250KB", "--cores", "2")


def kept(directory: Path, *files: dict[str, Any], **node: object) -> str:
    """The file of a recording, with what it says of its node."""
    found = {"endedBy": "ready", "seconds": 2.0, "isComplete": True, "lazyLayers": 2, "files": list(files)}
    place = directory / "reads.json"
    place.write_text(json.dumps({**found, **node}))
    return str(place)


def advise(command: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = [f"--{name}={path}" for name, path in command.programs.items()]
    words = [*command.words()[:4], "advise", *arguments, *programs, "--cache", str(command.cache)]
    return subprocess.run(
        [*words, "--plain-http", command.host],
        capture_output=True,
        text=True,
        env=command.variables(),
        timeout=120,
        check=False,
    )


def test_the_index_that_is_advised_is_written(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    repository.image([layer("big", LARGE), layer("more", LARGE)], tag="1")
    done = advise(
        command, f"{place}:1", "--reads", kept(tmp_path, OTHER, READ), *SLOW, "--write", "--output", "json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["way"], found["mode"], found["prefetch"]) == ("prefetch", "lazy", ["/opt/big/1"])
    descriptors = repository.get("1-soci").content["manifests"]
    index = repository.get(descriptors[-1]["digest"]).content["layers"]
    ztocs = [entry for entry in index if entry["mediaType"] != PREFETCH]
    assert {entry["annotations"][SPAN_SIZE] for entry in ztocs} == {str(found["spanBytes"])}
    assert len(ztocs) == 2
    [ahead] = [entry for entry in index if entry["mediaType"] == PREFETCH]
    assert ahead["annotations"][LAYER_DIGEST] == digest_of(layer("big", LARGE))
    [spans] = json.loads(repository.get_blob(ahead["digest"]))["prefetch_spans"]
    wanted = range(LARGE // 3 // found["spanBytes"], 2 * LARGE // 3 // found["spanBytes"] + 1)
    assert abs(spans["start_span"] - wanted[0]) <= 1
    assert abs(spans["end_span"] - wanted[-1]) <= 1


def test_an_indexed_image_gets_a_new_index_only_where_that_is_said(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    repository.image([layer("big", LARGE), layer("more", LARGE)], tag="1")
    reads = ("--reads", kept(tmp_path, READ), *SLOW)
    command.json(f"{place}:1")
    first = repository.get("1-soci").digest
    refused = advise(command, f"{place}:1-soci", *reads, "--write")
    assert refused.returncode == 2
    assert f"{place}:1-soci has the suffix of indexed images already. Remedy: --replace" in refused.stderr
    done = advise(command, f"{place}:1-soci", *reads, "--write", "--replace", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert "1-soci-soci" not in done.stderr
    descriptors = repository.get("1-soci").content["manifests"]
    assert repository.get("1-soci").digest != first
    assert len(descriptors) == 2
    ztocs = repository.get(descriptors[-1]["digest"]).content["layers"]
    spans = {entry["annotations"].get(SPAN_SIZE) for entry in ztocs if entry["mediaType"] != PREFETCH}
    assert spans == {str(json.loads(done.stdout)["spanBytes"])}


def test_layers_are_read_once(
    command: Command, repository: Repository, registry: AwkwardRegistry, place: str, tmp_path: Path
) -> None:
    content = layer("big")
    repository.image([content, layer("more")], tag="1")
    arguments = (f"{place}:1", "--reads", kept(tmp_path, READ), *SLOW, "--output", "json")
    first = advise(command, *arguments)
    registry.forget()
    assert advise(command, *arguments).stdout == first.stdout
    asked = [request.path for request in registry.requests(kind="blobs", method="GET")]
    assert not [path for path in asked if path.endswith(digest_of(content))]


def test_a_layer_that_cannot_be_indexed_is_said_and_not_read(
    command: Command, repository: Repository, place: str, tmp_path: Path
) -> None:
    repository.image([layer("big", LARGE), layer("z", LARGE)], tag="1", layer_types=[GZIP, ZSTD])
    done = advise(command, f"{place}:1", "--reads", kept(tmp_path, READ), *SLOW)
    assert done.returncode == 0, done.stderr
    assert "1 layers cannot have an index, and are pulled whole" in done.stdout


ON_ARM = {"path": "/opt/arm/1", "size": LARGE // 3, "milliseconds": 4, "ranges": [[0, LARGE // 3]]}


@pytest.fixture
def of_two_platforms(repository: Repository, place: str) -> str:
    """An image whose platforms have different files."""
    amd64 = repository.image([layer("big", LARGE)])
    arm64 = repository.image([layer("arm", LARGE)], platform=ARM64)
    repository.index([(amd64, AMD64), (arm64, ARM64)], tag="1")
    return f"{place}:1"


def test_the_platform_is_that_of_the_recordings_node(
    command: Command, of_two_platforms: str, tmp_path: Path
) -> None:
    reads = kept(tmp_path, ON_ARM, architecture="arm64")
    done = advise(command, of_two_platforms, "--reads", reads, *SLOW, "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["readShare"] == pytest.approx(1 / 3, rel=0.01)


def test_reads_of_another_platform_are_refused(
    command: Command, of_two_platforms: str, tmp_path: Path
) -> None:
    """It would say that nothing of the image is read."""
    older = advise(command, of_two_platforms, "--reads", kept(tmp_path, ON_ARM), *SLOW)
    assert older.returncode == 1
    assert "1 of the 1 files that were read (recorded elsewhere) are not in" in older.stderr
    assert "Remedy: --platform with that of the recording's node" in older.stderr
    asked = ("--reads", kept(tmp_path, ON_ARM, architecture="arm64"), "--platform", "linux/amd64")
    told = advise(command, of_two_platforms, *asked, *SLOW)
    assert told.returncode == 1
    assert "(recorded on arm64) are not in" in told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--platform", "linux/arm64"),
            "has no platform linux/arm64. Remedy: --platform with one of linux/amd64",
        ),
        (("--platform", "linux"), "--platform 'linux' is no platform"),
    ],
)
def test_what_cannot_be_is_named(
    command: Command, repository: Repository, place: str, words: tuple[str, ...], said: str
) -> None:
    image = repository.image([layer("big")])
    repository.index([(image, {"architecture": "amd64", "os": "linux"})], tag="1")
    done = advise(command, f"{place}:1", "--reads", kept(command.directory, READ), *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_is_not_there_is_named(command: Command, place: str, tmp_path: Path) -> None:
    done = advise(command, f"{place}:none", "--reads", kept(tmp_path, READ))
    assert done.returncode == 1
    assert "Remedy" in done.stderr
