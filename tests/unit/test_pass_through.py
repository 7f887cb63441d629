"""soci:eksCluster and soci:eksNodeGroup: pulumi-eks's own arguments, and those that are SociCluster's."""

import json
from typing import Any, cast

import pulumi
import pulumi_eks as eks
import pytest
from pulumi._types import input_type_py_to_pulumi_names

from components import (
    SociCluster,
    SociClusterArgs,
    SociConfigError,
    eks_cluster,
    from_config,
    node_groups,
    pass_through,
)
from components.settings import FIELDS, Settings
from tests.unit.mocks import DIGESTS, Recorder, transformed


def made(run, **args: Any) -> None:
    run(lambda: SociCluster("soci", cast(SociClusterArgs, {"sha256": DIGESTS} | args)).outputs())


def test_arguments_of_pulumi_eks_reach_it_in_its_own_words(recorder: Recorder, run) -> None:
    made(
        run,
        eks_cluster_options={
            "kubernetesServiceIpAddressRange": "10.1.0.0/16",
            "enabledClusterLogTypes": ["api"],
            "endpointPrivateAccess": True,
        },
        eks_node_group_options={"releaseVersion": "1.36.0-20260801"},
        node_groups={"a": {}, "b": {"eks_node_group_options": {"forceUpdateVersion": True}}},
    )
    cluster = recorder.inputs("soci-eks")
    assert (cluster["kubernetesServiceIpAddressRange"], cluster["enabledClusterLogTypes"]) == (
        "10.1.0.0/16",
        ["api"],
    )
    assert (cluster["endpointPrivateAccess"], cluster["authenticationMode"]) == (True, "API")
    assert recorder.inputs("soci-a")["releaseVersion"] == "1.36.0-20260801"
    own = recorder.inputs("soci-b")
    assert (own["forceUpdateVersion"], "releaseVersion" in own) == (True, False)


def test_objects_are_merged_entry_by_entry_and_lists_replaced() -> None:
    props = {"a": {"b": {"c": 1, "d": [1, 2]}, "e": 1}, "f": [1], "g": {"h": 1}}
    options = {"a": {"b": {"d": [3]}, "x": None}, "f": [2], "g": 5}
    assert pass_through.merged(props, options) == {
        "a": {"b": {"c": 1, "d": [3]}, "e": 1, "x": None},
        "f": [2],
        "g": 5,
    }
    assert props["a"] == {"b": {"c": 1, "d": [1, 2]}, "e": 1}


def test_what_socicluster_sets_itself_is_refused_with_the_setting_that_stands_for_it() -> None:
    config = {
        "soci:eksCluster": json.dumps(
            {
                "version": "1.35",
                "authenticationMode": "CONFIG_MAP",
                "gpu": None,
                "vpcCniOptions": {"addonVersion": "v1", "enablePrefixDelegation": True},
            }
        ),
        "soci:eksNodeGroup": json.dumps({"instanceTypes": ["m7g.large"], "taints": []}),
        "soci:nodeGroups": json.dumps({"gpu": {"eksNodeGroup": {"diskSize": 5}}}),
    }
    with pytest.raises(SociConfigError) as refused:
        from_config(config)
    rm = "Remedy: pulumi config rm --path"
    assert str(refused.value).splitlines() == [
        "soci:eksCluster.version [not shown]: is what soci:kubernetesVersion sets. "
        f"{rm} soci:eksCluster.version",
        "soci:eksCluster.vpcCniOptions.addonVersion [not shown]: is what soci:addonVersions sets. "
        f"{rm} soci:eksCluster.vpcCniOptions.addonVersion",
        "soci:eksCluster.authenticationMode [not shown]: the nodes and their creator get in by access "
        f"entries (API). {rm} soci:eksCluster.authenticationMode",
        f"soci:eksCluster.gpu [not shown]: the nodes are those of soci:nodeGroups. {rm} soci:eksCluster.gpu",
        "soci:eksNodeGroup.instanceTypes [not shown]: is what soci:instanceTypes sets. "
        f"{rm} soci:eksNodeGroup.instanceTypes",
        f"soci:eksNodeGroup.taints [not shown]: is what soci:nodeTaints sets. {rm} soci:eksNodeGroup.taints",
        "soci:nodeGroups.gpu.eksNodeGroup.diskSize [not shown]: is what soci:volumeGiB sets. "
        f"{rm} soci:nodeGroups.gpu.eksNodeGroup.diskSize",
    ]


@pytest.mark.parametrize(
    ("component", "settings", "fixed"),
    [
        (eks.Cluster, pass_through._CLUSTER_SETTINGS, pass_through._CLUSTER_FIXED),
        (eks.ManagedNodeGroup, pass_through._NODE_GROUP_SETTINGS, pass_through._NODE_GROUP_FIXED),
    ],
)
def test_every_argument_that_is_set_here_is_owned(
    component: Any, settings: Any, fixed: Any, recorder: Recorder, run
) -> None:
    """An option for one that is not listed would silently win over what SociCluster relies on."""
    for setting in settings.values():
        assert {
            name.removeprefix("soci:") for name in setting.replace(" and", ",").split(", ")
        } <= FIELDS.keys()
    made(run, tags={"a": "b"}, node_taints=["a:PreferNoSchedule"], capacity_type="spot", autoscaled=True)
    made(run, vpc_id="vpc-1", subnet_ids=["subnet-1", "subnet-2"], node_subnet_ids=["subnet-1"])
    name = {eks.Cluster: "soci-eks", eks.ManagedNodeGroup: "soci-nodes"}[component]
    owned = {path.partition(".")[0] for path in (*settings, *fixed)}
    assert recorder.inputs(name).keys() - owned == set()


def test_an_argument_that_pulumi_eks_does_not_have_is_warned_of(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be ignored without a word."""
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_: told.append(text))
    made(
        run,
        eks_cluster_options={"nmae": "a", "enabledClusterLogTypes": ["api"]},
        eks_node_group_options={"enableEfaSupport": False, "diskSzie": 5},
    )
    assert [text.partition(":")[2].partition(" ")[0] for text in told] == [
        "eksCluster.nmae:",
        "eksNodeGroup.diskSzie:",
    ]


def test_names_are_compared_as_pulumi_eks_writes_them_and_each_is_said_once(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_: told.append(text))
    made(run, eks_node_group_options={"releaseversion": "1"}, node_groups={"a": {}, "b": {}})
    assert [text.partition(" ")[0] for text in told] == ["soci:eksNodeGroup.releaseversion:"]


@pytest.mark.parametrize("arguments", [eks.ClusterArgs, eks.ManagedNodeGroupArgs])
def test_every_argument_of_pulumi_eks_is_known_by_its_name(arguments: type) -> None:
    # enableIMDSv2 follows no rule; it is SociCluster's own.
    names = {*input_type_py_to_pulumi_names(arguments).values()} - {"enableIMDSv2"}
    assert names <= pass_through.names(arguments)


def test_a_fixed_name_of_a_group_is_refused() -> None:
    """The engine would delete the old group before its successor is there."""
    with pytest.raises(SociConfigError) as refused:
        from_config({"soci:eksNodeGroup": json.dumps({"nodeGroupName": "gpu"})})
    assert str(refused.value) == (
        "soci:eksNodeGroup.nodeGroupName [not shown]: a group of a fixed name is deleted before its "
        "successor is there, and one of nodeGroupNamePrefix is not. "
        "Remedy: pulumi config rm --path soci:eksNodeGroup.nodeGroupName"
    )


@pytest.mark.parametrize("key", ["soci:eksCluster", "soci:eksNodeGroup", "soci:nodeGroups"])
def test_what_the_configuration_calls_a_secret_is_one_for_pulumi_eks(
    key: str, recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Settings(
        eks_cluster_options={"vpcCniOptions": {"customNetworkConfig": "hidden"}},
        eks_node_group_options={"releaseVersion": "hidden"},
    )
    cluster, group = eks_cluster._transforms(shape)[0], node_groups._transforms(shape)[0]
    given = {"vpcCniOptions": {"addonVersion": "v1"}, "name": "shown"}

    def program() -> dict[str, pulumi.Output[Any]]:
        made = {
            "cluster": transformed("eks:index:Cluster", "c", given, [cluster])[0],
            "group": transformed("eks:index:ManagedNodeGroup", "g", {"name": "shown"}, [group])[0],
        }
        values = {name: pulumi.Output.from_input(props) for name, props in made.items()}
        secret = {
            f"{name}.{entry}": pulumi.Output.from_input(item).is_secret()
            for name, props in made.items()
            for entry, item in props.items()
        }
        hidden = {name: pulumi.Output.from_input(is_secret) for name, is_secret in secret.items()}
        return {**values, "hidden": pulumi.Output.all(**hidden)}

    pulumi.runtime.set_all_config({}, [key])
    try:
        found = run(program)
    finally:
        pulumi.runtime.set_all_config({}, [])
    assert found["cluster"]["vpcCniOptions"] == {"addonVersion": "v1", "customNetworkConfig": "hidden"}
    assert found["group"]["releaseVersion"] == "hidden"
    of_cluster = key == "soci:eksCluster"
    assert found["hidden"] == {
        "cluster.vpcCniOptions": of_cluster,
        "cluster.name": False,
        "group.releaseVersion": not of_cluster,
        "group.name": False,
    }


def test_transforms_of_the_user_reach_whatever_is_inside(recorder: Recorder, run) -> None:
    seen: list[str] = []

    def look(args: pulumi.ResourceTransformArgs) -> None:
        seen.append(args.type_)

    options = pulumi.ResourceOptions(transforms=[look])
    run(lambda: SociCluster("soci", {"sha256": DIGESTS}, options).outputs())
    assert look in recorder.resources["soci"].transforms
