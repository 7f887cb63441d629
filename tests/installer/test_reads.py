"""A recording of a container's reads: found by its image, followed from its mount, ended in time."""

import json
import os
import resource
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent import reads
from agent.ctr import Ctr
from agent.errors import InstallError
from agent.host import Host, Result
from agent.reads import Output, Recording, Until, lazy_layers, root_file_systems

from tests.fakes.overlay import Overlay, overlay

IMAGE = "registry.example/team/train:1"
DIGEST = "sha256:" + "a" * 64
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay")
BARE, BARE_DIGEST = "registry.example/team/train:0", "sha256:" + "b" * 64  # without the index of its own
NAMES = f"""REF TYPE DIGEST
{IMAGE} t {DIGEST}
registry.example/team/train@{DIGEST} t {DIGEST}
{BARE} t {BARE_DIGEST}
registry.example/other:1 t sha256:{"d" * 64}
"""
CONTENT = f"""DIGEST\tSIZE\tAGE\tLABELS
{DIGEST}\t1\t1\tcontainerd.io/gc.ref.content.m.0=sha256:{"e" * 64}
sha256:{"e" * 64}\t1\t1\tcontainerd.io/gc.ref.content.config=sha256:{"c" * 64}
{BARE_DIGEST}\t1\t1\tcontainerd.io/gc.ref.content.config=sha256:{"c" * 64}
sha256:{"c" * 64}\t1\t1\t-
"""


DISCARDS = "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n"


def containerd(version: str, dump: str) -> Callable[..., Result]:
    """A node's containerd: its program says its version and its configuration."""

    def answer(command: Sequence[str], *rest: object) -> Result:
        if "--version" in command:
            return Result(0, f"containerd github.com/containerd/containerd v{version} abc\n", "")
        return Result(0, dump, "") if dump else Result(1, "", "containerd: no such file")

    return answer


def labels(container: str = "main") -> dict[str, str]:
    pod = {f"io.kubernetes.pod.{key}": value for key, value in (("namespace", "ml"), ("name", "train-0"))}
    of_container = {"io.kubernetes.container.name": container} if container else {}
    return {**pod, "io.kubernetes.pod.uid": "u1", **of_container}


class Node(Host):
    """This machine, with a containerd that knows some containers; it does not answer the first ``failures``
    questions. ``asked`` counts them."""

    def __init__(self, containers: dict[str, dict[str, Any]], failures: int = 0) -> None:
        super().__init__(Path("/"), self._answer)
        self.containers = containers
        self.failures = failures
        self.asked = 0

    def _answer(self, command: Sequence[str], *rest: object) -> Result:
        if "k8s.io" not in command:
            return containerd("2.3.7", DISCARDS)(command)
        self.asked += 1
        if self.asked <= self.failures:
            return Result(124, "", "ctr did not end in 60 s")
        words = command[command.index("k8s.io") + 1 :]
        if words[:2] == ("images", "ls"):
            return Result(0, NAMES, "")
        if words[:2] == ("content", "ls"):
            return Result(0, CONTENT, "")
        if words[2] not in self.containers:
            return Result(1, "", f'ctr: container "{words[2]}" in namespace "k8s.io": not found')
        return Result(0, json.dumps(self.containers[words[2]]), "")


def record(node: Node, until: Until, *containers: Overlay) -> list[dict[str, Any]]:
    """What is said while the containers come, and the last one reads."""
    said: list[dict[str, Any]] = []
    waits, started = threading.Event(), threading.Event()

    def say(words: dict[str, Any]) -> None:
        said.append(words)
        (waits if "waits" in words else started).set()

    recording = Recording(node, Ctr(node, "/x.sock", "/bin"), IMAGE, until, say)
    over = threading.Event()
    thread = threading.Thread(target=recording.run, args=(over.is_set,))
    thread.start()
    try:
        assert waits.wait(30)
        for container in containers:
            container.mount()
        assert started.wait(30)
        containers[-1].run(lambda: Path("/model.bin").read_bytes())
    finally:
        over.set()
        thread.join()
    return said


def waiting(
    node: Node, until: Until, *containers: Overlay, is_over: Callable[[], bool] = lambda: False
) -> None:
    """A recording that waits for a container of the image, while these are mounted."""

    def mount(words: dict[str, Any]) -> None:
        assert "waits" in words
        for container in containers:
            container.mount()

    assert not Recording(node, Ctr(node, "/x.sock", "/bin"), IMAGE, until, mount).run(is_over)


@AS_ROOT
@pytest.mark.parametrize("name", [IMAGE, f"registry.example/team/train@{DIGEST}", BARE])
def test_the_container_of_the_image_is_followed_and_no_other(name: str) -> None:
    """Its pod's sandbox and other containers have such mounts, too. containerd may call it by its digest, or
    by the name that the image had before it got an index: the recording waited for ever."""
    node = Node(
        {
            "sandbox": {"Image": "pause:3", "Labels": labels("")},
            "other": {"Image": "registry.example/other:1", "Labels": labels("side")},
            "mine": {"Image": name, "Labels": labels()},
        }
    )
    files = {"model.bin": b"x" * 5000}
    with overlay({}, "sandbox") as sandbox, overlay({}, "other") as other, overlay(files, "mine") as mine:
        said = record(node, Until(60), sandbox, other, mine)
    assert said[:2] == [{"waits": IMAGE}, {"started": {"namespace": "ml", "pod": "train-0"}}]
    found = said[2]["reads"]
    assert found["endedBy"] == "input"
    assert [(file["path"], file["size"]) for file in found["files"]] == [("/model.bin", 5000)]
    assert (found["containerd"], found["discardsUnpackedLayers"]) == ("2.3.7", True)


@AS_ROOT
def test_the_name_that_the_pod_has_is_the_images_too_where_containerd_tells_it() -> None:
    spec = {"annotations": {"io.kubernetes.cri.image-name": IMAGE}}
    node = Node({"mine": {"Image": "registry.example/other:1", "Labels": labels(), "Spec": spec}})
    with overlay({"model.bin": b"x" * 5000}, "mine") as mine:
        said = record(node, Until(60), mine)
    assert [file["path"] for file in said[2]["reads"]["files"]] == ["/model.bin"]


@AS_ROOT
@pytest.mark.parametrize("failures", [1, 3])
def test_a_container_of_which_containerd_could_not_tell_at_once_is_followed_nevertheless(
    failures: int,
) -> None:
    """What fails is the first question, or all three: for the container, the images' names, their content."""
    name = f"registry.example/team/train@{DIGEST}"
    node = Node({"mine": {"Image": name, "Labels": labels()}}, failures)
    with overlay({"model.bin": b"x" * 5000}, "mine") as mine:
        said = record(node, Until(60), mine)
    assert [file["path"] for file in said[2]["reads"]["files"]] == ["/model.bin"]


@AS_ROOT
def test_a_mount_that_could_not_be_followed_at_once_is_followed_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follows = [OSError("no memory for a mark")]

    class Short(reads.FileReads):
        def __init__(self, mount_point: str, path: str) -> None:
            if follows:
                raise follows.pop()
            super().__init__(mount_point, path)

    monkeypatch.setattr(reads, "FileReads", Short)
    node = Node({"mine": {"Image": IMAGE, "Labels": labels()}})
    with overlay({"model.bin": b"x" * 5000}, "mine") as mine:
        said = record(node, Until(60), mine)
    assert [file["path"] for file in said[2]["reads"]["files"]] == ["/model.bin"]
    assert not said[2]["reads"]["isComplete"], "its process may have been there before"


@AS_ROOT
def test_files_that_can_never_be_followed_are_no_container_that_did_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(mount_point: str, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reads, "FileReads", refuse)
    with overlay({}, "mine") as mine, pytest.raises(InstallError, match="No space left on device"):
        waiting(Node({}), Until(60, wait=1), mine)


@AS_ROOT
def test_a_container_that_is_gone_is_asked_for_once() -> None:
    node = Node({})
    with overlay({}, "left") as left:
        waiting(node, Until(60, wait=1), left)
    assert node.asked == 1


@AS_ROOT
def test_a_containerd_that_does_not_answer_keeps_the_recording_from_no_end() -> None:
    """Each question may take seconds: all of them, one after another, took longer than who waits for them."""
    node = Node({}, failures=1000)
    with overlay({}, "one") as one, overlay({}, "two") as two:
        waiting(node, Until(60), one, two, is_over=lambda: node.asked > 0)
    assert node.asked == 1


OLDER = '[plugins."io.containerd.grpc.v1.cri".containerd]\ndiscard_unpacked_layers = true\n'
KEEPS = DISCARDS.replace("true", "false")


@pytest.mark.parametrize(
    ("dump", "discards"),
    [(DISCARDS, True), (OLDER, True), (KEEPS, False), ("", None), ("no [ TOML", None)],
)
def test_the_recording_says_what_containerd_does_with_unpacked_layers(
    dump: str, discards: bool | None, tmp_path: Path
) -> None:
    found = reads.node(Host(tmp_path, containerd("1.7.35", dump)))
    assert (found["containerd"], found["discardsUnpackedLayers"]) == ("1.7.35", discards)


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_recording_says_the_nodes_architecture(
    machine: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads.os, "uname", lambda: SimpleNamespace(machine=machine))
    assert reads.node(Host(tmp_path, containerd("2.3.7", DISCARDS)))["architecture"] == name


def test_it_may_open_as_many_files_as_the_pod_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(reads.Recording, "run", lambda *given: True)
    monkeypatch.setattr(reads.transaction, "recorded_plan", lambda host: {})
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        assert reads.main([IMAGE]) == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@AS_ROOT
def test_without_a_container_it_ends_and_says_nothing() -> None:
    said: list[dict[str, Any]] = []
    node = Node({})
    recording = Recording(node, Ctr(node, "/x.sock", "/bin"), IMAGE, Until(60, wait=0.3), said.append)
    assert not recording.run()
    assert said == [{"waits": IMAGE}]


def test_a_line_is_found_once_it_is_whole(tmp_path: Path) -> None:
    host = Host(tmp_path, lambda *words: Result(127, "", ""))
    log = tmp_path / "var/log/pods/ml_train-0_u1/main/0.log"
    output = Output(host, "/var/log/pods/ml_train-0_u1/main", r"^ready in \d+")
    assert not output.has_line()
    log.parent.mkdir(parents=True)
    log.write_text("2026-11-27T05:00:00.0Z stdout F importing\n2026-11-27T05:00:01.0Z stdout F ready i")
    assert not output.has_line()
    with log.open("a") as file:
        file.write("n 4 s\n")
    assert output.has_line()


def test_a_line_of_binary_noise_is_passed(tmp_path: Path) -> None:
    host = Host(tmp_path, lambda *words: Result(127, "", ""))
    log = tmp_path / "logs/0.log"
    log.parent.mkdir()
    log.write_bytes(b"\xff" * (1 << 17) + b"\nT stdout F ready\n")
    output = Output(host, "/logs", "ready")
    assert [output.has_line() for _ in range(4)] == [False, False, True, False]


FUSE = "9 9 0:1 / /var/lib/soci-snapshotter-grpc/snapshotter/snapshots/{}/fs rw - fuse.rawBridge soci rw\n"
ROOT = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c1/rootfs"
SNAPSHOTS = "/var/lib/soci-snapshotter-grpc/snapshotter/snapshots"


@pytest.mark.parametrize(
    "options",
    [
        f"ro,lowerdir={SNAPSHOTS}/3/fs:{SNAPSHOTS}/2/fs:{SNAPSHOTS}/1/fs,upperdir=x",
        "ro,lowerdir=3/fs:2/fs:1/fs,upperdir=x",
        f"ro,lowerdir+={SNAPSHOTS}/3/fs,lowerdir+={SNAPSHOTS}/2/fs,lowerdir+={SNAPSHOTS}/1/fs,upperdir=x",
    ],
)
def test_lazily_loaded_layers_are_counted(options: str) -> None:
    mountinfo = FUSE.format(2) + FUSE.format(3) + f"9 9 0:9 / {ROOT} rw - overlay overlay {options}\n"
    assert lazy_layers(mountinfo, ROOT) == 2


def test_root_file_systems_are_those_of_the_kubelets_containers() -> None:
    other = ROOT.replace("k8s.io", "moby")
    lines = [f"9 9 0:9 / {point} rw - overlay overlay rw\n" for point in (ROOT, other, "/a/rootfs")]
    assert root_file_systems("".join(lines)) == [ROOT]
