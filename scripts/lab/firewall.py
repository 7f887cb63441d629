"""A node's firewall, as scripts for the node: it reaches the cluster, and else only what is named."""

from collections.abc import Iterable

from settings import ADDRESS, API_PORT

CHAIN = "lab-closed"
KUBELET_PORT = 10250
NODES = "10.77.0.8/29,10.77.0.16/28"  # those of nodes.Spec.address
PODS_AND_SERVICES = "10.244.0.0/16,10.96.0.0/16"
JUMPS = ("OUTPUT", "FORWARD")  # the node's own packets, and its pods'


def close(allowed: Iterable[str] = ()) -> str:
    """Return the script that closes it; allowed are address:port. A reboot opens it again."""
    open_to = [f"-d {ADDRESS} -p tcp --dport {API_PORT}"]
    for name in allowed:
        address, _, port = name.partition(":")
        open_to.append(f"-d {address} -p tcp --dport {port}")
    rules = [
        f"iptables -N {CHAIN}",
        f"iptables -A {CHAIN} -d {PODS_AND_SERVICES},{NODES},127.0.0.0/8 -j RETURN",
        f"iptables -A {CHAIN} -p tcp --sport {KUBELET_PORT} -j RETURN",  # answers to the API server
        *(f"iptables -A {CHAIN} {rule} -j RETURN" for rule in open_to),
        # Also of connections that were made before: a registry's are kept open.
        f"iptables -A {CHAIN} -p tcp -j REJECT --reject-with tcp-reset",
        f"iptables -A {CHAIN} -j REJECT",
        *(f"iptables -I {jump} -o host0 -j {CHAIN}" for jump in JUMPS),
    ]
    return "\n".join([open_again(), *rules])


def open_again() -> str:
    """Return the script that opens it; one that is open stays so."""
    rules = [f"iptables -D {jump} -o host0 -j {CHAIN} 2>/dev/null || :" for jump in JUMPS]
    return "\n".join(
        [*rules, f"iptables -F {CHAIN} 2>/dev/null || :", f"iptables -X {CHAIN} 2>/dev/null || :"]
    )
