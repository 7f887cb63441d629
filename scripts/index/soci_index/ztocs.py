"""zTOCs: each is made of its layer alone, once, and kept.

The layer goes from the registry through this process into `soci convert`, as the one layer of an image in a
tar; what comes back is read as it comes, and of it all but the layer is kept. So the disk holds what `soci`
itself keeps while it works: the layer twice (cmd/soci/commands/internal/standalone.go, soci/soci_index.go).
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import oci
from .assemble import ARTIFACT_TYPES
from .errors import SociIndexError
from .oci import Json
from .processes import Children
from .references import Reference
from .registry import Registry, RegistryError, refusal
from .tools import Tools

ATTEMPTS = 3  # to get a layer whole
AGAIN = "run this again; see to the registry and to what is between"
KEPT_SECONDS, UNFINISHED_SECONDS = 90 * 86400, 86400
COPIES = 2  # of a layer, while its zTOC is made
_BLOCK = 1 << 20
_PLATFORM = {"architecture": "amd64", "os": "linux"}  # that of a layer alone does not matter


@dataclass(frozen=True)
class Made:
    """A layer's zTOC, and the SOCI index that `soci` made of the layer alone, with the zTOC's descriptor."""

    file: Path
    index: Json

    @property
    def descriptor(self) -> Json:
        return self.index["layers"][0]


def prune(directory: Path) -> None:
    """Remove from a cache what no run has used for KEPT_SECONDS, and what killed runs left half done.

    A directory of a run at work is younger than UNFINISHED_SECONDS.
    """
    now = time.time()
    for entry in [*(directory / "ztocs").glob("*/*/*/*"), *(directory / "layers").glob("*")]:
        limit = UNFINISHED_SECONDS if entry.name.startswith(".") else KEPT_SECONDS
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < now - limit:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class Cache:
    """The zTOCs that are there already, by everything that decides their bytes."""

    def __init__(self, directory: Path, soci_version: str, span_bytes: int) -> None:
        self._directory = directory / "ztocs" / f"soci-{soci_version}" / str(span_bytes)

    def place(self, layer: Json) -> Path:
        """Where a layer's zTOC is kept. How the layer is read goes by its media type."""
        media_type = str(layer["mediaType"]).replace("/", "_")
        return self._directory / media_type / oci.hex_of(layer["digest"])

    def get(self, layer: Json) -> Made | None:
        """The zTOC of a layer; None when there is none, or its bytes are not what was kept."""
        place = self.place(layer)
        try:
            made = Made(place / "ztoc", json.loads((place / "index.json").read_bytes()))
            with made.file.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if f"sha256:{digest}" == made.descriptor["digest"]:
                with contextlib.suppress(OSError):
                    os.utime(place)  # used, for `prune`
                return made
        except (OSError, ValueError, LookupError, TypeError):
            pass
        shutil.rmtree(place, ignore_errors=True)
        return None

    def put(self, layer: Json, index: bytes, ztoc: Path) -> Made:
        """Keep a zTOC, whose file is moved, in one step; another run may do the same.

        Raises:
            OSError: there is no room for it, or no right; its file is where it was.
        """
        place = self.place(layer)
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
        try:
            (unfinished / "index.json").write_bytes(index)
            shutil.move(ztoc, unfinished / "ztoc")
            with contextlib.suppress(OSError):  # another run was faster
                unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return Made(place / "ztoc", json.loads(index))


class DiskBudget:
    """The bytes that layers may take at one time; who wants more than is left waits."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, wanted: int, name: str) -> Generator[None]:
        """Have so many bytes for as long as the block runs.

        Raises:
            SociIndexError: there are never so many.
        """
        if wanted > self.total:
            cause = (
                f"{name} needs {wanted >> 20} MiB of disk while it is worked on, of {self.total >> 20} MiB"
            )
            raise SociIndexError(cause, "--disk with more, or --cache on a larger disk")
        with self._changed:
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()


@dataclass(frozen=True)
class Maker:
    """Makes zTOCs.

    Attributes:
        work: a directory for layers that are worked on.
    """

    tools: Tools
    children: Children
    registry: Registry
    cache: Cache
    budget: DiskBudget
    work: Path
    span_bytes: int

    def make(self, source: Reference, layer: Json, moved: Callable[[int], None]) -> Made:
        """Make a layer's zTOC, and keep it.

        Args:
            source: the repository that has the layer.
            layer: its descriptor.
            moved: hears how many of the layer's bytes have come, as they come.

        Raises:
            SociIndexError: the layer cannot be had, is not what its digest says, or cannot be read by SOCI.
            StoppedError: the run is being ended.
        """
        name = f"layer {layer['digest']} of {source.name}"
        with self.budget.taken(COPIES * int(layer["size"]), name):
            for _ in range(ATTEMPTS - 1):
                with contextlib.suppress(_CutShortError):
                    return self._make(source, layer, name, moved)
            return self._make(source, layer, name, moved)

    def _make(self, source: Reference, layer: Json, name: str, moved: Callable[[int], None]) -> Made:
        with (
            tempfile.TemporaryDirectory(dir=self.work) as scratch,
            tempfile.TemporaryFile(dir=scratch) as errors,
        ):
            fetch = self.registry.open_blob(source, str(layer["digest"]), errors)
            assert fetch.stdout is not None
            try:
                blobs = self._convert(fetch.stdout, layer, Path(scratch), moved)
                self.children.wait(fetch)
            except _TransferError as error:
                self.children.wait(fetch)
                moved(-error.received)
                errors.seek(0)
                raise _transfer_failure(source, name, error, errors.read()) from error
            except _ConvertError as error:
                raise SociIndexError(f"{name}: {error}", "build the image again, with gzip layers") from error
            finally:
                self.children.end(fetch)
            index, ztoc = _index_of(blobs)
            if not ztoc:
                raise SociIndexError(f"{name}: soci made no index of it", "--soci with another version")
            try:
                return self.cache.put(layer, index, ztoc)
            except OSError:  # the next run has to make it again
                kept = Path(tempfile.mkdtemp(dir=self.work)) / "ztoc"
                shutil.move(ztoc, kept)
                return Made(kept, json.loads(index))

    def _convert(
        self, content: IO[bytes], layer: Json, scratch: Path, moved: Callable[[int], None]
    ) -> dict[str, Path]:
        """The blobs of the image with this one layer, converted, but the layer."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as converted, tempfile.TemporaryFile(dir=scratch) as words:
            try:
                soci = self._start(scratch, writing, words)
            finally:
                os.close(writing)
            pump = _Pump(content, layer, soci, moved)
            try:
                blobs = _blobs(converted, str(layer["digest"]), scratch)
            except BaseException:
                self.children.end(soci)
                raise
            finally:
                pump.join()
            status = self.children.wait(soci)
            if pump.problem:
                raise pump.problem
            if status:
                words.seek(0)
                said = words.read().decode("utf-8", "replace").strip().splitlines()
                raise _ConvertError(said[-1] if said else f"soci ended with status {status}")
        return blobs

    def _start(self, scratch: Path, writing: int, words: IO[bytes]) -> subprocess.Popen[bytes]:
        """The process that reads an image from its standard input and writes it, converted, to a pipe."""
        sizes = ("--span-size", str(self.span_bytes), "--min-layer-size", "0")
        return self.children.start(
            [self.tools.soci, "convert", "--standalone", *sizes, "/dev/stdin", f"/dev/fd/{writing}"],
            {"TMPDIR": str(scratch)},
            stdin=subprocess.PIPE,
            stdout=words,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
        )


class _CutShortError(RegistryError):
    """A layer came in part."""


class _ConvertError(Exception):
    """What soci says of a layer that it cannot read."""


class _TransferError(Exception):
    """Other bytes came than the layer's."""

    def __init__(self, received: int, size: int) -> None:
        is_whole = received == size
        super().__init__("its bytes are others" if is_whole else f"{received} of {size} bytes came")
        self.received = received


def _transfer_failure(source: Reference, name: str, error: _TransferError, said: bytes) -> RegistryError:
    """Why a layer did not come, with what oras says of it."""
    kind = _CutShortError if error.received else RegistryError
    if not said.strip():
        return kind(f"{name}: {error}", AGAIN)
    why = refusal(source, said.decode("utf-8", "replace"))
    return kind(f"{name}: {why.cause}", why.remedy)


class _Pump(threading.Thread):
    """Writes the image with the one layer to `soci`, and its end only if the layer is the right one."""

    def __init__(
        self, content: IO[bytes], layer: Json, soci: subprocess.Popen[bytes], moved: Callable[[int], None]
    ) -> None:
        super().__init__(daemon=True)
        self.problem: _TransferError | None = None
        self._content, self._layer, self._soci, self._moved = content, layer, soci, moved
        self.start()

    def run(self) -> None:
        assert self._soci.stdin is not None
        try:
            with self._soci.stdin as target:
                self._write(target)
        except BrokenPipeError:
            pass  # soci has ended, and says why, or was ended here
        finally:
            self._content.close()

    def _write(self, target: IO[bytes]) -> None:
        for name, blob in _small_files(self._layer):
            target.write(_header(name, len(blob)) + blob + _padding(len(blob)))
        size, digest, received = int(self._layer["size"]), str(self._layer["digest"]), 0
        target.write(_header(_blob_name(digest), size))
        read = hashlib.sha256()
        while block := self._content.read(_BLOCK):
            received += len(block)
            if received > size:
                break
            read.update(block)
            target.write(block)
            self._moved(len(block))
        if received != size or f"sha256:{read.hexdigest()}" != digest:
            # Not raised: with soci gone, what is left to write to it at its end fails, and would hide it.
            self.problem = _TransferError(received, size)
            self._soci.kill()
            return
        target.write(_padding(size) + bytes(2 * tarfile.BLOCKSIZE))


def _small_files(layer: Json) -> Iterator[tuple[str, bytes]]:
    """The files of an OCI image layout with one image of this one layer, but the layer itself."""
    config = json.dumps({**_PLATFORM, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode()
    manifest = oci.manifest_bytes(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.descriptor(oci.CONFIG, config),
            "layers": [{key: layer[key] for key in ("mediaType", "digest", "size")}],
        }
    )
    top = oci.descriptor(oci.MANIFEST, manifest)
    yield "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
    yield "index.json", oci.index_bytes({"schemaVersion": 2, "manifests": [top]})
    for blob in (config, manifest):
        yield _blob_name(oci.digest_of(blob)), blob


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{oci.hex_of(digest)}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _blobs(converted: IO[bytes], layer_digest: str, scratch: Path) -> dict[str, Path]:
    """The blobs of a layout in a tar but the layer, by digest, as files; of a tar that is cut short, some."""
    found: dict[str, Path] = {}
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=converted, mode="r|") as tar:
        for member in tar:
            _, _, name = member.name.partition("blobs/sha256/")
            source = tar.extractfile(member) if name and f"sha256:{name}" != layer_digest else None
            if source:
                found[f"sha256:{name}"] = scratch / name
                with (scratch / name).open("xb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
    while converted.read(_BLOCK):  # what is behind the archive's end
        pass
    return found


def _index_of(blobs: dict[str, Path]) -> tuple[bytes, Path | None]:
    """The SOCI index among the blobs, and the file of its zTOC; None when there is none."""
    for path in blobs.values():
        if path.stat().st_size > _BLOCK:
            continue
        try:
            content: Any = json.loads(path.read_bytes())
            if content["config"]["mediaType"] == ARTIFACT_TYPES["v2"]:
                return path.read_bytes(), blobs[content["layers"][0]["digest"]]
        except (ValueError, LookupError, TypeError):
            continue
    return b"", None
