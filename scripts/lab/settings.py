"""Where the lab keeps its files, the versions it is made of, and the error every module raises."""

import os
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
VERSIONS = tomllib.loads((HERE / "versions.toml").read_text())

ADDRESS = "10.77.0.1"
BRIDGE = "br-lab"
API_PORT, REGISTRY_PORT, RELEASE_PORT = 6443, 5000, 8080
FEATURE_GATES = {"ImageVolume": True}  # of Kubernetes; on by default from 1.35 on
REGISTRY = f"{ADDRESS}:{REGISTRY_PORT}"


class LabError(Exception):
    """A step failed; the text says what, why, and what to do about it."""


def cache_directory() -> Path:
    """Return what survives `lab reset`: binaries, node root and images, keyed by what they are made from."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soci-cluster"


def state_directory() -> Path:
    """Return the running lab's own directory; LAB_DIR in the environment overrides <repository>/.lab."""
    return Path(os.environ.get("LAB_DIR") or REPOSITORY / ".lab").absolute()
