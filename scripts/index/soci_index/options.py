"""Options that several subcommands have."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from . import tools
from .credentials import Credentials
from .errors import UsageError
from .processes import Children
from .registry import Registry

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """A number of bytes: 4194304, 4MiB, 10g. Raises ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write bytes, or 4MiB, or 20GiB")
    return int(float(found[1]) * UNITS[found[2]])


def count(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 9999")
    return int(text)


def add_tools(parser: argparse.ArgumentParser) -> None:
    """How the programs that do the work are had."""
    group = parser.add_argument_group("programs", "found on PATH, or fetched once with a checked SHA-256")
    group.add_argument("--soci", default="", metavar="PROGRAM", help="the soci program")
    group.add_argument("--oras", default="", metavar="PROGRAM", help="the oras program")
    group.add_argument(
        "--soci-version",
        default="",
        metavar="X.Y.Z",
        help=f"this release; default: any on PATH, else {tools.SOCI_VERSION}",
    )
    group.add_argument(
        "--soci-sha256",
        action="append",
        default=[],
        metavar="[ARCH=]HEX",
        help="of its archive, for one architecture (amd64, arm64) or this one; default: its checksum file's",
    )
    group.add_argument(
        "--soci-releases",
        default=tools.SOCI_RELEASES,
        metavar="URL",
        help="a mirror of SOCI's releases, or oci://REPOSITORY",
    )
    group.add_argument(
        "--oras-releases", default=tools.ORAS_RELEASES, metavar="URL", help="a mirror of oras's releases"
    )
    group.add_argument(
        "--cache",
        type=Path,
        default=tools.cache_directory(),
        metavar="DIRECTORY",
        help="keeps programs and zTOCs; default: %(default)s",
    )


def wanted_tools(parsed: argparse.Namespace) -> tools.Wanted:
    """What the options of `add_tools` ask for."""
    return tools.Wanted(
        parsed.soci,
        parsed.oras,
        parsed.soci_version,
        chosen_digest(parsed.soci_sha256),
        parsed.soci_releases,
        parsed.oras_releases,
    )


def chosen_digest(given: Sequence[str]) -> str:
    """The digest for this machine among those given, each for an architecture or for any; empty when none is
    given.

    Raises:
        UsageError: all are for other architectures: nothing is fetched without its check.
    """
    by_architecture = {
        architecture: digest for architecture, _, digest in (one.rpartition("=") for one in given)
    }
    if not given or "" in by_architecture:
        return by_architecture.get("", "")
    here = tools.architecture()
    if here not in by_architecture:
        raise UsageError(f"there is no --soci-sha256 for {here}", f"--soci-sha256 {here}=HEX")
    return by_architecture[here]


def add_registries(parser: argparse.ArgumentParser) -> None:
    """How registries are reached. Credentials are those of `docker login` and its helpers, and of AWS."""
    group = parser.add_argument_group(
        "registries", "credentials: docker login and its helpers, or AWS's for ECR"
    )
    group.add_argument(
        "--plain-http", action="append", default=[], metavar="HOST[:PORT]", help="a registry without TLS"
    )
    group.add_argument("--ca-file", default="", metavar="FILE", help="the authority of registries, PEM")


def registries(parsed: argparse.Namespace, children: Children, work: Path) -> Callable[[Path], Registry]:
    """The registries as the options of `add_registries` say they are reached, by the oras program."""
    return partial(
        Registry,
        children=children,
        scratch=work,
        credentials=Credentials(work),
        plain_http=tuple(parsed.plain_http),
        ca_file=parsed.ca_file,
    )


def repeated(parsed: argparse.Namespace) -> list[str]:
    """What the options of `add_registries` and `add_tools` were, for another subcommand."""
    found = [f"--plain-http={host}" for host in parsed.plain_http]
    found += [f"--soci-sha256={one}" for one in parsed.soci_sha256]
    for name in ("ca_file", "soci", "oras", "soci_version", "soci_releases", "oras_releases", "cache"):
        if value := getattr(parsed, name):
            found.append(f"--{name.replace('_', '-')}={value}")
    return found


def default_jobs() -> int:
    """As many layers at a time as this process has cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
