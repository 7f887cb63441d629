"""A node that version 0.1 installed, under today's host script: boot, removal, and the next install.

Its manifests say `soci` and `containerd` in place of the role, and its plan knows no kind of node.
"""

import os
from pathlib import Path

import pytest

from tests.fakes.node import tree
from tests.fakes.older_node import KINDS, older_tree, write_older_tree
from tests.fakes.script_node import CONFIG, FAKES, ScriptNode

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the script gives files to root"),
    pytest.mark.failure_mode(34),
    pytest.mark.parametrize("kind", KINDS),
]


def older(node: ScriptNode, kind: str) -> ScriptNode:
    """The node as version 0.1 left it, with today's script on it, as the agent puts it there first of all."""
    for path in ("etc", "opt", "var"):
        place = node.root / path
        for entry in sorted(place.rglob("*"), reverse=True):
            entry.rmdir() if entry.is_dir() else entry.unlink()
    for part, target in (("root", node.root), ("fake", node.fake)):
        write_older_tree(target, older_tree(kind, part, node.root, node.fake, FAKES))
    node.host.write("/opt/soci-cluster/soci-host.sh", node.script, 0o755)
    (node.fake / "calls").write_text("")
    return node


def before(node: ScriptNode, kind: str) -> dict[str, bytes]:
    """The node's own files, before the first install."""
    files = older_tree(kind, "before", node.root, node.fake, FAKES)
    return {path: content for path, (mode, content) in files.items() if mode & 0o100000}


def files(root: Path) -> dict[str, bytes]:
    return {path: content for path, (mode, content) in tree(root).items() if mode & 0o100000}


def test_boot_changes_nothing(node: ScriptNode, kind: str) -> None:
    older(node, kind)
    wanted = files(node.root)
    done = node.run("boot")
    assert (done.returncode, done.stdout) == (0, "")
    assert {
        path: content for path, content in files(node.root).items() if not path.endswith("/lock")
    } == wanted


def test_boot_puts_ours_in_the_place_of_the_original(node: ScriptNode, kind: str) -> None:
    older(node, kind)
    installed = node.host.read(CONFIG)
    node.host.path(CONFIG).write_bytes(before(node, kind)[CONFIG.lstrip("/")])
    assert "was written back to the node's original" in node.run("boot").stdout
    assert node.host.read(CONFIG) == installed


def test_removal_returns_the_node_byte_for_byte(node: ScriptNode, kind: str) -> None:
    older(node, kind)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert files(node.root) == before(node, kind)
    assert node.calls("systemctl restart") == ["systemctl restart containerd.service"]


def test_removal_that_was_cut_short_goes_on_at_the_boot(node: ScriptNode, kind: str) -> None:
    older(node, kind)
    node.cut_at("daemon-reload-daemon-reload")
    node.run("remove-now")
    assert node.journal() == "restoring"
    assert node.run("boot").returncode == 0
    assert "--property=After=containerd.service" in node.calls("systemd-run")[-1]
    assert node.run("remove-now").returncode == 0
    assert files(node.root) == before(node, kind)


def test_what_a_generator_wrote_at_a_boot_is_nobodys_work(node: ScriptNode, kind: str) -> None:
    """nodeadm writes containerd's file anew; on any other node the change is somebody's."""
    older(node, kind)
    with node.host.path(CONFIG).open("ab") as file:
        file.write(b"# written anew\n")
    done = node.run("removable")
    assert done.returncode == (0 if kind == "nodeadm" else 1), done.stderr
    assert ("changed by someone" in done.stderr) == (kind != "nodeadm")


def test_the_sandbox_image_comes_out_of_the_archive_of_eks(node: ScriptNode, kind: str) -> None:
    """amazon-eks-ami#2710: the plan of version 0.1 does not name the archive."""
    older(node, kind)
    node.set("no-pause")
    node.set("no-registry")
    node.host.write("/etc/eks/pause.tar", b"tar")
    done = node.run("remove")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", ["", "canary-fails"])
def test_next_install_takes_over_or_is_rolled_back(node: ScriptNode, kind: str, fault: str) -> None:
    """After that the node still goes back to its own files."""
    older(node, kind)
    installed = files(node.root / "etc")
    staged = node.stage(
        "2-b", version="2", config=node.host.read(CONFIG) or b"", snapshotter_action="restart"
    )
    if fault:
        node.set(fault)
    outcome = node.apply(staged)
    assert outcome.outcome == ("rolled-back" if fault else "committed"), outcome
    if fault:
        assert files(node.root / "etc") == installed
        node.clear(fault)
    done = node.run("remove")
    assert done.returncode == 0, done.stderr
    assert files(node.root) == before(node, kind)
