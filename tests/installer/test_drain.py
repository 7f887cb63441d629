"""Policy drain: cordon, evict within the budgets, uncordon; and what the node's condition says meanwhile."""

from typing import Any

import pytest
from agent import drain
from agent.api import Api
from agent.errors import InstallError
from agent.install import Installed
from agent.lazy import Busy, Pod, in_words
from agent.log import Log
from agent.marks import Marks
from agent.slots import FIRST, SECOND
from agent.tell import Teller, Waiting

from tests.fakes.api import FakeApi

APP, GUARDED, AGENT, STATIC, BARE = (Pod("shop", name, f"uid-{name}") for name in ("a", "g", "d", "s", "b"))
MOUNTS = ("/run/c/1/rootfs", "/run/c/2/rootfs")


def owned_by(kind: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"ownerReferences": [{"kind": kind, "name": "x", "controller": True}], **metadata}}


def cluster_of_one_node() -> FakeApi:
    """A node and its pods, one of which its budget holds back."""
    api = FakeApi()
    api.pods = {
        "a": owned_by("ReplicaSet"),
        "g": owned_by("StatefulSet"),
        "d": owned_by("DaemonSet"),
        "s": owned_by("Node", annotations={drain.MIRROR: "x"}),
        "b": {"metadata": {}},
    }
    api.guarded = {"g"}
    return api


@pytest.fixture
def cluster() -> FakeApi:
    return cluster_of_one_node()


@pytest.fixture
def api(cluster: FakeApi) -> Api:
    return Api("n1", "p1", "soci-system", "soci-installer", cluster)


@pytest.fixture
def marks(api: Api) -> Marks:
    return Marks(api)


def teller(api: Api, marks: Marks) -> Teller:
    return Teller(api, marks, Log("n1", lambda line: None))


def busy(*pods: Pod) -> Busy:
    return Busy({FIRST: MOUNTS}, pods)


def test_evicts_what_a_controller_makes_anew_elsewhere(cluster: FakeApi, api: Api, marks: Marks) -> None:
    words = drain.drain(api, marks, [APP, GUARDED])
    assert words == "held back by a disruption budget: shop/g; ending: shop/a"
    assert cluster.unschedulable
    (eviction,) = cluster.evictions
    assert (eviction["apiVersion"], eviction["kind"]) == ("policy/v1", "Eviction")
    assert eviction["deleteOptions"] == {"preconditions": {"uid": "uid-a"}}, "no other pod of this name"


@pytest.mark.parametrize("pod", [AGENT, STATIC, BARE, Pod("", "container 123")], ids=str)
def test_nothing_is_disturbed_for_a_drain_that_cannot_succeed(
    cluster: FakeApi, api: Api, marks: Marks, pod: Pod
) -> None:
    """A pod of a DaemonSet is back on the node at once, a pod without a controller would be lost."""
    marks.cordon()
    words = drain.drain(api, marks, [APP, pod])
    assert str(pod) in words
    assert "side-by-side" in words
    assert not cluster.evictions
    assert not cluster.unschedulable


def test_eviction_refused_by_a_budget_is_asked_for_again(cluster: FakeApi, api: Api, marks: Marks) -> None:
    assert drain.drain(api, marks, [GUARDED]) == "held back by a disruption budget: shop/g"
    cluster.guarded.clear()
    assert drain.drain(api, marks, [GUARDED]) == "ending: shop/g"
    assert drain.drain(api, marks, [GUARDED]) == "ending: shop/g"
    assert len(cluster.evictions) == 1, "an ending pod is not evicted twice"


def test_pod_that_is_gone_is_no_error(api: Api, marks: Marks) -> None:
    assert drain.drain(api, marks, [Pod("shop", "gone", "u")]) == "ending: shop/gone"


def test_cordon_is_ours_to_lift(cluster: FakeApi, marks: Marks) -> None:
    marks.cordon()
    assert cluster.unschedulable
    marks.cordon()
    marks.uncordon()  # also by a later pod: only the annotation is asked
    assert not cluster.unschedulable
    assert not cluster.annotations


def test_cordon_of_somebody_else_stays(cluster: FakeApi, marks: Marks) -> None:
    cluster.node["spec"]["unschedulable"] = True
    marks.cordon()
    marks.uncordon()
    assert cluster.unschedulable
    assert not cluster.annotations


@pytest.mark.failure_mode(29)
def test_condition_says_for_whom_an_idle_node_is_waited(cluster: FakeApi, api: Api, marks: Marks) -> None:
    Waiting(api, marks, "when-idle", print).tell(busy(APP, GUARDED))
    assert (cluster.condition["status"], cluster.condition["reason"]) == ("False", "WaitingForIdle")
    for words in ("2 lazily loaded containers", "shop/a, shop/g", "soci:upgradePolicy"):
        assert words in cluster.condition["message"]
    assert not cluster.unschedulable
    assert not cluster.evictions


def test_wait_is_told_again_after_a_step_was_told_meanwhile(cluster: FakeApi, api: Api, marks: Marks) -> None:
    """A reader came between the last look and the change."""
    waiting = Waiting(api, marks, "when-idle", print)
    waiting.tell(busy(APP))
    teller(api, marks).step("commit")
    waiting.tell(busy(APP))
    assert cluster.condition["reason"] == "WaitingForIdle"


def test_condition_names_both_daemons_when_both_are_read_from(
    cluster: FakeApi, api: Api, marks: Marks
) -> None:
    waiting = Waiting(api, marks, "side-by-side", print)
    waiting.tell(Busy({FIRST: MOUNTS, SECOND: ("/run/c/3/rootfs",)}, (APP,)))
    assert "3 lazily loaded containers" in cluster.condition["message"]
    assert not cluster.evictions


def test_condition_says_how_the_drain_goes(cluster: FakeApi, api: Api, marks: Marks) -> None:
    waiting = Waiting(api, marks, "drain", print)
    waiting.tell(busy(APP, GUARDED))
    assert cluster.unschedulable
    assert (cluster.condition["status"], cluster.condition["reason"]) == ("False", "Draining")
    for words in ("ending: shop/a", "held back by a disruption budget: shop/g"):
        assert words in cluster.condition["message"]
    cluster.guarded.clear()
    waiting.tell(busy(GUARDED))
    assert "ending: shop/g" in cluster.condition["message"]


def test_missing_right_to_evict_is_told(cluster: FakeApi, api: Api, marks: Marks) -> None:
    cluster.errors = {"/eviction": 403}
    with pytest.raises(InstallError, match="forbidden") as caught:
        Waiting(api, marks, "drain", print).tell(busy(APP))
    assert "pulumi up" in caught.value.remedy


def test_api_server_away_is_waited_out(cluster: FakeApi, api: Api, marks: Marks) -> None:
    waiting = Waiting(api, marks, "drain", print)
    cluster.errors = {"/": 0}
    waiting.tell(busy(APP))
    cluster.errors = {}
    waiting.tell(busy(APP))
    assert cluster.evictions


def test_success_lifts_a_cordon_left_by_an_earlier_pod(cluster: FakeApi, api: Api, marks: Marks) -> None:
    """The installer was killed while it drained: no node stays cordoned for ever."""
    marks.cordon()
    teller(api, marks).success("0.16.1", "lazy", Installed(False, FIRST), 1.0)
    assert not cluster.unschedulable


def test_success_counts_the_containers_on_the_replaced_daemon(
    cluster: FakeApi, api: Api, marks: Marks
) -> None:
    teller(api, marks).success("0.16.1", "lazy", Installed(False, SECOND, replaced=FIRST, on_replaced=3), 1.0)
    assert cluster.condition["status"] == "True"
    assert cluster.condition["message"].endswith("; 3 containers still on the old daemon")


def test_many_pods_are_named_in_few_words() -> None:
    pods = [Pod("n", str(number)) for number in range(8)]
    assert in_words(pods, 2) == "n/0, n/1 and 6 more"
