"""An indexed image, put together from its manifests and the zTOCs of its layers: what `soci convert` writes.

Source: soci-snapshotter, soci/soci_index.go and soci/soci_convert.go. Where more is kept here than
`soci convert` keeps, the code says so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import oci
from .oci import Json

ARTIFACT_TYPES = {
    "v1": "application/vnd.amazon.soci.index.v1+json",
    "v2": "application/vnd.amazon.soci.index.v2+json",
}
INDEX_DIGEST = "com.amazon.soci.index-digest"  # of an image's manifest: its SOCI index
MANIFEST_DIGEST = "com.amazon.soci.image-manifest-digest"  # of a SOCI index's descriptor: its manifest
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"  # of a zTOC's descriptor
SPAN_SIZE = "com.amazon.soci.span-size"
REFERENCE_DIGEST = "vnd.docker.reference.digest"  # of an attestation's descriptor, as BuildKit writes it
COPY_OF = "soci-cluster.io/copy-of"  # of an image's index that soci-index wrote without an index of SOCI
EMPTY = b"{}"  # the content of a SOCI index's config


@dataclass(frozen=True)
class Member:
    """A manifest of an image: as its index names it, and what it says.

    `content` is None for what is no manifest of an image, or a platform that the registry does not have.
    """

    descriptor: Json
    content: Json | None
    platform: Json | None

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    @property
    def is_attestation(self) -> bool:
        return REFERENCE_DIGEST in (self.descriptor.get("annotations") or {})

    @property
    def soci_digest(self) -> str:
        """The SOCI index (v2) that the manifest names; empty for none."""
        return str(((self.content or {}).get("annotations") or {}).get(INDEX_DIGEST, ""))


@dataclass(frozen=True)
class Image:
    """An image as it is in the registry: its index, if it has one, and its manifests in that order."""

    root: Json
    index: Json | None
    members: Sequence[Member]

    @property
    def is_copy(self) -> bool:
        """Whether soci-index wrote it for an image that needs no index."""
        return COPY_OF in ((self.index or {}).get("annotations") or {})


@dataclass
class Documents:
    """What is to be pushed: blobs by digest, and the descriptor of the topmost one."""

    root: Json = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, media_type: str, content: bytes) -> Json:
        """Keep a blob; return its descriptor."""
        made = oci.descriptor(media_type, content)
        self.blobs[made["digest"]] = content
        return made


def platform_text(platform: Mapping[str, Any] | None) -> str:
    """A platform as people write it: linux/arm64/v8."""
    if not platform:
        return "unknown"
    parts = [platform.get("os", ""), platform.get("architecture", ""), platform.get("variant", "")]
    return "/".join(str(part) for part in parts if part)


def normal_platform(platform: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A platform as containerd compares it (containerd/platforms, Normalize): arm64/v8 is arm64."""
    system = str(platform.get("os", "")).lower()
    architecture = str(platform.get("architecture", "")).lower()
    variant = str(platform.get("variant") or "").lower()
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
    system = {"macos": "darwin"}.get(system, system)
    architecture = aliases.get(architecture, architecture)
    if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")):
        variant = ""
    if architecture == "arm":
        variant = {"": "v7", "7": "v7", "5": "v5", "6": "v6", "8": "v8"}.get(variant, variant)
    return system, architecture, variant, str(platform.get("os.version") or "")


def soci_index(
    made: Sequence[Json], version: str, subject: Json | None = None, prefetch: Sequence[Json] = ()
) -> bytes:
    """The SOCI index of one platform.

    Args:
        made: of each layer with a zTOC, in the image's order, the SOCI index that `soci` made of it alone.
        version: v1 or v2.
        subject: for v1, the descriptor of the platform's manifest.
        prefetch: descriptors of prefetch lists.
    """
    first = made[0]
    return oci.manifest_bytes(
        {
            **first,
            "config": {**first["config"], "mediaType": ARTIFACT_TYPES[version]},
            "layers": [*(descriptor for of_layer in made for descriptor in of_layer["layers"]), *prefetch],
            "subject": {key: subject[key] for key in ("mediaType", "digest", "size")} if subject else None,
        }
    )


def with_index(image: Image, indexes: Mapping[str, bytes], copy_of: str = "") -> Documents:
    """The image with SOCI indexes (v2) in it.

    Every manifest becomes one of OCI, as `soci convert` has it. Kept besides: the annotations of descriptors;
    attestations as they are, by a descriptor that names the converted manifest.

    Args:
        image: as it is.
        indexes: digest of a manifest -> its SOCI index.
        copy_of: the image's digest, for a copy without indexes that is to be known as one.
    """
    documents = Documents()
    documents.add("", EMPTY)
    converted: dict[str, Json] = {}
    for member in image.members:
        if _is_carried(member):
            converted[member.digest] = member.descriptor
        else:
            index = indexes.get(member.digest)
            converted[member.digest] = _convert(documents, member, oci.digest_of(index) if index else "")
    descriptors = [_following(converted[member.digest], converted) for member in image.members]
    for member in image.members:
        if member.digest in indexes:
            made = documents.add(oci.MANIFEST, indexes[member.digest])
            made["annotations"] = {MANIFEST_DIGEST: converted[member.digest]["digest"]}
            made["platform"] = member.platform
            made["artifactType"] = ARTIFACT_TYPES["v2"]
            _put(descriptors, made)
    index = {**(image.index or {"schemaVersion": 2}), "mediaType": oci.INDEX, "manifests": descriptors}
    if copy_of:
        index["annotations"] = {**(index.get("annotations") or {}), COPY_OF: copy_of}
    documents.root = documents.add(oci.INDEX, oci.index_bytes(index))
    return documents


def replaced(image: Image, indexed: Collection[str]) -> set[str]:
    """The digests of an image that its indexed one does not have any more, when these get an index."""
    written = (member for member in image.members if not _is_carried(member))
    lost = {
        member.digest
        for member in written
        if member.digest in indexed or _convert(Documents(), member, "")["digest"] != member.digest
    }
    return {image.root["digest"], *lost}


def _is_carried(member: Member) -> bool:
    """Whether a manifest is no image's, or not there: it stays what it is."""
    return member.content is None or member.is_attestation or is_soci_index(member.descriptor)


def is_soci_index(descriptor: Json) -> bool:
    """Whether a descriptor in an image's index is that of a SOCI index. Not every tool keeps its type."""
    annotations = descriptor.get("annotations") or {}
    return descriptor.get("artifactType") in ARTIFACT_TYPES.values() or MANIFEST_DIGEST in annotations


def _convert(documents: Documents, member: Member, soci_digest: str) -> Json:
    content = dict(member.content or {})
    content["mediaType"] = oci.MANIFEST
    content["config"] = {**content.get("config", {}), "mediaType": oci.CONFIG}
    if soci_digest:
        content["annotations"] = {**(content.get("annotations") or {}), INDEX_DIGEST: soci_digest}
    made = documents.add(oci.MANIFEST, oci.manifest_bytes(content))
    annotations = {
        **(member.descriptor.get("annotations") or {}),
        **(content.get("annotations") or {}),
    }
    return {**member.descriptor, **made, "annotations": annotations}


def _following(descriptor: Json, converted: Mapping[str, Json]) -> Json:
    annotations = descriptor.get("annotations") or {}
    of = converted.get(annotations.get(REFERENCE_DIGEST, ""))
    if not of:
        return descriptor
    return {**descriptor, "annotations": {**annotations, REFERENCE_DIGEST: of["digest"]}}


def _put(descriptors: list[Json], made: Json) -> None:
    """Add a SOCI index, in the place of one of the same platform."""
    for position, old in enumerate(descriptors):
        if (
            old.get("artifactType") == ARTIFACT_TYPES["v2"]
            and old.get("platform")
            and normal_platform(old["platform"]) == normal_platform(made["platform"])
        ):
            descriptors[position] = made
            return
    descriptors.append(made)
