"""Pods whose files died with the daemon, with soci:brokenPods evict."""

import pytest

from tests.cluster.life_events import crash
from tests.cluster.looks import condition
from tests.cluster.readers import Readers
from tests.waiting import wait_for

NAME_SECONDS = 30


@pytest.mark.full
def test_broken_pods_are_evicted_within_their_budget_and_made_anew(api, stack, application):
    """A budget holds them back, and what is broken stays named until it may go."""
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.set("soci:brokenPods", "evict")
    stack.must_go_up()
    node = application.pods()[0].spec.node_name
    broken = {pod.metadata.name for pod in application.pods(node)}
    crash(node)
    for name in broken:
        wait_for(
            lambda name=name: name in (condition(api, node).get("message") or ""),
            NAME_SECONDS,
            f"{name} named",
        )
    assert broken <= {pod.metadata.name for pod in application.pods()}, "the budget allows no disruption"
    application.allow_a_disruption()
    wait_for(lambda: not broken & {pod.metadata.name for pod in application.pods()}, 120, "they are gone")
    application.await_ready()
    Readers(api, [pod.metadata.name for pod in application.pods()]).must_go_on()
    wait_for(
        lambda: "cannot be read" not in condition(api, node)["message"], NAME_SECONDS, "nothing is broken"
    )
