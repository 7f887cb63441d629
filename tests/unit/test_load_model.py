"""The predictions beside what was measured (docs/performance.md), and what they must not get wrong."""

import random

import pytest
from soci_index import load_model
from soci_index.layer_files import LayerFiles
from soci_index.load_model import Link, Machine, Prediction, Work
from soci_index.recorded_reads import LayerRead

MIB = 1 << 20
# The image of the measurements: 292.9 MB, unpacked 561.6 MB, 1,992 files in 6 layers, on two cores.
LAYERS, FILES, COMPRESSED, UNPACKED = 6, 1992, 292_900_000, 561_600_000
SHARE = 0.064
LINKS = {
    "200 Mbit/s": Link(23.9e6, latency=0.002),
    "8 MB/s a connection": Link(119e6, 8e6, 0.006),
    "20 ms": Link(119e6, latency=0.021),
}


def layers() -> list[LayerFiles]:
    size = UNPACKED // FILES
    files = {f"/{number}": (number * size, size) for number in range(FILES // LAYERS)}
    of_one = (COMPRESSED // LAYERS, UNPACKED // LAYERS)
    return [LayerFiles(f"l{number}", *of_one, files, (), ((0, 0),)) for number in range(LAYERS)]


def work(reads: str, link: str = "200 Mbit/s") -> Work:
    image = layers()
    places = [
        LayerRead(number, begin, begin + size)
        for number, layer in enumerate(image)
        for begin, size in layer.files.values()
    ]
    some = round(len(places) * SHARE)
    chosen = {
        "nothing": [],
        "in order": places[:some],
        "scattered": random.Random(1).sample(places, some),
        "all": places,
    }[reads]
    return Work(image, [True] * LAYERS, chosen, LINKS[link], Machine(2))


def lazy(reads: str, span: int, link: str = "200 Mbit/s") -> Prediction:
    return load_model.lazy(work(reads, link), span, 0)


MEASURED = [
    ("nothing", 4 * MIB, "200 Mbit/s", 0.80),
    ("in order", 4 * MIB, "200 Mbit/s", 2.07),
    ("scattered", 4 * MIB, "200 Mbit/s", 12.22),
    ("all", 4 * MIB, "200 Mbit/s", 18.43),
    ("scattered", MIB, "200 Mbit/s", 6.23),
    ("in order", MIB, "200 Mbit/s", 2.67),
    ("all", MIB, "200 Mbit/s", 17.16),
    ("scattered", MIB // 4, "200 Mbit/s", 6.75),
    ("in order", MIB // 4, "200 Mbit/s", 4.96),
    ("all", MIB // 4, "200 Mbit/s", 21.95),
    ("nothing", 4 * MIB, "8 MB/s a connection", 0.70),
    ("in order", 4 * MIB, "8 MB/s a connection", 3.88),
    ("scattered", 4 * MIB, "8 MB/s a connection", 29.20),
    ("scattered", MIB, "8 MB/s a connection", 12.94),
    ("nothing", 4 * MIB, "20 ms", 1.25),
    ("in order", 4 * MIB, "20 ms", 2.42),
    ("scattered", 4 * MIB, "20 ms", 8.43),
    ("scattered", MIB, "20 ms", 7.05),
]


@pytest.mark.parametrize(("reads", "span", "link", "measured"), MEASURED)
def test_a_lazily_loaded_image_is_predicted_to_a_quarter(
    reads: str, span: int, link: str, measured: float
) -> None:
    assert lazy(reads, span, link).ready_seconds == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(("span", "measured"), [(4 * MIB, 223.7), (MIB, 106.2), (MIB // 4, 102.7)])
def test_bytes_over_the_link_of_scattered_reads(span: int, measured: float) -> None:
    assert lazy("scattered", span).moved_bytes / 1e6 == pytest.approx(measured, rel=0.15)


def test_a_whole_pull_on_a_slow_link() -> None:
    assert load_model.containerd(work("nothing")).ready_seconds == pytest.approx(15.36, rel=0.1)


def test_on_fast_links_a_whole_pull_is_taken_for_faster_than_it_was_measured() -> None:
    """What makes the advice careful: lazy loading has to win against the better pull."""
    assert load_model.containerd(work("nothing", "20 ms")).ready_seconds < 9.90
    assert load_model.containerd(work("nothing", "8 MB/s a connection")).ready_seconds < 18.78


def test_behind_a_cap_scattered_reads_are_slower_than_a_pull_and_a_parallel_pull_is_faster() -> None:
    """Measured: 29.2 s lazily, 18.8 s by containerd, 8.4 s in parallel."""
    capped = work("scattered", "8 MB/s a connection")
    lazily = load_model.lazy(capped, 4 * MIB, 0)
    whole = load_model.containerd(capped)
    parallel = load_model.parallel(capped, 10, 4)
    assert lazily.ready_seconds > 1.3 * whole.ready_seconds
    assert whole.ready_seconds > 2 * parallel.ready_seconds


def test_a_prefetch_has_the_whole_link_where_one_connection_has_not() -> None:
    capped = work("scattered", "8 MB/s a connection")
    ahead = load_model.lazy(capped, MIB, 0, capped.reads)
    assert ahead.way == "prefetch"
    assert ahead.ready_seconds < load_model.lazy(capped, MIB, 0).ready_seconds / 3
    assert ahead.moved_bytes == load_model.lazy(capped, MIB, 0).moved_bytes
    assert 0 < ahead.prefetch_seconds < ahead.pull_seconds


def test_a_layer_below_the_minimum_is_pulled_whole() -> None:
    found = load_model.lazy(work("nothing"), 4 * MIB, COMPRESSED)
    assert found.index_bytes == 0
    assert found.moved_bytes >= COMPRESSED - LAYERS


def on_a_disk(disk: float, reads: str = "in order") -> Work:
    image = work(reads)
    return Work(image.layers, image.indexable, image.reads, Link(1250e6), Machine(16, disk))


def test_a_slow_disk_bounds_what_is_unpacked() -> None:
    slow = on_a_disk(125e6)
    for whole in (
        load_model.containerd(slow),
        load_model.containerd_tuned(slow),
        load_model.parallel(slow, 20, 12),
    ):
        assert whole.pull_seconds > UNPACKED / 125e6
    assert load_model.lazy(slow, 4 * MIB, 0).ready_seconds < 2


def test_a_slow_disk_bounds_the_spans_that_are_read_which_lie_on_it_unpacked() -> None:
    slow, scattered = on_a_disk(20e6), on_a_disk(20e6, "scattered")
    read = UNPACKED * SHARE / 20e6
    assert load_model.lazy(on_a_disk(0), 4 * MIB, 0).ready_seconds < read
    lazily = load_model.lazy(slow, 4 * MIB, 0)
    assert read < lazily.ready_seconds < 2 * read
    assert read < load_model.lazy(slow, 4 * MIB, 0, slow.reads).prefetch_seconds < 2 * read
    # Each scattered read has a whole span written.
    assert load_model.lazy(scattered, 4 * MIB, 0).ready_seconds > 5 * lazily.ready_seconds


def test_a_slow_disk_bounds_the_background_fetch() -> None:
    lazily = load_model.lazy(on_a_disk(20e6), 4 * MIB, 0)
    assert lazily.local_seconds > UNPACKED / 20e6


def test_a_prefetch_has_as_many_connections_as_the_node_has_cores() -> None:
    capped = work("scattered", "8 MB/s a connection")
    single = Work(
        capped.layers[:1],
        [True],
        [part for part in capped.reads if not part.layer],
        Link(1250e6, 8e6),
        Machine(8),
    )
    large = Work(single.layers, single.indexable, single.reads, single.link, Machine(16))
    few, many = (load_model.lazy(each, MIB // 4, 0, each.reads).prefetch_seconds for each in (single, large))
    assert many == pytest.approx(few / 2, rel=0.1)


@pytest.mark.parametrize(("cores", "measured"), [(2, 16.6), (1, 20.8)])
def test_the_background_fetch_has_the_image_after_its_silence_and_the_links_or_its_own_time(
    cores: int, measured: float
) -> None:
    """The lab's image, which does not compress; at the pace of a single core it was tried once."""
    size = 50_000_000
    image = [LayerFiles(f"l{number}", size, size, {}, (), ((0, 0),)) for number in range(6)]
    sample = Work(image, [True] * 6, [], LINKS["200 Mbit/s"], Machine(cores))
    assert load_model.lazy(sample, 4 * MIB, 0).local_seconds == pytest.approx(measured, rel=0.1)


def test_with_small_spans_the_nodes_pace_bounds_the_background_fetch() -> None:
    small, spans = lazy("nothing", MIB // 4), LAYERS * -(-(UNPACKED // LAYERS) // (MIB // 4))
    assert small.spans == spans
    assert small.local_seconds == pytest.approx(small.pull_seconds + 4 + spans * 0.1)
    many_cores = Work(layers(), [True] * LAYERS, [], Link(1250e6), Machine(96))
    assert load_model.lazy(many_cores, MIB // 4, 0).local_seconds < 20


def test_the_background_fetch_has_one_connection_for_each_layer() -> None:
    one = Work(layers()[:1], [True], [], LINKS["8 MB/s a connection"], Machine(16))
    assert load_model.lazy(one, 4 * MIB, 0).local_seconds > COMPRESSED / LAYERS / 8e6


def test_what_is_pulled_whole_is_on_the_node_with_its_pull() -> None:
    whole = load_model.containerd(work("nothing"))
    assert whole.local_seconds == whole.pull_seconds
    found = load_model.lazy(work("nothing"), 4 * MIB, COMPRESSED)
    assert (found.local_seconds, found.spans) == (found.pull_seconds, 0)


def test_no_way_is_faster_than_the_floor() -> None:
    for link in LINKS:
        for reads in ("nothing", "in order", "scattered", "all"):
            image = work(reads, link)
            ways = [load_model.lazy(image, span, 0, image.reads) for span in load_model.SPANS]
            ways += [load_model.lazy(image, 4 * MIB, 0), load_model.parallel(image, 20, 12)]
            ways += [load_model.containerd(image), load_model.containerd_tuned(image)]
            assert all(way.ready_seconds > load_model.floor_seconds(image) for way in ways)
