"""SOCI's own config.toml. Keys: soci-snapshotter's docs/config.md.

Top-level keys come before every table: below one they would silently become members of it.
"""

import json

from .settings import Settings
from .soci_registries import Mirror, Registries

# Not an address: the daemon fails to parse it, asks nobody, and leaves the image to containerd.
KEPT_OFF = "%kept-off"


def render(settings: Settings, registries: Registries, discard_unpacked_layers: bool) -> str:
    """The text of config.toml for a mode, with what the node's pulls say of registries."""
    lazy = settings.mode != "parallel"
    parallel = settings.mode != "lazy" and registries.allows_parallel
    # A parallel pull that fails is the pull's failure, also of a registry that the daemon is kept from. As a
    # fallback it is never begun there, and containerd pulls.
    fallback = parallel and (lazy or bool(registries.kept_off))
    lines = [
        "# Written by SociCluster from the Pulumi configuration; changes made here are overwritten.",
        "# The metadata can be rebuilt from the images' indexes, so it need not be synced.",
        "metadata_db_no_sync = true",
        "",
        "[snapshotter]",
        "# One layer that cannot be mounted again after a restart must not keep the daemon down.",
        "allow_invalid_mounts_on_restart = true",
        "",
        "[content_store]",
        f"type = {_text('soci' if settings.mode == 'lazy' else 'containerd')}",
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
            'concurrent_download_chunk_size = "16mb"',
            "max_concurrent_downloads_per_image = 20",
            "max_concurrent_unpacks_per_image = 12",
            f"discard_unpacked_layers = {_flag(discard_unpacked_layers)}",
        ]
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
