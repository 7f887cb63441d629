"""The line about what SOCI gained for the sample."""

import json
import threading
from typing import Any

import pytest

from components import sample_figures
from components.live_cluster import UnreadableError

CREATED = "2026-11-27T10:00:00Z"
IMAGE = "registry.example/app:1"
OWN = {"fieldPath": "spec.containers{sample}"}
OTHERS = {"fieldPath": "spec.containers{proxy}"}
PULLED = {
    "reason": "Pulled",
    "involvedObject": OWN,
    "message": f'Successfully pulled image "{IMAGE}" in 1.25s (1.3s including waiting). Image size: 9 bytes.',
}
THERE = {
    "reason": "Pulled",
    "involvedObject": OWN,
    "message": f'Container image "{IMAGE}" already present on machine',
}
LAZY = {"names": [IMAGE], "layers": 7, "lazyLayers": 6, "bytes": 293e6, "lazyBytes": 281e6, "why": ""}
WHOLE = LAZY | {"lazyLayers": 0, "lazyBytes": 0, "why": "no-index"}
MOVED = {"movedBytes": 37e6, "inBackground": False}


def pod(started: str = "2026-11-27T10:00:03Z") -> dict[str, Any]:
    return {
        "metadata": {"name": "job-x", "uid": "u", "creationTimestamp": CREATED},
        "spec": {"nodeName": "node1"},
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [
                {"name": "proxy", "state": {"terminated": {"startedAt": CREATED}}},
                {"name": "sample", "state": {"terminated": {"startedAt": started, "exitCode": 0}}},
            ],
        },
    }


@pytest.mark.parametrize(
    ("events", "image", "words"),
    [
        (
            [PULLED, THERE | {"involvedObject": OTHERS}],
            LAZY,
            "pull 1.2 s; started 3 s after its creation; 6 of 7 layers lazily loaded, 281 of 293 MB",
        ),
        (
            [{"reason": "Scheduled"}, THERE],
            WHOLE | MOVED,
            "its image was on the node already; started 3 s after its creation; "
            "0 of 7 layers lazily loaded (soci-doctor: no-index)",
        ),
        (
            [PULLED],
            LAZY | MOVED,
            "pull 1.2 s; started 3 s after its creation; "
            "6 of 7 layers lazily loaded, 281 of 293 MB; 37 MB moved",
        ),
        (
            [PULLED],
            LAZY | MOVED | {"movedBytes": 120e6, "inBackground": True},
            "pull 1.2 s; started 3 s after its creation; "
            "6 of 7 layers lazily loaded, 281 of 293 MB; 120 MB moved by now, background fetch included",
        ),
        (
            [PULLED],
            WHOLE | {"movedBytes": 293e6, "inBackground": False},
            "pull 1.2 s; started 3 s after its creation; "
            "0 of 7 layers lazily loaded (soci-doctor: no-index); 293 MB moved",
        ),
        (
            [PULLED],
            LAZY | {"movedBytes": None, "inBackground": False},
            "pull 1.2 s; started 3 s after its creation; 6 of 7 layers lazily loaded, 281 of 293 MB",
        ),
    ],
)
def test_the_line_says_what_came_of_it(
    events: list[dict[str, str]], image: dict[str, Any], words: str
) -> None:
    layers = sample_figures.layers_in_words(image, is_new=sample_figures.is_pulled(events))
    assert sample_figures.in_words(pod(), events, layers) == words


def test_the_line_says_when_the_program_was_done() -> None:
    ran = pod()
    ran["status"]["containerStatuses"][1]["state"]["terminated"]["finishedAt"] = "2026-11-27T10:00:05Z"
    words = "started 3 s after its creation, done after 5 s"
    assert sample_figures.in_words(ran, [], "") == words


def test_a_program_that_is_done_within_a_second_is_done_all_the_same() -> None:
    """The API's times have whole seconds: on a quick node nothing was said of the end."""
    ran = pod(CREATED)
    ran["status"]["containerStatuses"][1]["state"]["terminated"]["finishedAt"] = CREATED
    words = "started 0 s after its creation, done after 0 s"
    assert sample_figures.in_words(ran, [], "") == words


def test_a_node_whose_clock_is_behind_starts_no_pod_before_its_creation() -> None:
    assert sample_figures.in_words(pod("2026-11-27T09:59:58Z"), [], "") == "started 0 s after its creation"


class Cluster:
    """One with a sample that has run, and what the installer's pod of its node says."""

    def __init__(self, report: Any, pods: int = 1, installers: int = 1) -> None:
        self.report, self.pods, self.installers = report, pods, installers
        self.asked: list[tuple[str, str]] = []

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        if path.endswith("/events"):
            assert query == {"fieldSelector": "involvedObject.uid=u"}
            return [PULLED]
        if path == "/api/v1/pods":
            assert query["fieldSelector"] == "spec.nodeName=node1"
            return [{"metadata": {"name": "installer-x", "namespace": "own"}}] * self.installers
        assert (path, query) == ("/api/v1/namespaces/default/pods", {"labelSelector": "job-name=job"})
        return [pod()] * self.pods

    def run(self, namespace: str, name: str, *_: object) -> str:
        self.asked.append((namespace, name))
        if isinstance(self.report, Exception):
            raise self.report
        return self.report


def read(cluster: Cluster, image: str = IMAGE, kubeconfig: str = "{}") -> str:
    return sample_figures.read("default/job", image, kubeconfig, "", lambda *_: cluster)  # ty: ignore[invalid-argument-type]


def test_the_installers_pod_of_the_node_is_asked() -> None:
    cluster = Cluster(json.dumps({"images": [{"names": ["other:1"]}, LAZY]}))
    assert read(cluster).endswith("; 6 of 7 layers lazily loaded, 281 of 293 MB")
    assert cluster.asked == [("own", "installer-x")]


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (Cluster(UnreadableError("pods/exec is forbidden\nfor you")), "pods/exec is forbidden"),
        (Cluster("no JSON"), "the report of node1 is not readable"),
        (Cluster('{"images": 5}'), "the report of node1 is not readable"),
        (
            Cluster(json.dumps({"images": [LAZY | {"lazyBytes": None}]})),
            "the report of node1 is not readable",
        ),
        (Cluster("", installers=0), "no installer's pod is on node1"),
    ],
)
def test_what_the_node_does_not_say_is_named_beside_the_rest(cluster: Cluster, why: str) -> None:
    assert read(cluster) == f"pull 1.2 s; started 3 s after its creation; its layers are not known: {why}"


def test_whatever_cannot_be_read_fails_nothing() -> None:
    assert read(Cluster("", pods=0)) == "not known: the sample's pod is gone"
    assert read(Cluster(""), kubeconfig="") == "not known: there is no kubeconfig to read them with"

    def refuse(*_: str) -> Any:
        raise RuntimeError("the credential program failed")

    line = sample_figures.read("default/job", IMAGE, "{}", "", refuse)
    assert line == "not known: the credential program failed"


def test_an_image_that_has_left_the_node_is_said_to_have() -> None:
    assert read(Cluster('{"images": []}')).endswith("; the image has left node1")


def test_what_a_node_says_stays_one_line_of_text() -> None:
    """It is printed to terminals, and kept in the state."""
    hostile = LAZY | {"lazyLayers": 0, "why": "\x1b]0;owned\x07\n"}
    assert read(Cluster(json.dumps({"images": [hostile]}))).endswith("0 of 7 layers lazily loaded")
    line = read(Cluster(UnreadableError("\x1b[2J" + "x" * 9999)))
    assert (line.isprintable(), len(line)) == (True, sample_figures.MOST_CHARACTERS)


def test_a_cluster_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential program may wait for a person, at the end of a long `pulumi up`."""
    monkeypatch.setattr(sample_figures, "SECONDS", 0.2)
    for_ever = threading.Event()
    line = sample_figures.read("default/job", IMAGE, "{}", "", lambda *_: for_ever.wait(60))  # ty: ignore[invalid-argument-type]
    assert line == "not known: no answer in 0 s"
    for_ever.set()
