"""What indexing an image costs: soci-index beside `soci convert --standalone` of the whole.

Both read from and push to the lab's registry on this machine, with the same oras and soci, in turn: a first
tag, and a second one that has one new layer. Needs what `make build` makes, and nothing of a running lab.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS / "lab"))

import binaries  # noqa: E402
import images  # noqa: E402
from background import Process, free_port  # noqa: E402

SOURCE = SCRIPTS / "index"
POLL_SECONDS = 0.05


@dataclass
class Cost:
    """Of one way to index one tag."""

    seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Bench:
    """Where it happens, and with which programs."""

    scratch: Path
    registry: str
    soci: Path
    oras: Path

    def push(self, repository: str, tag: str, layers: list[int]) -> None:
        """Push the image of these layers of the lab's sample."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as layout:
            images.write_layout(Path(layout) / "image", list(map(images.sample_layer, layers)), {})
            digest = json.loads((Path(layout) / "image/index.json").read_text())["manifests"][0]["digest"]
            source = f"{layout}/image@{digest}"
            target = f"{self.registry}/{repository}:{tag}"
            self.run(self.oras, "cp", "--no-tty", "--from-oci-layout", source, "--to-plain-http", target)

    def run(self, *command: str | Path, **variables: str) -> None:
        environment = {**os.environ, "TMPDIR": str(self.scratch), **variables}
        subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)

    def whole(self, repository: str, tag: str) -> None:
        """The steps by hand: the image to the disk, converted, and back."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as place:
            image = f"{self.registry}/{repository}:{tag}"
            copy = (self.oras, "cp", "--no-tty")
            self.run(*copy, "--from-plain-http", image, "--to-oci-layout", f"{place}/image:x")
            index = Path(place, "image/index.json")
            listed = json.loads(index.read_text())
            listed["manifests"] = [entry for entry in listed["manifests"] if entry.pop("annotations", None)]
            index.write_text(json.dumps(listed))
            convert = (self.soci, "convert", "--standalone", "--all-platforms", "--format", "oci-dir")
            self.run(*convert, f"{place}/image", f"{place}/indexed")
            digest = json.loads(Path(place, "indexed/index.json").read_text())["manifests"][0]["digest"]
            self.run(
                *copy, "--from-oci-layout", f"{place}/indexed@{digest}", "--to-plain-http", f"{image}-whole"
            )

    def parts(self, repository: str, tag: str) -> None:
        """soci-index."""
        programs = (f"--soci={self.soci}", f"--oras={self.oras}", f"--cache={self.scratch / 'cache'}")
        self.run(
            *(sys.executable, "-B", "-m", "soci_index", f"{self.registry}/{repository}:{tag}"),
            *(*programs, "--plain-http", self.registry, "--quiet"),
            PYTHONPATH=str(SOURCE),
        )

    def cost(self, way: Callable[[str, str], None], repository: str, tag: str) -> Cost:
        """Time of a way, and the most bytes that it had on the disk beyond what was there before."""
        before, most, is_done = _size(self.scratch), [0], threading.Event()

        def watch() -> None:
            while not is_done.wait(POLL_SECONDS):
                most[0] = max(most[0], _size(self.scratch) - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.perf_counter()
        try:
            way(repository, tag)
        finally:
            seconds = time.perf_counter() - begin
            is_done.set()
            watcher.join()
        return Cost(seconds, most[0])


def _size(directory: Path) -> int:
    """Bytes that a tree takes, as far as it stays while this looks."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="of each, in turn (default 3)")
    parser.add_argument("--layers", type=int, default=5, help="of the image, 50 MB each (default 5)")
    options = parser.parse_args()
    program = binaries.build("registry") / "registry"
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as place:
        address = f"127.0.0.1:{free_port()}"
        server = Process(Path(kept, "log"), [str(program), "-addr", address, "-dir", kept])
        try:
            images.await_registry(address)
            soci, oras = (binaries.build(name) / name for name in ("soci", "oras"))
            _measure(Bench(Path(place), address, soci, oras), options.repetitions, options.layers)
        finally:
            server.stop()
    return 0


def _measure(bench: Bench, repetitions: int, layers: int) -> None:
    found: dict[tuple[str, str], list[Cost]] = {}
    for number in range(repetitions):
        repository = f"app{number}"
        # Other layers each time: neither cache nor registry has them.
        own = list(range(1 + number * (layers + 1), 1 + (number + 1) * (layers + 1)))
        bench.push(repository, "first", own[:layers])
        bench.push(repository, "second", [*own[: layers - 1], own[layers]])
        for tag in ("first", "second"):
            for name, way in (("whole", bench.whole), ("soci-index", bench.parts)):
                found.setdefault((tag, name), []).append(bench.cost(way, repository, tag))
    print(f"{layers} layers of 50 MB, the second tag with one new one; medians of {repetitions}")
    for tag in ("first", "second"):
        whole, parts = (found[tag, name] for name in ("whole", "soci-index"))
        times = [statistics.median(cost.seconds for cost in costs) for costs in (whole, parts)]
        disks = [statistics.median(cost.disk_bytes for cost in costs) / 1e6 for costs in (whole, parts)]
        print(
            f"{tag:<8}whole {times[0]:6.1f} s, {disks[0]:6.0f} MB of disk; "
            f"soci-index {times[1]:6.1f} s, {disks[1]:6.0f} MB: "
            f"{times[0] / times[1]:.1f} times as fast, {disks[0] / disks[1]:.1f} times less disk"
        )


if __name__ == "__main__":
    sys.exit(main())
