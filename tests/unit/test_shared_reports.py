"""What the agent answers of a node is what doctor, sample and benchmark read.

Each side's own tests have answers written by hand; here the agent's own code makes them.
"""

import contextlib
import io
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import agent.bench
import pytest

from components import doctor, sample_figures
from components.bench import measurement
from components.bench.arms import OVERLAYFS, Arm
from components.bench.measurement import Bench, Cell, Plan, Result
from components.bench.pod_watch import CONTAINER, PodNews
from components.bench.samples import Workload
from tests.fakes.doctor_node import SAMPLE, DoctorNode, doctor_node
from tests.unit import test_doctor

LOG = f"/var/log/pods/default_pod_u/{CONTAINER}/0.log"
RECEIVED = """Inter-|   Receive
 face |bytes    packets
 host0: {} 9 0 0 0 0 0 0 0
"""
ROUTE = (
    "Iface Destination Gateway Flags RefCnt Use Metric Mask\nhost0 00000000 01004D0A 0003 0 0 0 00000000\n"
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DoctorNode]:
    with doctor_node(tmp_path) as found:
        yield found


class Asked(dict[str, Any]):
    """An answer that notes what was looked for in it and is not there."""

    missing: set[str] = set()  # noqa: RUF012 (of all of them)

    def get(self, key: Any, default: Any = None, /) -> Any:
        if key not in self:
            Asked.missing.add(key)
        return super().get(key, default)

    def __missing__(self, key: str) -> Any:
        Asked.missing.add(key)
        raise KeyError(key)


def asked(answer: Any) -> Any:
    """The answer as it comes from the node, all of its objects noting."""
    Asked.missing.clear()
    return json.loads(json.dumps(answer), object_hook=Asked)


def shape(value: Any) -> Any:
    """The keys of an answer, of lists those of the first element."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_all_that_the_doctors_page_shows_is_in_the_nodes_report(node: DoctorNode) -> None:
    report = asked(node.examine())
    page = "\n".join(doctor.page([doctor.Answer("node1", report)], doctor.Paper(200, False)))
    assert SAMPLE in page
    assert "lazily loaded layers" in page
    assert Asked.missing == set()


def test_all_that_the_samples_line_says_is_in_the_nodes_report(node: DoctorNode) -> None:
    (image,) = asked(node.examine())["images"]
    assert "2 of 3 layers lazily loaded" in sample_figures.layers_in_words(image, is_new=True)
    assert Asked.missing == set()


def test_reports_written_by_hand_are_like_the_nodes_own(node: DoctorNode) -> None:
    node.unread.append("x")
    by_hand = shape(test_doctor.report("node1", test_doctor.finding("drift", "error")))
    own = shape(node.examine())
    assert {key: by_hand[key] for key in ("versions", "daemon", "hardware", "mounts", "images")} == {
        key: own[key] for key in ("versions", "daemon", "hardware", "mounts", "images")
    }
    assert set(by_hand) == set(own)


class Session:
    """A conversation with the agent on a node, as soci-bench has it, without a pod in between."""

    def __init__(self, host: DoctorNode) -> None:
        self.node = "node1"
        self._node = agent.bench.Node(host, host.payload)

    def ask(self, do: str, *, seconds: float = 0, stop: Any = None, **arguments: Any) -> Any:
        out = io.StringIO()
        agent.bench.serve(self._node, io.StringIO(json.dumps({"do": do, **arguments}) + "\n"), out)
        answer = json.loads(out.getvalue(), object_hook=Asked)
        assert "error" not in answer
        return answer

    def here(self, moment: float) -> float:
        return moment


class Watch:
    """All that is waited for has come."""

    def wait(self, name: str, moment: str, seconds: float) -> bool:
        return True


def test_a_benchmark_is_made_of_the_nodes_own_answers(
    node: DoctorNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, work: Any) -> None:
        raise OSError("the registry does not answer")

    monkeypatch.setattr(agent.bench, "in_network_of", refuse)
    node.path("/var/lib/soci-cluster/current/files").unlink()  # one without SOCI: no daemon is to be emptied
    node.ctr.containers.clear()
    node.ctr.answers = {"images rm": "", "content rm": ""}
    node.put("/proc/1/net/route", ROUTE)
    node.put("/proc/1/net/dev", RECEIVED.format(0))
    node.put("/proc/loadavg", "1.50 1 1 1/2 3\n")
    received = iter(range(1 << 30, 1 << 40, 1 << 30))

    @contextlib.contextmanager
    def pod(bench: Bench, where: str, image: str, command: Any) -> Generator[tuple[str, PodNews]]:
        node.put(LOG, f"1970-01-01T00:01:42.000000000Z stdout F {measurement.EMPTY_LINE} here\n")
        node.put("/proc/1/net/dev", RECEIVED.format(next(received)))
        news = PodNews({"known": 100.0}, "u")
        news.pulled = f'Successfully pulled image "{image}" in 1s (1s including waiting)'
        yield "pod", news

    monkeypatch.setattr(Bench, "pod", pod)
    bench = Bench(None, Watch(), {"node1": Session(node)}, "default")  # ty: ignore[invalid-argument-type]
    cell = Cell(Workload("6 %", {"": SAMPLE}, ready="here"), "as it is")
    plan = Plan([cell], [Arm(OVERLAYFS, "node1")], 1, "python", seed=1)
    Asked.missing.clear()
    result = measurement.measure(bench, plan, Result(), print)
    assert result.failures == []
    (samples,) = result.samples.values()
    assert samples[0].ready_s == 2.0
    assert result.nodes["node1"]["processors"] > 0
    assert Asked.missing == set()
