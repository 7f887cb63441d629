"""The result as a picture, PNG and SVG: ready time of each arm in each cell, and the floor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arms import ADVISED, LABELS, LAZY, LAZY_1MIB, LAZY_PREFETCH, OVERLAYFS, PARALLEL, TUNED

# What bars stand side by side: their label, and their colour.
Kinds = Mapping[str, tuple[str, str]]
MODES: Kinds = {
    mode: (LABELS[mode], colour)
    for mode, colour in {
        OVERLAYFS: "#9aa5b1",
        TUNED: "#52606d",
        LAZY: "#2f7d4f",
        LAZY_1MIB: "#63b37f",
        LAZY_PREFETCH: "#a8d5b5",
        PARALLEL: "#d98e04",
        ADVISED: "#1d4ed8",
    }.items()
}
GROUP = 0.84  # of the space between two groups of bars


class NoPlotsError(Exception):
    """They cannot be drawn: why, and what to do."""


def draw(rows: Sequence[Mapping[str, Any]], title: str, target: Path, kinds: Kinds = MODES) -> list[Path]:
    """Draw cells (`report.cells`), a panel for each link.

    Args:
        rows: the cells; of each `read`, `link`, `floor_s` and `ready_s` (seconds by kind) are drawn.
        title: of the picture.
        target: the file without its ending.
        kinds: the bars of a cell, in their order.

    Returns:
        The files that were written.

    Raises:
        NoPlotsError: there is nothing to draw, or matplotlib is not installed.
    """
    if not rows:
        raise NoPlotsError("there is no sample. Remedy: see why, above")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlotsError(f"{error}. Remedy: pip install matplotlib") from error
    links = list(dict.fromkeys(row["link"] for row in rows))
    there = {kind: look for kind, look in kinds.items() if any(row["ready_s"].get(kind) for row in rows)}
    reads = max(sum(row["link"] == link for row in rows) for link in links)
    columns = 1 if len(links) == 1 else 2
    lines = -(-len(links) // columns)
    figure = Figure(figsize=(max(6.0, 1.5 + 1.15 * reads) * columns, 3.4 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for panel, link in zip(panels, links, strict=False):
        _panel(panel, link, [row for row in rows if row["link"] == link], there)
    for panel in list(panels):
        panel.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title, fontsize=12)
    # The same bytes for the same figures; text that can be read and searched.
    with mpl.rc_context({"svg.hashsalt": "soci-bench", "svg.fonttype": "none"}):
        picture, drawing = target.with_suffix(".png"), target.with_suffix(".svg")
        figure.savefig(picture, dpi=144)
        figure.savefig(drawing, metadata={"Date": None})
    return [picture, drawing]


def _panel(panel: Any, link: str, rows: Sequence[Mapping[str, Any]], kinds: Kinds) -> None:
    width = GROUP / len(kinds)
    for number, (kind, (label, colour)) in enumerate(kinds.items()):
        places = [group - GROUP / 2 + (number + 0.5) * width for group in range(len(rows))]
        heights = [row["ready_s"].get(kind) or 0.0 for row in rows]
        bars = panel.bar(places, heights, width * 0.92, color=colour, label=label)
        texts = [f"{height:.1f}" if height else "" for height in heights]
        panel.bar_label(bars, texts, fontsize=6.5, padding=1)
    floors = [(group, row["floor_s"]) for group, row in enumerate(rows) if row["floor_s"] is not None]
    if floors:
        groups, heights = zip(*floors, strict=True)
        begin, end = [group - GROUP / 2 for group in groups], [group + GROUP / 2 for group in groups]
        panel.hlines(heights, begin, end, colors="#ba2525", linestyles="dashed", linewidth=1.2, label="floor")
    panel.set_title(link, fontsize=10)
    panel.set_xticks(range(len(rows)), [row["read"] for row in rows], fontsize=8)
    panel.set_ylabel("seconds to ready")
    panel.margins(y=0.12)
    panel.spines[["top", "right"]].set_visible(False)
