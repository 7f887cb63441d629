"""What soci-bench asks of a node: the answers, and what is refused."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import bench, slots
from agent.bench import Meter, Node, default_interfaces, is_watched, ready_times, received_bytes
from agent.errors import InstallError
from agent.host import Result

from tests.fakes.doctor_node import DAEMON_PID, SAMPLE, DoctorNode, digest, doctor_node

DEV = """Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes
    lo:  999       1    0    0    0     0          0         0      999
 host0: 1000       9    0    0    0     0          0         0      500
  cni0:  700       9    0    0    0     0          0         0      500
"""
ROUTE = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
host0 00000000 01004D0A 0003 0 0 0 00000000 0 0 0
cni0 0001F40A 00000000 0001 0 0 0 00FFFFFF 0 0 0
"""
NO = "0" * 32
IPV6_ROUTE = f"""{NO} 00 {NO} 00 fe800000000000000000000000000001 00000400 1 0 00000003     eth6
{NO} 00 {NO} 00 {NO} ffffffff 1 0 00200200       lo
"""
LOG = """2026-11-27T05:00:01.250000000Z stdout F starting
2026-11-27T05:00:02.500000001Z stderr F almost ready
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[DoctorNode]:
    with doctor_node(tmp_path) as found:
        yield found


# Pure


def test_only_what_comes_by_the_default_route_counts():
    assert default_interfaces(ROUTE, "") == {"host0"}
    assert received_bytes(DEV, {"host0"}) == 1000


def test_a_node_of_ipv6_alone_has_a_default_route_too():
    assert default_interfaces("", IPV6_ROUTE) == {"eth6"}


def test_ready_is_the_line_with_the_text_and_not_the_first_one():
    first, ready = ready_times(LOG, "almost")
    assert ready is not None
    assert first is not None
    assert ready - first == pytest.approx(1.25)


def test_without_a_text_the_first_line_counts():
    first, ready = ready_times(LOG, "")
    assert first == ready is not None


def test_a_line_that_is_not_there_yet_is_no_ready():
    assert ready_times(LOG, "serving")[1] is None
    assert ready_times("", "") == (None, None)


def test_the_peak_is_the_fastest_half_second():
    meter = Meter()
    for now, received in ((0.0, 0), (0.25, 100), (0.5, 200), (0.75, 5200), (1.0, 10200), (1.5, 10300)):
        meter.add(now, received)
    assert meter.peak == pytest.approx(20000)


WATCH = [
    "python3",
    "-I",
    "-S",
    "/opt/soci-cluster/agent/watch.py",
    "/run/r",
    "/run/s",
    "/bin/soci",
    "71",
    "5",
    "9",
    "",
]


@pytest.mark.parametrize(
    ("commands", "settled"),
    [
        ([WATCH], True),
        ([[*WATCH[:7], "70", *WATCH[8:]]], False),
        ([["python3", "-B", "-m", "agent", "again", ""]], False),
        ([["python3", "-B", "-m", "agent", ""]], False),
        (
            [
                ["python3", "-B", "-m", "agent", "bench", ""],
                ["python3", "-B", "-m", "agent", "credentials", ""],
            ],
            True,
        ),
    ],
    ids=["watched", "of the daemon before", "at work again", "at work", "no installer"],
)
def test_a_sample_begins_once_the_installer_has_looked_after_the_new_daemon(commands, settled):
    assert is_watched(commands, 71) is settled


# The conversation


def answers(node: Node, *questions: str) -> list[dict]:
    out = io.StringIO()
    bench.serve(node, io.StringIO("".join(f"{question}\n" for question in questions)), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_question_that_cannot_be_answered_ends_nothing(installed):
    node = Node(installed, installed.payload)
    found = answers(node, '{"do": "dance"}', "no json", '{"do": "look", "why": 1}', '{"do": "clock"}')
    assert ["error" in answer for answer in found] == [True, True, True, False]


def test_lazily_loaded_layers_and_received_bytes_are_counted(installed):
    installed.put("/proc/1/net/dev", DEV)
    installed.put("/proc/1/net/route", ROUTE)
    installed.put("/proc/loadavg", "1.50 1 1 1/2 3\n")
    assert answers(Node(installed, installed.payload), '{"do": "look"}') == [
        {"received": 1000, "mounts": len(installed.mounted), "load": 1.5}
    ]
    assert installed.mounted, "the node has lazily loaded layers"


def test_a_layer_that_an_image_has_twice_is_counted_once(installed, monkeypatch):
    """It is pulled once: a start that moved all the bytes was not taken for a cold one."""
    layers = [{"digest": digest, "size": size} for digest, size in (("a", 5), ("empty", 1), ("empty", 1))]
    monkeypatch.setattr(bench, "names_by_digest", lambda _: {"index": ["a/b:1"]})
    monkeypatch.setattr(bench, "manifest_of", lambda *_: ("manifest", ""))
    monkeypatch.setattr(bench, "read_json", lambda _: {"layers": layers})
    found = answers(Node(installed, installed.payload), '{"do": "image", "image": "a/b:1"}')
    assert found == [{"bytes": 6, "layers": 2, "largest": "a"}]


# Forgetting


def removed_as_it_forgets(installed: DoctorNode, *images: str) -> list[str]:
    """What containerd is told to remove where no container runs; the daemon is not the question."""
    installed.ctr.containers.clear()
    removed: list[str] = []
    ctr = installed.answers["env"]

    def noted(command, text):
        if "rm" in command:
            removed.append(command[-1])
            return Result(0, "", "")
        return ctr(command, text)

    installed.answers["env"] = noted
    node = Node(installed, installed.payload)
    node.has_soci = False
    node.forget(images)
    return removed


def test_an_image_in_use_is_not_forgotten_and_its_pod_is_named(installed, monkeypatch):
    monkeypatch.setattr(bench, "CONTAINERS_SECONDS", 0.0)
    with pytest.raises(InstallError, match="default/reader uses the image that is measured"):
        Node(installed, installed.payload).forget([SAMPLE])
    assert not any("rm" in command for command in installed.commands if "images" in command)


def test_what_an_image_was_before_it_got_an_index_is_forgotten_with_it(installed):
    """It has the same layers: the next start was no cold one."""
    bare = "registry.example/sample:0"
    installed.ctr.add(bare, "complete", digest=digest("bare manifest"))
    config = {"containerd.io/gc.ref.content.config": digest(f"{SAMPLE} config")}
    installed.ctr.labels[digest("bare manifest")] = config
    assert {SAMPLE, bare} <= set(removed_as_it_forgets(installed, SAMPLE))


def test_the_daemon_is_not_restarted_under_lazily_loaded_pods(installed):
    node = Node(installed, installed.payload)
    with pytest.raises(InstallError, match="default/reader would break"):
        node.forget([])
    assert not any("stop" in command for command in installed.commands)


def test_a_daemon_that_serves_nobody_starts_anew_without_its_caches(installed, monkeypatch):
    installed.ctr.containers.clear()
    monkeypatch.setattr(bench, "command_lines", lambda: [[*WATCH[:7], str(DAEMON_PID), *WATCH[8:]]])
    changes: list[tuple[str, ...]] = []
    systemctl = installed.answers["systemctl"]

    def noted(command, text):
        if command[1] in ("stop", "start"):
            changes.append(tuple(command))
            return Result(0, "", "")
        return systemctl(command, text)

    installed.answers["systemctl"] = noted
    installed.answers["rm"] = lambda command, text: (changes.append(tuple(command)), Result(0, "", ""))[1]
    Node(installed, installed.payload).forget([])
    unit, data = slots.FIRST.unit, slots.FIRST.data
    assert changes == [
        ("systemctl", "stop", unit),
        ("rm", "-rf", "--", f"{data}/content", f"{data}/soci"),
        ("systemctl", "start", unit),
    ]


def test_a_daemon_whose_caches_cannot_be_removed_is_started_again(installed, monkeypatch):
    installed.ctr.containers.clear()
    started: list[str] = []
    systemctl = installed.answers["systemctl"]

    def noted(command, text):
        if command[1] in ("stop", "start"):
            started.append(command[1])
            return Result(0, "", "")
        return systemctl(command, text)

    installed.answers["systemctl"] = noted
    installed.answers["rm"] = lambda command, text: Result(1, "", "Read-only file system")
    with pytest.raises(InstallError, match="rm: Read-only file system"):
        Node(installed, installed.payload).forget([])
    assert started == ["stop", "start"]


def test_indexes_that_the_daemon_keeps_in_containerds_store_are_no_warm_start(installed):
    """Where it pulls in parallel it keeps them there by a label of its own, and they outlive their image."""
    root = {"containerd.io/gc.root": "2026-11-28"}
    installed.ctr.labels |= {
        "sha256:index": root | {f"{bench.ZTOC}0": "sha256:ztoc", f"{bench.ZTOC}1": "sha256:collected"},
        "sha256:ztoc": {},
        "sha256:other": root,
    }
    assert removed_as_it_forgets(installed) == ["sha256:index", "sha256:ztoc"]


# The log


def test_the_log_is_followed_until_the_ready_line(installed):
    path = "/var/log/pods/default_bench_uid/workload/0.log"
    installed.put(path, LOG.splitlines()[0] + "\n")
    node = Node(installed, installed.payload, sleep=lambda _: installed.put(path, LOG))
    found = node.follow("default_bench_uid", "workload", "ready", 60)
    assert found["ready"] - found["first"] == pytest.approx(1.25)


def test_a_log_without_the_line_ends_in_time(installed):
    found = Node(installed, installed.payload).follow("default_bench_uid", "workload", "ready", 0)
    assert found["ready"] is None
