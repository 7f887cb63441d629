"""soci:index through the engine: a Job that `up` waits for, its words, and a CronJob that it does not await.

The API server's own Pod Security admission lets the pod in, or does not.
"""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.image_pull_secrets import Login, docker_config
from tests.engine.fake_cluster import COMPLETED, INSTALLED, ControlPlane, FakeNodes
from tests.engine.project_stack import Stack

pytestmark = pytest.mark.slow

JOBS = "/apis/batch/v1/namespaces/soci-index/jobs"
CRON_JOBS = "/apis/batch/v1/namespaces/soci-index/cronjobs"
IMAGE = "registry.invalid/team/app:1"
PASSWORD = "hunter2-secret"
LOGIN = {"registry": "registry.invalid", "username": "robot", "password": PASSWORD}


@pytest.fixture(scope="module")
def nodes(answering: FakeNodes) -> Iterator[FakeNodes]:
    with answering.having({"index-node": INSTALLED}) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def shared_stack(
    nodes: FakeNodes,
    environment: dict[str, str],
    local_config: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    config = local_config | {
        "soci:sampleWorkload": {"enabled": False},
        "soci:index": {"images": [IMAGE]},
        "soci:indexCredentials": [LOGIN],
    }
    stack = Stack(tmp_path_factory.mktemp("project") / "soci", environment, "image-index", config)
    yield stack
    stack.destroy()


@pytest.fixture
def stack(shared_stack: Stack, cluster: FakeNodes) -> Stack:
    return shared_stack


def names(nodes: FakeNodes, path: str) -> list[str]:
    return [item["metadata"]["name"] for item in nodes.api.call("GET", path)["items"]]


def test_up_ends_when_the_images_are_indexed_and_the_next_one_changes_nothing(
    stack: Stack, nodes: FakeNodes
) -> None:
    stack.up()
    namespace, name = stack.outputs()["imageIndex"].split("/")
    assert (namespace, [name]) == ("soci-index", names(nodes, JOBS))
    job = nodes.api.call("GET", f"{JOBS}/{name}")
    assert job["status"]["succeeded"] == 1
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == IMAGE
    labels = nodes.api.call("GET", "/api/v1/namespaces/soci-index")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    stack.up("--expect-no-changes")


def test_no_credential_stands_plainly_in_the_state(stack: Stack) -> None:
    kept = base64.b64encode(docker_config([Login(**LOGIN)]).encode()).decode()
    assert PASSWORD not in stack.state()
    assert kept not in stack.state()
    assert kept in stack.run("stack", "export", "--show-secrets")


def test_another_image_is_another_job_and_the_old_one_is_gone(stack: Stack, nodes: FakeNodes) -> None:
    (old,) = names(nodes, JOBS)
    stack.set(index={"images": [IMAGE, "registry.invalid/team/other:1"]})
    stack.up()
    (new,) = names(nodes, JOBS)
    assert new != old
    assert stack.outputs()["imageIndex"] == f"soci-index/{new}"


def test_an_image_that_gets_no_index_fails_the_up_with_its_words_and_the_next_up_tries_again(
    stack: Stack, nodes: FakeNodes
) -> None:
    words = f"{IMAGE}: registry.invalid: 403 denied. Remedy: give the account the right to read and write"
    nodes.sample_state = {"terminated": {"exitCode": 1, "reason": "Error", "message": f"a table\n{words}\n"}}
    stack.set(index={"images": [IMAGE], "jobs": 1})
    said = stack.try_up()
    failed = (
        r"the image index, Job soci-index/\S+, failed: pod \S+ on node index-node: Error \(exit code 1\):"
    )
    assert re.search(rf"{failed}\s+{re.escape(words)}", said)
    nodes.sample_state = COMPLETED
    stack.up()
    (name,) = names(nodes, JOBS)
    assert nodes.api.call("GET", f"{JOBS}/{name}")["status"]["succeeded"] == 1


def test_a_pod_that_cannot_start_ends_the_up_at_the_indexs_own_limit(stack: Stack, nodes: FakeNodes) -> None:
    nodes.sample_state = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
    stack.set(index={"images": [IMAGE], "timeoutSeconds": 60})
    said = stack.try_up()
    assert "did not end within 60 s: Failed: no such host" in said
    nodes.sample_state = COMPLETED
    stack.up()


def test_a_schedule_makes_a_cron_job_for_which_no_up_waits(stack: Stack, nodes: FakeNodes) -> None:
    nodes.sample_state = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
    stack.set(index={"images": [IMAGE], "schedule": "0 3 * * *"})
    stack.up()
    (name,) = names(nodes, CRON_JOBS)
    assert stack.outputs()["imageIndex"] == f"soci-index/{name}"
    assert names(nodes, JOBS) == []
    spec = nodes.api.call("GET", f"{CRON_JOBS}/{name}")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("0 3 * * *", "Forbid")
    stack.up("--expect-no-changes")


def test_a_pod_with_a_claim_for_the_ztocs_is_let_in_and_scheduled(stack: Stack, nodes: FakeNodes) -> None:
    """A Job's, for which `up` waits; a CronJob's is the same."""
    room = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {"metadata": {"name": "ztocs"}, "spec": {**room, "hostPath": {"path": "/nowhere"}}}
    nodes.api.call("POST", "/api/v1/persistentvolumes", volume)
    asked = {"resources": {"requests": room.pop("capacity")}, "volumeName": "ztocs"}
    claim = {"metadata": {"name": "ztocs"}, "spec": {**room, **asked}}
    nodes.api.call("POST", "/api/v1/namespaces/soci-index/persistentvolumeclaims", claim)
    nodes.sample_state = COMPLETED
    stack.set(index={"images": [IMAGE], "cacheClaim": "ztocs"})
    stack.up()
    (name,) = names(nodes, JOBS)
    volumes = nodes.api.call("GET", f"{JOBS}/{name}")["spec"]["template"]["spec"]["volumes"]
    claims = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
    assert claims == [{"claimName": "ztocs"}]
    stack.up("--expect-no-changes")
    nodes.api.call("DELETE", "/api/v1/persistentvolumes/ztocs")


def test_a_namespace_that_is_there_already_is_told_with_the_way_around_it(
    stack: Stack, nodes: FakeNodes
) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "taken"}}
    nodes.api.call("POST", "/api/v1/namespaces", namespace)
    stack.set(index={"images": [IMAGE], "schedule": "@daily", "namespace": "taken"})
    said = stack.try_up()
    assert "the Namespace taken is there already, and not of this program" in said
    assert "Remedy: pulumi config set --path soci:index.namespace NAME, one that is not there yet" in said
    stack.set(index={"images": [IMAGE], "schedule": "@daily"})
    stack.up()
    nodes.api.call("DELETE", "/api/v1/namespaces/taken")


def test_without_the_setting_nothing_of_it_is_left(stack: Stack, nodes: FakeNodes) -> None:
    stack.set(index=None, indexCredentials=None)
    stack.up()
    assert stack.outputs()["imageIndex"] == ""
    assert "soci-index" not in names(nodes, "/api/v1/namespaces")


def test_the_api_server_would_not_let_a_pod_in_that_may_more(
    stack: Stack, control_plane: ControlPlane
) -> None:
    """The check of the check: what the namespace enforces is enforced here."""
    api = control_plane.api()
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "restricted", "labels": label}})
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    with pytest.raises(Exception, match="violates PodSecurity"):
        api.call("POST", "/api/v1/namespaces/restricted/pods?dryRun=All", pod)
    api.call("DELETE", "/api/v1/namespaces/restricted")
