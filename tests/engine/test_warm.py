"""The forks that stand for fresh interpreters: what they share with the process that was started, and their
end, with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from tests.waiting import wait_for

SLOW = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"


def command(directory: Path, program: str) -> list[str]:
    """Write a script, and return what runs it."""
    script = directory / "script.py"
    script.write_text(program)
    return [sys.executable, "-IS", warm.__file__, str(script)]


def has_ended(directory: Path) -> bool:
    """Say whether the slow script has."""
    try:
        os.kill(int((directory / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_streams_arguments_environment_and_status_are_those_of_each_process(
    tmp_path: Path, warm_python: dict[str, str]
) -> None:
    told = "[os.environ.get(name) for name in ('FIRST', 'SECOND')], os.getcwd(), sys.argv[1:], input()"
    script = command(tmp_path, f"import os, sys; print({told}); sys.exit(7)")
    for secrets in (["secret", None], [None, "secret"]):
        given = {name: value for name, value in zip(("FIRST", "SECOND"), secrets, strict=True) if value}
        done = subprocess.run(
            [*script, "argument"],
            cwd=tmp_path,
            env={**warm_python, **given},
            input="said",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{secrets} {tmp_path} ['argument'] said\n"
        assert (done.stderr, done.returncode) == ("", 7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_script(tmp_path: Path, warm_python: dict[str, str], number: int) -> None:
    process = subprocess.Popen(
        command(tmp_path, SLOW), cwd=tmp_path, env=warm_python, stderr=subprocess.DEVNULL
    )
    wait_for((tmp_path / "pid").exists, 30, "the script runs")
    process.send_signal(number)
    assert process.wait(30) != 0
    wait_for(lambda: has_ended(tmp_path), 30, "the script ends")


def test_the_script_ends_when_the_engine_was_killed(tmp_path: Path, warm_python: dict[str, str]) -> None:
    """Plugins stayed, and went on waiting for what the killed engine had asked."""
    start = f"import subprocess; subprocess.run({command(tmp_path, SLOW)!r})"
    engine = subprocess.Popen([sys.executable, "-c", start], cwd=tmp_path, env=warm_python)
    wait_for((tmp_path / "pid").exists, 30, "the script runs")
    engine.kill()
    engine.wait()
    wait_for(lambda: has_ended(tmp_path), 30, "the script ends")
