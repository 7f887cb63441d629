"""The command as a user runs it, with the real oras, the lab's soci, and a registry that counts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import binaries
import pytest
from awkward_registry import AwkwardRegistry
from background import Process, free_port
from images import await_registry
from soci_index import tools

from tests.index.made_images import MIN_LAYER, Json, Repository

SOURCE = Path(tools.__file__).parents[1]
LOCAL = "127.0.0.1"


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    return {name: binaries.build(name) / name for name in ("soci", "oras")}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The lab's registry, empty: http://host:port."""
    directory, address = tmp_path_factory.mktemp("store"), f"{LOCAL}:{free_port()}"
    program = binaries.build("registry") / "registry"
    process = Process(directory / "log", [str(program), "-addr", address, "-dir", str(directory)])
    await_registry(address)
    yield f"http://{address}"
    process.stop()


@pytest.fixture(scope="session")
def front(store: str) -> Iterator[AwkwardRegistry]:
    registry = AwkwardRegistry(store, LOCAL)
    yield registry
    registry.close()


@pytest.fixture
def registry(front: AwkwardRegistry) -> AwkwardRegistry:
    """What the command talks to: it stands before the store, counts, and may be awkward."""
    front.behave()
    front.forget()
    front.writes = True
    return front


@pytest.fixture
def repository(store: str, request: pytest.FixtureRequest) -> Repository:
    """A repository of the test's own, as the store has it: requests of the test are not counted."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return Repository(store.removeprefix("http://"), f"team/{name.strip('-')[:100].strip('-')}")


@dataclass
class Command:
    """soci-index, with a cache and a home of its own."""

    directory: Path
    programs: dict[str, Path]
    host: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def words(self, *arguments: str, plain_http: bool = True) -> list[str]:
        return [
            *(sys.executable, "-B", "-m", "soci_index", *arguments),
            *(f"--{name}={path}" for name, path in self.programs.items()),
            *("--cache", str(self.cache), "--min-layer-size", MIN_LAYER),
            *(["--plain-http", self.host] if plain_http else []),
        ]

    def variables(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir(exist_ok=True, parents=True)
        known = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DOCKER_"))
        }
        return {**known, "HOME": str(home), "PYTHONPATH": str(SOURCE), **self.environment}

    def run(self, *arguments: str, plain_http: bool = True) -> subprocess.CompletedProcess[str]:
        command = self.words(*arguments, plain_http=plain_http)
        return subprocess.run(
            command, capture_output=True, text=True, env=self.variables(), timeout=120, check=False
        )

    def json(self, *arguments: str, status: int = 0, plain_http: bool = True) -> list[Json]:
        """What came of the images; the exit status must be this one."""
        done = self.run(*arguments, "--output", "json", plain_http=plain_http)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)["images"]


@pytest.fixture
def command(tmp_path: Path, programs: dict[str, Path], registry: AwkwardRegistry) -> Command:
    return Command(tmp_path, programs, registry.name)


@pytest.fixture
def place(registry: AwkwardRegistry, repository: Repository) -> str:
    """The test's repository as the command names it."""
    return f"{registry.name}/{repository.name}"
