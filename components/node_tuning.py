"""How SOCI's daemon is set on the nodes of a group, foreseen from their instance types.

A node decides for itself, by what its kernel tells (scripts/installer/agent/tuning.py); the rule is the same
here, and a test holds the two together. What AWS did not say of a type is not foreseen. Pure functions.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .guards import Answers
from .settings import Settings

GIB = 1 << 30
# An estimate: the kernel tells less memory than AWS, by what it and the firmware keep. It matters where a
# node has just as much as the rule asks for.
KERNEL_TELLS = 0.96
MOST_DOWNLOADS, MOST_UNPACKS = 20, 12
DOWNLOADS_OF_LITTLE_MEMORY, LITTLE_MEMORY = 10, 2 * GIB
LEAST_PREFETCH_WORKERS = 8
CORE_MILLISECONDS, LEAST_MILLISECONDS = 200, 5


@dataclass(frozen=True)
class Machine:
    """What AWS says of an instance type: cores, and memory in bytes."""

    cores: int
    memory: int

    @property
    def in_words(self) -> str:
        return f"{self.cores} cores, {self.memory / GIB:g} GiB"


def tuning(cores: int, memory: int) -> str:
    """The settings of the daemon, in the agent's words, on a node with so many cores and bytes of memory."""
    downloads = DOWNLOADS_OF_LITTLE_MEMORY if memory < LITTLE_MEMORY else MOST_DOWNLOADS
    unpacks = min(MOST_UNPACKS, cores, max(1, round(memory / GIB)))
    parallel = f"{downloads} connections an image, 16mb each, {unpacks} layers unpacked"
    ahead = f"prefetch: {max(LEAST_PREFETCH_WORKERS, cores)} connections a layer"
    behind = f"background fetch: a span each {max(LEAST_MILLISECONDS, CORE_MILLISECONDS // cores)} ms"
    return f"parallel pulls: {parallel} at a time; {ahead}; {behind}"


def machines(answers: Answers) -> dict[str, Machine]:
    """The instance types of which AWS said both."""
    return {
        name: Machine(int(said["defaultVcpus"]), int(said["memorySize"]) << 20)
        for name, said in answers.instance_types.items()
        if said.get("defaultVcpus") and said.get("memorySize")
    }


def foreseen(groups: Mapping[str, Settings], answers: Answers) -> list[str]:
    """A line for each node group and each way in which nodes of it will be set.

    Args:
        groups: the settings of each node group, by its name.
        answers: what AWS said.
    """
    known = machines(answers)
    return [
        f"SOCI on the nodes of {name} ({', '.join(types)}): {words}"
        for name, group in groups.items()
        for words, types in _by_words(group.instance_types, known)
    ]


def _by_words(types: Iterable[str], known: Mapping[str, Machine]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for one in types:
        if machine := known.get(one):
            words = tuning(machine.cores, int(machine.memory * KERNEL_TELLS))
            found.setdefault(words, []).append(f"{one}: {machine.in_words}")
    yield from found.items()
