"""What can be wrong with a node: a check each, over what was read from it.

A check yields the subject (an image, a pod, a file, a unit) and the cause of each thing that it found. What
was not read is not known, and a check that needs it is silent. To add one, write its function here and run
`make generate` for the table in docs/doctor.md.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import containerd_config, remedies, settings, soci_config
from .containerd_config import Path
from .credential_helper import Source
from .credential_providers import NO_PROVIDERS, Providers
from .daemon_metrics import Fetched
from .daemon_words import in_short
from .doctor_images import LAZY, Image
from .kinds import PLAIN
from .pull_secret_choice import CONFLICT
from .pull_secret_files import UNREAD
from .slots import FIRST, SECOND, Slot
from .soci_registries import NOTHING, Registries
from .transaction import SCRIPT

LARGE = 100 << 20  # bytes: below, lazy loading gains little, and an image is not spoken of
LEAST_INDEXED = 10 << 20  # `soci convert` leaves smaller layers out unless told (its --min-layer-size)
MUCH_MEMORY = 2 << 30  # soci-snapshotter#1850 saw 2.6 GB
CONVERT = "give the image an index: scripts/index/README.md"

# What the daemon says when a registry does not give it an index -> the check that speaks of it.
REFUSALS = (
    (
        re.compile(r"\b401\b|unauthorized|authentication required|no basic auth|handle challenge", re.I),
        "no-credentials",
    ),
    (re.compile(r"\b403\b|forbidden|denied", re.I), "forbidden"),
    (
        re.compile(r"giving up request|dial tcp|i/o timeout|no such host|connection refused", re.I),
        "registry-unreachable",
    ),
)
NOT_FOUND = re.compile(r"\b404\b|not found", re.I)


@dataclass(frozen=True)
class Unit:
    """A unit of systemd as far as it matters here."""

    name: str
    state: str = ""  # ActiveState; empty when systemd did not say
    pid: int = 0


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that was read from a node. None, or empty, where it could not be."""

    state: str = ""  # what the settings want
    mode: str = ""
    on_drift: str = ""
    settings_problem: str = ""  # why they cannot be read
    journal: str = ""  # the state of the last transaction
    slot: Slot = FIRST
    containerd: Unit = Unit(PLAIN.containerd_unit)
    daemon: Unit = Unit(FIRST.unit)
    containerd_answers: bool = True
    socket: str = "answers"  # answers, refuses or absent
    has_fuse: bool = True
    generator: str = ""  # of the operating system's, which writes configurations of its own
    root_file: str = containerd_config.DEFAULT_FILE
    root_text: Mapping[Path, object] = field(default_factory=dict)  # what that file says itself
    effective: Mapping[Path, object] = field(default_factory=dict)  # what containerd makes of it
    soci_file: str = FIRST.config
    soci: Mapping[Path, object] = field(default_factory=dict)  # what the daemon was started with
    registries: Registries = NOTHING  # what the daemon should be told of them
    kubelet_image_endpoint: str = ""
    providers: Providers = NO_PROVIDERS  # the kubelet's credential provider plugins
    sources: Mapping[str, Source] = field(default_factory=dict)  # of credentials, by registry
    changed_files: tuple[tuple[str, str], ...] = ()  # path, and what became of it
    repair_seconds: float = 0.0  # until the next repair may be made
    images: tuple[Image, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)  # image to what the daemon last said of it
    unmounted: int = 0  # lazily loaded layers without mount, whose image is not known
    dead_pods: tuple[str, ...] = ()
    local_layers: frozenset[str] | None = None  # digests of lazily loaded layers that are wholly here
    fetched: Fetched = field(default_factory=Fetched)
    # Of the daemon's present start, by the layer's digest:
    failed_reads: Mapping[str, int] = field(default_factory=dict)  # how often a pod got an I/O error
    failed_fetches: frozenset[str] = frozenset()  # what the background fetch has given up
    unread: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # when it last failed, and why
    memory: int = 0  # of the daemon, in bytes
    pull_secrets: tuple[tuple[str, str, str], ...] = ()  # finding, subject and cause, as their process says
    verify: str = ""  # what the host script's own checks found

    @property
    def is_lazy(self) -> bool:
        return self.mode not in ("parallel", "")

    @property
    def should_serve(self) -> bool:
        """Whether SOCI was put on the node, and nothing says that it is to be taken off."""
        return self.state != "absent" and self.journal == "committed"

    def soci_says(self, *key: str) -> object:
        """A key of the daemon's configuration; None when it is not set."""
        return self.soci.get(key)


Find = Callable[[Look], Iterable[tuple[str, ...]]]  # subject, cause, and a remedy of its own where it has one


@dataclass(frozen=True)
class Check:
    """One row: what a finding of it means and what to do about it."""

    id: str
    severity: str  # error: something does not work; warning: it works, slower or not for long
    means: str
    remedy: str
    find: Find


CHECKS: list[Check] = []


def _check(name: str, severity: str, means: str, remedy: str) -> Callable[[Find], Find]:
    def register(find: Find) -> Find:
        CHECKS.append(Check(name, severity, means, remedy, find))
        return find

    return register


def findings(look: Look) -> list[dict[str, str]]:
    """What is wrong with the node, errors first."""
    found = [
        {
            "id": check.id,
            "severity": check.severity,
            "subject": subject,
            "cause": cause,
            "remedy": remedy[0] if remedy else check.remedy,
        }
        for check in CHECKS
        for subject, cause, *remedy in check.find(look)
    ]
    if look.verify and not any(entry["severity"] == "error" for entry in found):
        cause = f"the node's own checks say: {look.verify}"
        remedy = "restart the installer's pod of this node, which says more"
        found.append(
            {"id": "verify", "severity": "error", "subject": "node", "cause": cause, "remedy": remedy}
        )
    return sorted(found, key=lambda entry: entry["severity"])


# The node and its daemons


@_check(
    "settings-unread",
    "error",
    "the installer's settings cannot be read: what the node should be is not known, and what depends on it "
    "is not looked for",
    settings.REMEDY,
)
def _settings_unread(look: Look) -> Iterator[tuple[str, str]]:
    if look.settings_problem:
        yield "installer", look.settings_problem


@_check(
    "not-installed",
    "error",
    "SOCI is not, or not wholly, installed",
    "see the installer's pod and the node's condition SociReady",
)
def _not_installed(look: Look) -> Iterator[tuple[str, str]]:
    if look.state == "present" and look.journal != "committed":
        yield "node", f"the last change of the node is {look.journal or 'none'}, not committed"


@_check(
    "containerd-away",
    "error",
    "containerd is away: nothing starts",
    f"see the journal of its unit; sh {SCRIPT} verify",
)
def _containerd_away(look: Look) -> Iterator[tuple[str, ...]]:
    unit = look.containerd
    if not look.containerd_answers:
        yield (
            unit.name,
            f"it is {unit.state or 'not known to systemd'} and does not answer",
            f"journalctl -u {unit.name}; sh {SCRIPT} verify",
        )


@_check(
    "daemon-away",
    "error",
    "the daemon is away: no container starts",
    remedies.DAEMON_AWAY,
)
def _daemon_away(look: Look) -> Iterator[tuple[str, str]]:
    if look.should_serve and look.daemon.state not in ("active", ""):
        yield look.daemon.name, f"it is {look.daemon.state}"


@_check(
    "stale-socket",
    "error",
    "the daemon's socket is there, and nobody listens: containerd waits for an answer that does not come",
    "restart the daemon's unit (breaks pods that read lazily), and see its journal",
)
def _stale_socket(look: Look) -> Iterator[tuple[str, ...]]:
    unit = look.daemon
    if look.should_serve and look.socket == "refuses":
        yield (
            look.slot.socket,
            f"connections are refused; {unit.name} is {unit.state or 'not known'}",
            f"systemctl restart {unit.name} (breaks pods that read lazily), and journalctl -u {unit.name}",
        )


@_check(
    "no-fuse",
    "error",
    "without FUSE no layer can be mounted",
    "load the fuse module at boot, or set soci:mode to parallel",
)
def _no_fuse(look: Look) -> Iterator[tuple[str, str]]:
    if look.should_serve and look.is_lazy and not look.has_fuse:
        yield "/dev/fuse", "the kernel has no FUSE (/dev/fuse, /proc/filesystems), which mode lazy needs"


@_check(
    "daemon-memory",
    "warning",
    "the daemon needs much memory",
    "expect an OOM kill, which breaks reading pods; drain the node, then restart the daemon",
)
def _daemon_memory(look: Look) -> Iterator[tuple[str, str]]:
    if look.memory > MUCH_MEMORY:
        yield look.daemon.name, f"it holds {look.memory >> 20} MiB (known: soci-snapshotter#1850)"


# Configurations


def _snapshotter(look: Look) -> str:
    return str(containerd_config.snapshotter(look.effective) or "overlayfs") if look.effective else ""


def _is_ours(snapshotter: str) -> bool:
    return snapshotter in (FIRST.name, SECOND.name)


def _foreign(look: Look) -> str:
    """Another's snapshotter that is in effect in place of ours; empty when there is none."""
    found = _snapshotter(look)
    return found if look.should_serve and not _is_ours(found) else ""


def _unread(look: Look) -> list[str]:
    """Where the file sets our snapshotter without an effect."""
    return [
        ".".join(key[:-1])
        for key, value in look.root_text.items()
        if key[-1] == "snapshotter" and _is_ours(str(value))
    ]


@_check(
    "keys-unread",
    "error",
    "SOCI's keys stand in a table that this containerd does not read",
    "restart the installer's pod of this node, which sets them in the right table",
)
def _keys_unread(look: Look) -> Iterator[tuple[str, str]]:
    if (found := _foreign(look)) and (tables := _unread(look)):
        yield look.root_file, f"the snapshotter is set in {tables[0]}, but {found} is in effect"


@_check(
    "other-snapshotter",
    "error",
    "another snapshotter is in effect: nothing is loaded by SOCI",
    "end the tool that changes containerd's configuration, then restart the installer's pod of this node",
)
def _other_snapshotter(look: Look) -> Iterator[tuple[str, str]]:
    if (found := _foreign(look)) and not _unread(look):
        yield look.root_file, f"containerd's snapshotter is {found}, not {look.slot.name}"


@_check(
    "annotations-off",
    "error",
    "containerd does not tell the daemon which image a layer is of: nothing is loaded lazily",
    "remove the key from the file that sets it, then restart the installer's pod of this node",
)
def _annotations_off(look: Look) -> Iterator[tuple[str, str]]:
    key = (*containerd_config.image_table(look.effective), "disable_snapshot_annotations")
    if look.should_serve and _is_ours(_snapshotter(look)) and look.effective.get(key) is not False:
        yield look.root_file, f"{'.'.join(key)} is not false"


@_check(
    "drift",
    "warning",
    "others changed or removed a file of the installer's",
    "end what changes it; the installer puts it right, or you do with soci:onDrift report",
)
def _drift(look: Look) -> Iterator[tuple[str, ...]]:
    for path, became in look.changed_files:
        remedy = [remedies.drift(look.on_drift, look.repair_seconds)] if look.on_drift else []
        yield path, f"it was {became}", *remedy


@_check(
    "parallel-again",
    "error",
    "the daemon pulls every image whole although the mode is lazy",
    "on AL2023 take FastImagePull out of nodeadm's feature gates; restart the installer's pod of this node",
)
def _parallel_again(look: Look) -> Iterator[tuple[str, str]]:
    if (
        look.should_serve
        and look.is_lazy
        and look.soci_says("pull_modes", "parallel_pull_unpack", "enable") is True
    ):
        who = f", as {look.generator} writes it for FastImagePull" if look.generator else ""
        yield look.soci_file, f"pull_modes.parallel_pull_unpack is on{who}"


def _pulls_through_soci(look: Look) -> bool:
    return look.should_serve and "soci-snapshotter" in look.kubelet_image_endpoint


def _has_keychain(look: Look) -> bool:
    """Whether the daemon answers the kubelet's calls about images: it does as a part of its keychain."""
    return look.soci_says("cri_keychain", "enable_keychain") is True


@_check(
    "kubelet-cannot-pull",
    "error",
    "no image can be pulled: the kubelet asks SOCI's daemon for it, which has no image service",
    remedies.PULLS_THROUGH_SOCI,
)
def _kubelet_cannot_pull(look: Look) -> Iterator[tuple[str, str]]:
    if _pulls_through_soci(look) and look.soci and not _has_keychain(look):
        yield "kubelet", f"its image endpoint is {look.kubelet_image_endpoint}, and cri_keychain is off"


@_check(
    "cri-proxy-lazy",
    "warning",
    "the daemon knows registry credentials from the kubelet's pulls alone, and forgets them at its restart: "
    "then lazily loaded private images break",
    "take imageServiceEndpoint out of the kubelet's configuration and cri_keychain out of SOCI's, or set "
    "soci:mode to parallel",
)
def _cri_proxy_lazy(look: Look) -> Iterator[tuple[str, str]]:
    if not (look.should_serve and look.is_lazy and _has_keychain(look)):
        return
    if _pulls_through_soci(look):
        yield "kubelet", f"its image endpoint is {look.kubelet_image_endpoint}"
    else:
        yield look.soci_file, "cri_keychain is on"


@_check(
    "mirror-without-scheme",
    "warning",
    "the daemon falls back to whole pulls: it cannot parse a mirror without a scheme",
    "write the mirror as https://… or http://…",
)
def _mirror_without_scheme(look: Look) -> Iterator[tuple[str, str]]:
    for registry, hosts in _mirrors(look).items():
        for host in hosts:
            if "://" not in host and host != soci_config.KEPT_OFF:
                yield look.soci_file, f"the mirror {host} of {registry} has no scheme"


@_check(
    "hosts-not-carried",
    "warning",
    "SOCI cannot do all of what containerd does for a registry; the cause says what becomes of its images",
    "see the finding's own remedy",
)
def _hosts_not_carried(look: Look) -> Iterator[tuple[str, ...]]:
    if look.should_serve:
        for limit in look.registries.limits:
            yield limit.registry, limit.in_words, limit.remedy


@_check(
    "mirrors-differ",
    "warning",
    "SOCI asks other mirrors than containerd",
    "restart the installer's pod of this node after a change of hosts.toml",
)
def _mirrors_differ(look: Look) -> Iterator[tuple[str, str]]:
    if not (look.should_serve and look.is_lazy and look.soci):
        return
    known = _mirrors(look)
    wanted = {
        registry: [mirror.url for mirror in mirrors]
        for registry, mirrors in soci_config.hosts(look.registries).items()
    }
    for registry in sorted(wanted.keys() | known.keys()):
        if wanted.get(registry) != known.get(registry):
            yield look.soci_file, f"of {registry} it has other mirrors than containerd's configuration"


def _mirrors(look: Look) -> dict[str, list[str]]:
    found = {}
    for key, value in look.soci.items():
        if (
            len(key) == 4
            and key[:2] == ("resolver", "host")
            and key[3] == "mirrors"
            and isinstance(value, list)
        ):
            found[key[2]] = [str(entry.get("host", "")) for entry in value if isinstance(entry, dict)]
    return found


# Credentials


@_check(
    "provider-fails",
    "warning",
    "a credential provider plugin of the kubelet's cannot be had: the daemon has no credentials from it, and "
    "what only they open is pulled whole",
    "see the kubelet's flags --image-credential-provider-config and --image-credential-provider-bin-dir, the "
    "plugin and what it needs, such as the node's role",
)
def _provider_fails(look: Look) -> Iterator[tuple[str, str]]:
    if not look.should_serve:
        return
    yield from look.providers.problems
    known = set(look.providers.problems)
    for registry, source in look.sources.items():
        for failed in source.failed:
            subject, _, cause = failed.partition(": ")
            if (subject, cause) not in known:
                yield subject, f"asked for {registry}, {cause}"


@_check(
    "provider-without-variable",
    "warning",
    "a variable of the kubelet's environment looks like a secret and is not written to disk: the plugins run "
    "without it when the daemon asks them; only a proxy that containerd has, too, is known to them",
    "if a plugin needs it: set a proxy in containerd's unit, too, and anything else as the plugin's env in "
    "the kubelet's list of plugins; or give the node a role, so that it needs no secret",
)
def _provider_without_variable(look: Look) -> Iterator[tuple[str, str]]:
    if look.should_serve and look.providers.providers:
        for name in look.providers.left_out:
            yield "kubelet", f"its environment has {name}, which plugins are asked without"


@_check(
    "provider-needs-account",
    "warning",
    "a credential provider plugin works with the token of a pod's service account only, which the kubelet "
    "alone has: images that only it opens are pulled whole",
    "let the node's own role read these repositories, or give the pods an image pull secret",
)
def _provider_needs_account(look: Look) -> Iterator[tuple[str, str]]:
    if look.should_serve:
        for name in look.providers.needing_account:
            yield name, "its tokenAttributes require a service account"


def _of_pull_secrets(look: Look, finding: str) -> Iterator[tuple[str, str]]:
    """What the process for pull secrets says of this kind."""
    return ((subject, cause) for kind, subject, cause in look.pull_secrets if kind == finding)


@_check(
    CONFLICT,
    "warning",
    "pods of the node have different credentials for one registry, of which the daemon can have one only: "
    "images that this one does not open are pulled whole, and reads of their lazily loaded layers fail",
    "give the pods of the node one credential that reads all their images of the registry, or keep them on "
    "different nodes",
)
def _conflicting_credentials(look: Look) -> Iterator[tuple[str, str]]:
    return _of_pull_secrets(look, CONFLICT)


@_check(
    UNREAD,
    "warning",
    "pull secrets of the node's pods do not reach the daemon: their images are pulled whole",
    "mend the secret that is named; else see the log of the container `credentials` of the node's installer",
)
def _pull_secrets_unread(look: Look) -> Iterator[tuple[str, str]]:
    return _of_pull_secrets(look, UNREAD)


# Pods and images


@_check(
    "dead-mounts",
    "error",
    "the pod runs, and its files cannot be read: the daemon that served them has ended",
    remedies.DEAD_MOUNTS,
)
def _dead_mounts(look: Look) -> Iterator[tuple[str, str]]:
    for pod in look.dead_pods:
        yield pod, f"its lazily loaded mounts died with an earlier {look.daemon.name}"


@_check(
    "poisoned-image",
    "error",
    "no new container of the image starts: the daemon could not mount its layers again, and tries no more",
    remedies.HELD_IMAGE,
)
def _poisoned_image(look: Look) -> Iterator[tuple[str, str]]:
    for image in look.images:
        if dead := image.of("dead"):
            said = in_short(look.reasons.get(image.name, ""))
            yield (
                image.name,
                f"{len(dead)} of {len(image.layers)} layers are not mounted" + (f": {said}" if said else ""),
            )


@_check(
    "unmounted-layers",
    "error",
    "lazily loaded layers have no mount: the images that need them do not start, and which these are is not "
    "known",
    f"sh {SCRIPT} heal --again on the node",
)
def _unmounted_layers(look: Look) -> Iterator[tuple[str, str]]:
    if look.unmounted:
        yield "node", f"{look.unmounted} lazily loaded layers have no mount"


# What the daemon says of a read that failed -> what to do. It has tried again what may go by of itself.
UNREADABLE = (
    (
        re.compile(r"\b404\b|not found|\b410\b", re.I),
        "the registry has the layer no more: push the same image again, and reads go on",
    ),
    (
        re.compile(r"digests? do(?:es)? not match|\b416\b|EOF|data size|Content-Range|corrupt", re.I),
        "the registry gives other bytes than the index names, or no parts of blobs: mend it, or the proxy or "
        "mirror before it, and reads go on",
    ),
    (
        re.compile(r"\b40[13]\b|unauthorized|forbidden|denied|credentials", re.I),
        "let the node's credentials read the repository (docs/security.md, Registry credentials)",
    ),
    (
        re.compile(r"\b429\b|giving up request|dial tcp|timeout|connection|\b5\d\d\b", re.I),
        "the registry is away or has too many requests: wait for it, raise its limits, or have a mirror",
    ),
)


def _last_word(look: Look, layers: Iterable[str]) -> tuple[str, ...]:
    """The last of the daemon's words on these layers as a clause, and what to do where they say it."""
    said = max((look.unread[layer] for layer in layers if layer in look.unread), default=None)
    if said is None:
        return ("",)
    at, error = said
    remedies_of = [remedy for words, remedy in UNREADABLE if words.search(error)]
    return (f"; last at {at}: {in_short(error)}", *remedies_of[:1])


@_check(
    "reads-failed",
    "error",
    "pods got I/O errors when they read a lazily loaded image: the registry did not give the bytes that the "
    "index names (it deleted or changed them, has too many requests, or gives no parts of blobs), and the "
    "daemon, which checks each span, gives out no others",
    "see journalctl -u 'soci-snapshotter*' on the node, and mend the registry: reads go on",
)
def _reads_failed(look: Look) -> Iterator[tuple[str, ...]]:
    for image in look.images if look.should_serve else ():
        failed = [layer.digest for layer in image.layers if layer.digest in look.failed_reads]
        if failed:
            cause, *remedy = _last_word(look, failed)
            reads = sum(look.failed_reads[layer] for layer in failed)
            layers = f"{len(failed)} of its {len(image.layers)} layers"
            yield image.name, f"{reads} reads of {layers} failed since the daemon's start{cause}", *remedy


@_check(
    "fetch-failed",
    "warning",
    "the background fetch of an image failed and is not begun again: its pods read on from the registry, and "
    "need it",
    "mend the registry, drain the node, then restart the daemon, which fetches anew",
)
def _fetch_failed(look: Look) -> Iterator[tuple[str, str]]:
    for image in look.images if look.should_serve else ():
        failed = [layer.digest for layer in image.of(LAZY) if layer.digest in look.failed_fetches]
        if failed and not look.failed_reads.keys() & {layer.digest for layer in image.layers}:
            cause, *_ = _last_word(look, failed)
            layers = f"{len(failed)} of its {len(image.layers)} layers"
            yield image.name, f"{layers} are not fetched further{cause}"


def why_whole(image: Image, look: Look) -> str:
    """The check that says why an image is not loaded lazily; empty when it is, or should not be."""
    if not look.is_lazy or image.is_lazy or not image.layers or image.of("unknown"):
        return ""
    if image.registry in look.registries.kept_off:
        return "hosts-not-carried"
    said = look.reasons.get(image.name, "")
    if image.index and look.soci_says("pull_modes", "soci_v2", "enable") is False:
        return "index-version-off"
    for words, check in REFUSALS:
        if words.search(said):
            return check
    if image.index:
        return "index-missing" if NOT_FOUND.search(said) else "pulled-before"
    if image.others_indexed:
        return "wrong-platform"
    if all("zstd" in layer.media_type for layer in image.layers):
        return "zstd-layers"
    if all(layer.size < LEAST_INDEXED for layer in image.layers):
        return "small-layers"
    return "no-index"


@dataclass(frozen=True)
class Whole:
    """Why a large image is not loaded lazily: a check for each reason, made of ``cause`` in this image."""

    means: str
    remedy: str
    cause: Callable[[Look, Image], str]

    def check(self, reason: str) -> Check:
        """The row of CHECKS."""

        def find(look: Look) -> Iterator[tuple[str, str]]:
            for image in look.images if look.should_serve else ():
                if image.size >= LARGE and why_whole(image, look) == reason:
                    yield image.name, self.cause(look, image)

        return Check(reason, "warning", self.means, self.remedy, find)


def _no_index(look: Look, image: Image) -> str:
    is_on = look.soci_says("pull_modes", "soci_v1", "enable")
    return "the daemon found no index of it" + ("" if is_on else ", and looks for none of version 1")


def _said(look: Look, image: Image) -> str:
    return f"of its index the daemon says: {in_short(look.reasons.get(image.name, ''))}"


def _said_to(look: Look, image: Image) -> str:
    """The same, with the credentials that the daemon has now."""
    source = look.sources.get(image.registry)
    return _said(look, image) + (f"; its credentials for {image.registry}: {source.found}" if source else "")


PULL_ANEW = "then remove the image from the node (ctr -n k8s.io images rm), so that it is pulled anew"
WHOLE = {
    "no-index": Whole("a large image has no SOCI index, so it is pulled whole", CONVERT, _no_index),
    "index-version-off": Whole(
        "an image has an index of a version that is switched off",
        "set soci:indexVersions to [v2, v1] and run pulumi up",
        lambda look, image: f"its index is v2, and pull_modes.soci_v2 is off in {look.soci_file}",
    ),
    "small-layers": Whole(
        "an image has no index, and no layer as large as those that `soci convert` indexes",
        "build it with fewer layers, or convert it with a smaller --min-layer-size",
        lambda look, image: f"none of its {len(image.layers)} layers has {LEAST_INDEXED >> 20} MiB",
    ),
    "zstd-layers": Whole(
        "an image has no index, since layers compressed with zstd cannot have one",
        "build the image with gzip layers, then convert it",
        lambda look, image: f"all of its {len(image.layers)} layers are zstd",
    ),
    "wrong-platform": Whole(
        "an image has an index for other platforms than this node's",
        "convert the image with --all-platforms",
        lambda look, image: "other platforms of it have a SOCI index, this node's has none",
    ),
    "index-missing": Whole(
        "an image names an index that the registry does not have",
        f"copy the image with its index (skopeo copy --all), or convert it again, {PULL_ANEW}",
        _said,
    ),
    "pulled-before": Whole(
        "an image has an index, and was pulled whole all the same: perhaps it, or another image with the "
        "same layers, was pulled before SOCI was there",
        f"run pulumi up, {PULL_ANEW}",
        lambda look, image: "it has an index v2; why it was not used, the node does not know any more",
    ),
    "no-credentials": Whole(
        "the daemon has no credentials for the registry, so it found no index there",
        "give the node a credential provider plugin or a Docker configuration for the registry, or the pod "
        f"an image pull secret (docs/security.md, Registry credentials), {PULL_ANEW}",
        _said_to,
    ),
    "forbidden": Whole(
        "the registry refuses the daemon, so it found no index there",
        f"allow the node's credentials to read the repository and its index, {PULL_ANEW}",
        _said_to,
    ),
    "registry-unreachable": Whole(
        "the registry did not answer the daemon when the image was pulled",
        "let the node reach the registry itself, also behind a mirror, or name the mirror as `server` in its "
        f"hosts.toml (docs/operations.md), {PULL_ANEW}",
        _said,
    ),
}
CHECKS += [whole.check(reason) for reason, whole in WHOLE.items()]
