"""SOCI's own config.toml. Keys: soci-snapshotter's docs/config.md.

Top-level keys come before every table: below one they would silently become members of it.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence

from .host import Host
from .settings import Settings

Mirror = tuple[str, bool]  # URL with its scheme, insecure


def registry_hosts(host: Host, directories: Sequence[str]) -> dict[str, str]:
    """Registry name to the text of its hosts.toml, from the first of containerd's directories that has it."""
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


def mirrors(hosts_files: Mapping[str, str]) -> dict[str, list[Mirror]]:
    """Mirrors per registry, from the texts of containerd's certs.d/<registry>/hosts.toml.

    SOCI does not read certs.d, so what the node's pulls use is repeated for it. `_default` has no equivalent.
    """
    found: dict[str, list[Mirror]] = {}
    for registry, text in sorted(hosts_files.items()):
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        if registry == "_default":
            continue
        hosts = data.get("host")
        entries = [
            _mirror(url, bool(host.get("skip_verify")))
            for url, host in (hosts.items() if isinstance(hosts, dict) else ())
            if isinstance(host, dict)
            and {"pull", "resolve"} <= set(host.get("capabilities", ("pull", "resolve")))
        ]
        server = str(data.get("server", ""))
        if server.startswith("http://") or data.get("skip_verify"):
            entries.append(_mirror(server or registry, bool(data.get("skip_verify"))))
        entries = list(dict.fromkeys(entries))
        if entries:
            found[registry] = entries
    return found


def _mirror(url: str, skip_verify: bool) -> Mirror:
    # SOCI needs the scheme: without one it fails to parse the host and silently falls back to whole pulls.
    if "://" not in url:
        url = "https://" + url
    return url.rstrip("/"), skip_verify or url.startswith("http://")


def render(
    settings: Settings, registries: Mapping[str, Sequence[Mirror]], discard_unpacked_layers: bool
) -> str:
    """The text of config.toml for a mode, with the node's registry mirrors."""
    lazy = settings.mode != "parallel"
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
        f"enable = {_flag(settings.mode == 'parallel')}",
    ]
    if settings.mode != "lazy":
        lines += [
            f"experimental_parallel_pull_as_fallback = {_flag(settings.mode == 'lazy-or-parallel')}",
            'concurrent_download_chunk_size = "16mb"',
            "max_concurrent_downloads_per_image = 20",
            "max_concurrent_unpacks_per_image = 12",
            f"discard_unpacked_layers = {_flag(discard_unpacked_layers)}",
        ]
    for registry, entries in registries.items():
        for url, insecure in entries:
            lines += ["", f"[[resolver.host.{_text(registry)}.mirrors]]", f"host = {_text(url)}"]
            if insecure:
                lines.append("insecure = true")
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value)


def _flag(value: bool) -> str:
    return "true" if value else "false"
