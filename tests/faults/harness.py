"""A node on a small file system of its own, where faults strike at chosen calls of agent and host script.

The root is an ext4 image on a loop mount: a power cut shuts it down without flushing its log, so what was not
synced is lost as on a real disk. The daemons are the fakes of tests/fakes, whose state lies elsewhere.
"""

import ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from agent import images, transaction
from agent.slots import FIRST, SECOND

from tests.fakes import script_node
from tests.fakes.node import CONTAINERD_PID, INSTALLER, REPOSITORY, daemon_processes, furnish
from tests.fakes.older_node import older_tree
from tests.fakes.script_node import FAKES, LAZY, furnish_layers

HERE = Path(__file__).parent
CONFIG = "etc/containerd/config.toml"
HOOK, BOOT = (path.lstrip("/") for path in (script_node.HOOK, script_node.BOOT))
SLOTS = (FIRST, SECOND)
UNIT = FIRST.unit_path.lstrip("/")
LOADED = (
    "loaded-config",
    *(f"loaded-{kind}{slot.suffix}" for kind in ("unit", "soci-config") for slot in SLOTS),
)
KUBELET = "kubelet.service"
JOURNAL_CHANGES = "script rename /var/lib/soci-cluster/journal"  # as the log of calls has it
# What systemd starts at a boot. An uninstall that the boot queued runs once containerd does.
BOOT_COMMANDS = f"""
systemctl daemon-reload
systemctl start containerd.service
[ ! -e "$FAKE/enabled-{KUBELET}" ] || systemctl start {KUBELET}
[ ! -e "$FAKE/queued-removal" ] || {{
  rm "$FAKE/queued-removal"
  sh "$ROOT{transaction.SCRIPT}" remove-now || :
}}
"""
STRUCT = struct.Struct("7i")
# The log is not committed on its own, and a rename does not flush the renamed file's data.
MOUNT_OPTIONS = "loop,noatime,noauto_da_alloc,commit=1000"
ACTIONS = {"none": 0, "kill all": 1, "kill script": 2, "kill agent": 3, "power cut": 4, "disk full": 5}
PAUSE_LINE = "REF TYPE DIGEST STATUS SIZE UNPACKED\nexample.org/pause:3.10 type d complete (1/1) 1 true\n"
TEMPORARY = ".soci-cluster-new"

Entry = tuple[int, int, int, bytes]  # mode, owner, group, content or target
Tree = dict[str, Entry]


@dataclass(frozen=True)
class Run:
    """How a job ended: its exit status, its output, and the calls that changed the node."""

    status: int
    output: str
    calls: list[str]
    struck: bool

    @property
    def outcome(self) -> dict:
        """The agent's own word; empty when it was killed."""
        return json.loads(self.output) if self.output.startswith("{") else {}


@dataclass(frozen=True)
class State:
    """All that a later step can see: the node's files, and its daemons."""

    root: Tree
    fake: Tree

    def is_active(self, unit: str) -> bool:
        return f"active-{unit}" in self.fake

    def timers(self) -> list[str]:
        """Transactions whose dead man's timer is running."""
        found = (re.fullmatch(r"active-soci-cluster-deadman-(.*)\.timer", path) for path in self.fake)
        return [match[1] for match in found if match]

    def snapshotters_of_containers(self) -> set[bytes]:
        lines = self.fake.get("containers", (0, 0, 0, b""))[3].splitlines()
        return {line.split()[1] for line in lines}

    def content(self, path: str) -> bytes | None:
        entry = self.root.get(path)
        return entry[3] if entry else None


def read_tree(folder: Path) -> Tree:
    """Every entry below ``folder``."""
    tree: Tree = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            found = os.lstat(path)
            content = b""
            if stat.S_ISLNK(found.st_mode):
                content = os.readlink(path).encode()
            elif stat.S_ISREG(found.st_mode) and name != "filler":
                content = Path(path).read_bytes()
            tree[os.path.relpath(path, folder)] = (found.st_mode, found.st_uid, found.st_gid, content)
    return tree


def write_tree(folder: Path, tree: Tree) -> None:
    """Make ``folder`` hold exactly ``tree``."""
    for entry in os.scandir(folder):
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    for path, (mode, owner, group, content) in tree.items():  # a folder comes before what is in it
        target = f"{folder}/{path}"
        if stat.S_ISDIR(mode):
            os.mkdir(target)
        elif stat.S_ISLNK(mode):
            os.symlink(content, target)
            continue
        else:
            Path(target).write_bytes(content)
        os.chmod(target, stat.S_IMODE(mode))
        os.chown(target, owner, group)


def compile_library(folder: Path) -> Path:
    """The preloaded library, built from fault_points.c."""
    library = folder / "fault_points.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library)]
    subprocess.run([*command, str(HERE / "fault_points.c"), "-ldl"], check=True)
    return library


class FaultNode:
    """The node under fault. Use `node()` to make one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.fake = folder / "fake"
        self.image = folder / "image"
        self.shared = folder / "shared"
        self.log = folder / "calls"
        self.untouched = State({}, {})  # set once the node is furnished
        self.prepared: dict[str, Prepared] = {}
        for path in (self.root, self.fake):
            path.mkdir()
        self.shared.write_bytes(bytes(STRUCT.size))
        (self.fake / "mountinfo").touch()
        with self.image.open("wb") as file:
            file.truncate(600 << 20)  # the installer wants 300 MiB; sparse, so almost nothing of it is real
        features = ("-O", "^resize_inode", "-E", "lazy_itable_init=0,nodiscard")
        small = ("-b", "1024", "-N", "4096", "-J", "size=1", "-m", "0")
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *small, *features, str(self.image)], check=True)
        self._mount()
        self.environment = {
            **os.environ,
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "FAKE": str(self.fake),
            "MOUNTINFO": str(self.fake / "mountinfo"),
            "FAULT_ROOT": str(self.root),
            "FAULT_STATE": str(self.shared),
            "FAULT_LOG": str(self.log),
            "LD_PRELOAD": str(compile_library(folder)),
        }
        self._server = subprocess.Popen(
            [sys.executable, "-B", str(HERE / "agent_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment | {"PYTHONPATH": f"{REPOSITORY}:{INSTALLER}"},
        )

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()
        self._unmount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", MOUNT_OPTIONS, str(self.image), str(self.root)], check=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", str(self.root)], check=True)

    def state(self) -> State:
        return State(read_tree(self.root), read_tree(self.fake))

    def become(self, state: State) -> None:
        """Put the node into ``state``, synced, with a log that has nothing left to commit."""
        write_tree(self.root, state.root)
        write_tree(self.fake, state.fake)
        self.sync()

    def sync(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY)
        ctypes.CDLL(None).syncfs(descriptor)
        os.close(descriptor)

    def _run(self, job: dict, at: int, action: str, script_only: bool) -> Run:
        self.shared.write_bytes(STRUCT.pack(0, at, ACTIONS[action], script_only, 0, 0, 0))
        self.log.write_text("")
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        struck = STRUCT.unpack(self.shared.read_bytes())[6]
        calls = self.log.read_text(errors="replace").splitlines()
        return Run(answer["status"], answer["output"], calls, bool(struck))

    def agent(
        self, version: str, name: str, at: int = 0, action: str = "none", script_only: bool = False
    ) -> Run:
        """One run of the agent, whose transaction is called ``name``."""
        return self._run({"program": "agent", "version": version, "id": name}, at, action, script_only)

    def script(self, *arguments: str, at: int = 0, action: str = "none") -> Run:
        """One run of the host script."""
        return self._shell(f"{self.root}{transaction.SCRIPT}", *arguments, at=at, action=action)

    def _shell(self, *arguments: str, at: int, action: str) -> Run:
        return self._run({"program": "shell", "arguments": arguments}, at, action, False)

    def uninstaller(self) -> Run:
        """One run of the agent that takes SOCI off the node."""
        return self._run({"program": "uninstaller"}, 0, "none", False)

    def boot(self, at: int = 0, action: str = "none") -> Run:
        """A boot: no daemon and no timer is left, and containerd and the kubelet start.

        Containers come back as they were.
        """
        for path in self.fake.glob("active-*"):
            path.unlink()
        for name in (*LOADED, "tasks", "queued-removal"):
            (self.fake / name).unlink(missing_ok=True)
        run = self._shell("-ec", BOOT_COMMANDS, at=at, action=action)
        assert run.struck or not run.status, run
        return run

    def lose_power(self) -> None:
        """After a power cut: what the file system makes of its log."""
        self._unmount()
        # Another mount namespace of the machine may hold the old mount for a while, and would get its dead
        # file system back: so a copy of the disk is plugged in.
        copy = self.image.with_name(self.image.name + "-copy")
        subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
        copy.replace(self.image)
        self._mount()

    def free_disk(self) -> None:
        (self.root / "lost+found/filler").unlink(missing_ok=True)
        self.sync()

    def let_time_pass(self) -> None:
        """Past the ten minutes in which a change that failed is not tried again."""
        for entry in (self.root / "var/lib/soci-cluster/txn").glob("*"):
            found = entry.stat()
            os.utime(entry, (found.st_atime, found.st_mtime - 2 * transaction.FORGET_FAILURE_SECONDS))


@contextmanager
def node() -> Generator[FaultNode]:
    """A fresh node in memory; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/dev/shm") as folder:
        found = FaultNode(Path(folder))
        try:
            make_fresh(found)
            yield found
        finally:
            found.close()


def make_fresh(found: FaultNode) -> None:
    """A node that nobody installed anything on: containerd runs its own configuration."""
    furnish(found.root)
    for path in ("etc/systemd/system", "opt", "lost+found"):
        (found.root / path).mkdir(parents=True, exist_ok=True)
    (found.root / CONFIG).chmod(0o640)
    found.boot()
    found.untouched = found.state()


# --- judgement ----------------------------------------------------------------------------------------------


def canonical(state: State, *names: str) -> State:
    """``state`` without what differs from run to run: names that are drawn, texts of logs, measured times."""

    def renamed(text: str) -> str:
        for name in names:
            text = text.replace(name, "TRANSACTION")
        text = re.sub(r"/\.(\d[\d.]*)-(old-)?[a-z0-9_]{8}", r"/.\1-\2RANDOM", text)
        return re.sub(r"/dev/shm/faults-\w+/", "/", text)

    def entries(tree: Tree) -> Iterator[tuple[str, Entry]]:
        for path, (mode, owner, group, content) in tree.items():
            if (
                "/healed-" in path
            ):  # which start of the daemon was healed: a transaction leaves that to others
                continue
            text = content.decode("latin-1")
            if path.endswith("/log"):
                text = ""
            elif path.endswith(("/result", "/result.next")):
                text = re.sub(r"down_ms=\d+", "down_ms=0", text)
            yield renamed(path), (mode, owner, group, renamed(text).encode("latin-1"))

    fake = {
        path: entry
        for path, entry in state.fake.items()
        if not path.startswith(("calls", "process-", "tasks", "next", "starts-", "pid-"))
    }
    return State(dict(sorted(entries(state.root))), dict(sorted(entries(fake))))


def in_effect(state: State) -> dict[str, object]:
    """What the node's daemons read, now and at their next start.

    The boot unit counts only with the drop-in that asks for it, and a temporary file not at all: systemd does
    not take it for a unit, and no pattern of imports ends in its suffix.
    """
    files: dict[str, object] = {
        path: entry
        for path, entry in state.root.items()
        if path.startswith("etc/") and not stat.S_ISDIR(entry[0]) and not path.endswith(TEMPORARY)
    }
    if HOOK not in files:
        files.pop(BOOT, None)
    for name in LOADED:
        files[name] = state.fake.get(name, (0, 0, 0, None))[3]
    for unit in ("containerd.service", *(slot.unit for slot in SLOTS)):
        files[unit] = state.is_active(unit)
    return files


def problems(state: State) -> list[str]:
    """What is wrong with a node at rest, whichever of the good states it is in."""
    found = []
    if not state.is_active("containerd.service"):
        found.append("containerd is down")
    loaded = state.fake.get("loaded-config", (0, 0, 0, b""))[3]
    if loaded != state.content(CONFIG):
        found.append("containerd's loaded configuration is not the file")
    known = re.findall(rb"^\[proxy_plugins\.(\S+)\]", loaded, re.MULTILINE)
    used = {
        *re.findall(rb'^snapshotter = "(\S+)"', loaded, re.MULTILINE),
        *state.snapshotters_of_containers(),
    }
    for slot in SLOTS:
        if slot.name.encode() in used and not state.is_active(slot.unit):
            found.append(f"{slot.name} is in use, but its daemon is down")
        if slot.name.encode() in used and slot.name.encode() not in known:
            found.append(f"{slot.name} is in use, but containerd does not know it")
    if f"enabled-{KUBELET}" in state.fake and not state.is_active(KUBELET):
        found.append("the kubelet is down")
    if state.timers():
        found.append("a dead man's timer is still running")
    for slot in SLOTS if HOOK in state.root else ():
        unit = state.content(slot.unit_path.lstrip("/")) or b""
        program = re.search(rb"^ExecStart=/(\S+)", unit, re.MULTILINE)
        if program and not (state.content(program[1].decode()) or b"").startswith(b"#!/bin/sh"):
            found.append(f"the unit's program {program[1].decode()} is not there")
    return found


def difference(found: dict, wanted: dict) -> list[str]:
    """Keys whose value is not the same in both."""
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


@dataclass
class Scenario:
    """A change of the node: the state before it, how it is made, and how the next run makes it again.

    Or what goes on with a change that was cut short: that begins at ``cut``, and has one good end only.
    """

    name: str
    old: State
    act: Callable[..., Run]
    again: Callable[[], Run]
    faults: tuple[str, ...] = ()  # of the fakes, during the act only
    new: State = field(default_factory=lambda: State({}, {}))
    final: State = field(default_factory=lambda: State({}, {}))  # where every next run ends
    cut: State | None = None
    ends: tuple[str, ...] = ("old", "new")
    helper: str = "timers"  # what ends a run that was killed: the dead man's timer, or the unit's own restart
    is_only_resumed: bool = False  # by the next run; until then anything may be between old and new


@dataclass(frozen=True)
class Verdict:
    """Which good state the node reached by itself; what is wrong otherwise."""

    ended: str  # old, new or bad
    why: str = ""


def key(state: State) -> str:
    """Equal for states that cannot be told apart."""
    return hashlib.sha256(repr(canonical(state)).encode()).hexdigest()


def classify(scenario: Scenario, state: State) -> Verdict:
    """Whether a node at rest is in the old or in the new state, and nothing is wrong with it."""
    wrong = problems(state)
    found = in_effect(state)
    differences = {
        ended: difference(found, in_effect(wanted))
        for ended, wanted in (("old", scenario.old), ("new", scenario.new))
        if ended in scenario.ends
    }
    for ended, differs in differences.items():
        if not differs:
            return Verdict("bad" if wrong else ended, "; ".join(wrong))
    if scenario.is_only_resumed and not wrong:
        return Verdict("old")
    return Verdict(
        "bad", "; ".join([*wrong, *(f"not {ended}: {differs}" for ended, differs in differences.items())])
    )


@dataclass
class Memory:
    """What follows from the states of one scenario, by their keys: shared by the nodes that try it."""

    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """What all judgements of a session came to."""

    ended: Counter[str] = field(default_factory=Counter)
    rollback_seconds: list[float] = field(default_factory=list)


TALLY = Tally()


class Judge:
    """Judges a node that was struck. What follows from a state is found once, and kept in ``memory``."""

    def __init__(self, node: FaultNode, scenario: Scenario, memory: Memory) -> None:
        self.node = node
        self.scenario = scenario
        self._known = memory.verdicts
        self._converged = memory.problems

    def after(self, action: str) -> Verdict:
        """The verdict on the node as it is now: ``action`` struck and every process of the run ended."""
        if action == "power cut":
            self.node.lose_power()
        if action == "disk full":
            self._timers(self.node.state())  # while it is full
            self.node.free_disk()
        state = self.node.state()
        ways = list(dict.fromkeys([self.scenario.helper, "boot"]))
        # A rollback that found no room, its reserve being taken too, is tried again until there is some.
        ways = {"power cut": ["boot"], "disk full": ["timers"]}.get(action, ways)
        known = (ways[0], key(state))
        if known not in self._known:
            verdicts = [self._follow(state, way) for way in ways]
            if action.startswith("kill") and self.scenario.helper != "boot":
                self.node.become(state)
                if problem := self._next_run():
                    verdicts.append(Verdict("bad", f"at once: {problem}"))
            self._known[known] = next((found for found in verdicts if found.ended == "bad"), verdicts[0])
        return self._known[known]

    def _follow(self, state: State, way: str) -> Verdict:
        self.node.become(state)
        started = time.monotonic()
        helpers = {"timers": self._timers, "unit": self._unit, "boot": self._boot}
        helpers[way](state)
        TALLY.rollback_seconds.append(time.monotonic() - started)
        verdict = classify(self.scenario, self.node.state())
        problem = self._next_run()
        if problem or verdict.ended == "bad":
            return Verdict("bad", f"{way}: {verdict.why} {problem}")
        return verdict

    def _next_run(self) -> str:
        """What differs after the next complete run from where every run ends, down to the last leftover."""
        before = key(self.node.state())
        if before not in self._converged:
            self._converged[before] = self._run_again()
        return self._converged[before]

    def _run_again(self) -> str:
        self.node.let_time_pass()
        run = self.scenario.again()
        if "minutes ago" in run.outcome.get("cause", ""):  # it undid what had restarted containerd
            self.node.let_time_pass()
            run = self.scenario.again()
        self._timers(self.node.state())
        names = ("0-p", "1-a", "2-b")
        found, wanted = canonical(self.node.state(), *names), canonical(self.scenario.final, *names)
        differs = difference(found.root, wanted.root) + difference(in_effect(found), in_effect(wanted))
        differs = [path for path in differs if not re.search("/txn/[^/]+/(result|result.next)$", path)]
        return f"the next run ended in {differs}: {run.output[-300:]}" if differs else ""

    def _timers(self, state: State) -> None:
        for name in state.timers():
            timer = self.node.fake / f"active-soci-cluster-deadman-{name}.timer"
            timer.unlink()
            if self.node.script("rollback", name).status:
                timer.touch()  # its unit has Restart=on-failure

    def _unit(self, state: State) -> None:
        if transaction.SCRIPT.lstrip("/") in state.root:
            self.node.script("remove-now")

    def _boot(self, state: State) -> None:
        self.node.boot()


# --- scenarios ----------------------------------------------------------------------------------------------


def first_install(node: FaultNode) -> Scenario:
    """A node that nobody installed anything on."""
    return _install(node, "first install", node.state())


def first_install_that_fails(node: FaultNode) -> Scenario:
    """As before, but no container starts under the new snapshotter: all the way there and back."""
    return _install(node, "first install that fails", node.state(), ("canary-fails",))


def first_install_with_layers(node: FaultNode) -> Scenario:
    """A container's image whose blobs were discarded once it was unpacked: its layers are carried over."""
    diff_ids = ["sha256:1", "sha256:2"]
    furnish_layers(node.root, len(diff_ids))
    (node.fake / "images").write_text("example.org/app:1 type index incomplete 1 true\n")
    answers = {
        "images check": f"{PAUSE_LINE}example.org/app:1 type index incomplete (1/3) 1 true\n",
        "snapshots --snapshotter overlayfs ls": "".join(f"{chain}\n" for chain in images.chain_ids(diff_ids)),
        "content get index": json.dumps({"config": {"digest": "sha256:c0"}}),
        "content get sha256:c0": json.dumps({"rootfs": {"diff_ids": diff_ids}}),
    }
    (node.fake / "ctr.json").write_text(json.dumps(answers))
    return _install(node, "first install with layers", node.state())


def adoption(node: FaultNode) -> Scenario:
    """A node whose operating system brought a snapshotter with a unit of its own, which runs."""
    for path, text, mode in (
        ("usr/bin/soci-snapshotter-grpc", "#!/bin/sh\n", 0o755),
        ("etc/soci-snapshotter-grpc/config.toml", "# the system's\n", 0o644),
        (UNIT, "[Service]\nExecStart=/usr/bin/soci-snapshotter-grpc --address fd://\n", 0o644),
    ):
        (node.root / path).parent.mkdir(parents=True, exist_ok=True)
        (node.root / path).write_text(text)
        (node.root / path).chmod(mode)
    wants = node.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / Path(UNIT).name).symlink_to("/" + UNIT)
    node.boot()
    return _install(node, "adoption", node.state())


def version_change(node: FaultNode) -> Scenario:
    """From an installed release to the next."""
    _must(node.agent("0.15.0", "0-p"))
    return _install(node, "version change", node.state())


def change_of_older_install(node: FaultNode) -> Scenario:
    """From what version 0.1 of this installer left on the node, with its manifests and its plan."""
    root, fake = (
        {path: (mode, 0, 0, content) for path, (mode, content) in tree.items()}
        for tree in (older_tree("plain", part, node.root, node.fake, FAKES) for part in ("root", "fake"))
    )
    node.become(State(root, fake))
    (node.root / "lost+found").mkdir()  # where the file goes that fills the disk
    for path, text in daemon_processes().items():  # that version asked for no process
        (node.root / path).parent.mkdir(parents=True, exist_ok=True)
        (node.root / path).write_text(text)
    (node.root / transaction.SCRIPT.lstrip("/")).write_bytes(transaction.host_script(INSTALLER))
    (node.root / transaction.SCRIPT.lstrip("/")).chmod(0o755)
    return _install(node, "change of an older install", node.state())


def change_of_surroundings(node: FaultNode) -> Scenario:
    """containerd was given another way to its registries since the install: a CA came, and a proxy went."""
    environment = node.root / f"proc/{CONTAINERD_PID}/environ"
    environment.write_text("HTTPS_PROXY=http://10.0.0.1:3128\0")
    _must(node.agent("0.16.1", "0-p"))
    environment.write_text("PATH=/bin\0")
    certificate = node.root / "etc/containerd/certs.d/r.corp/ca.crt"
    certificate.parent.mkdir(parents=True)
    certificate.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    return _install(node, "change of surroundings", node.state())


def version_change_that_fails(node: FaultNode) -> Scenario:
    """As before, but no container starts under the new release."""
    _must(node.agent("0.15.0", "0-p"))
    return _install(node, "version change that fails", node.state(), ("canary-fails",))


def uninstall(node: FaultNode) -> Scenario:
    """From an installed release, with containers under it, back to the node's own files, byte for byte."""
    (node.fake / f"enabled-{KUBELET}").touch()
    node.boot()
    fresh = node.state()
    _must(node.agent("0.16.1", "0-p"))
    (node.fake / "containers").write_text("sandbox soci\napp soci\nearlier overlayfs\n")
    (node.fake / "snapshots-soci").write_text("a\nb\n")
    snapshots = node.root / FIRST.data.lstrip("/") / "snapshotter/snapshots"
    (snapshots / "1").mkdir(parents=True)
    (snapshots / "1/file").write_text("content\n")

    def act(**fault) -> Run:
        return node.script("remove-now", **fault)

    old = node.state()
    done = act()
    assert done.status == 0, done.output
    new = node.state()
    assert canonical(new).root == canonical(fresh).root
    node.become(old)
    return Scenario("uninstall", old, act, node.uninstaller, new=new, final=new, helper="unit")


def side_by_side(node: FaultNode) -> Scenario:
    """A version change under lazily loaded containers: a second daemon, and the first one goes on."""
    _must(node.agent("0.15.0", "0-p"))
    (node.fake / "containers").write_text("lazy soci\n")
    (node.fake / "mountinfo").write_text(LAZY)
    return _install(node, "side by side", node.state())


def retirement(node: FaultNode) -> Scenario:
    """The end of a daemon that was replaced, once its containers have ended."""
    _must(node.agent("0.15.0", "0-p"))
    (node.fake / "mountinfo").write_text(LAZY)
    _must(node.agent("0.16.1", "1-p"))
    (node.fake / "mountinfo").write_text("")
    (node.fake / "snapshots-soci").write_text("a\nb\n")

    def act(**fault) -> Run:
        return node.script("retire", FIRST.name, **fault)

    old = node.state()
    done = act()
    assert done.status == 0, done.output
    new = node.state()
    node.become(old)
    return Scenario("retirement", old, act, act, new=new, final=new, is_only_resumed=True)


def rollback(change: Callable[[FaultNode], Scenario], node: FaultNode) -> Scenario:
    """What the dead man's timer does about a change that was killed before it was committed."""
    scenario = change(node)

    def act(**fault) -> Run:
        return node.script("rollback", "1-a", **fault)

    return _recovery(node, scenario, _cut(node, scenario, "kill all"), act=act, ends=("old",))


def boot(
    change: Callable[[FaultNode], Scenario], node: FaultNode, end: str = "old", journal: int = -1
) -> Scenario:
    """The boot after a power cut, see `_cut`."""
    scenario = change(node)
    cut = _cut(node, scenario, "power cut", journal)
    return _recovery(node, scenario, cut, act=node.boot, ends=(end,), helper="boot")


def boot_with_original(node: FaultNode) -> Scenario:
    """The boot of an installed node whose operating system wrote its own configuration of containerd anew."""
    scenario = first_install(node)
    node.become(scenario.new)
    (node.root / CONFIG).write_bytes(scenario.old.content(CONFIG) or b"")
    return _recovery(node, scenario, node.state(), act=node.boot, ends=("new",), helper="boot")


def _cut(node: FaultNode, scenario: Scenario, action: str, journal: int = -1) -> State:
    """The node after a strike right before a change of the journal, by default the one that commits."""
    start(node, scenario)
    calls = scenario.act().calls
    # mv tries a rename that replaces nothing first.
    changes = [
        at for at, (call, after) in enumerate(pairwise(calls), 1) if call == JOURNAL_CHANGES and after != call
    ]
    start(node, scenario)
    assert scenario.act(at=changes[journal], action=action).struck
    if action == "power cut":
        node.lose_power()
    for path in node.fake.glob("process-*"):  # its number is another's sooner or later
        path.unlink()
    return node.state()


def _recovery(node: FaultNode, scenario: Scenario, cut: State, **how) -> Scenario:
    found = replace(scenario, name=f"recovery from {scenario.name}", cut=cut, **how)
    start(node, found)
    assert classify(found, node.state()).ended == "bad"
    found.act()
    assert (classify(found, node.state()).ended,) == found.ends
    return found


def _install(node: FaultNode, name: str, old: State, faults: tuple[str, ...] = ()) -> Scenario:
    def act(**fault) -> Run:
        return node.agent("0.16.1", "1-a", **fault)

    def again() -> Run:
        return node.agent("0.16.1", "2-b")

    _must(act())
    new = node.state()
    node.become(old)
    return Scenario(name, old, act, again, faults, new, new)


def _must(run: Run) -> None:
    assert run.outcome.get("outcome") == "done", run


@dataclass(frozen=True)
class Prepared:
    """A scenario on a node, with the calls that its act makes when nothing strikes."""

    scenario: Scenario
    calls: list[str]


def prepare(node: FaultNode, name: str) -> Prepared:
    """The scenario called ``name``, made once for each node."""
    if name not in node.prepared:
        node.become(node.untouched)
        scenario = SCENARIOS[name](node)
        start(node, scenario)
        node.prepared[name] = Prepared(scenario, scenario.act().calls)
    return node.prepared[name]


SCENARIOS: dict[str, Callable[[FaultNode], Scenario]] = {
    build.__name__: build
    for build in (
        first_install,
        first_install_that_fails,
        first_install_with_layers,
        adoption,
        version_change,
        change_of_older_install,
        change_of_surroundings,
        version_change_that_fails,
        side_by_side,
        uninstall,
        retirement,
        boot_with_original,
    )
}
for change in (first_install, first_install_with_layers, adoption, version_change, side_by_side):
    SCENARIOS[f"rollback_of_{change.__name__}"] = partial(rollback, change)
    SCENARIOS[f"boot_in_{change.__name__}"] = partial(boot, change)
SCENARIOS["boot_in_uninstall_of_containers"] = partial(boot, uninstall, end="new", journal=-2)
SCENARIOS["boot_in_uninstall_of_files"] = partial(boot, uninstall, end="new")


def start(node: FaultNode, scenario: Scenario) -> None:
    """The node before the act, with the scenario's own faults in its daemons."""
    node.become(scenario.cut or scenario.old)
    for fault in scenario.faults:
        (node.fake / fault).touch()


def finish(node: FaultNode, scenario: Scenario) -> None:
    """The daemons' faults are over."""
    for fault in scenario.faults:
        (node.fake / fault).unlink(missing_ok=True)
