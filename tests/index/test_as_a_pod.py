"""soci-index as the pod of ImageIndex runs it: out of the ConfigMap's files, as nobody, writing to nothing
but its own directory, and with the component's own command line."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import binaries
import pytest
from agent.host import in_network_of
from awkward_registry import Auth, AwkwardRegistry, User, certificate
from background import Process
from images import await_registry
from pki import Authority

from components import image_index, image_pull_secrets, index_rules, program
from components.image_pull_secrets import Login
from components.settings import IndexSettings, Settings
from tests.fakes.instance_metadata import ADDRESS, InstanceMetadata
from tests.index.conftest import Command
from tests.index.made_images import Repository, layer
from tests.index.test_index import layers_read
from tests.waiting import wait_for

PYTHON = "/usr/bin/python3"  # one that everybody may run
PASSWORD = "correct horse"
AUTHORITY = "authority.crt"
ECR, ECR_API = "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com"
ECR_ADDRESS, ECR_API_ADDRESS, STORE = "127.0.0.2", "127.0.0.3", "127.0.0.4:5000"
PATIENCE_SECONDS = 10
T = TypeVar("T")
# Everything is read-only but the directory, and the process is nobody's, without capabilities.
POD = """
mount --make-rprivate /
[ ! -e hosts ] || mount --bind hosts /etc/hosts
mount --bind "$HOME" "$HOME"
[ ! -e ../claim ] || { mkdir -p "$HOME/ztocs" && mount --bind ../claim "$HOME/ztocs"; }
mount -o remount,ro,bind /
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


def run(pod: Path, chosen: Settings, network: int = 0) -> subprocess.CompletedProcess[str]:
    """Run soci-index in it; its programs are on PATH, since no release is served here."""
    arguments = [
        argument.replace(image_index.WORK_PATH, str(pod / "work"))
        for argument in image_index.arguments(chosen, {"amd64": "a" * 64, "arm64": "b" * 64})
    ]
    return in_pod(pod, PYTHON, "-B", "-m", "soci_index", *arguments, network=network)


def in_pod(pod: Path, *command: str, network: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command with what the pod's container has, and no more; in the network of a process, or ours."""
    environment = {
        "PATH": f"{pod}/bin:/usr/bin:/bin",
        "HOME": f"{pod}/work",
        "TMPDIR": f"{pod}/work",
        "DOCKER_CONFIG": f"{pod}/credentials",
    }
    if (pod / AUTHORITY).exists():
        environment["SSL_CERT_FILE"] = str(pod / AUTHORITY)  # AWS's are known to every pod
    enter = ["nsenter", f"--net=/proc/{network}/ns/net"] if network else []
    return subprocess.run(
        [*enter, "unshare", "--mount", "sh", "-ec", POD, "sh", *command],
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


def test_a_pod_finds_the_ztocs_of_an_earlier_one_in_its_claim(
    pod: Path, command: Command, repository: Repository, registry: AwkwardRegistry, place: str
) -> None:
    """The claim is another file system than the layers', and the directory in which it lies the runtime's."""
    (pod / "claim").mkdir()
    os.chown(pod / "claim", image_index.USER, image_index.USER)
    base, layers = layer("base", size=11 << 20), [layer(name, size=11 << 20) for name in ("one", "two")]
    for tag, own in zip(("1", "2"), layers, strict=True):
        repository.image([base, own], tag=tag)
        shutil.rmtree(pod / "work")
        (pod / "work").mkdir()
        os.chown(pod / "work", image_index.USER, image_index.USER)
        registry.forget()
        index = IndexSettings(images=(f"{place}:{tag}",), plain_http=(command.host,), cache_claim="ztocs")
        done = run(pod, Settings(index=index))
        assert done.returncode == 0, done.stdout + done.stderr
        assert repository.get(f"{tag}-soci").content["manifests"]
    assert layers_read(registry, base, *layers) == [0, 0, 1]


def test_what_a_pod_says_last_is_each_failed_image_with_its_remedy(
    pod: Path, command: Command, place: str
) -> None:
    done = run(pod, Settings(index=IndexSettings(images=(f"{place}:none",), plain_http=(command.host,))))
    assert done.returncode == 1
    last = (done.stderr + done.stdout).encode()[-2048:].decode()  # what the kubelet keeps of it
    assert f"{place}:none: " in last
    assert "Remedy: " in last


@dataclass
class Aws:
    """A network of its own, in which AWS's names lead to stand-ins: an instance's metadata, ECR and its API.

    Attributes:
        network: a process that is in it.
        metadata: of the node.
        registry: ECR, in front of a registry that keeps the images.
    """

    network: int
    metadata: InstanceMetadata
    registry: AwkwardRegistry

    def inside(self, work: Callable[[], T]) -> T:
        """What `work` returns in that network."""
        return in_network_of(self.network, work)


@pytest.fixture
def network() -> Iterator[int]:
    """A process in a network of its own, which has nothing but its own addresses and the metadata's."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    own, its = os.readlink("/proc/self/ns/net"), f"/proc/{holder.pid}/ns/net"
    try:
        wait_for(lambda: os.readlink(its) != own, PATIENCE_SECONDS, "a network by unshare")
        enter = ["nsenter", f"--net={its}", "ip"]
        for words in (["link", "set", "lo", "up"], ["address", "add", f"{ADDRESS}/32", "dev", "lo"]):
            subprocess.run([*enter, *words], check=True)
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture
def aws(pod: Path, network: int, tmp_path: Path) -> Iterator[Aws]:
    """Stand-ins for AWS, and a pod that knows them by AWS's own names."""
    authority = Authority(tmp_path / "pki")
    files = certificate(authority, [ECR, ECR_API])
    shutil.copy2(authority.certificate, pod / AUTHORITY)
    names = f"127.0.0.1 localhost\n{ECR_ADDRESS} {ECR}\n{ECR_API_ADDRESS} {ECR_API}\n"
    (pod / "program/hosts").write_text(names)
    program = str(binaries.build("registry") / "registry")
    serve = [program, "-addr", STORE, "-dir", str(tmp_path / "store")]
    process = Process(tmp_path / "log", ["nsenter", f"--net=/proc/{network}/ns/net", *serve])

    def made() -> Aws:
        await_registry(STORE)
        registry = AwkwardRegistry(
            f"http://{STORE}",
            ECR_ADDRESS,
            443,
            certificate=files,
            api_address=ECR_API_ADDRESS,
            api_port=443,
        )
        return Aws(network, InstanceMetadata(), registry)

    found = in_network_of(network, made)
    found.registry.auth, found.registry.users = Auth.ECR, {"AWS": User("")}
    found.registry.writes, found.registry.api_session = True, found.metadata.session
    yield found
    found.registry.close()
    found.metadata.close()
    process.stop()


def test_a_pod_that_reaches_the_metadata_of_its_node_indexes_as_the_nodes_role(pod: Path, aws: Aws) -> None:
    """By IMDSv2, ECR's own API and its password, of which no Secret and no file has anything."""
    repository = Repository(STORE, "team/app")
    aws.inside(lambda: repository.image([layer("base", size=11 << 20)], tag="1"))
    done = run(pod, Settings(index=IndexSettings(images=(f"{ECR}/team/app:1",), jobs=1)), aws.network)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ECR}/team/app:1-soci" in done.stdout
    assert aws.inside(lambda: repository.get("1-soci")).content["manifests"]
    assert [method for method, _ in aws.metadata.asked] == ["PUT", "GET", "GET"]
    pushes = aws.registry.requests(method="PUT")
    assert {request.user for request in pushes if request.status < 300} == {"AWS"}
    secrets = [*aws.registry.issued(), aws.metadata.session, aws.metadata.credentials["SecretAccessKey"]]
    assert len(secrets) > 2
    kept = [path for path in (pod / "work").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept for secret in secrets if secret.encode() in path.read_bytes()] == []


def test_a_pod_that_is_a_hop_too_far_from_the_metadata_says_what_to_do(pod: Path, aws: Aws) -> None:
    """With the hop limit of 1 that EKS's nodes have, the answer to the first question ends at the node."""
    chosen = Settings(index=IndexSettings(images=(f"{ECR}/team/app:1",), jobs=1))
    aws.metadata.listener.heard.clear()
    done = run(pod, chosen, aws.network)
    assert done.returncode == 1
    last = " ".join((done.stderr + done.stdout).encode()[-2048:].decode().split())
    assert "hop limit of 1" in last
    assert "httpPutResponseHopLimit: 2" in last
    assert "soci:index.roleArn" in last


def test_a_pod_of_a_node_without_a_role_is_told_so(pod: Path, aws: Aws) -> None:
    aws.metadata.role = ""
    done = run(pod, Settings(index=IndexSettings(images=(f"{ECR}/team/app:1",), jobs=1)), aws.network)
    assert done.returncode == 1
    assert "the instance has no role" in done.stdout


def test_a_node_whose_role_may_not_ask_ecr_is_told_in_awss_words(pod: Path, aws: Aws) -> None:
    aws.registry.api_session = "of another role"
    done = run(pod, Settings(index=IndexSettings(images=(f"{ECR}/team/app:1",), jobs=1)), aws.network)
    assert done.returncode == 1
    assert "The security token included in the request is invalid" in done.stdout
