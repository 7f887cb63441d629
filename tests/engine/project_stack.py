"""One stack of the project, run through the Pulumi CLI as a user does."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 180
QUIET = ("--yes", "--skip-preview", "--non-interactive")


class Stack:
    """A stack in a project directory of its own; every call of the CLI is bounded in time."""

    def __init__(
        self, directory: Path, environment: dict[str, str], name: str, config: dict[str, Any]
    ) -> None:
        self.directory, self.environment, self.name = directory, environment, name
        (directory / "stacks").mkdir(parents=True)
        for file in ("Pulumi.yaml", "__main__.py", "components", ".venv"):
            if (REPOSITORY / file).exists():
                (directory / file).symlink_to(REPOSITORY / file)
        self.configure(config)
        self.run("stack", "init", name)

    def configure(self, config: dict[str, Any]) -> None:
        """Replace the stack's whole configuration."""
        path = self.directory / "stacks" / f"Pulumi.{self.name}.yaml"
        salt = yaml.safe_load(path.read_text()).get("encryptionsalt") if path.exists() else None
        path.write_text(yaml.safe_dump({"config": config} | ({"encryptionsalt": salt} if salt else {})))

    def set(self, **changes: Any) -> None:
        """Change settings: set(version="0.16.1") is `pulumi config set soci:version 0.16.1`; None removes."""
        path = self.directory / "stacks" / f"Pulumi.{self.name}.yaml"
        config = yaml.safe_load(path.read_text())["config"]
        config |= {f"soci:{key}": value for key, value in changes.items()}
        self.configure({key: value for key, value in config.items() if value is not None})

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pulumi on this stack; the caller judges the exit code."""
        return subprocess.run(
            ["pulumi", *arguments, *(() if arguments[1:2] == ("init",) else ("--stack", self.name))],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if "--json" not in arguments else subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """Run pulumi on this stack and return what it said; fail when it does."""
        done = self.try_run(*arguments)
        assert done.returncode == 0, f"pulumi {' '.join(arguments)}:\n{done.stdout}{done.stderr or ''}"
        return done.stdout

    def up(self, *arguments: str) -> str:
        """`pulumi up` without a question and without the preview before it."""
        return self.run("up", *QUIET, *arguments)

    def try_up(self, *arguments: str) -> str:
        """`pulumi up` that must fail; return what it said."""
        done = self.try_run("up", *QUIET, *arguments)
        assert done.returncode != 0, f"pulumi up did not fail:\n{done.stdout}"
        return done.stdout

    def begin_up(self, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """`pulumi up` that goes on beside the test; what it says goes to ``output``."""
        return subprocess.Popen(
            ["pulumi", "up", *QUIET, "--stack", self.name],
            cwd=self.directory,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def interrupt_up(self, when: Callable[[], object]) -> None:
        """Kill the engine in the middle of `pulumi up`, when ``when`` returns, as a CI system kills a job."""
        engine = self.begin_up(subprocess.DEVNULL)
        try:
            when()
        finally:
            engine.kill()
            engine.wait()
        self.run("cancel", "--yes")

    def try_preview(self) -> str:
        """`pulumi preview` that must fail; return what it said."""
        done = self.try_run("preview", "--non-interactive")
        assert done.returncode != 0, f"pulumi preview did not fail:\n{done.stdout}"
        return done.stdout

    def plan(self) -> dict[str, str]:
        """Return what `pulumi preview` would do: {type::name: operation}, without what stays the same."""
        steps = json.loads(self.run("preview", "--json"))["steps"]
        return {
            "::".join(step["urn"].split("::")[2:]).rsplit("$", 1)[-1]: step["op"]
            for step in steps
            if step["op"] != "same"
        }

    def changes(self) -> dict[str, int]:
        """Return how many resources the last update created, updated, ...; without what stayed the same."""
        done = json.loads(self.run("stack", "history", "--json"))[0]["resourceChanges"]
        return {operation: count for operation, count in done.items() if operation != "same"}

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs, secrets included."""
        return json.loads(self.run("stack", "output", "--json", "--show-secrets"))

    def state(self) -> str:
        """Return the stack's state as it is stored, secrets encrypted."""
        return self.run("stack", "export")

    def destroy(self) -> None:
        """`pulumi destroy`, and the stack's own end."""
        self.run("destroy", *QUIET)


class Project:
    """A small project with a stack of its own."""

    def __init__(self, directory: Path, environment: dict[str, str], program: str) -> None:
        self.directory, self.environment = directory, environment
        (directory / "Pulumi.yaml").write_text("name: small\nruntime: python\n")
        (directory / "__main__.py").write_text(program)
        assert self.pulumi("stack", "init", directory.name).returncode == 0

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def config(self, **values: Any) -> None:
        """Set the program's configuration; what is no text becomes JSON."""
        for key, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value)
            assert self.pulumi("config", "set", "--", key, text).returncode == 0

    def up(self, *arguments: str) -> str:
        """`pulumi up` without a question; return what it said."""
        done = self.pulumi("up", *QUIET, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def resources(self) -> list[dict[str, Any]]:
        """Return what the stack's state holds."""
        return json.loads(self.pulumi("stack", "export").stdout)["deployment"].get("resources", [])

    def plan(self) -> dict[str, str]:
        """Return what `pulumi preview` would do: {type::name: operation}, without what stays the same."""
        done = self.pulumi("preview", "--json")
        assert done.returncode == 0, done.stdout
        steps = json.loads(done.stdout)["steps"]
        return {
            "::".join(step["urn"].split("::")[2:]).rsplit("$", 1)[-1]: step["op"]
            for step in steps
            if step["op"] != "same"
        }
