"""Nodes of clouds and distributions: each is recognized, and served or refused in words.

Their containerd files are judged by real daemons. Quick: of the two series that the lab's nodes run. With
--full: of the node's own.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent import block_yaml, containerd_config, detect, kinds
from agent.errors import InstallError
from agent.host import Result
from agent.kubelet import option
from agent.plan import Registration, Task, dump, make_plan

from tests.fakes.node import INSTALLER, KUBELET_PID, REPOSITORY, run_here, tree
from tests.fakes.settings import agent_settings
from tests.installer.cloud_nodes import NODES, QUICK, UNPUBLISHED, CloudHost, CloudNode, judge, node_named
from tests.installer.configurations import lines_lost
from tests.installer.real_containerd import Change, assert_only_the_wanted_keys, containerd, shared_file

SERVED = [node for node in NODES if not node.refusal]
REFUSED = [node for node in NODES if node.refusal]
WITH_PROVIDER = [node for node in NODES if node.provider]

# The node's /etc in the place of this machine's, in a mount namespace of its own.
WITH_ETC = 'mount --rbind "$0/etc" /etc && exec "$@"'


def named(nodes: Sequence[CloudNode]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("node", nodes, ids=[node.name for node in nodes])


class RealHost(CloudHost):
    """The same node, with a real containerd of its series, or of its major's."""

    def __init__(self, root: Path, node: CloudNode, series: str) -> None:
        super().__init__(root, node)
        self.program, version = containerd(series)
        text = ".".join(map(str, version))
        self.answers[node.program] = lambda command, text_in: Result(0, f"containerd x v{text} y\n", "")
        self.answers["unshare"] = self._dump

    def _dump(self, command: Sequence[str], text: str) -> Result:
        words = [self.program if word == self.node.program else word for word in command]
        return run_here(["unshare", "-m", "sh", "-c", WITH_ETC, str(self.root), *words], text)


def task(host: CloudHost) -> Task:
    settings = agent_settings(sha256={"amd64": "0" * 64})
    return Task(host, settings, INSTALLER, "x86_64", lambda: Registration(True, "soci-system"))


@named(NODES)
def test_a_node_is_recognized(node: CloudNode, root: Path) -> None:
    assert detect.kind_of_node(CloudHost(root, node)).name == node.kind


def test_every_kind_that_is_refused_is_some_node() -> None:
    missing = {kind.name for kind in kinds.KINDS if kind.refusal} - {node.kind for node in REFUSED}
    assert not missing, f"tests/installer/cloud_nodes.py has no node of {missing}"


@named(REFUSED)
def test_a_node_is_refused_in_words_and_stays_as_it_was(node: CloudNode, root: Path) -> None:
    host = CloudHost(root, node)
    before = tree(root)
    with pytest.raises(InstallError) as caught:
        judge(host)
    assert node.refusal in caught.value.cause
    assert len(caught.value.remedy) > len("try again"), "it says what to do"
    assert tree(root) == before
    assert not [command for command in host.commands if command[0] in ("systemd-run", "env", "mount")]


@named(SERVED)
def test_a_served_nodes_file_gets_exactly_the_wanted_keys(
    node: CloudNode, root: Path, pytestconfig: pytest.Config
) -> None:
    series = node.series if pytestconfig.getoption("--full") else QUICK[node.series[0]]
    host = RealHost(root, node, series)
    before_tree = tree(root)
    facts = judge(host)
    plan = make_plan(task(host), facts)
    file = shared_file(plan)
    assert tree(root) == before_tree, "planning changes nothing"
    assert (file.path, plan.containerd_config) == (node.config_path, node.config_path)
    assert plan.restarts_containerd
    assert file.new
    host.write(file.path, file.new)
    after = dump(host, facts, file.path, host.read_text(file.path))
    change = Change(
        node.config, file.new.decode(), plan.effective, containerd_config.flatten(tomllib.loads(after))
    )
    assert_only_the_wanted_keys(change)
    assert lines_lost(change.text, change.new_text) <= 2
    assert not make_plan(task(host), facts).restarts_containerd, "a second run changes nothing"


def test_real_containerd_reads_the_nodes_files_and_not_this_machines(root: Path) -> None:
    """Else the tests above would say nothing of imports and the like."""
    node = node_named("Cluster API (image-builder), Ubuntu")
    host = RealHost(root, node, QUICK[node.series[0]])
    host.write("/etc/containerd/conf.d/other.toml", b"version = 3\noom_score = -7\n")
    seen = tomllib.loads(dump(host, judge(host), node.config_path, node.config))
    assert seen["oom_score"] == -7


def test_a_file_that_cannot_be_written_is_refused_with_the_way_around(root: Path) -> None:
    with pytest.raises(InstallError) as caught:
        judge(CloudHost(root, node_named("Flatcar as it came")))
    assert "copy /usr/share/containerd/config.toml to /etc/containerd" in caught.value.remedy


def test_a_kubelet_with_another_runtime_is_named(root: Path) -> None:
    with pytest.raises(InstallError, match=r"the kubelet uses /var/run/crio/crio\.sock"):
        judge(CloudHost(root, node_named("OKE (Oracle)")))


@named(WITH_PROVIDER)
def test_a_nodes_credential_provider_is_one_that_the_kubelet_would_take(node: CloudNode, root: Path) -> None:
    """Kubernetes' reference CredentialProviderConfig: what has to be there, and the plugin beside it."""
    assert node.provider
    host = CloudHost(root, node)
    if node.kubelet:
        command = host.read_text(f"/proc/{KUBELET_PID}/cmdline").split("\0")
        assert option(command, "image-credential-provider-config") == node.provider.config
        assert option(command, "image-credential-provider-bin-dir") == node.provider.folder
    found = block_yaml.load(host.read_text(node.provider.config))
    assert isinstance(found, dict)
    assert (found["apiVersion"], found["kind"]) == ("kubelet.config.k8s.io/v1", "CredentialProviderConfig")
    assert tuple(provider["name"] for provider in found["providers"]) == node.provider.plugins
    for provider in found["providers"]:
        assert provider["apiVersion"] == "credentialprovider.kubelet.k8s.io/v1"
        assert provider["defaultCacheDuration"]
        assert provider["matchImages"]
        assert host.path(f"{node.provider.folder}/{provider['name']}").stat().st_mode & 0o111


def test_every_node_has_its_sources() -> None:
    for node in (*NODES, *UNPUBLISHED):
        assert node.sources, node.name
        assert all(source.startswith("https://") or (REPOSITORY / source).exists() for source in node.sources)
    assert len({node.name for node in (*NODES, *UNPUBLISHED)}) == len(NODES) + len(UNPUBLISHED)
