"""Policy drain: cordon, evict within the budgets, uncordon; and what the node's condition says meanwhile."""

from typing import Any

import pytest
from agent import __main__ as program
from agent import drain, report
from agent.errors import InstallError
from agent.install import Busy, Installed
from agent.report import ApiError
from agent.settings import Settings
from agent.slots import FIRST, SECOND
from agent.users import Pod, in_words
from agent.waiting import Waiting

APP, GUARDED, AGENT, STATIC, BARE = (Pod("shop", name, f"uid-{name}") for name in ("a", "g", "d", "s", "b"))
MOUNTS = ("/run/c/1/rootfs", "/run/c/2/rootfs")


def owned_by(kind: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": "x", "controller": True}]


class Cluster:
    """One node and its pods; evictions of the pods in ``guarded`` are refused by their budget."""

    def __init__(self) -> None:
        self.unschedulable = False
        self.annotations: dict[str, str] = {}
        self.condition: dict[str, str] = {}
        self.version = 1
        self.pods: dict[str, dict[str, Any]] = {
            "a": {"ownerReferences": owned_by("ReplicaSet")},
            "g": {"ownerReferences": owned_by("StatefulSet")},
            "d": {"ownerReferences": owned_by("DaemonSet")},
            "s": {"ownerReferences": owned_by("Node"), "annotations": {drain.MIRROR: "x"}},
            "b": {},
        }
        self.guarded = {"g"}
        self.evictions: list[dict[str, Any]] = []
        self.forbidden = False

    def __call__(self, method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        if path.endswith("/nodes/n1/status"):
            self.condition = body["status"]["conditions"][0]
        elif path.endswith("/nodes/n1"):
            return self._node(method, body)
        elif path.endswith("/eviction"):
            return self._evict(path.split("/")[-2], body)
        elif not path.endswith("/events") and path.rsplit("/", maxsplit=1)[-1] not in self.pods:
            raise ApiError("gone", 404)
        return {"metadata": self.pods.get(path.rsplit("/", maxsplit=1)[-1], {})}

    def _node(self, method: str, body: Any) -> dict[str, Any]:
        if method == "PATCH":
            if body["metadata"].get("resourceVersion", str(self.version)) != str(self.version):
                raise ApiError("changed meanwhile", 409)
            self.version += 1
            if "spec" in body:
                self.unschedulable = bool(body["spec"]["unschedulable"])
            changed = self.annotations | body["metadata"].get("annotations", {})
            self.annotations = {key: value for key, value in changed.items() if value is not None}
        metadata = {"resourceVersion": str(self.version), "annotations": self.annotations}
        return {"metadata": metadata, "spec": {"unschedulable": self.unschedulable}, "status": {}}

    def _evict(self, name: str, body: Any) -> dict[str, Any]:
        if self.forbidden:
            raise ApiError("forbidden", 403)
        if name in self.guarded:
            raise ApiError("Cannot evict pod as it would violate the pod's disruption budget.", 429)
        self.evictions.append(body)
        self.pods[name]["deletionTimestamp"] = "now"
        return {}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def reporter(cluster: Cluster) -> report.Reporter:
    return report.Reporter("n1", "p1", "soci-system", "soci-installer", cluster)


def busy(*pods: Pod) -> Busy:
    return Busy({FIRST: MOUNTS}, pods)


def test_evicts_what_a_controller_makes_anew_elsewhere(cluster: Cluster, reporter: report.Reporter) -> None:
    words = drain.drain(reporter, [APP, GUARDED])
    assert words == "held back by a disruption budget: shop/g; ending: shop/a"
    assert cluster.unschedulable
    (eviction,) = cluster.evictions
    assert (eviction["apiVersion"], eviction["kind"]) == ("policy/v1", "Eviction")
    assert eviction["deleteOptions"] == {"preconditions": {"uid": "uid-a"}}, "no other pod of this name"


@pytest.mark.parametrize("pod", [AGENT, STATIC, BARE, Pod("", "container 123")], ids=str)
def test_nothing_is_disturbed_for_a_drain_that_cannot_succeed(
    cluster: Cluster, reporter: report.Reporter, pod: Pod
) -> None:
    """A pod of a DaemonSet is back on the node at once, a pod without a controller would be lost."""
    drain.cordon(reporter)
    words = drain.drain(reporter, [APP, pod])
    assert str(pod) in words
    assert "side-by-side" in words
    assert not cluster.evictions
    assert not cluster.unschedulable


def test_eviction_refused_by_a_budget_is_asked_for_again(cluster: Cluster, reporter: report.Reporter) -> None:
    assert drain.drain(reporter, [GUARDED]) == "held back by a disruption budget: shop/g"
    cluster.guarded.clear()
    assert drain.drain(reporter, [GUARDED]) == "ending: shop/g"
    assert drain.drain(reporter, [GUARDED]) == "ending: shop/g"
    assert len(cluster.evictions) == 1, "an ending pod is not evicted twice"


def test_pod_that_is_gone_is_no_error(reporter: report.Reporter) -> None:
    assert drain.drain(reporter, [Pod("shop", "gone", "u")]) == "ending: shop/gone"


def test_cordon_is_ours_to_lift(cluster: Cluster, reporter: report.Reporter) -> None:
    drain.cordon(reporter)
    assert cluster.unschedulable
    drain.cordon(reporter)
    drain.uncordon(reporter)  # also by a later pod: only the annotation is asked
    assert not cluster.unschedulable
    assert not cluster.annotations


def test_cordon_of_somebody_else_stays(cluster: Cluster, reporter: report.Reporter) -> None:
    cluster.unschedulable = True
    drain.cordon(reporter)
    drain.uncordon(reporter)
    assert cluster.unschedulable
    assert not cluster.annotations


@pytest.mark.failure_mode(29)
def test_condition_says_for_whom_an_idle_node_is_waited(cluster: Cluster, reporter: report.Reporter) -> None:
    Waiting(reporter, "when-idle", print).tell(busy(APP, GUARDED))
    assert (cluster.condition["status"], cluster.condition["reason"]) == ("False", "WaitingForIdle")
    for words in ("2 lazily loaded containers", "shop/a, shop/g", "soci:upgradePolicy"):
        assert words in cluster.condition["message"]
    assert not cluster.unschedulable
    assert not cluster.evictions


def test_wait_is_told_again_after_a_step_was_told_meanwhile(
    cluster: Cluster, reporter: report.Reporter
) -> None:
    """A reader came between the last look and the change."""
    waiting = Waiting(reporter, "when-idle", print)
    waiting.tell(busy(APP))
    reporter.step("commit")
    waiting.tell(busy(APP))
    assert cluster.condition["reason"] == "WaitingForIdle"


def test_condition_names_both_daemons_when_both_are_read_from(
    cluster: Cluster, reporter: report.Reporter
) -> None:
    waiting = Waiting(reporter, "side-by-side", print)
    waiting.tell(Busy({FIRST: MOUNTS, SECOND: ("/run/c/3/rootfs",)}, (APP,)))
    assert "3 lazily loaded containers" in cluster.condition["message"]
    assert not cluster.evictions


def test_condition_says_how_the_drain_goes(cluster: Cluster, reporter: report.Reporter) -> None:
    waiting = Waiting(reporter, "drain", print)
    waiting.tell(busy(APP, GUARDED))
    assert cluster.unschedulable
    assert (cluster.condition["status"], cluster.condition["reason"]) == ("False", "Draining")
    for words in ("ending: shop/a", "held back by a disruption budget: shop/g"):
        assert words in cluster.condition["message"]
    cluster.guarded.clear()
    waiting.tell(busy(GUARDED))
    assert "ending: shop/g" in cluster.condition["message"]


def test_missing_right_to_evict_is_told(cluster: Cluster, reporter: report.Reporter) -> None:
    cluster.forbidden = True
    with pytest.raises(InstallError, match="forbidden") as caught:
        Waiting(reporter, "drain", print).tell(busy(APP))
    assert "pulumi up" in caught.value.remedy


def test_api_server_away_is_waited_out(cluster: Cluster, reporter: report.Reporter) -> None:
    def away(method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        raise ApiError("no route")

    waiting = Waiting(reporter, "drain", print)
    reporter.call = away
    waiting.tell(busy(APP))
    reporter.call = cluster
    waiting.tell(busy(APP))
    assert cluster.evictions


SETTINGS = Settings("0.16.1", "lazy", "https://example.org", {})


def test_success_lifts_a_cordon_left_by_an_earlier_pod(cluster: Cluster, reporter: report.Reporter) -> None:
    """The installer was killed while it drained: no node stays cordoned for ever."""
    drain.cordon(reporter)
    program.succeed(reporter, SETTINGS, Installed(False, FIRST), 1.0)
    assert not cluster.unschedulable


def test_success_counts_the_containers_on_the_replaced_daemon(
    cluster: Cluster, reporter: report.Reporter
) -> None:
    program.succeed(reporter, SETTINGS, Installed(False, SECOND, replaced=FIRST, on_replaced=3), 1.0)
    assert cluster.condition["status"] == "True"
    assert cluster.condition["message"].endswith("; 3 containers still on the old daemon")


def test_many_pods_are_named_in_few_words() -> None:
    pods = [Pod("n", str(number)) for number in range(8)]
    assert in_words(pods, 2) == "n/0, n/1 and 6 more"
