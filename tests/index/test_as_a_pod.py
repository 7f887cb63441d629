"""soci-index as the pod of ImageIndex runs it: out of the ConfigMap's files, as nobody, writing to nothing
but its own directory, and with the component's own command line."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import image_index, image_pull_secrets, index_rules, program
from components.image_pull_secrets import Login
from components.settings import IndexSettings, Settings
from tests.index.conftest import Command
from tests.index.made_images import Repository, layer

PYTHON = "/usr/bin/python3"  # one that everybody may run
PASSWORD = "correct horse"
# Everything is read-only but the directory, and the process is nobody's, without capabilities.
POD = """
mount --make-rprivate / && mount --bind "$HOME" "$HOME" && mount -o remount,ro,bind /
exec setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set -all --no-new-privs "$@"
"""

OLDEST_PYTHON = (3, 11)


def why_not(python: str = PYTHON) -> str:
    """Why this Python cannot run soci-index; empty when it can."""
    if not Path(python).exists():
        return f"there is no {python}"
    asked = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, said.split()))
    if version >= OLDEST_PYTHON:
        return ""
    return f"{python} is {'.'.join(map(str, version))}, older than {'.'.join(map(str, OLDEST_PYTHON))}"


WHY_NOT = why_not()
pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture
def pod(programs: dict[str, Path]) -> Iterator[Path]:
    """A directory that everybody may read, with the pod's volumes: program, work, credentials."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("bin", "program/soci_index", "work", "credentials"):
            (directory / part).mkdir(parents=True)
        os.chown(directory / "work", image_index.USER, image_index.USER)
        for path, text in program.INDEX.files().items():
            (directory / "program/soci_index" / path).write_text(text)
        for path in programs.values():
            shutil.copy2(path, directory / "bin")
        yield directory


def run(pod: Path, chosen: Settings) -> subprocess.CompletedProcess[str]:
    """Run soci-index in it; its programs are on PATH, since no release is served here."""
    arguments = [
        argument.replace(image_index.WORK_PATH, str(pod / "work"))
        for argument in image_index.arguments(chosen, {"amd64": "a" * 64, "arm64": "b" * 64})
    ]
    return in_pod(pod, PYTHON, "-B", "-m", "soci_index", *arguments)


def in_pod(pod: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with what the pod's container has, and no more."""
    environment = {
        "PATH": f"{pod}/bin:/usr/bin:/bin",
        "HOME": f"{pod}/work",
        "TMPDIR": f"{pod}/work",
        "DOCKER_CONFIG": f"{pod}/credentials",
    }
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", POD, "sh", *command],
        cwd=pod / "program",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_pod_here_may_write_to_its_own_directory_alone(pod: Path) -> None:
    """The check of the check."""
    (pod / "program").chmod(0o777)
    assert in_pod(pod, "id", "-u").stdout.strip() == str(image_index.USER)
    assert in_pod(pod, "touch", f"{pod}/work/mine").returncode == 0
    assert "Read-only file system" in in_pod(pod, "touch", f"{pod}/program/other").stderr


def test_an_older_python_of_the_systems_is_the_reason_to_skip(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    assert why_not(str(old)) == f"there is no {old}"
    for version, reason in (("3 10", f"{old} is 3.10, older than 3.11"), ("3 11", ""), ("3 14", "")):
        old.write_text(f"#!/bin/sh\necho {version}\n")
        old.chmod(0o755)
        assert why_not(str(old)) == reason


def test_a_pod_indexes_an_image_and_the_next_one_finds_it(
    pod: Path, command: Command, repository: Repository, place: str
) -> None:
    repository.image([layer("base", size=11 << 20)], tag="1")
    login = Login(command.host, "robot", PASSWORD)
    (pod / "credentials/config.json").write_text(image_pull_secrets.docker_config([login]))
    chosen = Settings(index=IndexSettings(images=(f"{place}:1",), plain_http=(command.host,), jobs=1))
    done = run(pod, chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    indexed = index_rules.indexed(f"{place}:1", "-soci", "", "v2")
    assert indexed in done.stdout
    assert repository.get("1-soci").content["manifests"]
    assert PASSWORD not in done.stdout + done.stderr
    again = run(pod, chosen)
    assert again.returncode == 0
    assert "present" in again.stdout


def test_what_a_pod_says_last_is_each_failed_image_with_its_remedy(
    pod: Path, command: Command, place: str
) -> None:
    done = run(pod, Settings(index=IndexSettings(images=(f"{place}:none",), plain_http=(command.host,))))
    assert done.returncode == 1
    last = (done.stderr + done.stdout).encode()[-2048:].decode()  # what the kubelet keeps of it
    assert f"{place}:none: " in last
    assert "Remedy: " in last
