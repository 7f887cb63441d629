"""What differs between a node and the wanted state: its files, its daemon, and what containerd makes of it.

Nothing here changes the node; install.py does.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import (
    adoption,
    carry,
    containerd_config,
    credential_providers,
    daemon_environment,
    detect,
    lazy,
    managed,
    pull_secret_files,
    release,
    slots,
    soci_registries,
    transaction,
    tuning,
)
from .ctr import Ctr
from .errors import InstallError
from .host import Host
from .kinds import Kind
from .settings import Settings
from .slots import Slot
from .soci_registries import Registries
from .transaction import File, Role

# containerd judges the candidate at the very path of the real file, so that relative imports mean the same.
# The candidate is in a tmpfs and a bind mount of a mount namespace of its own: the host never sees either.
DUMP = """
mount -t tmpfs none /tmp && cat >/tmp/candidate || exit
config=/tmp/candidate
if [ -e "$2" ]; then mount --bind /tmp/candidate "$2" || exit; config=$2; fi
exec "$1" --config "$config" config dump
"""


@dataclass(frozen=True)
class Registration:
    """What the API knows of the node, and the installer's own namespace."""

    waits_for_soci: bool
    namespace: str


@dataclass(frozen=True)
class Seen:
    """What the verified node was: from here on the watcher looks for a change."""

    daemon: int = 0  # the process of the slot's daemon
    containerd: int = 0  # and of containerd
    kubelet: int = 0
    files: tuple[tuple[str, str], ...] = ()  # host path and its fingerprint, see watch.py


NOTHING_SEEN = Seen()


@dataclass(frozen=True)
class Task:
    """What to bring to which node. ``payload`` has the host script and the units; ``registration`` asks the
    API."""

    host: Host
    settings: Settings
    payload: Path
    machine: str
    registration: Callable[[], Registration]
    pod: lazy.Pod = lazy.NO_POD  # the installer's own
    api_server: str = ""  # the address of its service, which no proxy is asked for
    on_step: Callable[[str], None] = lambda step: None  # told of each step before it begins
    log: Callable[[str], None] = lambda line: None
    when_drifted: Callable[[str, Seen], None] = lambda what, seen: None  # before it is put right
    when_repaired: Callable[[], None] = lambda: None  # just before
    when_away: Callable[[], None] = lambda: None  # the daemon of an installed node does not run
    sleep: Callable[[float], None] = time.sleep

    @cached_property
    def script(self) -> bytes:
        return transaction.host_script(self.payload)


@dataclass(frozen=True)
class Plan:
    """What differs between the node and the wanted state with the daemon in ``slot``."""

    kind: Kind
    slot: Slot
    program: str  # of the daemon, a path on the node
    files: list[File]
    script: bytes
    daemon_action: str  # none, start or restart
    effective: dict[containerd_config.Path, object]  # containerd's configuration before the change
    containerd_program: str
    containerd_config: str  # its root configuration file, by the name that the unit gives to it
    imports: list[str]  # what that file imports, absolute; names may have wildcards
    containerd_dump: str  # the digest of what containerd makes of that file after the change
    registries: Registries  # what the daemon is told of them
    environment: Mapping[str, str]  # of the daemon, without its trust in further CAs
    kubelet: int = 0  # its process, by whose flags all this is
    credential_paths: tuple[str, ...] = ()  # what decides about credentials, or is said of them
    changed_programs: tuple[str, ...] = ()  # of the release, by others; paths on the node

    @property
    def snapshotter(self) -> str:
        """The one in effect before the change."""
        return str(containerd_config.snapshotter(self.effective) or carry.FROM)

    @property
    def is_switch(self) -> bool:
        """Whether containerd uses another snapshotter so far."""
        return self.snapshotter != self.slot.name

    @property
    def slot_is_new(self) -> bool:
        """Whether containerd does not even know the slot's snapshotter so far."""
        return (*containerd_config.proxy(self.slot), "address") not in self.effective

    def surroundings(self, ctr: Ctr) -> dict[str, str]:
        """What the host script has to know of the node itself, as fields of plan.env."""
        return {
            "containerd_unit": self.kind.containerd_unit,
            "containerd_program": self.containerd_program,
            "containerd_config": self.containerd_config,
            "containerd_address": ctr.address,
            "path": ctr.search_path,
            "kubelet_unit": self.kind.kubelet_unit,
            "pause_archive": self.kind.pause_archive,
        }

    def watched_paths(self, host: Host) -> list[str]:
        """The files and directories in which a change may change what the daemons do."""
        programs = Path(self.program).parent
        paths = [*(file.path for file in self.files), *(f"{programs}/{name}" for name in release.PROGRAMS)]
        paths += [*self.registries.sources, *self.credential_paths]
        # A user's own drop-in is not put right: the node is looked at afresh, and verified.
        drop_ins = [
            f"{managed.UNITS}/{unit}.d/*.conf" for unit in (self.kind.containerd_unit, self.slot.unit)
        ]
        for pattern in (*drop_ins, *self.imports):
            folder, _, name = pattern.rpartition("/")
            found = sorted(host.path(host.resolve(folder)).glob(name)) if name else []
            paths += [folder, *(f"{folder}/{path.name}" for path in found)]
        return list(dict.fromkeys(paths))

    @property
    def restarts_containerd(self) -> bool:
        return any(file.is_changed and file.role.is_read_by_containerd for file in self.files)


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
    detect.check_effective(host, facts, effective)
    slot = slot or slots.in_use(containerd_config.snapshotter(effective))
    new_text, after = candidate(host, facts, name, text, before, slot=slot)
    if new_text != text and path in detect.mount_points(host.read_text("/proc/1/mountinfo")):
        raise InstallError(
            "preflight",
            f"{path} is a mount point of its own: it cannot be replaced in one step",
            "mount the directory around it instead of the file, or exclude this node with soci:nodeSelector",
        )

    daemon = adoption.read_daemon(host, slot)
    adoption.check_override(host, daemon)
    place = release.folder(host, settings.version, settings.sha256[facts.architecture])
    program = f"{place}/soci-snapshotter-grpc"
    changed_programs = tuple(release.changed_programs(host, place))
    if facts.containerd_process is None:
        detect.refuse(f"no process of {facts.kind.containerd_unit} can be seen", "try again")
    told = soci_registries.read(host, effective, facts.containerd_version, settings.mode)
    variables = daemon_environment.of_daemon(facts.containerd_process.environment, settings, task.api_server)
    providers = credential_providers.read(host)
    conflicts = () if settings.credentials == "node" else (pull_secret_files.CONFLICTS,)
    files = managed.files(
        host,
        managed.Target(
            kind=facts.kind,
            slot=slot,
            adopts=not daemon.is_ours,
            config_path=path,
            payload=task.payload,
            settings=settings,
            daemon=daemon,
            program=program,
            config_text=new_text,
            effective=effective,
            registries=told,
            environment=variables,
            providers=providers,
            hardware=tuning.read_hardware(host),
        ),
    )
    action = "start"
    if daemon.is_active:
        is_stale = any(
            file.is_changed and file.role is Role.DAEMON and not _was_read_before(host, file, daemon)
            for file in files
        )
        if program in changed_programs and host.exists(program):  # a running one outlives its file
            is_stale = is_stale or not _is_older(host, daemon, program)
        action = "restart" if is_stale or daemon.running_program != program else "none"
    return Plan(
        kind=facts.kind,
        slot=slot,
        program=program,
        files=files,
        script=task.script,
        daemon_action=action,
        effective=effective,
        containerd_program=facts.containerd_command[0],
        containerd_config=name,
        imports=containerd_config.imports(text, name, effective),
        containerd_dump=transaction.sha256(containerd_config.without_imports(after).encode()),
        registries=told,
        environment=variables,
        kubelet=providers.kubelet,
        credential_paths=(*providers.paths, *conflicts),
        changed_programs=changed_programs,
    )


def _was_read_before(host: Host, file: File, daemon: adoption.Daemon) -> bool:
    """Whether the daemon read the wanted text before others changed the file: then it need not be restarted
    for it."""
    if transaction.recorded_files(host).get(file.path) != transaction.sha256(file.new):
        return False
    return _is_older(host, daemon, file.path)


def _is_older(host: Host, daemon: adoption.Daemon, path: str) -> bool:
    """Whether the daemon was started before others changed what is at ``path``."""
    changed = host.changed_at(path)
    if changed is None:
        return False
    return 0 < adoption.started_at(host, daemon) < changed - 1


def is_in_place(host: Host, plan: Plan, ctr: Ctr) -> bool:
    """Whether the node is in the wanted state already, as far as its files, records and daemon show.

    A record of surroundings that have changed since, such as a containerd that was moved, is made anew.
    """
    recorded = transaction.recorded_plan(host)
    return (
        plan.daemon_action == "none"
        and not any(file.is_changed for file in plan.files)
        and host.read(transaction.SCRIPT) == plan.script
        and transaction.journal_state(host).get("state") == "committed"
        and plan.surroundings(ctr).items() <= recorded.items()
    )


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
        new_text = containerd_config.edit(text, path, schema, table, slot, maps_ids=major >= 2)
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
        cause = f"containerd refuses {path}: {result.last_error}"
        raise InstallError("containerd-config", cause, "repair the file")
    return result.output
