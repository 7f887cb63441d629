"""ImageIndex under Pulumi's mocks: what its pod may, how it runs, and where its credentials are."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
import soci_index.index
from pulumi.runtime import rpc
from soci_index import options, tools, ztocs

from components import ImageIndex, ImageIndexArgs, SociCluster, SociConfigError, failure, program
from tests.unit.mocks import DIGESTS, Recorder

Run = Callable[[Callable[[], dict[str, pulumi.Output[Any]]]], dict[str, Any]]
IMAGE = "registry.example/team/app:1"
LOGIN = {"registry": "registry.example", "username": "robot", "password": "hunter2-secret"}


def index(**args: Any) -> Callable[[], dict[str, pulumi.Output[Any]]]:
    """A program with an ImageIndex of these arguments."""

    def program() -> dict[str, pulumi.Output[Any]]:
        given = {"images": [IMAGE], "sha256": DIGESTS} | args
        made = ImageIndex("index", cast(ImageIndexArgs, given))
        return {
            "namespace": made.namespace,
            "account": made.service_account,
            "job": made.job,
            "images": made.images,
        }

    return program


def pod(recorder: Recorder) -> dict[str, Any]:
    return recorder.inputs("index-job")["spec"]["template"]["spec"]


def command(recorder: Recorder) -> list[str]:
    return pod(recorder)["containers"][0]["command"]


def secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(rpc._special_sig_key) == rpc._special_secret_sig


def test_it_declares_these_objects_and_no_right_in_the_cluster(recorder: Recorder, run: Run) -> None:
    assert run(index()) == {
        "namespace": "soci-index",
        "account": "soci-index",
        "job": "soci-index/index-job-1",
        "images": [f"{IMAGE}-soci"],
    }
    kinds = sorted(resource.typ.rpartition(":")[2] for resource in recorder.resources.values())
    assert kinds == ["ConfigMap", "ImageIndex", "Job", "Namespace", "ServiceAccount"]


def test_its_pod_is_what_the_restricted_standard_asks_for_and_less(recorder: Recorder, run: Run) -> None:
    run(index())
    labels = recorder.inputs("index-namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert recorder.inputs("index-account")["automountServiceAccountToken"] is False
    made = pod(recorder)
    assert made["automountServiceAccountToken"] is False
    assert made["securityContext"]["runAsNonRoot"] is True
    assert made["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = made["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {key for volume in made["volumes"] for key in volume} == {"name", "configMap", "emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(made)
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["work"]


def test_it_may_take_the_disk_and_the_memory_that_it_asks_for(recorder: Recorder, run: Run) -> None:
    run(index(disk_gib=50, jobs=3))
    made = pod(recorder)
    (work,) = [volume["emptyDir"] for volume in made["volumes"] if "emptyDir" in volume]
    assert work == {"sizeLimit": "50Gi"}
    assert made["containers"][0]["resources"] == {
        "requests": {"cpu": "1500m", "memory": "768Mi", "ephemeral-storage": "50Gi"},
        "limits": {"memory": "3Gi"},
    }
    assert {"--disk=48GiB", "--jobs=3"} <= set(command(recorder))


def test_a_claim_keeps_the_ztocs_and_nothing_else(recorder: Recorder, run: Run) -> None:
    run(index(cache_claim="ztocs"))
    made = pod(recorder)
    (claim,) = [volume for volume in made["volumes"] if "persistentVolumeClaim" in volume]
    assert claim["persistentVolumeClaim"] == {"claimName": "ztocs"}
    (container,) = made["containers"]
    places = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    cache = soci_index.index.parse(command(recorder)[4:]).cache
    kept = ztocs.Cache(cache, "0.16.1", 1).place({"mediaType": "a", "digest": f"sha256:{'a' * 64}"})
    (place,) = [path for path, mount in places.items() if mount["name"] == claim["name"]]
    assert kept.is_relative_to(place)
    # The layers stay on the node's disk, which is bounded; its directory is not made by the runtime, as root.
    assert places[str(cache)]["name"] == "work"
    assert Path(place).parent == cache
    assert made["securityContext"]["fsGroup"] == made["securityContext"]["runAsUser"]


def test_the_programs_bytes_are_pinned_for_each_architecture_on_which_it_may_run(
    recorder: Recorder, run: Run
) -> None:
    run(index(sha256={"arm64": "b" * 64}, version="0.15.0", release_url="https://mirror.example/soci"))
    assert {"--soci-sha256=arm64=" + "b" * 64, "--soci-version=0.15.0"} <= set(command(recorder))
    assert "--soci-releases=https://mirror.example/soci" in command(recorder)
    affinity = pod(recorder)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = affinity["nodeSelectorTerms"][0]["matchExpressions"]
    assert (expression["key"], expression["values"]) == ("kubernetes.io/arch", ["arm64"])


def test_the_whole_program_is_in_the_config_map_and_found_as_a_package(recorder: Recorder, run: Run) -> None:
    run(index())
    data = recorder.inputs("index-program")["data"]
    assert data == program.INDEX.files()
    (volume,) = [volume["configMap"] for volume in pod(recorder)["volumes"] if "configMap" in volume]
    assert volume["name"] == "index-program-1"
    assert {"key": "__main__.py", "path": "soci_index/__main__.py"} in volume["items"]
    assert {item["key"] for item in volume["items"]} == set(data)
    assert command(recorder)[:4] == ["python3", "-B", "-m", "soci_index"]


def test_a_job_that_failed_is_made_anew_and_a_lost_node_is_no_failure(recorder: Recorder, run: Run) -> None:
    run(index(timeout_seconds=900))
    job = recorder.inputs("index-job")
    assert job["metadata"]["annotations"] == {"pulumi.com/replaceUnready": "true"}
    assert "name" not in job["metadata"], "a change makes a new one"
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 900)
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_schedule_makes_a_cron_job_of_which_one_runs_at_a_time(recorder: Recorder, run: Run) -> None:
    outputs = run(index(schedule="0 3 * * *"))
    assert outputs["job"] == "soci-index/index-cron-job-1"
    assert recorder.of_type(":Job") == []
    spec = recorder.inputs("index-cron-job")["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == (
        "0 3 * * *",
        "Etc/UTC",
        "Forbid",
    )
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (1, 3)
    template = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert template["containers"][0]["command"][-1] == IMAGE


def test_credentials_are_a_secret_in_the_state_and_a_file_in_the_pod(recorder: Recorder, run: Run) -> None:
    run(index(index_credentials=[LOGIN]))
    made = recorder.inputs("index-credentials")
    assert secret(made["data"])
    config = json.loads(base64.b64decode(made["data"]["value"][".dockerconfigjson"]))
    assert config["auths"]["registry.example"]["password"] == LOGIN["password"]
    others = {
        name: resource.inputs for name, resource in recorder.resources.items() if name != "index-credentials"
    }
    assert LOGIN["password"] not in json.dumps(others, default=str)
    (volume,) = [volume["secret"] for volume in pod(recorder)["volumes"] if "secret" in volume]
    assert volume["secretName"] == "index-credentials-1"
    assert volume["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    (container,) = pod(recorder)["containers"]
    assert {"name": "DOCKER_CONFIG", "value": "/credentials"} in container["env"]
    assert "imagePullSecrets" not in pod(recorder), "the credentials that push pull nothing for the kubelet"


def test_a_secret_that_others_make_is_only_named(recorder: Recorder, run: Run) -> None:
    run(index(index_credentials=["robot"], image_pull_secrets=["mirror"]))
    assert recorder.of_type(":Secret") == []
    (volume,) = [volume["secret"] for volume in pod(recorder)["volumes"] if "secret" in volume]
    assert volume["secretName"] == "robot"
    assert pod(recorder)["imagePullSecrets"] == [{"name": "mirror"}]


def test_a_role_is_given_to_the_service_account(recorder: Recorder, run: Run) -> None:
    role = "arn:aws:iam::123456789012:role/index"
    run(index(role_arn=role))
    metadata = recorder.inputs("index-account")["metadata"]
    assert (metadata["name"], metadata["annotations"]["eks.amazonaws.com/role-arn"]) == ("soci-index", role)
    assert pod(recorder)["serviceAccountName"] == "soci-index"


def test_the_registries_habits_reach_the_program(recorder: Recorder, run: Run) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
    run(
        index(
            plain_http=["registry:5000"],
            ca_certificates=pem,
            https_proxy="http://proxy:3128",
            no_proxy=".corp",
        )
    )
    assert {"--plain-http=registry:5000", "--ca-file=/opt/soci-index/ca.pem"} <= set(command(recorder))
    assert recorder.inputs("index-program")["data"]["ca.pem"] == pem + "\n"
    environment = {item["name"]: item["value"] for item in pod(recorder)["containers"][0]["env"]}
    assert (environment["HTTPS_PROXY"], environment["NO_PROXY"]) == ("http://proxy:3128", ".corp")
    assert "HTTP_PROXY" not in environment


def test_nodes_and_their_taints_can_be_chosen(recorder: Recorder, run: Run) -> None:
    run(index(node_selector={"pool": "batch"}, tolerated_taints=["dedicated=batch:NoSchedule"]))
    assert pod(recorder)["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "batch"}
    assert pod(recorder)["tolerations"] == [
        {"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize(
    ("args", "expected", "absent"),
    [
        ({}, "--suffix=-soci", "--replace"),
        ({}, "--suffix=-soci", "--unsigned"),
        ({"unsigned": True}, "--unsigned", "--replace"),
        ({"suffix": "", "replace": True}, "--replace", "--suffix="),
        ({"index_version": "v1"}, "--index-version=v1", "--suffix=-soci"),
        ({"repository": "mirror.example/"}, "--to-repository=mirror.example/", "--replace"),
    ],
)
def test_where_the_index_goes_reaches_the_program(
    recorder: Recorder, run: Run, args: dict[str, Any], expected: str, absent: str
) -> None:
    run(index(**args))
    assert expected in command(recorder)
    assert absent not in command(recorder)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            {"images": []},
            r"soci:index.images '\[\]': an ImageIndex without images does nothing. Remedy: pulumi",
        ),
        ({"images": ["app"]}, r"images: app has no tag"),
        ({"mode": "lazy"}, r"soci:mode 'lazy': is no argument of this component"),
        ({"version": "0.12.0"}, r"needs SOCI 0.13.0 or newer"),
        ({"index_credentials": ["a", "b"]}, r"soci:indexCredentials \[not shown\]: the Secret a stands"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_exists(
    recorder: Recorder, args: dict[str, Any], told: str
) -> None:
    with pytest.raises(SociConfigError, match=told):
        index(**args)()
    assert recorder.resources == {}


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"suffix": "", "replace": True},
        {"index_version": "v1"},
        {"repository": "mirror.example/"},
        {"plain_http": ["registry:5000"], "disk_gib": 50, "jobs": 3},
    ],
)
def test_the_program_takes_its_command_line_and_names_the_indexed_image_alike(
    recorder: Recorder, run: Run, args: dict[str, Any]
) -> None:
    images = [IMAGE, "python:3.13"] if "repository" in args else [IMAGE]
    outputs = run(index(**args, images=images))
    parsed = soci_index.index.parse(command(recorder)[4:])
    assert parsed.images == images
    tasks, refused = soci_index.index._tasks(parsed)
    assert ([task.target.name for task in tasks], refused) == (outputs["images"], [])
    assert parsed.disk == (args.get("disk_gib", 20) - 2) << 30
    digests = [options.chosen_digest(parsed.soci_sha256)]
    assert digests == [DIGESTS[tools.architecture()]]


# --- in SociCluster ---


def cluster(**args: Any) -> Callable[[], dict[str, pulumi.Output[Any]]]:
    return lambda: SociCluster("soci", {"sha256": DIGESTS, **args}).outputs()


def test_a_cluster_has_one_when_images_are_named(recorder: Recorder, run: Run) -> None:
    outputs = run(cluster(index={"images": [IMAGE]}, index_credentials=[LOGIN]))
    assert outputs["imageIndex"] == "soci-index/soci-index-job-1"
    assert secret(recorder.inputs("soci-index-credentials")["data"])
    assert LOGIN["password"] not in json.dumps(recorder.inputs("soci"))
    assert run(cluster())["imageIndex"] == ""


def test_a_cluster_without_soci_has_none(recorder: Recorder, run: Run) -> None:
    assert run(cluster(state="absent", index={"images": [IMAGE]}))["imageIndex"] == ""
    assert recorder.of_type(":Job") == []


@pytest.mark.parametrize(("image", "waits"), [(f"{IMAGE}-soci", True), (IMAGE, False)])
def test_the_sample_waits_for_its_own_index_only(
    run: Run, monkeypatch: pytest.MonkeyPatch, image: str, waits: bool
) -> None:
    needed: list[Any] = []
    original = SociCluster._in_cluster

    def in_cluster(self: SociCluster, access: Any, **options: Any) -> pulumi.ResourceOptions:
        needed[:] = options.get("depends_on", [])
        return original(self, access, **options)

    monkeypatch.setattr(SociCluster, "_in_cluster", in_cluster)  # the sample is the last to ask
    run(cluster(index={"images": [IMAGE]}, sample_workload={"image": image}))
    assert any(isinstance(item, ImageIndex) for item in needed) is waits


# --- its last words ---


def ended(said: str, **status: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": 1, "reason": "Error", "message": said}}
    return {
        "metadata": {"name": "index-job-1-abcde", "creationTimestamp": "2026-11-27T03:00:00Z"},
        "spec": {"nodeName": "a"},
        "status": {"containerStatuses": [{"name": "index", "state": state}], **status},
    }


JOB = failure.Job(failure.IMAGE_INDEX, "soci-index", "index-job-1", 3600)


def test_of_a_run_that_failed_the_images_that_have_no_index_are_told_each_with_its_remedy() -> None:
    words = (
        "registry.example/a:1  indexed  2 of 2\n"
        "registry.example/b:1: registry.example: 403 denied. Remedy: give the account the right to write\n"
        "registry.example/a:1: linux/amd64: 3 layers of 1 MiB without a zTOC: below the minimum\n"
        "registry.example/c:1: registry.example: not found. Remedy: check the name\n"
    )
    assert failure.explain_job(JOB, [ended(words)], []).splitlines() == [
        "the image index, Job soci-index/index-job-1, failed: pod soci-index/index-job-1-abcde on node a: "
        "Error (exit code 1):",
        "    registry.example/b:1: registry.example: 403 denied. Remedy: give the account the right to write",
        "    registry.example/c:1: registry.example: not found. Remedy: check the name",
    ]


def test_a_run_that_took_too_much_disk_is_told_with_the_kubelets_words() -> None:
    pod = ended("", reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "20Gi".')
    line = failure.explain_job(JOB, [pod], [])
    assert 'Evicted (Usage of EmptyDir volume "work" exceeds the limit "20Gi".). Remedy: mend' in line
    assert "soci:index.diskGiB higher" in line
    assert "pulumi config rm soci:index" in line


def test_the_last_of_several_pods_is_told() -> None:
    first, last = ended("first"), ended("last")
    last["metadata"]["creationTimestamp"] = "2026-11-27T04:00:00Z"
    assert "last" in failure.explain_job(JOB, [last, first], [])
