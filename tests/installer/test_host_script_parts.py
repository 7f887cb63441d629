"""The host script's functions, sourced one by one; and its checks of the node."""

import os
import re
import subprocess
from pathlib import Path

import node_checks_table
import pytest
from agent import transaction
from agent.slots import FIRST, SECOND

from tests.fakes.node import INSTALLER
from tests.fakes.script_node import CONFIG, NEW_CONFIG, ScriptNode
from tests.fakes.sourced_script import call

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

SCRIPT = transaction.host_script(INSTALLER).decode()
CHECKS = {name: does for name, does, _ in node_checks_table.checks()}


@pytest.mark.parametrize("slot", [FIRST, SECOND])
def test_slots_are_the_agents_slots(slot) -> None:
    found = call(
        f'select_slot {slot.name}; printf "%s\\n" "$SNAPSHOTTER" "$UNIT" "$UNIT_FILE" "$ADOPTION" '
        '"$SOCKET" "$DATA"'
    )
    wanted = [slot.name, slot.unit, slot.unit_path, slot.adoption, slot.socket, slot.data]
    assert found.split() == wanted


def test_work_in_another_slot_leaves_the_selected_one_selected() -> None:
    found = call(
        'select_slot soci; in_slot soci-b eval true; in_each_slot eval true; say "$SNAPSHOTTER $DATA"'
    )
    assert found.split() == ["soci", FIRST.data]


def test_a_failure_in_a_slot_ends_the_script() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        call("select_slot soci; in_each_slot false; say went-on")
    assert "went-on" not in caught.value.stdout


def test_every_journal_state_that_is_written_or_read_is_in_the_table_of_the_head() -> None:
    head = SCRIPT[SCRIPT.index("# The journal has") : SCRIPT.index("# Functions have")]
    listed = set(re.findall(r"^#   ([a-z-]+) {2,}", head, re.MULTILINE))
    written = set(re.findall(r"\bjournal ([a-z-]+)\b(?! \w)", re.sub(r"#.*", "", SCRIPT)))
    assert written == listed == {
        "armed", "restarting", "committed", "rolled-back", "removing", "restoring", "cleaning",
    }  # fmt: skip


def test_a_record_that_a_full_disk_does_not_hold_is_not_shortened(tmp_path) -> None:
    """The copy of the earlier lines failed, the new line still fitted, and the originals were forgotten."""
    record = tmp_path / "originals" / "files"
    record.parent.mkdir()
    record.write_text("shared\t/etc/containerd/config.toml\t0644\t0:0\tabc\t-\tetc.containerd.config.toml\n")
    before = record.read_text()
    line = (
        "FILE_ROLE=daemon FILE_PATH=/new FILE_MODE=0644 FILE_OWNER=0:0 FILE_OLD=absent FILE_NEW=d FILE_NAME=n"
    )
    with pytest.raises(subprocess.CalledProcessError):
        call(f"STATE={tmp_path} {line}; cat() {{ return 1; }}; save_old {tmp_path}/txn")
    assert record.read_text() == before


def test_a_key_that_no_plan_has_is_not_taken(tmp_path) -> None:
    """plan.env is data: neither a variable of the script's own nor code can come from it."""
    plan = "slot=soci-b\nSTATE=/elsewhere\nPATH=/x\nx; touch /tmp/x=1\npause_image=a b$(touch /tmp/y)\n"
    (tmp_path / "plan.env").write_text(plan)
    found = call(f'read_plan {tmp_path}; say "$STATE|$PLAN_pause_image|$SNAPSHOTTER"')
    assert found == "/var/lib/soci-cluster|a b$(touch /tmp/y)|soci-b\n"


def steps(outcome: transaction.Outcome) -> list[str]:
    return [name.removeprefix("verify-") for name, _ in outcome.steps if name.startswith("verify-")]


def test_an_install_makes_every_check_and_tells_each_as_a_step(node: ScriptNode) -> None:
    outcome = node.apply(node.stage())
    assert outcome.outcome == "committed", f"{outcome.step}: {outcome.cause}"
    assert steps(outcome) == list(CHECKS)


def test_an_uninstall_makes_every_check_for_the_nodes_own_snapshotter(node: ScriptNode) -> None:
    node.install()
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^step verify-(\S+)$", (node.fake / "unit-output").read_text(), re.MULTILINE)
    assert told == list(CHECKS)


def verified(node: ScriptNode) -> transaction.Outcome:
    done = node.run("verify")
    outcome = transaction.parse_result(done.stdout)
    assert (done.returncode == 0) == (outcome.outcome == "verified")
    return outcome


def test_the_reading_checks_change_nothing(node: ScriptNode) -> None:
    node.install()
    before = node.etc()
    (node.fake / "calls").write_text("")
    outcome = verified(node)
    assert (outcome.outcome, outcome.cause) == ("verified", "")
    assert steps(outcome) == [check for check, does in CHECKS.items() if does == "reads"]
    assert node.etc() == before
    assert node.calls("systemctl restart", "systemctl start", "ctr --namespace k8s.io run") == []
    assert node.journal() == "committed"


@pytest.mark.failure_mode(37)
def test_containerd_that_runs_without_ours_fails_the_check(node: ScriptNode) -> None:
    """Another tool restarted it on a file of its own, and then the file came back."""
    node.install()
    (node.fake / "loaded-config").write_bytes(b"version = 2\n")
    outcome = verified(node)
    assert (outcome.outcome, outcome.step) == ("failed", "verify-plugins")
    assert outcome.cause == "containerd runs with the snapshotters '', but its configuration names 'soci'"


@pytest.mark.failure_mode(37)
def test_file_that_names_another_snapshotter_fails_the_check(node: ScriptNode) -> None:
    node.install()
    node.host.path(CONFIG).write_bytes(NEW_CONFIG.replace(b'"soci"', b'"nydus"'))
    outcome = verified(node)
    assert (outcome.outcome, outcome.step) == ("failed", "verify-snapshotter")
    assert (
        outcome.cause == "another tool changed containerd's configuration: its snapshotter is nydus, not soci"
    )


def test_cri_plugin_that_did_not_load_fails_the_check(node: ScriptNode) -> None:
    node.install()
    node.set("cri-fails")
    outcome = verified(node)
    assert (outcome.outcome, outcome.step) == ("failed", "verify-cri")
    assert outcome.cause == "containerd's CRI plugin did not load"


def test_a_node_fails_each_of_the_checks_in_a_test() -> None:
    """One that nothing fails may be one that cannot fail."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_host_script*.py"))
    unfailed = [check for check in CHECKS if f'"verify-{check}"' not in tests]
    assert not unfailed, f"no test has a node that fails {unfailed}"


def test_daemon_that_containerd_does_not_reach_fails_the_check(node: ScriptNode) -> None:
    node.install()
    node.clear(f"active-{FIRST.unit}")
    outcome = verified(node)
    assert (outcome.outcome, outcome.step) == ("failed", "verify-connection")


def test_nothing_installed_fails_the_check(node: ScriptNode) -> None:
    node.stage()
    outcome = verified(node)
    assert (outcome.outcome, outcome.cause) == ("failed", "nothing is installed")


def test_commit_that_was_cut_short_is_ended_before_the_checks(node: ScriptNode) -> None:
    """The journal says so already; only the link to the transaction is missing."""
    node.install()
    (node.root / "var/lib/soci-cluster/current").unlink()
    assert verified(node).outcome == "verified"


def test_containerd_that_moved_since_the_install_is_asked_where_it_is(node: ScriptNode) -> None:
    """An administrator put another build in its place: the plan of the install names the old program."""
    node.install()
    plan = node.host.path("/var/lib/soci-cluster/current/plan.env").resolve()
    lines = [line for line in plan.read_text().splitlines(True) if not line.startswith("containerd_program=")]
    plan.write_text("".join([*lines, "containerd_program=/usr/bin/containerd-that-is-gone\n"]))
    assert verified(node).outcome == "verified"


def test_containerd_that_does_not_read_its_file_is_told_so(node: ScriptNode) -> None:
    node.install()
    node.set("refuses-to-dump")
    outcome = verified(node)
    assert (outcome.step, outcome.cause) == ("verify-plugins", "containerd does not read its configuration")


def test_checks_do_not_hold_up_a_start_of_containerd(node: ScriptNode) -> None:
    """Before each start of it the boot unit waits for whoever holds the lock."""
    node.install()
    lock = node.root / "var/lib/soci-cluster/lock"
    (node.fake / "on-plugins-ls").write_text(f'flock -n "{lock}" true && : >"$FAKE/lock-is-free"\n')
    assert verified(node).outcome == "verified"
    assert (node.fake / "lock-is-free").exists()


def test_registries_are_asked_through_the_proxies_that_containerd_runs_with() -> None:
    """Beside the daemon's own, which a systemd unit of ours does not have: an image was held for good."""
    variables = {"HTTPS_PROXY": "http://user:a b@proxy:3128", "no_proxy": "10.0.0.0/8,.corp", "OTHER": "x"}
    containerd = subprocess.Popen(["sleep", "60"], env=variables)
    try:
        code = f"PLAN_containerd_unit=c; systemctl() {{ say {containerd.pid}; }}; with_proxies env"
        found = dict(line.split("=", 1) for line in call(code).splitlines() if "=" in line)
    finally:
        containerd.kill()
        containerd.wait()
    assert {name: found.get(name) for name in variables} == {**variables, "OTHER": None}


def test_without_containerd_registries_are_asked_as_ever() -> None:
    assert call("PLAN_containerd_unit=c; systemctl() { say 0; }; with_proxies echo asked") == "asked\n"
