"""The lab's side of the benchmark: cells, what is read, and the stand-in for a slow link."""

import json
import socket
import tomllib
from types import SimpleNamespace

import lab_bench
import lab_links
import pytest
import slow_link
import workloads
from settings import LabError

MB = 1_000_000


def test_without_a_choice_every_share_is_read_over_every_link_and_programs_over_one():
    cells = lab_bench.cells_of("", True)
    assert len([cell for cell in cells if cell[0] in lab_bench.READS]) == 20
    programs = [cell for cell in cells if cell[0] not in lab_bench.READS]
    assert programs == list(lab_bench.PROGRAMS.items())
    assert ("jvm", "200mbit") in programs


@pytest.mark.parametrize(
    ("chosen", "cells"),
    [
        ("100:capped", [("100", "capped")]),
        ("6-*:200mbit", [("6-in-order", "200mbit"), ("6-scattered", "200mbit")]),
        ("0:*,0:far", [("0", "200mbit"), ("0", "1gbit"), ("0", "capped"), ("0", "far")]),
        ("jvm:1gbit", [("jvm", "1gbit")]),
    ],
)
def test_cells_are_chosen_by_patterns(chosen, cells):
    assert lab_bench.cells_of(chosen, False) == cells


def test_a_pattern_of_nothing_is_refused_with_what_there_is(capsys):
    with pytest.raises(SystemExit):
        lab_bench.parse(["--cells", "50:200mbit"])
    assert "READ is of 0, 6-in-order" in capsys.readouterr().err


def test_what_is_advised_needs_the_nodes_without_soci(capsys):
    with pytest.raises(SystemExit):
        lab_bench.parse(["--arms", "advised,lazy"])
    assert "--arms advised is with overlayfs and tuned" in capsys.readouterr().err


def test_of_an_image_of_ones_own_nothing_is_advised():
    assert "advised" not in lab_bench.parse(["--image", "a/b:1"]).arms


def test_an_arm_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        lab_bench.parse(["--arms", "lazy,warp"])
    assert "--arms warp: it is of overlayfs" in capsys.readouterr().err


def test_the_tuned_containerd_has_only_keys_of_its_transfer_service():
    plugins = tomllib.loads(lab_bench.TUNED_CONFIGURATION)["plugins"]
    assert list(plugins) == ["io.containerd.transfer.v1.local"]


def test_the_shares_that_are_read_are_what_they_are_called():
    patterns = workloads.reads()
    size = {name: sum(size for _, size in files) for name, files in patterns.items()}
    shares = {name: size[name] / size["100"] for name in patterns}
    assert shares == pytest.approx(
        {"0": 0, "6-in-order": 0.064, "6-scattered": 0.064, "25": 0.25, "100": 1}, abs=0.003
    )


def test_what_is_read_in_order_lies_together_and_what_is_scattered_lies_in_every_layer():
    patterns = workloads.reads()
    layers = {name: {path.split("/")[3] for path, _ in files} for name, files in patterns.items()}
    assert layers["6-in-order"] == {"2"}
    assert len(layers["6-scattered"]) == 6


def test_every_workload_has_an_image():
    assert {entry.repository for entry in workloads.made().values()} == workloads.LAYERS.keys()


def test_images_are_indexed_as_the_labs_soci_wants_it(monkeypatch, tmp_path):
    """It converts without containerd only, and into an archive unless it is told otherwise."""
    ran = []
    monkeypatch.setattr(workloads.binaries, "build", lambda name: tmp_path / name)
    monkeypatch.setattr(workloads, "cached", lambda name, make: make(tmp_path / name) or tmp_path / name)
    monkeypatch.setattr(workloads, "_plain", lambda repository: tmp_path / repository)
    monkeypatch.setattr(workloads, "run", ran.append)
    indexed = workloads._indexed("bench-static", "1mib")
    options = ["--standalone", "--format", "oci-dir", "--span-size", "1048576"]
    source = str(tmp_path / "bench-static")
    assert ran == [[str(tmp_path / "soci/soci"), "convert", *options, source, str(indexed)]]


def test_a_link_that_does_not_come_about_leaves_no_node_shaped(monkeypatch):
    def slow_link(*_: object) -> None:
        raise LabError("the slow link does not listen")

    shaped: list[tuple[str, ...]] = []
    monkeypatch.setattr(lab_links, "lab", lambda *words: shaped.append(words))
    monkeypatch.setattr(lab_links, "SlowLink", slow_link)
    with pytest.raises(LabError), lab_links.links_of(["node1"]) as links:
        links.use(lab_links.LabLink("far", "1gbit", delay_s=0.02))
    assert shaped == [("shape", "node1", "1gbit"), ("shape", "node1", "off")]


@pytest.mark.parametrize("listens", [False, True])
def test_a_slow_link_that_fails_leaves_no_process(monkeypatch, listens):
    def iptables(*_: object) -> None:
        raise LabError("iptables failed")

    stopped: list[str] = []
    process = SimpleNamespace(words=lambda: "its log", stop=lambda: stopped.append("stopped"))
    monkeypatch.setattr(slow_link, "LISTEN_SECONDS", -1)
    monkeypatch.setattr(slow_link, "free_port", lambda _: 1)
    monkeypatch.setattr(slow_link, "Process", lambda *_: process)
    monkeypatch.setattr(slow_link.SlowLink, "_listens", lambda *_: listens)
    monkeypatch.setattr(slow_link, "_iptables", iptables)
    with pytest.raises(LabError, match="iptables failed" if listens else "port 1: its log"):
        slow_link.SlowLink(0.02, 0)
    assert stopped == ["stopped"]


@pytest.fixture
def ends():
    """Both ends of a connection through a slow link that has both of its limits."""
    client, near = socket.socketpair()
    far, server = socket.socketpair()
    slow_link.Lane(near, far, 0.001, 0)
    slow_link.Lane(far, near, 0.001, 100 * MB)
    yield client, server
    client.close()
    server.close()


def received(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_a_slow_link_changes_no_byte_and_hands_on_the_end(ends):
    client, server = ends
    data = json.dumps(list(range(100_000))).encode()
    client.sendall(b"GET")
    client.shutdown(socket.SHUT_WR)
    assert received(server) == b"GET"
    server.sendall(data)
    server.shutdown(socket.SHUT_WR)
    assert received(client) == data
