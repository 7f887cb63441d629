"""One install of one node, from facts to the host script's word."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import containerd_config, detect, images, release, soci_config, transaction
from .errors import InstallError
from .host import Host
from .settings import Settings
from .transaction import STATE, File

UNIT = "/etc/systemd/system/soci-snapshotter.service"
ADOPTION = "/etc/systemd/system/soci-snapshotter.service.d/50-soci-cluster.conf"
BOOT_UNIT = "/etc/systemd/system/soci-cluster-boot.service"
CONTAINERD_DROP_IN = "/etc/systemd/system/containerd.service.d/10-soci-cluster.conf"
SOCI_CONFIG = "/etc/soci-snapshotter-grpc/config.toml"
IDLE_POLL_SECONDS = 3.0

# containerd judges the candidate at the very path of the real file, so that its relative imports mean the same; the
# bind mount lives in a mount namespace of its own, and the candidate in a tmpfs there: the host never sees either.
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
    containerd_down_seconds: float = 0.0
    containerd_restarts: int = 0


@dataclass(frozen=True)
class Snapshotter:
    """The snapshotter on the node: its unit file's text, its command, and the program that runs now."""

    unit_path: str
    is_ours: bool
    command: tuple[str, ...]
    is_active: bool
    running_program: str


def install(
    host: Host,
    settings: Settings,
    payload: Path,
    machine: str,
    node: Callable[[], Node],
    on_waiting: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Installed:
    """Bring the node to the wanted state, or leave it as it was.

    ``payload`` holds the host script and unit templates; ``node`` asks the API; ``on_waiting`` is told why it waits.

    Raises:
        InstallError: with step, cause and remedy. The node is then as before.
    """
    transaction.wait_for_running(host, sleep)
    facts = detect.read_facts(host, machine)
    detect.check(facts, settings.mode, settings.sha256)
    while True:
        outcome = _attempt(host, settings, payload, facts, node)
        if isinstance(outcome, Installed):
            return outcome
        on_waiting(outcome)
        sleep(IDLE_POLL_SECONDS)


def _attempt(
    host: Host, settings: Settings, payload: Path, facts: detect.Facts, node: Callable[[], Node]
) -> Installed | str:
    """One try; a text when lazily loaded containers have to end first."""
    path = host.resolve(facts.config_path)
    current = host.read(path)
    text = (current or b"").decode()
    before = dump(host, facts, path, text or _empty(text, path, facts))
    effective = containerd_config.flatten(_parse_dump(before))
    new_text = candidate(host, facts, path, text, before)
    first_switch = effective.get((*containerd_config.image_table(effective), "snapshotter")) != "soci"

    snapshotter = read_snapshotter(host)
    program = f"{release.VERSIONS}/{settings.version}/soci-snapshotter-grpc"
    certificates = registry_hosts(host, containerd_config.registry_directories(effective))
    discard = bool(effective.get((*containerd_config.image_table(effective), "discard_unpacked_layers")))
    config = soci_config.render(settings, soci_config.mirrors(certificates), discard)
    files = managed_files(
        host,
        payload,
        snapshotter,
        program,
        config,
        File("containerd", path, current, new_text.encode(), *host.mode_and_owner(path)),
    )

    script = (payload / "soci-host.sh").read_bytes()
    digest = settings.sha256[facts.architecture]
    stale = [
        file for file in files if file.is_changed and file.group == "soci" and "containerd" not in file.path
    ]
    stale = [file for file in stale if file.path != BOOT_UNIT]
    action = "start"
    if snapshotter.is_active:
        action = "restart" if stale or snapshotter.running_program != program else "none"
    is_current = (
        action == "none"
        and not any(file.is_changed for file in files)
        and host.read(transaction.SCRIPT) == script
        and release.is_present(host, settings.version, digest)
        and transaction.journal_state(host).get("state") == "committed"
    )
    if is_current:
        return Installed(changed=False)

    address = str(effective.get(("grpc", "address")) or _server_address(effective))
    search_path = f"{Path(facts.containerd_command[0]).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ctr = images.Ctr(host, address, search_path)
    if first_switch and not host.exists(f"{STATE}/current"):
        _refuse_node_in_service(settings, ctr, node)
    if action == "restart" and (waiting := lazy_users(host, script)):
        return waiting
    if not release.is_present(host, settings.version, digest):
        url = release.archive_url(settings.release_url, settings.version, facts.architecture)
        release.install(host, url, settings.version, digest)
    pause = containerd_config.pause_image(effective)
    if not pause:
        raise InstallError("preflight", "containerd names no sandbox image", "is its CRI plugin enabled?")
    image_plan = images.plan(ctr, pause, containerd_config.registry_directories(effective), first_switch)
    host.write(transaction.SCRIPT, script, 0o755)
    name = transaction.new_id()
    plan = {
        "snapshotter_action": action,
        "containerd_restart": "1" if files[-1].is_changed else "0",
        "containerd_address": address,
        "path": search_path,
        "pause_image": image_plan.pause,
        "pause_archive": image_plan.pause_archive,
        "deadline_seconds": str(transaction.DEADLINE_SECONDS),
    }
    transaction.stage(host, name, files, plan, image_plan.pull_again)
    result = transaction.commit(host, name)
    if result.outcome == "committed":
        return Installed(True, result.containerd_down_seconds, result.containerd_restarts)
    if result.cause.startswith("busy:"):
        return result.cause.removeprefix("busy: ")
    remedy = "the node is as before; see journalctl -u soci-snapshotter -u containerd on it"
    if result.outcome == "broken":
        remedy = (
            "the old configuration is in place but containerd did not come back: reboot or replace the node"
        )
    raise InstallError(result.step, result.cause, remedy)


def candidate(host: Host, facts: detect.Facts, path: str, text: str, before: str) -> str:
    """The new text of containerd's configuration: the first one that containerd itself says has exactly the effect.

    Raises:
        InstallError: none has.
    """
    major = facts.containerd_version[0]
    schema = containerd_config.schema_of(text, path, major)
    problems: list[str] = []
    for table in containerd_config.tables_for(schema, major):
        new_text = containerd_config.edit(text, path, schema, table)
        after = before if new_text == text else dump(host, facts, path, new_text)
        found = containerd_config.check_effect(before, after)
        if not found:
            return new_text
        problems = problems or found
    raise InstallError(
        "containerd-config",
        f"{path}: {'; '.join(problems[:3])}",
        "look for files that it imports and that set the same tables, and set the keys there or remove the import",
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


def managed_files(
    host: Host, payload: Path, snapshotter: Snapshotter, program: str, config: str, containerd_file: File
) -> list[File]:
    """Every file that an install writes, as it is and as it shall be; containerd's configuration is the last."""
    template = "soci-snapshotter.service" if snapshotter.is_ours else "soci-snapshotter-adopt.conf"
    fd = not snapshotter.is_ours and "fd://" in snapshotter.command
    address = "fd://" if fd else containerd_config.SOCKET
    command = f"{program} --address {address} --config {SOCI_CONFIG} --root {containerd_config.DATA} --log-level info"
    unit = (payload / template).read_text().replace("@EXEC_START@", command)
    texts = {
        SOCI_CONFIG: config,
        UNIT if snapshotter.is_ours else ADOPTION: unit,
        BOOT_UNIT: (payload / "soci-cluster-boot.service").read_text(),
        CONTAINERD_DROP_IN: (payload / "containerd-soci-cluster.conf").read_text(),
    }
    files = [
        File("soci", path, host.read(path), text.encode(), *host.mode_and_owner(path))
        for path, text in texts.items()
    ]
    return [*files, containerd_file]


def read_snapshotter(host: Host) -> Snapshotter:
    """The snapshotter's unit and process. A unit of the same name that is not ours is adopted, never overwritten."""
    unit = detect.show(
        host, "soci-snapshotter.service", "LoadState", "FragmentPath", "ExecStart", "ActiveState", "MainPID"
    )
    path = unit.get("FragmentPath", "")
    is_ours = not path or host.read_text(path).startswith(detect.OUR_MARK)
    program = ""
    pid = unit.get("MainPID", "0")
    if pid != "0":
        program = host.run("readlink", f"/proc/{pid}/exe").output.strip()
    return Snapshotter(
        unit_path=path or UNIT,
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


def lazy_users(host: Host, script: bytes) -> str:
    """The containers that the running daemon serves lazily, as a text; empty when it may be restarted."""
    return " ".join(host.run("sh", "-s", "users", text=script.decode()).output.split())


def _refuse_node_in_service(settings: Settings, ctr: images.Ctr, node: Callable[[], Node]) -> None:
    if settings.existing_nodes == "migrate":
        return
    found = node()
    if found.waits_for_soci:
        return
    running = images.workload_containers(ctr, found.namespace)
    if running:
        raise InstallError(
            "preflight",
            f"the node is in service: {len(running)} containers of workloads are running on it",
            "use fresh nodes, or set soci:existingNodes to migrate",
        )


def _empty(text: str, path: str, facts: detect.Facts) -> str:
    return f"version = {containerd_config.schema_of(text, path, facts.containerd_version[0])}\n"


def _parse_dump(text: str) -> dict:
    return containerd_config.parse(text, "containerd config dump")


def _server_address(effective: dict) -> str:
    """containerd 2.3 prints the socket's address below the plugin that serves it."""
    found = effective.get(("plugins", "io.containerd.server.v1.grpc", "address"))
    return str(found or "/run/containerd/containerd.sock")
