"""The edited configuration, judged by real containerd daemons of every series, in every schema they read.

Quick: the two series that the lab's nodes run. With --full: all of them.
"""

import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from agent import containerd_config, detect, transaction
from agent.errors import InstallError
from agent.host import Host, Result, Runner
from agent.plan import Plan, Registration, Task, make_plan

from tests.fakes.node import INSTALLER, daemon_processes, run_here
from tests.fakes.settings import agent_settings
from tests.installer.configurations import (
    CASES,
    SCHEMAS,
    Files,
    images,
    lines_lost,
    nvidia,
    root,
    runc,
    runtimes,
    sandbox,
)
from tests.installer.real_containerd import Change, assert_only_the_wanted_keys, containerd, shared_file

QUICK = ("1.7", "2.3")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    series = tuple(SCHEMAS) if metafunc.config.getoption("--full") else QUICK
    if "schema" in metafunc.fixturenames:
        pairs = [(one, schema) for one in series for schema in SCHEMAS[one]]
        metafunc.parametrize(
            ("series", "schema"), pairs, ids=[f"{one}, schema {schema}" for one, schema in pairs]
        )
    elif "series" in metafunc.fixturenames:
        metafunc.parametrize("series", series)


class ThisMachine(Host):
    """This machine, but for its processes: it runs no kubelet."""

    def __init__(self, processes: Path, runner: Runner) -> None:
        super().__init__(Path("/"), runner)
        self._processes = processes
        for name, text in daemon_processes().items():
            (processes / name).parent.mkdir(parents=True, exist_ok=True)
            (processes / name).write_text(text)

    def path(self, path: str) -> Path:
        return self._processes / path.lstrip("/") if path.startswith("/proc") else super().path(path)


class Daemon:
    """One containerd, and a directory of its configuration: outside /tmp, which is hidden when it judges."""

    def __init__(self, series: str, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.program, version = containerd(series)
        command = (self.program, "--config", str(self.config))
        self.facts = detect.Facts(
            containerd_start=command,
            containerd_process=detect.Process(command[0], command),
            containerd_version=version,
        )
        settings = agent_settings(sha256={"amd64": "0" * 64})
        host = ThisMachine(folder, self._run)
        self.task = Task(host, settings, INSTALLER, "x86_64", lambda: Registration(True, "soci-system"))

    def _run(
        self, command: Sequence[str], text: str, timeout: float, environment: Mapping[str, str] | None
    ) -> Result:
        if command[0] == "systemctl":
            return Result(0, "LoadState=not-found\n", "")
        return run_here(command, text, timeout) if command[0] == "unshare" else Result(1, "", "")

    def write(self, files: Files) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.replace("@DIR@", str(self.folder)).encode())

    def text(self) -> str:
        return self.config.read_bytes().decode() if self.config.exists() else ""

    def plan(self) -> Plan:
        return make_plan(self.task, self.facts)

    def dump(self) -> str:
        """containerd's own view of the files as they are."""
        done = run_here([self.program, "--config", str(self.config), "config", "dump"])
        assert done.code == 0, done.error
        return done.output

    def install(self) -> Change:
        """Plan as the agent does, and put the new file in place as the host script does."""
        text, plan = self.text(), self.plan()
        file = shared_file(plan)
        assert file.new
        Path(file.path).write_bytes(file.new)
        after = containerd_config.flatten(tomllib.loads(self.dump()))
        return Change(text, file.new.decode(), plan.effective, after)


@pytest.fixture
def node(series: str, tmp_path: Path) -> Iterator[Daemon]:
    folder = Path("/var/tmp") / f"soci-cluster-{tmp_path.name}"
    folder.mkdir()
    yield Daemon(series, folder)
    shutil.rmtree(folder)


def runtime_values(change: Change, *key: str) -> set[object]:
    """The value of a key of the runtimes before and after: one, if it stayed."""
    path = (*containerd_config.runtime_table(change.after), *key)
    return {change.before.get(path), change.after.get(path)}


@pytest.mark.failure_mode(1)
@pytest.mark.failure_mode(2)
@pytest.mark.failure_mode(3)
@pytest.mark.failure_mode(4)
@pytest.mark.failure_mode(5)
@pytest.mark.failure_mode(6)
@pytest.mark.failure_mode(11)
@pytest.mark.parametrize("name", CASES)
def test_only_the_wanted_keys_take_effect(name: str, series: str, schema: int, node: Daemon) -> None:
    """Or it is refused with the cause. Every other value keeps its type, every other line its bytes.

    kata-containers#3229, aicr#1688, gpu-operator#2646, containerd#12891, nydus#1810, gpu-operator#2060,
    coco-operator#305, gpu-operator#301, containerd#5837, nvidia-container-toolkit#1067.
    """
    case = CASES[name]
    node.write(case.files(schema))
    if refusal := case.refusal(series, schema):
        with pytest.raises(InstallError, match=refusal) as caught:
            node.plan()
        assert caught.value.remedy
        return
    change = node.install()
    assert_only_the_wanted_keys(change)
    declared = tomllib.loads(change.text).get("version", 2 if series == "1.7" else 3)
    assert tomllib.loads(change.new_text)["version"] == declared
    replaced = sum("snapshotter" in line and "=" in line for line in change.text.splitlines())
    assert lines_lost(change.text, change.new_text) <= replaced
    assert not node.plan().restarts_containerd


@pytest.mark.failure_mode(2)
def test_containerds_own_default_file(series: str, node: Daemon) -> None:
    """kubeadm's way: `containerd config default`, with the systemd cgroup driver."""
    text = run_here([node.program, "config", "default"]).output
    node.write({"config.toml": text.replace("SystemdCgroup = false", "SystemdCgroup = true")})
    change = node.install()
    assert_only_the_wanted_keys(change)
    assert lines_lost(change.text, change.new_text) <= 2
    assert tomllib.loads(change.new_text)["version"] == tomllib.loads(text)["version"]


@pytest.mark.failure_mode(7)
@pytest.mark.parametrize("name", ["nodeadm", "runc with systemd cgroups", "nvidia in the root file"])
def test_cgroup_driver_and_default_runtime_stay(name: str, series: str, schema: int, node: Daemon) -> None:
    """nvidia-container-toolkit#1040; an uninstall puts the old bytes back (test_host_script)."""
    node.write(CASES[name].files(schema))
    change = node.install()
    assert runtime_values(change, "runtimes", "runc", "options", "SystemdCgroup") == {True}
    assert len(runtime_values(change, "default_runtime_name")) == 1


@pytest.mark.failure_mode(37)
def test_nvidia_edits_the_root_file_after_soci(series: str, schema: int, node: Daemon) -> None:
    """Both are in effect, and nothing is left to do for us (gpu-operator#301)."""
    node.write({"config.toml": root(schema, runc(schema) + f"[{runtimes(schema)}]\n")})
    change = node.install()
    header, default, *tables = nvidia(schema).splitlines(keepends=True)
    text = change.new_text.replace(header, header + default) + "".join(tables)
    node.write({"config.toml": text})
    after = containerd_config.flatten(tomllib.loads(node.dump()))
    assert after[*containerd_config.runtime_table(after), "default_runtime_name"] == "nvidia"
    assert_only_the_wanted_keys(Change("", "", after, after))
    assert not node.plan().restarts_containerd


@pytest.mark.failure_mode(37)
def test_nvidia_adds_a_drop_in_after_soci(series: str, schema: int, node: Daemon) -> None:
    """Both are in effect on 2.x. On 1.7 the drop-in puts our keys out of effect: the agent says so."""
    node.write({"config.toml": root(schema, runc(schema), 'imports = ["conf.d/*.toml"]\n')})
    node.install()
    node.write({"conf.d/99-nvidia.toml": root(schema, nvidia(schema))})
    if series == "1.7":
        with pytest.raises(InstallError, match="snapshotter would be 'overlayfs'") as caught:
            node.plan()
        assert "imported files" in caught.value.remedy
        return
    after = containerd_config.flatten(tomllib.loads(node.dump()))
    assert after[*containerd_config.runtime_table(after), "default_runtime_name"] == "nvidia"
    assert_only_the_wanted_keys(Change("", "", after, after))
    assert not node.plan().restarts_containerd


@pytest.mark.failure_mode(3)
@pytest.mark.parametrize(
    ("right", "wrong"), [("snapshotter", "snapshoter"), ("disable_snapshot_annotations", "annotations")]
)
def test_misspelt_key_fails_validation(
    right: str, wrong: str, series: str, schema: int, node: Daemon
) -> None:
    """containerd only warns, if at all (nydus#1810, shim-spin#386)."""
    node.write({"config.toml": root(schema, runc(schema))})
    before = node.dump()
    change = node.install()
    node.write({"config.toml": change.new_text.replace(f"{right} =", f"{wrong} =")})
    problems = containerd_config.check_effect(before, node.dump())
    assert [problem for problem in problems if f"{right} would be" in problem]


@pytest.mark.failure_mode(3)
def test_key_of_another_schema_fails_validation(series: str, node: Daemon) -> None:
    """containerd starts with keys in tables that it does not know, and ignores them (gpu-operator#2060)."""
    schema = SCHEMAS[series][-1]
    text = root(schema)
    foreign = containerd_config.CRI_2 if series == "1.7" else containerd_config.CRI_1
    node.write({"config.toml": text})
    before = node.dump()
    node.write({"config.toml": containerd_config.edit(text, "config.toml", schema, foreign)})
    problems = containerd_config.check_effect(before, node.dump())
    assert [problem for problem in problems if "snapshotter would be 'overlayfs'" in problem]


@pytest.mark.failure_mode(2)
@pytest.mark.parametrize("link", ["@DIR@/elsewhere/real.toml", "elsewhere/real.toml"])
def test_linked_file(link: str, series: str, node: Daemon) -> None:
    """The link stays, its target changes; relative imports begin where the link is, as for the daemon."""
    schema = SCHEMAS[series][-1]
    node.write(
        {
            "elsewhere/real.toml": root(schema, sandbox(schema), 'imports = ["conf.d/*.toml"]\n'),
            "conf.d/other.toml": root(schema, "[timeouts]\n'io.containerd.timeout.shim.load' = '7s'\n"),
            "elsewhere/conf.d/other.toml": root(schema, f"[{images(schema)}]\nsnapshotter = 'native'\n"),
        }
    )
    node.config.symlink_to(link.replace("@DIR@", str(node.folder)))
    change = node.install()
    assert node.config.is_symlink()
    assert_only_the_wanted_keys(change)
    assert change.after["timeouts", "io.containerd.timeout.shim.load"] == "7s"


@pytest.mark.failure_mode(2)
@pytest.mark.failure_mode(3)
def test_daemon_starts_with_the_edited_file(series: str, schema: int, node: Daemon) -> None:
    """Not only its judgement: the CRI plugin loads and the snapshotter is registered (aicr#1688)."""
    quiet = "[plugins.'io.containerd.nri.v1.nri']\ndisable = true\n"
    opt = f"[plugins.'io.containerd.internal.v1.opt']\npath = '{node.folder}/opt'\n"
    node.write({"config.toml": root(schema, runc(schema) + sandbox(schema) + quiet + opt)})
    node.install()
    plugins = [line.split() for line in loaded_plugins(node)]
    state = {(kind, name): status for kind, name, *_, status in plugins}
    assert state["io.containerd.grpc.v1", "cri"] == "ok"
    assert state["io.containerd.snapshotter.v1", "soci"] == "ok"


def loaded_plugins(node: Daemon) -> list[str]:
    """Start the daemon in directories of its own, this machine's /run out of its sight, and ask it."""
    address = f"{node.folder}/s"
    directories = ["--root", f"{node.folder}/root", "--state", f"{node.folder}/state", "--address", address]
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "containerd"]
    command = [*hide, node.program, "--config", str(node.config), *directories]
    ctr = str(Path(node.program).with_name("ctr"))
    with (node.folder / "log").open("w+b") as log, subprocess.Popen(command, stderr=log) as daemon:
        try:
            while daemon.poll() is None:
                listed = run_here([ctr, "--address", address, "--connect-timeout", "1s", "plugins", "ls"])
                if listed.code == 0:
                    return listed.output.splitlines()
                time.sleep(0.1)
            pytest.fail((node.folder / "log").read_text()[-1000:])
        finally:
            daemon.terminate()


def test_newer_schema_than_the_daemon_reads_is_refused(series: str, node: Daemon) -> None:
    node.write({"config.toml": f"version = {SCHEMAS[series][-1] + 1}\n"})
    with pytest.raises(InstallError, match=r"containerd refuses|in schema 5"):
        node.plan()


@pytest.mark.failure_mode(37)
def test_host_script_sees_what_the_agent_saw(series: str, schema: int, node: Daemon) -> None:
    """Until another tool adds an imported file (gpu-operator#301, spegel#413)."""
    node.write({"config.toml": root(schema, runc(schema), 'imports = ["conf.d/*.toml"]\n')})
    plan = node.plan()
    node.install()
    assert seen_by_host_script(node, plan) == 0
    node.write({"conf.d/99-nvidia.toml": root(schema, nvidia(schema))})
    assert seen_by_host_script(node, plan) == 1


def seen_by_host_script(node: Daemon, plan: Plan) -> int:
    """The status of the host script's own function, alone."""
    keys = ("containerd_program", "containerd_config", "containerd_dump")
    (node.folder / "plan.env").write_text("".join(f"{key}={getattr(plan, key)}\n" for key in keys))
    script = transaction.host_script(INSTALLER).decode() + f"\nread_plan '{node.folder}'\ncheck_effect\n"
    return run_here(["env", "SOCI_HOST_MAIN=noop", "ROOT=", "sh", "-s"], script).code
