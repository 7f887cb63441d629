"""What the user is told when a rollout fails."""

from typing import Any

from components import failure


def node(name: str, status: str | None = None, message: str = "") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    if status:
        conditions.append({"type": "SociReady", "status": status, "message": message})
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def pod(where: str | None, ready: bool = False, **container: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    if where is None:
        conditions.append({"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"})
    return {
        "metadata": {"name": f"soci-installer-{where}", "namespace": "soci-system"},
        "spec": {"nodeName": where} if where else {},
        "status": {
            "phase": "Pending" if where is None else "Running",
            "conditions": conditions,
            "containerStatuses": [container] if container else [],
        },
    }


def test_ready_nodes_are_not_mentioned() -> None:
    assert failure.explain([node("a", "True")], [pod("a", ready=True)]) == []


def test_the_pods_last_words_are_shown_as_they_are() -> None:
    ended = {"terminated": {"message": "node a: step fetch: HTTP 404.\nRemedy: check soci:releaseUrl\n"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    expected = ["node a: step fetch: HTTP 404. Remedy: check soci:releaseUrl"]
    assert failure.explain([node("a")], [pod("a", state=ended)]) == expected
    assert failure.explain([node("a")], [pod("a", state=waiting, lastState=ended)]) == expected


def test_the_nodes_journal_stands_below_the_reason() -> None:
    message = "node a: step restart: containerd did not start. Remedy: see below\n| panic: one\n| two\n"
    ended = {"terminated": {"message": message}}
    assert failure.explain([node("a")], [pod("a", state=ended)]) == [
        "node a: step restart: containerd did not start. Remedy: see below\n    | panic: one\n    | two"
    ]


def test_the_condition_speaks_for_a_pod_that_left_no_words() -> None:
    nodes = [node("b", "False", "detect: no /dev/fuse. Remedy: another node image")]
    running = {"running": {}}
    assert failure.explain(nodes, [pod("b", state=running)]) == [
        "node b: detect: no /dev/fuse. Remedy: another node image"
    ]


def test_a_silent_node_is_told_with_the_pods_state() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    assert failure.explain([node("c")], [pod("c", state=waiting)]) == [
        "node c: its installer has said nothing; pod soci-installer-c is ImagePullBackOff (no such host). "
        "Remedy: kubectl describe pod soci-installer-c --namespace soci-system"
    ]


def test_a_pod_on_no_node_is_told_with_the_schedulers_reason() -> None:
    assert failure.explain([], [pod(None)]) == [
        "pod soci-installer-None: on no node yet: 0/2 nodes are available"
    ]


def test_lines_come_in_the_order_of_the_nodes_names() -> None:
    lines = failure.explain([node("b"), node("a")], [pod("b"), pod("a")])
    assert [line.split(":")[0] for line in lines] == ["node a", "node b"]


def test_without_a_kubeconfig_the_user_is_told_where_to_look() -> None:
    assert failure.report("", "", "soci-system") == [
        "the installer has no kubeconfig to read the nodes' reasons with; look with: "
        "kubectl describe nodes, kubectl logs "
        "--namespace soci-system --selector app.kubernetes.io/name=soci-installer --prefix"
    ]


def test_an_unreachable_cluster_does_not_hide_the_rollouts_own_error() -> None:
    def unreachable(*_: str) -> Any:
        raise ConnectionError("connection refused\nmore")

    (line,) = failure.report("kubeconfig", "", "soci-system", unreachable)
    assert line.startswith("the nodes' reasons cannot be read (connection refused); look with: kubectl")
