"""``python3 -B -m agent doctor``: what of this node's images is served how, and what is wrong, as JSON.

It only reads, and it looks whatever is away: what could not be read stands under `notKnown`. Each question to
the node has a limit, so that all of them together end in time also where containerd or a daemon hangs.
"""

import json
import os
import re
import socket
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from . import (
    containerd_config,
    credential_helper,
    credential_providers,
    daemon_metrics,
    daemon_words,
    detect,
    doctor_checks,
    doctor_images,
    drift,
    lazy,
    pull_secret_files,
    release,
    settings,
    slots,
    soci_registries,
    transaction,
    tuning,
    units,
)
from .credential_helper import Source
from .credential_providers import NO_PROVIDERS
from .ctr import Ctr
from .daemon_words import Words
from .doctor_checks import Look, Unit
from .errors import InstallError, clean
from .host import Host
from .kubelet import option, read_kubelet
from .slots import Slot

SECONDS = 4.0  # for one question
PODS_NAMED = 20  # at most, one question each
REGISTRIES_ASKED = 12  # at most, all at once
BLOBS = "io.containerd.content.v1.content/blobs/sha256"  # below containerd's root
# Whether the root directory of each container can be listed: a dead FUSE mount below it is an error at once.
PROBE = """
export LC_ALL=C
xargs -r -P 8 -n 1 sh -c 'said=$(timeout -k 1 2 ls "$1" 2>&1 >/dev/null) || echo "$1 $said"' probe
"""
DEAD = re.compile("Transport endpoint is not connected|Stale file handle")

T = TypeVar("T")


def main() -> int:
    """Print the report; 0 unless even that was not possible."""
    payload = Path.cwd()
    report = examine(Host(Path("/host")), payload, os.environ.get("NODE_NAME", ""), os.uname().release)
    json.dump(report, sys.stdout, indent=2)
    print()
    return 0


def examine(host: Host, payload: Path, node: str, kernel: str) -> dict[str, Any]:
    """The whole report of a node.

    Args:
        host: the node.
        payload: the installer's program, with the settings that the node should have.
        node: its name.
        kernel: the release of its kernel.
    """
    return _Examination(host, payload).report(node, kernel)


class _Examination:
    """One look at a node; what it could not read is noted and left out."""

    def __init__(self, host: Host, payload: Path) -> None:
        self.host = host
        self.payload = payload
        self.not_known: list[str] = []

    def report(self, node: str, kernel: str) -> dict[str, Any]:
        wanted, problem = self._settings()
        plan = transaction.recorded_plan(self.host)
        kind = detect.kind_of_node(self.host)
        # What was recorded at the install; before one, the usual places.
        program = plan.get("containerd_program", "containerd")
        root_file = plan.get("containerd_config", containerd_config.DEFAULT_FILE)
        ask = partial(detect.effective_configuration, self.host, program, root_file, SECONDS)
        effective = self._try("containerd's configuration", ask) or {}
        recorded = slots.in_use(plan.get("slot"))
        snapshotter = containerd_config.snapshotter(effective)
        slot = slots.in_use(snapshotter) if snapshotter in (recorded.name, recorded.other.name) else recorded
        mode = wanted.mode if wanted else ""

        containerd, _ = self._unit(plan.get("containerd_unit", kind.containerd_unit))
        daemon, start = self._unit(slot.unit)
        kubelet, _ = self._unit(plan.get("kubelet_unit", kind.kubelet_unit))
        ctr = Ctr(
            self.host,
            plan.get("containerd_address", "/run/containerd/containerd.sock"),
            plan.get("path", os.defpath),
            containerd_config.root(effective),
        )
        answers = ctr.succeeds("version", timeout=SECONDS)
        at_socket = listens(self.host.path(slot.socket))
        words = self._words(slot, start)
        metrics = daemon_metrics.read_metrics(self.host.path(slot.metrics)) if daemon.pid else ""
        images, unmounted = self._images(ctr, slot, words) if answers else ((), 0)
        hosts = doctor_images.registries(images)
        providers = self._try("the kubelet's plugins", lambda: credential_providers.read(self.host))
        mounts = self._mounts(slot)
        dead = self._dead(mounts, slot, start)
        soci_file, soci = self._soci(slot, daemon)
        look = Look(
            state=wanted.state if wanted else "",
            mode=mode,
            on_drift=wanted.on_drift if wanted else "",
            settings_problem=problem,
            journal=transaction.journal_state(self.host).get("state", ""),
            slot=slot,
            containerd=containerd,
            daemon=daemon,
            containerd_answers=answers,
            socket=at_socket,
            has_fuse=self._has_fuse(),
            generator=kind.generator.name if kind.generator else "",
            root_file=root_file,
            root_text=self._try(root_file, lambda: self._toml(root_file)) or {},
            effective=effective,
            soci_file=soci_file,
            soci=soci,
            registries=self._registries(effective, program, mode),
            kubelet_image_endpoint=self._image_endpoint(),
            providers=providers or NO_PROVIDERS,
            sources=self._sources(daemon, hosts),
            changed_files=changed_files(self.host),
            repair_seconds=drift.seconds_to_wait(self.host, time.time()),
            images=images,
            reasons=words.reasons,
            unmounted=unmounted,
            dead_pods=self._pods(ctr, dead) if answers else dead,
            local_layers=daemon_metrics.local_layers(metrics) if metrics else None,
            fetched=daemon_metrics.fetched(metrics),
            failed_reads=daemon_metrics.failed_reads(metrics),
            failed_fetches=daemon_metrics.failed_fetches(metrics),
            unread=words.unread,
            memory=memory_of(self.host.read_text(f"/proc/{daemon.pid}/status")),
            pull_secrets=tuple(pull_secret_files.problems(self.host)),
            # At a daemon that is away, which is told anyway, its checks wait for longer than there is time.
            verify=self._verify() if answers and at_socket == "answers" else "",
        )
        found = doctor_checks.findings(look)
        return {
            "node": node,
            "verdict": found[0]["severity"] if found else "good",
            "mode": mode or "unknown",
            "slot": slot.name,
            "versions": self._versions(program, kubelet, daemon, kernel),
            "daemon": self._daemon(daemon, look),
            "hardware": self._hardware(),
            "mounts": {"lazyLayers": self._fuse_mounts(slot), "containers": len(mounts), "dead": len(dead)},
            "images": [
                doctor_images.described(
                    image, doctor_checks.why_whole(image, look), look.local_layers, look.fetched
                )
                for image in images
            ],
            "credentials": [
                {"registry": registry, "source": source.found} for registry, source in look.sources.items()
            ],
            "drift": [f"{path}: {became}" for path, became in look.changed_files],
            "findings": found,
            "notKnown": self.not_known,
        }

    def _try(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (OSError, ValueError, LookupError, InstallError) as error:
            self.not_known.append(clean(f"{what}: {error}"))
            return None

    def _settings(self) -> tuple[settings.Settings | None, str]:
        """What the node should be; or None, and why that cannot be read."""
        try:
            return settings.load(self.payload / "settings.json"), ""
        except InstallError as error:
            return None, error.cause

    # Configurations

    def _toml(self, path: str) -> dict[containerd_config.Path, object]:
        return containerd_config.flatten(tomllib.loads(self.host.read_text(path)))

    def _soci(self, slot: Slot, daemon: Unit) -> tuple[str, Mapping[containerd_config.Path, object]]:
        """The configuration that the daemon was started with, wherever its unit has it."""
        path = option(self._command(daemon), "config") or slot.config
        return path, self._try(path, lambda: self._toml(path)) or {}

    def _registries(
        self, effective: Mapping[containerd_config.Path, object], program: str, mode: str
    ) -> soci_registries.Registries:
        """What the daemon should be told of them by now."""
        if not effective or not mode:
            return soci_registries.NOTHING
        version = detect.parse_version(self.host.run(program, "--version", timeout=SECONDS).output)
        read = self._try("hosts.toml", lambda: soci_registries.read(self.host, effective, version, mode))
        return read or soci_registries.NOTHING

    def _sources(self, daemon: Unit, registries: Sequence[str]) -> dict[str, Source]:
        """Where the credentials for each registry come from; empty where the helper is not installed."""
        if not daemon.pid or not registries or not self.host.exists(credential_helper.HELPER):
            return {}
        asked = registries[:REGISTRIES_ASKED]
        what = "where credentials come from"
        if rest := len(registries) - len(asked):
            self.not_known.append(f"{what}: {rest} more registries were not asked")
        found = self._try(what, lambda: credential_helper.sources(self.host, daemon.pid, asked))
        return found or {}

    def _image_endpoint(self) -> str:
        found = self._try("the kubelet's configuration", lambda: read_kubelet(self.host))
        return self.host.resolve(found.images) if found else ""

    # Daemons

    def _unit(self, name: str) -> tuple[Unit, str]:
        """A unit, and what each of its starts changes."""
        properties = ("ActiveState", "MainPID", "InvocationID")
        found = self._try(name, lambda: units.show(self.host, name, *properties)) or {}
        unit = Unit(name, found.get("ActiveState", ""), units.main_pid(found))
        return unit, found.get("InvocationID", "")

    def _command(self, unit: Unit) -> list[str]:
        text = self.host.read_text(f"/proc/{unit.pid}/cmdline") if unit.pid else ""
        return text.rstrip("\0").split("\0") if text else []

    def _daemon(self, daemon: Unit, look: Look) -> dict[str, Any]:
        score = self.host.read_text(f"/proc/{daemon.pid}/oom_score_adj").strip() if daemon.pid else ""
        uptime = self.host.read_text("/proc/uptime").split()
        stat = self.host.read_text(f"/proc/{daemon.pid}/stat") if daemon.pid else ""
        return {
            "unit": daemon.name,
            "state": daemon.state,
            "memoryBytes": look.memory,
            "oomScoreAdj": int(score) if score else None,
            "uptimeSeconds": age(stat, float(uptime[0])) if uptime and stat else None,
            "backgroundFetch": self._background_fetch(look),
        }

    def _background_fetch(self, look: Look) -> str:
        if not look.mode:
            return "not known"
        if look.soci_says("background_fetch", "disable") is True or not look.is_lazy:
            return "off"
        layers = {layer.digest for image in look.images for layer in image.of(doctor_images.LAZY)}
        if not layers:
            return "on"
        if look.local_layers is None:
            return "on, progress not known"
        return f"on, {len(layers & look.local_layers)} of {len(layers)} layers wholly here"

    def _hardware(self) -> dict[str, Any]:
        """The node's, and what a new installation makes of it."""
        found = tuning.read_hardware(self.host)
        chosen = tuning.choose(found).in_words
        return {
            "cores": found.cores,
            "memoryBytes": found.memory,
            "inWords": found.in_words,
            "chosen": chosen,
        }

    def _versions(self, program: str, kubelet: Unit, daemon: Unit, kernel: str) -> dict[str, str]:
        def version(*command: str) -> str:
            said = self.host.run(*command, timeout=SECONDS).output
            return ".".join(map(str, detect.parse_version(said)))

        soci, kubelet_program = self._command(daemon)[:1], self._command(kubelet)[:1]
        return {
            "soci": version(*soci, "--version") if soci else "",
            "containerd": version(program, "--version"),
            "kubelet": version(*kubelet_program, "--version") if kubelet_program else "",
            "kernel": kernel,
        }

    def _has_fuse(self) -> bool:
        known = self.host.read_text("/proc/filesystems").split()
        return "fuse" in known and self.host.exists("/dev/fuse")

    def _verify(self) -> str:
        """What the host script's own checks find; empty also when an install is at work."""
        result = self._script("verify")
        outcome = transaction.parse_result(result) if result else None
        if outcome and outcome.outcome == "failed" and outcome.cause != "nothing is installed":
            return f"{outcome.step}: {outcome.cause}"
        return ""

    def _script(self, *arguments: str) -> str:
        script = self._try("the host script", lambda: transaction.host_script(self.payload))
        if script is None:
            return ""
        return transaction.run_script(self.host, script, *arguments, timeout=SECONDS).output

    # Mounts and images

    def _fuse_mounts(self, slot: Slot) -> int:
        return len(fuse_mounts(self.host.read_text("/proc/1/mountinfo"), slot.data))

    def _mounts(self, slot: Slot) -> list[str]:
        """The mount points of all containers in either slot's directory."""
        found = [self._script("mounts", name, "all") for name in (slot.name, slot.other.name)]
        return sorted({mount for output in found for mount in output.split()})

    def _dead(self, mounts: Sequence[str], slot: Slot, start: str) -> tuple[str, ...]:
        """Of those, the ones that cannot be read, and those that the host script found broken."""
        if not mounts:
            return ()
        result = self.host.run("sh", "-c", PROBE, text="\n".join(mounts), timeout=2 * SECONDS)
        dead = {line.split(" ", 1)[0] for line in result.output.splitlines() if DEAD.search(line)}
        healed = self.host.read_text(f"{transaction.STATE}/healed-{slot.name}")
        broken = broken_containers(healed, start)
        return tuple(sorted(dead | {mount for mount in mounts if Path(mount).parent.name in broken}))

    def _pods(self, ctr: Ctr, mounts: Sequence[str]) -> tuple[str, ...]:
        pods = tuple(map(str, lazy.pods_of(ctr, mounts[:PODS_NAMED])))
        rest = len(mounts) - PODS_NAMED
        return (*pods, f"{rest} more containers") if rest > 0 else pods

    def _words(self, slot: Slot, start: str) -> Words:
        words = daemon_words.read(self.host, slot, start)
        if not words.is_whole:
            self.not_known.append(f"the journal of {slot.unit}: it did not end in time")
        return words

    def _images(self, ctr: Ctr, slot: Slot, words: Words) -> tuple[tuple[doctor_images.Image, ...], int]:
        """The images, and the number of lazily loaded layers without a mount that are nobody's."""
        of_slot = ("snapshots", "--snapshotter", slot.name)
        before = fuse_mounts(self.host.read_text("/proc/1/mountinfo"), slot.data)
        names = doctor_images.names_by_digest(ctr.run("images", "ls", timeout=SECONDS))
        content = doctor_images.labels(ctr.run("content", "ls", timeout=SECONDS))
        keys = doctor_images.committed(ctr.run(*of_slot, "ls", timeout=SECONDS))
        usage = ctr.run(*of_slot, "usage", "-b", *keys, timeout=SECONDS) if keys else ""
        remote = doctor_images.remote_keys(usage)
        if len(remote) < len(keys) or not names:
            self.not_known.append("how images are served: containerd does not list them or their layers")
        # A layer that is pulled or removed meanwhile is in one of the two.
        mounted = before | fuse_mounts(self.host.read_text("/proc/1/mountinfo"), slot.data)
        lazy_keys = {key for key, is_remote in remote.items() if is_remote}
        missing = len(lazy_keys) - len(mounted)
        not_mounted = words.not_restored & lazy_keys if missing > 0 else set()
        snapshots = doctor_images.Snapshots(slot.name, remote, not_mounted, words.parallel)

        def blob(digest: str) -> Mapping[str, Any]:
            path = f"{ctr.root}/{BLOBS}/{digest.removeprefix('sha256:')}"
            return doctor_images.read_json(self.host.read(path)) if digest else {}

        images = doctor_images.images(names, content, blob, snapshots)
        return tuple(images), max(0, missing - len(not_mounted))


def broken_containers(healed: str, start: str) -> set[str]:
    """The containers that the host script found on dead mounts, if its record is of this start."""
    lines = [line.split() for line in healed.splitlines()]
    if not start or ["start", start] not in lines:
        return set()
    return {words[1] for words in lines if len(words) == 2 and words[0] == "broken"}


def fuse_mounts(mountinfo: str, data: str) -> set[str]:
    """The layers that a daemon serves, as the host script's `lazy_layers` has them."""
    lines = (line.split() for line in mountinfo.splitlines() if " - fuse.rawBridge " in line)
    return {words[4] for words in lines if words[4].startswith(f"{data}/")}


def changed_files(host: Host) -> tuple[tuple[str, str], ...]:
    """The managed files and the programs that are not as they were installed, and what became of them."""
    recorded = transaction.recorded_files(host).items()
    changed = [path for path, digest in recorded if transaction.sha256(host.read(path)) != digest]
    places = sorted(path.name for path in host.path(release.VERSIONS).glob("[!.]*"))
    for place in places:
        changed += release.changed_programs(host, f"{release.VERSIONS}/{place}")
    return tuple((path, drift.became(host, path)) for path in changed)


def memory_of(status: str) -> int:
    """Resident bytes, from /proc/PID/status; 0 when they are not there."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def age(stat: str, uptime: float) -> int:
    """Seconds since a process was started, from /proc/PID/stat."""
    return int(uptime - detect.start_ticks(stat) / os.sysconf("SC_CLK_TCK"))


def listens(path: Path) -> str:
    """What a connection to a unix socket comes to: answers, refuses or absent."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect(str(path))
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "refuses"
    finally:
        client.close()
    return "answers"
