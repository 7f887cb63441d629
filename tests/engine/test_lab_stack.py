"""`lab pulumi …`: the commands of the README, typed on the lab."""

import os
import subprocess
import sys
from pathlib import Path

import local_stack
import pytest

REPOSITORY = Path(__file__).parents[2]
TRACKED = REPOSITORY / "stacks" / "Pulumi.local.yaml"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of a lab, whose stack is asked for from another directory than the project's."""
    monkeypatch.setenv("LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lab"


def pulumi(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As `lab pulumi` runs it, once it has seen that the lab is up."""
    command = [sys.executable, local_stack.__file__, *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=120)


def test_config_set_changes_the_lab_and_not_the_repository(lab: Path) -> None:
    tracked = TRACKED.read_bytes()
    done = pulumi("config", "set", "soci:version", "0.16.0")
    assert done.returncode == 0, done.stderr
    assert pulumi("config", "get", "soci:version").stdout.strip() == "0.16.0"
    assert pulumi("config", "get", "soci:context").stdout.strip() == "lab"
    assert TRACKED.read_bytes() == tracked


def test_the_labs_stack_is_selected_in_a_state_of_its_own(lab: Path) -> None:
    assert pulumi("stack", "--show-name").stdout.strip() == "local"
    assert list((lab / "pulumi/state").rglob("local.json"))


def test_the_exit_status_is_that_of_the_cli(lab: Path) -> None:
    done = pulumi("config", "get", "soci:nothing")
    assert done.returncode != 0
    assert "configuration key 'nothing' not found" in done.stderr


def test_make_up_puts_the_repositorys_settings_back(lab: Path) -> None:
    pulumi("config", "set", "soci:state", "absent")
    assert (lab / "Pulumi.local.yaml").read_bytes() != TRACKED.read_bytes()
    environment = local_stack.environment(lab, fresh=True)
    assert (lab / "Pulumi.local.yaml").read_bytes() == TRACKED.read_bytes()
    assert environment["PULUMI_STACK"] == "local"
