"""One Kubernetes API, one engine and one release server for all tests of the engine."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi  # noqa: F401  (before the stand-ins, whose stubs would hide most of it)
import pytest
import warm
from background import Process
from engine import prepare
from moto_account import client, moto_account

from tests.engine.fake_cluster import COMPLETED, ControlPlane, FakeNodes
from tests.engine.project_stack import REPOSITORY, Stack
from tests.waiting import wait_for

VERSIONS = ("0.16.0", "0.16.1")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The Kubernetes API; its first start builds it, when nothing has before."""
    with ControlPlane.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def answering(control_plane: ControlPlane) -> Iterator[FakeNodes]:
    """The thread that plays the nodes' part."""
    nodes = FakeNodes(control_plane.api())
    nodes.start()
    yield nodes
    nodes.stop()


@pytest.fixture
def cluster(answering: FakeNodes) -> Iterator[FakeNodes]:
    """The nodes, none of which fails, and which a test only counts with when they answered until its end."""
    answering.failing.clear()
    answering.sample_state = COMPLETED
    yield answering
    for name in list(answering.dead):
        answering.revive(name)
    answering.failing.clear()
    answering.sample_state = COMPLETED
    answering.check()


@pytest.fixture(scope="session")
def release_url() -> Iterator[str]:
    """A release server with the checksum files of two versions, laid out as upstream's releases."""
    files = {}
    for version in VERSIONS:
        for architecture in ("amd64", "arm64"):
            asset = f"soci-snapshotter-{version}-linux-{architecture}-static.tar.gz"
            digest = hashlib.sha256(asset.encode()).hexdigest()
            files[f"/v{version}/{asset}.sha256sum"] = f"{digest}  {asset}\n".encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds what `pip install .` would install."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variable with which the stand-ins are forks of one process that has the packages imported."""
    folder = tmp_path_factory.mktemp("warm")
    variable = {warm.VARIABLE: str(folder / "socket")}
    # As a shell's background has it, and hands it down to whatever is started there.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [*ignoring, sys.executable, "-I", warm.__file__]
    server = Process(folder / "log", command, {**os.environ, **variable})
    wait_for((folder / "socket").exists, 60, "a process to fork from")
    yield variable
    server.stop()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, warm_python: dict[str, str]) -> dict[str, str]:
    """The environment of the CLI: plugins and state of this test run only."""
    home = tmp_path_factory.mktemp("pulumi")
    # The CLI keeps all that it sees in a log, for half of its time. With no place for one it keeps none.
    (home / "logs").touch()
    settings = {"NO_COLOR": "1", "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true"}
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    # The true aws and eks plugins would want an AWS account; moto is for the stand-ins.
    return {**os.environ, **prepare(home, genuine=("kubernetes",)), **settings, **loopback, **warm_python}


@pytest.fixture(scope="session")
def moto_environment(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The same, with moto as AWS and an `aws` on PATH."""
    with moto_account(tmp_path_factory.mktemp("aws"), environment) as found:
        yield found


@pytest.fixture(scope="session")
def aws_environment(control_plane: ControlPlane, moto_environment: dict[str, str]) -> dict[str, str]:
    """The same, and EKS clusters are the tests' API server."""
    return {**moto_environment, "SOCI_LAB_EKS": str(control_plane.kubeconfig)}


EksStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def eks_stack(
    answering: FakeNodes,
    aws_environment: dict[str, str],
    release_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EksStack]:
    """Makes a stack with an EKS cluster, of a name that no other has and these settings beside the region and
    the release server (by their whole keys, `soci:version`); it is destroyed at the module's end.

    `environment` is what the CLI's has beside that of the account.
    """
    made = []

    def make(name: str, settings: dict[str, Any], environment: Mapping[str, str] | None = None) -> Stack:
        config = {"aws:region": "eu-west-1", "soci:releaseUrl": release_url, **settings}
        home = tmp_path_factory.mktemp(name) / "soci"
        made.append(Stack(home, {**aws_environment, **(environment or {})}, name, config))
        return made[-1]

    yield make
    for stack in made:
        stack.destroy()


class Account:
    """The AWS account of the tests: what moto has, and what the stand-ins are told beside it."""

    def __init__(self, url: str, told: Path) -> None:
        self.url, self.told = url, told

    def client(self, service: str, region: str = "eu-west-1") -> Any:
        """Return a client of a service in moto, to look at what was made or to change it."""
        return client(self.url, service, region)

    def tell(self, **facts: Any) -> None:
        """Tell the stand-ins what moto cannot, beside what they were told; aws_world.py has the keys."""
        known = json.loads(self.told.read_text()) if self.told.exists() else {}
        self.told.write_text(json.dumps(known | facts))

    def forget(self) -> None:
        """Take back everything that was told."""
        self.told.unlink(missing_ok=True)


def default_subnets(ec2: Any) -> list[dict[str, Any]]:
    """Return the subnets that AWS made in the default VPC."""
    return ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]


@pytest.fixture
def account(aws_environment: dict[str, str]) -> Iterator[Account]:
    """The AWS account, of which the stand-ins are told nothing special before the test and after it."""
    account = Account(aws_environment["AWS_ENDPOINT_URL"], Path(aws_environment["SOCI_LAB_AWS"]))
    account.forget()
    yield account
    account.forget()


@pytest.fixture(scope="session")
def local_config(control_plane: ControlPlane, release_url: str) -> dict[str, Any]:
    """The configuration of a stack like `local`: an existing cluster, a mirror, chosen nodes."""
    return {
        "soci:cluster": "existing",
        "soci:kubeconfig": str(control_plane.kubeconfig),
        "soci:context": "lab",
        "soci:releaseUrl": release_url,
        "soci:version": "0.16.0",
        "soci:nodeSelector": {"soci-cluster.io/install": "true"},
        "soci:maxUnavailable": "3",
        "soci:rolloutTimeoutSeconds": 30,
        "soci:sampleWorkload": {"image": "registry.invalid/sample:1", "command": ["/bin/true"]},
    }
