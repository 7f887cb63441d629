"""Layers whose blobs are gone from containerd's content store are carried over to soci."""

import os
from pathlib import Path

import pytest

from tests.fakes.script_node import Node, furnish_layers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

LAYERS = "sha256:config sha256:1 sha256:chain-of-two\n"
SNAPSHOTS = "var/lib/soci-snapshotter-grpc/snapshotter/snapshots"
COPIES = "var/lib/soci-snapshotter-grpc/carried-by-soci-cluster"


def with_layers(node: Node, copy_seconds: str = "0") -> Path:
    """A staged install that has an image's layers to carry over."""
    if not (node.root / "var/lib/containerd/layers").exists():
        furnish_layers(node.root, 2)
    directory = Path(node.stage(copy_seconds=copy_seconds))
    (directory / "layers").write_text(LAYERS)
    return directory


@pytest.mark.failure_mode(22)
def test_layers_are_copied_before_the_restart_and_only_moved_after_it(node: Node) -> None:
    """core-kit#580: pods that use the image are created again as soon as containerd is back."""
    directory = with_layers(node)
    (node.fake / "on-restart-containerd.service").write_text(f'ls -id "$ROOT/{COPIES}"/* >"$FAKE/copied"\n')
    assert node.apply(str(directory)).outcome == "committed"
    lower, upper = (node.root / SNAPSHOTS / f"on-{parent}/fs" for parent in ("nothing", "sha256:1"))
    copied = (node.fake / "copied").read_text().split()[::2]
    assert copied == [str(folder.stat().st_ino) for folder in (lower, upper)]
    assert lower.stat().st_mode & 0o777 == 0o750
    assert (lower / "1").read_text() == "layer 1\n"
    assert (upper / "2").read_text() == "layer 2\n"
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
    assert (node.root / COPIES).stat().st_mode & 0o777 == 0o700, (
        "what is in an image is not everybody's to run"
    )
    node.run(*(["boot"] if how == "boot" else ["rollback", "1-a"]))
    assert node.journal() == "rolled-back"
    if how == "boot":  # containerd's start does not wait for it
        assert node.apply(node.stage("2-b")).outcome == "committed"
    assert not (node.root / COPIES).exists()


@pytest.mark.failure_mode(22)
def test_image_that_has_other_layers_than_it_says_is_left_out(node: Node) -> None:
    """It could name another image's snapshot as its only layer, and bring a wrong one under that name."""
    directory = with_layers(node)
    (directory / "layers").write_text(f"sha256:c2 sha256:chain-of-two\n{LAYERS}")
    assert node.apply(str(directory)).outcome == "committed"
    assert (directory / "carried").read_text() == LAYERS
    assert (node.root / SNAPSHOTS / "on-sha256:1/fs/2").read_text() == "layer 2\n"


@pytest.mark.failure_mode(22)
def test_layer_that_was_pulled_meanwhile_is_taken_as_it_is(node: Node) -> None:
    directory = with_layers(node)
    node.set("pulled-meanwhile")
    assert node.apply(str(directory)).outcome == "committed"
    assert "carry" not in (node.fake / "snapshots-soci").read_text()


@pytest.mark.failure_mode(9)
def test_layers_that_cannot_be_linked_are_copied_only_when_that_was_planned(node: Node) -> None:
    """Else a disk could fill up for which nobody looked, and the timer end it half way."""
    directory = with_layers(node)
    node.set("no-links")
    outcome = node.apply(str(directory))
    assert (outcome.outcome, outcome.step) == ("rolled-back", "copy")
    directory = with_layers(node, copy_seconds="100")
    assert node.apply(str(directory)).outcome == "committed"
    armed = [call.split("--on-active=")[1].split()[0] for call in node.calls("systemd-run")]
    assert armed == ["400", "500", "400"], "the time for the copies is over with them"


def test_layer_with_more_links_than_can_be_doubled_is_left_out(node: Node) -> None:
    """An image's author chooses how many names a file has; ext4 allows 65,000."""
    directory = with_layers(node)
    node.set("many-links")
    assert node.apply(str(directory)).outcome == "committed"
    assert (directory / "carried").read_text() == ""
    assert not (node.root / COPIES).exists()


@pytest.mark.failure_mode(22)
@pytest.mark.parametrize("answers", [True, False])
def test_undo_deletes_snapshots_only_when_containerd_has_forgotten_them(node: Node, answers: bool) -> None:
    """kata-containers#12724: records without content stay for good, and in the way of each later pull."""
    directory = with_layers(node)
    node.set("canary-fails")
    mute = "" if answers else 'touch "$FAKE/mute"\n'
    (node.fake / "on-run").write_text(mute)
    assert node.apply(str(directory)).outcome == "rolled-back"
    assert (node.root / SNAPSHOTS / "on-nothing").exists() == (not answers)


@pytest.mark.failure_mode(22)
def test_layers_that_soci_does_not_take_undo_the_install(node: Node) -> None:
    directory = with_layers(node)
    node.set("no-room")
    outcome = node.apply(str(directory))
    assert (outcome.outcome, outcome.step) == ("rolled-back", "carry-over")
    assert "soci takes no layer" in outcome.cause
    assert not (node.root / COPIES).exists()
