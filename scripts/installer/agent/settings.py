"""settings.json, as the component wrote it (components/program.py)."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import InstallError

REMEDY = "run pulumi up again"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to install: the settings of scope NODE in components/settings.py, which checks them (`make
    generate`)."""

    # settings:begin
    version: str
    state: str
    force_uninstall: bool
    mode: str
    index_versions: list[str]
    prefetch: bool
    release_url: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    sha256: dict[str, str]
    existing_nodes: str
    upgrade_policy: str
    broken_pods: str
    on_drift: str
    credentials: str
    # settings:end


def parse(text: str) -> Settings:
    """Read the text of settings.json.

    Raises:
        InstallError: the text is no JSON object, or a field is missing.
    """
    try:
        found = {**json.loads(text)}
    except (ValueError, TypeError) as error:
        raise InstallError("settings", f"settings.json is not usable: {error}", REMEDY) from error
    wanted = [field.name for field in fields(Settings)]
    if missing := [name for name in wanted if name not in found]:
        cause = f"settings.json is not usable: it has no {', '.join(missing)}"
        raise InstallError("settings", cause, REMEDY)
    return Settings(**{name: found[name] for name in wanted})


def load(path: Path) -> Settings:
    """Read settings.json at ``path``.

    Raises:
        InstallError: it cannot be read, or `parse` refuses it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InstallError("settings", f"settings.json cannot be read: {error}", REMEDY) from error
    return parse(text)
