"""A SOCI release as its download page serves it: same names, same layout, same checksum files.

The programs are the stand-ins of go/soci, linked static. The older release holds the same programs under the
older name: enough to prove a change of versions, and NOTICE.md says so.
"""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import binaries
import images
from cache import cached
from settings import VERSIONS

NOTICE = """# Not the release of awslabs/soci-snapshotter

This archive has the name and layout of soci-snapshotter {version}. Its programs are linked from the published
library at version {built}, with the main function of SociCluster's lab.
"""


def release_directory() -> Path:
    """Return a directory to serve over HTTP: releases/v<version>/<asset> and <asset>.sha256sum."""
    key = hashlib.sha256(Path(__file__).read_bytes() + binaries.target("soci").key().encode()).hexdigest()

    def make(top: Path) -> None:
        program = (binaries.build("soci") / "soci-snapshotter-grpc").read_bytes()
        for version in (VERSIONS["soci"], VERSIONS["soci_older"]):
            folder = top / f"releases/v{version}"
            folder.mkdir(parents=True)
            asset = f"soci-snapshotter-{version}-linux-amd64-static.tar.gz"
            content = archive(version, program)
            (folder / asset).write_bytes(content)
            (folder / f"{asset}.sha256sum").write_text(f"{hashlib.sha256(content).hexdigest()}  {asset}\n")

    return cached(f"releases-{key[:16]}", make)


def archive(version: str, program: bytes) -> bytes:
    """Return the release's tar.gz; the same program gives the same bytes."""
    licenses = b"See the modules named in scripts/lab/go/soci/go.mod.\n"
    packed = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 6, packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        notice = NOTICE.format(version=version, built=VERSIONS["soci"]).encode()
        images.add_file(tar, "NOTICE.md", notice)
        images.add_file(tar, "THIRD_PARTY_LICENSES", licenses)
        images.add_file(tar, "soci", program, 0o755)
        images.add_file(tar, "soci-snapshotter-grpc", program, 0o755)
    return packed.getvalue()
