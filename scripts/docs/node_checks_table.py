"""The table of the node's checks, made from the rows of scripts/installer/host/45-verify.sh."""

import re
from collections.abc import Iterator
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "installer" / "host" / "45-verify.sh"


def checks() -> Iterator[tuple[str, str, str]]:
    """Each check: its name, `reads` or `runs`, what it finds wrong.

    Raises:
        ValueError: a row of the script that is not these three, the name in lower-case letters alone.
    """
    rows = SCRIPT.read_text(encoding="utf-8").partition("CHECKS='\n")[2].partition("\n'\n")[0]
    for row in rows.splitlines():
        found = re.fullmatch(r"([a-z]+) +(reads|runs) +(\S.*)", row)
        if not found:
            raise ValueError(f"{SCRIPT.name}: not a row of CHECKS: {row}")
        yield found[1], found[2], found[3]


def table() -> str:
    """The Markdown table: each check's step, whether it only reads, what it finds wrong."""
    lines = ["| step | | the cause when it fails |", "|---|---|---|"]
    lines += [f"| verify-{name} | {does} | {wrong} |" for name, does, wrong in checks()]
    return "\n".join(lines)
