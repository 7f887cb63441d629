"""What the project costs when nothing happens: import time of the components, and of the idle processes on
each node of the running lab their memory and their share of a core, beside the least that is possible.

`import components` is timed against the same imports of others by hand, in turn, each in a fresh process.
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
GOAL = 15e6  # bytes, of an idle process
INSTALLED = "'site-packages' in (getattr(module, '__file__', None) or '')"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MEMORY = "/proc/{}/smaps_rollup"
# Whoever watches the API server has at least these: an interpreter, and what TLS is spoken with.
LEAST = f"import ssl; ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); print(open('{MEMORY.format('self')}').read())"


def processor_seconds(statement: str) -> float:
    """Processor time (user and system, seconds) of a fresh Python process that runs one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], cwd=REPOSITORY, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@dataclass(frozen=True)
class Memory:
    """What a process has in memory, in bytes, as /proc/PID/smaps_rollup has it."""

    resident: int
    own: int  # of that what it has written: no other process can share it

    @classmethod
    def read(cls, rollup: str) -> "Memory":
        sizes = {
            words[0]: int(words[1]) << 10
            for line in rollup.splitlines()
            if (words := line.split())[2:] == ["kB"]
        }
        return cls(sizes["Rss:"], sizes["Anonymous:"])

    def __str__(self) -> str:
        resident = f"{self.resident / 1e6:.1f} MB resident, {self.resident / GOAL:.2f}x of the goal"
        return f"{resident}, {self.own / 1e6:.1f} MB its own"


@dataclass(frozen=True)
class Usage:
    """What a process has used so far, as /proc/PID has it; without what it has started."""

    pid: int
    ticks: int  # user and system
    memory: Memory

    @classmethod
    def read(cls, stat: str, rollup: str) -> "Usage":
        # The program's name may hold anything: proc(5).
        pid, fields = int(stat.partition(" ")[0]), stat.rpartition(")")[2].split()
        return cls(pid, int(fields[11]) + int(fields[12]), Memory.read(rollup))


def usages(node: str) -> dict[str, Usage]:
    """Each idle process of the installer on a node of the lab, by what it is called here."""
    found = {}
    for name, pattern in PROCESSES.items():
        said = on_node(node, f"pid=$(pgrep -o -f '{pattern}'); cat /proc/$pid/stat {MEMORY.format('$pid')}")
        found[name] = Usage.read(*said.split("\n", 1))
    return found


def least(node: str, pid: int) -> Memory:
    """What a process that speaks TLS has at least, by the image of one that runs on the node."""
    return Memory.read(on_node(node, f'nsenter -t {pid} -m -p python3 -I -S -c "{LEAST}"'))


def print_idle(seconds: float) -> None:
    """Memory and share of a core of the idle processes, over some seconds."""
    started, before = time.monotonic(), {node: usages(node) for node in NODES}
    time.sleep(seconds)
    for node, first in before.items():
        now, took = usages(node), time.monotonic() - started
        for name, usage in now.items():
            assert usage.pid == first[name].pid, f"{name} on {node} was started anew: not idle"
            share = (usage.ticks - first[name].ticks) / TICKS_PER_SECOND / took
            print(f"idle {name} on {node}: {usage.memory}; {share:.2%} of a core")
        print(f"an interpreter with TLS on {node}: {least(node, now['pull secrets'].pid)}")


def installed_modules() -> list[str]:
    """The installed modules that `import components` brings, in its order: what a program needs that does the
    same by hand."""
    statement = (
        f"import components, sys; print(*(name for name, module in sys.modules.items() if {INSTALLED}))"
    )
    command = [sys.executable, "-c", statement]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()


def print_import_time(repetitions: int) -> None:
    by_hand = f"import importlib; [importlib.import_module(name) for name in {installed_modules()}]"
    statements = {"the same by hand": by_hand, "import components": "import components"}
    taken: dict[str, list[float]] = {name: [] for name in statements}
    for name, statement in [*statements.items()] * (repetitions + 1):
        taken[name].append(processor_seconds(statement))
    reference, ours = (statistics.median(seconds[1:]) for seconds in taken.values())  # the first one warms up
    first, second = statements
    print(f"{first:<20}{reference:6.3f} s\n{second:<20}{ours:6.3f} s{ours / reference:8.2f}x")


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
