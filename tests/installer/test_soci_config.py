"""SOCI's own configuration: modes and mirrors."""

import tomllib

import pytest
from agent import soci_config
from agent.settings import Settings

from tests.fakes.settings import agent_settings


def settings(mode: str, index_versions: tuple[str, ...] = ("v2", "v1")) -> Settings:
    return agent_settings(mode=mode, index_versions=index_versions)


@pytest.mark.parametrize(
    ("mode", "versions", "enabled"),
    [
        ("lazy", ("v2",), {"soci_v2"}),
        ("lazy", ("v2", "v1"), {"soci_v1", "soci_v2"}),
        ("parallel", ("v2", "v1"), {"parallel_pull_unpack"}),
        ("lazy-or-parallel", ("v2", "v1"), {"soci_v1", "soci_v2"}),
    ],
)
def test_modes(mode: str, versions: tuple[str, ...], enabled: set[str]) -> None:
    """An image with a v1 index is lazy only where that is switched on (soci#1655)."""
    data = tomllib.loads(soci_config.render(settings(mode, versions), {}, discard_unpacked_layers=False))
    modes = data["pull_modes"]
    assert {name for name, keys in modes.items() if keys["enable"]} == enabled
    fallback = modes["parallel_pull_unpack"].get("experimental_parallel_pull_as_fallback", False)
    assert fallback is (mode == "lazy-or-parallel")
    assert data["content_store"]["type"] == ("soci" if mode == "lazy" else "containerd")


def test_top_level_keys_come_before_tables() -> None:
    """Below a table SOCI would silently take them for the table's own (a defect of soci-installer)."""
    data = tomllib.loads(soci_config.render(settings("lazy"), {}, discard_unpacked_layers=False))
    assert data["metadata_db_no_sync"] is True
    assert data["snapshotter"] == {"allow_invalid_mounts_on_restart": True}


def test_mirrors_keep_their_scheme() -> None:
    hosts = {
        "docker.io": '[host."https://mirror.example:5000"]\ncapabilities = ["pull", "resolve"]\n',
        "10.0.0.1:5000": 'server = "http://10.0.0.1:5000"\n[host."http://10.0.0.1:5000"]\n',
        "push.example": '[host."https://p.example"]\ncapabilities = ["push"]\n',
        "self-signed.example": 'server = "https://self-signed.example"\nskip_verify = true\n',
        "_default": '[host."https://all.example"]\n',
        "broken.example": "[host\n",
    }
    assert soci_config.mirrors(hosts) == {
        "10.0.0.1:5000": [("http://10.0.0.1:5000", True)],
        "docker.io": [("https://mirror.example:5000", False)],
        "self-signed.example": [("https://self-signed.example", True)],
    }


def test_mirrors_are_rendered() -> None:
    registries = {
        "10.0.0.1:5000": [("http://10.0.0.1:5000", True)],
        "docker.io": [("https://m.example", False)],
    }
    data = tomllib.loads(soci_config.render(settings("lazy"), registries, discard_unpacked_layers=False))
    host = data["resolver"]["host"]
    assert host["10.0.0.1:5000"]["mirrors"] == [{"host": "http://10.0.0.1:5000", "insecure": True}]
    assert host["docker.io"]["mirrors"] == [{"host": "https://m.example"}]


def test_hosts_files_of_another_shape_are_passed_over() -> None:
    """A broken file of one registry must not end the install."""
    texts = {"a": 'host = "x"\n', "b": '[host]\n"http://[x" = 1\n', "c": '[host."http://c:5000"]\n'}
    assert soci_config.mirrors(texts) == {"c": [("http://c:5000", True)]}
