"""`soci-index advise IMAGE`: how an image is loaded best, by what a container of it reads until it is ready.

What is read is recorded (`node_recording`), what each way of loading would take is computed (`load_model`),
and one is chosen (`advice`); here is the command and its words.
"""

import argparse
import contextlib
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import (
    advice,
    image_layers,
    index,
    load_model,
    node_recording,
    options,
    recorded_reads,
    references,
    tools,
)
from .advice import Advice
from .errors import SociIndexError, UsageError
from .load_model import Link, Machine, Prediction
from .processes import Children, StoppedError, ending_by_signals
from .recorded_reads import Recording

Json = dict[str, Any]

USAGE, INTERRUPTED = 2, 130
BANDWIDTH = 125 * 10**6  # 1 Gbit/s, where nothing was said
CORES = 4
ARCHITECTURE = "amd64"
# The agent's choice for a parallel pull (agent/tuning.py): a test holds the two together.
CONNECTIONS, MOST_UNPACKS = 20, 12
NAMES = {
    "containerd": "containerd's own pull",
    "containerd-tuned": "containerd's own pull, tuned",
    "parallel": "SOCI, parallel",
    "lazy": "SOCI, lazy",
    "prefetch": "SOCI, lazy with prefetch",
}
TUNED = f"""[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = {load_model.TUNED_CONNECTIONS}
  concurrent_layer_fetch_buffer = {load_model.TUNED_CHUNK}
  max_concurrent_unpacks = {load_model.TUNED_UNPACKS}
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soci-index advise",
        description="How an image is loaded best: what a container of it reads until it is ready is recorded "
        "on a node, and what each way of loading would take for that is computed.",
        usage="%(prog)s [options] IMAGE [-- COMMAND ...]",
        epilog="Exit status: 0 there is an advice; 1 there is none; 2 usage.",
    )
    parser.add_argument("image", metavar="IMAGE", help="as a pod names it")
    reads = parser.add_argument_group("reads", "recorded on a node of the cluster, or kept from before")
    which = reads.add_mutually_exclusive_group(required=True)
    which.add_argument("--node", default="", help="record the next container of the image that starts there")
    which.add_argument("--reads", type=Path, metavar="FILE", help="a recording that --save kept")
    reads.add_argument(
        "--run",
        action="store_true",
        help="start a pod of the image on the node, and delete it; what follows -- is its command",
    )
    reads.add_argument(
        "--image-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="for the pod of --run, a secret of its namespace; can be given again",
    )
    reads.add_argument(
        "--until", default="", metavar="REGEX", help="a line of its output; default: the pod is ready"
    )
    reads.add_argument("--seconds", type=float, default=120.0, help="at most; default: %(default)g")
    reads.add_argument("--save", type=Path, metavar="FILE", help="keep the recording")
    reads.add_argument("--context", default="", help="of the kubeconfig")
    reads.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="how kubectl is run")
    reads.add_argument("-n", "--namespace", default="default", help="for the pod of --run")
    reads.add_argument("--installer-namespace", default="soci-system", help="default: %(default)s")
    where = parser.add_argument_group("the nodes that will load it")
    where.add_argument(
        "--bandwidth", type=rate, metavar="RATE", help="of the link: 200Mbit, 25MB; default: 1Gbit"
    )
    where.add_argument("--per-connection", type=rate, default=0.0, metavar="RATE", help="a registry's cap")
    where.add_argument(
        "--latency", type=milliseconds, default=0.002, metavar="TIME", help="to the registry; default: 2ms"
    )
    where.add_argument("--cores", type=options.count, help="default: those of the recording's node")
    where.add_argument("--disk", type=rate, default=0.0, metavar="RATE", help="what it writes: 125MB")
    parser.add_argument("--platform", default="", help="default: that of the recording's node")
    write = parser.add_argument_group("the index")
    write.add_argument("--write", action="store_true", help="give the image the index that is advised")
    name = write.add_mutually_exclusive_group()
    name.add_argument("--to-tag", default="", metavar="TAG", help="of the indexed image; default: TAG-soci")
    name.add_argument("--replace", action="store_true", help="move the image's own tag to it")
    write.add_argument("--unsigned", action="store_true", help="also of an image that is signed or described")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    options.add_registries(parser)
    options.add_tools(parser)
    options_only, has_command, words = _at_dashes(arguments)
    parsed = parser.parse_args(options_only)
    parsed.command = words
    if parsed.run and not parsed.node:
        parser.error("--run is for --node")
    if parsed.image_pull_secret and not parsed.run:
        parser.error("--image-pull-secret is for the pod of --run")
    if has_command and not (parsed.run and words):
        parser.error("a command is for the pod of --run: --node NODE --run -- COMMAND")
    if (parsed.to_tag or parsed.replace or parsed.unsigned) and not parsed.write:
        parser.error("--to-tag, --replace and --unsigned are for --write")
    try:
        re.compile(parsed.until)
    except re.error as error:
        parser.error(f"--until {parsed.until!r} is no regular expression ({error})")
    return parsed


def _at_dashes(arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """What is before the first --, whether there is one, and what is after it, whatever it looks like."""
    if "--" not in arguments:
        return [*arguments], False, []
    at = [*arguments].index("--")
    return [*arguments[:at]], True, [*arguments[at + 1 :]]


def rate(text: str) -> float:
    """Bytes a second: 200Mbit, 1Gbit, 25MB. Raises ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg])(bit|b)(?:/s)?", text.strip().lower())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; write 200Mbit, 1Gbit or 25MB")
    return float(found[1]) * 1000 ** ("kmg".index(found[2]) + 1) / (8 if found[3] == "bit" else 1)


def milliseconds(text: str) -> float:
    """Seconds, from 20ms. Raises ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*ms", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 20ms")
    return float(found[1]) / 1000


def main(arguments: Sequence[str]) -> int:
    """Advise, print, and return the exit status."""
    parsed = parse(arguments)
    try:
        source = references.parse(parsed.image)
        _refuse_twice_indexed(parsed, source)
        if parsed.platform:
            index.platform(parsed.platform)
        children = Children()
        with ending_by_signals(children.stop):
            recording = _recording(parsed, source.pinned)
        name = parsed.platform or f"linux/{recording.architecture or ARCHITECTURE}"
        platform = index.platform(name)
        machine = Machine(parsed.cores or recording.cores or CORES, parsed.disk)
        link = Link(parsed.bandwidth or BANDWIDTH, parsed.per_connection, parsed.latency)
        with ending_by_signals(children.stop), index.workplace(parsed.cache) as work:
            registry_by = options.registries(parsed, children, work)
            programs = tools.get(options.wanted_tools(parsed), parsed.cache, registry_by, _say)
            registry = registry_by(programs.oras)
            image = image_layers.read(registry, source, platform, parsed.cache, _say)
        _refuse_reads_of_another_platform(source, name, recording, image)
    except UsageError as error:
        print(f"soci-index: {error}", file=sys.stderr)
        return USAGE
    except SociIndexError as error:
        print(f"soci-index: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, StoppedError):
        print("soci-index: stopped", file=sys.stderr)
        return INTERRUPTED
    to_load = advice.work_of(image.layers, image.indexable, recording, link, machine)
    found = advice.advise(to_load, recording, *parallel_pull(machine.cores))
    assumed = list(assumptions(parsed, recording))
    if parsed.output == "json":
        print(json.dumps(to_json(parsed.image, found, link, machine, assumed), indent=2))
    else:
        for line in page(parsed.image, found, link, machine, assumed):
            print(line)
    return _write(parsed, found) if parsed.write else 0


def _refuse_twice_indexed(parsed: argparse.Namespace, source: references.Reference) -> None:
    is_named = parsed.to_tag or parsed.replace
    if parsed.write and not is_named and source.tag.endswith(references.SUFFIX):
        cause = f"{source.name} has the suffix of indexed images already"
        raise UsageError(cause, "--replace to give that tag the new index, or --to-tag with another one")


def _refuse_reads_of_another_platform(
    source: references.Reference, platform: str, recording: Recording, image: image_layers.ImageLayers
) -> None:
    """Refuse an advice about files that are not in the image: it would say that nothing is read.

    On the platform that was recorded they may be what the container wrote itself; `advice` says so.

    Raises:
        SociIndexError: most files of the recording are not in the image, which is for another platform than
            the recording, as far as that is known.
    """
    if index.platform(platform)[1] == recording.architecture:
        return
    if unknown := advice.strangers(recording.files, image.layers, image.indexable):
        on = f"recorded on {recording.architecture}" if recording.architecture else "recorded elsewhere"
        cause = (
            f"{len(unknown)} of the {len(recording.files)} files that were read ({on}) are not in "
            f"{source.name} for {platform}, such as {unknown[0].path}"
        )
        remedy = "--platform with that of the recording's node, or record the reads again with --node"
        raise SociIndexError(cause, remedy)


def parallel_pull(cores: int) -> tuple[int, int]:
    """Connections and layers unpacked at a time, as the installer sets them on a node with enough memory."""
    return CONNECTIONS, min(cores, MOST_UNPACKS)


def assumptions(parsed: argparse.Namespace, recording: Recording) -> Iterator[str]:
    """What was neither said nor seen."""
    if not parsed.bandwidth:
        yield "a link of 1 Gbit/s (--bandwidth)"
    if not (parsed.cores or recording.cores):
        yield f"{CORES} cores (--cores)"
    if not parsed.disk:
        yield "a disk that is never the limit (--disk)"
    if not (parsed.platform or recording.architecture):
        yield f"a node of {ARCHITECTURE} (--platform)"
    if parsed.platform and recording.architecture not in ("", index.platform(parsed.platform)[1]):
        yield f"that {parsed.platform} reads what was read on {recording.architecture}"


def to_json(image: str, found: Advice, link: Link, machine: Machine, assumed: Sequence[str]) -> Json:
    """The advice for programs."""
    predictions = sorted([found.best, *found.others], key=lambda prediction: prediction.ready_seconds)
    return {
        "image": image,
        "way": found.way,
        "mode": found.mode,
        "spanBytes": found.best.span_bytes,
        "minLayerBytes": found.min_layer_bytes if found.best.span_bytes else 0,
        "prefetch": list(found.prefetch),
        "readShare": round(found.read_share, 4),
        "floorSeconds": round(found.floor_seconds, 3),
        "localSeconds": round(found.best.local_seconds, 3),
        "expected": [
            {
                "way": prediction.way,
                "spanBytes": prediction.span_bytes,
                "pullSeconds": round(prediction.pull_seconds, 3),
                "readySeconds": round(prediction.ready_seconds, 3),
                "localSeconds": round(prediction.local_seconds, 3),
                "movedBytes": prediction.moved_bytes,
                "indexBytes": prediction.index_bytes,
            }
            for prediction in predictions
        ],
        "link": {
            "bytesPerSecond": link.bandwidth,
            "bytesPerSecondOfAConnection": link.per_connection,
            "latencySeconds": link.latency,
        },
        "cores": machine.cores,
        "diskBytesPerSecond": machine.disk,
        "reasons": list(found.reasons),
        "assumed": list(assumed),
    }


def page(image: str, found: Advice, link: Link, machine: Machine, assumed: Sequence[str]) -> Iterator[str]:
    """The advice for people."""
    cap = f", {link.per_connection / 1e6:g} MB/s a connection" if link.per_connection else ""
    yield f"{image}, on {machine.cores} cores and {link.bandwidth * 8 / 1e6:.0f} Mbit/s{cap}"
    yield ""
    predictions = sorted([found.best, *found.others], key=lambda prediction: prediction.ready_seconds)
    rows = [("WAY", "READY", "PULL", "MOVED"), *map(_row, predictions)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row, prediction in zip(rows, [None, *predictions], strict=True):
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in (1, 2, 3))]
        yield "  ".join(cells) + ("  <- advised" if prediction is found.best else "")
    yield ""
    for number, reason in enumerate(found.reasons):
        yield f"{'Why: ' if number == 0 else '     '}{reason}."
    yield f"Do:  {_to_do(found)}."
    if found.way == "containerd-tuned":
        yield from (f"     {line}" for line in TUNED.splitlines())
    if found.best.span_bytes:
        yield f"Then: {_afterwards(found.best, machine)}."
    if assumed:
        yield f"Assumed: {', '.join(assumed)}."


def _row(prediction: Prediction) -> tuple[str, str, str, str]:
    spans = f", spans of {advice.size(prediction.span_bytes)}" if prediction.span_bytes else ""
    return (
        f"{NAMES[prediction.way]}{spans}",
        f"{prediction.ready_seconds:.1f} s",
        f"{prediction.pull_seconds:.1f} s",
        f"{prediction.moved_bytes / 1e6:.0f} MB",
    )


def _to_do(found: Advice) -> str:
    if found.way == "containerd":
        return "nothing; this image needs no index"
    if found.way == "containerd-tuned":
        return (
            "these keys of the transfer service, in containerd's configuration (2.2 or newer); in the CRI "
            "plugin, max_concurrent_downloads turns that service off, and so does discard_unpacked_layers, "
            "which EKS sets"
        )
    if found.way == "parallel":
        return "soci:mode parallel for the nodes that run it; no index"
    sizes = (
        f"spans of {advice.size(found.best.span_bytes)}, layers from {advice.size(found.min_layer_bytes)} on"
    )
    ahead, chosen = "", "soci:mode lazy"
    if found.prefetch:
        ahead, chosen = f", {len(found.prefetch)} files fetched ahead", f"{chosen} and soci:prefetch true"
    return f"--write gives it an index with {sizes}{ahead}; {chosen} for the nodes that run it"


def _afterwards(best: Prediction, machine: Machine) -> str:
    pace = f"{best.spans} spans, one begun each {machine.fetch_period * 1000:.0f} ms"
    return f"the background fetch has all of it on the node after {best.local_seconds:.0f} s ({pace})"


def _recording(parsed: argparse.Namespace, image: str) -> Recording:
    if parsed.reads:
        return recorded_reads.load(parsed.reads)
    context = [f"--context={parsed.context}"] if parsed.context else []
    kubectl = (*shlex.split(parsed.kubectl), *context)
    cluster = node_recording.Cluster(kubectl, parsed.installer_namespace, parsed.namespace)
    wanted = node_recording.Wanted(
        image,
        parsed.node,
        parsed.seconds,
        parsed.until,
        run=parsed.run,
        command=tuple(parsed.command),
        pull_secrets=tuple(parsed.image_pull_secret),
    )
    content = node_recording.record(cluster, wanted, _say)
    recording = recorded_reads.parse(content)
    if parsed.save:
        try:
            parsed.save.write_text(json.dumps(content))
        except OSError as error:
            raise SociIndexError(f"{parsed.save} cannot be written ({error})", "--save elsewhere") from error
    return recording


def _say(text: str) -> None:
    print(f"soci-index: {text}", file=sys.stderr, flush=True)


def _write(parsed: argparse.Namespace, found: Advice) -> int:
    """Give the image its index, by `soci-index` itself; its exit status."""
    if not found.best.span_bytes:
        _say("no index is advised, and none is written")
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as prefetch:
        json.dump(found.prefetch, prefetch)
        prefetch.flush()
        words = ["--span-size", str(found.best.span_bytes), "--min-layer-size", str(found.min_layer_bytes)]
        words += ["--prefetch", prefetch.name] if found.prefetch else []
        words += ["--to-tag", parsed.to_tag] if parsed.to_tag else []
        words += ["--replace"] if parsed.replace else []
        words += ["--unsigned"] if parsed.unsigned else []
        # The answer on standard output is the advice alone.
        with contextlib.redirect_stdout(sys.stderr):
            return index.main([*words, *options.repeated(parsed), "--", parsed.image])
