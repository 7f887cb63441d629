"""What the components declare, seen through Pulumi's mocks."""

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pulumi_eks as eks
import pulumi_kubernetes as k8s
import pytest
from pulumi.provider.experimental.analyzer import Analyzer
from pulumi.runtime import rpc

from components import (
    EcrImageIndex,
    ImageIndex,
    SampleWorkload,
    SampleWorkloadArgs,
    Settings,
    SociCluster,
    SociClusterArgs,
    SociConfigError,
    SociInstaller,
    cluster_identity,
    release,
    sample_figures,
)
from components.cluster_access import access_of
from components.own_nodes import pool_labels
from components.program import INSTALLER, key_of
from tests.unit.mocks import DIGESTS, Recorder, install

ROLE = "arn:aws:iam::123456789012:role/deployer"
KUBECONFIG = json.dumps(
    {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"}}],
    }
)


def test_the_installer_declares_its_objects_and_no_others(recorder: Recorder, run) -> None:
    assert run(install()) == {"version": "0.16.1", "daemon_set": "soci-installer", "namespace": "soci-system"}
    kinds = sorted(resource.typ.rpartition(":")[2] for resource in recorder.resources.values())
    assert kinds == [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "Namespace",
        "Role",
        "RoleBinding",
        "ServiceAccount",
        "SociInstaller",
        "kubernetes",
    ]


def test_every_child_uses_the_given_provider(recorder: Recorder, run) -> None:
    run(install())
    children = [
        resource for resource in recorder.resources.values() if resource.typ.startswith("kubernetes:")
    ]
    assert children
    assert all("::cluster::" in (child.provider or "") for child in children)


def test_the_config_map_carries_the_program_and_its_settings(recorder: Recorder, run) -> None:
    run(install(index_versions=["v2", "v1"], existing_nodes="migrate"))
    data = recorder.inputs("soci-program")["data"]
    assert {"00-head.sh", "__main__.py", "settings.json"} <= set(data)
    # That it holds the settings for the node and no others: test_program.py.
    assert (
        json.loads(data["settings.json"]).items()
        >= {
            "version": "0.16.1",
            "state": "present",
            "force_uninstall": False,
            "mode": "lazy",
            "index_versions": ["v2", "v1"],
            "release_url": "https://github.com/awslabs/soci-snapshotter/releases/download",
            "sha256": DIGESTS,
            "existing_nodes": "migrate",
            "upgrade_policy": "when-idle",
        }.items()
    )
    assert (
        "name" not in recorder.inputs("soci-program")["metadata"]
    )  # autonamed: a changed byte rolls the nodes


def test_rights_are_no_more_than_the_policies_need(recorder: Recorder, run) -> None:
    def rights(policy: str, broken_pods: str = "report") -> tuple[set[str], set[str]]:
        run(install(upgrade_policy=policy, broken_pods=broken_pods))
        rules = [recorder.inputs(name)["rules"] for name in ("soci-cluster-role", "soci-role")]
        everywhere, own = ({resource for rule in found for resource in rule["resources"]} for found in rules)
        return everywhere, own

    always = {"nodes", "nodes/status", "events"}
    own = {"daemonsets", "namespaces", "pods"}
    assert rights("when-idle") == (always, own)
    assert rights("drain") == (always | {"pods", "pods/eviction"}, own)
    assert rights("when-idle", "evict") == (always | {"pods", "pods/eviction"}, own)
    assert rights("side-by-side") == (always, own)


def test_the_daemon_set_runs_the_program_on_every_linux_node(recorder: Recorder, run) -> None:
    run(install(node_selector={"pool": "gpu"}, max_unavailable="10%"))
    spec = recorder.inputs("soci-daemon-set")["spec"]
    assert spec["selector"] == {"matchLabels": {"app.kubernetes.io/name": "soci-installer"}}
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "gpu"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["dnsPolicy"] == "Default"
    assert pod["hostPID"] is True
    container = pod["containers"][0]
    assert container["command"] == ["python3", "-B", "-m", "agent"]
    (host,) = [mount for mount in container["volumeMounts"] if mount["name"] == "host"]
    assert host == {"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"}, (
        "the pod would keep what the node unmounts, and hold devices and FUSE mounts busy"
    )
    items = {item["key"]: item["path"] for item in pod["volumes"][0]["configMap"]["items"]}
    assert items["__main__.py"] == "agent/__main__.py"
    assert items["00-head.sh"] == "host/00-head.sh"
    assert set(items) == set(recorder.inputs("soci-program")["data"])


def containers_of(recorder: Recorder) -> dict[str, Any]:
    """The containers of the DaemonSet by name, in their order."""
    spec = recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]
    return {container["name"]: container for container in spec["containers"]}


def test_a_node_that_is_done_is_asked_seldom_since_each_question_starts_a_process(
    recorder: Recorder, run
) -> None:
    run(install())
    installer = containers_of(recorder)["installer"]
    assert installer["startupProbe"]["periodSeconds"] == 1
    assert installer["readinessProbe"]["periodSeconds"] == 10
    days = installer["startupProbe"]["failureThreshold"] / 86400
    assert days > 365, "the kubelet ends a container whose start takes longer; a node may wait for its pods"


def test_pull_secrets_are_handed_over_by_a_container_that_no_readiness_waits_for(
    recorder: Recorder, run
) -> None:
    run(install())
    found = containers_of(recorder)
    assert list(found) == ["installer", "credentials"], "kubectl logs and exec take the first one"
    credentials = found["credentials"]
    assert credentials["command"] == ["python3", "-B", "-m", "agent", "credentials"]
    assert not {"readinessProbe", "startupProbe"} & set(credentials)
    assert credentials["volumeMounts"] == found["installer"]["volumeMounts"]
    template = recorder.inputs("soci-daemon-set")["spec"]["template"]
    assert template["metadata"]["annotations"] == {"kubectl.kubernetes.io/default-container": "installer"}


@pytest.mark.parametrize("args", [{"credentials": "node"}, {"state": "absent"}])
def test_without_pull_secrets_there_is_no_container_for_them(recorder: Recorder, run, args: dict) -> None:
    run(install(**args))
    assert list(containers_of(recorder)) == ["installer"]


@pytest.mark.parametrize("credentials", ["node", "node-and-pull-secrets"])
@pytest.mark.parametrize("upgrade", ["when-idle", "drain", "side-by-side"])
@pytest.mark.parametrize("broken", ["report", "evict"])
def test_no_right_of_ours_reaches_a_secret(
    recorder: Recorder, run, credentials: str, upgrade: str, broken: str
) -> None:
    run(install(credentials=credentials, upgrade_policy=upgrade, broken_pods=broken))
    rules = [rule for name in ("soci-cluster-role", "soci-role") for rule in recorder.inputs(name)["rules"]]
    assert rules
    for rule in rules:
        words = {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
        assert not words & {
            "secrets",
            "*",
            "serviceaccounts/token",
            "nodes/proxy",
            "pods/exec",
            "impersonate",
        }


def test_a_number_of_unavailable_nodes_is_a_number(recorder: Recorder, run) -> None:
    run(install(max_unavailable="3"))
    strategy = recorder.inputs("soci-daemon-set")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 3}


def test_a_daemon_set_of_no_node_is_a_failure(recorder: Recorder, run) -> None:
    recorder.desired_nodes = 0
    reason = (
        "the installer is on no node: no node carries the labels of soci:nodeSelector (pool=gpu). Remedy: "
        "see kubectl get nodes --selector 'pool=gpu', add a node or mend the selector, "
        "then pulumi up --refresh (the result of the last look is in the stack's state)"
    )
    with pytest.raises(Exception, match=re.escape(reason)):
        run(install(node_selector={"pool": "gpu"}))


def test_a_pool_that_an_autoscaler_fills_from_none_needs_no_node_at_first(recorder: Recorder, run) -> None:
    recorder.desired_nodes = 0
    run(install(node_selector={"pool": "gpu"}, require_nodes=False))
    assert recorder.of_type(":DaemonSet")


def test_a_preview_does_not_take_a_new_daemon_set_for_one_of_no_node(recorder: Recorder, run) -> None:
    """After `kubectl delete daemonset`, the preview of `pulumi up --refresh` said that there is no node."""
    pulumi.runtime.set_mocks(recorder, project="soci", stack="test", preview=True)
    recorder.desired_nodes = 0
    run(install())
    assert recorder.of_type(":DaemonSet")


def test_an_absent_installer_asks_no_release_and_needs_no_node(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken off needs no digest: it works when the release, or the way to it, is gone."""
    monkeypatch.setattr(release, "fetch", lambda url: pytest.fail(f"{url} was asked"))
    recorder.desired_nodes = 0

    def program():
        installer = SociInstaller("soci", {"version": "0.16.1", "state": "absent", "force_uninstall": True})
        return {"state": installer.state, "version": installer.version, "ready": installer.ready}

    outputs = run(program)
    assert (outputs["state"], outputs["version"]) == ("absent", "")
    settings = json.loads(recorder.inputs("soci-program")["data"]["settings.json"])
    assert (settings["state"], settings["force_uninstall"], settings["sha256"]) == ("absent", True, {})


def test_an_absent_soci_has_no_sample(recorder: Recorder, run) -> None:
    outputs = run(lambda: SociCluster("soci", {"state": "absent"}).outputs())
    assert (outputs["sociState"], outputs["sociVersion"], outputs["samplePod"]) == ("absent", "", "")
    assert recorder.of_type(":Job") == []


def test_a_pod_that_ends_may_ask_for_its_owner_and_has_time_to_uninstall(recorder: Recorder, run) -> None:
    run(install(namespace="soci"))
    assert (
        recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    )
    rules = recorder.inputs("soci-role")["rules"]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in rules[:2]] == [
        (["daemonsets"], ["soci-installer"], ["get"]),
        (["namespaces"], ["soci"], ["get"]),
    ]


def test_events_are_only_written(recorder: Recorder, run) -> None:
    """On the node, on the DaemonSet, and on pods whose files cannot be read, wherever they are."""
    run(install(namespace="soci"))
    rules = recorder.inputs("soci-cluster-role")["rules"]
    assert [rule["verbs"] for rule in rules if "events" in rule["resources"]] == [["create"]]


def test_bad_arguments_are_refused_before_anything_exists(recorder: Recorder) -> None:
    with pytest.raises(SociConfigError, match="or newer"):
        SociInstaller("soci", {"version": "0.3.0"})
    assert recorder.resources == {}


def test_an_argument_of_another_component_is_refused(recorder: Recorder) -> None:
    args: Any = {"version": "0.16.1", "node_count": 3}
    with pytest.raises(SociConfigError, match="soci:nodeCount '3': is no argument of this component"):
        SociInstaller("soci", args)


def test_the_state_holds_what_was_given_but_no_credentials(recorder: Recorder, run) -> None:
    """The inputs of a component are shown by `pulumi preview --diff` and kept in the state."""
    pulumi.runtime.set_all_config({}, ["soci:tags"])
    try:
        run(
            lambda: SociCluster(
                "soci", {"version": "v0.16.1", "tags": {"a": "b"}, "sha256": DIGESTS}
            ).outputs()
        )
        run(lambda: SociCluster("other", existing_cluster()).outputs())
    finally:
        pulumi.runtime.set_all_config({}, [])
    inputs = recorder.inputs("soci")
    assert (inputs["version"], inputs["sha256"]) == ("0.16.1", DIGESTS)
    assert inputs["tags"][rpc._special_sig_key] == rpc._special_secret_sig
    assert set(recorder.inputs("other")) == {"cluster", "sha256", "sample_workload"}


def test_a_sample_that_was_set_as_a_secret_is_one_wherever_the_state_holds_it(
    recorder: Recorder, run
) -> None:
    pulumi.runtime.set_all_config({}, ["soci:sampleWorkload"])
    try:
        run(lambda: SociCluster("soci", {"sha256": DIGESTS}).outputs())
    finally:
        pulumi.runtime.set_all_config({}, [])
    sample = recorder.inputs("soci-sample")
    # Pulumi's mocks call the whole object a secret that one is in.
    held = [sample["image"], sample["command"], recorder.inputs("soci-sample-job")["spec"]]
    assert [value.get(rpc._special_sig_key) for value in held] == [rpc._special_secret_sig] * 3


def test_a_new_cluster_has_nodes_that_start_with_the_taint(recorder: Recorder, run) -> None:
    outputs = run(lambda: SociCluster("soci", {"sha256": DIGESTS, "tags": {"team": "a"}}).outputs())
    assert outputs == {
        "clusterName": "demo",
        "kubeconfig": '{"plain": true}',
        "sociState": "present",
        "sociVersion": "0.16.1",
        "installerNamespace": "soci-system",
        "installerDaemonSet": "soci-installer",
        "samplePod": "default/soci-sample-job-1",
        "sampleFigures": sample_figures.NOT_READ,
        "imageIndex": "",
    }
    nodes = recorder.inputs("soci-nodes")
    assert nodes["taints"] == [{"key": "soci-cluster.io/not-ready", "value": "true", "effect": "NO_SCHEDULE"}]
    assert nodes["scalingConfig"] == {"desiredSize": 2, "minSize": 1, "maxSize": 4}
    assert nodes["enableIMDSv2"] is True
    assert nodes["operatingSystem"] == "AL2023"
    cluster = recorder.inputs("soci-eks")
    assert cluster["authenticationMode"] == "API"
    # A CoreDNS add-on would wait for nodes that only the installer, which comes later, makes schedulable.
    assert cluster["corednsAddonOptions"] == {"enabled": False}
    assert cluster["tags"] == nodes["tags"] == {"team": "a"}
    assert recorder.inputs("soci-kubernetes")["clusterIdentifier"] == "arn:demo"


@pytest.mark.parametrize(
    ("arguments", "credentials"),
    [
        ({"aws_profile": "work"}, {"profile_name": "work"}),
        ({"kubeconfig_role_arn": ROLE}, {"role_arn": ROLE}),
        (
            {"aws_profile": "work", "kubeconfig_role_arn": ROLE},
            {"profile_name": "work", "role_arn": ROLE},
        ),
    ],
)
def test_profile_and_role_of_the_aws_provider_reach_the_kubeconfig(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch, arguments: Any, credentials: dict[str, str]
) -> None:
    """Both kubeconfigs of pulumi-eks leave them out: the ambient identity asked for the token, or nobody."""

    def get_kubeconfig(_: eks.Cluster, **asked: str) -> pulumi.Output[str]:
        return pulumi.Output.from_input(json.dumps(asked))

    monkeypatch.setattr(eks.Cluster, "get_kubeconfig", get_kubeconfig)
    outputs = run(lambda: SociCluster("soci", {"sha256": DIGESTS, **arguments}).outputs())
    assert json.loads(outputs["kubeconfig"]) == credentials
    in_camel_case = {"profile_name": "profileName", "role_arn": "roleArn"}
    assert recorder.inputs("soci-eks")["providerCredentialOpts"] == {
        in_camel_case[key]: value for key, value in credentials.items()
    }


def test_the_network_add_ons_have_the_versions_that_the_state_keeps_for_the_release(
    recorder: Recorder, run
) -> None:
    """`mostRecent`, asked anew at each run, changed them in a `pulumi up` that changed nothing else."""
    run(lambda: SociCluster("soci", {"sha256": DIGESTS, "kubernetes_version": "1.35"}).outputs())
    newest = {name: f"{name} for 1.35, build 1" for name in ("vpc-cni", "kube-proxy", "coredns")}
    for name, build in newest.items():
        assert recorder.inputs(f"soci-{name}-1.35") == {"input": build}
    cluster = recorder.inputs("soci-eks")
    assert cluster["vpcCniOptions"] == {"addonVersion": newest["vpc-cni"]}
    assert cluster["kubeProxyAddonOptions"] == {"version": newest["kube-proxy"]}
    assert recorder.inputs("soci-coredns")["addonVersion"] == newest["coredns"]


def test_a_chosen_version_of_an_add_on_is_taken(recorder: Recorder, run) -> None:
    chosen = {"coredns": "v1.12.1-eksbuild.2", "vpc-cni": "v1.20.4-eksbuild.1"}
    run(lambda: SociCluster("soci", {"sha256": DIGESTS, "addon_versions": chosen}).outputs())
    assert recorder.inputs("soci-coredns")["addonVersion"] == chosen["coredns"]
    assert recorder.inputs("soci-eks")["vpcCniOptions"] == {"addonVersion": chosen["vpc-cni"]}
    assert recorder.inputs("soci-eks")["kubeProxyAddonOptions"] == {"version": "kube-proxy for 1.36, build 1"}


def test_of_an_add_on_with_a_chosen_version_nothing_is_asked_or_kept(recorder: Recorder, run) -> None:
    """A version that was kept meanwhile would be an old one on the day on which the choice is taken back."""
    chosen = {"coredns": "v1.12.1-eksbuild.2"}
    run(lambda: SociCluster("soci", {"sha256": DIGESTS, "addon_versions": chosen}).outputs())
    assert "soci-coredns-1.36" not in recorder.resources
    assert "soci-vpc-cni-1.36" in recorder.resources


def test_a_node_group_that_eks_gave_up_is_no_success(recorder: Recorder, run) -> None:
    """After a creation that failed the engine has the group in its state and only reads it."""
    recorder.node_group_status = "CREATE_FAILED"
    with pytest.raises(pulumi.RunError, match=r"is CREATE_FAILED. Remedy: .*pulumi up --replace URN"):
        run(lambda: SociCluster("soci", {"sha256": DIGESTS}).outputs())


def test_a_cluster_has_the_chosen_name_else_one_of_pulumis(recorder: Recorder, run) -> None:
    run(lambda: SociCluster("soci", {"sha256": DIGESTS, "cluster_name": "prod"}).outputs())
    assert recorder.inputs("soci-eks")["name"] == "prod"
    run(lambda: SociCluster("soci", {"sha256": DIGESTS}).outputs())
    assert "name" not in recorder.inputs("soci-eks")


def test_the_installer_selects_the_new_clusters_own_nodes_unless_others_are_chosen(
    recorder: Recorder, run
) -> None:
    """A node group that a team adds was selected, refused, and failed the next rollout."""

    def selected(**arguments: Any) -> dict[str, str]:
        run(lambda: SociCluster("soci", {"sha256": DIGESTS, **arguments}).outputs())
        spec = recorder.inputs("soci-installer-daemon-set")["spec"]
        return spec["template"]["spec"]["nodeSelector"]

    linux = {"kubernetes.io/os": "linux"}
    assert selected() == linux | pool_labels()
    assert pool_labels().items() <= recorder.inputs("soci-nodes")["labels"].items()
    gpu = {"pool": "gpu"}
    assert selected(node_selector=gpu, node_labels=gpu) == linux | {"pool": "gpu"}
    assert selected(**existing_cluster()) == linux


def test_what_was_made_can_be_built_upon(recorder: Recorder, run) -> None:
    made: dict[str, Any] = {}

    def program() -> dict[str, pulumi.Output[Any]]:
        made["new"] = SociCluster("soci", {"sha256": DIGESTS})
        made["existing"] = SociCluster("other", existing_cluster())
        return {"name": made["new"].cluster_name}

    run(program)
    new, existing = made["new"], made["existing"]
    assert isinstance(new.eks_cluster, eks.Cluster)
    assert list(new.node_groups) == ["nodes"]
    assert new.node_group is new.node_groups["nodes"]
    assert isinstance(new.provider, k8s.Provider)
    assert isinstance(existing.provider, k8s.Provider)
    assert (existing.eks_cluster, existing.node_groups, existing.node_group) == (None, {}, None)


def test_other_nodes_are_a_change_of_the_daemon_set_that_rolls_no_pod(recorder: Recorder, run) -> None:
    """Only a change of the DaemonSet makes `pulumi up` wait; one of its template would restart every pod."""

    def daemon_set(nodes: Any) -> tuple[str | None, dict[str, Any]]:
        run(install(nodes=nodes))
        inputs = recorder.inputs("soci-daemon-set")
        return inputs["metadata"]["annotations"].get("soci-cluster.io/nodes"), inputs["spec"]

    two, spec = daemon_set([pulumi.Output.from_input("group-1"), {"count": 2}])
    three, same_spec = daemon_set(["group-1", {"count": 3}])
    assert two != three
    assert spec == same_spec
    assert daemon_set(["group-1", {"count": 2}]) == (two, spec)
    assert daemon_set(None) == (None, spec)


def test_what_nodes_are_made_from_is_not_shown_in_the_cluster(recorder: Recorder, run) -> None:
    run(install(nodes={"userData": pulumi.Output.secret("hunter2")}))
    annotations = recorder.inputs("soci-daemon-set")["metadata"]["annotations"]
    assert "hunter2" not in json.dumps(annotations)
    assert re.fullmatch("[0-9a-f]{64}", annotations["soci-cluster.io/nodes"])


def test_a_resource_is_no_value_that_shows_a_change_of_nodes(recorder: Recorder, run) -> None:
    with pytest.raises(Exception, match=r"nodes: a Provider cannot be compared\. Remedy: pass what"):
        run(install(nodes=[k8s.Provider("group", kubeconfig="{}")]))


def test_each_namespace_has_names_of_its_own_for_what_is_outside_of_it(recorder: Recorder, run) -> None:
    """The second installer on a cluster was told that the first one's ClusterRole is there already."""

    def names(**arguments: str) -> dict[str, str]:
        run(install(**arguments))
        children = ("cluster-role", "cluster-role-binding", "daemon-set")
        return {child: recorder.inputs(f"soci-{child}")["metadata"]["name"] for child in children}

    assert set(names().values()) == {"soci-installer"}
    assert names(namespace="soci-gpu") == {
        "cluster-role": "soci-installer-soci-gpu",
        "cluster-role-binding": "soci-installer-soci-gpu",
        "daemon-set": "soci-installer",
    }
    role = recorder.inputs("soci-cluster-role")["metadata"]["name"]
    assert recorder.inputs("soci-cluster-role-binding")["roleRef"]["name"] == role


def test_the_cluster_is_read_with_the_providers_kubeconfig_unless_one_is_given(
    recorder: Recorder, run
) -> None:
    theirs, given = KUBECONFIG, KUBECONFIG.replace("192.0.2.1", "192.0.2.2")

    def access(*arguments: Any, **provider: Any) -> dict[str, pulumi.Output[Any]]:
        options = pulumi.ResourceOptions(providers=[k8s.Provider("cluster", **provider)])
        component = pulumi.ComponentResource("test:index:Reader", "reader", {}, options)
        return {"access": access_of(component, *arguments)}

    def read(*arguments: Any, **provider: Any) -> list[str]:
        return run(lambda: access(*arguments, **provider))["access"]

    assert read(None, None, kubeconfig=theirs, context="one") == [theirs, "one"]
    assert read(None, "two", kubeconfig=theirs, context="one") == [theirs, "two"]
    assert read(given, None, kubeconfig=theirs, context="one") == [given, ""]
    assert read(None, None) == ["", ""]
    assert read(None, None, kubeconfig="no kubeconfig") == ["", ""]
    # There the SDK knows nothing of a context that is not given.
    pulumi.runtime.set_mocks(recorder, project="soci", stack="test", preview=True)
    assert read(None, None, kubeconfig=theirs) == [theirs, ""]


@pytest.fixture(autouse=True)
def _reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing cluster answers, with its system namespace and nothing of ours."""
    live = SimpleNamespace(get={"/api/v1/namespaces/kube-system": {"metadata": {"uid": "uid-1"}}}.get)
    monkeypatch.setattr(cluster_identity, "connect", lambda *_: live)


def existing_cluster() -> SociClusterArgs:
    return {
        "cluster": "existing",
        "kubeconfig": KUBECONFIG,
        "sha256": DIGESTS,
        "sample_workload": {"enabled": False},
    }


def test_an_existing_cluster_gets_the_installer_only(recorder: Recorder, run) -> None:
    outputs = run(lambda: SociCluster("soci", existing_cluster()).outputs())
    assert (outputs["clusterName"], outputs["samplePod"]) == ("one", "")
    assert not [
        resource for resource in recorder.resources.values() if resource.typ.startswith(("aws:", "eks:"))
    ]
    assert recorder.of_type(":Job") == []
    assert recorder.inputs("soci-kubernetes")["clusterIdentifier"] == "uid-1"


def test_the_sample_runs_once_on_a_node_of_its_version(recorder: Recorder, run) -> None:
    def program():
        sample = SampleWorkload("sample", {"version": "v0.16.1", "image": "example/app:1", "command": []})
        return {"pod": sample.pod}

    assert run(program) == {"pod": "default/sample-job-1"}
    spec = recorder.inputs("sample-job")["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 600)
    assert spec["template"]["spec"] == {
        "restartPolicy": "Never",
        "nodeSelector": {"soci-cluster.io/version": "0.16.1"},
        "containers": [
            {
                "name": "sample",
                "image": "example/app:1",
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }


def test_a_bad_sample_is_refused_before_anything_exists(recorder: Recorder) -> None:
    with pytest.raises(SociConfigError, match=r"soci:sampleWorkload .*: image: not an image reference"):
        SampleWorkload("sample", {"version": "0.16.1", "image": "An Image"})
    assert recorder.resources == {}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"imgae": "example/app:1"}, r"soci:imgae \[not shown\]: is no argument of this component"),
        ({"mode": "lazy"}, r"soci:mode 'lazy': is no argument of this component"),
        ({"enabled": False}, r"soci:enabled \[not shown\]: is no argument of this component"),
        ({"timeout_seconds": "10m"}, r"soci:rolloutTimeoutSeconds '10m': must be a whole number of seconds"),
        ({"timeout_seconds": 1}, r"soci:rolloutTimeoutSeconds '1': must be a whole number of seconds"),
        ({"image": 5.5}, r"soci:sampleWorkload .*: image: must be text"),
    ],
)
def test_a_samples_argument_that_cannot_work_is_refused(recorder: Recorder, args: dict, told: str) -> None:
    with pytest.raises(SociConfigError, match=told):
        SampleWorkload("sample", cast(SampleWorkloadArgs, {"version": "0.16.1"} | args))
    assert recorder.resources == {}


def test_a_samples_argument_of_none_means_its_default(recorder: Recorder, run) -> None:
    none = dict.fromkeys(("version", "image", "command", "timeout_seconds", "kubeconfig", "context"))
    run(lambda: {"pod": SampleWorkload("sample", cast(SampleWorkloadArgs, none)).pod})
    run(lambda: {"pod": SampleWorkload("bare", cast(SampleWorkloadArgs, {})).pod})
    spec = recorder.inputs("sample-job")["spec"]
    assert spec["activeDeadlineSeconds"] == Settings().rollout_timeout_seconds
    assert spec["template"]["spec"]["nodeSelector"] == {"soci-cluster.io/version": Settings().version}
    (container,) = spec["template"]["spec"]["containers"]
    assert container["image"] == Settings().sample_workload.image
    assert tuple(container["command"]) == Settings().sample_workload.command
    assert recorder.inputs("bare-job")["spec"] == spec


def test_the_embedded_program_is_found_and_keys_are_unique() -> None:
    program = INSTALLER.files()
    assert {"agent/__main__.py", "host/00-head.sh", "soci-snapshotter.service"} <= set(program)
    assert len({key_of(path) for path in program}) == len(program)


def test_a_missing_program_is_told(tmp_path) -> None:
    with pytest.raises(pulumi.RunError, match="program is not in"):
        INSTALLER.files(tmp_path)


def test_a_program_too_large_for_a_config_map_is_refused(tmp_path) -> None:
    for part, size in (("agent/__main__.py", 999_999), ("host/00-head.sh", 1)):
        (tmp_path / part).parent.mkdir()
        (tmp_path / part).write_text("#" * size)
    with pytest.raises(pulumi.RunError, match="cannot be a ConfigMap: 1000000 bytes"):
        INSTALLER.files(tmp_path)


def test_nothing_from_the_program_directory_is_imported_here() -> None:
    assert INSTALLER.directory.name == "installer"


def test_components_have_a_schema_for_other_languages_with_every_input_described() -> None:
    served: list[type[pulumi.ComponentResource]] = [
        SociCluster,
        SociInstaller,
        SampleWorkload,
        ImageIndex,
        EcrImageIndex,
    ]
    schema = Analyzer("soci").analyze(served)["component_definitions"]
    assert set(schema) == {component.__name__ for component in served}
    undescribed = [
        (name, key)
        for name, component in schema.items()
        for key, item in component.inputs.items()
        if not item.description
    ]
    assert undescribed == []
    assert [key for key, item in schema["SociInstaller"].inputs.items() if not item.optional] == ["version"]
