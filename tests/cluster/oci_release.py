"""A SOCI release as an artifact in the lab's registry, as `oras push` puts it there."""

import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from settings import REGISTRY

from tests.fakes.oci_registry import artifact, sha256


def push(repository: str, tag: str, archives: Iterable[Path]) -> str:
    """Push the archives as layers of repository:tag; its address, for soci:releaseUrl."""
    files = {path.name: path.read_bytes() for path in archives}
    for content in (b"{}", *files.values()):
        upload = _send("POST", f"http://{REGISTRY}/v2/{repository}/blobs/uploads/")
        place = urllib.parse.urljoin(f"http://{REGISTRY}/", upload)
        separator = "&" if "?" in place else "?"
        _send("PUT", f"{place}{separator}digest=sha256:{sha256(content)}", content)
    kind = "application/vnd.oci.image.manifest.v1+json"
    _send("PUT", f"http://{REGISTRY}/v2/{repository}/manifests/{tag}", artifact(files), kind)
    return f"oci+http://{REGISTRY}/{repository}"


def _send(method: str, url: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
    """Where the answer says to go on."""
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers.get("Location", "")
