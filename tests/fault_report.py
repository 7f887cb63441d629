"""``.lab/faults.json``: what the sessions of ``make faults`` struck, and what came of each test."""

import json
from pathlib import Path

import pytest

from tests import failure_modes

REPORT = Path(__file__).parents[1] / ".lab" / "faults.json"
WORST_FIRST = ("failed", "passed", "skipped")


class Outcomes:
    """A pytest plugin that adds each test's outcome, of all its parameters the worst, to the report."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        name = report.nodeid.partition("[")[0]
        self.found[name] = min(self.found.get(name, "skipped"), report.outcome, key=WORST_FIRST.index)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        report = add({"tests": self.found})
        passed = sum("passed" in mode["tests"].values() for mode in report["failure_modes"].values())
        modes = f"{passed} of {len(report['failure_modes'])} failure modes have a test that passed so far"
        terminalreporter.write_line(f"faults: {modes}; see {REPORT}")


def add(fields: dict) -> dict:
    """Put ``fields`` into the report, beside what earlier sessions put there; the whole of it."""
    report = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    tests = report.get("tests", {}) | fields.get("tests", {})
    report |= {**fields, "tests": tests, "failure_modes": by_mode(tests)}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    return report


def by_mode(outcomes: dict[str, str]) -> dict[str, dict]:
    """Each known failure mode with the outcomes of its tests, or the reason why it has none."""
    covered = failure_modes.covered()
    return {
        str(number): {
            "behaviour": entry["behaviour"],
            "tests": {name: outcomes.get(name, "not run") for name in covered.get(number, ())},
        }
        | ({"untested": entry["untested"]} if "untested" in entry else {})
        for number, entry in failure_modes.load().items()
    }
