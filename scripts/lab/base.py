"""Root file systems made by debootstrap: the nodes' own, and that of the Python image."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from cache import cached
from settings import VERSIONS, LabError

NODE_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "iproute2",
    "conntrack",
    "ethtool",
    "socat",
    "fuse3",
    "kmod",
    "mount",
    "procps",
    "util-linux",
    "ca-certificates",
    "curl",
)
PYTHON_PACKAGES = ("python3", "util-linux", "ca-certificates")

# Nothing on a node may start by itself behind a test's back.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-firstboot.service",
)


def node_root() -> Path:
    """Return the directory every node's overlay lies on; made when the cache does not hold it.

    It must never change while a node is up, so it is keyed by its recipe and left alone once made.
    """
    return root("node", NODE_PACKAGES)


def python_root() -> Path:
    """Return a Debian root with Python 3, the content of the stand-in for the stock `python` image."""
    return root("python", PYTHON_PACKAGES)


def root_key(kind: str, packages: tuple[str, ...]) -> str:
    """Return what names a root in the cache: the recipe, not the day's package versions."""
    recipe = repr((kind, VERSIONS["debian"], sorted(packages), MASKED_UNITS))
    return f"{kind}-root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


def root(kind: str, packages: tuple[str, ...]) -> Path:
    """Return a Debian root with these packages, made when the cache does not hold it."""

    def make(directory: Path) -> None:
        _debootstrap(directory, packages)
        _trim(directory)
        if kind == "node":
            _mask_units(directory)

    return cached(root_key(kind, packages), make)


def _debootstrap(root: Path, packages: tuple[str, ...]) -> None:
    options = ["--variant=minbase", f"--include={','.join(packages)}"]
    command = ["debootstrap", *options, VERSIONS["debian"], str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise LabError(f"debootstrap failed ({done.returncode}); is the Debian mirror reachable?\n{words}")


def _trim(root: Path) -> None:
    for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    (root / "var/lib/apt/lists/partial").mkdir()
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    for name in ("etc/hostname", "etc/machine-id", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)


def _mask_units(root: Path) -> None:
    for unit in MASKED_UNITS:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
