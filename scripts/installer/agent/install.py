"""One install of one node: what is done about a plan, in which order, and the host script's word on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import (
    adoption,
    carry,
    containerd_config,
    detect,
    drift,
    heal,
    images,
    lazy,
    managed,
    pull_secret_files,
    release,
    transaction,
    uninstall,
    units,
    watch,
)
from .ctr import Ctr
from .errors import InstallError
from .heal import Healed
from .host import PATH, Host
from .lazy import Busy
from .plan import NOTHING_SEEN, Plan, Seen, Task, is_in_place, make_plan
from .slots import FIRST, OUR_MARK, SECOND, Slot
from .soci_registries import Limit
from .transaction import STATE

IDLE_POLL_SECONDS = 3.0
VERIFY_SECONDS = 170


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
    healed: Healed = heal.NOTHING
    limits: tuple[Limit, ...] = ()  # what SOCI cannot be told of registries
    seen: Seen = NOTHING_SEEN
    containerd_root: str = ""  # containerd's own directory, a path on the node


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
    carry.clear_copies(task.host, task.script)  # first: they may fill the disk
    facts = detect.read_facts(task.host, task.machine)
    detect.check(facts, task.settings.mode, task.settings.sha256)
    while True:
        _await_daemons(task)
        outcome = _attempt(task, facts)
        if task.settings.credentials == "node":
            pull_secret_files.remove(task.host)
        if isinstance(outcome, Installed):
            return outcome
        carry.clear_copies(task.host, task.script)
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
            lazy.lazy_mounts(task.host, task.script, slot) == mounts for slot, mounts in busy.mounts.items()
        )


def _await_daemons(task: Task) -> None:
    """Wait while a daemon mounts again what it served, which takes the registry: to start it once more would
    only begin that anew."""
    while any(adoption.is_starting(task.host, slot) for slot in (FIRST, SECOND)):
        task.when_away()
        task.sleep(IDLE_POLL_SECONDS)


def _attempt(task: Task, facts: detect.Facts) -> Installed | Busy:
    """One try; a `Busy` when lazily loaded containers have to end first."""
    host, settings = task.host, task.settings
    plan = make_plan(task, facts)
    digest = settings.sha256[facts.architecture]
    has_release = release.is_present(host, settings.version, digest)
    address = containerd_config.server_address(plan.effective)
    ctr = Ctr(host, address, _search_path(facts), containerd_config.root(plan.effective))
    if has_release and is_in_place(host, plan, ctr):
        seen = _look(host, plan)
        task.on_step("verify")
        limits = plan.registries.limits
        done = Installed(False, plan.slot, plan.program, steps=_verify(host, plan), seen=seen, limits=limits)
        return _healed(task, done, ctr)

    if changed := drift.found(host, plan):
        task.when_drifted(changed, _look(host, plan))
    elif plan.daemon_action == "start" and host.exists(f"{STATE}/current"):
        task.when_away()
    if plan.is_switch and not host.exists(f"{STATE}/current"):
        _refuse_node_in_service(task, ctr)
    busy = _busy(plan, host, ctr)
    if busy and settings.upgrade_policy == "side-by-side":
        plan = make_plan(task, facts, plan.slot.other)
        other = _busy(plan, host, ctr)
        busy = other and Busy({**busy.mounts, **other.mounts}, busy.pods)
    if failure := transaction.recent_failure(host, plan.files, plan.script, time.time()):
        raise InstallError(
            failure.step,
            f"{failure.cause} (the same change failed minutes ago and is not tried again yet)",
            f"see {plan.kind.journal} on the node; the next try is ten minutes after the failure",
            failure.last_words,
        )
    if busy:
        return busy
    if not has_release:
        task.on_step("download")
        url = release.archive_url(settings.release_url, settings.version, facts.architecture, digest)
        authorities = plan.registries.certificates
        release.install(host, url, settings.version, digest, plan.environment, authorities=authorities)
    task.on_step("images")
    pause = containerd_config.pause_image(plan.effective)
    if not pause:
        raise InstallError("preflight", "containerd names no sandbox image", "enable its CRI plugin")
    image_plan = images.plan(
        ctr,
        pause,
        containerd_config.registry_directories(plan.effective),
        pause_archive=plan.kind.pause_archive,
        is_switch=plan.is_switch,
        snapshotter=plan.snapshotter,
    )
    if changed:
        task.when_repaired()
    name = transaction.new_id()
    carried = _carry(task, plan, ctr, image_plan, name)
    return _commit(task, plan, ctr, image_plan, name=name, carried=carried)


def _verify(host: Host, plan: Plan) -> tuple[tuple[str, float], ...]:
    """Have the host script check a node on which nothing is to be changed; the steps, with their seconds."""
    result = transaction.run_for(host, VERIFY_SECONDS, "verify")
    outcome = transaction.parse_result(result.output)
    if outcome.outcome != "verified":
        cause = outcome.cause or result.error.strip() or f"the host script ended with status {result.code}"
        raise InstallError(outcome.step or "verify", cause, f"see {plan.kind.journal} on the node")
    return outcome.steps


def _busy(plan: Plan, host: Host, ctr: Ctr) -> Busy | None:
    """Whom the plan's restart of a daemon would break."""
    if plan.daemon_action != "restart":
        return None
    mounts = lazy.lazy_mounts(host, plan.script, plan.slot)
    return lazy.busy_with(plan.slot, mounts, ctr) if mounts else None


def _carry(task: Task, plan: Plan, ctr: Ctr, image_plan: images.ImagePlan, name: str) -> list[carry.Layers]:
    """Bring the layers to the slot's directory that the transaction ``name`` is going to need there."""
    if not image_plan.carry_over:
        return []
    task.on_step("copy")
    try:
        return carry.carry(
            ctr,
            plan.slot,
            name,
            image_plan.carry_over,
            bytes_to_copy=image_plan.bytes_to_copy,
            log=task.log,
        )
    except (InstallError, OSError) as error:
        carry.clear_copies(task.host, task.script)  # they may fill the disk
        if isinstance(error, InstallError) and error.step == "copy":
            transaction.remember_failure(task.host, name, plan.files, plan.script, error)
        raise


def _commit(
    task: Task, plan: Plan, ctr: Ctr, image_plan: images.ImagePlan, *, name: str, carried: list[carry.Layers]
) -> Installed | Busy:
    task.on_step("stage")
    fields = {
        "slot": plan.slot.name,
        "slot_is_new": "1" if plan.slot_is_new else "0",
        "is_switch": "1" if plan.is_switch else "0",
        "snapshotter_action": plan.daemon_action,
        "containerd_restart": "1" if plan.restarts_containerd else "0",
        "containerd_dump": plan.containerd_dump,
        "pause_image": image_plan.pause,
        "pause_import": "1" if image_plan.imports_pause else "0",
        "deadline_seconds": str(transaction.DEADLINE_SECONDS),
        **plan.surroundings(ctr),
    }
    try:
        task.host.write(transaction.SCRIPT, plan.script, 0o755)
        transaction.stage(task.host, name, plan.files, fields, [layers.line() for layers in carried])
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
            seen=_look(task.host, plan),
            limits=plan.registries.limits,
        )
        return _healed(task, done, ctr)
    if result.busy_mounts:
        return lazy.busy_with(plan.slot, result.busy_mounts, ctr)
    remedy = f"the node is as before; see {plan.kind.journal} on it"
    if result.outcome == "broken":
        remedy = "its old configuration is back but containerd is not: reboot or replace the node"
    raise InstallError(result.step, result.cause, remedy, result.last_words)


def _look(host: Host, plan: Plan) -> Seen:
    daemon, containerd = (
        units.main_pid(units.show(host, unit, "MainPID"))
        for unit in (plan.slot.unit, plan.kind.containerd_unit)
    )
    paths = plan.watched_paths(host)
    files = tuple((path, watch.fingerprint(str(host.path(host.resolve(path))))) for path in paths)
    return Seen(daemon, containerd, plan.kubelet, files)


def _healed(task: Task, done: Installed, ctr: Ctr) -> Installed:
    """The same with what else has to be told of the node."""
    task.on_step("heal")
    healed = heal.heal(task.host, ctr, done.slot)
    return replace(_with_replaced(task, done, ctr), healed=healed, containerd_root=ctr.root)


def _with_replaced(task: Task, done: Installed, ctr: Ctr) -> Installed:
    """The same with the daemon in the other slot, if one is left from before an upgrade side by side."""
    other = done.slot.other
    paths = managed.daemon_paths(other)
    if not any(task.host.read_text(path).startswith(OUR_MARK) for path in paths):
        return done
    mounts = lazy.all_mounts(task.host, task.script, other)
    has_installer = lazy.has_pod(ctr, mounts, task.pod)
    return replace(done, replaced=other, on_replaced=len(mounts), has_installer=has_installer)


def _search_path(facts: detect.Facts) -> str:
    folder = Path(facts.containerd_command[0]).parent
    return f"{folder}:{PATH}"


def _refuse_node_in_service(task: Task, ctr: Ctr) -> None:
    if task.settings.existing_nodes == "migrate":
        return
    node = task.registration()
    if node.waits_for_soci:
        return
    running = images.workload_containers(ctr, node.namespace)
    if running:
        raise InstallError(
            "preflight",
            f"the node is in service: {len(running)} containers of workloads are running on it",
            "use fresh nodes, or set soci:existingNodes to migrate",
        )
