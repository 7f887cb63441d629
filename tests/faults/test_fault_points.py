"""Whatever strikes at whichever call of the transaction: the node ends wholly old or wholly new, by itself.

The points are the calls that a clean run makes to change the node's files. Each is tried in a run of its own,
and judged as harness.Judge says: with neither pod nor API server at first, then by the next complete run.
"""

import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.harness import (
    SCENARIOS,
    TALLY,
    FaultNode,
    Judge,
    Memory,
    Run,
    Scenario,
    Verdict,
    finish,
    prepare,
    start,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system and gives files to root"),
    pytest.mark.timeout(3 * 3600),  # in the full run a test is hundreds of runs
]

LOG = logging.getLogger(__name__)
CHANGES = list(SCENARIOS)
# The others are no transactions of an agent's: for the uninstall and the retirement it only waits.
INSTALLS = [name for name in CHANGES if not name.startswith(("uninstall", "retirement", "rollback", "boot"))]
ROLLBACKS = [name for name in CHANGES if name.startswith("rollback")]
# One of each kind, whose preparation takes less than half of the time of all.
QUICK = {"first_install", "side_by_side", "uninstall", "rollback_of_version_change", "boot_in_first_install"}


def marked(names: list[str]) -> list[object]:
    """Scenarios as parameters; those that are not quick are slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def strike_everywhere(
    nodes: list[FaultNode], name: str, action: str, stride: int, script_only: bool = False
) -> list[str]:
    """Strike at every ``stride``-th point of a scenario, on all nodes at once; a line for each bad end."""
    memory = Memory()
    shift = zlib.crc32(f"{name} {action}".encode())

    def strike_on(number: int) -> list[tuple[str, Verdict]]:
        prepared = prepare(nodes[number], name)
        calls = [call for call in prepared.calls if not script_only or call.startswith("script")]
        judge = Judge(nodes[number], prepared.scenario, memory)
        first = 1 + shift % min(stride, len(calls))  # at least one point of each is tried
        points = range(first, len(calls) + 1, stride)[number :: len(nodes)]
        found = []
        for at in points:
            if len(found) % 50 == 0:
                LOG.info("%s, %s: at call %d of %d", name, action, at, len(calls))
            found.append((f"{at}: {calls[at - 1]}", strike(judge, action, at, script_only)))
        return found

    with ThreadPoolExecutor(len(nodes)) as pool:
        found = [item for items in pool.map(strike_on, range(len(nodes))) for item in items]
    assert found, f"{name}, {action}: nothing was struck"
    TALLY.ended.update(verdict.ended for _, verdict in found)
    return [f"{point}: {verdict.why}" for point, verdict in found if verdict.ended == "bad"]


def strike(judge: Judge, action: str, at: int, script_only: bool) -> Verdict:
    """One point: the act with a strike at call ``at``, and the verdict on what came of it."""
    node, scenario = judge.node, judge.scenario
    start(node, scenario)
    run = scenario.act(at=at, action=action, **({"script_only": True} if script_only else {}))
    finish(node, scenario)
    verdict = judge.after(action)
    if not run.struck:
        return Verdict("bad", f"only {len(run.calls)} calls were made")
    if action == "disk full" and not says_why(run, scenario):
        return Verdict("bad", f"no reason was given: {run.output}")
    return verdict


def says_why(run: Run, scenario: Scenario) -> bool:
    """Whether the agent finished, or said at which step it stopped and why. A recovery says only why."""
    if scenario.cut:
        return run.status == 0 or bool(run.output)
    outcome = run.outcome
    if outcome.get("outcome") == "done":
        return True
    cause = outcome.get("cause", "").lower()
    return bool(outcome.get("step")) and ("no space" in cause or bool(scenario.faults and cause))


@pytest.mark.failure_mode(16)
@pytest.mark.parametrize("name", marked(CHANGES))
def test_agent_and_script_killed_at_every_call(nodes, name: str, stride: int) -> None:
    """gpu-operator#456, kata-containers#13551: killed by the very restart that it had asked for."""
    bad = strike_everywhere(nodes, name, "kill all", stride)
    assert not bad, "\n".join(bad)


@pytest.mark.failure_mode(16)
@pytest.mark.parametrize("name", marked(INSTALLS))
def test_script_killed_at_every_call_of_it(nodes, name: str, stride: int) -> None:
    """The agent that lives on rolls back what its host script began."""
    bad = strike_everywhere(nodes, name, "kill script", stride, script_only=True)
    assert not bad, "\n".join(bad)


@pytest.mark.failure_mode(16)
@pytest.mark.failure_mode(38)
@pytest.mark.parametrize("name", marked(INSTALLS))
def test_agent_killed_at_every_call_of_its_script(nodes, name: str, stride: int) -> None:
    """The host script ends what it began, whatever becomes of the pod."""
    bad = strike_everywhere(nodes, name, "kill agent", stride, script_only=True)
    assert not bad, "\n".join(bad)


@pytest.mark.failure_mode(8)
@pytest.mark.parametrize("name", marked(CHANGES))
def test_power_cut_at_every_call(nodes, name: str, stride: int) -> None:
    """Plain writes leave half a file; here what was not synced is lost, and the node boots."""
    bad = strike_everywhere(nodes, name, "power cut", stride)
    assert not bad, "\n".join(bad)


@pytest.mark.failure_mode(9)
@pytest.mark.parametrize("name", marked([*INSTALLS, *ROLLBACKS]))
def test_disk_full_from_every_call_on(nodes, name: str, stride: int) -> None:
    """stargz-snapshotter#1349: the disk stays full, and the rollback must do without it."""
    bad = strike_everywhere(nodes, name, "disk full", stride)
    assert not bad, "\n".join(bad)
