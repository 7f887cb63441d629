"""Manifests and indexes of OCI, written as Go's encoder writes them: so their digests are those of `soci`.

Sources: image-spec v1.1 (specs-go/v1: the fields, their order, and which are left out when empty);
encoding/json (compact, keys of maps sorted, <, > and & escaped).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from .errors import SociIndexError

Json = dict[str, Any]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"  # +json, +prettyjws
INDEX_TYPES = (INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (CONFIG, "application/vnd.docker.container.image.v1+json")

# Of each struct its fields in Go's order: what they hold, and what stands there when they are empty;
# without that they are left out.
_LEFT_OUT = object()
_PLATFORM = {
    "architecture": (None, ""),
    "os": (None, ""),
    "os.version": (None, _LEFT_OUT),
    "os.features": (None, _LEFT_OUT),
    "variant": (None, _LEFT_OUT),
}
_DESCRIPTOR = {
    "mediaType": (None, ""),
    "digest": (None, ""),
    "size": (None, 0),
    "urls": (None, _LEFT_OUT),
    "annotations": ("map", _LEFT_OUT),
    "data": (None, _LEFT_OUT),
    "platform": (_PLATFORM, _LEFT_OUT),
    "artifactType": (None, _LEFT_OUT),
}
_MANIFEST = {
    "schemaVersion": (None, 0),
    "mediaType": (None, _LEFT_OUT),
    "artifactType": (None, _LEFT_OUT),
    "config": (_DESCRIPTOR, {}),
    "layers": ([_DESCRIPTOR], None),
    "subject": (_DESCRIPTOR, _LEFT_OUT),
    "annotations": ("map", _LEFT_OUT),
}
_INDEX = {
    "schemaVersion": (None, 0),
    "mediaType": (None, _LEFT_OUT),
    "artifactType": (None, _LEFT_OUT),
    "manifests": ([_DESCRIPTOR], None),
    "subject": (_DESCRIPTOR, _LEFT_OUT),
    "annotations": ("map", _LEFT_OUT),
}
_ESCAPED = {
    ord("<"): r"\u003c",
    ord(">"): r"\u003e",
    ord("&"): r"\u0026",
    0x2028: r"\u2028",
    0x2029: r"\u2029",
}


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as Go writes it; fields that it does not know are left out."""
    return _encode(_struct(manifest, _MANIFEST))


def index_bytes(index: Mapping[str, Any]) -> bytes:
    """An image index as Go writes it; fields that it does not know are left out."""
    return _encode(_struct(index, _INDEX))


def digest_of(content: bytes) -> str:
    """The digest by which a blob is known: sha256:<hex>."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def hex_of(digest: object) -> str:
    """The hexadecimal part of a SHA-256 digest, which may name a file.

    Raises:
        SociIndexError: it is something else, such as a path that a manifest gives in its place.
    """
    if not re.fullmatch("sha256:[0-9a-f]{64}", str(digest)):
        raise SociIndexError(f"{str(digest)[:80]!r} is no SHA-256 digest", "push the image again")
    return str(digest).removeprefix("sha256:")


def descriptor(media_type: str, content: bytes) -> Json:
    """What names a blob to others."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _struct(value: Mapping[str, Any], fields: Mapping[str, Any]) -> Json:
    written: Json = {}
    for name, (kind, empty) in fields.items():
        content = value.get(name)
        if not content and not isinstance(kind, dict):
            content = [] if content == [] and isinstance(kind, list) and empty is None else None
        if content is not None:
            written[name] = _field(content, kind)
        elif empty is not _LEFT_OUT:
            written[name] = _struct(empty, kind) if isinstance(kind, dict) else empty
    return written


def _field(content: Any, kind: Any) -> Any:
    if kind == "map":
        return dict(sorted(content.items()))
    if isinstance(kind, dict):
        return _struct(content, kind)
    if isinstance(kind, list):
        return [_struct(item, kind[0]) for item in content]
    return content


def _encode(value: Json) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Between the strings there is none of these.
    return text.translate(_ESCAPED).encode("utf-8", "replace")
