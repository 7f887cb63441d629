"""The images of the lab's registry, made here: no package registry carries container images.

pause       the sandbox image: one static C program
python      stand-in for the stock `python` image: Debian with Python 3
sample      a large image whose program reads a small part of it; with a SOCI v1 index beside it, and as
            sample:1-soci with a SOCI v2 index in it
"""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import base
import binaries
from cache import cached
from settings import HERE, VERSIONS, LabError

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLATFORM = {"architecture": "amd64", "os": "linux"}

SAMPLE_LAYERS = 6
SAMPLE_LAYER_BYTES = 50_000_000
WORKING_SET_SHARE = 0.06

Layer = Callable[[tarfile.TarFile], None]


class _Digesting(io.RawIOBase):
    """Writes through to another file and keeps the SHA-256 and size of what went by."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.hash.update(data)
        self.size += len(data)
        self.target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"


def write_layout(directory: Path, layers: list[Layer], config: dict) -> str:
    """Write an OCI image layout with one image and return the manifest's digest.

    Each layer is a function that adds its files to a tar archive. The same layers give the same bytes. config
    is the image configuration's `config` object (Entrypoint, Env, ...).
    """
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = [], []
    for layer in layers:
        descriptor, diff_id = _write_layer(blobs, layer)
        descriptors.append(descriptor)
        diff_ids.append(diff_id)
    image = {**PLATFORM, "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _write_blob(blobs, CONFIG_TYPE, image),
        "layers": descriptors,
    }
    top = _write_blob(blobs, MANIFEST_TYPE, manifest)
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{**top, "platform": PLATFORM}]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return top["digest"]


def _write_layer(blobs: Path, layer: Layer) -> tuple[dict, str]:
    with tempfile.NamedTemporaryFile(dir=blobs, delete=False) as file:
        compressed = _Digesting(cast(BinaryIO, file))
        with gzip.GzipFile("", "wb", 1, cast(BinaryIO, compressed), mtime=0) as packed:
            plain = _Digesting(cast(BinaryIO, packed))
            with tarfile.open(fileobj=cast(BinaryIO, plain), mode="w|", format=tarfile.GNU_FORMAT) as archive:
                layer(archive)
    Path(file.name).chmod(0o644)
    Path(file.name).rename(blobs / compressed.hash.hexdigest())
    return {"mediaType": LAYER_TYPE, "digest": compressed.digest, "size": compressed.size}, plain.digest


def _write_blob(blobs: Path, media_type: str, content: dict) -> dict:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """Add a regular file of root's, dated at the epoch."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def tree_layer(root: Path) -> Layer:
    """Return the layer that holds a directory tree, without device nodes and times."""

    def normal(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.mtime = 0
        member.uname = member.gname = ""
        return None if member.isdev() else member

    def add(archive: tarfile.TarFile) -> None:
        archive.add(root, ".", filter=normal)  # sorts directories by name

    return add


def programs_layer(busybox: bytes, applets: list[str], files: dict[str, bytes]) -> Layer:
    """Return the small first layer of the sample: busybox with its applets, and executable files by path."""

    def add(archive: tarfile.TarFile) -> None:
        for name in ("bin", "etc", "opt", "opt/sample", "proc", "sys", "tmp", "usr", "usr/bin"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        add_file(archive, "bin/busybox", busybox, 0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, data in sorted(files.items()):
            add_file(archive, name, data, 0o755)

    return add


def sample_files(layer: int) -> Iterator[tuple[str, int]]:
    """Yield path and size of every file of one data layer of the sample; always the same ones."""
    generator = random.Random(f"sizes {layer}")
    total, number = 0, 0
    while total < SAMPLE_LAYER_BYTES:
        size = int(2 ** generator.uniform(13, 19.3))  # 8 KiB to 630 KiB, every order of size as often
        yield f"opt/sample/data/{layer}/{number:04}", size
        total, number = total + size, number + 1


def sample_layer(layer: int) -> Layer:
    """Return one data layer of the sample: incompressible files from a generator with a fixed seed."""

    def add(archive: tarfile.TarFile) -> None:
        generator = random.Random(f"content {layer}")
        for name, size in sample_files(layer):
            add_file(archive, name, generator.randbytes(size))

    return add


def working_set() -> list[str]:
    """Return the paths that the sample's program reads at its start, in the order of the image.

    They are WORKING_SET_SHARE of the image's bytes and lie together, as the files of one package do, a third
    into the second layer: not at its begin, where they would fill SOCI spans exactly.
    """
    return [f"/{name}" for name, _ in _working_set_files()]


def working_set_bytes() -> int:
    """The bytes of those files, which cannot be compressed."""
    return sum(size for _, size in _working_set_files())


def _working_set_files() -> list[tuple[str, int]]:
    wanted = WORKING_SET_SHARE * SAMPLE_LAYERS * SAMPLE_LAYER_BYTES
    chosen: list[tuple[str, int]] = []
    before, taken = 0, 0
    for name, size in sample_files(2):
        if before >= SAMPLE_LAYER_BYTES / 3 and taken < wanted:
            chosen.append((name, size))
            taken += size
        before += size
    return chosen


def registry_data() -> Path:
    """Return a directory of the cache that the registry can start from: every image, already pushed."""

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            _push_all(Path(scratch), directory)

    return cached(f"images-{_key()}", make)


def link_registry_data(state: Path) -> Path:
    """Return a lab's own directory of the images: hard links, since no blob is ever changed in place."""
    source = registry_data()
    directory = state / "registry" / source.name
    if directory.exists():
        return directory
    directory.parent.mkdir(exist_ok=True)

    def link(source: str, target: str) -> None:
        if source.endswith("/manifests"):
            shutil.copy2(source, target)  # the one file that grows
            return
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    unfinished = directory.with_name(f".{directory.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, copy_function=link)
    unfinished.rename(directory)
    return directory


def _key() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted((HERE / "image").iterdir()):
        digest.update(path.read_bytes())
    for name in ("soci", "registry"):
        digest.update(binaries.target(name).key().encode())
    digest.update(base.root_key("python", base.PYTHON_PACKAGES).encode() + VERSIONS["pause"].encode())
    return digest.hexdigest()[:16]


def _push_all(scratch: Path, data: Path) -> None:
    soci = binaries.build("soci") / "soci"
    pause, python, sample, indexed = (scratch / name for name in ("pause", "python", "sample", "sample-soci"))
    write_layout(pause, [_pause_layer(scratch)], {"Entrypoint": ["/pause"]})
    write_layout(python, [tree_layer(base.python_root())], {"Cmd": ["python3"], "Env": [DEFAULT_PATH]})
    write_layout(sample, _sample_layers(), {"Cmd": ["/opt/sample/read-working-set"], "Env": ["PATH=/bin"]})
    _run([str(soci), "convert", "--standalone", "--format", "oci-dir", str(sample), str(indexed)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    registry = str(binaries.build("registry") / "registry")
    command = [registry, "-addr", address, "-dir", str(data)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            await_registry(address)
            _push(pause, f"{address}/pause:{VERSIONS['pause']}")
            _push(python, f"{address}/python:3.11")
            _push(sample, f"{address}/sample:1")
            _push(indexed, f"{address}/sample:1-soci")
            _run([str(soci), "create-push", str(sample), f"{address}/sample"])
        finally:
            server.terminate()


def await_registry(address: str, patience_s: float = 10) -> None:
    """Return when a registry answers at the address; raise LabError when none does in patience_s seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise LabError(f"no registry answers at {address}: {error}") from error
        time.sleep(0.05)


def _pause_layer(scratch: Path) -> Layer:
    program = scratch / "pause.bin"
    _run(["gcc", "-Os", "-static", "-s", "-o", str(program), str(HERE / "image/pause.c")])
    return lambda archive: add_file(archive, "pause", program.read_bytes(), 0o755)


def _sample_layers() -> list[Layer]:
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    applets = _run([str(busybox), "--list"]).split()
    files = {
        "opt/sample/read-working-set": (HERE / "image/read-working-set").read_bytes(),
        "opt/sample/working-set": "\n".join(working_set()).encode() + b"\n",
    }
    first = programs_layer(busybox.read_bytes(), applets, files)
    return [first, *(sample_layer(number) for number in range(1, SAMPLE_LAYERS + 1))]


def _push(layout: Path, reference: str) -> None:
    options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", "--all"]
    _run(["skopeo", "copy", *options, f"oci:{layout}", f"docker://{reference}"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed (exit {done.returncode}): {done.stderr.strip()}")
    return done.stdout
