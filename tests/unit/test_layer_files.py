"""What is where in a layer: by its tar alone, whatever compressed it."""

import gzip
import io
import os
import tarfile

import pytest
from soci_index.errors import SociIndexError
from soci_index.layer_files import LayerFiles, read_layer

MIB = 1 << 20


def tar(*members: tuple[str, bytes | str], **fields: bytes) -> bytes:
    """A tar of files; a text instead of bytes is the target of a hard link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read(blob: bytes) -> LayerFiles:
    return read_layer(io.BytesIO(blob), "sha256:x")


def test_files_are_found_where_the_tar_has_them() -> None:
    long = "deep/" * 40 + "file"
    plain = tar(("./usr/lib/a.so", b"A" * 3000), (long, b"B" * 10), ("bin/same", "usr/lib/a.so"))
    for blob in (plain, gzip.compress(plain), gzip.compress(plain[:5000]) + gzip.compress(plain[5000:])):
        found = read(blob)
        offset, size = found.files["/usr/lib/a.so"]
        assert plain[offset : offset + size] == b"A" * 3000
        offset, size = found.files[f"/{long}"]
        assert plain[offset : offset + size] == b"B" * 10
        assert found.files["/bin/same"] == found.files["/usr/lib/a.so"]
        assert (found.unpacked_bytes, found.compressed_bytes) == (len(plain), len(blob))


def test_a_hard_link_to_a_path_with_a_dot_is_found() -> None:
    found = read(tar(("./a", b"x" * 600), ("./b", "./a")))
    assert found.files["/b"] == found.files["/a"]


def test_whiteouts_take_away_what_is_below() -> None:
    found = read(tar(("usr/.wh.gone", b""), ("var/.wh..wh..opq", b""), ("var/new", b"x")))
    assert found.takes_away("/usr/gone")
    assert found.takes_away("/usr/gone/inside")
    assert found.takes_away("/var/old")
    assert not found.takes_away("/usr/gone2")
    assert set(found.files) == {"/var/new"}


def test_bytes_of_the_blob_follow_what_compresses_well_and_what_does_not() -> None:
    """Zeros first, then noise: an even split would say that both halves are half of the blob."""
    plain = tar(("zeros", bytes(4 * MIB)), ("noise", os.urandom(4 * MIB)))
    found = read(gzip.compress(plain, 1))
    zeros, noise = (found.files[name] for name in ("/zeros", "/noise"))
    assert found.compressed_between(zeros[0], zeros[0] + zeros[1]) < 0.15 * found.compressed_bytes
    assert found.compressed_between(noise[0], noise[0] + noise[1]) > 0.85 * found.compressed_bytes
    assert found.compressed_between(0, found.unpacked_bytes) == found.compressed_bytes
    assert found.compressed_between(0, 99 * MIB) == found.compressed_bytes


def test_it_is_kept_as_it_is() -> None:
    found = read(tar(("usr/.wh.gone", b""), ("a", b"x" * 600)))
    assert LayerFiles.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "blob",
    [
        b"\x28\xb5\x2f\xfd" + bytes(100),
        gzip.compress(tar(("a", os.urandom(MIB))))[:-5000],
        gzip.compress(os.urandom(5000)),
        b"not a tar",
    ],
)
def test_what_is_no_layer_is_named(blob: bytes) -> None:
    with pytest.raises(SociIndexError, match=r"layer sha256:x cannot be read .*Remedy"):
        read(blob)
