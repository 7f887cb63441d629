"""What a component would ask of a node."""

from dataclasses import replace
from typing import Any

from agent.settings import Settings

# Those of components/settings.py, which takes seconds to import; written by `make generate`.
_DEFAULTS = Settings(
    # settings:begin
    version="0.16.1",
    state="present",
    force_uninstall=False,
    mode="lazy",
    index_versions=["v2", "v1"],
    prefetch=False,
    release_url="https://github.com/awslabs/soci-snapshotter/releases/download",
    http_proxy="",
    https_proxy="",
    no_proxy="",
    sha256={},
    existing_nodes="refuse",
    upgrade_policy="when-idle",
    broken_pods="report",
    on_drift="repair",
    credentials="node-and-pull-secrets",
    # settings:end
)


def agent_settings(**changes: Any) -> Settings:
    """The project's defaults with v2 indexes alone, and what differs from that."""
    return replace(_DEFAULTS, **{"index_versions": ("v2",), "release_url": "https://example.org", **changes})
