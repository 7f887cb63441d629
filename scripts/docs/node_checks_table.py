"""The table of the node's checks, made from the rows of scripts/installer/host/45-verify.sh."""

import re
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "installer" / "host" / "45-verify.sh"


def table() -> str:
    """The Markdown table: each check's step, whether it only reads, what it finds wrong.

    Raises:
        ValueError: a row of the script that is not a name, `reads` or `runs`, and a text.
    """
    rows = SCRIPT.read_text(encoding="utf-8").partition("CHECKS='\n")[2].partition("\n'\n")[0]
    lines = ["| step | | the cause when it fails |", "|---|---|---|"]
    for row in rows.splitlines():
        found = re.fullmatch(r"([a-z]+) +(reads|runs) +(\S.*)", row)
        if not found:
            raise ValueError(f"{SCRIPT.name}: not a row of CHECKS: {row}")
        name, does, wrong = found.groups()
        lines.append(f"| verify-{name} | {does} | {wrong} |")
    return "\n".join(lines)
