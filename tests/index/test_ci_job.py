"""The job for GitLab, as its runner's shell runs it: clone, log in by its token, index, keep the cache."""

import json
import os
import shlex
import shutil
import string
import subprocess
from pathlib import Path

import pytest
import yaml
from awkward_registry import Auth, AwkwardRegistry, User
from soci_index import tools

from tests.index.conftest import SOURCE, Command
from tests.index.made_images import MIN_LAYER, Json, Repository, layer
from tests.index.test_index import layers_read

WORKFLOW = yaml.safe_load((SOURCE / "ci" / "github-actions.yaml").read_text())["jobs"]["index"]["steps"]
JOB = yaml.safe_load((SOURCE / "ci" / "gitlab-ci.yaml").read_text())["soci-index"]
USER, TOKEN = "gitlab-ci-token", "glcbt-secret"


@pytest.fixture
def clone_url(tmp_path: Path) -> str:
    """A Git repository that holds soci-index as this tree has it."""
    repository = tmp_path / "upstream"
    shutil.copytree(
        SOURCE, repository / "scripts" / "index", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@test.example"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "as it is"]):
        subprocess.run([*git, *words], check=True)
    return repository.as_uri()


def of_here(command: Command, host: str) -> str:
    """The options that a job's command hears of here: the registry has no TLS, the programs' releases are out
    of reach, and the layers are small."""
    programs = [f"--{name}={path}" for name, path in command.programs.items()]
    return shlex.join(["--plain-http", host, "--min-layer-size", MIN_LAYER, *programs])


def run_job(project: Path, clone_url: str, image: str, command: Command) -> list[Json]:
    """Run the job's lines in one shell, in a project directory; return what came of the images."""
    repository, _, tag = image.rpartition(":")
    host = repository.partition("/")[0]
    given = {
        "CI_PROJECT_DIR": str(project),
        "CI_REGISTRY": host,
        "CI_REGISTRY_IMAGE": repository,
        "CI_COMMIT_SHORT_SHA": tag,
        "CI_REGISTRY_USER": USER,
        "CI_REGISTRY_PASSWORD": TOKEN,
        "SOCI_CLUSTER_REPOSITORY": clone_url,
        "HOME": str(project / "home"),
        "PATH": os.environ["PATH"],
    }
    declared = {name: string.Template(value).substitute(given) for name, value in JOB["variables"].items()}
    lines = [*JOB["before_script"], *(f"{line} {of_here(command, host)}" for line in JOB["script"])]
    done = subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        cwd=project,
        env=given | declared,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout)["images"]


def test_the_job_for_gitlab_indexes_and_its_cache_spares_the_next_tag_the_known_layers(
    command: Command,
    repository: Repository,
    registry: AwkwardRegistry,
    clone_url: str,
    tmp_path: Path,
) -> None:
    base, app, changed = layer("base"), layer("app"), layer("changed")
    repository.image([base, app], tag="1a2b3c4d")
    repository.image([base, changed], tag="5e6f7a8b")
    registry.auth, registry.users = Auth.BEARER, {USER: User(TOKEN)}
    place = f"{registry.name}/{repository.name}"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    [indexed] = run_job(first, clone_url, f"{place}:1a2b3c4d", command)
    assert indexed["status"] == "indexed"
    assert (first / ".docker/config.json").stat().st_mode & 0o77 == 0
    # A runner carries the job's cache to the next job, and nothing else.
    for path in JOB["cache"]["paths"]:
        shutil.copytree(first / path, second / path)
    registry.forget()
    [indexed] = run_job(second, clone_url, f"{place}:5e6f7a8b", command)
    assert indexed["status"] == "indexed"
    # Of the new tag's layers, the one that was not there before; the first question for it has no token yet.
    assert [bool(reads) for reads in layers_read(registry, base, app, changed)] == [False, False, True]


def test_the_step_for_github_indexes_and_its_cache_is_the_commands_own(
    command: Command, repository: Repository, registry: AwkwardRegistry, tmp_path: Path
) -> None:
    """The steps before it, checkout, cache and docker login, are others'."""
    repository.image([layer("base")], tag="1")
    [kept] = [step["with"]["path"] for step in WORKFLOW if "actions/cache" in step.get("uses", "")]
    [place] = [step["with"]["path"] for step in WORKFLOW if "actions/checkout" in step.get("uses", "")]
    [step] = [step for step in WORKFLOW if "soci_index" in step.get("run", "")]
    shutil.copytree(SOURCE, tmp_path / place / "scripts" / "index")
    image = f"{registry.name}/{repository.name}:1"
    home = str(tmp_path / "home")
    done = subprocess.run(
        ["bash", "-e", "-c", f"{step['run']} {of_here(command, registry.name)}"],
        cwd=tmp_path,
        env={**step["env"], "IMAGE": image, "HOME": home, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["images"][0]["status"] == "indexed"
    own = Path(kept.replace("~", home))
    assert own.relative_to(home) == tools.cache_directory().relative_to(Path.home())
    assert list(own.glob("ztocs/*/*/*/*"))
