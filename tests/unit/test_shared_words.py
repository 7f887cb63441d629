"""The words that the components and the agent share are the same: each side's own tests pin only its own.

Neither imports the other: the components run where `pulumi up` does, the agent on the node, without packages.
"""

import ast
import json
import os
from collections import UserDict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import agent.__main__ as program
import agent.settings
import pod_start
import pytest
from agent import registry_auth, release, release_blob, tell
from agent.api import Api
from agent.errors import InstallError
from agent.host import Host
from agent.lazy import Busy, Pod
from agent.log import Log
from agent.marks import Marks, has_startup_taint
from agent.slots import FIRST
from soci_index import index

from components import configuration, failure, index_rules, names, oci_registry, settings
from components import release as releases
from components.program import node_settings
from components.rules import is_oci
from tests.fakes.api import FakeApi
from tests.unit.mocks import DIGESTS, Recorder, install

ONE = configuration.from_arguments({"version": "0.16.1", "sha256": DIGESTS})


def another(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, tuple):
        return (*value, "other")
    return not value if isinstance(value, bool) else value + ("other" if isinstance(value, str) else 1)


OTHER = replace(
    ONE,
    **{
        item.name: another(getattr(ONE, item.name))
        for item in fields(ONE)
        if settings.declaration(item).scope is settings.Scope.NODE and item.name != "sha256"
    },
)


@pytest.fixture
def server() -> FakeApi:
    """An API server whose node waits for the installer, as one that has just joined."""
    taint = {"key": names.STARTUP_TAINT, "value": "true", "effect": "NoSchedule"}
    return FakeApi(spec={"taints": [taint]})


@pytest.fixture
def api(server: FakeApi) -> Api:
    return Api("n1", "p1", "soci-system", names.INSTALLER, server)


@pytest.fixture
def container(recorder: Recorder, run) -> dict[str, Any]:
    """The installer's container, as the DaemonSet has it."""
    run(install())
    return recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]["containers"][0]


def pod_of_n1(message: str = "") -> dict[str, Any]:
    """A pod of the installer that is not ready; ``message``: what its last container left."""
    ended = {"lastState": {"terminated": {"message": message}}} if message else {}
    return {
        "metadata": {"name": "p1", "namespace": "soci-system"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}, **ended}]},
    }


def explained(server: FakeApi, pod: dict[str, Any]) -> list[str]:
    """What `pulumi up` would say of the node, as it is in the API."""
    node = {**server.node, "metadata": {**server.node["metadata"], "name": "n1"}}
    told = failure.Rollout("soci-system", "0.16.1", False, "1", 600)
    lines = failure.explain(told, failure.Found([node], [pod], None))
    return [line for line in lines if line.startswith("node n1:")]


def test_the_agent_marks_a_node_with_what_the_components_and_the_benchmark_look_for(
    server: FakeApi, api: Api
) -> None:
    Marks(api).put("0.16.1", {"version": "0.16.1"}, "ok")
    assert server.node["metadata"]["labels"] == {names.VERSION_LABEL: "0.16.1"}
    assert pod_start.INSTALLED_LABEL == names.VERSION_LABEL
    assert list(server.annotations) == [pod_start.INSTALL_ANNOTATION]
    assert [entry["type"] for entry in server.node["status"]["conditions"]] == [failure.CONDITION]


def test_the_agent_lifts_the_startup_taint_that_the_components_put(server: FakeApi, api: Api) -> None:
    assert has_startup_taint(server.node)
    Marks(api).remove()
    assert "taints" not in server.node["spec"]


@pytest.mark.parametrize("policy", ["when-idle", "drain", "side-by-side"])
def test_of_a_waiting_agent_the_wait_is_told_and_not_an_earlier_failure(
    server: FakeApi, api: Api, policy: str
) -> None:
    waiting = tell.Waiting(api, Marks(api), policy, print)
    waiting.tell(Busy({FIRST: ("/run/c/1/rootfs",)}, (Pod("shop", "a", "u"),)))
    (line,) = explained(server, pod_of_n1("node n1: step download: an earlier failure"))
    assert line.startswith("node n1: ")
    assert "1 lazily loaded containers run" in line
    assert "earlier failure" not in line


def test_the_journal_below_the_agents_reason_stays_below_it(
    server: FakeApi, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tell, "TERMINATION_LOG", tmp_path / "log")
    error = InstallError("restart", "containerd did not start", "see below", ("panic: one", "two"))
    tell.Teller(api, Marks(api), Log("n1")).failure(Host(tmp_path), error)
    (line,) = explained(server, pod_of_n1((tmp_path / "log").read_text()))
    reason, *journal = line.splitlines()
    assert reason == "node n1: step restart: containerd did not start. Remedy: see below"
    assert [entry.split(maxsplit=1)[1] for entry in journal] == ["panic: one", "two"]


def test_the_agent_understands_every_setting_that_the_component_writes() -> None:
    one, other = (
        json.loads(node_settings(chosen, digests))
        for chosen, digests in ((ONE, DIGESTS), (OTHER, {"amd64": "c" * 64}))
    )
    plain = agent.settings.parse(json.dumps(one))
    assert [key for key in one if one[key] == other[key]] == []
    for key in one:
        assert agent.settings.parse(json.dumps(one | {key: other[key]})) != plain, f"{key} is not read"
    changed = agent.settings.parse(json.dumps(other))
    for field in fields(plain):
        assert getattr(plain, field.name) != getattr(changed, field.name), f"{field.name} is not written"


def compared_settings() -> set[tuple[str, str]]:
    """Name and value wherever the agent compares a field of its settings with a word."""
    found = set()
    for path in Path(agent.settings.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Compare(
                    left=ast.Attribute(
                        attr=name,
                        value=ast.Name(id="settings" | "wanted") | ast.Attribute(attr="settings"),
                    ),
                    comparators=[ast.Constant(value=str(value))],
                ):
                    found.add((name, value))
    return found


def test_every_value_that_the_agent_compares_a_setting_with_is_one_that_the_component_allows() -> None:
    compared = compared_settings()
    assert {"state", "mode", "existing_nodes", "upgrade_policy", "broken_pods", "credentials"} <= {
        name for name, _ in compared
    }
    for name, value in compared:
        assert getattr(configuration.from_arguments({"version": "0.16.1", name: value}), name) == value


class Recorded(UserDict[str, str]):
    """An environment that remembers what was asked of it."""

    def __init__(self, content: dict[str, str]) -> None:
        super().__init__(content)
        self.asked: set[object] = set()

    def __getitem__(self, key: str) -> str:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)


def test_the_agent_finds_in_its_pod_what_it_looks_for(
    container: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [entry["name"] for entry in container["env"]]
    environment = Recorded({name: f"{name} of the pod" for name in names})
    told: list[tuple[program.Agent, InstallError]] = []

    def refuse(path: Path) -> None:
        raise InstallError("settings", str(path), "")

    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(program.settings, "load", refuse)
    monkeypatch.setattr(program.Agent, "fail", lambda agent, error: told.append((agent, error)))
    program.main()
    assert environment.asked == set(names)
    ((found, error),) = told
    assert (found.api.node_name, found.api.pod_name, found.api.namespace, found.api.daemonset) == (
        "NODE_NAME of the pod",
        "POD_NAME of the pod",
        "POD_NAMESPACE of the pod",
        "DAEMONSET_NAME of the pod",
    )
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert error.cause == f"{mounts['program']}/settings.json"
    assert str(found.host.path("/")).rstrip("/") == mounts["host"]
    assert container["workingDir"] == str(program.PAYLOAD)


def test_the_kubelet_looks_for_the_file_by_which_the_agent_says_that_it_is_done(
    container: dict[str, Any],
) -> None:
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"] == ["test", "-e", str(program.READY_FILE)]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("repository", ["", "mirror.example/", "mirror.example/one"])
@pytest.mark.parametrize("reference", [":1", f"@sha256:{'a' * 64}", f":1@sha256:{'a' * 64}"])
def test_the_component_tells_the_name_that_soci_index_gives(
    reference: str, repository: str, version: str
) -> None:
    image = f"registry.example/team/app{reference}"
    to_repository = ["--to-repository", repository] if repository else []
    [task], _ = index._tasks(index.parse([image, "--index-version", version, *to_repository]))
    assert index_rules.indexed(image, "-soci", repository, version) == task.target.name


BEARER = {"bearer": {"realm": "https://a/t", "scope": "r:a/b:pull,push", "service": "s"}}

# Each side reads registries, the components a manifest, the agent a blob, and neither may import the other.


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="a"'], {"basic": {"realm": "a"}}),
        (['Bearer realm="https://a/t",scope="r:a/b:pull,push",service="s"'], BEARER),
        (['BEARER Realm="https://a/t" , Scope="r:a/b:pull,push" ,  SERVICE=s'], BEARER),
        (["Bearer realm=https://a/t,service=s"], {"bearer": {"realm": "https://a/t", "service": "s"}}),
        (['Basic realm="a", Bearer realm="b"'], {"basic": {"realm": "a"}, "bearer": {"realm": "b"}}),
        (['Basic realm="a"', 'Bearer realm="b"'], {"basic": {"realm": "a"}, "bearer": {"realm": "b"}}),
        (['Bearer realm=""'], {"bearer": {"realm": ""}}),
        (
            ['Bearer realm = "https://a/t" , service = s'],
            {"bearer": {"realm": "https://a/t", "service": "s"}},
        ),
        (
            [r'Basic realm="of \"us\", all", Bearer realm=b'],
            {"basic": {"realm": 'of "us", all'}, "bearer": {"realm": "b"}},
        ),
        (["Negotiate"], {}),
        ([], {}),
    ],
)
def test_both_sides_read_a_challenge_alike(headers: list[str], expected: dict[str, dict[str, str]]) -> None:
    assert oci_registry.parse_challenges(headers) == expected
    assert registry_auth.parse_challenges(headers) == expected


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("https://registry.example/token", True),
        ("http://registry.example/token", False),
        ("http://localhost:5000", True),
        ("http://127.0.0.1:5000", True),
        ("http://[::1]:5000", True),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("ftp://registry.example", False),
        ("", False),
    ],
)
def test_both_sides_send_credentials_to_the_same_places(address: str, may: bool) -> None:
    assert oci_registry.may_carry_credentials(address) is may
    assert registry_auth.may_carry_credentials(address) is may


@pytest.mark.parametrize(
    ("address", "is_registry"),
    [
        ("oci://registry.example/soci", True),
        ("oci+http://10.0.0.1:5000/soci", True),
        ("https://mirror.example/oci", False),
        ("oci:registry.example", False),
        ("OCI://registry.example/soci", False),
    ],
)
def test_both_sides_take_the_same_addresses_for_registries(address: str, is_registry: bool) -> None:
    assert is_oci(address) is is_registry
    assert release_blob.is_blob(address) is is_registry


def test_the_node_fetches_the_archive_whose_digest_was_read() -> None:
    for architecture in ("amd64", "arm64"):
        address = releases.asset_url("https://mirror.example/r", "0.16.1", architecture)
        assert release.archive_url("https://mirror.example/r", "0.16.1", architecture, "d") == address
        assert address.endswith(f"/{releases.asset_name('0.16.1', architecture)}")
    repository = oci_registry.Repository.parse("oci://docker.io/team/soci")
    blob = release_blob.Blob.parse(release.archive_url("oci://docker.io/team/soci", "0.16.1", "amd64", "d"))
    assert blob.url == repository.url("sha256:d").replace("/manifests/", "/blobs/")
