"""How SOCI's daemon is set for this node: from its cores and its memory, as the kernel tells them.

The link is no part of it: on EC2 the kernel does not know its speed, and a change of the configuration
restarts the daemon. What an image gains on which link is said by ``soci-index advise``.
"""

import re
from dataclasses import dataclass

from .host import Host

GIB = 1 << 30
# AWS's own values for large nodes (nodeadm's FastImagePull), and the most that is ever chosen.
MOST_DOWNLOADS, MOST_UNPACKS = 20, 12
DOWNLOADS_OF_LITTLE_MEMORY, LITTLE_MEMORY = 10, 2 * GIB
LEAST_PREFETCH_WORKERS = 8
# The daemon's background fetch begins with a span in each period. Where the link carries fewer, every layer
# of the node has one on its way, and the daemon's memory holds them all; so it grows with the cores, as
# links and memory of nodes do. It looks also where nothing is to be done: 0.8 % of a core at 20 ms.
CORE_MILLISECONDS, LEAST_MILLISECONDS = 200, 5
SMALLEST_NODE_CORES = 2  # where they are not known


@dataclass(frozen=True)
class Hardware:
    """What a node has; 0 where the kernel did not say."""

    cores: int = 0
    memory: int = 0  # bytes

    @property
    def in_words(self) -> str:
        if not self.cores or not self.memory:
            return "a node whose cores and memory are not known"
        return f"{self.cores} cores, {self.memory / GIB:.1f} GiB of memory"


@dataclass(frozen=True)
class Tuning:
    """What follows from the hardware.

    ``downloads`` and ``unpacks`` are of one image that is pulled in parallel, ``chunk`` is one request of it
    in SOCI's words; ``prefetch_workers`` are the connections of one layer's prefetch, SOCI's GOMAXPROCS;
    ``fetch_milliseconds`` is how often the background fetch begins with a span.
    """

    downloads: int
    chunk: str
    unpacks: int
    prefetch_workers: int
    fetch_milliseconds: int

    @property
    def in_words(self) -> str:
        parallel = f"{self.downloads} connections an image, {self.chunk} each, {self.unpacks} layers unpacked"
        ahead = f"prefetch: {self.prefetch_workers} connections a layer"
        behind = f"background fetch: a span each {self.fetch_milliseconds} ms"
        return f"parallel pulls: {parallel} at a time; {ahead}; {behind}"


def choose(hardware: Hardware) -> Tuning:
    """The settings of the daemon for a node; AWS's for large nodes where its hardware is not known.

    A layer is unpacked by one core. More of them at a time than there are cores only share these, and each
    one fills memory with what is not yet on the disk.
    """
    has_little_memory = 0 < hardware.memory < LITTLE_MEMORY
    by_memory = max(1, round(hardware.memory / GIB)) if hardware.memory else MOST_UNPACKS
    return Tuning(
        downloads=DOWNLOADS_OF_LITTLE_MEMORY if has_little_memory else MOST_DOWNLOADS,
        chunk="16mb",
        unpacks=min(MOST_UNPACKS, hardware.cores or MOST_UNPACKS, by_memory),
        prefetch_workers=max(LEAST_PREFETCH_WORKERS, hardware.cores),
        fetch_milliseconds=max(
            LEAST_MILLISECONDS, CORE_MILLISECONDS // (hardware.cores or SMALLEST_NODE_CORES)
        ),
    )


def read_hardware(host: Host) -> Hardware:
    """The node's hardware, from /proc."""
    cores = len(re.findall(r"^processor\s*:", host.read_text("/proc/cpuinfo"), re.MULTILINE))
    memory = re.search(r"^MemTotal:\s+(\d+) kB", host.read_text("/proc/meminfo"), re.MULTILINE)
    return Hardware(cores, int(memory[1]) << 10 if memory else 0)
