"""One install of one node, from facts to the host script's word."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from . import (
    containerd_config,
    detect,
    images,
    nodeadm,
    release,
    slots,
    soci_config,
    transaction,
    uninstall,
    users,
)
from .errors import InstallError
from .host import Host
from .settings import Settings
from .slots import Slot
from .transaction import STATE, File
from .users import Pod

BOOT_UNIT = "/etc/systemd/system/soci-cluster-boot.service"
CONTAINERD_DROP_IN = "/etc/systemd/system/containerd.service.d/10-soci-cluster.conf"
IDLE_POLL_SECONDS = 3.0
BUSY = "busy: "

# containerd judges the candidate at the very path of the real file, so that relative imports mean the same.
# The candidate is in a tmpfs and a bind mount of a mount namespace of its own: the host never sees either.
DUMP = """
mount -t tmpfs none /tmp && cat >/tmp/candidate || exit
config=/tmp/candidate
if [ -e "$2" ]; then mount --bind /tmp/candidate "$2" || exit; config=$2; fi
exec "$1" --config "$config" config dump
"""


@dataclass(frozen=True)
class Node:
    """What the API knows of the node, and the installer's own names."""

    waits_for_soci: bool
    namespace: str


@dataclass(frozen=True)
class Installed:
    """A verified install. ``changed`` is False when there was nothing to do."""

    changed: bool
    slot: Slot
    program: str = ""  # of the slot's daemon, a path on the node
    containerd_down_seconds: float = 0.0
    containerd_restarts: int = 0
    replaced: Slot | None = None  # the slot of an earlier daemon that still serves older containers
    on_replaced: int = 0  # how many
    has_installer: bool = False  # whether the installer's own pod is one of them
    steps: tuple[tuple[str, float], ...] = ()  # of the host script: name and seconds


@dataclass(frozen=True)
class Busy:
    """Daemons that must not be restarted: what they serve lazily, by slot, and whose containers these are."""

    mounts: Mapping[Slot, tuple[str, ...]]
    pods: tuple[Pod, ...]


@dataclass(frozen=True)
class Snapshotter:
    """A slot's daemon on the node: whose unit it is, its command, and the program that runs now."""

    slot: Slot
    is_ours: bool
    command: tuple[str, ...]
    is_active: bool
    running_program: str

    @property
    def managed_path(self) -> str:
        return self.slot.unit_path if self.is_ours else self.slot.adoption

    def render(self, payload: Path, program: str) -> str:
        """The text of our unit, or of the drop-in that adopts the operating system's."""
        template = "soci-snapshotter.service" if self.is_ours else "soci-snapshotter-adopt.conf"
        # A unit with a socket of its own hands that over: binding the path again would take it from systemd.
        from_systemd = not self.is_ours and "fd://" in self.command
        address = "fd://" if from_systemd else self.slot.socket
        options = f"--config {self.slot.config} --root {self.slot.data} --log-level info"
        return (
            (payload / template)
            .read_text()
            .replace("@EXEC_START@", f"{program} --address {address} {options}")
        )


@dataclass(frozen=True)
class Task:
    """What to bring to which node. ``payload`` has the host script and the units; ``node`` asks the API."""

    host: Host
    settings: Settings
    payload: Path
    machine: str
    node: Callable[[], Node]
    pod: Pod = users.NO_POD  # the installer's own
    on_step: Callable[[str], None] = lambda step: None  # told of each step before it begins
    sleep: Callable[[float], None] = time.sleep

    @cached_property
    def script(self) -> bytes:
        return transaction.host_script(self.payload)


@dataclass(frozen=True)
class Plan:
    """What differs between the node and the wanted state with the daemon in ``slot``."""

    slot: Slot
    program: str  # of the daemon, a path on the node
    files: list[File]  # containerd's configuration is the last
    script: bytes
    snapshotter_action: str  # none, start or restart
    effective: dict[containerd_config.Path, object]  # containerd's configuration before the change
    judgement: dict[str, str]  # what the host script needs to see containerd read the same as was judged here

    @property
    def snapshotter(self) -> str:
        """The one in effect before the change."""
        return str(containerd_config.snapshotter(self.effective) or images.CARRIED_FROM)

    @property
    def is_switch(self) -> bool:
        """Whether containerd uses another snapshotter so far."""
        return self.snapshotter != self.slot.name

    @property
    def slot_is_new(self) -> bool:
        """Whether containerd does not even know the slot's snapshotter so far."""
        return (*containerd_config.proxy(self.slot), "address") not in self.effective


def install(task: Task, on_waiting: Callable[[Busy], None]) -> Installed:
    """Bring the node to the wanted state, or leave it as it was. ``on_waiting`` is told for whom it waits.

    Raises:
        InstallError: with step, cause and remedy. The node is then as before.
    """
    try:
        return _install(task, on_waiting)
    except OSError as error:
        raise InstallError(
            "files", str(error), "free space on the node's disk, or make the file writable"
        ) from error


def _install(task: Task, on_waiting: Callable[[Busy], None]) -> Installed:
    task.on_step("preflight")
    uninstall.finish_begun(task.host, task.script, task.sleep)
    transaction.wait_for_running(task.host, task.sleep)
    images.clear_copies(task.host, task.script)
    facts = detect.read_facts(task.host, task.machine)
    detect.check(facts, task.settings.mode, task.settings.sha256)
    while True:
        outcome = _attempt(task, facts)
        if isinstance(outcome, Installed):
            return outcome
        task.on_step("wait")
        _wait_for_change(task, outcome, on_waiting)
        task.on_step("preflight")


def _wait_for_change(task: Task, busy: Busy, on_waiting: Callable[[Busy], None]) -> None:
    """Wait until other containers are lazily served than these. This may take days, so it costs little."""
    same = True
    while same:
        on_waiting(busy)
        task.sleep(IDLE_POLL_SECONDS)
        same = all(
            users.lazy_mounts(task.host, task.script, slot) == mounts for slot, mounts in busy.mounts.items()
        )


def _attempt(task: Task, facts: detect.Facts) -> Installed | Busy:
    """One try; a `Busy` when lazily loaded containers have to end first."""
    host, settings = task.host, task.settings
    plan = make_plan(task, facts)
    digest = settings.sha256[facts.architecture]
    has_release = release.is_present(host, settings.version, digest)
    address = containerd_config.server_address(plan.effective)
    ctr = images.Ctr(host, address, _search_path(facts), containerd_config.root(plan.effective))
    if has_release and is_in_place(host, plan):
        return _with_replaced(task, Installed(False, plan.slot, plan.program), ctr)

    if plan.is_switch and not host.exists(f"{STATE}/current"):
        _refuse_node_in_service(task, ctr)
    busy = _busy(plan, host, ctr)
    if busy and settings.upgrade_policy == "side-by-side":
        plan = make_plan(task, facts, plan.slot.other)
        other = _busy(plan, host, ctr)
        busy = other and Busy({**busy.mounts, **other.mounts}, busy.pods)
    if failure := transaction.recent_failure(host, plan.files, time.time()):
        raise InstallError(
            failure.step,
            f"{failure.cause} (the same change failed minutes ago and is not tried again yet)",
            "see journalctl -u containerd on the node; the next try is ten minutes after the failure",
            failure.last_words,
        )
    if busy:
        return busy
    if not has_release:
        task.on_step("download")
        url = release.archive_url(settings.release_url, settings.version, facts.architecture)
        release.install(host, url, settings.version, digest)
    task.on_step("images")
    pause = containerd_config.pause_image(plan.effective)
    if not pause:
        raise InstallError("preflight", "containerd names no sandbox image", "enable its CRI plugin")
    registries = containerd_config.registry_directories(plan.effective)
    image_plan = images.plan(ctr, pause, registries, plan.is_switch, plan.snapshotter)
    return _commit(task, plan, ctr, image_plan)


def _busy(plan: Plan, host: Host, ctr: images.Ctr) -> Busy | None:
    """Whom the plan's restart of a daemon would break."""
    if plan.snapshotter_action != "restart":
        return None
    mounts = users.lazy_mounts(host, plan.script, plan.slot)
    return _busy_with(plan.slot, mounts, ctr) if mounts else None


def _busy_with(slot: Slot, mounts: tuple[str, ...], ctr: images.Ctr) -> Busy:
    return Busy({slot: mounts}, tuple(users.pods_of(ctr, mounts)))


def _commit(task: Task, plan: Plan, ctr: images.Ctr, image_plan: images.ImagePlan) -> Installed | Busy:
    task.on_step("stage")
    name = transaction.new_id()
    fields = {
        "slot": plan.slot.name,
        "slot_is_new": "1" if plan.slot_is_new else "0",
        "is_switch": "1" if plan.is_switch else "0",
        "snapshotter_action": plan.snapshotter_action,
        "containerd_restart": "1" if plan.files[-1].is_changed else "0",
        "containerd_address": ctr.address,
        "path": ctr.search_path,
        "pause_image": image_plan.pause,
        "pause_archive": image_plan.pause_archive,
        "deadline_seconds": str(transaction.DEADLINE_SECONDS),
        "copy_seconds": str(transaction.copy_seconds(image_plan.bytes_to_copy)),
        **plan.judgement,
    }
    layers = [layers.line() for layers in image_plan.carry_over]
    try:
        task.host.write(transaction.SCRIPT, plan.script, 0o755)
        transaction.stage(task.host, name, plan.files, fields, layers)
    except OSError as error:
        remedy = f"free disk space, or make {STATE} and {transaction.SCRIPT} writable"
        raise InstallError("stage", str(error), remedy) from error
    task.on_step("commit")
    result = transaction.commit(task.host, name, task.sleep)
    if result.outcome == "committed":
        done = Installed(
            True,
            plan.slot,
            plan.program,
            result.containerd_down_seconds,
            result.containerd_restarts,
            steps=result.steps,
        )
        return _with_replaced(task, done, ctr)
    if result.cause.startswith(BUSY):
        return _busy_with(plan.slot, tuple(result.cause.removeprefix(BUSY).split()), ctr)
    remedy = "the node is as before; see journalctl -u soci-snapshotter -u containerd on it"
    if result.outcome == "broken":
        remedy = "its old configuration is back but containerd is not: reboot or replace the node"
    raise InstallError(result.step, result.cause, remedy, result.last_words)


def _with_replaced(task: Task, done: Installed, ctr: images.Ctr) -> Installed:
    """The same with the daemon in the other slot, if one is left from before an upgrade side by side."""
    other = done.slot.other
    files = (other.unit_path, other.adoption, other.config)
    if not any(task.host.read_text(path).startswith(detect.OUR_MARK) for path in files):
        return done
    mounts = users.all_mounts(task.host, task.script, other)
    has_installer = users.has_pod(ctr, mounts, task.pod)
    return replace(done, replaced=other, on_replaced=len(mounts), has_installer=has_installer)


def make_plan(task: Task, facts: detect.Facts, slot: Slot | None = None) -> Plan:
    """Compare the node with the wanted state, the daemon in ``slot`` (by default the one in use). Reads only.

    Raises:
        InstallError: containerd's configuration cannot be changed to the wanted effect and no other.
    """
    host, settings = task.host, task.settings
    # Judged under the name that the unit gives to it, where relative imports begin; written where links lead.
    name, path = facts.config_path, host.resolve(facts.config_path)
    text = containerd_config.decode(host.read(path), name)
    schema = containerd_config.schema_of(text, name, facts.containerd_version[0])
    before = dump(host, facts, name, text or f"version = {schema}\n")
    effective = containerd_config.flatten(containerd_config.parse(before, "containerd config dump"))
    slot = slot or slots.in_use(containerd_config.snapshotter(effective))
    new_text, after = candidate(host, facts, name, text, before, slot=slot)
    if new_text != text and path in detect.mount_points(host.read_text("/proc/1/mountinfo")):
        raise InstallError(
            "preflight",
            f"{path} is a mount point of its own: it cannot be replaced in one step",
            "mount the directory around it instead of the file, or exclude this node with soci:nodeSelector",
        )

    snapshotter = read_snapshotter(host, slot)
    place = release.folder(host, settings.version, settings.sha256[facts.architecture])
    program = f"{place}/soci-snapshotter-grpc"
    hosts = registry_hosts(host, containerd_config.registry_directories(effective))
    discard = bool(effective.get((*containerd_config.image_table(effective), "discard_unpacked_layers")))
    # What undoes a cut install at boot is written first, and on the way back goes last.
    texts = {
        BOOT_UNIT: (task.payload / "soci-cluster-boot.service").read_text(),
        CONTAINERD_DROP_IN: (task.payload / "containerd-soci-cluster.conf").read_text(),
        slot.config: soci_config.render(settings, soci_config.mirrors(hosts), discard),
        snapshotter.managed_path: snapshotter.render(task.payload, program),
    }
    if nodeadm.writes_configuration(host):
        texts[nodeadm.DROP_IN] = nodeadm.render(containerd_config.image_table(effective), slot)
    files = [_file(host, "soci", name, content) for name, content in texts.items()]
    action = "start"
    if snapshotter.is_active:
        is_stale = any(file.is_changed for file in files[2:4]) or snapshotter.running_program != program
        action = "restart" if is_stale else "none"
    judgement = {
        "containerd_program": facts.containerd_command[0],
        "containerd_config": name,
        "containerd_dump": transaction.sha256(containerd_config.without_imports(after).encode()),
    }
    files = [*files, _file(host, "containerd", path, new_text)]
    return Plan(slot, program, files, task.script, action, effective, judgement)


def is_in_place(host: Host, plan: Plan) -> bool:
    """Whether the node is in the wanted state already, verified, and the daemon of it runs."""
    return (
        plan.snapshotter_action == "none"
        and not any(file.is_changed for file in plan.files)
        and host.read(transaction.SCRIPT) == plan.script
        and transaction.journal_state(host).get("state") == "committed"
    )


def _file(host: Host, group: str, path: str, text: str) -> File:
    mode, owner = host.mode_and_owner(path)
    return File(group, path, host.read(path), text.encode(), mode, owner)


def _search_path(facts: detect.Facts) -> str:
    folder = Path(facts.containerd_command[0]).parent
    return f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def candidate(
    host: Host, facts: detect.Facts, path: str, text: str, before: str, *, slot: Slot = slots.FIRST
) -> tuple[str, str]:
    """The new text of containerd's configuration, and containerd's dump of it.

    It is the first that has, by containerd's own word, exactly the wanted effect.

    Raises:
        InstallError: none has.
    """
    major = facts.containerd_version[0]
    schema = containerd_config.schema_of(text, path, major)
    if not containerd_config.check_effect(before, before, slot):
        return text, before
    problems: list[str] = []
    for table in containerd_config.tables_for(schema, major):
        new_text = containerd_config.edit(text, path, schema, table, slot)
        after = before if new_text == text else dump(host, facts, path, new_text)
        found = containerd_config.check_effect(before, after, slot)
        if not found:
            return new_text, after
        problems = problems or found
    raise InstallError(
        "containerd-config",
        f"{path}: {'; '.join(problems[:3])}",
        "look for imported files that set the same tables; set the keys there, or remove the import",
    )


def dump(host: Host, facts: detect.Facts, path: str, text: str) -> str:
    """containerd's effective configuration, were ``text`` its root file.

    Raises:
        InstallError: containerd refuses the text.
    """
    command = ("unshare", "-m", "sh", "-c", DUMP, "dump", facts.containerd_command[0], path)
    result = host.run(*command, text=text)
    if result.code != 0:
        last = (result.error.strip().splitlines() or [f"status {result.code}"])[-1]
        raise InstallError("containerd-config", f"containerd refuses {path}: {last}", "repair the file")
    return result.output


def read_snapshotter(host: Host, slot: Slot) -> Snapshotter:
    """The unit and process of a slot's daemon. A unit that is not ours is adopted, never overwritten."""
    unit = detect.show(host, slot.unit, "LoadState", "FragmentPath", "ExecStart", "ActiveState", "MainPID")
    path = unit.get("FragmentPath", "")
    is_ours = not path or host.read_text(path).startswith(detect.OUR_MARK)
    program = ""
    pid = unit.get("MainPID", "0")
    if pid != "0":
        program = host.run("readlink", f"/proc/{pid}/exe").output.strip()
    return Snapshotter(
        slot=slot,
        is_ours=is_ours,
        command=detect.parse_exec_start(unit.get("ExecStart", "")),
        is_active=unit.get("ActiveState") == "active",
        running_program=program,
    )


def registry_hosts(host: Host, directories: list[str]) -> dict[str, str]:
    """Registry name to the text of its hosts.toml, the first directory that names it first."""
    found: dict[str, str] = {}
    for directory in directories:
        folder = host.path(host.resolve(directory))
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            text = host.read_text(f"{directory}/{entry.name}/hosts.toml")
            if text:
                # containerd also takes a directory host_port_ for host:port
                registry = re.sub(r"_(\d+)_$", r":\1", entry.name)
                found.setdefault(registry, text)
    return found


def _refuse_node_in_service(task: Task, ctr: images.Ctr) -> None:
    if task.settings.existing_nodes == "migrate":
        return
    node = task.node()
    if node.waits_for_soci:
        return
    running = images.workload_containers(ctr, node.namespace)
    if running:
        raise InstallError(
            "preflight",
            f"the node is in service: {len(running)} containers of workloads are running on it",
            "use fresh nodes, or set soci:existingNodes to migrate",
        )
