"""A SOCI release: fetched, judged by its digest, and only then unpacked on the node.

Artifact layout: soci-snapshotter's RELEASES.md; an archive holds exactly the members below at its top level.
"""

import base64
import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from . import credential_providers, environment, registry
from .errors import InstallError
from .host import Host, sync_directory

VERSIONS = "/opt/soci-cluster/versions"
PROGRAMS = ("soci", "soci-snapshotter-grpc")
MEMBERS = frozenset((*PROGRAMS, "NOTICE.md", "THIRD_PARTY_LICENSES"))
MAX_BYTES = 200 << 20
TIMEOUT_SECONDS = 30
TOTAL_SECONDS = 600
DIGEST_FILE = "archive.sha256"
PAYLOAD = Path(__file__).resolve().parents[1]
# Where operating systems keep the authorities that they trust (Go's crypto/x509, root_linux.go).
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)


def archive_url(release_url: str, version: str, architecture: str, digest: str) -> str:
    """Where the static build of ``version`` is; an older node's glibc cannot run the dynamic one.

    In a registry (`oci://`) it is the blob of its digest, so that no tag is looked up.
    """
    if registry.is_blob(release_url):
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
    return host.read_text(f"{place}/{DIGEST_FILE}").strip() == digest and all(
        host.exists(f"{place}/{program}") for program in PROGRAMS
    )


def install(host: Host, url: str, version: str, digest: str, variables: Mapping[str, str]) -> None:
    """Put the programs of a release into their own directory on the node, in one step. ``variables`` name the
    proxies: the node's, since a pod has none of them.

    Raises:
        InstallError: the download failed, or is not what the digest names. The node is unchanged then.
    """
    with tempfile.TemporaryFile() as archive:
        download(host, url, archive, digest, variables)
        unpack(host, archive, version, digest)


class _Proxies(urllib.request.BaseHandler):
    """Sends each request, those of redirects included, through the proxy that is meant for it."""

    handler_order = 100  # before those that open connections

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def http_open(self, request: urllib.request.Request) -> None:
        address = environment.proxy_for(request.full_url, self._variables)
        if not address:
            return
        proxy = urlsplit(address)
        if not _place(address):
            raise OSError(
                "the proxy's address is not usable; characters of its password may have to be escaped"
            )
        if proxy.scheme != "http":
            raise OSError(f"a proxy that speaks {proxy.scheme} is not supported here")
        if proxy.username is not None:
            words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            credentials = base64.b64encode(words.encode()).decode()
            request.add_unredirected_header("Proxy-Authorization", f"Basic {credentials}")
        request.set_proxy(_place(address), "http")

    https_open = http_open


def _place(address: str) -> str:
    """Host and port of a proxy's address; empty when it has none, or may be part of a password."""
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        usable = False
    return parts.netloc.rpartition("@")[2] if usable else ""


def _trust(host: Host, variables: Mapping[str, str]) -> ssl.SSLContext:
    """What this process trusts, and what the node does: a closed network has an authority of its own."""
    bundle = variables.get(environment.CERT_FILE) or next(filter(host.exists, AUTHORITIES), "")
    files = [bundle] if bundle else []
    for directory in variables.get(environment.CERT_DIR, "").split(":"):
        if directory and directory not in environment.SYSTEM_CERT_DIRS:  # their bundle is among the others
            place = host.path(host.resolve(directory))
            names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
            files += [f"{directory}/{name}" for name in names]
    trusted = ssl.create_default_context()
    for file in files:
        with contextlib.suppress(OSError):  # absent, empty or damaged: then it makes nobody trusted
            trusted.load_verify_locations(host.path(host.resolve(file)))
    return trusted


def _open(host: Host, url: str, variables: Mapping[str, str]) -> Any:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # none by the environment of this process: it is the pod's
        _Proxies(variables),
        urllib.request.HTTPSHandler(context=_trust(host, variables)),
    )
    if not registry.is_blob(url):
        return opener.open(url, timeout=TIMEOUT_SECONDS)
    return registry.open_blob(
        opener, url, TIMEOUT_SECONDS, lambda name: registry.credentials_of_node(host, name, _helper(host))
    )


def _helper(host: Host) -> dict[str, str]:
    """The files of the credential helper, for a node that has none yet."""
    program = Path(credential_providers.HELPER).name
    providers = credential_providers.render(credential_providers.read(host))
    return {
        program: (PAYLOAD / program).read_text(encoding="utf-8"),
        Path(credential_providers.LIST).name: providers,
    }


def download(host: Host, url: str, archive: BinaryIO, digest: str, variables: Mapping[str, str]) -> None:
    """Fetch ``url`` into ``archive``, through the proxies of ``variables``, and check its sha256."""
    step, remedy = "download", "check soci:releaseUrl, the proxy and the node's way out"
    received, total = hashlib.sha256(), 0
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with _open(host, url, variables) as response:
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
        asked = registry.Blob.parse(url).url if registry.is_blob(url) else url
        place = _place(environment.proxy_for(asked, variables))
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
        staging.chmod(0o755)
        sync_directory(staging)
        if target.exists():  # with the same bytes, of which somebody took some away: never without a program
            for name in (*PROGRAMS, DIGEST_FILE):
                (staging / name).rename(target / name)
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
