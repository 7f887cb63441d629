"""What a daemon says of images and layers, from the node's journal: the last word on an image counts.

Its lines are those of soci-snapshotter 0.16.1.
"""

import re

from .errors import clean
from .host import Host
from .slots import Slot

SECONDS = 8.0
MOST_CHARACTERS = 100
# Since the boot, and what it could not mount at its present start.
JOURNAL = """
said() { timeout -k 1 3 journalctl --no-pager --output=cat --lines=20000 "$@"; }
said --boot --unit="$1" | grep -E 'failed to (prepare|restore) remote|parallel pull/unpack' | tail -n 2000
echo ---
said _SYSTEMD_INVOCATION_ID="$2" | grep 'failed to restore remote' | tail -n 2000
"""
NOT_RESTORED = re.compile(r"failed to restore remote snapshot (?:\S*/)?(sha256:[0-9a-f]{64})")
OF_IMAGE = re.compile(
    r'failed to (?:prepare|restore) remote snapshot.*? error="'
    r'(?:unable to fetch SOCI artifacts for image|failed to resolve layer \\"\S+\\" from) \\"([^"\\]+)\\": '
    r'((?:[^"\\]|\\.)*)'
)
PARALLEL_LAYER = re.compile(r'parallel pull/unpack.* layerDigest="?(sha256:[0-9a-f]{64})')


class Words:
    """What was read; ``is_whole`` is False where the journal did not end in time."""

    def __init__(self, text: str, is_whole: bool = True) -> None:
        boot, _, present = text.partition("---\n")
        self.is_whole = is_whole
        self.not_restored = set(NOT_RESTORED.findall(present))
        self.parallel = set(PARALLEL_LAYER.findall(boot))
        said = OF_IMAGE.findall(boot)
        self.reasons = {image: error.replace(r"\n", " ").replace("\\", "") for image, error in said}


def read(host: Host, slot: Slot, start: str = "") -> Words:
    """The words of the slot's daemon; ``start`` is what systemd calls the invocation of its present start."""
    result = host.run("sh", "-c", JOURNAL, "words", slot.unit, start or "-", timeout=SECONDS)
    return Words(result.output, result.code != 124)


def in_short(error: str) -> str:
    """The daemon's word on an image, fit to be told: without the addresses that it asked, and the word by
    which ours begin a remedy. A registry has a part in it, which may be anybody's."""
    without = re.sub(r' \(host ".*?\)', "", error).rpartition('": ')[2]
    return re.sub("(?i)remedy", "…", clean(without))[-MOST_CHARACTERS:]
