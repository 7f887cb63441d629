"""Images of one lazily loaded layer, each with bytes of its own: none is on a node because of another."""

import random
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import images
import workloads
from settings import REGISTRY

FILES = 48
SMALL, LARGE = 1 << 18, 9 << 18  # bytes of a file; soci-doctor speaks of images of the second size only
SPAN_BYTES = 1 << 20
APPLETS = ["sh", "sleep", "usleep", "cat", "true"]


def push(repository: str, file_bytes: int = SMALL) -> None:
    """Push the image repository:1 to the lab's registry, with a SOCI v2 index, unless it is there."""
    if _is_there(repository):
        return
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    generator = random.Random(repository)

    def data(archive: tarfile.TarFile) -> None:
        for number in range(FILES):
            images.add_file(archive, f"data/{number:02}", generator.randbytes(file_bytes))

    with tempfile.TemporaryDirectory() as scratch:
        plain, indexed = Path(scratch, "plain"), Path(scratch, "indexed")
        programs = images.programs_layer(busybox.read_bytes(), APPLETS, {})
        images.write_layout(plain, [programs, data], {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
        options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", "--all"]
        for command in (
            workloads.convert(plain, indexed, SPAN_BYTES),
            ["skopeo", "copy", *options, f"oci:{indexed}", f"docker://{REGISTRY}/{repository}:1"],
        ):
            subprocess.run(command, check=True, capture_output=True)


def _is_there(repository: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/{repository}/manifests/1", timeout=10):
            return True
    except urllib.error.HTTPError:
        return False
