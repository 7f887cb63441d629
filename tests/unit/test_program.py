"""The program for the nodes: what the component writes is what the agent reads."""

import json
from dataclasses import fields

import pytest
from agent import settings as agent_settings
from agent.errors import InstallError

from components import Settings, program
from components.settings import Scope, declaration
from tests.fakes.settings import agent_settings as fake_settings
from tests.unit.mocks import DIGESTS


def test_the_agent_reads_every_setting_that_reaches_the_node() -> None:
    chosen = Settings(mode="parallel", upgrade_policy="drain", force_uninstall=True, index_versions=("v1",))
    written = program.node_settings(chosen, DIGESTS)
    read = agent_settings.parse(written)
    reaching = [item for item in fields(Settings) if declaration(item).scope is Scope.NODE]
    assert {item.name for item in fields(read)} == {item.name for item in reaching}
    assert set(json.loads(written)) == {item.name for item in reaching}
    assert (read.mode, read.upgrade_policy, read.force_uninstall) == ("parallel", "drain", True)
    assert (read.index_versions, read.sha256) == (["v1"], DIGESTS)


@pytest.mark.parametrize(
    "name", [item.name for item in fields(Settings) if declaration(item).scope is Scope.NODE]
)
def test_a_missing_setting_is_told_by_its_name(name: str) -> None:
    content = json.loads(program.node_settings(Settings(), DIGESTS))
    del content[name]
    with pytest.raises(InstallError, match=rf"settings\.json is not usable: it has no {name}\."):
        agent_settings.parse(json.dumps(content))


def test_the_fakes_ask_for_the_defaults() -> None:
    asked = fake_settings(index_versions=["v2", "v1"], release_url=Settings().release_url)
    assert asked == agent_settings.parse(program.node_settings(Settings(), {}))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": '])
def test_a_file_that_holds_no_settings_is_told(text: str) -> None:
    with pytest.raises(InstallError, match=r"settings\.json is not usable"):
        agent_settings.parse(text)
