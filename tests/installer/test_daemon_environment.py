"""The daemon's environment: containerd's as it runs, the settings over it, and what systemd reads of it."""

import subprocess
from pathlib import Path

import pytest
from agent import daemon_environment
from agent.errors import InstallError
from agent.host import Host
from agent.settings import Settings

from tests.fakes.settings import agent_settings

API = "10.100.0.1"
# The node's usual way (H02 of the cases): a drop-in for containerd.
CORPORATE = {
    "HTTP_PROXY": "http://10.0.0.1:3128",
    "HTTPS_PROXY": "http://10.0.0.1:3128",
    "NO_PROXY": "10.0.0.0/8,169.254.169.254,.svc,.internal",
}
NONE = agent_settings()


def process(root: Path, *variables: str) -> Host:
    host = Host(root)
    host.write("/proc/5/environ", "".join(f"{entry}\0" for entry in variables).encode())
    return host


def read_as_systemd(text: str) -> dict[str, str]:
    """systemd.exec(5): in double quotes backslashes mean what they mean in a shell; nothing is expanded, and
    nothing here would be."""
    command = ["env", "-i", "sh", "-c", 'set -a; eval "$1"; env -0', "sh", text]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = dict(entry.split("=", 1) for entry in output.split("\0") if entry)
    return {name: value for name, value in found.items() if name not in ("PWD", "_", "SHLVL")}


def test_only_proxies_and_trust_are_taken_from_the_running_process(root: Path) -> None:
    host = process(
        root, "PATH=/bin", "AWS_SECRET_ACCESS_KEY=x", "HTTPS_PROXY=http://p:1", "SSL_CERT_FILE=/etc/ca.pem"
    )
    found = daemon_environment.of_process(host, 5)
    assert found == {"HTTPS_PROXY": "http://p:1", "SSL_CERT_FILE": "/etc/ca.pem"}


def test_capitals_go_before_small_letters_as_in_go(root: Path) -> None:
    host = process(
        root, "https_proxy=http://small:1", "HTTPS_PROXY=http://BIG:1", "http_proxy=http://small:2"
    )
    found = daemon_environment.of_process(host, 5)
    assert found == {"HTTP_PROXY": "http://small:2", "HTTPS_PROXY": "http://BIG:1"}


def test_a_process_that_is_gone_is_no_process_without_proxies(root: Path) -> None:
    with pytest.raises(InstallError, match="environment of the process 5"):
        daemon_environment.of_process(Host(root), 5)


def test_without_a_proxy_there_is_no_file(root: Path) -> None:
    found = daemon_environment.of_daemon(
        daemon_environment.of_process(process(root, "PATH=/bin", "NO_PROXY=.x"), 5), NONE, API
    )
    assert (found, daemon_environment.render(found)) == ({}, None)


def test_metadata_and_cluster_are_never_asked_through_the_proxy_and_named_once() -> None:
    found = daemon_environment.of_daemon(CORPORATE, NONE, API)
    assert found["NO_PROXY"] == (
        f"10.0.0.0/8,169.254.169.254,.svc,.internal,fd00:ec2::254,localhost,.cluster.local,{API}"
    )
    assert found["HTTPS_PROXY"] == CORPORATE["HTTPS_PROXY"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (agent_settings(https_proxy="http://other:1"), {"HTTPS_PROXY": "http://other:1"}),
        (agent_settings(http_proxy="http://other:1"), {"HTTP_PROXY": "http://other:1"}),
    ],
)
def test_settings_go_before_containerds(settings: Settings, wanted: dict[str, str]) -> None:
    found = daemon_environment.of_daemon(CORPORATE, settings, API)
    assert {**CORPORATE, **wanted, "NO_PROXY": found["NO_PROXY"]} == found


def test_own_exceptions_replace_containerds_and_keep_ours() -> None:
    found = daemon_environment.of_daemon(CORPORATE, agent_settings(no_proxy=".corp"), API)
    assert found["NO_PROXY"].split(",")[:2] == [".corp", "169.254.169.254"]


def test_a_file_says_to_systemd_what_was_meant() -> None:
    """A password may have what a shell would read."""
    value = r"http://user:a$b\"`c%d@proxy:3128"
    text = daemon_environment.render({"HTTPS_PROXY": value, "SSL_CERT_DIR": "/a:/b"})
    assert text is not None
    assert text.startswith("# Written by SociCluster")
    assert read_as_systemd(text) == {"HTTPS_PROXY": value, "https_proxy": value, "SSL_CERT_DIR": "/a:/b"}


@pytest.mark.parametrize("value", ["http://p\nLD_PRELOAD=/x", "http://p\x1b", "http://\ufffd"])
def test_what_is_no_address_is_left_out(root: Path, value: str) -> None:
    assert daemon_environment.of_process(process(root, f"HTTP_PROXY={value}"), 5) == {}


@pytest.mark.parametrize(
    ("own", "wanted"),
    [("", "/ours:/etc/ssl/certs:/etc/pki/tls/certs"), ("/corp/certs", "/ours:/corp/certs")],
)
def test_further_trust_takes_none_away(own: str, wanted: str) -> None:
    """SSL_CERT_DIR stands in the place of Go's own directories."""
    assert (
        daemon_environment.trusting({"SSL_CERT_DIR": own} if own else {}, "/ours")["SSL_CERT_DIR"] == wanted
    )


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("https://github.com/x", "", False),
        ("https://github.com/x", "github.com", True),
        ("https://api.github.com/x", "github.com", True),
        ("https://notgithub.com/x", "github.com", False),
        ("https://github.com/x", ".github.com", False),
        ("https://api.github.com/x", "*.github.com", True),
        ("https://github.com/x", "github.com:443", True),
        ("https://github.com/x", "github.com:8443", False),
        ("https://GitHub.com/x", "github.COM", True),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://11.1.2.3/x", "10.0.0.0/8", False),
        ("https://[fd00:ec2::254]/x", "fd00:ec2::254", True),
        ("https://github.com/x", "*", True),
        ("https://github.com/x", " , github.com ", True),
        ("https://127.0.0.1/x", "", True),
        ("https://localhost:8443/x", "", True),
        ("https://github.com/x", "10.0.0.0/99", False),
    ],
)
def test_exceptions_are_read_as_go_reads_them(url: str, no_proxy: str, is_direct: bool) -> None:
    proxy = daemon_environment.proxy_for(url, {"HTTPS_PROXY": "proxy:3128", "NO_PROXY": no_proxy})
    assert proxy == ("" if is_direct else "http://proxy:3128")
