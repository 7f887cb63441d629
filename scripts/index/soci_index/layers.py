"""Which layers can have a zTOC, and why the others cannot.

Sources: soci-snapshotter, soci/soci_index.go (buildSociLayer); containerd, core/images/mediatypes.go.
"""

from enum import Enum

from .oci import Json

DEFAULT_SPAN_BYTES = 4 << 20
DEFAULT_MIN_BYTES = 10 << 20
_OCI_LAYER = "application/vnd.oci.image.layer."
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."


class Kind(Enum):
    """What a layer is to SOCI; the value says why it gets no zTOC."""

    INDEXABLE = ""
    SMALL = "smaller than the minimum"
    ZSTD = "compressed with zstd, which SOCI cannot read in parts"
    ENCRYPTED = "encrypted"
    FOREIGN = "foreign: its bytes are not in the registry"
    OTHER = "no layer of a file system"


def kind_of(layer: Json, min_bytes: int) -> Kind:
    """What a manifest's layer is to SOCI; of a descriptor its mediaType and size count."""
    media_type = str(layer.get("mediaType", ""))
    base, *ends = media_type.split("+")
    if not media_type.startswith((_OCI_LAYER, _DOCKER_LAYER)):
        return Kind.OTHER
    if ".nondistributable." in base or ".foreign." in base:
        return Kind.FOREIGN
    if "encrypted" in ends:
        return Kind.ENCRYPTED
    if "zstd" in ends or base.endswith(".zstd"):
        return Kind.ZSTD
    return Kind.SMALL if int(layer.get("size", 0)) < min_bytes else Kind.INDEXABLE
