"""SOCI's own configuration: modes and mirrors."""

import dataclasses
import re
import tomllib
from typing import Any

import pytest
from agent import soci_config
from agent.settings import Settings
from agent.slots import FIRST
from agent.soci_registries import NOTHING, Mirror, Registries
from agent.tuning import Hardware, choose

from tests.fakes.settings import agent_settings


def settings(mode: str, index_versions: tuple[str, ...] = ("v2", "v1")) -> Settings:
    return agent_settings(mode=mode, index_versions=index_versions)


UNKNOWN = Hardware()


def rendered(
    mode: str, registries: Registries = NOTHING, hardware: Hardware = UNKNOWN, **others: Any
) -> dict[str, Any]:
    chosen = dataclasses.replace(settings(mode), **others)
    text = soci_config.render(chosen, registries, False, choose(hardware), FIRST)
    return tomllib.loads(text)


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
    data = tomllib.loads(soci_config.render(settings(mode, versions), NOTHING, False, choose(UNKNOWN), FIRST))
    modes = data["pull_modes"]
    assert {name for name, keys in modes.items() if keys["enable"]} == enabled
    fallback = modes["parallel_pull_unpack"].get("experimental_parallel_pull_as_fallback", False)
    assert fallback is (mode == "lazy-or-parallel")


def test_what_lazy_loading_needs_lies_where_containerds_garbage_collection_does_not_come() -> None:
    """A zTOC in containerd's store was gone before it was read, and its layer was pulled whole. SOCI refuses
    its own store beside a parallel pull that keeps blobs (fs.NewFilesystem)."""
    found = rendered("lazy-or-parallel", NOTHING)
    assert found["content_store"]["type"] == "soci"
    assert found["pull_modes"]["parallel_pull_unpack"]["discard_unpacked_layers"] is True
    assert rendered("lazy", NOTHING)["content_store"]["type"] == "soci"


@pytest.mark.parametrize("discard", [True, False])
def test_a_node_of_parallel_pulls_alone_keeps_blobs_as_its_containerd_does(discard: bool) -> None:
    text = soci_config.render(settings("parallel", ("v2",)), NOTHING, discard, choose(UNKNOWN), FIRST)
    data = tomllib.loads(text)
    assert data["content_store"]["type"] == "containerd"
    assert data["pull_modes"]["parallel_pull_unpack"]["discard_unpacked_layers"] is discard


def test_top_level_keys_come_before_tables() -> None:
    """Below a table SOCI would silently take them for the table's own (a defect of soci-installer)."""
    data = rendered("lazy", NOTHING)
    assert data["metadata_db_no_sync"] is True
    assert data["metrics_address"] == "/run/soci-snapshotter-grpc/metrics.sock"
    assert data["metrics_network"] == "unix"
    assert data["snapshotter"] == {"allow_invalid_mounts_on_restart": True}


def test_reads_outlast_a_registry_that_is_away_for_twenty_seconds() -> None:
    """SOCI's own retries end after 8 s: a read failed, and of a token that was due nobody asked again."""
    found = rendered("lazy", NOTHING)

    def seconds(retries: int, longest: int) -> float:
        return sum(min(30 * 2**number, longest) for number in range(retries)) / 1000

    assert 20 < seconds(found["http"]["MaxRetries"], found["http"]["MaxWaitMsec"]) < 30
    # Of layers there are own ones, which have nothing of these; the kernel reads twice.
    assert 20 < 2 * seconds(found["blob"]["max_retries"], found["blob"]["max_wait_msec"]) < 30


def test_a_password_that_was_changed_is_asked_for_within_a_minute() -> None:
    """SOCI kept a client with the old one for an hour: no new container of a private image started."""
    assert rendered("lazy", NOTHING)["resolver"]["auth_client_ttl_sec"] == 60


def test_mirrors_are_rendered() -> None:
    told = Registries(
        mirrors={
            "10.0.0.1:5000": (Mirror("http://10.0.0.1:5000", is_insecure=True),),
            "docker.io": (Mirror("https://m.example"),),
        }
    )
    host = rendered("lazy", told)["resolver"]["host"]
    assert host["10.0.0.1:5000"]["mirrors"] == [{"host": "http://10.0.0.1:5000", "insecure": True}]
    assert host["docker.io"]["mirrors"] == [{"host": "https://m.example"}]


def test_what_a_registry_is_kept_from_is_no_address() -> None:
    """The daemon's resolver parses it before it asks anybody: url.Parse of Go refuses the escape."""
    host = rendered("lazy", Registries(kept_off=("mtls.corp",)))["resolver"]["host"]
    (mirror,) = host["mtls.corp"]["mirrors"]
    assert re.match("%(?![0-9A-Fa-f]{2})", mirror["host"])


@pytest.mark.parametrize("mode", ["parallel", "lazy-or-parallel"])
def test_a_registry_that_is_kept_off_is_left_to_containerd_in_each_mode(mode: str) -> None:
    """A parallel pull as the only way ends in its error, and the pod would never start (snapshot.go)."""
    modes = rendered(mode, Registries(kept_off=("mtls.corp",)))["pull_modes"]
    assert modes["parallel_pull_unpack"]["enable"] is False
    assert modes["parallel_pull_unpack"]["experimental_parallel_pull_as_fallback"] is True
    assert modes["soci_v2"]["enable"] is (mode == "lazy-or-parallel")


@pytest.mark.parametrize("mode", ["parallel", "lazy-or-parallel"])
def test_without_a_way_to_name_all_registries_nothing_is_pulled_in_parallel(mode: str) -> None:
    parallel = rendered(mode, Registries(allows_parallel=False))["pull_modes"]["parallel_pull_unpack"]
    assert parallel == {"enable": False}


def test_an_images_own_prefetch_list_is_used_only_where_that_is_wanted() -> None:
    """SOCI takes a list as it is (fs/layer/layer.go): a span below 0 ends the daemon of the node."""
    assert rendered("lazy")["prefetch"]["enable"] is False
    assert rendered("lazy", prefetch=True)["prefetch"]["enable"] is True


def test_a_mount_has_time_for_its_prefetch_to_end() -> None:
    """30 s, SOCI's own limit, end the mount of a layer whose prefetch takes longer."""
    assert rendered("lazy")["mount_timeout_sec"] > 30


def test_background_fetch_is_not_bound_to_eight_mebibytes_a_second() -> None:
    """SOCI's defaults: 30 s of silence, then one span of 4 MiB in 500 ms, on any link."""
    fetch = rendered("lazy")["background_fetch"]
    assert 4 * 1000 / fetch["fetch_period_msec"] >= 40  # MiB/s, unpacked
    assert fetch["silence_period_msec"] < 5000
    assert fetch["max_queue_size"] > 300


@pytest.mark.parametrize(
    ("hardware", "downloads", "unpacks"),
    [
        (Hardware(), 20, 12),
        (Hardware(cores=2, memory=8 << 30), 20, 2),
        (Hardware(cores=2, memory=1 << 30), 10, 1),
        (Hardware(cores=8, memory=32 << 30), 20, 8),
        (Hardware(cores=96, memory=1 << 40), 20, 12),
        (Hardware(cores=16, memory=3 << 30), 20, 3),
    ],
)
def test_parallel_pull_fits_the_node(hardware: Hardware, downloads: int, unpacks: int) -> None:
    found = rendered("parallel", hardware=hardware)["pull_modes"]["parallel_pull_unpack"]
    assert found["max_concurrent_downloads_per_image"] == downloads
    assert found["max_concurrent_unpacks_per_image"] == unpacks
    assert found["concurrent_download_chunk_size"] == "16mb"
