"""A rollout that dead nodes hold up: whose turn it is, and that nobody goes who is not meant to."""

from datetime import UTC, datetime
from typing import Any

import pytest
from agent import stalled_rollout
from agent.api import Api
from agent.stalled_rollout import TEMPLATE_ANNOTATION, TEMPLATE_LABEL

from tests.fakes.api import FakeApi

NOW = datetime(2026, 11, 26, 10, 10, tzinfo=UTC).timestamp()


def daemonset(wanted: int = 3, limit: int | str = 1) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {TEMPLATE_ANNOTATION: "2"}},
        "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": limit}}},
        "status": {"desiredNumberScheduled": wanted},
    }


def pod(node: str, template: str = "1", ready: bool = True, ends: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": f"soci-{node}", "labels": {"app": "soci", TEMPLATE_LABEL: template}}
    if ends:
        metadata["deletionTimestamp"] = "2026-11-26T10:00:00Z"
    ready_condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"conditions": [ready_condition]}}


DEAD = pod("c", ready=False, ends=True)


def next_ones(pods: list[dict[str, Any]], dead: tuple[str, ...] = ("c",), **spec: Any) -> list[str]:
    names = [entry["metadata"]["name"] for entry in pods]
    found = daemonset(**{"wanted": len(pods), **spec})
    return [name for name in names if stalled_rollout.is_next(name, found, pods, dead)]


def test_one_pod_goes_on_where_a_dead_node_is_all_that_keeps_the_controller() -> None:
    assert next_ones([pod("b"), pod("a"), DEAD]) == ["soci-a"]


def test_the_next_one_goes_once_the_first_serves_again() -> None:
    assert next_ones([pod("a", ends=True), pod("b"), DEAD]) == []
    assert next_ones([pod("b"), DEAD], wanted=3) == [], "the pod of the first is not made yet"
    assert next_ones([pod("a", "2", ready=False), pod("b"), DEAD]) == []
    assert next_ones([pod("a", "2"), pod("b"), DEAD]) == ["soci-b"]
    assert next_ones([pod("a", "2"), pod("b", "2"), DEAD]) == []


def test_a_change_that_fails_on_a_living_node_keeps_the_others() -> None:
    assert next_ones([pod("a", "2", ready=False), pod("b"), DEAD]) == []


def test_without_a_dead_node_the_controller_does_it() -> None:
    assert next_ones([pod("a"), pod("b"), DEAD], dead=()) == []


@pytest.mark.parametrize("limit", [2, "50%"])
def test_where_the_controller_may_take_another_pod_it_does_it(limit: int | str) -> None:
    assert next_ones([pod("a"), pod("b"), DEAD], limit=limit) == []


def test_a_percentage_is_rounded_up_as_the_controller_does() -> None:
    assert next_ones([pod("a"), pod("b"), DEAD], limit="10%") == ["soci-a"]


def node(status: str, since: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


def test_a_node_is_dead_once_it_was_silent_for_a_while() -> None:
    assert stalled_rollout.is_dead(node("Unknown", "2026-11-26T10:04:00Z"), NOW)
    assert not stalled_rollout.is_dead(node("Unknown", "2026-11-26T10:06:00Z"), NOW), "it may be rebooting"
    assert not stalled_rollout.is_dead(node("True", "2026-11-26T10:00:00Z"), NOW)
    assert not stalled_rollout.is_dead(node("False", "2026-11-26T10:00:00Z"), NOW), "its runtime is down"
    assert not stalled_rollout.is_dead({"status": {}}, NOW)


def test_a_node_that_went_silent_after_the_change_had_reached_it_holds_up_the_others() -> None:
    """A change that takes nodes away would go through the whole fleet."""
    changed = pod("c", "2", ready=False)
    changed["status"]["containerStatuses"] = [{"name": "installer"}]
    assert not stalled_rollout.may_be_dead(changed, daemonset())
    assert stalled_rollout.may_be_dead(DEAD, daemonset())
    assert stalled_rollout.may_be_dead(pod("c", "2", ready=False), daemonset()), "bound to it, and not begun"


@pytest.mark.parametrize(
    ("pods", "unavailable", "asked", "is_deleted"),
    [
        ([pod("a"), pod("b"), DEAD], 1, ["soci-a", "all"], True),
        ([pod("a", "2"), pod("b"), DEAD], 1, ["soci-a"], False),
        ([pod("a"), pod("b"), pod("c")], 0, [], False),
    ],
    ids=["its turn", "done already", "not stalled"],
)
def test_only_who_may_be_next_asks_for_the_pods_of_all_nodes(
    pods: list[dict[str, Any]], unavailable: int, asked: list[str], is_deleted: bool
) -> None:
    server = FakeApi(**node("Unknown", "2026-11-26T09:00:00Z"))
    server.pods = {entry["metadata"]["name"]: entry for entry in pods}
    server.pods["other"] = {"metadata": {"name": "other"}}
    server.daemonset = daemonset(wanted=len(pods))
    server.daemonset["spec"]["selector"] = {"matchLabels": {"app": "soci"}}
    server.daemonset["status"] |= {"numberUnavailable": unavailable, "updatedNumberScheduled": 1}
    api = Api("a", "soci-a", "soci-system", "soci-installer", server)
    assert stalled_rollout.go_on(api) is is_deleted
    assert ("soci-a" not in server.pods) is is_deleted
    lists = [path for _, path, _ in server.requests if "/pods?" in path]
    assert ["soci-a" if "metadata.name%3Dsoci-a" in path else "all" for path in lists] == asked
