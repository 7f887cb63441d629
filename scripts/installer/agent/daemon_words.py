"""What a daemon says of images and layers, from the node's journal: the last word on an image counts.

Its lines are those of soci-snapshotter 0.16.1.
"""

import re

from .errors import clean
from .host import Host
from .slots import Slot

SECONDS = 8.0
MOST_CHARACTERS = 100
# Since the boot, and of its present start: what it could not mount, and its last word on each layer that it
# could not read. With a pod that reads on, there may be thousands of these.
JOURNAL = """
said() { timeout -k 1 3 journalctl --no-pager --output=cat --lines=20000 "$@"; }
said --boot --unit="$1" | grep -E 'failed to (prepare|restore) remote|parallel pull/unpack' | tail -n 2000
echo ---
said _SYSTEMD_INVOCATION_ID="$2" | awk '
    /failed to restore remote/
    / msg="(statFile error|error trying to resolve layer)/ && match($0, /sha256:[0-9a-f]+/) {
        last[substr($0, RSTART, RLENGTH)] = $0
    }
    END { for (layer in last) print last[layer] }
' | tail -n 2000
"""
NOT_RESTORED = re.compile(r"failed to restore remote snapshot (?:\S*/)?(sha256:[0-9a-f]{64})")
OF_IMAGE = re.compile(
    r'failed to (?:prepare|restore) remote snapshot.*? error="'
    r'(?:unable to fetch SOCI artifacts for image|failed to resolve layer \\"\S+\\" from) \\"([^"\\]+)\\": '
    r'((?:[^"\\]|\\.)*)'
)
PARALLEL_LAYER = re.compile(r'parallel pull/unpack.* layerDigest="?(sha256:[0-9a-f]{64})')
# Of a file that a pod wanted to read (fs/layer/node.go), and of a span that nobody waits for.
NOT_READ = re.compile(
    r'^time="([^"]+)" .*?msg="(?:statFile error|error trying to resolve layer)'
    r".*?(sha256:[0-9a-f]{64}).*$",
    re.MULTILINE,
)
ERROR = re.compile(r' error="((?:[^"\\]|\\.)*)"')


class Words:
    """What was read; ``is_whole`` is False where the journal did not end in time.

    ``unread`` has of a layer when the daemon last could not read of it, and why.
    """

    def __init__(self, text: str, is_whole: bool = True) -> None:
        boot, _, present = text.partition("---\n")
        self.is_whole = is_whole
        self.not_restored = set(NOT_RESTORED.findall(present))
        self.parallel = set(PARALLEL_LAYER.findall(boot))
        said = OF_IMAGE.findall(boot)
        self.unread = {line[2]: (line[1], _error(line[0])) for line in NOT_READ.finditer(present)}
        self.reasons = {image: _unescaped(error) for image, error in said}


def _unescaped(error: str) -> str:
    return error.replace(r"\n", " ").replace("\\", "")


def _error(line: str) -> str:
    found = ERROR.search(line)
    return _unescaped(found[1]) if found else ""


def read(host: Host, slot: Slot, start: str = "") -> Words:
    """The words of the slot's daemon; ``start`` is what systemd calls the invocation of its present start."""
    result = host.run("sh", "-c", JOURNAL, "words", slot.unit, start or "-", timeout=SECONDS)
    return Words(result.output, result.code != 124)


def in_short(error: str) -> str:
    """The daemon's word on an image, fit to be told: without the addresses that it asked, and the word by
    which ours begin a remedy. A registry has a part in it, which may be anybody's."""
    without = re.sub(r' \(host ".*?\)', "", error).rpartition('": ')[2]
    return re.sub("(?i)remedy", "…", clean(without))[-MOST_CHARACTERS:]
