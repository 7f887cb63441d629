#!/usr/bin/env python3
"""Show a measured result in the README: the table of medians, and a picture of them in docs/pod-start.svg.

Usage: result_picture.py [RESULTS]     (RESULTS, such as .lab/results.json, becomes docs/results.json first)
"""

import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "bench"))

import recorded  # noqa: E402 (found through the path above)
from between import between  # noqa: E402
from pod_start import table  # noqa: E402

RESULTS = REPOSITORY / "docs" / "results.json"
PICTURE = REPOSITORY / "docs" / "pod-start.svg"
README = REPOSITORY / "README.md"
COLOURS = {"overlayfs": "#9aa5b1", "soci": "#2f7d4f"}
NAMES = {"overlayfs": "overlayfs", "soci": "SOCI, lazy"}
WIDTH, LEFT, ROW, BAR = 720, 190, 30, 20


def section(measured: dict) -> str:
    """The README's section on a result (the content of .lab/results.json): picture, table, circumstances."""
    samples = len(measured["arms"]["soci"]["pull_s"])
    installs = measured["install"].values()
    verified = statistics.median(report["verified_s"] for report in installs)
    down = statistics.median(report["containerd_down_s"] for report in installs)
    return f"""![Image pull and pod ready, with and without SOCI](docs/pod-start.svg)

```
{table(measured)}
```

Medians of {samples} cold pod starts per arm, as `make up` prints them, on a link of {measured["link_mbit"]} \
Mbit/s; the raw samples are in [docs/results.json](docs/results.json). The installer verified a node after \
{verified:.1f} s, with containerd down for {down:.2f} s. Ratios depend on link and image:
[docs/performance.md](docs/performance.md) says how."""


def picture(measured: dict) -> str:
    """The medians of both arms as horizontal bars (SVG)."""
    bars = [
        (f"{label}, {NAMES[arm]}", arm, statistics.median(measured["arms"][arm][field]))
        for label, field in (("image pull", "pull_s"), ("pod ready", "ready_s"))
        for arm in ("overlayfs", "soci")
    ]
    longest = max(seconds for _, _, seconds in bars)
    height = ROW * (len(bars) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (label, arm, seconds) in enumerate(bars):
        top = ROW * number + ROW // 2
        length = max(2, round((WIDTH - LEFT - 90) * seconds / longest))
        middle = top + BAR - 5
        lines += [
            f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end" fill="#1f2933">{label}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{length}" height="{BAR}" fill="{COLOURS[arm]}"/>',
            f'<text x="{LEFT + length + 8}" y="{middle}" fill="#1f2933">{seconds:.2f} s</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def with_section(document: str, measured: dict) -> str:
    """A document (its text) whose part between the result markers is the section."""
    return between(document, "result", section(measured))


def main() -> None:
    measured = recorded.take(RESULTS)
    PICTURE.write_text(picture(measured), encoding="utf-8")
    recorded.rewrite(README, lambda text: with_section(text, measured))


if __name__ == "__main__":
    main()
