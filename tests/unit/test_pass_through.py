"""soci:eksCluster and soci:eksNodeGroup: pulumi-eks's own arguments, and those that are SociCluster's."""

import json
from typing import Any, cast

import pulumi
import pulumi_eks as eks
import pytest

from components import SociCluster, SociClusterArgs, SociConfigError, from_config, pass_through
from components.settings import _FIELDS
from tests.unit.mocks import DIGESTS, Recorder


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
        f"soci:eksCluster.version '1.35': is what soci:kubernetesVersion sets. {rm} soci:eksCluster.version",
        "soci:eksCluster.vpcCniOptions.addonVersion 'v1': is what soci:addonVersions sets. "
        f"{rm} soci:eksCluster.vpcCniOptions.addonVersion",
        "soci:eksCluster.authenticationMode 'CONFIG_MAP': the nodes and their creator get in by access "
        f"entries (API). {rm} soci:eksCluster.authenticationMode",
        f"soci:eksCluster.gpu 'null': the nodes are those of soci:nodeGroups. {rm} soci:eksCluster.gpu",
        "soci:eksNodeGroup.instanceTypes '[\"m7g.large\"]': is what soci:instanceTypes sets. "
        f"{rm} soci:eksNodeGroup.instanceTypes",
        f"soci:eksNodeGroup.taints '[]': is what soci:nodeTaints sets. {rm} soci:eksNodeGroup.taints",
        "soci:nodeGroups.gpu.eksNodeGroup.diskSize '5': is what soci:volumeGiB sets. "
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
        } <= _FIELDS.keys()
    made(run, tags={"a": "b"}, node_taints=["a:NoSchedule"], capacity_type="spot", autoscaled=True)
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


def test_transforms_of_the_user_reach_whatever_is_inside(recorder: Recorder, run) -> None:
    seen: list[str] = []

    def look(args: pulumi.ResourceTransformArgs) -> None:
        seen.append(args.type_)

    options = pulumi.ResourceOptions(transforms=[look])
    run(lambda: SociCluster("soci", {"sha256": DIGESTS}, options).outputs())
    assert recorder.resources["soci"].transforms == [look]
