"""The figures that follow from what scripts/bench/independence.py measures."""

import json
from pathlib import Path

import independence
import independence_figures
import independence_result
import workloads
from independence_figures import Measured

READERS = {"6 %": {"fetched": [1.2, 9.0, 1.1], "not fetched": [1.0, 1.0, 0.5]}}
MEASURED = Measured(200, 250_000_000, 25_000_000.0, 0.5, [15.0, 12.6], READERS)


def test_a_reader_that_takes_a_fifth_longer_with_the_background_fetch_loses_a_fifth():
    assert round(MEASURED.lost("6 %"), 6) == 0.2
    assert MEASURED.floor_s == 10.5
    assert "wholly local after 13.8 s, 1.31 times the floor of 10.5 s" in MEASURED.table()
    assert "20%" in MEASURED.table()


def test_a_run_that_was_written_is_shown_and_drawn_as_it_was_measured(tmp_path: Path) -> None:
    content = json.loads(json.dumps(MEASURED.to_json()))
    assert Measured.from_json(content) == MEASURED
    shown = independence_result.section(Measured.from_json(content))
    assert "wholly on the node 13.8 s after its pod's start,\n**1.31 times** the least" in shown
    assert "| 6 % | 1.20 s | 1.00 s | 20% |" in shown
    drawing = independence_figures.draw(Measured.from_json(content), tmp_path)[1].read_text()
    assert "wholly local" in drawing
    assert "with the background fetch" in drawing


def test_the_readers_that_wait_read_the_same_files_as_those_that_do_not(monkeypatch):
    monkeypatch.setattr(workloads, "compressed_bytes", lambda made: 0)
    chosen = list(independence.readers().values())
    half = len(chosen) // 2
    for (starting, at_once), (waiting, wait_s) in zip(chosen[:half], chosen[half:], strict=True):
        assert at_once == 0
        assert waiting.command[2].replace(f" && sleep {wait_s}", "") == starting.command[2]
        assert f"echo {workloads.STARTED} && sleep {wait_s} && " in waiting.command[2]
