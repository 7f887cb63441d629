"""The way between the lab's registry and its nodes, as a benchmark wants it for a while."""

import contextlib
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from lab_client import REPOSITORY, lab

sys.path.insert(0, str(REPOSITORY / "scripts" / "lab"))

from slow_link import SlowLink


@dataclass(frozen=True)
class LabLink:
    """A way between the registry and the nodes.

    rate is in tc's notation, of each node; delay_s and connection_rate (bytes a second) are `SlowLink`'s.
    """

    label: str
    rate: str
    delay_s: float = 0.0
    connection_rate: int = 0


class Links:
    """The link that all the nodes have at the moment."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = nodes
        self._now: LabLink | None = None
        self._slow: SlowLink | None = None

    def use(self, link: LabLink) -> None:
        if link == self._now:
            return
        self.lift()
        self._now = link
        try:
            for node in self.nodes:
                lab("shape", node, link.rate)
            if link.delay_s or link.connection_rate:
                self._slow = SlowLink(link.delay_s, link.connection_rate)
        except BaseException:
            self.lift()
            raise

    def lift(self) -> None:
        """Give the nodes what the machine has."""
        if self._slow:
            self._slow.close()
        if self._now:
            for node in self.nodes:
                lab("shape", node, "off")
        self._now = self._slow = None


@contextlib.contextmanager
def links_of(nodes: Sequence[str]) -> Generator[Links]:
    """The links of nodes, which have their own again afterwards."""
    links = Links(list(dict.fromkeys(nodes)))
    try:
        yield links
    finally:
        links.lift()
