"""SOCI's own config.toml. Keys: soci-snapshotter's docs/config.md.

Top-level keys come before every table: below one they would silently become members of it.
"""

import json

from .settings import Settings
from .slots import Slot
from .soci_registries import Mirror, Registries
from .tuning import Tuning

# Waits of 30 ms, 60 ms and so on, then of 5 s. SOCI's own eight retries end after 8 s.
LONGEST_WAIT_MILLISECONDS = 5000
# Of reads: 13 s, and the kernel reads again what its readahead did not get. Not more, since a daemon that
# starts while the registry is away spends as much on each layer, one after the other.
LAYER_RETRIES = 9
# Of all else: 28 s. A token that could not be fetched is never asked for again (containerd's authorizer,
# core/remotes/docker, keeps the error): what is read with it would be lost.
RETRIES = 12
# For so long SOCI takes up what it knows of a registry's credentials, also for a layer whose reads fail and
# that a new container needs. With its own hour, that container starts an hour after a password was changed.
CLIENT_SECONDS = 60
# Not an address: the daemon fails to parse it, asks nobody, and leaves the image to containerd.
KEPT_OFF = "%kept-off"


# A layer is mounted once its prefetch has ended. `soci-index advise` sizes the list to half of SOCI's 30 s
# for the link that it was told; this is for links four times slower than that.
MOUNT_SECONDS = 60
# Background fetch: one span in each period, and one at a time of each layer. SOCI's defaults, 30 s and
# 500 ms, bring 8 MiB/s unpacked, whatever the link carries.
SILENCE_MILLISECONDS = 4000  # after a mount, in which a starting container has the link for itself
# Layers that wait for it. One that finds the queue full is never fetched (0.15), or waits with its mount
# (before).
QUEUE = 5000


def render(
    settings: Settings, registries: Registries, discard_unpacked_layers: bool, tuned: Tuning, slot: Slot
) -> str:
    """The text of config.toml for a mode and a node, with what the node's pulls say of registries.

    ``discard_unpacked_layers`` is containerd's own setting of that name, which the mode parallel follows.

    A release that does not know a key takes no notice of it (config.go of 0.10 to 0.16). A setting writes no
    line where it has SOCI's own default: each line more restarts the daemon on every node.
    """
    lazy = settings.mode != "parallel"
    parallel = settings.mode != "lazy" and registries.allows_parallel
    # A parallel pull that fails is the pull's failure, also of a registry that the daemon is kept from. As a
    # fallback it is never begun there, and containerd pulls.
    fallback = parallel and (lazy or bool(registries.kept_off))
    # From containerd's store its garbage collection took zTOCs before they were used, as no lease holds them
    # (soci#1843): layers were pulled whole. SOCI takes its own one beside a parallel pull only without blobs.
    discard = discard_unpacked_layers or lazy
    lines = [
        "# Written by SociCluster from the Pulumi configuration; changes made here are overwritten.",
        "# The metadata can be rebuilt from the images' indexes, so it need not be synced.",
        "metadata_db_no_sync = true",
        f"mount_timeout_sec = {MOUNT_SECONDS}",
        "# By these soci-doctor knows how much of an image is on the node.",
        f"metrics_address = {_text(slot.metrics)}",
        'metrics_network = "unix"',
        "",
        "[prefetch]",
        "# Lists of images are taken without a check: see soci:prefetch.",
        f"enable = {_flag(settings.prefetch)}",
        "",
        "[background_fetch]",
        f"silence_period_msec = {SILENCE_MILLISECONDS}",
        f"fetch_period_msec = {tuned.fetch_milliseconds}",
        f"max_queue_size = {QUEUE}",
        "",
        "[snapshotter]",
        "# One layer that cannot be mounted again after a restart must not keep the daemon down.",
        "allow_invalid_mounts_on_restart = true",
        "",
        "[http]",
        "# Reads go on while the registry is away for 20 seconds.",
        f"MaxRetries = {RETRIES}",
        f"MaxWaitMsec = {LONGEST_WAIT_MILLISECONDS}",
        "",
        "[blob]",
        f"max_retries = {LAYER_RETRIES}",
        f"max_wait_msec = {LONGEST_WAIT_MILLISECONDS}",
        "",
        "[content_store]",
        f"type = {_text('soci' if lazy else 'containerd')}",
        "",
        "[pull_modes.soci_v1]",
        f"enable = {_flag(lazy and 'v1' in settings.index_versions)}",
        "",
        "[pull_modes.soci_v2]",
        f"enable = {_flag(lazy and 'v2' in settings.index_versions)}",
        "",
        "[pull_modes.parallel_pull_unpack]",
        f"enable = {_flag(parallel and not fallback)}",
    ]
    if parallel:
        lines += [
            f"experimental_parallel_pull_as_fallback = {_flag(fallback)}",
            f"concurrent_download_chunk_size = {_text(tuned.chunk)}",
            f"max_concurrent_downloads_per_image = {tuned.downloads}",
            f"max_concurrent_unpacks_per_image = {tuned.unpacks}",
            f"discard_unpacked_layers = {_flag(discard)}",
        ]
    lines += ["", "[resolver]", f"auth_client_ttl_sec = {CLIENT_SECONDS}"]
    for registry, mirrors in hosts(registries).items():
        for mirror in mirrors:
            lines += ["", f"[[resolver.host.{_text(registry)}.mirrors]]", f"host = {_text(mirror.url)}"]
            if mirror.is_insecure:
                lines.append("insecure = true")
    return "\n".join(lines) + "\n"


def hosts(registries: Registries) -> dict[str, tuple[Mirror, ...]]:
    """What stands below `resolver.host`, by registry."""
    kept_off = dict.fromkeys(registries.kept_off, (Mirror(KEPT_OFF),))
    return dict(sorted((dict(registries.mirrors) | kept_off).items()))


def _text(value: str) -> str:
    return json.dumps(value)


def _flag(value: bool) -> str:
    return "true" if value else "false"
