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
REGISTRY = f"{ADDRESS}:{REGISTRY_PORT}"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
# Where tests put registries, and the names that nodes know them by: no name server tells them.
REGISTRY_NAMES = {
    "10.77.0.2": (ECR, "private.registry.lab", "public.registry.lab", "header.registry.lab"),
    "10.77.0.3": ("store.registry.lab",),
    "10.77.0.4": ("own-ca.registry.lab", "unverified.registry.lab"),
    "10.77.0.5": ("client.registry.lab",),
    "10.77.0.6": ("mirrored.registry.lab",),
}


class LabError(Exception):
    """A step failed; the text says what, why, and what to do about it."""


def cache_directory() -> Path:
    """Return what survives `lab reset`: binaries, node root and images, keyed by what they are made from."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soci-cluster"


def state_directory() -> Path:
    """Return the running lab's own directory; LAB_DIR in the environment overrides <repository>/.lab."""
    return Path(os.environ.get("LAB_DIR") or REPOSITORY / ".lab").absolute()
