"""settings.json, as the component wrote it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InstallError

MODES = ("lazy", "parallel", "lazy-or-parallel")
UPGRADE_POLICIES = ("when-idle", "drain", "side-by-side")
STATES = ("present", "absent")


@dataclass(frozen=True)
class Settings:
    """What to install; every field comes from the Pulumi configuration."""

    version: str
    mode: str
    release_url: str
    sha256: dict[str, str]
    index_versions: tuple[str, ...] = ("v2",)
    existing_nodes: str = "refuse"
    upgrade_policy: str = "when-idle"
    state: str = "present"
    force_uninstall: bool = False
    namespace: str = field(default="soci-system")


def parse(text: str, namespace: str = "soci-system") -> Settings:
    """Read the text of settings.json.

    Raises:
        InstallError: the text is no JSON object, or a field is missing or has an unknown value.
    """
    try:
        data = json.loads(text)
        settings = Settings(
            version=data["version"],
            mode=data["mode"],
            release_url=data["releaseUrl"].rstrip("/"),
            sha256=dict(data["sha256"]),
            index_versions=tuple(data.get("indexVersions", ("v2",))),
            existing_nodes=data.get("existingNodes", "refuse"),
            upgrade_policy=data.get("upgradePolicy", "when-idle"),
            state=data.get("state", "present"),
            force_uninstall=bool(data.get("forceUninstall", False)),
            namespace=namespace,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InstallError(
            "settings", f"settings.json is not usable: {error!r}", "run pulumi up again"
        ) from error
    if settings.state not in STATES:
        raise InstallError(
            "settings", f"unknown state {settings.state!r}", f"set soci:state to one of {', '.join(STATES)}"
        )
    if settings.mode not in MODES:
        raise InstallError(
            "settings", f"unknown mode {settings.mode!r}", f"set soci:mode to one of {', '.join(MODES)}"
        )
    if settings.upgrade_policy not in UPGRADE_POLICIES:
        raise InstallError(
            "settings",
            f"unknown upgrade policy {settings.upgrade_policy!r}",
            f"set soci:upgradePolicy to one of {', '.join(UPGRADE_POLICIES)}",
        )
    return settings


def load(path: Path, namespace: str) -> Settings:
    """Read settings.json at ``path``; raises what `parse` raises."""
    return parse(path.read_text(encoding="utf-8"), namespace)
