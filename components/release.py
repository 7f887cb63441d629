"""A SOCI release: names, addresses and digests of its artifacts. Names and layout: soci-snapshotter's
RELEASES.md."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pulumi

from . import http_read, oci_registry
from .problems import SociConfigError
from .rules import ARCHITECTURES, is_oci

MAX_BYTES = 4096
TITLE = "org.opencontainers.image.title"  # of a layer: its file's name, as ORAS writes it


class ChecksumError(Exception):
    """Why a release's checksum could not be had."""


def asset_name(version: str, architecture: str) -> str:
    """File name of the static build, which also runs on nodes whose glibc is too old for the other one."""
    return f"soci-snapshotter-{version}-linux-{architecture}-static.tar.gz"


def asset_url(release_url: str, version: str, architecture: str) -> str:
    """Where nodes get the archive of one architecture."""
    return f"{release_url.rstrip('/')}/v{version}/{asset_name(version, architecture)}"


def parse_checksum(text: str, name: str) -> str:
    """The sha256 in a `.sha256sum` file, which must be one line about the file `name`.

    Raises:
        ChecksumError: it is anything else, for instance the HTML page of a proxy.
    """
    if text.lstrip()[:1] == "<":
        raise ChecksumError("is an HTML page, not a checksum")
    lines = text.strip().splitlines()
    parts = lines[0].split() if len(lines) == 1 else []
    if len(parts) != 2:
        raise ChecksumError("is not one line of a checksum and a file name")
    digest, named = parts[0].lower(), parts[1].removeprefix("*").removeprefix("./")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ChecksumError("does not begin with 64 hexadecimal digits")
    if named != name:
        raise ChecksumError(f"is about {named[:80]}, not {name}")
    return digest


def fetch(url: str) -> str:
    """Read a small text over HTTP.

    Raises:
        ChecksumError: it cannot be read.
    """
    try:
        return http_read.read(url, MAX_BYTES).decode("utf-8", "replace")
    except http_read.ReadError as error:
        raise ChecksumError(str(error)) from error


def digests(
    version: str, release_url: str, read: Callable[[str], str] = fetch
) -> tuple[dict[str, str], dict[str, str]]:
    """Ask a release for its digests: (architecture -> sha256, architecture -> why there is none)."""
    if is_oci(release_url):
        return oci_digests(version, release_url)
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    for architecture in ARCHITECTURES:
        url = f"{asset_url(release_url, version, architecture)}.sha256sum"
        try:
            found[architecture] = parse_checksum(read(url), asset_name(version, architecture))
        except ChecksumError as error:
            missing[architecture] = f"{url} {error}"
    return found, missing


def oci_digests(
    version: str, release_url: str, read: Callable[..., Mapping[str, Any] | None] = oci_registry.manifest
) -> tuple[dict[str, str], dict[str, str]]:
    """The same of a release in a registry: an artifact, tagged v0.16.1 or 0.16.1, whose layers are its
    archives."""
    repository = oci_registry.Repository.parse(release_url)
    reason = f"{release_url} has neither the tag v{version} nor {version}"
    for tag in (f"v{version}", version):
        try:
            manifest = read(repository, tag)
        except oci_registry.RegistryError as error:
            reason = f"{release_url}:{tag} {error}"
            break
        if manifest is not None:
            return _digests_of_layers(manifest, version, f"{release_url}:{tag}")
    return {}, dict.fromkeys(ARCHITECTURES, reason)


def _digests_of_layers(
    manifest: Mapping[str, Any], version: str, artifact: str
) -> tuple[dict[str, str], dict[str, str]]:
    layers = manifest.get("layers")
    digests: dict[str, set[str]] = {}
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("annotations"), dict):
            title = str(layer["annotations"].get(TITLE, "")).rpartition("/")[2]
            digests.setdefault(title, set()).add(str(layer.get("digest")))
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    for architecture in ARCHITECTURES:
        name = asset_name(version, architecture)
        known = sorted(digests.get(name, ()))
        if len(known) == 1 and re.fullmatch("sha256:[0-9a-f]{64}", known[0]):
            found[architecture] = known[0].removeprefix("sha256:")
        elif known:
            missing[architecture] = f"{artifact} has more than one layer, or a damaged one, titled {name}"
        else:
            missing[architecture] = f"{artifact} has no layer titled {name}"
    return found, missing


def pin(
    version: str, release_url: str, given: Mapping[str, str], resource: pulumi.Resource | None = None
) -> dict[str, str]:
    """Digest of the release for each architecture that may be installed: those given, else read from the
    release once.

    Raises:
        SociConfigError: no digest for any architecture.
    """
    if given:
        found, source = dict(given), "soci:sha256"
    else:
        found, missing = digests(version, release_url)
        source = "its layers in the registry" if is_oci(release_url) else "the release's checksum files"
        if not found:
            reasons = "; ".join(dict.fromkeys(missing.values()))
            raise SociConfigError(
                f"soci:version '{version}': no checksum of this release can be had: {reasons}. Remedy: "
                "check version, network and proxy, or pulumi config set soci:releaseUrl URL (a mirror), or "
                "pulumi config set --path soci:sha256.amd64 DIGEST"
            )
        for architecture, reason in missing.items():
            pulumi.log.warn(
                f"SOCI {version}: nodes of architecture {architecture} will be refused: {reason}", resource
            )
    for architecture, digest in sorted(found.items()):
        pulumi.log.info(f"SOCI {version} for {architecture}: sha256 {digest} (from {source})", resource)
    return found
