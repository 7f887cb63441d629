"""The table of what is checked of a cluster on EKS before anything is made, from components/eks_checks.py."""

from components import eks_checks  # noqa: F401 (registers the guards)
from components.guards import GUARDS


def table() -> str:
    """The Markdown table: each guard, what becomes of a plan with such a thing, what is asked of AWS."""
    lines = ["| finds | and | what it asks of AWS needs |", "|---|---|---|"]
    for guard in GUARDS:
        rights = ", ".join(f"`{right}`" for right in guard.rights)
        lines.append(f"| {guard.finds} | {'refuses' if guard.refuses else 'warns'} | {rights or 'nothing'} |")
    return "\n".join(lines)
