"""The `local` stack on the lab, run through the Pulumi CLI."""

import subprocess
from pathlib import Path

from lab_client import REPOSITORY


class LabStack:
    """The `local` stack, run through the CLI as a user does, with settings of a test's own."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.environment = environment
        self.config_file = directory / "Pulumi.local.yaml"
        self.config_file.write_text((REPOSITORY / "stacks" / "Pulumi.local.yaml").read_text())

    def pulumi(self, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments, "--stack", "local"],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pulumi up`; the caller judges the exit code."""
        return self.pulumi(
            "up", "--yes", "--non-interactive", "--config-file", str(self.config_file), *arguments
        )

    def set(self, key: str, value: str, path: bool = False) -> None:
        done = self.pulumi(
            "config", "set", "--config-file", str(self.config_file), *(["--path"] if path else []), key, value
        )
        assert done.returncode == 0, done.stderr

    def must_go_up(self, *arguments: str) -> str:
        done = self.up(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
