"""The command line.

    soci-index [options] IMAGE...           give images their SOCI index
    soci-index advise [options] IMAGE       how to load an image

A subcommand is a module of this package with a `main(arguments) -> exit status`. An image whose whole name is
that of a subcommand is written with its tag: advise:latest.
"""

import importlib
import sys
from collections.abc import Sequence

SUBCOMMANDS = {"advise": "advise"}
DEFAULT = "index"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first word names, else index; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    module = SUBCOMMANDS.get(words[0]) if words else None
    if module:
        words = words[1:]
    return importlib.import_module(f".{module or DEFAULT}", __package__).main(words)
