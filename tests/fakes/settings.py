"""What a component would ask of a node."""

from typing import Any

from agent.settings import Settings


def agent_settings(**changes: Any) -> Settings:
    """Settings of a first install of SOCI 0.16.1, lazy, with v2 indexes, and what differs from that."""
    usual = {
        "version": "0.16.1",
        "state": "present",
        "force_uninstall": False,
        "mode": "lazy",
        "index_versions": ("v2",),
        "release_url": "https://example.org",
        "sha256": {},
        "existing_nodes": "refuse",
        "upgrade_policy": "when-idle",
    }
    return Settings(**usual | changes)
