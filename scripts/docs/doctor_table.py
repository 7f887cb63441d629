"""The table of what soci-doctor finds on a node, from agent/doctor_checks.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "installer"))

from agent.doctor_checks import CHECKS


def table() -> str:
    """The Markdown table: each finding, how bad it is, what it means, what to do."""
    lines = ["| finding | | what it means | remedy |", "|---|---|---|---|"]
    lines += [f"| `{check.id}` | {check.severity} | {check.means} | {check.remedy} |" for check in CHECKS]
    return "\n".join(lines)
