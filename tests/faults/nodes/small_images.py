"""Small images in the lab's registry, each with layers of its own."""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import images

from tests.faults.nodes.lab_node import REGISTRY

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")
APPLETS = ["sh", "sleep", "cat", "ls", "stat", "rm", "test"]
SLEEP = ["/bin/sh", "-c", "while :; do sleep 1000; done"]


def _base(number: int):
    return images.programs_layer(BUSYBOX.read_bytes(), APPLETS, {"opt/sample/gone": b"below"})


def _whiteout(number: int):
    """A layer that deletes a file and makes a directory opaque: what a copy of a layer can easily lose."""

    def add(archive: tarfile.TarFile) -> None:
        images.add_file(archive, "opt/sample/.wh.gone", b"")
        images.add_file(archive, "usr/.wh..wh..opq", b"")
        images.add_file(archive, "usr/number", f"{number}\n".encode(), 0o4751)

    return add


def push(count: int) -> list[str]:
    """Push images of three layers and return their names; pushing them again changes nothing."""
    names = []
    for number in range(count):
        name = f"{REGISTRY}/small/{number}:1"
        with tempfile.TemporaryDirectory() as scratch:
            layout = Path(scratch) / "layout"
            unique = lambda archive, number=number: images.add_file(archive, "etc/unique", b"%d\n" % number)  # noqa: E731
            images.write_layout(
                layout, [_base(number), unique, _whiteout(number)], {"Cmd": SLEEP, "Env": ["PATH=/bin"]}
            )
            options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false"]
            subprocess.run(
                ["skopeo", "copy", *options, f"oci:{layout}", f"docker://{name}"],
                check=True,
                capture_output=True,
            )
        names.append(name)
    return names
