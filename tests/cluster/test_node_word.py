"""What a real node says of itself when it does not serve, and who mends it when nobody tells it to."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from lab_client import on_node

from tests.cluster.life import NAME_SECONDS, without_image
from tests.cluster.life_events import (
    CONFIG,
    START_SECONDS,
    STATE,
    WITHOUT_KEYS,
    crash,
    crash_with_registry_away,
    reboot_with,
)
from tests.cluster.life_pods import Pod
from tests.cluster.life_witness import Witness
from tests.cluster.looks import running_program, slot_in_use
from tests.cluster.sample_pods import IMAGE, delete_sample
from tests.waiting import wait_for

pytestmark = pytest.mark.full
NODE = "node2"
COUNT_STARTS = "journalctl -q -u containerd -o cat | grep -c '^Started containerd'"


@pytest.fixture
def witness(api, deployed) -> Iterator[Witness]:
    witness = Witness(api, NODE)
    # As often as others changed it, and what they wrote, is of earlier tests.
    on_node(NODE, f"rm -rf {STATE}/repairs {STATE}/replaced")
    wait_for(lambda: witness.serves, NAME_SECONDS, f"{NODE} serves")
    yield witness
    witness.end()


def await_no(witness: Witness, since: float, message: str = "") -> None:
    """Wait for the node to say that it does not serve, in such words, and to be selected no more."""

    def is_said() -> bool:
        return witness.first(since, lambda word: word.says_no and message in word.message) is not None

    try:
        wait_for(is_said, NAME_SECONDS, f"{NODE} says that it does not serve {message}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {witness.history}") from None


def test_a_daemon_that_does_not_come_up_is_said_and_the_node_is_not_selected_meanwhile(
    witness: Witness,
) -> None:
    slot = slot_in_use(NODE)
    program = running_program(NODE, slot)
    begun = time.monotonic()
    on_node(NODE, f"chmod -x {program}; systemctl kill -s KILL {slot.unit}")
    try:
        await_no(witness, begun)
    finally:
        on_node(NODE, f"chmod +x {program}")
    wait_for(lambda: witness.serves, 60, f"{NODE} serves")


def test_a_daemon_that_does_not_start_with_what_others_wrote_gets_its_own_file_back(
    api, witness: Witness
) -> None:
    """No container started any more, the installer's own neither, and the node said that it serves."""
    config = slot_in_use(NODE).config
    begun = datetime.now(UTC)

    def is_told() -> bool:
        selector = f"involvedObject.name={NODE},reason=Drifted"
        events = api.list_namespaced_event("default", field_selector=selector).items
        told = [event for event in events if "did not start so" in event.message and config in event.message]
        return any(event.metadata.creation_timestamp > begun for event in told)

    with reboot_with(NODE, f'/usr/bin/sed -i "s/^type = .*/type = 1/" {config}'):
        pod = Pod.start(api, NODE, IMAGE, ["sleep", "9999"])
        try:
            pod.await_phase("Running", START_SECONDS)
        finally:
            pod.delete()
    assert "type = 1" in on_node(NODE, f"cat {STATE}/replaced/{config.strip('/').replace('/', '.')}")
    wait_for(is_told, NAME_SECONDS, "an Event tells of it")
    wait_for(lambda: witness.serves, NAME_SECONDS, f"{NODE} serves")


def test_two_tools_that_undo_each_other_restart_containerd_once(witness: Witness) -> None:
    """Each repair restarts containerd: without a limit two tools did so all day."""
    kept = on_node(NODE, f"base64 -w 0 {CONFIG}").strip()
    rewrite = f"{WITHOUT_KEYS}; systemctl restart containerd"
    before = int(on_node(NODE, COUNT_STARTS))
    begun = time.monotonic()
    on_node(NODE, rewrite)
    await_no(witness, begun)
    wait_for(lambda: witness.serves, 60, f"{NODE} is put right")
    begun = time.monotonic()
    on_node(NODE, rewrite)
    try:
        await_no(witness, begun, "the installer puts it right again in")
        # Two by the other tool, one by the repair.
        assert int(on_node(NODE, COUNT_STARTS)) - before == 3
        assert "by others" in on_node(NODE, f"cat {CONFIG}")
    finally:
        # The other tool gives in.
        on_node(NODE, f"echo {kept} | base64 -d >{CONFIG}; systemctl restart containerd")
        on_node(NODE, f"rm -f {STATE}/repairs {STATE}/originals/changed-by-others")
    wait_for(lambda: witness.serves, 60, f"{NODE} serves")


def test_what_an_earlier_daemon_has_fetched_does_not_fill_the_disk(api, witness: Witness) -> None:
    """SOCI takes nothing away: each start left as much on the disk as all images have."""
    delete_sample(api)
    without_image(NODE)
    cached = f"ls {slot_in_use(NODE).span_cache}"
    pod = Pod.start(api, NODE, IMAGE, ["sleep", "9999"])
    try:
        pod.await_phase("Running", 120)
        before = set(on_node(NODE, cached).split())
        assert before, "the image is lazily loaded"
        crash(NODE)
        wait_for(lambda: set(on_node(NODE, f"{cached} || :").split()) - before != set(), 60, "a new start")
        assert set(on_node(NODE, cached).split()) & before == set()
    finally:
        pod.delete()
    wait_for(lambda: witness.serves, NAME_SECONDS, f"{NODE} serves")


def test_a_node_mends_itself_without_its_installer(api, witness: Witness) -> None:
    """The unit of the daemon starts the healer: neither a pod nor the API server is needed."""
    delete_sample(api)
    without_image(NODE)
    pod = Pod.start(api, NODE, IMAGE, ["true"], restartPolicy="Never")
    try:
        pod.await_phase("Succeeded", 120)
        on_node(NODE, "pkill -STOP -f [a]gent/watch.py")
        since = on_node(NODE, "date +%s").strip()
        crash_with_registry_away(0)(NODE)
        healed = f"journalctl -q -o cat -u soci-cluster-heal --since=@{since} | grep '^forgotten' || :"
        wait_for(lambda: IMAGE in on_node(NODE, healed), 60, "the image is forgotten")
    finally:
        on_node(NODE, "pkill -CONT -f [a]gent/watch.py || :")
        pod.delete()
