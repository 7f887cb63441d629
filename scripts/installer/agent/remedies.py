"""What to do about what both soci-doctor and a condition, Event or refusal tell of, in the same words."""

from .kinds import EXCLUDE
from .transaction import SCRIPT

PULLS_THROUGH_SOCI = (
    "take imageServiceEndpoint out of the kubelet's configuration (on EKS FastImagePull out of nodeadm's "
    f"feature gates), or {EXCLUDE}"
)
DEAD_MOUNTS = "delete the pod (a new one starts as usual), or set soci:brokenPods to evict"
HELD_IMAGE = (
    "delete the pods that run on the image, or wait for the registry; "
    f"sh {SCRIPT} heal --again on the node looks at once"
)
DAEMON_AWAY = (
    "wait for the installer, which starts it; if it stays away, see journalctl -u 'soci-snapshotter*' on the "
    "node"
)


def drift(policy: str, seconds: float) -> str:
    """Of what others changed, with this `soci:onDrift`; ``seconds`` until the next repair may be made."""
    if policy == "report":
        return "put it back, or set soci:onDrift to repair"
    when = f"again in {max(1, round(seconds / 60))} minutes" if seconds else "at once"
    return f"end what changes it; the installer puts it right {when}"
