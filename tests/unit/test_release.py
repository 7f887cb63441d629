"""A release's names and digests."""

import urllib.error
from email.message import Message

import pytest

from components import http_read, release
from components.problems import SociConfigError

NAME = "soci-snapshotter-0.16.1-linux-amd64-static.tar.gz"
URL = "https://mirror.example/releases"
DIGEST = "0123456789abcdef" * 4


def test_asset_url_has_the_upstream_layout() -> None:
    assert release.asset_url(f"{URL}/", "0.16.1", "amd64") == f"{URL}/v0.16.1/{NAME}"


@pytest.mark.parametrize("text", [f"{DIGEST}  {NAME}\n", f"{DIGEST.upper()} *{NAME}", f"{DIGEST}  ./{NAME}"])
def test_a_checksum_line_is_read(text: str) -> None:
    assert release.parse_checksum(text, NAME) == DIGEST


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<!DOCTYPE html><html>Sign in</html>", "is an HTML page, not a checksum"),
        ("", "is not one line of a checksum and a file name"),
        (DIGEST, "is not one line of a checksum and a file name"),
        (f"{DIGEST}  {NAME}\n{DIGEST}  other", "is not one line of a checksum and a file name"),
        (f"{DIGEST[:-1]}  {NAME}", "does not begin with 64 hexadecimal digits"),
        (f"{DIGEST}  other.tar.gz", f"is about other.tar.gz, not {NAME}"),
    ],
)
def test_anything_else_is_no_checksum(text: str, reason: str) -> None:
    with pytest.raises(release.ChecksumError, match=f"^{reason}$"):
        release.parse_checksum(text, NAME)


def test_an_architecture_without_checksum_is_reported_beside_those_that_have_one() -> None:
    def read(url: str) -> str:
        if "arm64" in url:
            raise release.ChecksumError("cannot be read (HTTP status 404)")
        return f"{DIGEST}  {NAME}"

    found, missing = release.digests("0.16.1", URL, read)
    assert found == {"amd64": DIGEST}
    address = f"{URL}/v0.16.1/{NAME.replace('amd64', 'arm64')}.sha256sum"
    assert missing == {"arm64": f"{address} cannot be read (HTTP status 404)"}


def test_a_server_error_is_tried_again_but_an_absent_file_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(status: int):
        def urlopen(url: str, timeout: float) -> None:
            asked.append(status)
            raise urllib.error.HTTPError(url, status, "", Message(), None)

        return urlopen

    for status in (503, 404):
        monkeypatch.setattr(http_read.urllib.request, "urlopen", answer(status))
        with pytest.raises(release.ChecksumError, match=f"HTTP status {status}"):
            release.fetch(URL)
    assert asked == [503, 503, 404]


def test_no_checksum_at_all_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "digests", lambda *_: ({}, {"amd64": f"{URL} cannot be read (timed out)"}))
    with pytest.raises(SociConfigError) as raised:
        release.pin("0.16.1", URL, {})
    assert str(raised.value) == (
        f"soci:version '0.16.1': no checksum of this release can be had: {URL} cannot be read (timed out). "
        "Remedy: check version, network and proxy, or pulumi config set soci:releaseUrl URL (a mirror), "
        "or pulumi config set --path soci:sha256.amd64 DIGEST"
    )
