"""Two installers on one cluster: each has nodes of its own, or the second one is refused."""

from typing import Any

import pytest

from components import other_installers, ownership
from components.live_cluster import UnreadableError
from components.other_installers import DAEMON_SETS, look

OWNER = "urn:pulumi:dev::soci::soci:index:SociInstaller::gpu 11111111"
OTHER = OWNER.replace("::gpu", "::web")
LINUX = {"kubernetes.io/os": "linux"}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": LINUX | labels}}


def daemon_set(namespace: str, owner: str, **labels: str) -> dict[str, Any]:
    annotations = {ownership.ANNOTATION: owner} if owner else {}
    metadata = {"name": "soci-installer", "namespace": namespace, "annotations": annotations}
    return {"metadata": metadata, "spec": {"template": {"spec": {"nodeSelector": LINUX | labels}}}}


class Cluster:
    """A cluster with these objects; it refuses to show what is None."""

    def __init__(self, daemon_sets: list[Any] | None, nodes: list[Any] | None) -> None:
        self.found = {DAEMON_SETS: daemon_sets, "/api/v1/nodes": nodes}

    def items(self, path: str, **_: str) -> list[Any]:
        found = self.found[path]
        if found is None:
            raise UnreadableError("forbidden")
        return found


def told(cluster: Any, **selector: str) -> str | None:
    return look(cluster, "soci-gpu", OWNER, LINUX | selector)


def test_pools_without_a_common_node_live_on_one_cluster() -> None:
    web = daemon_set("soci-web", OTHER, pool="web")
    assert told(Cluster([web], [node("a", pool="gpu"), node("b", pool="web")]), pool="gpu") is None


def test_a_node_that_two_installers_select_is_named() -> None:
    web = daemon_set("soci-web", OTHER, pool="web")
    nodes = [node("c", pool="web"), node("b", pool="web"), node("a", pool="gpu")]
    assert told(Cluster([web], nodes)) == (
        "node b and 1 more: the installer soci-web/soci-installer selects it, too, and one node takes one "
        "installer. Remedy: give each installer nodes of its own, pulumi config set --path "
        "'soci:nodeSelector[\"LABEL\"]' VALUE"
    )


@pytest.mark.parametrize(
    "there",
    [
        daemon_set("soci-gpu", OTHER),
        daemon_set("soci-before", OWNER),
        daemon_set("soci-before", ""),
    ],
    ids=["its own, of a renamed component", "its predecessor", "an older version's"],
)
def test_a_daemon_set_that_is_its_own_or_goes_is_no_other_installer(there: dict[str, Any]) -> None:
    assert told(Cluster([there], [node("a")])) is None


def test_an_installer_that_is_being_deleted_is_no_other_installer() -> None:
    web = daemon_set("soci-web", OTHER)
    web["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert told(Cluster([web], [node("a")])) is None


@pytest.mark.parametrize("hidden", [(None, []), ([daemon_set("soci-web", OTHER)], None)])
def test_a_cluster_that_shows_nothing_refuses_nothing(hidden: Any) -> None:
    assert told(Cluster(*hidden)) is None


def test_a_node_is_selected_by_all_labels() -> None:
    assert other_installers.selects({"a": "1"}, node("n", a="1", b="2"))
    assert not other_installers.selects({"a": "1", "b": "2"}, node("n", a="1"))
    assert other_installers.selects({}, {"metadata": {"name": "n"}})


def test_nodes_with_soci_of_another_pool_are_not_said_to_be_left_alone() -> None:
    web = daemon_set("soci-web", OTHER, pool="web")
    gpu = daemon_set("soci-gpu", OWNER, pool="gpus")
    cluster: Any = Cluster([web, gpu], [node("b", pool="web"), node("a", pool="gpu")])
    assert other_installers.unattended(cluster) == ["a"]
