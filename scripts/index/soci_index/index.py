"""`soci-index IMAGE...`: the images' index, made and pushed."""

import argparse
from collections.abc import Sequence

from . import options


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soci-index",
        description="Give images their SOCI index.",
        epilog="Exit status: 0 every image has its index, or needs none; 1 some failed; 2 usage.",
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="name:tag or name@digest")
    options.add_registries(parser)
    options.add_tools(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Index, print, and return the exit status."""
    parse(arguments)
    return 0
