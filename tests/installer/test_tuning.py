"""What a node's hardware makes of the daemon's settings."""

import dataclasses
from pathlib import Path

import pytest
from agent import managed, tuning
from agent.tuning import Hardware

from tests.fakes.node import FakeHost
from tests.installer.test_managed import target

CPUS = "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\nmodel name\t: x\n"
MEMORY = "MemTotal:        8046820 kB\nMemFree:          100 kB\n"


def test_hardware_is_read_from_proc(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    (tmp_path / "proc").mkdir()
    assert tuning.read_hardware(host) == Hardware()
    (tmp_path / "proc/cpuinfo").write_text(CPUS)
    (tmp_path / "proc/meminfo").write_text(MEMORY)
    assert tuning.read_hardware(host) == Hardware(cores=2, memory=8046820 << 10)


@pytest.mark.parametrize("cores", [0, 1, 2, 4, 64])
def test_a_layers_prefetch_has_more_than_two_connections_on_any_node(cores: int) -> None:
    """SOCI takes as many as Go has processors: two on two cores, however long a registry takes."""
    assert tuning.choose(Hardware(cores, 4 << 30)).prefetch_workers == max(8, cores)


@pytest.mark.parametrize("is_ours", [True, False])
def test_the_daemon_is_started_with_that_many(fake_host: FakeHost, is_ours: bool) -> None:
    wanted = target()
    daemon = dataclasses.replace(wanted.daemon, is_ours=is_ours, command=("/usr/bin/s",))
    wanted = dataclasses.replace(wanted, adopts=not is_ours, daemon=daemon, hardware=Hardware(16, 64 << 30))
    texts = [(file.new or b"").decode() for file in managed.files(fake_host, wanted)]
    assert len([text for text in texts if "\nEnvironment=GOMAXPROCS=16\n" in text]) == 1


def test_what_was_chosen_is_said_in_words() -> None:
    hardware = Hardware(2, 4 << 30)
    assert hardware.in_words == "2 cores, 4.0 GiB of memory"
    assert "20 connections" in tuning.choose(hardware).in_words
    assert "not known" in Hardware().in_words


@pytest.mark.parametrize(("cores", "milliseconds"), [(0, 100), (1, 200), (2, 100), (8, 25), (96, 5)])
def test_background_fetch_begins_more_spans_the_larger_the_node(cores: int, milliseconds: int) -> None:
    """Where the link carries fewer than are begun, the daemon's memory holds one of every layer."""
    assert tuning.choose(Hardware(cores, 8 << 30)).fetch_milliseconds == milliseconds
