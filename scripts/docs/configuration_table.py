#!/usr/bin/env python3
"""Write the table of settings, made from Pulumi.yaml, into README.md and docs/configuration.md.

Usage: configuration_table.py     (the table goes between the configuration:begin and …:end markers)
"""

import json
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = (REPOSITORY / "README.md", REPOSITORY / "docs" / "configuration.md")


def between(document: str, name: str, text: str) -> str:
    """A document whose part between its markers `<!-- name:begin -->` and `<!-- name:end -->` is the text.

    Raises:
        ValueError: the document has no such markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, tail = document.index(begin) + len(begin), document.index(end)
    return f"{document[:head]}\n{text}\n{document[tail:]}"


def table(project: str) -> str:
    """The Markdown table of the settings that a Pulumi.yaml (its text) declares."""
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for key, setting in yaml.safe_load(project)["config"].items():
        default = setting["default"]
        shown = default if isinstance(default, str) else json.dumps(default)
        cell = f"`{shown}`".replace("|", "\\|") if shown else ""
        rows.append(f"| `soci:{key}` | {setting['type']} | {cell} | {setting['description'].strip()} |")
    return "\n".join(rows)


def main() -> None:
    text = table((REPOSITORY / "Pulumi.yaml").read_text(encoding="utf-8"))
    for path in DOCUMENTS:
        path.write_text(between(path.read_text(encoding="utf-8"), "configuration", text), encoding="utf-8")


if __name__ == "__main__":
    main()
