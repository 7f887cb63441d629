"""Layers whose blobs are gone from the content store: the agent's copies become snapshots of soci."""

import os
from pathlib import Path

import pytest

from tests.fakes.script_node import ScriptNode

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root")

LAYERS = "sha256:config sha256:1 sha256:chain-of-two\n"
SNAPSHOTS = "var/lib/soci-snapshotter-grpc/snapshotter/snapshots"
COPIES = "var/lib/soci-snapshotter-grpc/carried-by-soci-cluster"


def with_copies(node: ScriptNode, name: str = "1-a") -> Path:
    """A staged install that has an image's layers to carry over, as the agent leaves them."""
    for number, chain in enumerate(LAYERS.split()[1:], 1):
        folder = node.root / COPIES / chain
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o750)
        (folder / str(number)).write_text(f"layer {number}\n")
    directory = Path(node.stage(name))
    (directory / "carried").write_text(LAYERS)
    return directory


@pytest.mark.failure_mode(22)
def test_copies_are_only_moved_after_the_restart(node: ScriptNode) -> None:
    """core-kit#580: pods that use the image are created again as soon as containerd is back."""
    directory = with_copies(node)
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
def test_copies_of_layers_do_not_outlive_a_rollback(node: ScriptNode, how: str) -> None:
    """They may be many gigabytes."""
    directory = with_copies(node)
    node.cut_at("daemon-reload-daemon-reload")
    node.run("apply", str(directory))
    assert (node.root / COPIES).exists()
    node.run(*(["boot"] if how == "boot" else ["rollback", "1-a"]))
    assert node.journal() == "rolled-back"
    if how == "boot":  # containerd's start does not wait for it
        assert node.run("clear-copies").returncode == 0
    assert not (node.root / COPIES).exists()


@pytest.mark.failure_mode(37)
def test_copies_that_another_installer_cleared_stop_the_install_with_nothing_changed(
    node: ScriptNode,
) -> None:
    directory = with_copies(node)
    (node.root / COPIES / "sha256:chain-of-two/2").unlink()
    (node.root / COPIES / "sha256:chain-of-two").rmdir()
    before = node.etc()
    outcome = node.apply(str(directory))
    assert (outcome.outcome, outcome.step, outcome.containerd_restarts) == ("unchanged", "lock", 0)
    assert outcome.cause == "the copy of the layer sha256:chain-of-two of sha256:config is gone"
    assert node.etc() == before


def test_copies_that_are_deleted_in_part_are_no_copies(node: ScriptNode) -> None:
    """Another installer's deletion was killed half way: the layer would be carried over without its files."""
    directory = with_copies(node)
    (node.fake / "on-rm").write_text('/bin/rm "$2"/*/2 && kill -KILL $PPID && exit\n')
    node.run("clear-copies")
    assert node.apply(str(directory)).outcome == "unchanged"
    (node.fake / "on-rm").unlink()
    assert node.run("clear-copies").returncode == 0
    assert list((node.root / COPIES).parent.iterdir()) == []


@pytest.mark.parametrize("state", ["armed", "restarting"])
def test_copies_of_an_install_at_work_are_not_cleared(node: ScriptNode, state: str) -> None:
    """Another installer starts meanwhile; the transaction is about to move them."""
    node.install()
    with_copies(node, "2-b")
    journal = node.host.path("/var/lib/soci-cluster/journal")
    journal.write_text(journal.read_text().replace("state=committed", f"state={state}"))
    assert node.run("clear-copies").returncode == 0
    assert (node.root / COPIES / "sha256:1/1").exists()


@pytest.mark.failure_mode(22)
def test_layer_that_was_pulled_meanwhile_is_taken_as_it_is(node: ScriptNode) -> None:
    directory = with_copies(node)
    node.set("pulled-meanwhile")
    assert node.apply(str(directory)).outcome == "committed"
    assert "carry" not in (node.fake / "snapshots-soci").read_text()


@pytest.mark.failure_mode(22)
@pytest.mark.parametrize("answers", [True, False])
def test_rollback_deletes_snapshots_only_when_containerd_has_forgotten_them(
    node: ScriptNode, answers: bool
) -> None:
    """kata-containers#12724: records without content stay for good, and in the way of each later pull."""
    directory = with_copies(node)
    node.set("canary-fails")
    mute = "" if answers else 'touch "$FAKE/mute"\n'
    (node.fake / "on-run").write_text(mute)
    # As the agent records it before it makes the directory.
    node.host.write("/var/lib/soci-cluster/originals/folders", b"/var/lib/soci-snapshotter-grpc\n")
    assert node.apply(str(directory)).outcome == "rolled-back"
    assert (node.root / SNAPSHOTS / "on-nothing").exists() == (not answers)


@pytest.mark.failure_mode(22)
def test_layers_that_soci_does_not_take_roll_the_install_back(node: ScriptNode) -> None:
    directory = with_copies(node)
    node.set("no-room")
    outcome = node.apply(str(directory))
    assert (outcome.outcome, outcome.step) == ("rolled-back", "carry-over")
    assert "soci takes no layer" in outcome.cause
    assert not (node.root / COPIES).exists()


def test_directory_that_the_agent_made_for_copies_goes_with_the_uninstall(node: ScriptNode) -> None:
    """It is there before the script looks which directories are there."""
    node.host.write("/var/lib/soci-cluster/originals/folders", b"/var/lib/soci-snapshotter-grpc\n")
    assert node.apply(str(with_copies(node))).outcome == "committed"
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert not (node.root / "var/lib/soci-snapshotter-grpc").exists()


@pytest.mark.failure_mode(41)
def test_an_install_lets_containerd_forget_the_layers_of_a_store_that_is_gone(node: ScriptNode) -> None:
    """Of an earlier install, or of a disk that was wiped: every pull of such a layer failed."""
    label = "containerd.io/gc.ref.snapshot.soci=sha256:2"
    (node.fake / "content").write_text(f"sha256:c0f1 1kB 1min containerd.io/distribution=x,{label}\n")
    (node.fake / "records-soci").write_text("sha256:1\nsha256:2 sha256:1\nended sha256:2\n")
    (node.fake / "containers").write_text("ended soci\n")
    assert node.apply(node.stage()).outcome == "committed"
    assert (node.fake / "records-soci").read_text() == ""
    assert label not in (node.fake / "content").read_text()
