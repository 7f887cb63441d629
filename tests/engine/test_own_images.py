"""The installer's own image and release, in registries of the user's: credentials, and what a cluster
remembers."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import ApiError

from tests.engine.fake_cluster import INSTALLED, INSTALLER, FakeNodes
from tests.engine.project_stack import Stack

pytestmark = pytest.mark.slow

NODES = ("own-1", "own-2")
PASSWORD, ROTATED = "hunter2-and-more", "hunter3-and-more"
NAMESPACE = "/api/v1/namespaces/soci-system"
SECRET = f"{NAMESPACE}/secrets/soci-installer-registries"
DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
REGISTRY = "registry.corp:5000"


class Mirror(http.server.ThreadingHTTPServer):
    """A mirror of releases, whose archives somebody may replace."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Mirror)
            asset = self.path.rpartition("/")[2].removesuffix(".sha256sum")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{self.server.digest(asset)}  {asset}\n".encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  (the library's name)
            pass

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.replaced: dict[str, str] = {}  # architecture -> what its archives were replaced with

    def digest(self, asset: str) -> str:
        content = next((f"{asset} {what}" for name, what in self.replaced.items() if name in asset), asset)
        return hashlib.sha256(content.encode()).hexdigest()

    def digest_of(self, architecture: str, version: str = "0.16.0") -> str:
        return self.digest(f"soci-snapshotter-{version}-linux-{architecture}-static.tar.gz")


@pytest.fixture(scope="module")
def server() -> Iterator[Mirror]:
    mirror = Mirror()
    threading.Thread(target=mirror.serve_forever, daemon=True).start()
    yield mirror
    mirror.shutdown()


@pytest.fixture
def mirror(server: Mirror) -> Mirror:
    server.replaced.clear()
    return server


@pytest.fixture(scope="module")
def nodes(answering: FakeNodes) -> Iterator[FakeNodes]:
    with answering.having(dict.fromkeys(NODES, INSTALLED)) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def stack(
    nodes: FakeNodes,
    environment: dict[str, str],
    local_config: dict[str, Any],
    server: Mirror,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack that the tests of this module take through its life, in their order."""
    config = {**local_config, "soci:releaseUrl": f"http://127.0.0.1:{server.server_port}"}
    stack = Stack(tmp_path_factory.mktemp("own-images") / "soci", environment, "own-images", config)
    yield stack
    stack.destroy()


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes, mirror: Mirror) -> None:
    """Every test here counts only when the nodes answered; each begins with the releases as they were."""


def pods(nodes: FakeNodes) -> dict[str, Any]:
    """The installer's pods, by uid."""
    selector = f"app.kubernetes.io/name={INSTALLER}"
    found = nodes.api.call("GET", f"{NAMESPACE}/pods", labelSelector=selector)["items"]
    return {pod["metadata"]["uid"]: pod for pod in found}


def auths(secret: dict[str, Any]) -> dict[str, Any]:
    return json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]


def assert_nowhere(stack: Stack, nodes: FakeNodes, password: str) -> None:
    """The password stands neither in the state nor in an object of the cluster that is no Secret."""
    pair = base64.b64encode(f"robot:{password}".encode()).decode()
    state = stack.state()
    assert password not in state
    assert pair not in state
    # Base64 again, as the Secret has it, at each of the three offsets.
    inner = {base64.b64encode(b"x" * offset + password.encode())[4:-4].decode() for offset in range(3)}
    assert not [text for text in inner if text in state]
    for kind in ("configmaps", "pods", "events"):
        assert password not in json.dumps(nodes.api.call("GET", f"/api/v1/{kind}"))


@pytest.mark.parametrize("is_secret", [False, True], ids=["plain in the configuration", "--secret"])
def test_credentials_become_a_secret_beside_the_pods_and_stand_nowhere_else(
    stack: Stack, nodes: FakeNodes, is_secret: bool
) -> None:
    stack.set(imagePullSecrets=["regcred", {"registry": REGISTRY, "username": "robot"}])
    secret = ["--secret"] if is_secret else ["--plaintext"]
    stack.run("config", "set", *secret, "--path", "soci:imagePullSecrets[1].password", PASSWORD)
    said = stack.run("preview", "--diff", "--non-interactive") + stack.up()
    assert PASSWORD not in said
    made = nodes.api.call("GET", SECRET)
    assert made["type"] == "kubernetes.io/dockerconfigjson"
    assert auths(made)[REGISTRY]["password"] == PASSWORD
    for pod in pods(nodes).values():
        assert [item["name"] for item in pod["spec"]["imagePullSecrets"]] == [
            "regcred",
            made["metadata"]["name"],
        ]
    (sample,) = nodes.api.call("GET", "/apis/batch/v1/namespaces/default/jobs")["items"]
    named = [item["name"] for item in sample["spec"]["template"]["spec"]["imagePullSecrets"]]
    assert named[0] == "regcred"
    assert auths(nodes.api.call("GET", f"/api/v1/namespaces/default/secrets/{named[1]}")) == auths(made)
    assert_nowhere(stack, nodes, PASSWORD)
    stack.up("--expect-no-changes")
    stack.run("refresh", "--yes", "--non-interactive")
    assert_nowhere(stack, nodes, PASSWORD)
    stack.up("--expect-no-changes")


def test_another_password_replaces_the_secrets_and_rolls_no_installer(stack: Stack, nodes: FakeNodes) -> None:
    before = pods(nodes).keys()
    stack.run("config", "set", "--secret", "--path", "soci:imagePullSecrets[1].password", ROTATED)
    assert stack.plan() == {
        "kubernetes:core/v1:Secret::soci-installer-registries": "replace",
        "kubernetes:core/v1:Secret::soci-sample-registries": "replace",
        "kubernetes:batch/v1:Job::soci-sample-job": "replace",
        "pulumi:index:Stash::soci-sample-figures": "replace",
    }
    assert ROTATED not in stack.up()
    assert auths(nodes.api.call("GET", SECRET))[REGISTRY]["password"] == ROTATED
    assert pods(nodes).keys() == before
    assert_nowhere(stack, nodes, ROTATED)
    stack.up("--expect-no-changes")


def test_without_credentials_the_secrets_go_and_the_pods_forget_them(stack: Stack, nodes: FakeNodes) -> None:
    stack.set(imagePullSecrets=None)
    stack.up()
    with pytest.raises(ApiError) as refused:
        nodes.api.call("GET", SECRET)
    assert refused.value.status == 404
    assert "imagePullSecrets" not in nodes.api.call("GET", DAEMON_SET)["spec"]["template"]["spec"]


def forget(stack: Stack, suffix: str) -> None:
    """Take a resource out of the state, as an engine does that was killed before it recorded it."""
    (urn,) = [
        item["urn"]
        for item in json.loads(stack.state())["deployment"]["resources"]
        if item["urn"].endswith(suffix)
    ]
    stack.run("state", "delete", "--yes", "--target-dependents", urn)


def test_a_secret_that_was_made_and_not_recorded_is_taken_up_with_the_same_content_alone(
    stack: Stack, nodes: FakeNodes
) -> None:
    stack.set(imagePullSecrets=[{"registry": REGISTRY, "username": "robot"}])
    stack.run("config", "set", "--secret", "--path", "soci:imagePullSecrets[0].password", ROTATED)
    stack.up()
    before = nodes.api.call("GET", SECRET)["metadata"]["uid"]
    forget(stack, "::soci-installer-registries")
    stack.up()
    assert nodes.api.call("GET", SECRET)["metadata"]["uid"] == before
    assert_nowhere(stack, nodes, ROTATED)
    forget(stack, "::soci-installer-registries")
    stack.run("config", "set", "--secret", "--path", "soci:imagePullSecrets[0].password", PASSWORD)
    said = stack.try_up()
    assert "the Secret soci-system/soci-installer-registries is there already" in said
    assert "Remedy: kubectl -n soci-system delete secret soci-installer-registries, then pulumi up" in said
    assert PASSWORD not in said
    nodes.api.call("DELETE", SECRET)
    stack.up()
    assert auths(nodes.api.call("GET", SECRET))[REGISTRY]["password"] == PASSWORD


def test_refused_credentials_are_not_told(stack: Stack) -> None:
    stack.set(imagePullSecrets=[{"registry": "https://r.corp", "username": "robot", "password": PASSWORD}])
    said = stack.try_preview()
    assert "soci:imagePullSecrets [not shown]: entry 0: registry must have no http:// or https://" in said
    assert PASSWORD not in said
    stack.set(imagePullSecrets=None)


# --- what a cluster remembers ---


def assert_refused(said: str, mirror: Mirror, old: str, architecture: str = "amd64") -> None:
    words = " ".join(said.split())
    assert f"for {architecture} it has sha256 {mirror.digest_of(architecture)} now, and had {old}" in words
    assert f"http://127.0.0.1:{mirror.server_port}" in words
    assert f"pulumi config set --path soci:sha256.{architecture} {mirror.digest_of(architecture)}" in words
    # grpc may print one of its own, when the program ends while the engine asks it for a transform.
    assert "components/" not in said


def program_of(nodes: FakeNodes) -> set[str]:
    """The digests for amd64 that the installers of the cluster are told."""
    maps = nodes.api.call("GET", f"{NAMESPACE}/configmaps")["items"]
    told = [json.loads(item["data"]["settings.json"]) for item in maps if "settings.json" in item["data"]]
    return {found["sha256"]["amd64"] for found in told}


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_a_release_with_another_digest_than_before_is_refused_with_both(
    stack: Stack, nodes: FakeNodes, mirror: Mirror, architecture: str
) -> None:
    stack.up()
    old, before, program = mirror.digest_of(architecture), pods(nodes).keys(), program_of(nodes)
    mirror.replaced[architecture] = "rebuilt"
    assert_refused(stack.try_preview(), mirror, old, architecture)
    assert_refused(stack.try_up(), mirror, old, architecture)
    assert (pods(nodes).keys(), program_of(nodes)) == (before, program), "nothing was made"
    mirror.replaced.clear()
    stack.up("--expect-no-changes")


def test_a_version_is_remembered_while_another_one_is_installed_and_while_none_is(
    stack: Stack, nodes: FakeNodes, mirror: Mirror
) -> None:
    old = mirror.digest_of("amd64")
    stack.set(version="0.16.1")
    stack.up()
    stack.set(state="absent")
    stack.up()
    stack.set(state=None, version="0.16.0")
    mirror.replaced["amd64"] = "rebuilt"
    assert_refused(stack.try_preview(), mirror, old)
    mirror.replaced.clear()
    stack.up()


def test_an_unreachable_cluster_is_no_obstacle_to_a_preview_and_forgets_nothing(
    stack: Stack, mirror: Mirror, tmp_path: Path
) -> None:
    old = mirror.digest_of("amd64")
    reachable = stack.directory / "stacks" / f"Pulumi.{stack.name}.yaml"
    before = reachable.read_text()
    kubeconfig = next(line.split(": ", 1)[1] for line in before.splitlines() if "soci:kubeconfig" in line)
    content = json.loads(Path(kubeconfig).read_text())
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(content))
    stack.set(kubeconfig=str(tmp_path / "kubeconfig"))
    mirror.replaced["amd64"] = "rebuilt"
    steps = json.loads(stack.run("preview", "--json"))["steps"]
    (daemon_set,) = [step for step in steps if step["urn"].endswith("-daemon-set")]
    remembered = daemon_set["newState"]["inputs"]["metadata"]["annotations"][
        "soci-cluster.io/release-digests"
    ]
    assert json.loads(remembered)["0.16.0"]["amd64"] == old
    reachable.write_text(before)


def test_a_digest_that_the_user_gives_is_accepted_and_what_is_read_then_is_remembered(
    stack: Stack, nodes: FakeNodes, mirror: Mirror
) -> None:
    old = mirror.digest_of("amd64")
    mirror.replaced["amd64"] = "rebuilt"
    new = mirror.digest_of("amd64")
    stack.set(sha256={"amd64": new, "arm64": mirror.digest_of("arm64")})
    stack.up()
    assert new in program_of(nodes)
    stack.set(sha256=None)
    stack.up()
    mirror.replaced.clear()
    assert_refused(stack.try_preview(), mirror, new)
    stack.set(sha256={"amd64": old, "arm64": mirror.digest_of("arm64")})
    stack.up()
