"""The table of the nodes that are served or refused: what the agent says of the files of such nodes."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "installer"))

from agent.errors import InstallError
from agent.kinds import PLAIN

from tests.installer.cloud_nodes import NODES, QUICK, UNPUBLISHED, CloudHost, CloudNode, judge


def table() -> str:
    """The Markdown table: each node, the verdict on it, what was seen there, how it is known."""
    lines = [
        "| Node | SOCI | Recognized as | containerd's unit, file | Credential provider | Verified | Source |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_line(node) for node in NODES]
    for node in UNPUBLISHED:
        verdict = f"not known: no source of its files was found. Known is: {node.known}"
        cells = (node.name, verdict, "", "", "", "not at all", _links(node.sources))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _line(node: CloudNode) -> str:
    verdict, verified = _verdict(node)
    note = f" ({node.note})" if node.note else ""
    places = [node.unit if node.command else "", node.config_path]
    provider = ", ".join(f"`{name}`" for name in node.provider.plugins) if node.provider else ""
    kind = "any other node" if node.kind == PLAIN.name else node.kind
    cells = (
        node.name,
        f"{verdict}{note}",
        kind,
        ", ".join(f"`{place}`" for place in places if place),
        provider,
        verified,
        _links(node.sources),
    )
    return f"| {' | '.join(cells)} |"


def _verdict(node: CloudNode) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            judge(CloudHost(Path(folder), node))
        except InstallError as error:
            return f"refused: {error.cause}. Remedy: {error.remedy}", "the refusal, by its files"
    tried = f"its files, by the real containerd {QUICK[node.series[0]]}"
    return "**served**", f"on real nodes; {tried}" if node.in_lab else tried


def _links(sources: tuple[str, ...]) -> str:
    found = (source if source.startswith("https://") else f"../{source}" for source in sources)
    return ", ".join(f"[{number}]({source})" for number, source in enumerate(found, start=1))
