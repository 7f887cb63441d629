"""The files on the node that an install manages: a row each, with all that anybody has to know of them.

A row's role travels in the transaction's manifest. It decides the order in which the files are written and
restored, and which daemon is restarted when one changes. docs/security.md shows the rows (scripts/docs).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import (
    containerd_config,
    credential_helper,
    credential_providers,
    daemon_environment,
    soci_config,
    soci_registries,
    tuning,
)
from .adoption import Daemon
from .credential_providers import NO_PROVIDERS, Providers
from .host import Host
from .kinds import KINDS, Generator, Kind
from .settings import Settings
from .slots import FIRST, SECOND, Slot
from .soci_registries import Registries
from .transaction import PROGRAMS, STATE, File, Role
from .tuning import Hardware

UNITS = "/etc/systemd/system"
UNKNOWN = Hardware()


@dataclass(frozen=True, kw_only=True)
class Place:
    """What decides which files there are, and where."""

    kind: Kind
    slot: Slot
    adopts: bool  # the daemon's unit is the operating system's
    config_path: str  # containerd's root configuration file


@dataclass(frozen=True, kw_only=True)
class Target(Place):
    """What decides the files' texts."""

    payload: Path  # has the templates
    settings: Settings
    daemon: Daemon
    program: str  # of the daemon, a path on the node
    config_text: str  # of containerd's root configuration file, with our keys
    effective: Mapping[containerd_config.Path, object]  # containerd's configuration before the change
    registries: Registries
    environment: Mapping[str, str]  # of the daemon, as `daemon_environment.of_daemon` has it
    providers: Providers = NO_PROVIDERS  # the kubelet's credential provider plugins
    hardware: Hardware = UNKNOWN  # the node's


@dataclass(frozen=True, kw_only=True)
class Managed:
    """One file. ``what`` is for people; ``when`` says on which nodes there is such a file, and a ``text`` of
    None that there is none now. A text is made here, or lies in scripts/installer (`_payload`, `_template`).
    ``role`` says what is restarted when it changes: with RECOVERY, which also fits what no daemon reads,
    nothing; then a change of it is in effect from the next boot on. ``mode`` is octal; an empty one stands
    for that of the file that is there, 0644 for a new one."""

    path: Callable[[Place], str]
    text: Callable[[Target], str | None]
    role: Role
    what: str
    when: Callable[[Place], bool] = lambda place: True
    mode: str = ""


def _template(name: str) -> Callable[[Target], str]:
    def text(target: Target) -> str:
        words = {
            "@CONTAINERD_UNIT@": target.kind.containerd_unit,
            "@DAEMON_UNITS@": f"{FIRST.unit} {SECOND.unit}",
            "@EXEC_START@": target.daemon.exec_start(target.program),
            "@ENVIRONMENT_FILE@": target.slot.environment,
            "@SPAN_CACHE@": target.slot.span_cache,
            "@PREFETCH_WORKERS@": str(tuning.choose(target.hardware).prefetch_workers),
        }
        content = (target.payload / name).read_text()
        for word, meaning in words.items():
            content = content.replace(word, meaning)
        return content

    return text


def _soci_config(target: Target) -> str:
    table = containerd_config.image_table(target.effective)
    discard = bool(target.effective.get((*table, "discard_unpacked_layers")))
    tuned = tuning.choose(target.hardware)
    return soci_config.render(target.settings, target.registries, discard, tuned, target.slot)


def _environment(target: Target) -> str | None:
    variables = target.environment
    if target.registries.certificates:
        variables = daemon_environment.trusting(variables, target.slot.certificates)
    return daemon_environment.render(variables)


def _generator(place: Place) -> Generator:
    if not place.kind.generator:
        raise LookupError(f"nobody writes containerd's configuration anew on nodes of kind {place.kind.name}")
    return place.kind.generator


def _generator_text(target: Target) -> str:
    return _generator(target).render(containerd_config.image_table(target.effective), target.slot)


def _payload(path: str) -> Callable[[Target], str]:
    """A file of the program as it is, under the name that it has on the node."""
    return lambda target: (target.payload / path.rpartition("/")[2]).read_text()


MANAGED = (
    Managed(
        path=lambda place: f"{UNITS}/soci-cluster-boot.service",
        text=_template("soci-cluster-boot.service"),
        role=Role.RECOVERY,
        what="the unit that ends an install which was cut short, before containerd starts",
    ),
    Managed(
        path=lambda place: f"{UNITS}/{place.kind.containerd_unit}.d/10-soci-cluster.conf",
        text=_template("containerd-soci-cluster.conf"),
        role=Role.RECOVERY,
        what="has containerd start that unit and the daemons",
    ),
    Managed(
        path=lambda place: f"{credential_helper.FOLDER}/config.json",
        text=lambda target: credential_helper.CONFIG,
        role=Role.RECOVERY,
        what="the daemon's Docker configuration: it names the credential helper and nothing else",
    ),
    Managed(
        path=lambda place: credential_helper.HELPER,
        text=_payload(credential_helper.HELPER),
        role=Role.RECOVERY,
        what="the credential helper: gives the daemon the registry credentials that the kubelet has",
        mode="0755",
    ),
    Managed(
        path=lambda place: credential_helper.LIST,
        text=lambda target: credential_providers.render(target.providers),
        role=Role.RECOVERY,
        what="mode 0600: the kubelet's credential provider plugins, as the helper asks them",
        mode="0600",
    ),
    Managed(
        path=lambda place: place.slot.config,
        text=_soci_config,
        role=Role.DAEMON,
        what="SOCI's configuration",
    ),
    Managed(
        path=lambda place: f"{place.slot.certificates}/registries.pem",
        text=lambda target: soci_registries.certificates_file(target.registries),
        role=Role.DAEMON,
        what="the CAs that containerd's `hosts.toml` files name, where there are some",
    ),
    Managed(
        path=lambda place: place.slot.environment,
        text=_environment,
        role=Role.DAEMON,
        what="mode 0600: proxies and trust of the daemon, where containerd or the settings have some",
        mode="0600",  # a proxy's address may have a password
    ),
    Managed(
        path=lambda place: place.slot.unit_path,
        text=_template("soci-snapshotter.service"),
        role=Role.DAEMON,
        when=lambda place: not place.adopts,
        what="the daemon",
    ),
    Managed(
        path=lambda place: place.slot.adoption,
        text=_template("soci-snapshotter-adopt.conf"),
        role=Role.DAEMON,
        when=lambda place: place.adopts,
        what="the daemon, where the operating system brings that unit",
    ),
    Managed(
        path=lambda place: _generator(place).path,
        text=_generator_text,
        role=Role.GENERATOR,
        when=lambda place: place.kind.generator is not None,
        what="the same keys for the tool that writes containerd's file anew at each boot, where there is one",
    ),
    Managed(
        path=lambda place: place.config_path,
        text=lambda target: target.config_text,
        role=Role.SHARED,
        what="containerd's root file: five keys (six with containerd 2), in the file's own schema; "
        "three more (four) for a second daemon",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A directory of ours: removed as a whole; its files are not listed one by one."""

    path: str
    what: str


FOLDERS = (
    Folder(path=PROGRAMS, what="the releases' programs, and the host script"),
    Folder(
        path=STATE,
        what="mode 0700: journal, staged transaction, the node's original files, and "
        "`pull-secret-hosts`, mode 0600, the names of registries of which pods had pull secrets; `replaced`, "
        "what others had written in place of a daemon's file that the node put back",
    ),
    *(Folder(path=slot.data, what="layers and their metadata") for slot in (FIRST, SECOND)),
    Folder(
        path=credential_helper.MEMORY,
        what="in memory only: `credentials`, mode 0700, what plugins answered last; `pull-secrets`, mode "
        "0700, one credential for each registry; `pull-secrets.problems` and `pull-secrets.conflicts`, why a "
        "pod's secret is not among them; `pull-secrets.alive`, when their process last looked; "
        "`pull-secrets.read`, when it had read all of them for the first time; `started`, a file for "
        "each daemon that has come up and runs",
    ),
)


def rows(place: Place) -> list[Managed]:
    """The rows that apply, in the order of their roles."""
    order = list(Role)
    return sorted((row for row in MANAGED if row.when(place)), key=lambda row: order.index(row.role))


def files(host: Host, target: Target) -> list[File]:
    """Each managed file as it is on the node and as it shall be, without those that neither are nor shall
    be there."""
    chosen = rows(target)
    is_generated = target.kind.generator is not None
    found = []
    for row in chosen:
        path = row.path(target)
        role = Role.GENERATED if row.role is Role.SHARED and is_generated else row.role
        mode, owner = host.mode_and_owner(path)
        old, text = host.read(path), row.text(target)
        new = None if text is None else text.encode()
        if old is not None or new is not None:
            found.append(File(role, path, old, new, row.mode or mode, owner))
    return found


def places(slots: Iterable[Slot] = (FIRST, SECOND)) -> list[Place]:
    """One of each place that these slots can have, as far as it makes a difference to the rows."""
    return [
        Place(kind=kind, slot=slot, adopts=adopts, config_path=containerd_config.DEFAULT_FILE)
        for kind in KINDS
        if not kind.refusal
        for slot in slots
        for adopts in (False, True)
    ]


def daemon_paths(slot: Slot) -> set[str]:
    """Where the files of a slot's daemon are, whoever's unit it has."""
    return {row.path(place) for place in places([slot]) for row in rows(place) if row.role is Role.DAEMON}
