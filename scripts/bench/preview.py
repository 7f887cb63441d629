"""What `pulumi preview` of the `dev` stack costs beside the same resources written by hand on pulumi-eks.

In turn, each in a fresh process: wall time of the whole preview, the processors' time of all its processes,
and the peak memory of the program. AWS is moto and the plugins are those that the lab has (stand-ins where no
registry carries the true ones), the same for both sides. by_hand.py is the other side.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from lab_client import REPOSITORY

for folder in ("lab", "lab/engine"):
    sys.path.insert(0, str(REPOSITORY / "scripts" / folder))

from engine import prepare  # noqa: E402 (found through the path above)
from moto_account import moto_account  # noqa: E402

SIDES = ("by hand", "SociCluster")
LIMIT = 1.15
PROGRAM = """\
import os, runpy, sys, threading
sys.path.insert(0, {folder!r})


def watch():
    # Again and again, since how a program ends is the language host's matter.
    while True:
        place = os.environ["SOCI_BENCH_PEAK"]
        with open("/proc/self/status") as status, open(place + "-new", "w") as peak:
            peak.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
        os.replace(place + "-new", place)
        threading.Event().wait(0.05)


threading.Thread(target=watch, daemon=True).start()
runpy.run_path({program!r})
"""
PROJECT = """\
name: soci
runtime: {name: python, options: {toolchain: pip, virtualenv: .venv}}
"""
STACK = """\
config:
  aws:region: eu-west-1
  soci:sha256: {amd64: %s, arm64: %s}
"""


def project(side: str, directory: Path) -> Path:
    """A project directory with the stack `dev` whose program is that side's."""
    directory.mkdir()
    ours = side == "SociCluster"
    source = REPOSITORY / ("__main__.py" if ours else "scripts/bench/by_hand.py")
    (directory / "__main__.py").write_text(PROGRAM.format(folder=str(REPOSITORY), program=str(source)))
    (directory / "Pulumi.yaml").write_text(PROJECT)
    (directory / "Pulumi.dev.yaml").write_text(
        STACK % ("a" * 64, "b" * 64) if ours else STACK.partition("  soci")[0]
    )
    (directory / ".venv").symlink_to(REPOSITORY / ".venv")
    return directory


def pulumi(directory: Path, environment: Mapping[str, str], *arguments: str) -> Path:
    """Run the CLI in a project whose state lies beside it: where the program's peak of resident memory (KiB)
    is, when there was a program."""
    peak = directory / "peak"
    own = {"PULUMI_BACKEND_URL": f"file://{directory}", "SOCI_BENCH_PEAK": str(peak)}
    subprocess.run(
        ["pulumi", *arguments],
        cwd=directory,
        env={**environment, **own},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return peak


def processor_seconds() -> float:
    """What all processes that were waited for have had of the processors, those that they waited for too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def preview(directory: Path, environment: Mapping[str, str]) -> tuple[float, float, float]:
    """Run `pulumi preview` once: seconds, seconds of the processors, and mebibytes of the program at its
    peak."""
    begin, before = time.monotonic(), processor_seconds()
    peak = pulumi(directory, environment, "preview", "--non-interactive", "--stack", "dev")
    return time.monotonic() - begin, processor_seconds() - before, int(peak.read_text()) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="previews per side (default 5)")
    repetitions = parser.parse_args().repetitions
    taken: dict[str, list[tuple[float, float, float]]] = {side: [] for side in SIDES}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = {**os.environ, **prepare(folder / "home", genuine=("kubernetes",))}
        environment = stack.enter_context(moto_account(folder, engine))
        environment["SOCI_BENCH_INSTALLER"] = str(REPOSITORY / "scripts" / "installer")
        # Only the first preview of a program compiles it, whatever this process was told.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        projects = {side: project(side, folder / side.replace(" ", "-")) for side in SIDES}
        for directory in projects.values():
            pulumi(directory, environment, "stack", "init", "dev")
        for round_number in range(repetitions + 1):
            for side, directory in projects.items():
                measured = preview(directory, environment)
                if round_number:  # the first one warms up
                    taken[side].append(measured)
    for number, (what, unit) in enumerate((("preview", "s"), ("processors", "s"), ("program's peak", "MiB"))):
        reference, ours = (statistics.median(run[number] for run in taken[side]) for side in SIDES)
        print(
            f"{what:<16}{SIDES[0]} {reference:7.2f} {unit:<4} {SIDES[1]} {ours:7.2f} {unit:<4}"
            f"{ours / reference:6.2f}x  (limit {LIMIT}x)"
        )


if __name__ == "__main__":
    main()
