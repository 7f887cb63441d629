"""Images of one lazily loaded layer, each with bytes of its own: none is on a node because of another."""

import random
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import images
import workloads
from settings import REGISTRY

FILES = 48
SMALL, LARGE = 1 << 18, 9 << 18  # bytes of a file; soci-doctor speaks of images of the second size only
SPAN_BYTES = 1 << 20
APPLETS = ["sh", "sleep", "usleep", "cat", "sha256sum", "true"]


def push(repository: str, file_bytes: int = SMALL, prefetched: Sequence[str] = ()) -> None:
    """Push the image repository:1 to the lab's registry, with a SOCI v2 index, unless it is there.

    Nodes fetch the files of ``prefetched`` before a container starts: paths without a slash before them.
    """
    if is_there(repository):
        return
    with tempfile.TemporaryDirectory() as scratch:
        plain, indexed = Path(scratch, "plain"), Path(scratch, "indexed")
        write_layout(plain, [data(repository, file_bytes)])
        soci, convert, *rest = workloads.convert(plain, indexed, SPAN_BYTES)
        run([soci, convert, *(f"--prefetch-file={path}" for path in prefetched), *rest])
        push_layout(indexed, repository)


def push_without_index(repository: str, file_bytes: int = SMALL) -> None:
    """Push the image repository:1 to the lab's registry, without any index, unless it is there."""
    if not is_there(repository):
        with tempfile.TemporaryDirectory() as scratch:
            write_layout(Path(scratch), [data(repository, file_bytes)])
            push_layout(Path(scratch), repository)


def data(seed: str, file_bytes: int, files: int = FILES) -> images.Layer:
    """The layer of so many files that cannot be compressed; another seed gives other bytes."""

    def add(archive: tarfile.TarFile) -> None:
        for name, content in contents(seed, file_bytes, files):
            images.add_file(archive, name, content)

    return add


def contents(seed: str, file_bytes: int, files: int = FILES) -> Iterator[tuple[str, bytes]]:
    """The files of that layer: path without a slash before it, and bytes."""
    generator = random.Random(seed)
    for number in range(files):
        yield f"data/{number:02}", generator.randbytes(file_bytes)


def write_layout(layout: Path, layers: list[images.Layer]) -> None:
    """Write an image of a shell and of these layers."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    programs = images.programs_layer(busybox.read_bytes(), APPLETS, {})
    images.write_layout(layout, [programs, *layers], {"Cmd": ["sh"], "Env": ["PATH=/bin"]})


def push_layout(layout: Path, repository: str) -> None:
    """Push what is in a layout as repository:1."""
    options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", "--all"]
    run(["skopeo", "copy", *options, f"oci:{layout}", f"docker://{REGISTRY}/{repository}:1"])


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def is_there(repository: str) -> bool:
    """Whether the lab's registry has the image repository:1."""
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/{repository}/manifests/1", timeout=10):
            return True
    except urllib.error.HTTPError:
        return False
