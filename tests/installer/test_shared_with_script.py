"""What agent and host script share is the same on both sides; their slots: test_host_script_parts.py."""

import re
from pathlib import Path

from agent import carry, pull_secret_files, slots, transaction, uninstall

from tests.fakes.sourced_script import SCRIPT, call


def test_there_are_two_slots() -> None:
    assert call('say "$SLOTS"').split() == [slots.FIRST.name, slots.SECOND.name]


def test_state_program_and_copies_are_at_the_same_places() -> None:
    names = ("$STATE", "$PROGRAM", "$PROGRAM/soci-host.sh", "$COPIES", "$REMOVAL_UNIT.service")
    assert call(f'say "{" ".join(names)}"').split() == [
        transaction.STATE,
        transaction.PROGRAMS,
        transaction.SCRIPT,
        carry.COPIES,
        uninstall.UNIT,
    ]


def test_pull_secrets_are_at_the_same_places() -> None:
    assert call('say "$SECRETS $SECRETS_READ $SECRET_HOSTS"').split() == [
        pull_secret_files.FOLDER,
        pull_secret_files.READ,
        pull_secret_files.HOSTS,
    ]


def test_roles_are_the_same_in_the_same_order() -> None:
    assert call('say "$BEFORE_RESTART $AFTER_DAEMON"').split() == list(transaction.Role)


def test_the_columns_of_a_manifest_are_the_same() -> None:
    (read,) = re.findall(r"read -r (FILE_ROLE .*); do$", SCRIPT, re.MULTILINE)
    assert read.lower().replace("file_", "").split() == list(transaction.ManifestLine._fields)


def test_every_journal_state_that_the_agent_knows_is_one_that_the_script_writes() -> None:
    commands = re.sub(r'(^|\s)#.*|"[^"\n]*"', " ", SCRIPT, flags=re.MULTILINE)
    written = set(re.findall(r"\bjournal ([a-z][a-z-]+)", commands))
    assert written == {"armed", "restarting", "committed", "rolled-back", *uninstall.REMOVING}


def test_the_script_knows_a_file_of_ours_by_the_agents_words(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.write_text(f"{slots.OUR_MARK}; more\n")
    other.write_text("# Written by somebody\n")
    found = call(f'for file in {ours} {other}; do if is_ours "$file"; then say "$file"; fi; done')
    assert found.split() == [str(ours)]


def test_the_agent_reads_from_the_scripts_refusal_for_whom_it_has_to_wait() -> None:
    asks = "PLAN_snapshotter_action=restart; lazy_mounts() { say /run/a; say /run/b; }"
    cause = call(f"{asks}\n(check_idle) 2>&1 || :")
    assert transaction.parse_result(f"outcome=unchanged\ncause={cause}").busy_mounts == ("/run/a", "/run/b")
