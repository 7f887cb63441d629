"""Layers whose blobs are gone are linked or copied to soci's directory, before anything is changed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from agent import carry, transaction
from agent.carry import Layers
from agent.ctr import Ctr
from agent.errors import InstallError
from agent.host import Result
from agent.slots import FIRST

from tests.fakes.ctr import FakeCtr
from tests.fakes.node import FakeHost, run_below

LAYERS = Layers("sha256:config", ("sha256:1", "sha256:chain-of-two"))
COPIES = f"{FIRST.data}/{carry.COPIES}"
PREPARE = "snapshots --snapshotter overlayfs prepare --target / soci-cluster-carry-1-a"
REMOVE = "snapshots --snapshotter overlayfs rm soci-cluster-carry-1-a"


class NodeWithLayers(FakeHost):
    """A node with an image of two unpacked layers, where cp and sync really run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ctr = FakeCtr()
        self.refuses_links = ""  # what cp says instead of making them
        self.answers = {"env": self.ctr, "timeout": self._limited}
        for number in (1, 2):
            folder = self.path(f"/var/lib/containerd/layers/{number}/fs")
            folder.mkdir(parents=True)
            folder.chmod(0o750)
            (folder / str(number)).write_text(f"layer {number}\n")
        self.has_layers(2, 1)

    def has_layers(self, *numbers: int) -> None:
        """Let containerd name these, the topmost first, for whatever snapshot it is asked."""
        folders = ":".join(f"{self.root}/var/lib/containerd/layers/{number}/fs" for number in numbers)
        mount = f"mount -t overlay overlay / -o index=off,workdir=w,upperdir=u,lowerdir={folders}\n"
        self.ctr.answers = {PREPARE: mount, REMOVE: ""}

    def _limited(self, command: Sequence[str], text: str) -> Result:
        if self.refuses_links and "-al" in command:
            return Result(1, "", f"cp: cannot create hard link 'a' to 'b': {self.refuses_links}\n")
        return run_below(self.root, command)

    def carry(self, *images: Layers, bytes_to_copy: int = 0) -> list[Layers]:
        ctr = Ctr(self, "/run/containerd/containerd.sock", "/usr/bin")
        self.log: list[str] = []
        chosen = images or (LAYERS,)
        return carry.carry(ctr, FIRST, "1-a", chosen, bytes_to_copy=bytes_to_copy, log=self.log.append)

    def copied(self) -> dict[str, Path]:
        """The copies by name."""
        folder = self.path(COPIES)
        return {path.name: path for path in sorted(folder.iterdir())} if folder.exists() else {}

    def source(self, number: int) -> Path:
        return self.path(f"/var/lib/containerd/layers/{number}/fs/{number}")

    def calls(self, program: str) -> list[str]:
        return [" ".join(command) for command in self.commands if program in command]


@pytest.fixture
def host(root: Path) -> NodeWithLayers:
    return NodeWithLayers(root)


@pytest.mark.failure_mode(22)
def test_layers_are_linked_and_held_until_they_are(host: NodeWithLayers) -> None:
    """The kubelet may remove the image meanwhile; ctr's own snapshot keeps its layers."""
    assert host.carry() == [LAYERS]
    lower, upper = (host.copied()[chain] for chain in LAYERS.chains)
    assert (lower / "1").stat().st_ino == host.source(1).stat().st_ino
    assert (upper / "2").stat().st_ino == host.source(2).stat().st_ino
    assert lower.stat().st_mode & 0o777 == 0o750
    calls = [" ".join(command) for command in host.commands]
    order = [
        next(at for at, call in enumerate(calls) if word in call) for word in (PREPARE, "cp -al", REMOVE)
    ]
    assert order == sorted(order)
    assert calls[-1].endswith(f"sync -f {COPIES}")


def test_nobody_but_root_may_look_into_layers(host: NodeWithLayers) -> None:
    """containerd's CVE-2021-41103: what is in an image is not everybody's to run."""
    host.carry()
    modes = [host.path(path).stat().st_mode & 0o777 for path in (FIRST.data, COPIES)]
    assert modes == [0o711, 0o700]


def test_directory_of_the_node_keeps_its_mode(host: NodeWithLayers) -> None:
    host.path(FIRST.data).mkdir(mode=0o755)
    host.carry()
    assert host.path(FIRST.data).stat().st_mode & 0o777 == 0o755


def test_layers_that_lie_behind_a_link_are_copied_there(host: NodeWithLayers) -> None:
    """As on a node with a fast local disk."""
    host.path("/mnt/disk/soci").mkdir(parents=True)
    host.path(FIRST.data).symlink_to("/mnt/disk/soci")
    assert host.carry() == [LAYERS]
    assert host.path(f"/mnt/disk/soci/{carry.COPIES}/sha256:1/1").exists()


def test_layer_of_two_images_is_copied_once(host: NodeWithLayers) -> None:
    other = Layers("sha256:other", LAYERS.chains)
    assert host.carry(LAYERS, other) == [LAYERS, other]
    assert len(host.calls("cp")) == 2


@pytest.mark.failure_mode(22)
def test_image_that_has_other_layers_than_it_says_is_left_out(host: NodeWithLayers) -> None:
    """It could name another image's snapshot as its only layer, and bring a wrong one under that name."""
    wrong = Layers("sha256:c2", ("sha256:chain-of-two",))
    assert host.carry(wrong, LAYERS) == [LAYERS]
    assert "other layers than its image says" in host.log[0]
    assert sorted(host.copied()) == sorted(LAYERS.chains)
    assert len([call for call in host.calls("ctr") if REMOVE in call]) == 2


def test_image_that_is_gone_is_left_out(host: NodeWithLayers) -> None:
    host.ctr.answers = {}
    assert host.carry() == []
    assert host.copied() == {}


def test_layer_without_parent_is_a_bind_mount() -> None:
    assert carry.lower_folders("mount -t bind /a/fs / -o ro,rbind\n") == ["/a/fs"]
    assert carry.lower_folders("mount -t overlay o / -o lowerdir=/b:/a,upperdir=/c\n") == ["/b", "/a"]
    assert carry.lower_folders("") == []


@pytest.mark.failure_mode(9)
def test_layers_that_cannot_be_linked_are_copied_only_when_that_was_planned(host: NodeWithLayers) -> None:
    """Else a disk could fill up for which nobody looked."""
    host.refuses_links = "Invalid cross-device link"
    with pytest.raises(InstallError, match="its copy was not planned: Invalid cross-device link") as caught:
        host.carry()
    assert (caught.value.step, set(host.copied()) & set(LAYERS.chains)) == ("copy", set())
    host.path(f"{COPIES}/sha256:1.1-a").rmdir()
    assert host.carry(bytes_to_copy=100) == [LAYERS]
    copy = host.copied()["sha256:1"] / "1"
    assert copy.read_text() == "layer 1\n"
    assert copy.stat().st_ino != host.source(1).stat().st_ino


def test_layer_with_more_links_than_can_be_doubled_is_left_out(host: NodeWithLayers) -> None:
    """An image's author chooses how many names a file has; ext4 allows 65,000."""
    host.refuses_links = "Too many links"
    assert host.carry() == []
    assert "its image is pulled again" in host.log[0]
    assert host.copied() == {}


def test_copy_that_was_cut_short_is_not_taken_for_a_layer(host: NodeWithLayers) -> None:
    """Of another installer's, say: a layer has its name only once it is complete."""
    host.path(f"{COPIES}/sha256:1.0-cut").mkdir(parents=True)
    assert host.carry() == [LAYERS]
    assert (host.copied()["sha256:1"] / "1").exists()


def test_copies_end_on_the_host_when_their_time_is_over(host: NodeWithLayers) -> None:
    """To end nsenter alone would leave cp at work."""
    run = host.answers["timeout"]
    host.answers["timeout"] = lambda command, text: (
        Result(124, "", "") if "cp" in command else run(command, text)
    )
    with pytest.raises(InstallError, match="not copied in 401 seconds") as caught:
        host.carry(bytes_to_copy=150)
    assert caught.value.step == "copy"
    unit = "systemd-run --quiet --wait --pipe --collect --unit=soci-cluster-copy "
    assert host.calls("cp")[0].startswith(f"{unit}timeout -k 5 401 env LC_ALL=C cp -a ")


def test_no_copy_begins_when_the_time_is_over(host: NodeWithLayers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small layers, each of which is copied in time, may take too long together."""
    monkeypatch.setattr(carry, "LINKING_SECONDS", 0)
    with pytest.raises(InstallError, match="not copied in 0 seconds"):
        host.carry()
    assert host.calls("cp") == []


def test_time_for_copies_grows_with_their_size() -> None:
    assert [carry.seconds_for(size) - carry.LINKING_SECONDS for size in (0, 150, 25 << 20)] == [0, 1, 3]


def test_another_install_at_work_is_not_disturbed(
    host: NodeWithLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be about to delete copies; what was deleted in part must not be taken for complete."""
    monkeypatch.setattr(carry, "LOCK_SECONDS", 0)
    host.write(transaction.LOCK, b"")
    with host.locked(transaction.LOCK, 0), pytest.raises(InstallError, match="another install holds") as held:
        host.carry()
    assert held.value.step == "lock", "it says nothing against the change"
    assert host.carry() == [LAYERS]


def test_directories_that_are_made_are_remembered_first(host: NodeWithLayers) -> None:
    """An uninstall removes them, deepest first, and no other."""
    carry.remember_folders(host, "/mnt/fast/soci/data")
    assert not host.exists("/mnt/fast")
    lines = "/mnt/fast/soci/data\n/mnt/fast/soci\n/mnt/fast\n/mnt\n"
    assert host.read_text(carry.FOLDERS) == lines
    carry.remember_folders(host, "/mnt/fast/soci/data")
    assert host.read_text(carry.FOLDERS) == lines
    host.carry()
    assert host.read_text(carry.FOLDERS) == f"{lines}{FIRST.data}\n"


def test_directories_of_an_installed_node_are_known_already(host: NodeWithLayers) -> None:
    host.path(transaction.STATE).mkdir()
    host.path(f"{transaction.STATE}/current").symlink_to("txn/gone")
    carry.remember_folders(host, FIRST.data)
    assert not host.exists(carry.FOLDERS)


@pytest.mark.failure_mode(9)
def test_full_disk_is_named(host: NodeWithLayers) -> None:
    """stargz-snapshotter#1349."""
    host.refuses_links = "Invalid cross-device link"
    run = host.answers["timeout"]
    host.answers["timeout"] = lambda command, text: (
        Result(1, "", "cp: error writing 'x': No space left on device\n")
        if "--preserve=xattr" in command
        else run(command, text)
    )
    with pytest.raises(InstallError, match="No space left on device"):
        host.carry(bytes_to_copy=1)
