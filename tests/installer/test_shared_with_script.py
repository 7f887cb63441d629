"""What agent and host script share is the same on both sides: the script's functions are called for it."""

import re
from pathlib import Path

import pytest
from agent import detect, images, install, transaction, uninstall
from agent.slots import FIRST, SECOND, Slot

from tests.fakes.sourced_script import SCRIPT, say


@pytest.mark.parametrize("slot", [FIRST, SECOND], ids=lambda slot: slot.name)
def test_a_slot_is_the_same_place(tmp_path: Path, slot: Slot) -> None:
    names = ("SNAPSHOTTER", "UNIT", "UNIT_FILE", "ADOPTION", "CONFIG_FILE", "SOCKET", "DATA")
    assert say(tmp_path, f"select_slot {slot.name}", *(f"${name}" for name in names)) == [
        slot.name,
        slot.unit,
        slot.unit_path,
        slot.adoption,
        slot.config,
        slot.socket,
        slot.data,
    ]


def test_there_are_two_slots(tmp_path: Path) -> None:
    assert say(tmp_path, "", "$SLOTS") == [f"{FIRST.name} {SECOND.name}"]


def test_state_program_and_copies_are_at_the_same_places(tmp_path: Path) -> None:
    assert say(tmp_path, "", "$STATE", "$PROGRAM", "$PROGRAM/soci-host.sh", "$COPIES", "$REMOVAL_UNIT") == [
        transaction.STATE,
        uninstall.PROGRAM,
        transaction.SCRIPT,
        images.COPIES,
        uninstall.UNIT.removesuffix(".service"),
    ]


def test_every_journal_state_that_the_agent_knows_is_one_that_the_script_writes(tmp_path: Path) -> None:
    commands = re.sub(r'(^|\s)#.*|"[^"\n]*"', " ", SCRIPT, flags=re.MULTILINE)
    written = set(re.findall(r"\bjournal ([a-z][a-z-]+)", commands))
    known = {"armed", "restarting", "committed", "rolled-back", *uninstall.REMOVING}
    assert written == known


def test_the_script_knows_a_file_of_ours_by_the_agents_words(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.write_text(f"{detect.OUR_MARK}; more\n")
    other.write_text("# Written by somebody\n")
    asks = f"found=''; for file in {ours} {other}; do if is_ours $file; then found=$found$file; fi; done"
    assert say(tmp_path, asks, "$found") == [str(ours)]


def test_the_agent_reads_from_the_scripts_refusal_for_whom_it_has_to_wait(tmp_path: Path) -> None:
    mounts = "lazy_mounts() { echo /run/a; echo /run/b; }"
    asks = "PLAN_snapshotter_action=restart; cause=$( (check_idle) 2>&1 || :)"
    (cause,) = say(tmp_path, f"{mounts}\n{asks}", "$cause")
    assert cause.startswith(install.BUSY)
    assert cause.removeprefix(install.BUSY).split() == ["/run/a", "/run/b"]
