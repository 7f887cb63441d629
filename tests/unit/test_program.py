"""The program for the nodes: what the component writes is what the agent reads."""

import json
from dataclasses import fields

import pytest
from agent import settings as agent_settings
from agent.errors import InstallError

from components import Settings, program
from components.settings import Scope, config_key, declaration
from tests.unit.mocks import DIGESTS


def test_the_agent_reads_every_setting_that_reaches_the_node() -> None:
    chosen = Settings(mode="parallel", upgrade_policy="drain", force_uninstall=True, index_versions=("v1",))
    read = agent_settings.parse(program.node_settings(chosen, DIGESTS))
    assert {item.name for item in fields(read)} == {
        item.name for item in fields(Settings) if declaration(item).scope is Scope.NODE
    }
    assert (read.mode, read.upgrade_policy, read.force_uninstall) == ("parallel", "drain", True)
    assert (read.index_versions, read.sha256) == (["v1"], DIGESTS)


@pytest.mark.parametrize(
    "name", [config_key(item) for item in fields(Settings) if declaration(item).scope is Scope.NODE]
)
def test_a_missing_setting_is_told_by_its_name(name: str) -> None:
    content = json.loads(program.node_settings(Settings(), DIGESTS))
    del content[name]
    with pytest.raises(InstallError, match=r"settings\.json is not usable: it has no "):
        agent_settings.parse(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": '])
def test_a_file_that_holds_no_settings_is_told(text: str) -> None:
    with pytest.raises(InstallError, match=r"settings\.json is not usable"):
        agent_settings.parse(text)
