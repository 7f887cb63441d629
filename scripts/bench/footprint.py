"""What the project costs when nothing happens: import time of the components, memory of the idle agents.

`import components` is timed against `import pulumi_eks`, in turn, each in a fresh process.
"""

import argparse
import resource
import statistics
import subprocess
import sys

from lab_client import LAB_DIRECTORY, REPOSITORY, on_node


def processor_seconds(statement: str) -> float:
    """Processor time (user and system, seconds) of a fresh Python process that runs one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], cwd=REPOSITORY, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def agent_kibibytes(node: str) -> list[int]:
    """Resident memory (KiB) of each idle installer agent on a node of the lab."""
    listing = on_node(node, "ps -eo rss=,args= | grep 'agent[/.]watch' | awk '{print $1}'")
    return [int(line) for line in listing.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="processes per statement (default 7)")
    repetitions = parser.parse_args().repetitions
    statements = ("import pulumi_eks", "import components")
    taken: dict[str, list[float]] = {statement: [] for statement in statements}
    for statement in statements * (repetitions + 1):
        taken[statement].append(processor_seconds(statement))
    reference, ours = (
        statistics.median(taken[statement][1:]) for statement in statements
    )  # the first one warms up
    print(f"{statements[0]:<20}{reference:6.3f} s\n{statements[1]:<20}{ours:6.3f} s{ours / reference:8.2f}x")
    if not (LAB_DIRECTORY / "kubeconfig").exists():
        print("idle agent: the lab is not up, not measured")
        return
    for node in ("node1", "node2"):
        for kibibytes in agent_kibibytes(node):
            print(f"idle agent on {node}: {kibibytes / 1024:.1f} MiB resident")


if __name__ == "__main__":
    main()
