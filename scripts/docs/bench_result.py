#!/usr/bin/env python3
"""Show a run of `make bench` in the documents: its tables in docs/performance.md, its pictures beside it.

Usage: bench_result.py [RESULT]     (RESULT, such as .lab/bench.json, becomes docs/bench.json first)
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts" / "bench")]

import recorded  # noqa: E402 (found through the path above)
from between import between  # noqa: E402

from components.bench import report  # noqa: E402

RESULT = REPOSITORY / "docs" / "bench.json"
DOCUMENT = REPOSITORY / "docs" / "performance.md"


def measured() -> dict:
    return recorded.load(RESULT)


def section(content: dict) -> str:
    """The part of docs/performance.md on a result (the content of .lab/bench.json)."""
    result = report.from_json(content)
    rows = report.cells(result)
    lines = [*report.ready_times(rows), "", *report.soonest(rows), ""]
    lines += [*report.lazily(rows), *report.verdicts(rows)]
    counts = sorted({count for cell in content["cells"] for count in cell["samples"].values()})
    several = f"{counts[0]} to {counts[-1]}" if counts[1:] else f"{counts[0]}"
    taken = f"Medians of {several} cold starts" if counts[-1] > 1 else "One cold start"
    loads = [sample["load"] for sample in content["samples"]]
    processors = next(iter(content["environment"]["nodes"].values()), {}).get("processors")
    links = "; ".join(
        f"{link['name']}: {link['used_bytes_per_second'] / 1e6:.1f} MB/s over several connections, "
        f"{link['connection_bytes_per_second'] / 1e6:.1f} over one"
        for link in content["links"]
    )
    programs = (RESULT.parent / "bench-programs.svg").exists()
    drawn = "![Seconds to ready of programs](bench-programs.svg)\n" if programs else ""
    return f"""![Seconds to ready, by share that is read and by link](bench.svg)
{drawn}
```
{chr(10).join(lines)}
```

{taken} of each arm ({content["environment"]["time"][:10]}), on {processors} \
processors, at a load of {min(loads):.0f} to {max(loads):.0f}.
Links as measured in the run: {links}. Raw samples: [bench.json](bench.json)."""


def with_section(document: str, content: dict) -> str:
    """A document (its text) whose part between the bench markers is the section."""
    return between(document, "bench", section(content))


def main() -> None:
    import lab_bench

    content = recorded.take(RESULT)
    lab_bench.draw(report.from_json(content), RESULT.parent)
    recorded.rewrite(DOCUMENT, lambda text: with_section(text, content))


if __name__ == "__main__":
    main()
