"""What the project costs when nothing happens: import time of the components, and of the idle processes on
each node of the running lab their memory and their share of a core.

`import components` is timed against `import pulumi_eks`, in turn, each in a fresh process.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from lab_client import LAB_DIRECTORY, REPOSITORY, on_node

NODES = ("node1", "node2")
# What they are called here, and what pgrep finds them by; the brackets keep it from the shell that asks.
PROCESSES = {"watcher": "agent/watch[.]py", "pull secrets": "agent[.]pull_secrets"}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def processor_seconds(statement: str) -> float:
    """Processor time (user and system, seconds) of a fresh Python process that runs one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], cwd=REPOSITORY, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@dataclass(frozen=True)
class Usage:
    """What a process has used so far, as /proc/PID/stat has it; without what it has started."""

    pid: int
    ticks: int  # user and system
    resident: int  # bytes

    @classmethod
    def read(cls, stat: str) -> "Usage":
        # The program's name may hold anything: proc(5).
        pid, fields = int(stat.partition(" ")[0]), stat.rpartition(")")[2].split()
        return cls(pid, int(fields[11]) + int(fields[12]), int(fields[21]) * PAGE_BYTES)


def usages(node: str) -> dict[str, Usage]:
    """Each idle process of the installer on a node of the lab, by what it is called here."""
    found = {}
    for name, pattern in PROCESSES.items():
        stat = on_node(node, f"cat /proc/$(pgrep -o -f '{pattern}')/stat")
        found[name] = Usage.read(stat)
    return found


def print_idle(seconds: float) -> None:
    """Memory and share of a core of the idle processes, over some seconds."""
    started, before = time.monotonic(), {node: usages(node) for node in NODES}
    time.sleep(seconds)
    for node, first in before.items():
        now, took = usages(node), time.monotonic() - started
        for name, usage in now.items():
            assert usage.pid == first[name].pid, f"{name} on {node} was started anew: not idle"
            share = (usage.ticks - first[name].ticks) / TICKS_PER_SECOND / took
            print(f"idle {name} on {node}: {usage.resident / 1e6:.1f} MB resident, {share:.2%} of a core")


def print_import_time(repetitions: int) -> None:
    statements = ("import pulumi_eks", "import components")
    taken: dict[str, list[float]] = {statement: [] for statement in statements}
    for statement in statements * (repetitions + 1):
        taken[statement].append(processor_seconds(statement))
    reference, ours = (
        statistics.median(taken[statement][1:]) for statement in statements
    )  # the first one warms up
    print(f"{statements[0]:<20}{reference:6.3f} s\n{statements[1]:<20}{ours:6.3f} s{ours / reference:8.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="processes per statement (default 7)")
    parser.add_argument("--seconds", type=float, default=60, help="how long idleness is watched (default 60)")
    options = parser.parse_args()
    print_import_time(options.repetitions)
    if not (LAB_DIRECTORY / "kubeconfig").exists():
        print("idle processes: the lab is not up, not measured")
        return
    print_idle(options.seconds)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
