"""What to do about what both soci-doctor and a condition, Event or refusal tell of, in the same words."""

from .kinds import EXCLUDE

PULLS_THROUGH_SOCI = (
    "take imageServiceEndpoint out of the kubelet's configuration (on EKS FastImagePull out of nodeadm's "
    f"feature gates), or {EXCLUDE}"
)
