"""A SOCI release: fetched, judged by its digest, and only then unpacked on the node.

Artifact layout: soci-snapshotter's RELEASES.md; an archive holds exactly the members below at its top level.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from . import credential_helper, daemon_environment, node_http, release_blob
from .errors import InstallError
from .host import Host, sync_directory

VERSIONS = "/opt/soci-cluster/versions"
PROGRAMS = ("soci", "soci-snapshotter-grpc")
MEMBERS = frozenset((*PROGRAMS, "NOTICE.md", "THIRD_PARTY_LICENSES"))
MAX_BYTES = 200 << 20
TIMEOUT_SECONDS = 30
TOTAL_SECONDS = 600
DIGEST_FILE = "archive.sha256"
NOTE_FILE = "programs"  # of each program as it was unpacked: digest, bytes and name, a line each


def archive_url(release_url: str, version: str, architecture: str, digest: str) -> str:
    """Where the static build of ``version`` is; an older node's glibc cannot run the dynamic one.

    In a registry (`oci://`) it is the blob of its digest, so that no tag is looked up.
    """
    if release_blob.is_blob(release_url):
        return f"{release_url}@sha256:{digest}"
    return f"{release_url}/v{version}/soci-snapshotter-{version}-linux-{architecture}-static.tar.gz"


def folder(host: Host, version: str, digest: str) -> str:
    """The directory on the node for the programs of this archive, whether it is there or not.

    Another archive of the same version gets one of its own: the daemon that runs must stay, to go back to.
    """
    plain, own = f"{VERSIONS}/{version}", f"{VERSIONS}/{version}-{digest[:12]}"
    is_taken = host.read_text(f"{plain}/{DIGEST_FILE}").strip() not in ("", digest)
    return own if is_taken or host.exists(own) else plain


def is_present(host: Host, version: str, digest: str) -> bool:
    """Whether exactly this archive is already unpacked on the node."""
    place = folder(host, version, digest)
    return (
        host.read_text(f"{place}/{DIGEST_FILE}").strip() == digest
        and all(host.exists(f"{place}/{program}") for program in PROGRAMS)
        and not changed_programs(host, place)
    )


def changed_programs(host: Host, place: str) -> list[str]:
    """The programs in a release's directory that are not as they were unpacked: others replaced or removed
    them. Without a note, which earlier versions did not make, none is known to be."""
    note = host.path(f"{place}/{NOTE_FILE}")
    lines = (line.split() for line in host.read_text(f"{place}/{NOTE_FILE}").splitlines())
    noted = [words for words in lines if len(words) == 3]
    return [
        f"{place}/{name}"
        for digest, size, name in noted
        if _is_changed(host.path(host.resolve(f"{place}/{name}")), note, digest, size)
    ]


def _is_changed(program: Path, note: Path, digest: str, size: str) -> bool:
    """A program has a hundred megabytes, so it is read only if anything became of it since the note. Whatever
    is written, renamed or linked has a new ctime then; nobody can set that."""
    try:
        found = program.stat()
    except OSError:
        return True
    if str(found.st_size) != size:
        return True
    return found.st_ctime_ns >= note.stat().st_ctime_ns and _sha256(program) != digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_programs(place: Path) -> None:
    """Note what the programs in this directory are, for `changed_programs`. To be called once they have
    their names there: a rename changes their ctime."""
    programs = [place / name for name in PROGRAMS]
    lines = [f"{_sha256(path)} {path.stat().st_size} {path.name}\n" for path in programs]
    with (place / f"{NOTE_FILE}.new").open("w") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    (place / f"{NOTE_FILE}.new").rename(place / NOTE_FILE)


def install(
    host: Host, url: str, version: str, digest: str, variables: Mapping[str, str], *, authorities: str = ""
) -> None:
    """Put the programs of a release into their own directory on the node, in one step.

    Args:
        host: the node.
        url: where the archive is, see `archive_url`.
        version: that of the release.
        digest: the archive's sha256.
        variables: the node's proxies and trust, see `daemon_environment`.
        authorities: PEM of the CAs that its registries have besides.

    Raises:
        InstallError: the download failed, or is not what the digest names. The node is unchanged then.
    """
    with tempfile.TemporaryFile() as archive:
        host.in_network(lambda: download(host, url, archive, digest, variables, authorities=authorities))
        unpack(host, archive, version, digest)


def _open(host: Host, url: str, variables: Mapping[str, str], authorities: str) -> Any:
    opener = node_http.opener(host, variables, authorities)
    if not release_blob.is_blob(url):
        return opener.open(url, timeout=TIMEOUT_SECONDS)
    return release_blob.open_blob(
        opener, url, TIMEOUT_SECONDS, lambda name: credential_helper.get(host, name, variables)
    )


def download(
    host: Host,
    url: str,
    archive: BinaryIO,
    digest: str,
    variables: Mapping[str, str],
    *,
    authorities: str = "",
) -> None:
    """Fetch ``url`` into ``archive``, and check its sha256; arguments and errors as of `install`."""
    step, remedy = "download", "check soci:releaseUrl, the proxy and the node's way out"
    received, total = hashlib.sha256(), 0
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with _open(host, url, variables, authorities) as response:
            expected = response.headers.get("Content-Length")
            while block := response.read(1 << 20):
                total += len(block)
                if total > MAX_BYTES:
                    raise InstallError(step, f"{url} is larger than {MAX_BYTES >> 20} MiB", remedy)
                if time.monotonic() > deadline:
                    raise InstallError(step, f"{url} took longer than {TOTAL_SECONDS} s", remedy)
                received.update(block)
                archive.write(block)
    except (OSError, ValueError, EOFError, http.client.HTTPException) as error:
        asked = release_blob.Blob.parse(url).url if release_blob.is_blob(url) else url
        place = node_http.place(daemon_environment.proxy_for(asked, variables))
        by = f" (through the proxy {place})" if place else ""
        raise InstallError(step, f"{url}: {error}{by}", remedy) from error
    if expected is not None and total != int(expected):
        raise InstallError(step, f"{url} was cut short: {total} of {expected} bytes", remedy)
    if received.hexdigest() != digest:
        archive.seek(0)
        kind = "an HTML page" if archive.read(512).lstrip()[:1] == b"<" else f"{total} bytes"
        raise InstallError(
            step,
            f"{url} is {kind} with sha256 {received.hexdigest()}, not {digest}",
            "check soci:releaseUrl and soci:sha256; never skip this check",
        )


def unpack(host: Host, archive: BinaryIO, version: str, digest: str) -> None:
    """Unpack exactly the expected members of a checked archive into its folder, by one rename."""
    target = host.path(folder(host, version, digest))
    try:
        _unpack(host.path(VERSIONS), target, archive, version, digest)
    except OSError as error:
        raise InstallError(
            "unpack", f"{VERSIONS}: {error}", "free disk space, or make it writable"
        ) from error


def _unpack(versions: Path, target: Path, archive: BinaryIO, version: str, digest: str) -> None:
    versions.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=versions))
    try:
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive, mode="r:gz") as tar:
                for member in tar:
                    _unpack_member(tar, member, staging)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InstallError(
                "unpack", f"the archive of {version} is damaged: {error}", "publish it again"
            ) from error
        missing = [program for program in PROGRAMS if not (staging / program).is_file()]
        if missing:
            raise InstallError(
                "unpack", f"the archive of {version} has no {missing[0]}", "use an upstream release"
            )
        with (staging / DIGEST_FILE).open("x") as file:
            file.write(digest + "\n")
            file.flush()
            os.fsync(file.fileno())
        note_programs(staging)
        staging.chmod(0o755)
        sync_directory(staging)
        if target.exists():  # somebody changed or took away some of it: never without a program
            for name in (*PROGRAMS, DIGEST_FILE):
                (staging / name).rename(target / name)
            note_programs(target)
            sync_directory(target)
        else:
            staging.rename(target)
        sync_directory(versions)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> None:
    name = member.name.removeprefix("./")
    if member.isdir() and name in ("", "."):
        return
    if name not in MEMBERS or not member.isreg() or member.size > MAX_BYTES:
        raise InstallError(
            "unpack", f"the archive holds an unexpected member {member.name!r}", "use an upstream release"
        )
    if name not in PROGRAMS:
        return
    source = tar.extractfile(member)
    assert source is not None
    with source, (staging / name).open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    (staging / name).chmod(0o755)
