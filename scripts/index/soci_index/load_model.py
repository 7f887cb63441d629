"""How long an image takes to be ready, for each way of loading it, by what is known of these ways.

Pure functions over bytes and seconds. What the ways do was read in soci-snapshotter 0.16.1
(fs/layer/layer.go, fs/span-manager/span_manager.go, fs/parallel_artifact_fetcher.go) and containerd 2.4; the
rates are measured on 2-core machines (docs/performance.md). A prediction is good for choosing between ways,
not for a promise.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .layer_files import LayerFiles
from .recorded_reads import LayerRead

MB = 10**6
MIB = 1 << 20
# One core, in bytes of the compressed layer a second: Go's and C's inflate.
GO_INFLATE, ZLIB_INFLATE = 62 * MB, 85 * MB
FUSE_READ = 300 * MB  # what a container reads of lazily loaded files, a second
SPAN_INDEX_BYTES = 33_000  # of a zTOC for each span: the 32 KiB that inflate looks back
LAYER_INDEX_BYTES = 2_000
FILE_INDEX_BYTES = 120
LAZY_SECONDS = 0.28  # asking for index and zTOCs, mounting: beyond bytes and round trips
START_SECONDS = 0.25  # of a container whose image is there
LAZY_ROUND_TRIPS = 30  # connections, manifests, index, zTOCs, layers, each behind the other; as measured
PULL_ROUND_TRIPS = 10
DEFAULT_LAYERS_AT_ONCE = 3  # containerd's and the kubelet's
# containerd's configuration in docs/performance.md; of the parallel pull the installer's chunk.
TUNED_CONNECTIONS, TUNED_CHUNK, TUNED_UNPACKS = 20, 8 * MIB, 4
PARALLEL_CHUNK = 16 * MIB
LEAST_PREFETCH_WORKERS = 8  # connections of one layer, as the installer sets the daemon
# At most: the mount waits for it, and gives up at SOCI's 30 s by default. Index and zTOCs are fetched before
# that time begins, however long they take (fs/fs.go, Mount).
PREFETCH_SECONDS = 15.0
# The background fetch, as the installer sets it: it begins so long after the last mount, with a span of the
# node in each period.
FETCH_SILENCE_SECONDS = 4.0
CORE_FETCH_MILLISECONDS, LEAST_FETCH_MILLISECONDS = 200, 5
SPANS = (4 * MIB, MIB, 256 << 10)


@dataclass(frozen=True)
class Link:
    """The way to the registry.

    Attributes:
        bandwidth: bytes a second, of the node.
        per_connection: bytes a second, of one connection; 0 for no cap.
        latency: seconds from a request to the first byte of its answer.
    """

    bandwidth: float
    per_connection: float = 0.0
    latency: float = 0.002

    def rate(self, connections: int) -> float:
        """Bytes a second over so many connections."""
        cap = self.per_connection or self.bandwidth
        return min(self.bandwidth, max(1, connections) * cap)


@dataclass(frozen=True)
class Machine:
    """The node: its cores, and what its disk takes, in bytes a second (0: more than the rest needs)."""

    cores: int
    disk: float = 0.0

    @property
    def prefetch_workers(self) -> int:
        """Connections of one layer's prefetch: SOCI's GOMAXPROCS, as the installer sets it."""
        return max(LEAST_PREFETCH_WORKERS, self.cores)

    @property
    def fetch_period(self) -> float:
        """Seconds from one span of the background fetch to the next, as the installer sets it."""
        return max(LEAST_FETCH_MILLISECONDS, CORE_FETCH_MILLISECONDS // self.cores) / 1000

    def write_seconds(self, size: int) -> float:
        """How long the disk takes for so many bytes; 0 where it is not the limit."""
        return size / self.disk if self.disk else 0.0


@dataclass(frozen=True)
class Work:
    """What is to be loaded, and where.

    Attributes:
        layers: of the image, from the lowest.
        indexable: whether each may have a zTOC (zstd may not).
        reads: what the container reads until it is ready, in that order.
        link: the way to the registry.
        machine: the node.
    """

    layers: Sequence[LayerFiles]
    indexable: Sequence[bool]
    reads: Sequence[LayerRead]
    link: Link
    machine: Machine


@dataclass(frozen=True)
class Prediction:
    """What is expected of one way.

    Attributes:
        way: its name: lazy, prefetch, parallel, containerd or containerd-tuned.
        pull_seconds: until the container can be started.
        ready_seconds: until it has read what it needs.
        moved_bytes: over the link, until then.
        index_bytes: of the zTOCs.
        span_bytes: of the index; 0 for a way without.
        prefetch_seconds: of the pull, for the prefetch.
        local_seconds: until all of the image is on the node.
        spans: of all layers that are loaded lazily.
    """

    way: str
    pull_seconds: float
    ready_seconds: float
    moved_bytes: int
    index_bytes: int = 0
    span_bytes: int = 0
    prefetch_seconds: float = 0.0
    local_seconds: float = 0.0
    spans: int = 0


def lazy(work: Work, span_bytes: int, min_layer_bytes: int, prefetch: Iterable[LayerRead] = ()) -> Prediction:
    """Lazily loaded, with spans of this size; `prefetch` is what is fetched before the container starts.

    A layer below the minimum is pulled whole. A reader waits for one span after the other: each is asked
    for, fetched over one connection and unpacked. All spans of a prefetch are fetched before the mount, over
    several connections for each layer. Spans lie unpacked on the disk.
    """
    link, machine = work.link, work.machine
    is_lazy = [
        able and layer.compressed_bytes >= min_layer_bytes
        for able, layer in zip(work.indexable, work.layers, strict=True)
    ]
    index = sum(
        index_bytes(layer, span_bytes) for layer, lazily in zip(work.layers, is_lazy, strict=True) if lazily
    )
    whole = [layer for layer, lazily in zip(work.layers, is_lazy, strict=True) if not lazily]
    pulled = _pull(whole, link, machine, DEFAULT_LAYERS_AT_ONCE) if whole else 0.0
    came = max(index / link.rate(sum(is_lazy)), machine.write_seconds(index))
    pull = LAZY_SECONDS + LAZY_ROUND_TRIPS * link.latency + came + pulled
    fetched = _spans((part for part in prefetch if is_lazy[part.layer]), span_bytes)
    ahead = _prefetch_seconds(work, fetched, span_bytes)
    seconds, bytes_read, written = 0.0, 0, 0
    known = set(fetched)
    moved = sum(_span_bytes(work, span, span_bytes) for span in fetched)
    for part in work.reads:
        if not is_lazy[part.layer]:
            continue
        bytes_read += part.end - part.begin
        for span in _spans([part], span_bytes):
            if span not in known:
                known.add(span)
                size = _span_bytes(work, span, span_bytes)
                moved += size
                written += _unpacked_span_bytes(work, span, span_bytes)
                seconds += link.latency + size / link.rate(1) + size / ZLIB_INFLATE
    seconds = max(seconds, machine.write_seconds(written))
    ready = pull + ahead + START_SECONDS + seconds + bytes_read / FUSE_READ
    moved += index + sum(layer.compressed_bytes for layer in whole)
    way = "prefetch" if fetched else "lazy"
    layers = [layer for layer, lazily in zip(work.layers, is_lazy, strict=True) if lazily]
    local = pull + ahead + background_seconds(layers, span_bytes, link, machine)
    spans = sum(_span_count(layer, span_bytes) for layer in layers)
    return Prediction(way, pull + ahead, ready, moved, index, span_bytes, ahead, local, spans)


def background_seconds(layers: Sequence[LayerFiles], span_bytes: int, link: Link, machine: Machine) -> float:
    """From the last mount until the background fetch has these layers: it takes turns with them, a span in
    each period of the node, and one at a time of each layer."""
    if not layers:
        return 0.0
    counts = [_span_count(layer, span_bytes) for layer in layers]
    seconds = [
        sum(counts) * machine.fetch_period,
        machine.write_seconds(sum(layer.unpacked_bytes for layer in layers)),
        sum(layer.compressed_bytes for layer in layers) / link.rate(len(layers)),
        *(
            count * link.latency + layer.compressed_bytes / link.rate(1)
            for count, layer in zip(counts, layers, strict=True)
        ),
    ]
    return FETCH_SILENCE_SECONDS + max(seconds)


def containerd(work: Work) -> Prediction:
    """containerd's own pull by default: three layers at a time, a connection each; one after the other is
    unpacked."""
    seconds = PULL_ROUND_TRIPS * work.link.latency
    seconds += _pull(work.layers, work.link, work.machine, DEFAULT_LAYERS_AT_ONCE)
    return _whole("containerd", work, seconds)


def containerd_tuned(work: Work) -> Prediction:
    """containerd 2.2 and newer with `concurrent_layer_fetch_buffer`, `max_concurrent_downloads` and
    `max_concurrent_unpacks`: each layer in chunks, over many connections, several unpacked at a time."""
    seconds = PULL_ROUND_TRIPS * work.link.latency
    seconds += _chunked(work, TUNED_CHUNK, TUNED_CONNECTIONS, TUNED_UNPACKS, in_turn=True)
    return _whole("containerd-tuned", work, seconds)


def parallel(work: Work, connections: int, unpacks: int) -> Prediction:
    """SOCI's parallel pull: the chunks of all layers take turns, so all end at about the same time, and only
    then are unpacked."""
    seconds = PULL_ROUND_TRIPS * work.link.latency + 2 * work.link.latency
    seconds += _chunked(work, PARALLEL_CHUNK, connections, unpacks, in_turn=False)
    return _whole("parallel", work, seconds)


def index_bytes(layer: LayerFiles, span_bytes: int) -> int:
    """About the size of a layer's zTOC."""
    spans = _span_count(layer, span_bytes) * SPAN_INDEX_BYTES
    return LAYER_INDEX_BYTES + spans + len(layer.files) * FILE_INDEX_BYTES


def floor_seconds(work: Work) -> float:
    """The link's time for the bytes that are read, and the start of a container: no way is faster."""
    needed = sum(
        work.layers[part.layer].compressed_between(part.begin, part.end) for part in _merged(work.reads)
    )
    return needed / work.link.bandwidth + START_SECONDS


def read_share(work: Work) -> float:
    """Of the image, unpacked, what is read: 0 to 1."""
    total = sum(layer.unpacked_bytes for layer in work.layers)
    return sum(part.end - part.begin for part in _merged(work.reads)) / total if total else 0.0


def _whole(way: str, work: Work, seconds: float) -> Prediction:
    moved = sum(layer.compressed_bytes for layer in work.layers)
    return Prediction(way, seconds, seconds + START_SECONDS, moved, local_seconds=seconds)


def _pull(layers: Sequence[LayerFiles], link: Link, machine: Machine, at_once: int) -> float:
    """Layers over a connection each, so many at a time; unpacked in order, one by one, as they have come."""
    came = _arrivals([layer.compressed_bytes for layer in layers], link, at_once)
    unpacked = 0.0
    for layer, arrival in zip(layers, came, strict=True):
        unpacked = max(unpacked, arrival) + _unpack_seconds(layer, machine)
    return unpacked


def _arrivals(sizes: Sequence[int], link: Link, at_once: int) -> list[float]:
    """When each of these has come, where so many at a time share the link."""
    left = {number: float(size) for number, size in enumerate(sizes)}
    came = [0.0] * len(sizes)
    now = 0.0
    while left:
        moving = list(left)[:at_once]
        rate = link.rate(len(moving)) / len(moving)
        step = min(left[number] for number in moving) / rate
        now += step
        for number in moving:
            left[number] -= step * rate
            if left[number] < 1:
                came[number] = now
                del left[number]
    return came


def _chunked(work: Work, chunk: int, connections: int, unpacks: int, *, in_turn: bool) -> float:
    """Layers in chunks over many connections; `in_turn`: one layer after the other, so that the first is
    unpacked while the next ones come."""
    link = work.link
    total = sum(layer.compressed_bytes for layer in work.layers)
    if not total:
        return 0.0
    chunks = sum(math.ceil(layer.compressed_bytes / chunk) for layer in work.layers)
    rate = link.rate(min(connections, chunks))
    came, arrivals = 0, []
    for layer in work.layers:
        came += layer.compressed_bytes
        arrivals.append((came if in_turn else total) / rate + link.latency * chunks / connections)
    free = [0.0] * max(1, min(unpacks, work.machine.cores))
    longest_first = sorted(
        zip(arrivals, work.layers, strict=True), key=lambda pair: (pair[0], -pair[1].compressed_bytes)
    )
    ended = 0.0
    for arrival, layer in longest_first:
        begin = max(arrival, heapq.heappop(free))
        ended = max(ended, begin + _unpack_seconds(layer, work.machine))
        heapq.heappush(free, begin + _unpack_seconds(layer, work.machine))
    written = sum(layer.unpacked_bytes + layer.compressed_bytes for layer in work.layers)
    return max(ended, work.machine.write_seconds(written))


def _unpack_seconds(layer: LayerFiles, machine: Machine) -> float:
    return max(layer.compressed_bytes / GO_INFLATE, machine.write_seconds(layer.unpacked_bytes))


Span = tuple[int, int]  # layer, number


def _spans(parts: Iterable[LayerRead], span_bytes: int) -> list[Span]:
    """The spans that these parts lie in, in their order."""
    found: dict[Span, None] = {}
    for part in parts:
        if part.end > part.begin:
            for number in range(part.begin // span_bytes, (part.end - 1) // span_bytes + 1):
                found[(part.layer, number)] = None
    return list(found)


def _span_count(layer: LayerFiles, span_bytes: int) -> int:
    return math.ceil(layer.unpacked_bytes / span_bytes)


def _span_bytes(work: Work, span: Span, span_bytes: int) -> int:
    layer, number = span
    return work.layers[layer].compressed_between(number * span_bytes, (number + 1) * span_bytes)


def _unpacked_span_bytes(work: Work, span: Span, span_bytes: int) -> int:
    layer, number = span
    return min(span_bytes, work.layers[layer].unpacked_bytes - number * span_bytes)


def _prefetch_seconds(work: Work, spans: Sequence[Span], span_bytes: int) -> float:
    """How long the mounts wait: the link is shared by all layers, each has so many connections of its own."""
    if not spans:
        return 0.0
    link, of_layer = work.link, {}
    for span in spans:
        of_layer.setdefault(span[0], []).append(_span_bytes(work, span, span_bytes))
    most = work.machine.prefetch_workers
    connections = sum(min(most, len(sizes)) for sizes in of_layer.values())
    total = sum(map(sum, of_layer.values()))
    seconds = [total / link.rate(connections), total / (work.machine.cores * ZLIB_INFLATE)]
    seconds.append(
        work.machine.write_seconds(sum(_unpacked_span_bytes(work, span, span_bytes) for span in spans))
    )
    for sizes in of_layer.values():
        workers = min(most, len(sizes))
        rounds = math.ceil(len(sizes) / workers)
        seconds.append(rounds * link.latency + sum(sizes) / link.rate(workers))
    return max(seconds)


def _merged(parts: Iterable[LayerRead]) -> list[LayerRead]:
    """The same bytes, each once."""
    found: list[LayerRead] = []
    for part in sorted(parts, key=lambda part: (part.layer, part.begin, part.end)):
        last = found[-1] if found else None
        if last and last.layer == part.layer and part.begin <= last.end:
            found[-1] = LayerRead(last.layer, last.begin, max(last.end, part.end))
        else:
            found.append(part)
    return found
