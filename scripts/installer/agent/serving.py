"""Whether a node is served by what is installed on it: the rule by which it keeps its version label.

Workloads select nodes by that label. While the condition is True the node has it. Where a run ends with
False, it may have failed at a change of a node that serves as before, such as an upgrade that is refused:
then the label stays. It goes unless the node itself says that it serves, now.
"""

from . import detect, kubelet, transaction
from .errors import InstallError
from .host import Host

LOOK_SECONDS = 90  # the check waits for up to 60 s for whoever looks or changes the node


def serves(host: Host) -> bool:
    """Whether the kubelet asks containerd, and this and the daemon pass the node's own checks. What is not
    known is not so."""
    try:
        return _asks_containerd(host) and _is_verified(host)
    except (InstallError, OSError):
        return False


def _asks_containerd(host: Host) -> bool:
    """The host script knows nothing of the kubelet, which may be turned to another socket at any time."""
    found = kubelet.read_kubelet(host)
    address = transaction.installed_plan(host).get("containerd_address") or kubelet.Kubelet.runtime
    return found is not None and not detect.other_socket(host, found, address)


def _is_verified(host: Host) -> bool:
    result = transaction.run_for(host, LOOK_SECONDS, "verify")
    return transaction.parse_result(result.output).outcome == "verified"
