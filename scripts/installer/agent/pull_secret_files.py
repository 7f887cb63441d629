"""What the process of `pull_secrets` leaves on the node: a file for each registry, in memory, and beside them
what it could not do; and on the disk, of which registries these are."""

import contextlib
import os
import stat
import time
from collections.abc import Collection, Sequence

from .credential import Credential
from .errors import clean
from .host import Host
from .image_reference import is_host
from .pull_secret_choice import CONFLICT, Problem
from .pull_secret_choice import HOSTS as MOST_HOSTS
from .pull_secret_content import parse_file
from .transaction import STATE

FOLDER = "/run/soci-cluster/pull-secrets"
# Apart, as they are watched: the node's condition names them, and nothing of the rest.
CONFLICTS = f"{FOLDER}.conflicts"
PROBLEMS = f"{FOLDER}.problems"
# Hundredths of a second since boot at the last look: of a process that is gone the helper uses no files.
ALIVE = f"{FOLDER}.alive"
UNREAD = "pull-secrets-unread"
NEW = f"{FOLDER}.new"  # a file that is being written: none of a host
# Hundredths of a second since boot at which the pull secrets of all pods had been read for the first time. A
# boot empties the memory, and the daemon starts before they are read again: host/55-heal.sh.
READ = f"{FOLDER}.read"
# The names, and nothing else, of the registries that there were files of: for these it waits.
HOSTS = f"{STATE}/pull-secret-hosts"


def problems(host: Host) -> list[Problem]:
    """What the process found wrong on the node: finding, subject and cause."""
    text = host.read_text(CONFLICTS) + host.read_text(PROBLEMS)
    lines = (line.split("\t") for line in text.splitlines())
    return [(words[0], words[1], words[2]) for words in lines if len(words) == 3]


def conflicts(host: Host) -> list[str]:
    """Of these, in words, the registries whose images cannot all be read."""
    return [f"registry {subject}: {cause}" for kind, subject, cause in problems(host) if kind == CONFLICT]


def show(host: Host, found: Sequence[Problem]) -> None:
    """Let these be the problems, and no others.

    Raises:
        OSError: the files cannot be written.
    """
    for path, is_of_conflicts in ((CONFLICTS, True), (PROBLEMS, False)):
        lines = ["\t".join(words) + "\n" for words in found if (words[0] == CONFLICT) is is_of_conflicts]
        text = "".join(lines)
        if not text:
            host.path(path).unlink(missing_ok=True)
        elif text != host.read_text(path):
            host.path(path).parent.mkdir(0o700, exist_ok=True)
            put(host, path, text)


def cleaned(found: Sequence[Problem]) -> list[Problem]:
    """The same, each in one line and without secrets."""
    return [(kind, clean(subject), clean(cause)) for kind, subject, cause in found]


def names(host: Host) -> list[str]:
    """The registries' hosts that there are files of."""
    with contextlib.suppress(OSError):
        return [] if host.path(FOLDER).is_symlink() else sorted(os.listdir(host.path(FOLDER)))
    return []


def present(host: Host) -> dict[str, Credential]:
    """Host to the credential that is on the node."""
    found = {}
    for name in names(host):
        with contextlib.suppress(OSError):
            if credential := parse_file(host.read_text(f"{FOLDER}/{name}")):
                found[name] = credential
    return found


def remember(host: Host, hosts: Collection[str]) -> None:
    """Let there have been files of these registries, too; of too many, those go first that have none.

    Raises:
        OSError: it cannot be written, as on a node from which SOCI has just been taken.
    """
    before = [name for name in host.read_text(HOSTS).split() if is_host(name)]
    known = [name for name in before if name in hosts]
    new = sorted(set(hosts) - set(before))
    after = [*known, *new, *(name for name in before if name not in hosts)][:MOST_HOSTS]
    if set(after) != set(before):
        put(host, HOSTS, "".join(f"{name}\n" for name in after), new=f"{HOSTS}.next")


def now() -> str:
    """The time as the files have it, which the host script and the helper read, too."""
    return f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10_000_000}\n"


def remove(host: Host) -> None:
    """Take all of this off the node: it is not wanted any more."""
    paths = [f"{FOLDER}/{name}" for name in names(host)]
    for path in (*paths, NEW, ALIVE, READ, CONFLICTS, PROBLEMS, HOSTS):
        host.path(path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # of the folder around it, the helper may have a part
        host.path(FOLDER).rmdir()
        host.path(FOLDER).parent.rmdir()


def is_safe(host: Host) -> bool:
    """Whether the folder is, or can be made, where nobody else looks and no disk is below."""
    # Of a symbolic link, the file system that it leads to would count.
    if host.resolve(FOLDER) != FOLDER or not host.is_in_memory(FOLDER):
        return False
    place = host.path(FOLDER)
    for folder in (place.parent, place):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return False
    place.chmod(0o700)
    return True


def put(host: Host, path: str, text: str, *, new: str = NEW) -> None:
    """Write a file of root's alone, wholly or not at all; ``new`` is its name meanwhile."""
    temporary = host.path(new)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)  # of that on the disk, a power cut leaves one or the other
        temporary.replace(host.path(path))
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
