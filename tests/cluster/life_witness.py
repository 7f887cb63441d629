"""What a node says of itself while something happens to it."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.marks import LABEL
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.cluster.looks import condition_of

LOOK_SECONDS = 0.3  # a repair, during which a node says that it does not serve, takes longer


@dataclass(frozen=True)
class Word:
    """The SociReady condition of a node, and whether it has the label by which workloads select it."""

    is_ready: bool
    reason: str
    message: str
    is_selected: bool

    @classmethod
    def of(cls, node: Any) -> "Word":
        found = condition_of(node)
        words = (found.get("reason") or "", found.get("message") or "")
        return cls(found.get("status") == "True", *words, LABEL in (node.metadata.labels or {}))

    @property
    def says_no(self) -> bool:
        """Whether nobody can take the node for one that serves."""
        return not self.is_ready and not self.is_selected


class Witness:
    """Notes each change of a node's word and when it was seen, by time.monotonic, until it is told to end."""

    def __init__(self, api: Any, node: str) -> None:
        self.words: list[tuple[float, Word]] = []
        self._api, self._node = api, node
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            with contextlib.suppress(ApiException, HTTPError):  # the next look says as much
                word = Word.of(self._api.read_node(self._node))
                if not self.words or self.words[-1][1] != word:
                    self.words.append((time.monotonic(), word))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def first(self, since: float, means: Callable[[Word], bool]) -> float | None:
        """When the first word was seen that means this and was not yet replaced by another at ``since``."""
        until = [at for at, _ in self.words[1:]] + [float("inf")]
        for (at, word), replaced in zip(self.words, until, strict=True):
            if replaced > since and means(word):
                return max(at, since)
        return None

    @property
    def serves(self) -> bool:
        """Whether the node says so now, and is selected."""
        return any(word.is_ready and word.is_selected for _, word in self.words[-1:])

    @property
    def settled(self) -> float:
        """Since when its last word stands."""
        return self.words[-1][0]

    @property
    def history(self) -> str:
        """For a person: its words, each with the seconds since the first."""
        return "; ".join(
            f"{at - self.words[0][0]:.1f} s {word.is_ready} {word.reason}"
            f"{'' if word.is_selected else ' (no label)'}: {word.message[:80]}"
            for at, word in self.words
        )
