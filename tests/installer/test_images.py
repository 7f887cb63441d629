"""What the switch does about each image: nothing, carry its layers over, pull it again, or refuse."""

import hashlib
import tomllib
from pathlib import Path

import pytest
from agent import containerd_config, images, kinds, nodeadm
from agent.ctr import Ctr
from agent.errors import InstallError

from tests.fakes.ctr import FakeCtr
from tests.fakes.node import FakeHost

CONFIG = "sha256:c1"
PAUSE = "example.org/pause:3.10"
DIFF_IDS = ["sha256:1", "sha256:2"]
SECOND = f"sha256:{hashlib.sha256(b'sha256:1 sha256:2').hexdigest()}"


class Containerd(FakeHost):
    """A node whose containerd knows the content of one image, and its layers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ctr = FakeCtr()
        self.ctr.content = {
            "index": {"manifests": [{"digest": "absent"}, {"digest": "manifest"}]},
            "manifest": {"config": {"digest": CONFIG}},
            CONFIG: {"rootfs": {"diff_ids": DIFF_IDS}},
        }
        self.ctr.snapshots = ["sha256:1", f"{SECOND} sha256:1"]
        self.ctr.usage = {"sha256:1": "100 1", SECOND: "50 1", "other": f"{1 << 60} 1"}
        self.answers = {"env": self.ctr}

    def mount(self, *points: str) -> None:
        lines = "".join(f"1 0 8:1 / {point} rw - ext4 /dev/sda rw\n" for point in points)
        self.write("/proc/1/mountinfo", lines.encode())


@pytest.fixture
def containerd(root: Path) -> Containerd:
    host = Containerd(root)
    host.ctr.add(PAUSE, "complete", digest="pause")
    return host


def plan(host: Containerd, snapshotter: str = "overlayfs") -> images.ImagePlan:
    ctr = Ctr(host, "/run/containerd/containerd.sock", "/usr/bin")
    archive = kinds.EKS_PAUSE_ARCHIVE
    return images.plan(ctr, PAUSE, [], pause_archive=archive, is_switch=True, snapshotter=snapshotter)


def test_chain_ids_are_those_of_the_image_specification() -> None:
    assert images.chain_ids(DIFF_IDS) == ("sha256:1", SECOND)
    assert images.chain_ids([]) == ()


@pytest.mark.failure_mode(22)
def test_image_whose_blobs_are_gone_is_carried_over_once_whatever_its_names(containerd: Containerd) -> None:
    """core-kit#580, stargz#2080: one image has a tag, a digest and an ID as its names."""
    for name in ("example.org/app:1", "example.org/app@sha256:0", CONFIG):
        containerd.ctr.add(name, "incomplete")
    found = plan(containerd)
    assert [layers.line() for layers in found.carry_over] == [f"{CONFIG} sha256:1 {SECOND}\n"]


def test_complete_image_is_left_to_containerd(containerd: Containerd) -> None:
    containerd.ctr.add("example.org/app:1", "complete", unpacked=False)
    assert plan(containerd) == images.ImagePlan(PAUSE)


@pytest.mark.parametrize("state", ["incomplete", "unavailable", "error"])
def test_image_that_cannot_start_today_is_left_to_the_host_script(containerd: Containerd, state: str) -> None:
    """nydus-snapshotter#539."""
    containerd.ctr.add("example.org/app:1", state, unpacked=False)
    assert plan(containerd) == images.ImagePlan(PAUSE)


def test_image_that_cannot_be_checked_hides_no_other(containerd: Containerd) -> None:
    """ctr exits with 1 then, but its list is there."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.ctr.add("example.org/damaged:1", "error", unpacked=False, digest="nowhere")
    containerd.ctr.fails = {"images check"}
    found = plan(containerd)
    assert len(found.carry_over) == 1


@pytest.mark.failure_mode(22)
def test_the_platform_that_is_unpacked_is_carried_over_whichever_is_named_first(
    containerd: Containerd,
) -> None:
    """Another image may have brought the other platform's manifest."""
    other = {
        "other": {"config": {"digest": "sha256:c2"}},
        "sha256:c2": {"rootfs": {"diff_ids": ["sha256:9"]}},
    }
    containerd.ctr.content |= other | {"index": {"manifests": [{"digest": "other"}, {"digest": "manifest"}]}}
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.mount("/var/lib/containerd", "/")
    assert [layers.config for layers in plan(containerd).carry_over] == [CONFIG]


def test_endless_indexes_keep_no_node_from_its_install(containerd: Containerd) -> None:
    """Indexes within indexes, each named twice: whoever may run a pod may bring such an image."""
    for depth in range(12):
        containerd.ctr.content[f"{depth}"] = {"manifests": [{"digest": f"{depth + 1}"}] * 2}
    containerd.ctr.add("example.org/app:1", "incomplete", digest="0")
    assert plan(containerd).carry_over == ()
    assert containerd.ctr.gets <= 100


def test_no_list_of_images_stops_the_install(containerd: Containerd) -> None:
    containerd.ctr.images, containerd.ctr.fails = [], {"images check"}
    with pytest.raises(InstallError, match="images check"):
        plan(containerd)


@pytest.mark.failure_mode(22)
def test_layers_of_another_snapshotter_refuse_the_switch(containerd: Containerd) -> None:
    """nydus-snapshotter#539: what cannot be carried over would be lost."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    with pytest.raises(InstallError, match="1 images exist only for the snapshotter native"):
        plan(containerd, "native")


@pytest.mark.failure_mode(9)
def test_layers_that_do_not_fit_refuse_the_switch(containerd: Containerd) -> None:
    """stargz#1349. Only the layers that are carried over count; below one mount point they are linked."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.ctr.usage[SECOND] = f"{1 << 60} 1"
    assert plan(containerd).bytes_to_copy == 0
    containerd.mount("/var/lib/containerd", "/")
    with pytest.raises(InstallError, match="has room for"):
        plan(containerd)


@pytest.mark.failure_mode(22)
def test_room_is_found_for_layers_that_cannot_be_linked(containerd: Containerd) -> None:
    """link(2): a hard link cannot cross mount points, even inside one file system."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.mount("/mnt/disk", "/var/lib/containerd", "/")
    assert plan(containerd).bytes_to_copy == 150
    containerd.mount("/mnt/disk", "/")
    for path in ("containerd", "soci-snapshotter-grpc"):
        containerd.path(f"/mnt/disk/{path}").mkdir(parents=True)
        containerd.path("/var/lib").mkdir(parents=True, exist_ok=True)
        containerd.path(f"/var/lib/{path}").symlink_to(f"/mnt/disk/{path}")
    assert plan(containerd).bytes_to_copy == 0


def test_layers_of_unknown_size_refuse_the_switch(containerd: Containerd) -> None:
    """A snapshot that vanishes makes ctr print nothing at all; that is not "nothing to copy"."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.mount("/var/lib/containerd", "/")
    del containerd.ctr.usage["sha256:1"]
    with pytest.raises(InstallError, match="how large"):
        plan(containerd)


@pytest.mark.parametrize(
    "content",
    [
        {"index": ["no", "object"]},
        {"manifest": {"config": "no object"}},
        {CONFIG: {"rootfs": None}},
        {CONFIG: {"rootfs": {"diff_ids": ["sha256:1", "../../etc"]}}},
        {CONFIG: {"rootfs": {"diff_ids": ["--help"]}}},
    ],
)
def test_image_with_odd_content_is_pulled_again_and_stops_no_install(containerd: Containerd, content) -> None:
    """Whoever may run a pod chooses what its image says."""
    containerd.ctr.add("example.org/app:1", "incomplete")
    containerd.ctr.content |= content
    assert plan(containerd).carry_over == ()


@pytest.mark.failure_mode(23)
def test_sandbox_image_without_blobs_and_registry_is_carried_over_first(containerd: Containerd) -> None:
    """amazon-eks-ami#2710, nydus-snapshotter#631: no sandbox starts without it."""
    containerd.ctr.content |= {
        "other": {"config": {"digest": "sha256:c2"}},
        "sha256:c2": {"rootfs": {"diff_ids": ["sha256:9"]}},
    }
    containerd.ctr.snapshots.append("sha256:9")
    containerd.ctr.images = []
    containerd.ctr.add("example.org/app:1", "incomplete", digest="index")
    containerd.ctr.add(PAUSE, "incomplete", digest="other")
    found = plan(containerd)
    assert [layers.config for layers in found.carry_over] == ["sha256:c2", CONFIG]


@pytest.mark.parametrize("table", [containerd_config.CRI_1, containerd_config.CRI_2])
def test_nodeadm_is_told_exactly_the_keys_that_are_written_here(table: containerd_config.Path) -> None:
    """nodeadm merges spec.containerd.config; the table's name chooses its template (gpu-operator#1651)."""
    text = nodeadm.render(table)
    config = "".join(line[6:] + "\n" for line in text.splitlines() if line.startswith("      "))
    assert containerd_config.flatten(tomllib.loads(config)) == containerd_config.wanted(
        table, maps_ids=table == containerd_config.CRI_2
    )
    assert "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\n" in text
