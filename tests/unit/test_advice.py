"""Which way is advised, and that the words say why."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lab_bench
import pytest
from agent import soci_config, tuning
from soci_index import advise, load_model
from soci_index.advice import Advice, choose, prefetch_list, work_of
from soci_index.advice import advise as find
from soci_index.layer_files import LayerFiles
from soci_index.load_model import Link, Machine, Prediction
from soci_index.recorded_reads import FileRead, LayerRead, Recording, in_layers, owner

PERFORMANCE = Path(__file__).parents[2] / "docs/performance.md"
MIB = 1 << 20
GIB = 1 << 30
SLOW = Link(23.9e6)
FAST = Link(1250e6)


def layer(name: str, files: Sequence[int], *removed: str) -> LayerFiles:
    """A layer of files of these sizes, /<name>/0 and so on, that compresses to a half."""
    places, at = {}, 512
    for number, size in enumerate(files):
        places[f"/{name}/{number}"] = (at, size)
        at += size + 512
    return LayerFiles(name, at // 2, at, places, removed, ((0, 0),))


def recording(*files: FileRead, lazy_layers: int = 2) -> Recording:
    return Recording(files, 3.0, "ready", True, lazy_layers, 2)


def whole(path: str, size: int) -> FileRead:
    return FileRead(path, size, ((0, size),))


def advice(
    layers: Sequence[LayerFiles], reads: Recording, link: Link = SLOW, cores: int = 2, readable: bool = True
) -> Advice:
    to_load = work_of(layers, [readable] * len(layers), reads, link, Machine(cores))
    return find(to_load, reads, *advise.parallel_pull(cores))


LIBRARIES = [layer(name, [MIB] * 200) for name in ("a", "b", "c")]


def scattered(count: int) -> Recording:
    """Every so manyth file of each layer."""
    numbers = range(0, 200, 200 // count)
    return recording(*(whole(f"/{name}/{number}", MIB) for number in numbers for name in "abc"))


def test_a_few_reads_on_a_slow_link_are_lazy() -> None:
    found = advice(LIBRARIES, recording(whole("/a/0", MIB), whole("/a/1", MIB)))
    assert found.way in ("lazy", "prefetch")
    assert found.mode == "lazy"
    assert found.best.ready_seconds < 3


def test_scattered_reads_get_small_spans_and_a_list() -> None:
    found = advice(LIBRARIES, scattered(20), SLOW)
    assert found.way == "prefetch"
    assert found.best.span_bytes < 4 * MIB
    assert set(found.prefetch) == {f"/{name}/{number}" for number in range(0, 200, 10) for name in "abc"}
    assert any("scattered" in reason for reason in found.reasons)
    assert any("fetched before the start" in reason for reason in found.reasons)


def test_an_image_that_is_read_whole_is_not_loaded_lazily() -> None:
    everything = recording(*(whole(f"/{name}/{number}", MIB) for name in "abc" for number in range(200)))
    for link in (SLOW, FAST):
        assert advice(LIBRARIES, everything, link, cores=16).mode != "lazy"


def test_behind_a_cap_an_image_without_an_index_is_pulled_in_parallel_or_by_tuned_containerd() -> None:
    found = advice(LIBRARIES, recording(), Link(119e6, 8e6, 0.006), readable=False)
    assert found.way in ("parallel", "containerd-tuned")
    assert "no layer of it can be loaded lazily" in found.reasons
    assert not any(other.span_bytes for other in found.others)


ON_A_CAPPED_LINK = (Link(119e6, 8e6, 0.006), 2, False)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ({"containerd": (1, 7, 35), "discards": False}, "its containerd is 1.7.35, and needs to be 2.2"),
        ({"containerd": (2, 1, 9), "discards": None}, "its containerd is 2.1.9, and needs to be 2.2"),
        ({"containerd": (2, 3, 7), "discards": True}, "discard_unpacked_layers, which EKS sets"),
    ],
)
def test_containerd_is_not_to_be_tuned_where_it_cannot(node: dict[str, Any], why: str) -> None:
    found = advice(LIBRARIES, dataclasses.replace(recording(), **node), *ON_A_CAPPED_LINK)
    assert "containerd-tuned" not in [way.way for way in (found.best, *found.others)]
    assert any(why in reason for reason in found.reasons)


@pytest.mark.parametrize("node", [{}, {"containerd": (2, 2, 0), "discards": False}])
def test_containerd_may_be_tuned_where_it_can_and_where_nothing_is_known(node: dict[str, Any]) -> None:
    found = advice(LIBRARIES, dataclasses.replace(recording(), **node), *ON_A_CAPPED_LINK)
    assert "containerd-tuned" in [way.way for way in (found.best, *found.others)]
    assert not any("cannot be tuned" in reason for reason in found.reasons)


def test_a_small_image_needs_nothing() -> None:
    found = advice([layer("a", [100_000])], recording(whole("/a/0", 100_000)))
    assert (found.way, found.mode) == ("containerd", "")


def prediction(way: str, seconds: float) -> Prediction:
    return Prediction(way, seconds, seconds, 1)


def test_a_way_that_asks_more_must_be_faster_by_a_tenth() -> None:
    ways = [prediction("prefetch", 9.2), prediction("lazy", 9.5), prediction("containerd", 10.0)]
    assert choose(ways).way == "containerd"
    assert choose([*ways, prediction("parallel", 8.9)]).way == "parallel"


def test_the_list_is_what_the_mounts_may_wait_for() -> None:
    """A mount gives up after SOCI's 30 s, and the layer is then pulled whole (layer.go, executePrefetch)."""
    files = [whole(f"/{name}/{number}", MIB) for number in range(200) for name in "abc"]
    slow = Link(5e6)
    to_load = work_of(LIBRARIES, [True] * 3, recording(*files), slow, Machine(2))
    chosen = prefetch_list(to_load, files, MIB, 0)
    assert 0 < len(chosen) < len(files)
    assert list(chosen) == [file.path for file in files][: len(chosen)]
    assert sum(MIB / 2 for _ in chosen) / slow.bandwidth <= 15


def test_a_large_file_of_which_little_is_read_is_not_fetched_ahead() -> None:
    library = layer("cuda", [3 * GIB, MIB])
    files = [FileRead("/cuda/0", 3 * GIB, ((0, 20 * MIB),)), whole("/cuda/1", MIB)]
    to_load = work_of([library], [True], recording(*files), FAST, Machine(16))
    assert prefetch_list(to_load, files, MIB, 0) == ("/cuda/1",)


def test_a_read_is_of_the_topmost_layer_that_has_the_file() -> None:
    below, above = layer("a", [1000, 1000]), layer("a", [500], "/a/1")
    assert owner("/a/0", [below, above]) == 1
    assert owner("/a/1", [below, above]) is None
    assert owner("/proc/meminfo", [below, above]) is None
    (part,) = in_layers([FileRead("/a/0", 500, ((0, 4096),))], [below, above])
    assert part == LayerRead(1, 512, 512 + 500)


def test_an_advice_without_lazily_loaded_reads_says_how_good_it_is() -> None:
    found = advice(LIBRARIES, dataclasses.replace(scattered(20), lazy_layers=0))
    assert any("pulled whole" in reason for reason in found.reasons)
    cut = advice(LIBRARIES, dataclasses.replace(scattered(20), is_complete=False))
    assert any("could not follow" in reason for reason in cut.reasons)


def test_an_advice_says_that_most_files_are_not_of_the_image() -> None:
    own = [whole(f"/tmp/{number}", MIB) for number in range(3)]
    found = advice(LIBRARIES, recording(whole("/a/0", MIB), *own))
    assert any("3 of the 4 files that were read are not in the image" in reason for reason in found.reasons)
    few = advice(LIBRARIES, recording(whole("/a/0", MIB), own[0]))
    assert not any("not in the image" in reason for reason in few.reasons)
    opaque = advice(LIBRARIES, recording(*own), readable=False)
    assert not any("not in the image" in reason for reason in opaque.reasons), "nobody looked into it"


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 12, 96])
def test_pulls_are_computed_with_what_the_installer_sets(cores: int) -> None:
    chosen = tuning.choose(tuning.Hardware(cores, 256 * GIB))
    assert advise.parallel_pull(cores) == (chosen.downloads, chosen.unpacks)
    assert chosen.chunk == f"{load_model.PARALLEL_CHUNK >> 20}mb"
    assert Machine(cores).prefetch_workers == chosen.prefetch_workers
    assert Machine(cores).fetch_period * 1000 == chosen.fetch_milliseconds
    assert load_model.FETCH_SILENCE_SECONDS * 1000 == soci_config.SILENCE_MILLISECONDS


def test_a_tuned_containerd_is_the_same_one_everywhere() -> None:
    """In the advice, in what is computed, in the benchmark and in its page."""
    documented = re.search(r"```toml\n(.*?)```", PERFORMANCE.read_text(), re.DOTALL)
    assert documented
    assert documented[1] == advise.TUNED
    assert f"version = 3\n\n{documented[1]}" == lab_bench.TUNED_CONFIGURATION
    [transfer] = tomllib.loads(advise.TUNED)["plugins"].values()
    assert transfer == {
        "max_concurrent_downloads": load_model.TUNED_CONNECTIONS,
        "concurrent_layer_fetch_buffer": load_model.TUNED_CHUNK,
        "max_concurrent_unpacks": load_model.TUNED_UNPACKS,
    }


def test_the_advice_to_tune_containerd_is_its_configuration() -> None:
    best = Prediction("containerd-tuned", 1.0, 1.0, 1)
    found = Advice("containerd-tuned", best, (), 0, (), 0.5, 0.5, ("it is",))
    lines = list(advise.page("r.example/a:1", found, FAST, Machine(4), []))
    [do] = [line for line in lines if line.startswith("Do:")]
    assert "transfer service" in do
    assert "discard_unpacked_layers" in do, "EKS sets it, and then these keys mean nothing"
    told = lines[lines.index(do) + 1 :]
    assert "\n".join(line.strip() for line in told) == "\n".join(
        line.strip() for line in advise.TUNED.splitlines()
    )


def test_the_page_has_every_way_and_what_to_do() -> None:
    found = advice(LIBRARIES, scattered(20), Link(119e6, 8e6, 0.006))
    lines = list(advise.page("r.example/a:1", found, Link(119e6, 8e6), Machine(2), ["4 cores (--cores)"]))
    text = "\n".join(lines)
    assert lines[0] == "r.example/a:1, on 2 cores and 952 Mbit/s, 8 MB/s a connection"
    for name in advise.NAMES.values():
        assert name in text
    assert text.count("<- advised") == 1
    (do,) = [line for line in lines if line.startswith("Do:")]
    assert "--write gives it an index" in do
    assert do.endswith("; soci:mode lazy and soci:prefetch true for the nodes that run it.")
    assert lines[-1] == "Assumed: 4 cores (--cores)."


def test_the_page_says_when_all_of_it_is_on_the_node() -> None:
    best = Prediction("lazy", 1.0, 2.0, 1, span_bytes=MIB // 4, local_seconds=219.3, spans=2145)
    lines = list(
        advise.page("r.example/a:1", Advice("lazy", best, (), 0, (), 0.5, 0.5), FAST, Machine(2), [])
    )
    [then] = [line for line in lines if line.startswith("Then:")]
    assert then.endswith("all of it on the node after 219 s (2145 spans, one begun each 100 ms).")
    whole = Prediction("parallel", 1.0, 2.0, 1, local_seconds=1.0)
    lines = list(
        advise.page("r.example/a:1", Advice("parallel", whole, (), 0, (), 0.5, 0.5), FAST, Machine(2), [])
    )
    assert "background fetch" not in "\n".join(lines)


def test_what_was_neither_said_nor_seen_is_told() -> None:
    unseen = Recording((), 3.0, "ready")
    asked = ["r.example/a:1", "--reads", "file"]
    assert len(list(advise.assumptions(advise.parse(asked), unseen))) == 4
    seen = dataclasses.replace(unseen, cores=2, architecture="arm64")
    assert len(list(advise.assumptions(advise.parse(asked), seen))) == 2
    other = advise.parse([*asked, "--platform", "linux/amd64"])
    assert "that linux/amd64 reads what was read on arm64" in list(advise.assumptions(other, seen))
    said = [*asked, "--bandwidth", "1Gbit", "--cores", "4", "--disk", "125MB", "--platform", "linux/arm64"]
    assert list(advise.assumptions(advise.parse(said), unseen)) == []


def test_a_small_cap_is_not_told_as_none() -> None:
    found = advice(LIBRARIES, scattered(20), Link(119e6, 8e6, 0.006))
    first = next(advise.page("r.example/a:1", found, Link(119e6, 250e3), Machine(2), []))
    assert first.endswith(", 0.25 MB/s a connection")


def test_programs_read_the_same() -> None:
    found = advice(LIBRARIES, scattered(20), Link(119e6, 8e6, 0.006))
    content = json.loads(json.dumps(advise.to_json("r.example/a:1", found, SLOW, Machine(2), [])))
    assert content["mode"] == "lazy"
    assert content["spanBytes"] == found.best.span_bytes
    assert content["localSeconds"] == round(found.best.local_seconds, 3) > 4
    assert all(entry["localSeconds"] >= entry["pullSeconds"] for entry in content["expected"])
    assert content["prefetch"] == list(found.prefetch)
    seconds = [entry["readySeconds"] for entry in content["expected"]]
    assert seconds == sorted(seconds)
    assert {entry["way"] for entry in content["expected"]} == set(advise.NAMES)
