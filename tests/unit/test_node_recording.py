"""A recording by kubectl: a program in its place plays the cluster."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from soci_index import advise, node_recording, recorded_reads
from soci_index.errors import SociIndexError
from soci_index.node_recording import Cluster, Wanted, record

IMAGE = "registry.example/team/train:1"
READS = {
    "endedBy": "input",
    "seconds": 2.5,
    "isComplete": True,
    "lazyLayers": 3,
    "cores": 2,
    "architecture": "arm64",
    "containerd": "2.1.9",
    "discardsUnpackedLayers": True,
    "files": [{"path": "/a", "size": 10, "milliseconds": 5, "ranges": [[0, 10]]}],
}
# Plays kubectl, and in `exec` the installer's pod: it says what is in a file.
KUBECTL = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
words = sys.argv[2:]  # behind --context
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(words) + "\\n")
if words[:2] == ["get", "pods"]:
    print((here / "pods.json").read_text())
elif words[:2] == ["get", "pod"]:
    states = here / "states.json"
    if states.exists():
        first, *rest = json.loads(states.read_text())
        if rest:
            states.write_text(json.dumps(rest))
        print(json.dumps({"status": first}))
        sys.exit()
    once = here / "once"
    if once.exists():
        text = once.read_text()
        once.unlink()
        sys.exit(text)
    print((here / "pod.json").read_text())
elif words[0] == "create":
    (here / "created").write_text(sys.stdin.read())
elif words[0] == "exec":
    print("a line that is no JSON")
    for line in (here / "says").read_text().splitlines():
        if line == "wait for the end of standard input":
            sys.stdin.read()
        elif line.startswith("fail "):
            print(line.removeprefix("fail "), file=sys.stderr)
            print("command terminated with exit code 1", file=sys.stderr)
            sys.exit(1)
        else:
            print(line, flush=True)
"""


class FakeCluster:
    """A cluster of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "kubectl"
        program.write_text(KUBECTL.replace("{python}", sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        self.cluster = Cluster((str(program), "--context=x"), "soci-system", "ml")
        pod = {"metadata": {"name": "soci-installer-1"}, "spec": {"nodeName": "node1"}}
        leaving = {"metadata": {"name": "old", "deletionTimestamp": "t"}, "spec": {"nodeName": "node1"}}
        self.put("pods.json", {"items": [leaving, pod]})
        self.be_ready(True)
        self.say({"waits": IMAGE}, {"started": {"namespace": "ml", "pod": "p"}}, {"reads": READS})

    def put(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content))

    def be_ready(self, is_ready: bool) -> None:
        self.put(
            "pod.json",
            {"status": {"conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}]}},
        )

    def say(self, *lines: dict[str, Any] | str) -> None:
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.folder / "says").write_text("\n".join(text) + "\n")

    def be_in(self, *states: dict[str, Any]) -> None:
        """What the pod is in, for one question each, and in the last one from then on."""
        self.put("states.json", states)

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


def test_the_pod_of_the_node_records_until_the_pod_is_ready(fake: FakeCluster) -> None:
    fake.say(
        {"waits": IMAGE},
        {"started": {"namespace": "ml", "pod": "p"}},
        "wait for the end of standard input",
        {"reads": READS},
    )
    said: list[str] = []
    found = recorded_reads.parse(record(fake.cluster, Wanted(IMAGE, "node1", 9, wait=8), said.append))
    assert [file.path for file in found.files] == ["/a"]
    assert (found.cores, found.lazy_layers, found.ended_by) == (2, 3, "input")
    assert (found.architecture, found.containerd, found.discards) == ("arm64", (2, 1, 9), True)
    assert said == [f"waiting for a container of {IMAGE} on node1", "pod ml/p has started"]
    (run,) = [words for words in fake.asked() if words[0] == "exec"]
    assert run[2:5] == ["--namespace", "soci-system", "soci-installer-1"]
    assert run[-7:] == [IMAGE, "--seconds", "9", "--wait", "8", "--line", ""]


def test_with_a_line_nobody_asks_whether_the_pod_is_ready(fake: FakeCluster) -> None:
    record(fake.cluster, Wanted(IMAGE, "node1", line="ready"))
    assert ["get", "pod"] not in [words[:2] for words in fake.asked()]


def test_one_question_without_an_answer_does_not_end_the_recording(fake: FakeCluster) -> None:
    fake.say(
        {"waits": IMAGE},
        {"started": {"namespace": "ml", "pod": "p"}},
        "wait for the end of standard input",
        {"reads": READS},
    )
    (fake.folder / "once").write_text("the server is currently unable to handle the request")
    record(fake.cluster, Wanted(IMAGE, "node1"))
    assert len([words for words in fake.asked() if words[:2] == ["get", "pod"]]) == 2


def test_a_pod_that_is_gone_ends_the_recording(fake: FakeCluster) -> None:
    fake.say(
        {"waits": IMAGE},
        {"started": {"namespace": "ml", "pod": "p"}},
        "wait for the end of standard input",
        {"reads": READS},
    )
    (fake.folder / "pod.json").write_text("")
    record(fake.cluster, Wanted(IMAGE, "node1"))
    [asked] = [words for words in fake.asked() if words[:2] == ["get", "pod"]]
    assert "--ignore-not-found" in asked


def arguments(fake: FakeCluster, *words: str) -> list[str]:
    kubectl = ("--kubectl", str(fake.folder / "kubectl"), "--context", "x")
    return ["--node", "node1", *kubectl, "--namespace", "ml", *words]


def test_the_name_is_the_one_that_containerd_has(fake: FakeCluster, tmp_path: Path) -> None:
    """Of what a pod calls nginx:1.27, containerd's container says docker.io/library/nginx:1.27."""
    words = arguments(fake, "nginx:1.27", "--cache", str(tmp_path / "cache"), "--oras", "/nowhere/oras")
    assert advise.main(words) == 1
    (run,) = [words for words in fake.asked() if words[0] == "exec"]
    assert "docker.io/library/nginx:1.27" in run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pod_is_deleted_when_the_command_is_ended(fake: FakeCluster, number: signal.Signals) -> None:
    fake.say(
        {"waits": IMAGE}, {"started": {"namespace": "ml", "pod": "p"}}, "wait for the end of standard input"
    )
    command = [sys.executable, "-B", "-m", "soci_index", "advise"]
    process = subprocess.Popen(
        [*command, *arguments(fake, IMAGE, "--run", "--until", "never")],
        env={**os.environ, "PYTHONPATH": str(Path(advise.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert any("has started" in line for line in process.stderr)
    process.send_signal(number)
    assert process.wait(30) == 130
    made = json.loads((fake.folder / "created").read_text())
    assert [made["metadata"]["name"] in words for words in fake.asked() if words[0] == "delete"] == [True]


def test_a_pod_ends_by_itself_when_nobody_deletes_it(fake: FakeCluster) -> None:
    record(fake.cluster, Wanted(IMAGE, "node1", 9.5, wait=8, run=True))
    made = json.loads((fake.folder / "created").read_text())
    assert made["spec"]["activeDeadlineSeconds"] >= 18


def test_the_pod_has_the_command_that_is_given(fake: FakeCluster) -> None:
    record(fake.cluster, Wanted(IMAGE, "node1", 9.5, wait=8, run=True, command=("sh", "-c", "true")))
    (container,) = json.loads((fake.folder / "created").read_text())["spec"]["containers"]
    assert container["command"] == ["sh", "-c", "true"]


def test_what_follows_the_dashes_is_the_pods_command(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = advise.parse([IMAGE, "--node", "n", "--run", "--", "sh", "-c", "x", "--", "--node"])
    assert (parsed.image, parsed.node, parsed.command) == (IMAGE, "n", ["sh", "-c", "x", "--", "--node"])
    for words in ([IMAGE, "--node", "n", "--", "sh"], [IMAGE, "--node", "n", "--run", "--"]):
        with pytest.raises(SystemExit):
            advise.parse(words)
        assert "a command is for the pod of --run" in capsys.readouterr().err


def test_a_pod_is_made_once_the_node_looks_and_deleted_whatever_happens(fake: FakeCluster) -> None:
    fake.say({"waits": IMAGE}, {"problem": "no container of it was started here. Remedy: start one"})
    with pytest.raises(SociIndexError, match=r"no container of it was started here. Remedy: start one"):
        record(fake.cluster, Wanted(IMAGE, "node1", run=True))
    made = json.loads((fake.folder / "created").read_text())
    assert made["spec"]["nodeName"] == "node1"
    assert made["spec"]["containers"] == [{"name": "image", "image": IMAGE}]
    assert [words[0] for words in fake.asked()] == ["get", "exec", "create", "delete"]
    assert made["metadata"]["name"] in fake.asked()[-1]


def waits(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "image", "state": state}]}


def refused(fake: FakeCluster, *states: dict[str, Any]) -> str:
    """What is said of a pod that is in these states, and never starts."""
    fake.say({"waits": IMAGE}, "wait for the end of standard input")
    fake.be_in(*states)
    with pytest.raises(SociIndexError) as found:
        record(fake.cluster, Wanted(IMAGE, "node1", 1, wait=2, run=True))
    assert [words[0] for words in fake.asked()][-1] == "delete"
    return str(found.value)


NOT_FOUND = 'failed to resolve reference "registry.example/team/train:1": not found'


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (
            [waits("InvalidImageName", "couldn't parse image name")],
            "InvalidImageName: couldn't parse image name. Remedy: see to the image's name",
        ),
        (
            [
                waits("ContainerCreating"),
                waits("CreateContainerConfigError", "runAsNonRoot and image runs as root"),
            ],
            "ConfigError: runAsNonRoot and image runs as root. Remedy: see to the image's user",
        ),
        (
            [waits("ErrImagePull", "timeout"), waits("ImagePullBackOff"), waits("ErrImagePull", NOT_FOUND)],
            f"ErrImagePull: {NOT_FOUND}. Remedy: see to the image's name; a private one needs "
            "--image-pull-secret, a secret of ml",
        ),
        (
            [{"phase": "Failed", "reason": "OutOfpods", "message": "Node didn't have enough resource: pods"}],
            "the kubelet refuses the pod: OutOfpods: Node didn't have enough resource: pods. Remedy",
        ),
    ],
)
def test_a_pod_that_will_not_start_ends_the_wait_with_the_kubelets_words(
    fake: FakeCluster, states: list[dict[str, Any]], said: str
) -> None:
    assert said in refused(fake, *states)


def test_what_the_kubelet_tries_again_may_still_come() -> None:
    slow = waits("CreateContainerError", "context deadline exceeded")
    assert node_recording.why_stuck(slow, ["CreateContainerError"], "ml") is None
    failed = waits("ErrImagePull", "timeout")
    assert node_recording.why_stuck(failed, ["ContainerCreating", "ErrImagePull"], "ml") is None
    again = waits("ImagePullBackOff", "Back-off pulling image")
    assert node_recording.why_stuck(again, ["ErrImagePull", "ImagePullBackOff"], "ml") is None


def test_the_pod_has_the_pull_secrets_that_are_given(
    fake: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = ("--image-pull-secret", "one", "--image-pull-secret", "two")
    rest = ("--cache", str(tmp_path / "cache"), "--oras", "/nowhere/oras")
    advise.main(arguments(fake, IMAGE, "--run", *secrets, *rest))
    spec = json.loads((fake.folder / "created").read_text())["spec"]
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    with pytest.raises(SystemExit):
        advise.parse(arguments(fake, IMAGE, *secrets))
    assert "--image-pull-secret is for the pod of --run" in capsys.readouterr().err


def test_a_node_without_the_installer_is_named(fake: FakeCluster) -> None:
    with pytest.raises(SociIndexError, match=r"no installer's pod of namespace soci-system is on node other"):
        record(fake.cluster, Wanted(IMAGE, "other"))


def test_an_older_installer_says_so_itself(fake: FakeCluster) -> None:
    fake.say("fail this installer is older. Remedy: pulumi up")
    with pytest.raises(SociIndexError, match=r"^this installer is older. Remedy: pulumi up$"):
        record(fake.cluster, Wanted(IMAGE, "node1"))


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "reads.json"
    with pytest.raises(SociIndexError, match=r"reads.json cannot be read"):
        recorded_reads.load(kept)
    kept.write_text('{"files": [{"path": "/a"}]}')
    with pytest.raises(SociIndexError, match=r"this is no recording of reads"):
        recorded_reads.load(kept)
    kept.write_text(json.dumps(READS))
    assert recorded_reads.load(kept).files[0].bytes == 10


def test_an_older_recording_says_less_of_its_node() -> None:
    older = {key: READS[key] for key in ("endedBy", "seconds", "isComplete", "lazyLayers", "files")}
    found = recorded_reads.parse(older)
    assert (found.cores, found.architecture, found.containerd, found.discards) == (0, "", (), None)
