"""soci-bench: what follows from samples, what is told of it, and what is asked of kubectl."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components import doctor, pull_time
from components.bench import arms, command, measurement, node_session, plots, pod_watch, report
from components.bench.arms import ADVISED, LAZY, LAZY_1MIB, OVERLAYFS, PARALLEL, TUNED, Arm
from components.bench.measurement import Cell, Plan, Progress, Result
from components.bench.pod_watch import PodNews, PodWatch
from components.bench.samples import (
    Advised,
    Link,
    Phases,
    Sample,
    Workload,
    amplification,
    floor_s,
    is_cold,
    median,
    phase_lengths,
    ratio,
)
from components.names import VERSION_LABEL

MB = 1_000_000


def sample(ready_s: float, moved: int = 300 * MB, mounts: int = 0, pull_s: float = 1.0) -> Sample:
    phases = Phases(0.1, 0.2, 0.3 + pull_s, 0.4 + pull_s, 0.5 + pull_s, ready_s - 0.1, ready_s)
    return Sample(pull_s, ready_s, moved, 24.0 * MB, mounts, 1.5, phases)


def measured(**samples: list[Sample]) -> Result:
    """Samples of one cell, by mode (with _ for -): a program that needs 20 of 300 MB, over 25 MB/s."""
    result = Result(links={"200 Mbit/s": Link("200 Mbit/s", 25.0 * MB, 25.0 * MB)})
    result.workloads["6 %"] = Workload("6 %", {"": "image:1"}, ("run",), "ready", 20 * MB, 300 * MB)
    for name, of_mode in samples.items():
        mode = name.replace("_", "-")
        result.samples["6 %", "200 Mbit/s", mode] = of_mode
        result.arms.append(Arm(mode, f"node-of-{mode}"))
        result.empty_pods[f"node-of-{mode}"] = [0.7, 0.5, 0.9]
    return result


def program(path: Path, text: str, **words: Any) -> doctor.Kubectl:
    """A kubectl that is this program."""
    path.write_text(text.format(python=sys.executable, **words))
    path.chmod(0o755)
    return doctor.Kubectl((str(path),))


# Figures


def test_the_median_is_of_what_was_seen():
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None]) is None


def test_the_floor_is_the_links_time_for_the_needed_bytes_after_an_empty_pod():
    assert floor_s(20 * MB, 25.0 * MB, 0.7) == pytest.approx(1.5)
    assert floor_s(0, 25.0 * MB, 0.7) == pytest.approx(0.7), "nothing is read: an empty pod's start"


@pytest.mark.parametrize("unknown", [(None, 25.0, 0.7), (20, 0.0, 0.7), (20, 25.0, None)])
def test_there_is_no_floor_without_the_figures_that_it_is_made_of(unknown):
    assert floor_s(*unknown) is None


def test_amplification_is_bytes_moved_for_each_byte_needed():
    assert amplification(224.0 * MB, 20 * MB) == pytest.approx(11.2)
    assert amplification(5.0 * MB, 0) is None
    assert amplification(5.0 * MB, None) is None


def test_a_ratio_below_one_is_slower():
    assert ratio(18.8, 29.2) == pytest.approx(0.64, abs=0.01)
    assert ratio(None, 2.0) is None


def test_a_whole_pull_that_moved_less_than_the_image_was_not_cold():
    assert not is_cold(sample(3, moved=200 * MB), 300 * MB)
    assert is_cold(sample(14, moved=301 * MB), 300 * MB)


def test_a_lazy_start_is_cold_with_the_few_bytes_that_it_reads():
    assert is_cold(sample(2, moved=25 * MB, mounts=6), 300 * MB)
    assert not is_cold(sample(2, moved=0, mounts=6), 300 * MB)


def test_a_lazy_start_that_moved_less_than_it_reads_was_not_cold():
    """The API server's own talk moves some bytes, too."""
    assert not is_cold(sample(2, moved=2000, mounts=6), 300 * MB, needed_bytes=20 * MB)
    assert is_cold(sample(2, moved=21 * MB, mounts=6), 300 * MB, needed_bytes=20 * MB)
    assert is_cold(sample(2, moved=2000, mounts=6), 300 * MB, needed_bytes=0)


def test_phases_add_up_and_leave_out_what_was_not_seen():
    lengths = phase_lengths([sample(3.0, pull_s=1.0)])
    assert list(lengths) == [
        "scheduled",
        "until the pull",
        "pull",
        "container created",
        "started",
        "first line",
        "reads",
    ]
    assert lengths["reads"] == pytest.approx(0.1)
    unseen = Sample(1.0, 3.0, MB, 0.0, 0, 0.0, Phases(ready_s=3.0))
    assert phase_lengths([unseen]) == {"pull": 1.0}


# Cells


def test_a_cell_has_the_soonest_mode_of_soci_beside_both_references():
    result = measured(
        overlayfs=[sample(14), sample(15), sample(16)],
        tuned=[sample(12)],
        lazy=[sample(3, 25 * MB, 6), sample(2, 24 * MB, 6), sample(9, 26 * MB, 6)],
        parallel=[sample(13)],
    )
    (row,) = report.cells(result)
    assert row["mode"] == LAZY
    assert (row["overlayfs_ready_s"], row["tuned_ready_s"], row["soci_ready_s"]) == (15, 12, 3)
    assert (row["ratio"], row["tuned_ratio"]) == (5, 4)
    assert row["floor_s"] == pytest.approx(20 / 25 + 0.5)
    assert row["moved_bytes"] == 25 * MB
    assert row["amplification"] == pytest.approx(1.25)
    assert row["worst_ready_s"][LAZY] == 9
    assert {"read", "link"} <= row.keys()


def test_a_cell_without_a_reference_has_no_ratio():
    (row,) = report.cells(measured(lazy=[sample(3, 25 * MB, 6)]))
    assert row["ratio"] is None
    assert row["tuned_ready_s"] is None


def test_a_link_that_could_not_be_measured_is_as_fast_as_the_fastest_half_second():
    result = measured(overlayfs=[sample(14)])
    result.links.clear()
    assert report.link_rate(result, "200 Mbit/s") == 24.0 * MB


def test_a_mode_that_loses_is_told_with_what_it_loses_to():
    result = measured(
        overlayfs=[sample(10)],
        tuned=[sample(8)],
        lazy=[sample(16, mounts=6)],
        lazy_1mib=[sample(4, mounts=6)],
    )
    told = list(report.verdicts(report.cells(result)))
    assert told == [
        "At least twice as soon as every reference: 1 of 1 cells.",
        "Slower than containerd, tuned, 6 % over 200 Mbit/s: SOCI, lazy 2.00 times the time.",
    ]


def advised_cell(way: str, ready_s: float, node: str = "") -> Result:
    """The cell with what was advised, beside 10 s of overlayfs, 8 of the tuned, a slow lazy one."""
    result = measured(
        overlayfs=[sample(10)], tuned=[sample(8)], lazy=[sample(20, mounts=6)], advised=[sample(ready_s)]
    )
    result.advice["6 %", "200 Mbit/s"] = Advised(way, 3.5, "image:advised", node)
    return result


def test_what_is_advised_is_counted_and_every_mode_that_loses_told():
    """A mode that nobody would take there says nothing against it, and where lazy loading loses is told."""
    (row,) = report.cells(advised_cell("prefetch", 4))
    assert (row["mode"], row["advised_way"], row["expected_ready_s"]) == (ADVISED, "prefetch", 3.5)
    assert (row["ratio"], row["tuned_ratio"]) == (2.5, 2.0)
    assert list(report.verdicts([row])) == [
        "As advised, at least twice as soon as every reference: 1 of 1 cells.",
        "As advised, never more than 1.10 times the time of a reference: 1 of 1 cells.",
        "Slower than containerd, tuned, 6 % over 200 Mbit/s: SOCI, lazy 2.50 times the time; "
        "the floor is 1.30 s.",
    ]
    text = "\n".join(report.soonest([row]))
    assert "prefetch" in text
    assert "ADVISED" in text


def test_advice_that_loses_is_told_with_the_floor():
    told = list(report.verdicts(report.cells(advised_cell("lazy", 9))))
    assert told[1].endswith("0 of 1 cells.")
    assert "as advised 1.12 times the time" in told[2]
    assert told[2].endswith("; the floor is 1.30 s.")


def test_what_is_advised_without_soci_is_started_and_judged_on_a_node_without_it():
    advised = Advised("containerd", 9.0, "image:plain", "node-of-overlayfs")
    cell = Cell(Workload("6 %", {"": "image:1"}), "200 Mbit/s", advised=advised)
    assert cell.here(Arm(ADVISED, "advised")) == Arm(ADVISED, "node-of-overlayfs")
    assert cell.here(Arm(LAZY, "lazy")) == Arm(LAZY, "lazy")
    result = advised_cell("containerd", 10, "node-of-overlayfs")
    result.empty_pods["node-of-overlayfs"] = [2.5]
    (row,) = report.cells(result)
    assert row["floor_s"] == pytest.approx(0.8 + 2.5)


def test_the_advice_is_kept_with_its_samples():
    result = advised_cell("containerd", 10, "node3")
    written = json.loads(json.dumps(report.to_json(result, {})))
    assert report.from_json(written).advice == result.advice


def test_what_lazy_loading_gives_at_its_best_is_told_of_pull_and_ready_beside_the_floor():
    result = measured(overlayfs=[sample(14)], lazy=[sample(2, mounts=6)])
    (line,) = report.lazily(report.cells(result))
    assert line.startswith("SOCI, lazy, 6 % over 200 Mbit/s: pull ")
    assert line.endswith("and ready 7.0x as soon as overlayfs, 1.54 times the floor.")
    assert "1.54x" in "\n".join(report.soonest(report.cells(result)))


def test_nothing_is_told_of_lazy_loading_where_it_or_its_rival_was_not_measured():
    assert list(report.lazily(report.cells(measured(overlayfs=[sample(14)])))) == []
    assert list(report.lazily(report.cells(measured(lazy=[sample(2)])))) == []


def test_a_lazy_arm_that_loaded_nothing_lazily_is_told():
    """The typical failure of this field is silent: a whole pull also succeeds (soci#1558)."""
    told = list(report.verdicts(report.cells(measured(overlayfs=[sample(10)], lazy=[sample(10)]))))
    assert told[1] == ("No layer was loaded lazily, 6 % over 200 Mbit/s, SOCI, lazy: soci-doctor says why.")


def test_a_tenth_slower_is_not_told():
    result = measured(overlayfs=[sample(10)], lazy=[sample(10.9, mounts=6)])
    assert list(report.verdicts(report.cells(result))) == [
        "At least twice as soon as every reference: 0 of 1 cells."
    ]


def test_the_tables_name_every_arm_and_what_is_not_known():
    result = measured(overlayfs=[sample(14)], lazy=[sample(2, 25 * MB, 6)])
    result.failures.append("6 %, 200 Mbit/s, SOCI, lazy: node2: gone")
    text = "\n".join(report.page(result))
    ready = next(line for line in text.splitlines() if line.startswith("6 %"))
    assert ready.split() == ["6", "%", "200", "Mbit/s", "14.00", "s", "2.00", "s", "1.30", "s"]
    assert "7.00x" in text
    assert "No sample: 6 %, 200 Mbit/s, SOCI, lazy: node2: gone" in text
    assert "containerd, tuned" not in text, "an arm that was not measured has no column"


def test_a_result_that_was_written_is_gone_on_with():
    result = measured(overlayfs=[sample(14)], lazy_1mib=[sample(2, 25 * MB, 6)])
    result.nodes["node1"] = {"processors": 2}
    result.failures.append("what: why")
    written = json.loads(json.dumps(report.to_json(result, {"load": 1})))
    read = report.from_json(written)
    assert read.samples == result.samples
    assert json.loads(json.dumps(report.to_json(read, {"load": 1}))) == written
    assert {cell["mode"] for cell in written["cells"]} == {LAZY_1MIB}


def test_pictures_are_drawn_of_cells_with_holes(tmp_path: Path):
    result = measured(overlayfs=[sample(14)], tuned=[sample(11)], lazy=[sample(2, mounts=6)])
    key = ("25 %", "+20 ms", PARALLEL)
    result.workloads["25 %"] = Workload("25 %", {"": "image:1"})
    result.samples[key] = [sample(8)]
    written = plots.draw(report.cells(result), "Ready", tmp_path / "bench")
    assert [path.name for path in written] == ["bench.png", "bench.svg"]
    drawing = written[1].read_text()
    assert "SOCI, lazy" in drawing
    assert "floor" in drawing
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert plots.draw(report.cells(result), "Ready", tmp_path / "again")[1].read_text() == drawing


# Order


class Bench:
    """Cold starts without a cluster: each takes what its arm takes, and one of them fails."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.sessions = {"node1": self}

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        return {"largest": "", "bytes_per_second": 0.0} if do != "describe" else {"processors": 2}

    def empty_pod_s(self, node: str, image: str) -> float:
        return 0.5

    def cold_start(self, workload: Workload, arm: Arm, images: list[str]) -> Sample:
        self.started.append(arm.mode)
        if len(self.started) == 3:
            raise node_session.BenchError("node1: it does not answer")
        return sample(2.0, mounts=6)


def test_arms_take_turns_and_a_sample_that_fails_is_noted_and_ends_nothing():
    bench, result, said = Bench(), Result(), []
    cell = Cell(Workload("6 %", {"": "image:1"}), "200 Mbit/s")
    plan = Plan([cell], [Arm(OVERLAYFS, "node1"), Arm(LAZY, "node1")], 3, "python", seed=1)
    saved: list[int] = []
    measurement.measure(bench, plan, result, said.append, lambda now: saved.append(len(now.samples)))  # ty: ignore[invalid-argument-type]
    assert {frozenset(bench.started[at : at + 2]) for at in (0, 2)} == {frozenset((OVERLAYFS, LAZY))}
    assert len(result.failures) == 1
    assert "it does not answer" in result.failures[0]
    assert sorted(len(samples) for samples in result.samples.values()) == [2, 3]
    assert len(saved) == 6, "each sample is saved"
    assert any("left]" in line for line in said)
    assert result.empty_pods == {"node1": [0.5] * 3}, "the floor is not that of one slow start"


def test_what_an_earlier_run_may_have_left_on_a_node_is_forgotten_before_each_start():
    """A run that went on with other cells found layers of those before: no start was cold."""
    result = Result(workloads={"25 %": Workload("25 %", {"": "image:4mib", LAZY_1MIB: "image:1mib"})})
    result.advice["25 %", "1 Gbit/s"] = Advised("prefetch", 1.0, "image:advised")
    plan = Plan([Cell(Workload("6 %", {"": "image:1"}), "+20 ms")], [], 5, "python", ["sample:1"])
    assert plan.images(result) == ["image:1", "image:1mib", "image:4mib", "image:advised", "sample:1"]


@pytest.mark.parametrize(
    ("received", "mounts", "refused"),
    [(100 * MB, 0, "not cold, 100.0 of 300.0 MB moved"), (300 * MB, 0, ""), (20 * MB, 6, "")],
    ids=["partly there", "whole", "lazily loaded"],
)
def test_a_start_is_cold_by_what_the_node_says_of_the_image_where_nobody_else_does(
    monkeypatch, received, mounts, refused
):
    told = {
        "forget": {},
        "look": {"received": 0, "mounts": 0},
        "image": {"bytes": 300 * MB, "layers": 6, "largest": "sha256:0"},
    }
    node = SimpleNamespace(node="node1", ask=lambda do, **_: told[do], here=lambda moment: moment)
    news = PodNews({"known": 100.0}, pulled='Successfully pulled image "a/b:1" in 1s (1s including waiting)')
    followed = {
        "first": 101.0,
        "ready": 102.0,
        "received": received,
        "peak": 1.0,
        "mounts": mounts,
        "load": 1,
    }
    monkeypatch.setattr(measurement.Bench, "_run", lambda *_: (news, followed))
    bench = measurement.Bench(None, None, {"node1": node}, "default")  # ty: ignore[invalid-argument-type]
    with pytest.raises(node_session.BenchError, match=refused) if refused else contextlib.nullcontext():
        bench.cold_start(Workload("a", {"": "a/b:1"}), Arm(OVERLAYFS, "node1"), [])


def test_samples_that_are_there_are_not_taken_again():
    bench = Bench()
    cell = Cell(Workload("6 %", {"": "image:1"}), "200 Mbit/s")
    result = Result(samples={("6 %", "200 Mbit/s", LAZY): [sample(2.0)] * 2})
    plan = Plan([cell], [Arm(LAZY, "node1")], 2, "python")
    measurement.measure(bench, plan, result, print)  # ty: ignore[invalid-argument-type]
    assert bench.started == []


def test_arms_that_were_measured_before_keep_their_nodes():
    """By them the floor of what was advised is known."""
    result = Result(arms=[Arm(ADVISED, "advised"), Arm(LAZY, "before")])
    plan = Plan([], [Arm(LAZY, "node1")], 1, "python")
    measurement.measure(Bench(), plan, result, print)  # ty: ignore[invalid-argument-type]
    assert result.arms == [Arm(LAZY, "node1"), Arm(ADVISED, "advised")]


def test_the_rest_takes_as_long_as_what_is_done_did():
    told: list[str] = []
    now = iter([0.0, 60.0, 120.0])
    progress = Progress(5, told.append, lambda: next(now))
    progress.tell("cell", sample(2.0))
    progress.tell("cell", sample(2.0))
    assert told[0].startswith("[1/5, 4 min left] cell: pull 1.00 s, ready 2.00 s")
    assert told[1].startswith("[2/5, 3 min left]")


# What the API server tells


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("604ms (604ms including waiting). Image size: 5 bytes.", 0.604),
        ("1m2.5s (1m3s including waiting). Image size: 5 bytes.", 62.5),
    ],
)
def test_the_pull_time_is_the_kubelets(words, seconds):
    assert pull_time.pull_seconds(f'Successfully pulled image "a/b:1" in {words}') == pytest.approx(seconds)


def test_an_image_that_was_there_is_no_pull():
    with pytest.raises(ValueError, match="not pulled"):
        pull_time.pull_seconds('Container image "a/b:1" already present on machine')
    with pytest.raises(ValueError, match="not a duration"):
        pull_time.go_duration_seconds("5 seconds")


def test_the_objects_of_a_watch_are_told_apart():
    stream = [
        "{\n",
        '    "type": "ADDED",\n',
        '    "object": {\n',
        "    }\n",
        "}\n",
        '{"type": "DELETED"}\n',
        "{\n",
        "cut",
    ]
    assert [item["type"] for item in pod_watch.objects(stream)] == ["ADDED", "DELETED"]


WATCHES = """#!{python}
import json, sys, time
from pathlib import Path
kind = "pods" if "pods" in sys.argv else "events"
count = Path("{folder}", kind)
number = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (number + 1))
if kind == "pods":
    pod = {{"kind": "Pod", "metadata": {{"name": "pod" + str(number), "uid": "u"}}, "spec": {{}}}}
    print(json.dumps({{"type": "ADDED", "object": pod}}), flush=True)
if number > 1:
    time.sleep(60)
"""


def test_a_watch_that_the_api_server_ends_begins_anew(tmp_path: Path, monkeypatch):
    """It ends each after half an hour or more: every later sample came to nothing."""
    monkeypatch.setattr(pod_watch, "PAUSE_SECONDS", 0.01)
    with PodWatch(program(tmp_path / "kubectl", WATCHES, folder=tmp_path), "default") as watch:
        assert [watch.wait(f"pod{number}", "known", 20) for number in range(3)] == [True] * 3
    assert (tmp_path / "pods").read_text() == "xxx"


SIDECAR = """#!{python}
import json, sys, time
if "events" in sys.argv:
    for container, words in (("proxy", "already present"), ("workload", "pulled in 1s")):
        path = "spec.containers{{" + container + "}}"
        involved = {{"kind": "Pod", "name": "pod", "fieldPath": path}}
        event = {{"reason": "Pulled", "involvedObject": involved, "message": words}}
        print(json.dumps({{"type": "ADDED", "object": event}}), flush=True)
time.sleep(60)
"""


def test_the_image_of_a_container_that_others_put_beside_it_is_not_the_workloads(tmp_path: Path):
    with PodWatch(program(tmp_path / "kubectl", SIDECAR), "default") as watch:
        assert watch.wait("pod", "pulled", 20)
        assert watch.news("pod").pulled == "pulled in 1s"


def pod_status(state: dict[str, Any], phase: str = "Pending") -> dict[str, Any]:
    return {"status": {"phase": phase, "containerStatuses": [{"state": state}]}}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"status": {}}, ""),
        (pod_status({"waiting": {"reason": "ContainerCreating"}}), ""),
        (pod_status({"waiting": {"reason": "ErrImagePull", "message": "401"}}), "ErrImagePull: 401"),
        (
            pod_status({"terminated": {"exitCode": 127, "reason": "Error"}}),
            "its container ended with status 127 (Error)",
        ),
        (pod_status({"terminated": {"exitCode": 0}}, "Succeeded"), ""),
        ({"status": {"phase": "Failed", "message": "no space"}}, "no space"),
    ],
)
def test_a_pod_that_will_not_become_ready_is_not_waited_for(pod, words):
    assert pod_watch.trouble(pod) == words


def test_phases_count_from_the_moment_in_which_the_api_server_has_the_pod():
    news = PodNews({"known": 100.0, "scheduled": 100.1, "pulled": 101.0})
    found = measurement.phases(news, 102.0, 103.5)
    assert (found.scheduled_s, found.pulled_s) == (pytest.approx(0.1), pytest.approx(1.0))
    assert (found.started_s, found.first_line_s, found.ready_s) == (None, 2.0, 3.5)


def test_a_container_has_started_before_its_first_line():
    """The node tells of the line, and the API server of the start, by an Event that may be late."""
    news = PodNews({"known": 100.0, "created": 101.0, "started": 102.3})
    found = measurement.phases(news, 102.0, 103.5)
    assert (found.created_s, found.started_s, found.first_line_s) == (1.0, 2.0, 2.0)


# The node's answers

NODE = """#!{python}
import json, sys, time
from pathlib import Path
for line in sys.stdin:
    question = json.loads(line)
    if question["do"] == "follow":
        while not Path("{go}").exists():
            time.sleep(0.01)
        print(json.dumps({{"ready": 1.0}}), flush=True)
    elif question["do"] == "end":
        sys.exit("error: the pod is gone")
    else:
        print(json.dumps({{"now": time.time(), "asked": question["do"]}}), flush=True)
"""


@pytest.fixture
def session(tmp_path: Path):
    """One with a node that answers `follow` when there is a file `go`."""
    kubectl = program(tmp_path / "kubectl", NODE, go=tmp_path / "go")
    opened = node_session.NodeSession(kubectl, "node1", "soci-system", "pod")
    yield opened
    (tmp_path / "go").touch()
    opened.close()


def test_the_answer_to_an_abandoned_question_is_not_that_to_the_next(session, tmp_path: Path):
    """The next question got it, and from then on each the answer to the one before."""
    for _ in range(2):
        with pytest.raises(node_session.BenchError, match="ErrImagePull"):
            session.ask("follow", stop=lambda: "ErrImagePull")
    (tmp_path / "go").touch()
    assert session.ask("look")["asked"] == "look"
    assert session.ask("describe")["asked"] == "describe"


def test_a_question_has_its_time_from_when_the_node_is_free(session, tmp_path: Path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(node_session, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(node_session.BenchError, match="ErrImagePull"):
        session.ask("follow", seconds=60, stop=lambda: "ErrImagePull")

    def stop() -> str:  # asked while nothing is answered
        now[0] = 1030.0
        (tmp_path / "go").touch()
        return ""

    assert session.ask("look", seconds=20, stop=stop)["asked"] == "look"


def test_a_node_whose_pod_has_ended_says_so_to_every_question(session):
    for do in ("end", "look"):
        with pytest.raises(node_session.BenchError, match="node1: error: the pod is gone"):
            session.ask(do, seconds=20)


# Pods


def daemon_set() -> dict[str, Any]:
    """The installer's, as the API server has it."""
    installer = {
        "name": "installer",
        "image": "python:3.13",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-B", "-m", "agent"],
        "workingDir": "/opt/soci-cluster",
        "env": [{"name": "NODE_NAME"}],
        "readinessProbe": {"exec": {"command": ["test"]}},
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "program", "mountPath": "/opt/soci-cluster"}],
    }
    spec = {
        "containers": [{"name": "credentials"}, installer],
        "volumes": [{"name": "program", "configMap": {"name": "soci-program-1"}}],
        "hostPID": True,
        "serviceAccountName": "soci-installer",
        "imagePullSecrets": [{"name": "own"}],
    }
    return {"spec": {"template": {"spec": spec}}}


def test_the_helper_sees_a_node_as_the_installer_does_and_installs_nothing():
    spec = node_session.helper_pod(daemon_set(), "node3")["spec"]
    (container,) = spec["containers"]
    assert spec["nodeName"] == "node3"
    assert spec["hostPID"] is True
    assert spec["imagePullSecrets"] == [{"name": "own"}]
    assert container["volumeMounts"] == [{"name": "program", "mountPath": "/opt/soci-cluster"}]
    assert "agent" not in container["command"]
    assert "readinessProbe" not in container


def test_the_helper_ends_by_itself_where_soci_bench_was_killed():
    """It is privileged, and it stayed for ever."""
    spec = node_session.helper_pod(daemon_set(), "node3")["spec"]
    assert 3600 < spec["activeDeadlineSeconds"] <= 12 * 3600


def test_the_helper_has_no_rights():
    spec = node_session.helper_pod(daemon_set(), "node3")["spec"]
    assert "serviceAccountName" not in spec
    assert spec["automountServiceAccountToken"] is False


def test_a_sample_is_placed_by_the_scheduler_and_has_no_rights_either():
    pod = measurement.bench_pod("bench-1", "node1", "a/b:1", [], pull_secrets=["own"])
    assert "nodeName" not in pod["spec"]
    assert "node1" in json.dumps(pod["spec"]["affinity"])
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "command" not in pod["spec"]["containers"][0]


def test_a_sample_ends_by_itself_where_soci_bench_was_killed():
    """It was: the pod stayed, and every later sample on that node was refused since it used the image."""
    pod = measurement.bench_pod("bench-1", "node1", "a/b:1", [], seconds=60)
    assert 60 < pod["spec"]["activeDeadlineSeconds"] < 600


# The command


def test_words_after_two_dashes_are_the_containers_command():
    wanted = command.parse(["--image", "a/b:1", "--samples", "3", "--", "python3", "-c", "print()"])
    assert wanted.command == ["python3", "-c", "print()"]


def test_no_sample_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--image", "a/b:1", "--samples", "0"])
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--plots"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(capsys, tmp_path, option):
    with pytest.raises(SystemExit):
        command.parse(["--image", "a/b:1", option, str(tmp_path / "no/file")])
    assert f"Remedy: mkdir -p {tmp_path / 'no'}" in capsys.readouterr().err
    command.parse(["--image", "a/b:1", option, str(tmp_path / "file")])


def test_a_directory_is_no_file_for_the_result(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.parse(["--image", "a/b:1", "--json", str(tmp_path)])
    assert "it is a directory. Remedy: name a file" in capsys.readouterr().err


def test_sigterm_ends_as_an_interrupt_does(capsys, monkeypatch):
    def run(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise doctor.CannotLookError("it was not interrupted")

    monkeypatch.setattr(command, "run", run)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert command.main(["--image", "a/b:1"]) == 3
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "interrupted; pods of its own are deleted" in capsys.readouterr().err


CLUSTER = """#!{python}
import json, sys
if "nodes" in sys.argv:
    print(json.dumps({{"items": {nodes}}}))
elif "pods" in sys.argv:
    print(json.dumps({{"items": [{{"spec": {{"nodeName": "with"}}, "metadata": {{"name": "p"}}}}]}}))
elif "daemonset" in sys.argv:
    volumes = [{{"configMap": {{"name": "program"}}}}]
    print(json.dumps({{"spec": {{"template": {{"spec": {{"volumes": volumes}}}}}}}}))
else:
    print(json.dumps({{"data": {{"settings.json": '{{"mode": "lazy"}}'}}}}))
"""


@pytest.mark.parametrize("soci_node", ["", "with"])
def test_a_reference_with_soci_is_refused(tmp_path: Path, soci_node):
    ready = json.loads('{"conditions": [{"type": "Ready", "status": "True"}]}')
    labels = {"with": {VERSION_LABEL: "0.16.0"}, "without": {}}
    nodes = [{"metadata": {"name": name, "labels": labels[name]}, "status": ready} for name in labels]
    kubectl = program(tmp_path / "kubectl", CLUSTER, nodes=nodes)
    assert arms.offered(kubectl, "soci-system", soci_node, "without") == [
        Arm(OVERLAYFS, "without"),
        Arm(LAZY, "with"),
    ]
    with pytest.raises(doctor.CannotLookError, match="Remedy: --reference-node with one of these: without"):
        arms.offered(kubectl, "soci-system", soci_node, "with")


def test_only_a_machine_of_the_same_kind_is_a_reference(tmp_path: Path):
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    amd64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    labels = {
        "a-control-plane": {**amd64, "node-role.kubernetes.io/control-plane": ""},
        "an-arm64": {**amd64, "kubernetes.io/arch": "arm64"},
        "windows": {**amd64, "kubernetes.io/os": "windows"},
        "with": {**amd64, VERSION_LABEL: "0.16.0"},
        "worker": amd64,
    }
    nodes = [{"metadata": {"name": name, "labels": labels[name]}, "status": ready} for name in labels]
    kubectl = program(tmp_path / "kubectl", CLUSTER, nodes=nodes)
    assert arms.offered(kubectl, "soci-system")[0] == Arm(OVERLAYFS, "worker")


def test_arms_may_be_named_with_their_nodes(tmp_path: Path):
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    nodes = [{"metadata": {"name": name}, "status": ready} for name in ("a", "b")]
    kubectl = program(tmp_path / "kubectl", CLUSTER, nodes=nodes)
    assert arms.named(kubectl, ["tuned=a", "parallel=b"]) == [Arm(TUNED, "a"), Arm(PARALLEL, "b")]
    with pytest.raises(doctor.CannotLookError, match="tuned is named twice"):
        arms.named(kubectl, ["tuned=a", "tuned=b"])
    for text in ("tuned", "fast=a", "tuned=c", "advised=a"):
        with pytest.raises(doctor.CannotLookError, match=r"is none\. Remedy: MODE=NODE, MODE of overlayfs, "):
            arms.named(kubectl, [text])
    with pytest.raises(SystemExit):
        command.parse(["--image", "a", "--arm", "tuned=a", "--soci-node", "b"])


def test_nothing_is_drawn_of_nothing(tmp_path: Path, capsys):
    command.draw(Result(), "none", tmp_path / "picture")
    assert "not drawn: there is no sample" in capsys.readouterr().err


def test_a_cluster_without_kubectl_is_named_with_the_remedy(capsys):
    assert command.main(["--image", "a/b:1", "--kubectl", "/no/such/kubectl"]) == 3
    assert "Remedy: install kubectl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "known_by"),
    [
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("10.0.0.1:5000/a/b:1", "10.0.0.1:5000/a/b:1"),
    ],
)
def test_the_image_is_looked_for_by_the_name_that_containerd_gives_it(monkeypatch, image, known_by):
    """`nginx:1.27` was not on the node: nothing was forgotten, and no start was cold."""
    plans: list[Plan] = []
    monkeypatch.setattr(command.all_arms, "offered", lambda *_: [])
    monkeypatch.setattr(command, "PodWatch", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(command, "sessions", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(command, "installer_image", lambda *_: "python:3.13")
    monkeypatch.setattr(command, "measure", lambda _, plan, *__: plans.append(plan))
    command.run(command.parse(["--image", image]), doctor.Kubectl(("kubectl",)))
    (cell,) = plans[0].cells
    assert (cell.workload.name, cell.workload.image) == (image, {"": known_by})


def test_tuned_is_a_reference_and_no_mode_of_soci():
    (row,) = report.cells(measured(tuned=[sample(1)], lazy=[sample(3, mounts=6)]))
    assert row["mode"] == LAZY
    assert TUNED in row["ready_s"]
