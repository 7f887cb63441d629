"""The table of what the installer writes on a node, made from agent/managed.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "installer"))

from agent import managed
from agent.transaction import Role

RESTORED = {Role.SHARED: "the original back, byte for byte"}


def table() -> str:
    """The Markdown table: each path that any node can have, what it is, and what becomes of it at the end."""
    lines = ["| Path | What | At `soci-host.sh remove` |", "|---|---|---|"]
    lines += [f"| `{folder.path}` | {folder.what} | removed |" for folder in managed.FOLDERS]
    places = managed.places()
    for row in managed.MANAGED:
        paths = dict.fromkeys(row.path(place) for place in places if row in managed.rows(place))
        restored = RESTORED.get(row.role, "removed, or the original back")
        lines.append(f"| {', '.join(f'`{path}`' for path in paths)} | {row.what} | {restored} |")
    return "\n".join(lines)
