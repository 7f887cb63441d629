"""Images for the tests: made here, pushed by the distribution specification's own requests."""

import gzip
import hashlib
import io
import json
import random
import tarfile
import urllib.request
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

OCI = "application/vnd.oci.image."
INDEX, MANIFEST, CONFIG = (f"{OCI}{name}.v1+json" for name in ("index", "manifest", "config"))
GZIP, TAR, ZSTD = f"{OCI}layer.v1.tar+gzip", f"{OCI}layer.v1.tar", f"{OCI}layer.v1.tar+zstd"
FOREIGN = f"{OCI}layer.nondistributable.v1.tar+gzip"
DOCKER = "application/vnd.docker."
DOCKER_INDEX = f"{DOCKER}distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{DOCKER}distribution.manifest.v2+json"
DOCKER_CONFIG = f"{DOCKER}container.image.v1+json"
DOCKER_GZIP = f"{DOCKER}image.rootfs.diff.tar.gzip"
DOCKER_TAR = f"{DOCKER}image.rootfs.diff.tar"

LARGE = 1_500_000  # bytes of a layer that is indexed in the tests
MIN_LAYER = "1MiB"  # what they ask for
AMD64 = {"architecture": "amd64", "os": "linux"}
ARM64 = {"architecture": "arm64", "os": "linux", "variant": "v8"}
WINDOWS = {"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.1"}
UNKNOWN = {"architecture": "unknown", "os": "unknown"}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def plain_layer(seed: str, size: int = LARGE) -> bytes:
    """A tar with some files of random bytes; the same seed gives the same ones."""
    generator, packed = random.Random(seed), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"opt/{seed}/{number}")
            member.size = size // 3
            tar.addfile(member, io.BytesIO(generator.randbytes(member.size)))
    return packed.getvalue()


def layer(seed: str, size: int = LARGE) -> bytes:
    """The same, compressed."""
    return gzip.compress(plain_layer(seed, size), 1, mtime=0)


@dataclass
class Pushed:
    """A manifest or index that is in a registry."""

    descriptor: Json
    content: Json = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.descriptor["digest"]


@dataclass
class Repository:
    """A repository of a registry that takes everything from everybody over HTTP."""

    host: str
    name: str

    @property
    def place(self) -> str:
        return f"{self.host}/{self.name}"

    def blob(self, content: bytes) -> str:
        digest = digest_of(content)
        with self._open("POST", "blobs/uploads/", b"", {}) as answer:
            where = answer.headers["Location"]
        where = where if "://" in where else f"http://{self.host}{where}"
        url = f"{where}{'&' if '?' in where else '?'}digest={digest}"
        kind = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, content, kind, method="PUT")).close()
        return digest

    def manifest(self, content: bytes, media_type: str, tag: str = "") -> Pushed:
        digest = digest_of(content)
        self._open("PUT", f"manifests/{tag or digest}", content, {"Content-Type": media_type}).close()
        descriptor = {"mediaType": media_type, "digest": digest, "size": len(content)}
        return Pushed(descriptor, json.loads(content))

    def image(
        self,
        layers: list[bytes],
        *,
        tag: str = "",
        platform: Json = AMD64,
        types: tuple[str, str] = (MANIFEST, CONFIG),
        layer_types: list[str] | None = None,
        **fields: Any,
    ) -> Pushed:
        """Push an image of one platform.

        Args:
            layers: their bytes.
            types: of manifest and config.
            layer_types: gzip of OCI for all when None. Foreign layers' bytes are not pushed.
            fields: of the manifest, besides: annotations.
        """
        kinds = layer_types or [GZIP] * len(layers)
        config = json.dumps({**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
        descriptors = []
        for kind, content in zip(kinds, layers, strict=True):
            if "nondistributable" not in kind:
                self.blob(content)
            descriptors.append({"mediaType": kind, "digest": digest_of(content), "size": len(content)})
        manifest = {
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": {"mediaType": types[1], "digest": self.blob(config), "size": len(config)},
            "layers": descriptors,
            **fields,
        }
        # With spaces and line ends, as people's tools write it: its digest changes when it is written anew.
        return self.manifest(json.dumps(manifest, indent=2).encode(), types[0], tag)

    def index(
        self, members: list[tuple[Pushed, Json | None]], *, tag: str, media_type: str = INDEX, **fields: Any
    ) -> Pushed:
        """Push an index of images; with each of them its platform, and what its descriptor has besides."""
        descriptors = [
            {**member.descriptor, **({"platform": platform} if platform else {})}
            for member, platform in members
        ]
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors, **fields}
        return self.manifest(json.dumps(index, indent=1).encode(), media_type, tag)

    def get(self, reference: str) -> Pushed:
        """A manifest or index, by tag or digest."""
        accept = ", ".join((INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
        with self._open("GET", f"manifests/{reference}", None, {"Accept": accept}) as answer:
            content = answer.read()
        descriptor = {
            "mediaType": answer.headers["Content-Type"],
            "digest": digest_of(content),
            "size": len(content),
        }
        return Pushed(descriptor, json.loads(content))

    def get_blob(self, digest: str) -> bytes:
        with self._open("GET", f"blobs/{digest}", None, {}) as answer:
            return answer.read()

    def _open(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        url = f"http://{self.host}/v2/{self.name}/{path}"
        return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30)
