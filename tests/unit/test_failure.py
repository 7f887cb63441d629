"""What the user is told when a rollout or the sample fails."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from components import failure
from components.live_cluster import UnreachableError

ROLLOUT = failure.Rollout("soci-system", "0.16.1", False, "1", 600)
SAMPLE = failure.Job(failure.SAMPLE, "default", "sample-job-1", 600)


def daemon_set(wanted: int = 0, template: str = "2") -> dict[str, Any]:
    return {
        "metadata": {"annotations": {"deprecated.daemonset.template.generation": template}},
        "status": {"desiredNumberScheduled": wanted},
    }


def explain(nodes: list[Any], pods: list[Any], wanted: int = 0, **rollout: Any) -> list[str]:
    """The lines of a rollout; without those wanted, the DaemonSet is not looked at."""
    found = failure.Found(nodes, pods, daemon_set(wanted) if wanted else None)
    return failure.explain(replace(ROLLOUT, **rollout), found)


def node(name: str, status: str | None = None, message: str = "") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    if status:
        conditions.append({"type": "SociReady", "status": status, "message": message})
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def pod(where: str | None, ready: bool = False, template: str = "2", **container: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    if where is None:
        conditions.append({"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"})
    return {
        "metadata": {
            "name": f"soci-installer-{where}",
            "namespace": "soci-system",
            "labels": {"pod-template-generation": template},
        },
        "spec": {"nodeName": where} if where else {},
        "status": {
            "phase": "Pending" if where is None else "Running",
            "conditions": conditions,
            "containerStatuses": [container] if container else [],
        },
    }


def told(nodes: list[Any], pods: list[Any]) -> list[str]:
    """The lines about nodes, without the count at the end."""
    return [line for line in explain(nodes, pods) if " nodes have SOCI " not in line]


def test_ready_nodes_are_not_mentioned() -> None:
    assert told([node("a", "True")], [pod("a", ready=True)]) == []


def test_the_pods_last_words_are_shown_as_they_are() -> None:
    ended = {"terminated": {"message": "node a: step fetch: HTTP 404.\nRemedy: check soci:releaseUrl\n"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    expected = ["node a: step fetch: HTTP 404. Remedy: check soci:releaseUrl"]
    assert told([node("a")], [pod("a", state=ended)]) == expected
    assert told([node("a")], [pod("a", state=waiting, lastState=ended)]) == expected


def test_the_container_beside_the_installer_does_not_speak_for_it() -> None:
    """The API has the states by the containers' names."""
    ended = {"terminated": {"message": "node a: step fetch: HTTP 404. Remedy: check soci:releaseUrl"}}
    installer = {
        "name": "installer",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": ended,
    }
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "message": "of no interest"}}
    beside = {"name": "credentials", "state": {"waiting": {"reason": "Odd"}}, "lastState": killed}
    troubled = pod("a")
    troubled["status"]["containerStatuses"] = [beside, installer]
    assert told([node("a")], [troubled]) == ["node a: step fetch: HTTP 404. Remedy: check soci:releaseUrl"]
    troubled["status"]["containerStatuses"] = [beside, installer | {"lastState": {}}]
    (line,) = told([node("a")], [troubled])
    assert "is CrashLoopBackOff" in line


def test_the_nodes_journal_stands_below_the_reason() -> None:
    message = "node a: step restart: containerd did not start. Remedy: see below\n| panic: one\n| two\n"
    ended = {"terminated": {"message": message}}
    assert told([node("a")], [pod("a", state=ended)]) == [
        "node a: step restart: containerd did not start. Remedy: see below\n    | panic: one\n    | two"
    ]


def test_the_condition_speaks_for_a_pod_that_left_no_words() -> None:
    nodes = [node("b", "False", "detect: no /dev/fuse. Remedy: another node image")]
    running = {"running": {}}
    assert told(nodes, [pod("b", state=running)]) == [
        "node b: detect: no /dev/fuse. Remedy: another node image"
    ]


def test_a_silent_node_is_told_with_the_pods_state() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    assert told([node("c")], [pod("c", state=waiting)]) == [
        "node c: its installer has said nothing; pod soci-installer-c is ImagePullBackOff (no such host). "
        "Remedy: check soci:installerImage, and that the nodes can pull it; "
        "kubectl describe pod soci-installer-c --namespace soci-system"
    ]


def test_a_pod_on_no_node_is_told_with_the_schedulers_reason() -> None:
    assert told([], [pod(None)]) == ["pod soci-installer-None: on no node yet: 0/2 nodes are available"]


def test_lines_come_in_the_order_of_the_nodes_names() -> None:
    lines = told([node("b"), node("a")], [pod("b"), pod("a")])
    assert [line.split(":")[0] for line in lines] == ["node a", "node b"]


def test_a_silent_node_whose_image_is_there_is_to_be_looked_at() -> None:
    (line,) = told([node("a")], [pod("a", state={"waiting": {"reason": "CrashLoopBackOff"}})])
    assert line.endswith("Remedy: kubectl describe pod soci-installer-a --namespace soci-system")


def dead(name: str) -> dict[str, Any]:
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": "2026-11-26T10:00:00Z",
    }
    return {"metadata": {"name": name}, "status": {"conditions": [ready]}}


@pytest.mark.parametrize("terminating", [True, False])
def test_a_dead_node_is_named_whatever_its_pod_says(terminating: bool) -> None:
    """kubernetes#117204, #73011: its pod is Terminating, or still says Ready, for ever."""
    old = pod("b", ready=True, template="1")
    if terminating:
        old["metadata"]["deletionTimestamp"] = "2026-11-26T10:01:00Z"
    lines = explain([node("a"), dead("b")], [pod("a", ready=True, template="1"), old], wanted=2)
    assert lines == [
        "node b: NotReady since 2026-11-26T10:00:00Z (NodeStatusUnknown: Kubelet stopped posting node "
        "status.); its installer cannot be changed. Remedy: repair the node or delete it (kubectl delete "
        "node), or leave it out with soci:nodeSelector; else the others go on without it, one by one, some "
        "minutes after its last word",
        "0 of 2 nodes have SOCI 0.16.1 as configured; 1 more blocked by the nodes above "
        "(soci:maxUnavailable is 1)",
    ]


def test_a_large_cluster_is_counted_and_told_that_the_rollout_goes_on() -> None:
    nodes = [node(f"n{number}", "True") for number in range(120)]
    pods = [pod(f"n{number}", ready=True, template="2" if number < 40 else "1") for number in range(120)]
    (line,) = explain(nodes, pods, wanted=120)
    assert line == (
        "40 of 120 nodes have SOCI 0.16.1 as configured; the rollout goes on by itself. Remedy: pulumi up "
        "again, to wait for its end; set soci:rolloutTimeoutSeconds (now 600) or soci:maxUnavailable (now 1) "
        "higher for a cluster of this size"
    )


def test_an_uninstall_is_counted_as_one() -> None:
    pods = [pod("a", ready=True), pod("b", ready=True, template="1")]
    (line,) = explain([node("a"), node("b")], pods, wanted=2, is_absent=True)
    assert line.startswith("1 of 2 nodes are free of SOCI; the rollout goes on by itself")


def test_a_failed_node_comes_before_the_count_of_those_that_wait_for_it() -> None:
    ended = {"terminated": {"message": "node a: step fetch: HTTP 404. Remedy: check soci:releaseUrl"}}
    pods = [pod("a", state=ended), pod("b", ready=True, template="1"), pod("c", ready=True)]
    lines = explain([node("a"), node("b"), node("c")], pods, wanted=3)
    assert lines[0].startswith("node a: step fetch")
    assert lines[1:] == [
        "1 of 3 nodes have SOCI 0.16.1 as configured; 1 more blocked by the nodes above "
        "(soci:maxUnavailable is 1)"
    ]


def cluster(nodes: list[Any], pods: list[Any], found: dict[str, Any] | None) -> Any:
    """A reachable cluster with these nodes, installer pods and DaemonSet."""
    return lambda *_: SimpleNamespace(
        items=lambda path, **_: pods if path.endswith("/pods") else nodes, get=lambda *_, **__: found
    )


def test_a_rollout_that_ended_meanwhile_is_told_as_such() -> None:
    (line,) = failure.report_rollout(
        ROLLOUT, "kubeconfig", "", cluster([node("a")], [pod("a", ready=True)], daemon_set(1))
    )
    assert line.startswith("every installer pod is ready by now: pulumi up again; look with: kubectl")


def test_without_a_kubeconfig_the_user_is_told_where_to_look() -> None:
    assert failure.report_rollout(ROLLOUT, "", "") == [
        "the installer has no kubeconfig to read the nodes' reasons with; look with: "
        "kubectl describe nodes, kubectl logs "
        "--namespace soci-system --selector app.kubernetes.io/name=soci-installer --prefix"
    ]
    (line,) = failure.report_job(SAMPLE, "", "")
    assert line.endswith("look with: kubectl describe job sample-job-1 --namespace default")


def test_an_unreachable_cluster_does_not_hide_the_rollouts_own_error() -> None:
    def unreachable(*_: str) -> Any:
        raise UnreachableError("connection refused\nmore")

    (line,) = failure.report_rollout(ROLLOUT, "kubeconfig", "", unreachable)
    assert line.startswith("the nodes' reasons cannot be read (connection refused); look with: kubectl")
    (line,) = failure.report_job(SAMPLE, "kubeconfig", "", unreachable)
    assert line.startswith("the sample's reason cannot be read (connection refused); look with: kubectl")
    assert failure.unattended_nodes("kubeconfig", "", unreachable) is None


def sample_pod(**state: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "sample-job-1-abcde"},
        "spec": {"nodeName": "a"},
        "status": {"containerStatuses": [{"name": "sample", "state": state}]},
    }


def event(kind: str, name: str, reason: str, message: str) -> dict[str, Any]:
    about = {"kind": kind, "name": name}
    return {
        "type": "Warning",
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "source": {"host": "a"},
    }


def test_a_sample_that_ended_is_told_with_its_exit_code_and_last_words() -> None:
    ended = {"exitCode": 2, "reason": "Error", "message": "no GPU\nhere\n"}
    line = failure.explain_job(SAMPLE, [sample_pod(terminated=ended)], [])
    assert line == (
        "the sample, Job default/sample-job-1, failed: pod default/sample-job-1-abcde on node a: Error (exit "
        "code 2): no GPU here. Remedy: mend soci:sampleWorkload.image or soci:sampleWorkload.command, or do "
        "without it: pulumi config set --path soci:sampleWorkload.enabled false"
    )


def test_a_sample_that_never_started_is_told_with_the_kubelets_cause_rather_than_its_back_off() -> None:
    events = [
        event("Pod", "sample-job-1-abcde", "Failed", "Failed to pull image: no such host"),
        event("Pod", "sample-job-1-abcde", "Failed", "Error: ErrImagePull"),
        event("Pod", "sample-job-1-abcde", "BackOff", "Back-off pulling image, which is a long sentence: no"),
    ]
    line = failure.explain_job(SAMPLE, [], events)
    assert (
        "pod default/sample-job-1-abcde on node a did not end within 600 s: Failed: Failed to pull image: "
        "no such host. Remedy: mend soci:sampleWorkload.image" in line
    )


def test_a_sample_that_no_namespace_lets_in_is_told_with_the_refusal() -> None:
    refusal = event("Job", "sample-job-1", "FailedCreate", 'pods "x" is forbidden: violates PodSecurity')
    line = failure.explain_job(SAMPLE, [], [refusal])
    assert 'no pod could be made: pods "x" is forbidden: violates PodSecurity. Remedy: mend what' in line
    assert "soci:sampleWorkload.enabled false" in line


def test_the_samples_pods_are_found_by_the_label_that_every_kubernetes_sets() -> None:
    """The one with the prefix batch.kubernetes.io begins with Kubernetes 1.27."""
    ended = sample_pod(terminated={"exitCode": 2, "reason": "Error"})

    def items(path: str, labelSelector: str = "") -> list[Any]:  # noqa: N803  (the API's name)
        return [ended] if path.endswith("/pods") and labelSelector == "job-name=sample-job-1" else []

    live: Any = SimpleNamespace(items=items)
    (line,) = failure.report_job(SAMPLE, "kubeconfig", "", lambda *_: live)
    assert "Error (exit code 2)" in line


def test_a_sample_that_only_runs_too_long_is_told_so() -> None:
    line = failure.explain_job(SAMPLE, [], [])
    assert "its pod did not end within 600 s. Remedy: " in line
    assert "soci:rolloutTimeoutSeconds" in line
