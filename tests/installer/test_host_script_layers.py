"""Layers whose blobs are gone from containerd's content store are carried over to soci."""

import os
from pathlib import Path

import pytest
from script_node import Node, furnish_layers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

LAYERS = "sha256:config sha256:1 sha256:chain-of-two\n"
SNAPSHOTS = "var/lib/soci-snapshotter-grpc/snapshotter/snapshots"
COPIES = "var/lib/soci-snapshotter-grpc/carried-by-soci-cluster"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def with_layers(node: Node) -> Path:
    """A staged install that has an image's layers to carry over."""
    furnish_layers(node.root, 2)
    directory = Path(node.stage())
    (directory / "layers").write_text(LAYERS)
    return directory


@pytest.mark.failure_mode(22)
def test_layers_are_copied_before_the_restart_and_only_moved_after_it(node: Node) -> None:
    """core-kit#580: pods that use the image are created again as soon as containerd is back."""
    directory = with_layers(node)
    (node.fake / "on-restart-containerd.service").write_text(f'ls "$ROOT/{COPIES}" >"$FAKE/copied"\n')
    assert node.apply(str(directory)).outcome == "committed"
    assert (node.fake / "copied").read_text().split() == ["sha256:1", "sha256:chain-of-two"]
    lower = node.root / SNAPSHOTS / "on-nothing/fs"
    assert lower.stat().st_mode & 0o777 == 0o750
    assert (lower / "1").read_text() == "layer 1\n"
    assert (node.root / SNAPSHOTS / "on-sha256:1/fs/2").read_text() == "layer 2\n"
    assert (node.fake / "snapshots-soci").read_text() == (
        "sha256:1 Committed\nsha256:chain-of-two sha256:1 Committed\n"
    )
    assert not (node.root / COPIES).exists()


@pytest.mark.failure_mode(22)
@pytest.mark.parametrize("how", ["rollback", "boot"])
def test_copies_of_layers_do_not_outlive_an_install_that_is_undone(node: Node, how: str) -> None:
    """They may be many gigabytes."""
    directory = with_layers(node)
    node.cut_at("daemon-reload-daemon-reload")
    node.run("apply", str(directory))
    assert (node.root / COPIES).is_dir()
    node.run(*(["boot"] if how == "boot" else ["rollback", "1-a"]))
    assert not (node.root / COPIES).exists()
    assert node.journal() == "rolled-back"


@pytest.mark.failure_mode(22)
def test_layers_that_soci_does_not_take_undo_the_install(node: Node) -> None:
    directory = with_layers(node)
    node.set("no-room")
    outcome = node.apply(str(directory))
    assert (outcome.outcome, outcome.step) == ("rolled-back", "images")
    assert "soci takes no layer" in outcome.cause
    assert not (node.root / COPIES).exists()
