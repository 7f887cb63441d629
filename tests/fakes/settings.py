"""What a component would ask of a node."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from agent.settings import Settings, parse

_DECLARED = yaml.safe_load((Path(__file__).parents[2] / "Pulumi.yaml").read_text())["config"]
_DEFAULTS = parse(json.dumps({key: setting["default"] for key, setting in _DECLARED.items()}))


def agent_settings(**changes: Any) -> Settings:
    """The project's defaults with v2 indexes alone, and what differs from that."""
    return replace(_DEFAULTS, **{"index_versions": ("v2",), "release_url": "https://example.org", **changes})
