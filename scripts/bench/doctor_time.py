"""What soci-doctor takes over one node and over a hundred, at a kubectl that is a script here.

A node answers after some seconds, as a real one that is looked at, or at once: the rest is soci-doctor's own
time, its start included.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
FLEETS = (1, 100)
IMAGES = 30  # of each node
KUBECTL = """\
#!/bin/sh
case $1 in
get) cat {folder}/pods ;;
exec) sleep {seconds} && cat {folder}/report ;;
esac
"""


def pod(number: int) -> dict[str, Any]:
    """The installer's pod of a node."""
    return {
        "metadata": {"name": f"soci-installer-{number}", "namespace": "soci-system"},
        "spec": {"nodeName": f"node{number:03}"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def image(number: int) -> dict[str, Any]:
    name = f"registry.example/team/image{number}:1"
    return {
        "image": name,
        "names": [name],
        "served": "lazy",
        "layers": 7,
        "lazyLayers": 6,
        "bytes": 300 << 20,
        "lazyBytes": 299 << 20,
        "localBytes": 0,
        "wholeBytes": 1 << 20,
        "why": "",
    }


def report() -> dict[str, Any]:
    """What a good node answers."""
    daemon = {"memoryBytes": 41 << 20, "uptimeSeconds": 7200, "backgroundFetch": "on"}
    return {
        "node": "node",
        "verdict": "good",
        "mode": "lazy",
        "slot": "soci",
        "versions": {"soci": "0.16.1", "containerd": "2.3.7", "kubelet": "1.34.4", "kernel": "6.1"},
        "daemon": daemon,
        "mounts": {"lazyLayers": 6 * IMAGES, "containers": IMAGES, "dead": 0},
        "images": [image(number) for number in range(IMAGES)],
        "findings": [],
        "notKnown": [],
    }


def seconds_of(nodes: int, node_seconds: float) -> float:
    """The time of one run over so many nodes, which has to find all of them good."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "pods").write_text(json.dumps({"items": [pod(number) for number in range(nodes)]}))
        (folder / "report").write_text(json.dumps(report()))
        kubectl = folder / "kubectl"
        kubectl.write_text(KUBECTL.format(folder=shlex.quote(place), seconds=node_seconds))
        kubectl.chmod(0o755)
        command = [sys.executable, "-m", "components.doctor", "--kubectl", shlex.quote(str(kubectl))]
        started = time.monotonic()
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="runs over each fleet (default 5)")
    parser.add_argument("--node-seconds", type=float, default=2, help="what a node takes (default 2)")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for node_seconds in (0, options.node_seconds):
        for nodes in FLEETS:
            times = [seconds_of(nodes, node_seconds) for _ in range(options.repetitions)]
            print(
                f"{nodes:>3} nodes that take {node_seconds:g} s: "
                f"{statistics.median(times):5.2f} s (slowest {max(times):.2f} s)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
