"""What `soci-index advise` says of the workloads of `make bench`, and the images that it makes of them.

A workload's start is recorded once, lazily loaded, on a node with the installer's pod. For each link the
recording is asked again, and the image gets the index that is advised there, under a tag of its own.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab_client import LAB, LAB_DIRECTORY, REPOSITORY

sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts" / "lab")]

import binaries  # noqa: E402 (found through the path above)
import workloads  # noqa: E402
from lab_links import LabLink  # noqa: E402
from settings import REGISTRY  # noqa: E402

from components.bench.samples import Advised  # noqa: E402

INDEXER = REPOSITORY / "scripts" / "index"
RECORDINGS = LAB_DIRECTORY / "recordings"
RECORD_SECONDS = 120
LATENCY_S = 0.001  # of the lab's own network


def of(entry: workloads.Made, link: LabLink, name: str, node: str, without: Mapping[str, str]) -> Advised:
    """The advice for a workload over a link; its index is written.

    Args:
        entry: the workload.
        link: the link.
        name: of the link, for the tag.
        node: where it is recorded, unless it was.
        without: the node for each way that needs no SOCI.

    Raises:
        RuntimeError: soci-index fails; its own words.
    """
    tag = f"advised-{entry.name}-{name}"
    options = ["--bandwidth", link.rate, "--latency", f"{(LATENCY_S + link.delay_s) * 1000:g}ms"]
    if link.connection_rate:
        options += ["--per-connection", f"{link.connection_rate / 1e6:g}MB"]
    reads = ["--reads", str(recording(entry, node))]
    write = ["--write", "--to-tag", tag, "--output", "json"]
    found = json.loads(soci_index(entry.image(workloads.PLAIN), [*reads, *options, *write]))
    way = found["way"]
    expected = next(each for each in found["expected"] if each["way"] == way)["readySeconds"]
    image = entry.image(tag if found["spanBytes"] else workloads.PLAIN)
    return Advised(way, expected, image, without.get(way, ""))


def recording(entry: workloads.Made, node: str) -> Path:
    """The recording of a workload's start; made once, as long as it is the same workload."""
    what = hashlib.sha256(json.dumps([entry.repository, entry.command]).encode()).hexdigest()[:12]
    file = RECORDINGS / f"{entry.name}-{what}.json"
    if not file.exists():
        RECORDINGS.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        where = ["--node", node, "--run", "--until", entry.ready, "--seconds", str(RECORD_SECONDS)]
        save = ["--save", str(new), "--kubectl", f"{LAB} kubectl"]
        soci_index(entry.image("1mib"), [*where, *save], entry.command)
        new.replace(file)
    return file


def soci_index(image: str, options: Sequence[str], command: Sequence[str] = ()) -> str:
    """What `soci-index advise` prints for an image of the lab's registry."""
    programs = [
        "--soci",
        str(binaries.build("soci") / "soci"),
        "--oras",
        str(binaries.build("oras") / "oras"),
    ]
    words = [
        sys.executable,
        "-m",
        "soci_index",
        "advise",
        image,
        *options,
        "--plain-http",
        REGISTRY,
        *programs,
    ]
    done = subprocess.run(
        [*words, *(["--", *command] if command else [])],
        cwd=INDEXER,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise RuntimeError(f"soci-index advise {image}: {said}")
    return done.stdout
