"""Nodes that version 0.1 of the installer left behind, as its own agent and host script wrote them.

installed_by_0_1.json has, for each kind of node, the files before that install (`before`), after it (`root`),
and the state of the fake daemons (`fake`): path to octal mode of a folder, or to mode and content of a file
or link. It was made once, by that version, in the node of tests/faults; it is never made again.
"""

import json
import os
import stat
from pathlib import Path
from typing import Literal

FROZEN = json.loads(Path(__file__).with_name("installed_by_0_1.json").read_text())
KINDS = tuple(FROZEN)

Part = Literal["before", "root", "fake"]


def older_tree(kind: str, part: Part, root: Path, fake: Path, programs: Path) -> dict[str, tuple[int, bytes]]:
    """Path to mode and content, for a node in ``root`` whose daemons' state is in ``fake``."""
    places = {"@ROOT@": root, "@FAKE@": fake, "@FAKES@": programs, "@PATH@": os.environ["PATH"]}
    tree = {}
    for path, entry in FROZEN[kind][part].items():
        mode, text = (entry, "") if isinstance(entry, str) else entry
        for word, place in places.items():
            text = text.replace(word, str(place))
        tree[path] = (int(mode, 8), text.encode())
    return tree


def write_older_tree(target: Path, tree: dict[str, tuple[int, bytes]]) -> None:
    """Add the tree to the folder ``target``."""
    for path, (mode, content) in tree.items():  # a folder comes before what is in it
        place = target / path
        if stat.S_ISDIR(mode):
            place.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISLNK(mode):
            place.symlink_to(content.decode())
            continue
        else:
            place.write_bytes(content)
        place.chmod(stat.S_IMODE(mode))
