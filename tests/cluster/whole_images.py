"""Images that are pulled whole, each for a reason of its own, and large enough for soci-doctor to speak of.

They are in the lab's registry as doctor-REASON:1; no layer of data is in two of them.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import binaries
from settings import REGISTRY

from tests.cluster import lazy_images

MIB = 1 << 20
OTHER_PLATFORM = {"architecture": "arm64", "os": "linux"}


def push(reason: str) -> str:
    """Push the image that is pulled whole for this reason, unless it is there; return its name."""
    repository = f"doctor-{reason}"
    if not lazy_images.is_there(repository):
        with tempfile.TemporaryDirectory() as scratch:
            MAKERS[reason](Path(scratch), repository)
    return f"{REGISTRY}/{repository}:1"


def _small_layers(scratch: Path, repository: str) -> None:
    """Twelve layers of 9 MiB, and no index: `soci convert` leaves out layers below 10."""
    layers = [lazy_images.data(f"{repository} {number}", 3 * MIB, 3) for number in range(12)]
    lazy_images.write_layout(scratch, layers)
    lazy_images.push_layout(scratch, repository)


def _zstd_layers(scratch: Path, repository: str) -> None:
    plain, compressed = scratch / "plain", scratch / "zstd"
    lazy_images.write_layout(plain, [lazy_images.data(repository, lazy_images.LARGE)])
    # Not on the way to the registry: what is there as gzip would stay that.
    options = ["--quiet", "--insecure-policy", "--all", "--dest-compress-format=zstd"]
    lazy_images.run(["skopeo", "copy", *options, f"oci:{plain}", f"oci:{compressed}"])
    lazy_images.push_layout(compressed, repository)


def _wrong_platform(scratch: Path, repository: str) -> None:
    """For two platforms, of which only the other one is converted."""
    plain, indexed = scratch / "plain", scratch / "indexed"
    lazy_images.write_layout(plain, [lazy_images.data(repository, lazy_images.LARGE)])
    _add_other_platform(plain)
    soci = str(binaries.build("soci") / "soci")
    options = ["--standalone", "--format", "oci-dir", "--platform", "linux/arm64"]
    lazy_images.run([soci, "convert", *options, str(plain), str(indexed)])
    lazy_images.push_layout(indexed, repository)


def _add_other_platform(layout: Path) -> None:
    """The same layers again, as an image for the other platform."""
    index = json.loads((layout / "index.json").read_text())
    (image,) = index["manifests"]
    manifest = _read(layout, image)
    config = _read(layout, manifest["config"]) | OTHER_PLATFORM
    manifest["config"] |= _write(layout, config)
    index["manifests"].append(image | _write(layout, manifest) | {"platform": OTHER_PLATFORM})
    (layout / "index.json").write_text(json.dumps(index))


def _read(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    return json.loads(_blob(layout, descriptor["digest"]).read_text())


def _write(layout: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write a blob of JSON; return the digest and the size of its descriptor."""
    text = json.dumps(content)
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    _blob(layout, digest).write_text(text)
    return {"digest": digest, "size": len(text)}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


MAKERS: dict[str, Callable[[Path, str], None]] = {
    "small-layers": _small_layers,
    "zstd-layers": _zstd_layers,
    "wrong-platform": _wrong_platform,
}
