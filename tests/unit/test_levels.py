"""Which tests run at which level; CI runs the quick and the slow ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MODULE = """
import pytest

def test_quick(): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.full
def test_full(): ...

@pytest.mark.slow
@pytest.mark.full
def test_slow_and_full(): ...

@pytest.fixture
def stride(request): return request.config.getoption("--stride")

def test_faults(stride): ...
"""


def collected(folder: Path, *options: str) -> set[str]:
    """The names of the tests that pytest collects at a level."""
    (folder / "conftest.py").write_text((REPOSITORY / "tests/conftest.py").read_text())
    (folder / "test_levels_of.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), "-c", str(REPOSITORY / "pyproject.toml"), *options, str(folder)]
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=REPOSITORY, env=own, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return {line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {"test_quick", "test_faults"}),
        (["--slow"], {"test_slow", "test_faults"}),
        (["--full"], {"test_quick", "test_slow", "test_full", "test_slow_and_full", "test_faults"}),
    ],
)
def test_each_level_has_its_tests(tmp_path: Path, options: list[str], wanted: set[str]) -> None:
    assert collected(tmp_path, *options) == wanted


def test_what_the_makefile_runs_as_slow_has_slow_tests() -> None:
    """pytest ends with an error where it finds none, and the stages behind it do not run."""
    makefile = (REPOSITORY / "Makefile").read_text()
    [stages] = re.findall(r"PYTEST_ADDOPTS=--slow scripts/stages (.*)", makefile)
    for stage in stages.split():
        folders = [stage, "faults"] if stage == "installer" else [stage]
        for folder in folders:
            modules = (REPOSITORY / "tests" / folder).glob("test_*.py")
            assert any("pytest.mark.slow" in module.read_text() for module in modules), folder


def test_a_clean_clone_must_pass_both_levels() -> None:
    """What `make test` leaves out for its time would be tested by nobody."""
    lines = (REPOSITORY / ".ci/run").read_text().splitlines()
    assert {line.removeprefix("exec ") for line in lines if "make" in line and line[0] != "#"} == {
        "make test",
        "make slow",
    }
