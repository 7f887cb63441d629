"""Layers whose blobs are gone from containerd's content store, brought to soci's directory before the switch.

Such layers still lie unpacked in overlayfs's directory. They are linked or copied beside soci's own while
everything still runs; the host script only has to move them to their places after containerd's restart.
Whatever cuts this short leaves nothing but copies, which the next install deletes.
"""

import contextlib
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from .ctr import Ctr
from .errors import InstallError
from .host import Host, Result
from .slots import FIRST, SECOND, Slot
from .transaction import LOCK, STATE, run_script

FROM = "overlayfs"  # the snapshotter whose layers are carried over
COPIES = "carried-by-soci-cluster"  # below a slot's data, also in the host script
FOLDERS = f"{STATE}/originals/folders"  # what an uninstall removes, one directory a line, deepest first
LOCK_SECONDS = 120
LINKING_SECONDS = 400
COPIED_BYTES_PER_SECOND = 10 << 20  # many small files, from and to one network disk
KILL_SECONDS = 5
UNIT = "soci-cluster-copy"  # also in the host script
IN_UNIT = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={UNIT}")
SEE = "see journalctl and df on the node"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Layers:
    """An image's unpacked layers: the digest of its configuration, and their chain IDs, lowest first."""

    config: str
    chains: tuple[str, ...]

    def line(self) -> str:
        """As the host script reads it."""
        return " ".join((self.config, *self.chains)) + "\n"


def carry(
    ctr: Ctr,
    slot: Slot,
    name: str,
    images: Sequence[Layers],
    *,
    bytes_to_copy: int,
    log: Log = lambda line: None,
) -> list[Layers]:
    """Bring the layers of ``images`` to the slot's directory, for the transaction ``name``.

    Layers are linked, or, when room for ``bytes_to_copy`` was found, copied where they cannot be linked. The
    images of which every layer is there are returned; the others are left out, and pulled again.

    Raises:
        InstallError: a layer could be neither linked nor copied, or not in time.
    """
    if not images:
        return []
    host = ctr.host
    with _locked(host):
        remember_folders(host, slot.data)
        copies = _folder_of_copies(host, slot)
        copier = _Copier(ctr, copies, name, bytes_to_copy, log)
        complete = [layers for layers in images if copier.copy_image(layers)]
        copier.sync()
    return complete


def seconds_for(bytes_to_copy: int) -> int:
    """How long all copies may take."""
    return LINKING_SECONDS + -(-bytes_to_copy // COPIED_BYTES_PER_SECOND)


def clear_copies(host: Host, script: bytes) -> None:
    """Delete what an install that was cut short had copied; no start of containerd waits for that."""
    folders = [f"{slot.data}/{COPIES}{end}" for slot in (FIRST, SECOND) for end in ("", ".gone")]
    if any(map(host.exists, folders)):
        run_script(host, script, "clear-copies", timeout=600)


def remember_folders(host: Host, path: str) -> None:
    """Write down which directories on the way to ``path`` do not exist: they will be ours to remove.

    Only before the first committed install: later the record is complete.
    """
    current = host.path(f"{STATE}/current")
    if current.is_symlink() or current.exists():
        return
    known = host.read_text(FOLDERS).splitlines()
    folder = PurePosixPath(path)
    missing = []
    while not host.path(host.resolve(str(folder))).is_dir():
        missing.append(str(folder))
        folder = folder.parent
    if new := [one for one in missing if one not in known]:
        host.write(FOLDERS, "".join(f"{one}\n" for one in (*known, *new)).encode(), 0o600)


@contextlib.contextmanager
def _locked(host: Host) -> Generator[None]:
    """The lock under which others delete copies: what was deleted in part must not be taken for complete."""
    host.path(STATE).mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(host.locked(LOCK, LOCK_SECONDS))
        except TimeoutError as error:
            raise InstallError("lock", f"another install holds {LOCK}", "it is tried again") from error
        yield


def _folder_of_copies(host: Host, slot: Slot) -> str:
    """The directory for the copies, made when it is missing, as a path without links.

    Nobody but root may look into layers, or run what is in them (containerd's CVE-2021-41103).
    """
    data = host.resolve(slot.data)
    for path, mode in ((data, 0o711), (f"{data}/{COPIES}", 0o700)):
        folder = host.path(path)
        if not folder.is_dir():
            folder.mkdir(mode)
    return f"{data}/{COPIES}"


class _Copier:
    """Copies images, one after the other, to one directory on the host."""

    def __init__(self, ctr: Ctr, copies: str, name: str, bytes_to_copy: int, log: Log) -> None:
        self._ctr = ctr
        self._host = ctr.host
        self._copies = copies
        self._name = name
        self._may_copy = bytes_to_copy > 0
        self._seconds = seconds_for(bytes_to_copy)
        self._deadline = time.monotonic() + self._seconds
        self._log = log

    def copy_image(self, layers: Layers) -> bool:
        """Copy an image's layers; whether all of them are there."""
        key = f"soci-cluster-carry-{self._name}"
        top = layers.chains[-1]
        # By ctr's own label this holds the layers until the copy is made: the kubelet may remove the image.
        mount = self._snapshots("prepare", "--target", "/", key, top)
        if not mount:
            return False
        try:
            sources = lower_folders(mount)
            # An image can name a snapshot of several layers as its only one; others' layers are no secret.
            if len(sources) != len(layers.chains):
                self._log(f"{top} has other layers than its image says; the image is pulled again")
                return False
            pairs = zip(layers.chains, reversed(sources), strict=True)
            return all(self._copy_layer(source, chain) for chain, source in pairs)
        finally:
            self._snapshots("rm", key)

    def sync(self) -> None:
        """Have everything that was copied survive a power cut."""
        result = self._run("sync", "-f", self._copies)
        if result.code != 0:
            raise InstallError("copy", f"the layers were not synced: {_last_word(result)}", SEE)

    def _copy_layer(self, source: str, chain: str) -> bool:
        """Copy one layer; False when it has to be left out.

        By hard links, which need no space and hardly any time, but work below one mount point only: lower
        layers never change. A layer has its name only once it is complete.
        """
        target = f"{self._copies}/{chain}"
        if self._host.path(target).is_dir():  # another image has it, too
            return True
        part = f"{target}.{self._name}"
        self._host.path(part).mkdir()
        if self._may_copy:  # across mount points: there is no use in trying links
            result, problem = self._cp("-a", source, part, "--preserve=xattr"), f"was not copied to {target}"
        else:
            result = self._cp("-al", source, part)
            problem = f"cannot be linked to {target}, and its copy was not planned"
        # An image's author chooses how many names a file has; file systems have a limit.
        if result.code != 0 and not self._may_copy and "Too many links" in result.error:
            self._log(f"the layer {source} cannot be linked; its image is pulled again")
            self._run("rm", "-rf", part)
            return False
        if result.code != 0:
            raise InstallError("copy", f"the layer {source} {problem}: {_last_word(result)}", SEE)
        self._host.path(part).rename(self._host.path(target))
        return True

    def _cp(self, how: str, source: str, target: str, *options: str) -> Result:
        return self._run("env", "LC_ALL=C", "cp", how, *options, f"{source}/.", target)

    def _run(self, *command: str) -> Result:
        """Run a command in a unit of its own on the host, where it ends when the time is over.

        To end nsenter would not end it: when the agent is killed, whoever deletes the copies stops the unit.
        """
        left = round(self._deadline - time.monotonic())
        result = Result(124, "", "")
        if left > 0:
            limit = ("timeout", "-k", str(KILL_SECONDS), str(left))
            result = self._host.run(*IN_UNIT, *limit, *command, timeout=left + 2 * KILL_SECONDS)
        if result.code in (124, 137):
            cause = f"the images' layers were not copied in {self._seconds} seconds"
            raise InstallError("copy", cause, "use a faster disk, or fresh nodes")
        return result

    def _snapshots(self, *arguments: str) -> str:
        return self._ctr.run("snapshots", "--snapshotter", FROM, *arguments)


def lower_folders(mount: str) -> list[str]:
    """The directories of a snapshot's layers, the topmost first, from ctr's mount command. A snapshot on none
    is a bind mount."""
    if bind := re.findall(r"^mount -t bind (\S+) ", mount, re.MULTILINE):
        return bind
    found = re.findall(r"[ ,]lowerdir=([^, \n]*)", mount)
    return [folder for folder in found[-1].split(":") if folder] if found else []


def _last_word(result: Result) -> str:
    return result.last_error.rpartition(": ")[2]
