"""One Kubernetes API, one engine and one release server for all tests; a stack of its own for each test that wants one."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cluster import REPOSITORY, ControlPlane, FakeNodes, Process, free_port  # noqa: E402  (found through the path)
from engine import prepare  # noqa: E402  (scripts/lab/engine, put on the path by cluster)

VERSIONS = ("0.16.0", "0.16.1")
NODE_LABELS = {"soci-cluster.io/install": "true"}
# What `aws eks get-token` prints; the API server knows the token.
CREDENTIAL = {
    "apiVersion": "client.authentication.k8s.io/v1beta1",
    "kind": "ExecCredential",
    "spec": {},
    "status": {"token": "stand-in-token"},
}


class Stack:
    """A stack in a project directory of its own, run through the CLI as a user does; every call is bounded."""

    def __init__(self, directory: Path, environment: dict[str, str], name: str, config: dict[str, Any]) -> None:
        self.directory, self.environment, self.name = directory, environment, name
        (directory / "stacks").mkdir(parents=True)
        for file in ("Pulumi.yaml", "__main__.py", "components", ".venv"):
            if (REPOSITORY / file).exists():
                (directory / file).symlink_to(REPOSITORY / file)
        self.configure(config)
        self.run("stack", "init", name)

    def configure(self, config: dict[str, Any]) -> None:
        """Replace the stack's whole configuration."""
        path = self.directory / "stacks" / f"Pulumi.{self.name}.yaml"
        salt = yaml.safe_load(path.read_text()).get("encryptionsalt") if path.exists() else None
        path.write_text(yaml.safe_dump({"config": config} | ({"encryptionsalt": salt} if salt else {})))

    def set(self, **changes: Any) -> None:
        """Change settings: set(version="0.16.1") is `pulumi config set soci:version 0.16.1`; None removes one."""
        path = self.directory / "stacks" / f"Pulumi.{self.name}.yaml"
        config = yaml.safe_load(path.read_text())["config"]
        config |= {f"soci:{key}": value for key, value in changes.items()}
        self.configure({key: value for key, value in config.items() if value is not None})

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pulumi on this stack; the caller judges the exit code."""
        return subprocess.run(
            ["pulumi", *arguments, *(() if arguments[1:2] == ("init",) else ("--stack", self.name))],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if "--json" not in arguments else subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """Run pulumi on this stack and return what it said; fail when it does."""
        done = self.try_run(*arguments)
        assert done.returncode == 0, f"pulumi {' '.join(arguments)}:\n{done.stdout}{done.stderr or ''}"
        return done.stdout

    def up(self, *arguments: str) -> str:
        """`pulumi up` without a question and without the preview before it."""
        return self.run("up", "--yes", "--skip-preview", "--non-interactive", *arguments)

    def try_up(self, *arguments: str) -> str:
        """`pulumi up` that must fail; return what it said."""
        done = self.try_run("up", "--yes", "--skip-preview", "--non-interactive", *arguments)
        assert done.returncode != 0, f"pulumi up did not fail:\n{done.stdout}"
        return done.stdout

    def try_preview(self) -> str:
        """`pulumi preview` that must fail; return what it said."""
        done = self.try_run("preview", "--non-interactive")
        assert done.returncode != 0, f"pulumi preview did not fail:\n{done.stdout}"
        return done.stdout

    def plan(self) -> dict[str, str]:
        """Return what `pulumi preview` would do: {type::name: operation}, without what stays the same."""
        steps = json.loads(self.run("preview", "--json"))["steps"]
        return {
            "::".join(step["urn"].split("::")[2:]).rsplit("$", 1)[-1]: step["op"]
            for step in steps
            if step["op"] != "same"
        }

    def changes(self) -> dict[str, int]:
        """Return how many resources the last update created, updated, ...; without what stayed the same."""
        done = json.loads(self.run("stack", "history", "--json"))[0]["resourceChanges"]
        return {operation: count for operation, count in done.items() if operation != "same"}

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs, secrets included."""
        return json.loads(self.run("stack", "output", "--json", "--show-secrets"))

    def state(self) -> str:
        """Return the stack's state as it is stored, secrets encrypted."""
        return self.run("stack", "export")

    def destroy(self) -> None:
        """`pulumi destroy`, and the stack's own end."""
        self.run("destroy", "--yes", "--skip-preview", "--non-interactive")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The Kubernetes API; its first start builds it, when nothing has before."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        plane.up()
        yield plane
    finally:
        plane.down()


@pytest.fixture(scope="session")
def answering(control_plane: ControlPlane) -> Iterator[FakeNodes]:
    """The thread that plays the nodes' part."""
    nodes = FakeNodes(control_plane.api())
    nodes.start()
    yield nodes
    nodes.stop()


@pytest.fixture
def cluster(answering: FakeNodes) -> Iterator[FakeNodes]:
    """The API server, seen to be without nodes before and after each test, and its nodes seen to be alive after it."""
    answering.failing.clear()
    yield answering
    answering.failing.clear()
    answering.check()


@pytest.fixture(scope="session")
def release_url() -> Iterator[str]:
    """A release server with the checksum files of two versions, laid out as the upstream project's releases."""
    files = {}
    for version in VERSIONS:
        for architecture in ("amd64", "arm64"):
            asset = f"soci-snapshotter-{version}-linux-{architecture}-static.tar.gz"
            digest = hashlib.sha256(asset.encode()).hexdigest()
            files[f"/v{version}/{asset}.sha256sum"] = f"{digest}  {asset}\n".encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802  (the library's name)
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the CLI: plugins and state of this test run only."""
    home = tmp_path_factory.mktemp("pulumi")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soci-cluster"
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "NO_COLOR": "1"}
    return {**os.environ, **prepare(cache, home), **loopback}


@pytest.fixture(scope="session")
def aws_environment(
    control_plane: ControlPlane, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The same with a moto server for AWS, whose EKS clusters are the Kubernetes API, and an `aws` on PATH."""
    directory, port = tmp_path_factory.mktemp("aws"), free_port()
    aws = directory / "aws"
    aws.write_text(f"#!/bin/sh\necho '{json.dumps(CREDENTIAL)}'\n")
    aws.chmod(0o755)
    moto = Process(
        directory / "moto.log",
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
    )
    try:
        await_http(f"http://127.0.0.1:{port}/moto-api/", moto)
        yield {
            **environment,
            "PATH": f"{directory}{os.pathsep}{environment['PATH']}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "SOCI_LAB_EKS": str(control_plane.kubeconfig),
        }
    finally:
        moto.stop()


def await_http(url: str, process: Process, patience_s: float = 30) -> None:
    """Return when the URL answers; raise TimeoutError with the end of the process's log when it never does."""
    import time

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + patience_s
    while True:
        try:
            opener.open(url, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise TimeoutError(f"{url} does not answer: {process.words()}") from None
            time.sleep(0.1)


@pytest.fixture(scope="session")
def local_config(control_plane: ControlPlane, release_url: str) -> dict[str, Any]:
    """The configuration of a stack like `local`: an existing cluster, a mirror of the releases, chosen nodes."""
    return {
        "soci:cluster": "existing",
        "soci:kubeconfig": str(control_plane.kubeconfig),
        "soci:context": "lab",
        "soci:releaseUrl": release_url,
        "soci:version": "0.16.0",
        "soci:nodeSelector": NODE_LABELS,
        "soci:maxUnavailable": "3",
        "soci:rolloutTimeoutSeconds": 30,
        "soci:sampleWorkload": {"image": "registry.invalid/sample:1", "command": ["/bin/true"]},
    }
