"""Downloads: what is not the named archive stops before anything is unpacked (kata-containers#7961)."""

import hashlib
import io
import os
import re
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from agent import daemon_environment, release
from agent.errors import InstallError

from tests.fakes import proxy as proxies
from tests.fakes.node import FakeHost, tree
from tests.fakes.settings import agent_settings


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A gzipped tar of files and symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


PROGRAMS = {
    "soci": b"cli",
    "soci-snapshotter-grpc": b"daemon",
    "NOTICE.md": b"n",
    "THIRD_PARTY_LICENSES": b"l",
}
GOOD = archive(PROGRAMS)
HTML = b"<!DOCTYPE html><title>Sign in</title>"


class Server(ThreadingHTTPServer):
    """Serves bodies by path; a path that ends in /cut declares more than it sends."""

    bodies: dict[str, bytes]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Server)
            body = self.server.bodies.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header(
                "Content-Length", str(len(body) * 2 if self.path.endswith("/cut") else len(body))
            )
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Server.Handler)
    server.bodies = {"/good": GOOD, "/html": HTML, "/cut": GOOD, "/short": GOOD[: len(GOOD) // 2]}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def install(host: FakeHost, server: Server, path: str, sha256: str) -> None:
    release.install(host, f"http://127.0.0.1:{server.server_port}{path}", "1.2.3", sha256, {})


@pytest.mark.failure_mode(46)
@pytest.mark.parametrize(
    ("path", "cause"),
    [("/missing", "404"), ("/html", "an HTML page"), ("/cut", "cut short"), ("/short", "sha256")],
)
def test_wrong_download_changes_nothing(server: Server, fake_host: FakeHost, path: str, cause: str) -> None:
    before = tree(fake_host.root)
    with pytest.raises(InstallError, match=cause) as caught:
        install(fake_host, server, path, digest(GOOD))
    assert caught.value.step == "download"
    assert tree(fake_host.root) == before


def test_unreachable_server(fake_host: FakeHost) -> None:
    with pytest.raises(InstallError) as caught:
        release.install(fake_host, "http://127.0.0.1:9/x", "1.2.3", digest(GOOD), {})
    assert caught.value.step == "download"
    assert tree(fake_host.root) == {}


def test_too_large_download(server: Server, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "MAX_BYTES", 100)
    with pytest.raises(InstallError, match="larger than"):
        install(fake_host, server, "/good", digest(GOOD))
    assert tree(fake_host.root) == {}


HOSTILE = {
    "climbs out": archive(PROGRAMS | {"../../etc/passwd": b"x"}),
    "absolute": archive(PROGRAMS | {"/etc/passwd": b"x"}),
    "symbolic link": archive({"soci": b"cli"}, {"soci-snapshotter-grpc": "/bin/sh"}),
    "unknown member": archive(PROGRAMS | {"install.sh": b"x"}),
    "same name twice": archive({"./soci": b"1", "soci": b"2"}),
    "a program missing": archive({"soci": b"cli"}),
    "no archive at all": b"\x1f\x8bnothing",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_leaves_no_version(server: Server, fake_host: FakeHost, name: str) -> None:
    """Even what the configured digest names is unpacked only if it holds exactly the expected files."""
    server.bodies["/hostile"] = HOSTILE[name]
    with pytest.raises((InstallError, FileExistsError)):
        install(fake_host, server, "/hostile", digest(HOSTILE[name]))
    assert list((fake_host.root / "opt/soci-cluster/versions").iterdir()) == []
    assert not (fake_host.root / "etc").exists()


def test_good_archive_is_unpacked_once(server: Server, fake_host: FakeHost) -> None:
    assert not release.is_present(fake_host, "1.2.3", digest(GOOD))
    install(fake_host, server, "/good", digest(GOOD))
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))
    folder = fake_host.root / "opt/soci-cluster/versions/1.2.3"
    known = {*release.PROGRAMS, release.DIGEST_FILE, release.NOTE_FILE}
    assert {path.name for path in folder.iterdir()} == known
    assert (folder / "soci-snapshotter-grpc").stat().st_mode & 0o777 == 0o755


def test_other_archive_of_the_same_version_gets_a_place_of_its_own(
    server: Server, fake_host: FakeHost
) -> None:
    """The daemon that runs is what an install goes back to when the other one does not start."""
    install(fake_host, server, "/good", digest(GOOD))
    server.bodies["/again"] = again = archive(PROGRAMS | {"soci": b"rebuilt"})
    install(fake_host, server, "/again", digest(again))
    for content, program in ((GOOD, b"cli"), (again, b"rebuilt")):
        assert release.is_present(fake_host, "1.2.3", digest(content))
        assert fake_host.read(f"{release.folder(fake_host, '1.2.3', digest(content))}/soci") == program


def test_program_that_somebody_took_away_is_put_back_beside_the_other(
    server: Server, fake_host: FakeHost
) -> None:
    install(fake_host, server, "/good", digest(GOOD))
    folder = fake_host.root / "opt/soci-cluster/versions/1.2.3"
    (folder / "soci").unlink()
    assert not release.is_present(fake_host, "1.2.3", digest(GOOD))
    install(fake_host, server, "/good", digest(GOOD))
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))
    assert [path.name for path in folder.parent.iterdir()] == ["1.2.3"]


@pytest.fixture
def unpacked(server: Server, fake_host: FakeHost) -> Path:
    """The directory of the release, with its programs."""
    install(fake_host, server, "/good", digest(GOOD))
    return fake_host.root / "opt/soci-cluster/versions/1.2.3"


@pytest.mark.parametrize("name", release.PROGRAMS)
def test_a_program_that_others_replaced_is_unpacked_again(
    server: Server, fake_host: FakeHost, unpacked: Path, name: str
) -> None:
    """Of the same size and age, too: cp -p keeps both."""
    program = unpacked / name
    times = program.stat()
    theirs = unpacked / "theirs"
    theirs.write_bytes(b"x" * times.st_size)
    os.utime(theirs, ns=(times.st_atime_ns, times.st_mtime_ns))
    theirs.rename(program)
    path = f"/opt/soci-cluster/versions/1.2.3/{name}"
    assert release.changed_programs(fake_host, path.rpartition("/")[0]) == [path]
    assert not release.is_present(fake_host, "1.2.3", digest(GOOD))
    install(fake_host, server, "/good", digest(GOOD))
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))
    assert program.read_bytes() == PROGRAMS[name]


def test_programs_are_not_read_as_long_as_they_are_the_same_files(
    server: Server, fake_host: FakeHost, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have a hundred megabytes, and each run asks; also once one was put back."""
    (unpacked / "soci").unlink()
    install(fake_host, server, "/good", digest(GOOD))
    note, programs = unpacked / release.NOTE_FILE, [unpacked / name for name in release.PROGRAMS]
    while any(path.stat().st_ctime_ns >= note.stat().st_ctime_ns for path in programs):
        note.touch()  # these programs are so small that the clock has not ticked since
    monkeypatch.setattr(release, "_sha256", lambda path: pytest.fail(f"{path} is read"))
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))


def test_a_program_whose_bytes_are_the_same_is_not_changed(fake_host: FakeHost, unpacked: Path) -> None:
    """A copy of the node's disk, or another label of SELinux."""
    (unpacked / "copy").write_bytes(PROGRAMS["soci"])
    (unpacked / "copy").rename(unpacked / "soci")
    (unpacked / "soci-snapshotter-grpc").chmod(0o700)
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))


def test_the_programs_of_a_node_that_an_older_version_installed_are_taken_as_they_are(
    fake_host: FakeHost, unpacked: Path
) -> None:
    (unpacked / release.NOTE_FILE).unlink()
    (unpacked / "soci").write_bytes(b"whatever")
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))


RELEASE = "releases.example/archive"  # a name that only the proxy knows


def behind(host: FakeHost, *variables: str) -> dict[str, str]:
    """What an agent finds on a node whose containerd runs with these variables."""
    host.write("/proc/5/environ", "".join(f"{entry}\0" for entry in ("PATH=/bin", *variables)).encode())
    return daemon_environment.of_daemon(
        daemon_environment.of_process(host, 5), agent_settings(), "10.100.0.1"
    )


@pytest.fixture
def tls_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same with a certificate for the name that only the proxy knows."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=releases.example", "-addext", "subjectAltName=DNS:releases.example"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return server


@pytest.mark.failure_mode(47)
@pytest.mark.parametrize("user", ["", "robot:p%40ss"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_release_comes_through_the_proxy_that_containerd_runs_with(
    request: pytest.FixtureRequest, fake_host: FakeHost, scheme: str, user: str
) -> None:
    """A private subnet's way out (sysbox#522): the pod has no such variable, the node's containerd has."""
    server: Server = request.getfixturevalue("tls_server" if scheme == "https" else "server")
    server.bodies["/archive"] = GOOD
    port = 443 if scheme == "https" else 80
    with proxies.running(unquote(user)) as proxy:
        proxy.places[f"releases.example:{port}"] = ("127.0.0.1", server.server_port)
        address = f"http://{user}@{proxy.address}" if user else f"http://{proxy.address}"
        variables = behind(fake_host, f"{scheme.upper()}_PROXY={address}", "NO_PROXY=.internal")
        release.install(fake_host, f"{scheme}://{RELEASE}", "1.2.3", digest(GOOD), variables)
        assert proxy.asked == [
            "CONNECT releases.example:443" if scheme == "https" else f"GET http://{RELEASE}"
        ]
    assert release.is_present(fake_host, "1.2.3", digest(GOOD))


def test_the_environment_of_the_pod_says_nothing_about_the_nodes_way_out(
    server: Server, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "releases.example")
    server.bodies[f"http://{RELEASE}"] = GOOD
    with pytest.raises(InstallError):
        release.install(fake_host, f"http://{RELEASE}", "1.2.3", digest(GOOD), {})


def test_what_is_excepted_is_fetched_without_the_proxy(server: Server, fake_host: FakeHost) -> None:
    with proxies.running() as proxy:
        variables = behind(fake_host, f"HTTP_PROXY=http://{proxy.address}", "NO_PROXY=127.0.0.0/8")
        url = f"http://127.0.0.1:{server.server_port}/good"
        release.install(fake_host, url, "1.2.3", digest(GOOD), variables)
        assert proxy.asked == []


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hunter2@x", "hun%2Fter2"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named_without_its_password(
    fake_host: FakeHost, scheme: str, password: str
) -> None:
    with proxies.running("robot:another") as proxy:
        variables = behind(fake_host, f"{scheme.upper()}_PROXY=http://robot:{password}@{proxy.address}")
        with pytest.raises(InstallError, match="the proxy") as caught:
            release.install(fake_host, f"{scheme}://{RELEASE}", "1.2.3", digest(GOOD), variables)
    told = f"{caught.value} {caught.value.cause}"
    assert not re.search("hunter2|hun|ter2|robot", told), told


@pytest.mark.parametrize("proxy", ["https://p.corp:3129", "socks5://p.corp:1080"])
def test_a_proxy_that_the_installer_cannot_speak_to_is_said_to_be_one(
    fake_host: FakeHost, proxy: str
) -> None:
    variables = behind(fake_host, f"HTTPS_PROXY={proxy}")
    with pytest.raises(InstallError, match="a proxy that speaks") as caught:
        release.install(fake_host, f"https://{RELEASE}", "1.2.3", digest(GOOD), variables)
    assert caught.value.step == "download"


@pytest.mark.failure_mode(48)
def test_static_build_is_taken() -> None:
    """An older glibc on the node must not matter (AWS DLC guide's warning)."""
    url = release.archive_url("https://example.org/r", "0.16.1", "arm64", digest(GOOD))
    assert url == "https://example.org/r/v0.16.1/soci-snapshotter-0.16.1-linux-arm64-static.tar.gz"
