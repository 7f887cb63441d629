"""The two programs that do the work: `soci` makes zTOCs, `oras` talks to registries.

Each is the one that the user names, else the one on PATH, else that of a pinned release, fetched once into
the cache. Nothing of an archive is unpacked before its SHA-256 is the expected one.

Sources: soci-snapshotter's RELEASES.md (names, members, checksum files); oras's are in its releases'
oras_<version>_checksums.txt.
"""

import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from . import references
from .errors import SociIndexError
from .registry import NotFoundError, Registry

SOCI_VERSION = "0.16.1"
OLDEST_SOCI = (0, 13)  # the first with a standalone `convert`
SOCI_RELEASES = "https://github.com/awslabs/soci-snapshotter/releases/download"
ORAS_VERSION = "1.3.4"
ORAS_RELEASES = "https://github.com/oras-project/oras/releases/download"
ORAS_SHA256 = {
    "amd64": "f27adb935022d94df8dc77719c322dda592c78a0d57a6f7dcdd8d900b248c454",
    "arm64": "15702c6e3a4a56a8bd8ac5c17efdbcab56d9bada661ccbcf017f5b10c1d89399",
}
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
TITLE = "org.opencontainers.image.title"  # of a layer: its file's name, as oras writes it
MAX_BYTES = 200 << 20
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Tools:
    """The programs, and the version that `soci` says it has (0.16.1)."""

    soci: Path
    oras: Path
    soci_version: str


@dataclass(frozen=True)
class Wanted:
    """Which programs are wanted.

    Attributes:
        soci: the program; empty for the one on PATH, or of a release.
        oras: likewise.
        soci_version: of the release; empty for any on PATH, else SOCI_VERSION.
        soci_sha256: of its archive; empty to read it from the release's checksum file.
        soci_releases: where SOCI's releases are: the URL of a mirror, or `oci://REGISTRY/REPOSITORY`, an
            artifact tagged with the version, whose layers are the archives; `oci+http://` without TLS.
        oras_releases: likewise, a URL.
    """

    soci: str = ""
    oras: str = ""
    soci_version: str = ""
    soci_sha256: str = ""
    soci_releases: str = SOCI_RELEASES
    oras_releases: str = ORAS_RELEASES


def get(
    wanted: Wanted,
    cache: Path,
    registry_by: Callable[[Path], Registry],
    say: Callable[[str], None] = lambda text: None,
) -> Tools:
    """The programs, fetched first where that is needed.

    Args:
        wanted: which ones.
        cache: the directory that keeps what is fetched.
        registry_by: the registries of the run, by its oras.
        say: hears of each download as it begins.

    Raises:
        SociIndexError: a program cannot be had, or is too old.
    """
    oras = _named(wanted.oras, "oras") or _oras_of_release(wanted, cache, say)
    soci = _named(wanted.soci, "soci")
    if not soci or not (wanted.soci or _is_wanted(wanted, soci)):
        of_release = replace(wanted, soci_version=wanted.soci_version or SOCI_VERSION)
        soci = _soci_of_release(of_release, registry_by(oras), cache, say)
    return Tools(soci, oras, soci_version(soci))


def _is_wanted(wanted: Wanted, on_path: Path) -> bool:
    """Whether the program on PATH is of the release that is asked for, if one is."""
    try:
        return wanted.soci_version in ("", soci_version(on_path))
    except SociIndexError:
        return not wanted.soci_version


def cache_directory() -> Path:
    """What soci-index keeps: $XDG_CACHE_HOME/soci-cluster/index, or below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "soci-cluster" / "index"


def soci_version(soci: Path) -> str:
    """The version of a `soci` program, X.Y.Z.

    Raises:
        SociIndexError: it cannot be asked, or has no standalone `convert` yet.
    """
    remedy = f"--soci with another program, or none of it on PATH: release {SOCI_VERSION} is fetched then"
    try:
        done = subprocess.run(
            [str(soci), "--version"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SociIndexError(f"{soci} does not run ({error})", remedy) from error
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode or not found:
        raise SociIndexError(
            f"{soci} --version says no version ({(done.stdout + done.stderr)[:80]!r})", remedy
        )
    if (int(found[1]), int(found[2])) < OLDEST_SOCI:
        oldest = ".".join(map(str, OLDEST_SOCI))
        raise SociIndexError(f"{soci} is {found[0]}; it works without containerd since {oldest}", remedy)
    return found[0].removeprefix("v")


def architecture() -> str:
    """This machine's, as the releases name it.

    Raises:
        SociIndexError: there are no programs for this machine.
    """
    remedy = "run soci-index on a Linux machine (amd64 or arm64), or in a container or CI job of one"
    if platform.system() != "Linux":
        raise SociIndexError(f"the soci program exists for Linux only; this is {platform.system()}", remedy)
    machine = platform.machine().lower()
    if machine not in ARCHITECTURES:
        raise SociIndexError(f"there is no release of soci for {machine}", remedy)
    return ARCHITECTURES[machine]


def parse_checksums(text: str, name: str) -> str:
    """The sha256 of a file in a checksum list as sha256sum writes it; empty when there is none."""
    for line in text.splitlines():
        digest, _, named = line.strip().partition(" ")
        if named.strip().removeprefix("*").removeprefix("./") == name and re.fullmatch(
            "[0-9a-f]{64}", digest
        ):
            return digest
    return ""


def _named(given: str, name: str) -> Path | None:
    if given:
        found = shutil.which(given)
        if not found:
            raise SociIndexError(f"{given} is no program", f"check --{name}")
        return Path(found).absolute()
    on_path = shutil.which(name)
    return Path(on_path).absolute() if on_path else None


def _soci_of_release(wanted: Wanted, registry: Registry, cache: Path, say: Callable[[str], None]) -> Path:
    version = wanted.soci_version
    asset = f"soci-snapshotter-{version}-linux-{architecture()}-static.tar.gz"
    url = f"{wanted.soci_releases.rstrip('/')}/v{version}/{asset}"
    # An archive that is asked for by its digest is looked for by it.
    of_digest = f"-{wanted.soci_sha256}" if wanted.soci_sha256 else ""
    target = cache / "tools" / f"soci-{version}{of_digest}" / "soci"
    remedy = "--soci-releases with a mirror, --soci with the program, or check the network and proxy"
    if target.exists():
        return target
    if wanted.soci_releases.startswith(("oci://", "oci+http://")):
        say(f"fetching soci {version} from {wanted.soci_releases}")
        return _soci_of_registry(wanted, registry, asset, target)
    sha256 = wanted.soci_sha256
    if not sha256:
        with _open(f"{url}.sha256sum", remedy) as answer:
            sha256 = parse_checksums(answer.read(1 << 16).decode("utf-8", "replace"), asset)
        if not sha256:
            raise SociIndexError(f"{url}.sha256sum is no checksum of {asset}", remedy)
    say(f"fetching soci {version} from {url}")
    return _fetch_program(url, sha256, target, remedy)


def _soci_of_registry(wanted: Wanted, registry: Registry, asset: str, target: Path) -> Path:
    """The program out of an artifact's layer: the one with the archive's name."""
    kind, _, name = wanted.soci_releases.rstrip("/").partition("://")
    source = references.parse(name)
    if kind == "oci+http":
        registry = replace(registry, plain_http=(*registry.plain_http, source.host))
    remedy = "check --soci-releases"
    version, why = wanted.soci_version, ""
    for tag in (f"v{version}", version):
        try:
            content = registry.manifest(source, tag)[1]
            break
        except NotFoundError as error:
            why = error.cause
    else:
        raise SociIndexError(f"{source.place} has no release {version}: {why}", remedy)
    layers = json.loads(content).get("layers") or []
    titles = {str((layer.get("annotations") or {}).get(TITLE)): layer["digest"] for layer in layers}
    digest = titles.get(asset, "")
    if not digest or (wanted.soci_sha256 and digest != f"sha256:{wanted.soci_sha256}"):
        named = f" of sha256 {wanted.soci_sha256}" if wanted.soci_sha256 else ""
        raise SociIndexError(f"{source.at(tag)} has no layer {asset}{named}", remedy)
    with tempfile.TemporaryDirectory(dir=registry.scratch) as scratch:
        file = Path(scratch) / "archive"
        registry.save_blob(source, digest, file)
        return _fetch_program(file.as_uri(), digest.removeprefix("sha256:"), target, remedy)


def _oras_of_release(wanted: Wanted, cache: Path, say: Callable[[str], None]) -> Path:
    machine = architecture()
    url = f"{wanted.oras_releases.rstrip('/')}/v{ORAS_VERSION}/oras_{ORAS_VERSION}_linux_{machine}.tar.gz"
    target = cache / "tools" / f"oras-{ORAS_VERSION}" / "oras"
    remedy = "--oras-releases with a mirror, --oras with the program, or check the network and proxy"
    if target.exists():
        return target
    say(f"fetching oras {ORAS_VERSION} from {url}")
    return _fetch_program(url, ORAS_SHA256[machine], target, remedy)


def _open(url: str, remedy: str) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    except (OSError, ValueError) as error:
        raise SociIndexError(f"{url} cannot be read ({error})", remedy) from error


def _fetch_program(url: str, sha256: str, target: Path, remedy: str) -> Path:
    """Put the program out of a checked archive in its place, in one step: several runs may do so at once."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent) as archive:
            _download(url, archive, sha256, remedy)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as program:
                place = Path(program.name)
                try:
                    _unpack(url, archive, target.name, program)
                    place.chmod(0o755)
                    place.rename(target)
                finally:
                    place.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        raise SociIndexError(f"{url} cannot be kept in {target.parent} ({error})", remedy) from error
    return target


def _download(url: str, archive: IO[bytes], sha256: str, remedy: str) -> None:
    received, total = hashlib.sha256(), 0
    with _open(url, remedy) as answer:
        while block := answer.read(1 << 20):
            total += len(block)
            if total > MAX_BYTES:
                raise SociIndexError(f"{url} is larger than {MAX_BYTES >> 20} MiB", remedy)
            received.update(block)
            archive.write(block)
    if received.hexdigest() != sha256:
        cause = f"{url} has sha256 {received.hexdigest()}, not {sha256}"
        raise SociIndexError(cause, "check the mirror; never skip this check")


def _unpack(url: str, archive: IO[bytes], name: str, program: IO[bytes]) -> None:
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for member in tar:
                if member.name.removeprefix("./") == name and member.isreg() and member.size <= MAX_BYTES:
                    source = tar.extractfile(member)
                    assert source is not None
                    shutil.copyfileobj(source, program, 1 << 20)
                    return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise SociIndexError(f"{url} is a damaged archive ({error})", "publish it again") from error
    raise SociIndexError(f"{url} holds no program {name}", "use an upstream release")
