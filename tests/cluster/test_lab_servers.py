"""Servers that the lab's tests start beside it: distribution's registry, the proxy. No node is needed."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import images
import pytest
from awkward_registry import AwkwardRegistry, User, certificate
from distribution import PASSWORD, Distribution
from pki import Authority
from proxy import Proxy

LOCAL = "127.0.0.1"
USERS = {"ann": User(PASSWORD, ("team/*",)), "bob": User(PASSWORD, ("other/*",))}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def start(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., Distribution]]:
    started = []

    def make(tokens: bool) -> Distribution:
        files = certificate(authority, [LOCAL])
        directory = tmp_path / "distribution"
        registry = Distribution(
            directory, LOCAL, files, tokens=tokens, users=USERS, authority=authority.certificate
        )
        started.append(registry)
        return registry

    yield make
    for registry in started:
        registry.close()


@pytest.fixture
def copy(authority: Authority, tmp_path: Path) -> Callable[[str, str, str], str]:
    """Copy with skopeo, as a user; what it says when it fails."""

    def run(source: str, target: str, user: str) -> str:
        trusted = tmp_path / "trusted"
        trusted.mkdir(exist_ok=True)
        shutil.copy(authority.certificate, trusted / "ca.crt")
        options = [f"--src-cert-dir={trusted}", f"--dest-cert-dir={trusted}"]
        side = "dest" if target.startswith("docker:") else "src"
        options += [f"--{side}-creds={user}:{PASSWORD}"] if user else []
        command = ["skopeo", "copy", "--quiet", "--insecure-policy", *options, source, target]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    return run


@pytest.fixture
def layout(tmp_path: Path) -> str:
    directory = tmp_path / "layout"
    images.write_layout(directory, [lambda archive: images.add_file(archive, "a", b"a")], {"Cmd": ["/a"]})
    return f"oci:{directory}"


def test_distribution_asks_for_a_password(start, copy, layout, tmp_path):
    image = f"docker://{start(tokens=False).name}/team/app:1"
    assert copy(layout, image, "ann") == ""
    assert "unauthorized" in copy(image, f"oci:{tmp_path}/none", "")
    assert copy(image, f"oci:{tmp_path}/bob", "bob") == ""


def test_distribution_asks_for_a_token_with_rights_that_has_not_expired(start, copy, layout, tmp_path):
    registry = start(tokens=True)
    image = f"docker://{registry.name}/team/app:1"
    assert copy(layout, image, "ann") == ""
    assert copy(image, f"oci:{tmp_path}/ann", "ann") == ""
    assert "denied" in copy(image, f"oci:{tmp_path}/bob", "bob")
    registry.token_seconds = -1
    assert "unauthorized" in copy(image, f"oci:{tmp_path}/late", "ann")


def test_what_goes_through_the_proxy_is_told():
    with closing(AwkwardRegistry("http://127.0.0.1:1")) as registry:
        host = f"a.registry.lab:{registry.front.port}"
        with closing(Proxy(LOCAL, {"a.registry.lab": LOCAL}, "user", "word")) as proxy:

            def status(url: str, *options: str) -> str:
                command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", url, *options]
                return subprocess.run(command, capture_output=True, text=True, check=False).stdout

            plain = f"http://{host}/v2/none"
            assert status(proxy.url.replace("user:word@", ""), plain) == "407"
            assert status(proxy.url, plain) == "404"
            assert status(proxy.url, "--proxytunnel", plain) == "404"
            assert proxy.destinations() == [plain, plain, host]
            assert registry.count(host=host, status=404) == 2
