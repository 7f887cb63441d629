"""What a cluster remembers of the releases that were installed on it."""

import json
from typing import Any

import pytest

from components import release_memory
from components.live_cluster import UnreachableError
from components.ownership import Ownership
from components.release_memory import ANNOTATION, of_daemon_sets, read, refusal, text
from tests.unit.mocks import Recorder, install

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
URL = "oci://registry.example/soci"


def daemon_set(namespace: str, annotation: str | None, owner: str = "") -> dict[str, Any]:
    annotations = {ANNOTATION: annotation} if annotation is not None else {}
    annotations |= {"soci-cluster.io/owner": owner} if owner else {}
    return {"metadata": {"namespace": namespace, "name": "soci-installer", "annotations": annotations}}


class Cluster:
    """A cluster with these DaemonSets; None does not answer."""

    def __init__(self, *daemon_sets: dict[str, Any] | None) -> None:
        self.daemon_sets = daemon_sets

    def items(self, path: str, **query: str) -> Any:
        if None in self.daemon_sets:
            raise UnreachableError("https://a does not answer")
        return self.daemon_sets


def remembered(*daemon_sets: dict[str, Any] | None, owner: str = "me") -> Any:
    cluster: Any = Cluster(*daemon_sets)
    return read(cluster, "soci-system", owner)


def test_what_was_written_is_read_and_a_version_is_kept_when_another_comes() -> None:
    first = text({}, "0.16.0", {"amd64": OLD, "arm64": OTHER})
    second = text(of_daemon_sets([daemon_set("soci-system", first)]), "0.16.1", {"amd64": NEW})
    assert of_daemon_sets([daemon_set("soci-system", second)]) == {
        "0.16.0": {"amd64": OLD, "arm64": OTHER},
        "0.16.1": {"amd64": NEW},
    }
    # Nothing is read of a release when SOCI is taken off; nothing is forgotten by that either.
    assert text(json.loads(second), "0.16.1", {}) == second
    assert text({}, "0.16.1", {}) == "{}"


def test_a_digest_that_somebody_gives_is_not_remembered_and_has_what_it_contradicts_forgotten() -> None:
    """A mistyped one was, and the right one was refused afterwards."""
    assert text({}, "0.16.1", {"amd64": NEW}, are_given=True) == "{}"
    known = {"0.16.1": {"amd64": OLD, "arm64": OTHER}}
    told = text(known, "0.16.1", {"amd64": NEW, "arm64": OTHER}, are_given=True)
    assert json.loads(told) == {"0.16.1": {"arm64": OTHER}}
    assert refusal("0.16.1", URL, {"amd64": NEW, "arm64": OTHER}, json.loads(told)["0.16.1"]) is None


@pytest.mark.parametrize(
    "annotation",
    [
        None,
        "",
        "{",
        "[]",
        '{"0.16.1": []}',
        '{"0.16.1": {"amd64": 1}}',
        '{"0.16.1": {"amd64": "x"}}',
        f'{{"0.16.1": {{"riscv64": "{OLD}"}}}}',
        f'{{"junk": {{"amd64": "{OLD}"}}}}',
    ],
)
def test_rubbish_is_no_memory(annotation: str | None) -> None:
    assert of_daemon_sets([daemon_set("soci-system", annotation)]) == {}


def test_the_installer_that_this_one_takes_over_from_is_remembered_and_others_are_not() -> None:
    known = [text({}, "0.16.1", {"amd64": digest}) for digest in (OLD, NEW, OTHER)]
    predecessor, stranger = daemon_set("before", known[0], "me"), daemon_set("other", known[1], "somebody")
    own = daemon_set("soci-system", known[2], "me")
    assert remembered(own, daemon_set("before", text({}, "0.16.0", {"amd64": OLD}), "me")) == {
        "0.16.1": {"amd64": OTHER}
    }, "a DaemonSet of somebody else's may say that it is ours"
    assert remembered(stranger) == {}
    assert remembered(predecessor, stranger) == {"0.16.1": {"amd64": OLD}}
    assert remembered(own, predecessor) == {"0.16.1": {"amd64": OTHER}}
    # In the preview of a new stack the owner is not known yet.
    assert remembered(predecessor, daemon_set("older", known[0]), owner="") == {}


def test_a_cluster_that_does_not_answer_is_not_one_that_remembers_nothing() -> None:
    assert remembered(None) is None
    assert remembered() == {}


def test_another_digest_is_refused_with_both_and_how_it_is_accepted() -> None:
    told = refusal("0.16.1", URL, {"amd64": NEW, "arm64": OTHER}, {"amd64": OLD, "arm64": OTHER})
    assert told == (
        f"soci:version '0.16.1': the release at {URL} is not the one that it was: for amd64 it has sha256 "
        f"{NEW} now, and had {OLD} when it was installed on this cluster. A release does not change: find "
        "out who replaced it, and compare with upstream's .sha256sum file. Remedy: the old archive back, or "
        "another soci:releaseUrl; to accept what is there now, "
        f"pulumi config set --path soci:sha256.amd64 {NEW} && "
        f"pulumi config set --path soci:sha256.arm64 {OTHER}"
    )


@pytest.mark.parametrize(
    ("digests", "known"),
    [
        ({"amd64": OLD}, {"amd64": OLD}),
        ({"amd64": OLD, "arm64": NEW}, {"amd64": OLD}),  # this architecture has been published since
        ({"amd64": OLD}, {"amd64": OLD, "arm64": NEW}),  # and this one is gone: its nodes are refused
        ({}, {"amd64": OLD}),
        ({"amd64": OLD}, {}),
    ],
)
def test_what_is_the_same_or_new_is_accepted(digests: dict[str, str], known: dict[str, str]) -> None:
    assert refusal("0.16.1", URL, digests, known) is None


def test_the_path_is_that_of_the_annotation() -> None:
    assert f'metadata.annotations["{ANNOTATION}"]' == release_memory.PATH


@pytest.mark.parametrize("answers", [[{"0.16.0": {"amd64": OLD}}, None], [None, {"0.16.0": {"amd64": OLD}}]])
def test_the_cluster_is_asked_once_in_a_run(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch, answers: list[Any]
) -> None:
    """A second answer, of a cluster that is reached now and then, is not mixed with the first one."""
    asked = iter(answers)

    async def cluster(self: Ownership) -> object:
        return Cluster()

    async def nothing(self: Ownership, kind: str, name: str, namespace: str) -> None:
        return None

    monkeypatch.setattr(Ownership, "cluster", cluster)
    monkeypatch.setattr(Ownership, "_live", nothing)
    monkeypatch.setattr(release_memory, "read", lambda *_: next(asked))
    run(install())
    written = json.loads(recorder.inputs("soci-daemon-set")["metadata"]["annotations"][ANNOTATION])
    assert written == (answers[0] or {})
    assert list(asked) == answers[1:]
