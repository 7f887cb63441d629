"""What is attached to an image and holds for its digest alone, while the indexed image has another one.

A tag that is named after the digest, as cosign has it where a registry knows no referrers, or a referrer of a
type that signs or describes (OCI distribution specification 1.1, "Listing Referrers").
"""

from collections.abc import Mapping

SIGNATURE, ATTESTATION, BILL = "a signature", "an attestation", "a bill of materials"
# cosign's tags: pkg/oci/remote of sigstore/cosign.
TAGS = {"sig": SIGNATURE, "att": ATTESTATION, "sbom": BILL}
# How the artifact types of referrers begin.
TYPES: Mapping[str, str] = {
    "application/vnd.cncf.notary.signature": SIGNATURE,
    "application/vnd.dev.cosign.": SIGNATURE,
    "application/vnd.dev.sigstore.bundle": SIGNATURE,
    "application/vnd.in-toto": ATTESTATION,
    "application/vnd.dsse.envelope": ATTESTATION,
    "application/spdx": BILL,
    "text/spdx": BILL,
    "application/vnd.cyclonedx": BILL,
    "application/vnd.syft": BILL,
    "application/vnd.goharbor.harbor.sbom": BILL,
}


def tags(digest: str) -> dict[str, str]:
    """The tags under which something may be attached to a manifest, and what that is."""
    return {f"{digest.replace(':', '-')}.{end}": what for end, what in TAGS.items()}


def kind(artifact_type: str) -> str:
    """What a referrer of this type is; empty for what nobody loses, such as an index of SOCI."""
    return next((what for begin, what in TYPES.items() if artifact_type.startswith(begin)), "")
