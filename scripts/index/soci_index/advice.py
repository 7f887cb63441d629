"""Which way of loading an image is the best one for a link and a node, and why; pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from . import load_model
from .layer_files import LayerFiles
from .load_model import MIB, SPANS, Prediction, Work
from .recorded_reads import FileRead, LayerRead, Recording, in_layers, owner

WORTH = 0.9  # a way that asks more of its user has to be faster by a tenth
LEAST_READ = 0.5  # of a file, for it to be prefetched: it is fetched whole
LARGEST_MIN_LAYER = 10 * MIB
LAYER_SECONDS = 0.1  # about what a lazily loaded layer costs beyond its bytes
MOST_REASONS = 8
TUNED_CONTAINERD = (2, 2)  # the first one that unpacks several layers of an image at a time
# In the order of what they ask for: nothing; two settings of containerd; no index; an index.
EASE = ("containerd", "containerd-tuned", "parallel", "lazy", "prefetch")
MODES = {"lazy": "lazy", "prefetch": "lazy", "parallel": "parallel"}  # soci:mode


@dataclass(frozen=True)
class Advice:
    """What to do with an image.

    Attributes:
        way: the name of the best prediction's way.
        best: what is expected of it.
        others: what is expected of the other ways, each with its best settings.
        min_layer_bytes: for the index.
        prefetch: paths to fetch before the container starts, in the order of their first reads.
        read_share: of the unpacked image, what is read until it is ready.
        floor_seconds: what no way can beat on this link.
        reasons: why, a sentence each.
    """

    way: str
    best: Prediction
    others: tuple[Prediction, ...]
    min_layer_bytes: int
    prefetch: tuple[str, ...]
    read_share: float
    floor_seconds: float
    reasons: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """The value of soci:mode; empty where SOCI is not needed for this image."""
        return MODES.get(self.way, "")


def advise(work: Work, recording: Recording, connections: int, unpacks: int) -> Advice:
    """The advice for an image whose reads are known.

    Args:
        work: the image, what was read of it, the link and the node.
        recording: the same reads, as files.
        connections: of a parallel pull on that node.
        unpacks: layers that it unpacks at a time.
    """
    least = min_layer_bytes(work)
    whole = [load_model.containerd(work), load_model.parallel(work, connections, unpacks)]
    if not why_not_tuned(recording):
        whole.append(load_model.containerd_tuned(work))
    lists: dict[int, tuple[str, ...]] = {}
    plain, ahead = [], []
    for span_bytes in SPANS:
        plain.append(load_model.lazy(work, span_bytes, least))
        lists[span_bytes] = prefetch_list(work, recording.files, span_bytes, least)
        parts = whole_files(lists[span_bytes], work.layers)
        if parts:
            ahead.append(load_model.lazy(work, span_bytes, least, parts))
    candidates = [*whole]
    if any(
        able and layer.compressed_bytes >= least
        for able, layer in zip(work.indexable, work.layers, strict=True)
    ):
        candidates += [_fastest(options) for options in (plain, ahead) if options]
    best = choose(candidates)
    advice = Advice(
        best.way,
        best,
        tuple(other for other in candidates if other is not best),
        least,
        lists[best.span_bytes] if best.way == "prefetch" else (),
        load_model.read_share(work),
        load_model.floor_seconds(work),
    )
    return replace(advice, reasons=tuple(_reasons(advice, work, recording, plain))[:MOST_REASONS])


def choose(predictions: Iterable[Prediction]) -> Prediction:
    """The fastest; but a way that asks more of its user must be faster by a tenth than one that asks less."""
    in_order = sorted(predictions, key=lambda found: EASE.index(found.way))
    best = in_order[0]
    for found in in_order[1:]:
        if found.ready_seconds < best.ready_seconds * WORTH:
            best = found
    return best


def why_not_tuned(recording: Recording) -> str:
    """Why containerd's own pull cannot be tuned on the recording's node; empty where it can, or that is not
    known."""
    cannot = "containerd's own pull cannot be tuned on that node"
    if recording.containerd and recording.containerd < TUNED_CONTAINERD:
        found, needed = (".".join(map(str, version)) for version in (recording.containerd, TUNED_CONTAINERD))
        return f"{cannot}: its containerd is {found}, and needs to be {needed}"
    if recording.discards:
        return f"{cannot}: discard_unpacked_layers, which EKS sets, turns the transfer service off"
    return ""


def min_layer_bytes(work: Work) -> int:
    """From which size on it pays to load a layer lazily: what is pulled in the time that its mount costs."""
    link = work.link
    worth = link.rate(load_model.DEFAULT_LAYERS_AT_ONCE) * (LAYER_SECONDS + 4 * link.latency)
    return max(MIB, min(LARGEST_MIN_LAYER, round(worth / MIB) * MIB))


def prefetch_list(work: Work, files: Iterable[FileRead], span_bytes: int, least: int) -> tuple[str, ...]:
    """The files that are fetched before the start, in the order of their reads: those that are read for the
    most part, as many as the mounts may wait for."""
    chosen: list[str] = []
    for file in files:
        number = owner(file.path, work.layers)
        if (
            number is None
            or not work.indexable[number]
            or work.layers[number].compressed_bytes < least
            or not file.size
            or file.bytes < LEAST_READ * file.size
        ):
            continue
        chosen.append(file.path)
    while chosen:
        parts = whole_files(chosen, work.layers)
        seconds = load_model.lazy(work, span_bytes, least, parts).prefetch_seconds
        if seconds <= load_model.PREFETCH_SECONDS:
            break
        chosen = chosen[: int(len(chosen) * min(0.9, load_model.PREFETCH_SECONDS / seconds))]
    return tuple(chosen)


def whole_files(paths: Iterable[str], layers: Sequence[LayerFiles]) -> list[LayerRead]:
    """The parts of layers that these files are."""
    found = []
    for path in paths:
        number = owner(path, layers)
        if number is not None:
            offset, size = layers[number].files[path]
            found.append(LayerRead(number, offset, offset + size))
    return found


def work_of(
    layers: Sequence[LayerFiles],
    indexable: Sequence[bool],
    recording: Recording,
    link: load_model.Link,
    machine: load_model.Machine,
) -> Work:
    """What is to be loaded, from a recording."""
    return Work(layers, indexable, in_layers(recording.files, layers), link, machine)


def strangers(
    files: Sequence[FileRead], layers: Sequence[LayerFiles], indexable: Sequence[bool]
) -> list[FileRead]:
    """The files that are of no layer, where most are; none where the files of a layer are not known."""
    found = [file for file in files if owner(file.path, layers) is None]
    return found if all(indexable) and 2 * len(found) > len(files) else []


def _fastest(options: Sequence[Prediction]) -> Prediction:
    """The fastest of several span sizes; larger spans, thus a smaller index, unless a tenth is gained."""
    best = options[0]
    for found in options[1:]:
        if found.ready_seconds < best.ready_seconds * WORTH:
            best = found
    return best


def _reasons(advice: Advice, work: Work, recording: Recording, plain: Sequence[Prediction]) -> Iterable[str]:
    total = sum(layer.compressed_bytes for layer in work.layers)
    yield (
        f"{advice.read_share:.0%} of the image is read until it is ready; the link alone needs "
        f"{advice.floor_seconds:.1f} s for that, and {total / work.link.bandwidth:.1f} s for the whole image"
    )
    if unknown := strangers(recording.files, work.layers, work.indexable):
        yield (
            f"{len(unknown)} of the {len(recording.files)} files that were read are not in the image, and do "
            f"not count, such as {unknown[0].path}: the container wrote them itself, or the recording is of "
            "another image"
        )
    largest, smaller = plain[0], _fastest(plain)
    if advice.way in ("lazy", "prefetch") and smaller.span_bytes < largest.span_bytes:
        yield (
            f"the reads are scattered: each one fetches a whole span, and with spans of "
            f"{size(largest.span_bytes)} that comes to {largest.moved_bytes / 1e6:.0f} MB, with "
            f"{size(smaller.span_bytes)} to {smaller.moved_bytes / 1e6:.0f} MB"
        )
    if advice.way == "prefetch":
        yield (
            f"{len(advice.prefetch)} files are fetched before the start over many connections, in "
            f"{advice.best.prefetch_seconds:.1f} s; a reader would wait for one span after the other"
        )
    if advice.way not in ("lazy", "prefetch"):
        lazily = min((found for found in advice.others if found.span_bytes), key=_ready, default=None)
        if lazily is None:
            yield "no layer of it can be loaded lazily"
        else:
            yield (
                f"loaded lazily it would be ready after {lazily.ready_seconds:.1f} s, for "
                f"{lazily.moved_bytes / 1e6:.0f} MB"
            )
    if advice.way.startswith("containerd"):
        yield "SOCI would gain less than a tenth for this image here"
    if why_not := why_not_tuned(recording):
        yield why_not
    if work.link.per_connection and work.link.per_connection < work.link.bandwidth:
        yield (
            f"one connection carries {work.link.per_connection / 1e6:.0f} MB/s of the link's "
            f"{work.link.bandwidth / 1e6:.0f}: what uses many is faster"
        )
    if not all(work.indexable):
        yield f"{list(work.indexable).count(False)} layers cannot have an index, and are pulled whole"
    if not recording.lazy_layers:
        yield (
            "the reads were recorded on an image that was pulled whole: of each file that was opened all "
            "counts; record them again once it is loaded lazily"
        )
    if not recording.is_complete:
        yield "the node could not follow all reads: more is read than is known here"


def _ready(prediction: Prediction) -> float:
    return prediction.ready_seconds


def size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count >> 10} KiB"
