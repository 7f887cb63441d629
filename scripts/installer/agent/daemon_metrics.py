"""What the daemon's metrics tell of lazily loaded layers: how much of them was fetched, which are wholly
here, and which reads failed.

Source: soci-snapshotter, fs/metrics/common/metrics.go; fs/backgroundfetcher/resolver.go measures the time of
a layer's background fetch once its last span is there; fs/metrics/layer/layer.go counts the bytes of a
layer's blob that came from the registry, each once (fs/remote/blob.go). A daemon that was started anew
fetches anew, and counts anew. It counts no request that was tried again with success.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 2.0
MOST_BYTES = 8 << 20
_ENDED = re.compile(
    r'^soci_fs_operation_duration_milliseconds_count\{layer="(sha256:[0-9a-f]{64})",'
    r'operation_type="background_fetch"\} [1-9]',
    re.MULTILINE,
)
_COUNT = re.compile(
    r'^soci_fs_operation_count\{layer="(sha256:[0-9a-f]{64})",operation_type="(\w+)"\} ([0-9.e+]+)$',
    re.MULTILINE,
)
_FETCHED = re.compile(
    r'^soci_fs_layer_fetched_size_bytes\{digest="(sha256:[0-9a-f]{64})",[^}]*\} ([0-9.e+]+)$', re.MULTILINE
)


@dataclass(frozen=True)
class Fetched:
    """What was fetched of lazily loaded layers; nothing is known where the daemon says nothing.

    Attributes:
        sizes: bytes of the compressed layer, by digest.
        in_background: the digests of the layers in which the background fetch has begun.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    in_background: frozenset[str] = frozenset()


def read_metrics(path: Path) -> str:
    """What the daemon says on its metrics socket; empty when it says nothing."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(SECONDS)
    answer = bytearray()
    try:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\nHost: soci\r\n\r\n")
        while len(answer) < MOST_BYTES and (block := client.recv(1 << 16)):
            answer += block
    except OSError:
        return ""
    finally:
        client.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return body.decode(errors="replace") if b" 200 " in head.split(b"\r\n", 1)[0] else ""


def local_layers(metrics: str) -> frozenset[str]:
    """The digests of the layers whose background fetch has ended."""
    return frozenset(_ENDED.findall(metrics))


def fetched(metrics: str) -> Fetched:
    """What the daemon has fetched so far, for whatever reason."""
    # Below other layers the same one is another mount with a count of its own. They come in any order.
    sizes: dict[str, int] = {}
    for layer, size in _FETCHED.findall(metrics):
        sizes[layer] = max(sizes.get(layer, 0), int(float(size)))
    return Fetched(sizes, frozenset(_counts(metrics, "background_span_fetch_count")))


def failed_reads(metrics: str) -> dict[str, int]:
    """Layer to how often a pod got an I/O error in the place of a file's bytes."""
    return _counts(metrics, "fuse_file_read_failure_count")


def failed_fetches(metrics: str) -> frozenset[str]:
    """The digests of the layers that the background fetch has given up: it tries none of them again."""
    return frozenset(_counts(metrics, "background_span_fetch_failure_count"))


def _counts(metrics: str, operation: str) -> dict[str, int]:
    """Layer to how often the operation was counted, where it was."""
    found = {layer: int(float(count)) for layer, kind, count in _COUNT.findall(metrics) if kind == operation}
    return {layer: count for layer, count in found.items() if count}
