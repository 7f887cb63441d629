"""Objects of the API server, followed in a thread of their own: a list, then what changes of it.

As the reflectors of Kubernetes do it: the list comes out of the server's watch cache (``resourceVersion=0``),
the watch goes on where the list ended, bookmarks keep that place young, and a place that the server has
forgotten (410) begins again with a list. Source: Kubernetes API concepts, "Efficient detection of changes".
"""

import codecs
import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .kubelet_identity import Connection, IdentityError, Json, KubeletIdentity, Proof

ANSWER_SECONDS = 30.0  # for one answer, and between two words of a list
# As seldom as is decent: each begins with a new connection, for which a plugin may have to be run.
WATCH_SECONDS = (1800, 3600)
FIRST_PAUSE, LAST_PAUSE = 0.25, 15.0
LONG_SECONDS = 10.0  # a watch that lasted as long was a success
CHUNK = 64 << 10
LARGEST = 8 << 20  # of one object: etcd keeps no larger ones than 1.5 MiB

Item = TypeVar("Item")


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """All that is there now."""

    items: dict[str, Item]


@dataclass(frozen=True)
class Changed(Generic[Item]):
    """An object is there, or was changed."""

    name: str
    item: Item


@dataclass(frozen=True)
class Gone:
    """An object is there no more."""

    name: str


@dataclass(frozen=True)
class Trouble:
    """What was tried in vain, once more; ``status`` is that of the answer, 0 without one."""

    words: str
    status: int


News = Listed[Any] | Changed[Any] | Gone | Trouble


class RefusedError(Exception):
    """The API server's answer is an error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the API server answers {status} {http.client.responses.get(status, '')}".strip())
        self.status = status


class Reflector(threading.Thread):
    """Follows the objects that a field selector chooses, until it is told to stop."""

    def __init__(
        self,
        identity: KubeletIdentity,
        path: str,
        selector: str,
        keep: Callable[[Json], Any],
        tell: Callable[[News], None],
    ) -> None:
        """``keep`` makes of an object what is remembered of it; ``tell`` gets all news, in order."""
        super().__init__(name=f"{path}?{selector}", daemon=True)
        self._identity = identity
        self._path = f"{path}?fieldSelector={selector.replace('=', '%3D')}"
        self._keep = keep
        self._tell = tell
        self._connection: Connection | None = None
        self._proof: Proof | None = None  # that it was opened with
        self._ended = threading.Event()
        self._version = ""  # where the next watch goes on; empty: with a list
        self._fresh = False  # whether anything came since the last trouble

    def stop(self) -> None:
        """End soon; nothing is told any more."""
        self._ended.set()
        if connection := self._connection:
            connection.interrupt()

    def run(self) -> None:
        pause = FIRST_PAUSE
        while not self._ended.is_set():
            self._fresh = False
            status = 0
            try:
                self._once()
                words = ""
            except RefusedError as error:
                words, status = str(error), error.status
            except (OSError, http.client.HTTPException, ValueError, IdentityError) as error:
                words = str(error) or type(error).__name__
            except Exception as error:  # noqa: BLE001 (a thread that ends would never be missed)
                words = f"{type(error).__name__} in the installer's own program"
            if self._ended.is_set():
                return
            if status == 401 and self._proof:
                self._identity.forget(self._proof)
            if status == 410:
                self._version = ""
            elif words:
                self._tell(Trouble(words, status))
            pause = FIRST_PAUSE if self._fresh else min(pause * 2, LAST_PAUSE)
            self._ended.wait(pause * random.uniform(0.5, 1))

    def _once(self) -> None:
        """List unless the place is known, then watch to the end of it."""
        connection = self._identity.connect(ANSWER_SECONDS)
        self._connection, self._proof = connection, connection.proof
        try:
            if not self._version:
                self._list(connection)
            self._watch(connection)
        finally:
            self._connection = None
            connection.close()

    def _list(self, connection: Connection) -> None:
        items: dict[str, Any] = {}

        def take(item: Json) -> None:
            items[_name(item)] = self._keep(item)

        response = connection.ask("GET", f"{self._path}&resourceVersion=0")
        _check(response)
        version = read_list(response.read1, take)
        response.read()
        self._say(Listed(items))
        self._version = version

    def _watch(self, connection: Connection) -> None:
        seconds = random.randint(*WATCH_SECONDS)
        began = time.monotonic()
        wanted = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={self._version}"
        response = connection.ask("GET", f"{self._path}&{wanted}")
        _check(response)
        if connection.sock:
            # TCP finds out about a server that has vanished; this is for one that hangs.
            connection.sock.settimeout(seconds + ANSWER_SECONDS)
        # Looked at once the connection can be interrupted: who stops before that is seen here.
        while not self._ended.is_set() and (line := response.readline(LARGEST)):
            if not line.endswith(b"\n"):
                raise ConnectionError("the watch was cut short")
            self._event(json.loads(line))
            self._fresh = True
        self._fresh |= time.monotonic() - began > LONG_SECONDS

    def _event(self, event: Json) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise RefusedError(int(item.get("code") or 500))
        if kind == "DELETED":
            self._say(Gone(_name(item)))
        elif kind in ("ADDED", "MODIFIED"):
            self._say(Changed(_name(item), self._keep(item)))
        self._version = item["metadata"]["resourceVersion"]

    def _say(self, news: News) -> None:
        if not self._ended.is_set():
            self._tell(news)


def _name(item: Json) -> str:
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def _check(response: http.client.HTTPResponse) -> None:
    if response.status != 200:
        raise RefusedError(response.status)


def read_list(read: Callable[[int], bytes], take: Callable[[Json], None]) -> str:
    """Read a list of the API object by object, so that never more than one of them is in memory; its
    resourceVersion.

    Args:
        read: the next bytes, at most so many; none at the end.
        take: called with each object.

    Raises:
        ValueError: it is no such list, or ends too early.
    """
    text, version = _Text(read), ""
    text.expect("{")
    while True:
        key = text.value()
        text.expect(":")
        if key == "items" and text.peek() == "[":
            text.expect("[")
            while text.peek() != "]":
                take(text.value())
                if text.peek() == ",":
                    text.expect(",")
            text.expect("]")
        else:
            value = text.value()
            version = value["resourceVersion"] if key == "metadata" else version
        if text.peek() == "}":
            break
        text.expect(",")
    if not version:
        raise ValueError("a list without resourceVersion")
    return version


class _Text:
    """JSON that comes piece by piece."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._json = json.JSONDecoder()
        self._text = ""

    def peek(self) -> str:
        """The next character that is no white space."""
        self._text = self._text.lstrip()
        while not self._text:
            self._more()
            self._text = self._text.lstrip()
        return self._text[0]

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError("the API server's list is not understood")
        self._text = self._text[1:]

    def value(self) -> Any:
        """The next value: an object, a list or a text, as these end with a mark of their own."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text)
            except json.JSONDecodeError:
                self._more()
                continue
            self._text = self._text[end:]
            return value

    def _more(self) -> None:
        piece = self._read(CHUNK)
        if not piece or len(self._text) > LARGEST:
            raise ValueError("the API server's list is cut short or not understood")
        self._text += self._utf8.decode(piece)
