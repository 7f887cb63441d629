"""The table of pulumi-eks's arguments that may not be passed on, from components/pass_through.py."""

from collections import defaultdict

from components.pass_through import CLUSTER_REASONS, NODE_GROUP_REASONS


def table() -> str:
    """The Markdown table: by setting, the arguments that have the same reason, and the reason."""
    lines = ["| in | refused | why |", "|---|---|---|"]
    for setting, reasons in (("eksCluster", CLUSTER_REASONS), ("eksNodeGroup", NODE_GROUP_REASONS)):
        alike: dict[str, list[str]] = defaultdict(list)
        for key, reason in reasons.items():
            alike[reason].append(f"`{key}`")
        lines += [f"| `soci:{setting}` | {', '.join(keys)} | {reason} |" for reason, keys in alike.items()]
    return "\n".join(lines)
