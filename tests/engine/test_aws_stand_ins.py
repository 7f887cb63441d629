"""The stand-ins of AWS and pulumi-eks: what is known of the true ones' behaviour, they must share."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aws_resources import kind_of, taint_change

from tests.engine.conftest import Account
from tests.engine.fake_cluster import FakeNodes
from tests.engine.project_stack import QUIET, Project

pytestmark = pytest.mark.slow

GROUP = "aws:eks/nodeGroup:NodeGroup"
PROGRAM = """
import json
import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

config = pulumi.Config()
given = {part: config.get_object(part) or {} for part in ("cluster", "group")}
trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
role = aws.iam.Role("nodes", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))


def everything_is_tagged(args):
    if args.type_.startswith(("aws:eks/cluster", "aws:eks/nodeGroup", "aws:ec2/launchTemplate")):
        return pulumi.ResourceTransformResult({**args.props, "tags": {"seen": "yes"}}, args.opts)


cluster = eks.Cluster(
    "own",
    version="1.35",
    authentication_mode="API",
    skip_default_node_group=True,
    tags={"team": "a"},
    **given["cluster"],
    opts=pulumi.ResourceOptions(transforms=[everything_is_tagged] if config.get("transform") else None),
)
defaults = {
    "instance_types": ["m6i.xlarge"],
    "disk_size": 50,
    "enable_imd_sv2": True,
    "labels": {"pool": "one"},
    "taints": [{"key": "startup", "value": "true", "effect": "NO_SCHEDULE"}],
    "scaling_config": {"desired_size": 2, "min_size": 1, "max_size": 4},
}
group = eks.ManagedNodeGroup(
    "group",
    cluster=cluster,
    node_role_arn=role.arn,
    operating_system="AL2023",
    **{**defaults, **given["group"]},
    opts=pulumi.ResourceOptions(transforms=[everything_is_tagged] if config.get("transform") else None),
)


def kind(nested):
    return [type(nested).__name__, isinstance(nested, dict)]


made = group.node_group
pulumi.export("kinds", [made.launch_template.apply(kind), made.scaling_config.apply(kind)])
pulumi.export("kubeconfigs", [cluster.kubeconfig_json, cluster.kubeconfig.apply(json.dumps)])
pulumi.export("profiled", cluster.get_kubeconfig(profile_name="team", role_arn="arn:aws:iam::1:role/x"))
"""
SIZES = {"desiredSize": 2, "minSize": 1, "maxSize": 4}


@pytest.mark.parametrize(
    ("token", "old", "new", "changed", "replaced"),
    [
        (GROUP, {"instanceTypes": ["a"]}, {"instanceTypes": ["b"]}, 1, True),
        (GROUP, {"subnetIds": ["a", "b"]}, {"subnetIds": ["b", "a"]}, 0, False),
        (GROUP, {"subnetIds": ["a", "b"]}, {"subnetIds": ["c", "a", "b"]}, 1, True),
        (GROUP, {"scalingConfig": SIZES}, {"scalingConfig": {**SIZES, "maxSize": 5}}, 1, False),
        (GROUP, {"version": "1.35"}, {"version": "1.36"}, 1, False),
        (GROUP, {"version": "1.35", "amiType": "a"}, {}, 0, False),
        (GROUP, {"amiType": "a"}, {"amiType": "b"}, 1, True),
        (
            GROUP,
            {"launchTemplate": {"id": "a", "version": "1"}},
            {"launchTemplate": {"id": "a", "version": "2"}},
            1,
            False,
        ),
        (GROUP, {"launchTemplate": {"id": "a"}}, {"launchTemplate": {"id": "b"}}, 1, True),
        (GROUP, {"diskSize": 20}, {"launchTemplate": {"id": "b"}}, 1, True),
        ("aws:eks/addon:Addon", {"addonVersion": "1"}, {"addonVersion": "2"}, 1, False),
        ("aws:eks/addon:Addon", {"clusterName": "1"}, {"clusterName": "2"}, 1, True),
        (
            "aws:eks/cluster:Cluster",
            {"vpcConfig": {"subnetIds": ["a"]}},
            {"vpcConfig": {"subnetIds": ["a", "b"]}},
            1,
            False,
        ),
        ("aws:eks/cluster:Cluster", {"roleArn": "a"}, {"roleArn": "b"}, 1, True),
        ("aws:eks/accessEntry:AccessEntry", {"principalArn": "a"}, {"principalArn": "b"}, 1, True),
        ("aws:ec2/launchTemplate:LaunchTemplate", {"userData": "a"}, {"userData": "b"}, 1, False),
    ],
)
def test_what_terraform_replaces(
    token: str, old: dict[str, Any], new: dict[str, Any], changed: int, replaced: bool
) -> None:
    changes = kind_of(token).changes(old, new)
    tops = {path.split(".")[0].split("[")[0] for path in changes}
    assert (len(tops), bool(kind_of(token).replaces(changes))) == (changed, replaced)


def test_a_taint_that_stays_is_never_sent_again() -> None:
    startup = {"key": "startup", "effect": "NO_SCHEDULE", "value": "true"}
    own = {"key": "own", "effect": "NO_EXECUTE"}
    assert taint_change([startup], [startup, own]) == {"addOrUpdateTaints": [own]}
    assert taint_change([startup, own], [startup]) == {"removeTaints": [own]}
    assert taint_change([startup, own], [own, startup]) == {}


@pytest.fixture(autouse=True)
def _told_nothing(account: Account) -> None:
    """Every test begins with an account of which nothing special was told."""


@pytest.fixture(scope="module")
def project(
    answering: FakeNodes, aws_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A cluster and a node group on pulumi-eks, which the tests from here on take through their life."""
    project = Project(tmp_path_factory.mktemp("own"), aws_environment, PROGRAM)
    project.config(**{"aws:region": "eu-west-1", "aws:profile": "team"})
    yield project
    done = project.pulumi("destroy", *QUIET)
    assert done.returncode == 0, done.stdout


def of_type(project: Project, token: str) -> dict[str, dict[str, Any]]:
    """Return {name: resource} of a type in the state."""
    found = [item for item in project.resources() if item["type"] == token]
    return {item["urn"].rpartition("::")[2]: item for item in found}


def names_of_nodes(cluster: FakeNodes) -> set[str]:
    return {node["metadata"]["name"] for node in cluster.api.call("GET", "/api/v1/nodes")["items"]}


def groups(account: Account) -> dict[str, dict[str, Any]]:
    """Return {name: description} of the node groups in moto."""
    eks = account.client("eks")
    return {
        name: eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]
        for cluster in eks.list_clusters()["clusters"]
        for name in eks.list_nodegroups(clusterName=cluster)["nodegroups"]
    }


def test_the_components_make_what_the_true_ones_make(project: Project, cluster: FakeNodes) -> None:
    project.up()
    made = {"::".join(item["urn"].split("::")[2:]).rsplit("$", 1)[-1] for item in project.resources()}
    assert made >= {
        "eks:index:ServiceRole::own-eksRole",
        "aws:iam/role:Role::own-eksRole-role",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment::own-eksRole-4b490823",
        "aws:ec2/securityGroup:SecurityGroup::own-eksClusterSecurityGroup",
        "aws:ec2/securityGroup:SecurityGroup::own-nodeSecurityGroup",
        "aws:ec2/securityGroupRule:SecurityGroupRule::own-eksClusterIngressRule",
        "aws:eks/cluster:Cluster::own-eksCluster",
        "aws:eks/addon:Addon::own-kube-proxy",
        "eks:index:VpcCniAddon::own-vpc-cni",
        "aws:eks/addon:Addon::own-vpc-cni",
        "pulumi:providers:kubernetes::own-eks-k8s",
        "aws:ec2/launchTemplate:LaunchTemplate::group-launchTemplate",
        "aws:eks/nodeGroup:NodeGroup::group",
    }
    template = of_type(project, "aws:ec2/launchTemplate:LaunchTemplate")["group-launchTemplate"]["inputs"]
    assert template["blockDeviceMappings"] == [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 50}}]
    assert template["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpPutResponseHopLimit": 2,
        "httpTokens": "required",
    }
    assert not template.keys() & {"tags", "tagSpecifications", "userData", "imageId"}
    group = of_type(project, GROUP)["group"]["inputs"]
    assert (group["amiType"], group["launchTemplate"]["version"]) == ("AL2023_x86_64_STANDARD", "1")
    assert "diskSize" not in group
    assert len(group["subnetIds"]) == 3
    assert len(names_of_nodes(cluster)) == 2


def test_a_kubeconfig_has_the_profile_only_when_it_is_asked_for(project: Project) -> None:
    outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
    assert len(outputs["kubeconfigs"]) == 2
    assert not [content for content in outputs["kubeconfigs"] if "team" in content]
    arguments = json.loads(outputs["profiled"])["users"][0]["user"]["exec"]["args"]
    assert arguments[-4:] == ["--role", "arn:aws:iam::1:role/x", "--profile", "team"]
    provider = of_type(project, "pulumi:providers:kubernetes")["own-eks-k8s"]
    assert "--profile" in provider["inputs"]["kubeconfig"]


def test_nested_values_of_the_components_node_group_are_those_of_the_aws_package(project: Project) -> None:
    """So they are with the true component; the digest of a SociInstaller's `nodes` needs them to be dicts."""
    outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
    assert outputs["kinds"] == [["NodeGroupLaunchTemplate", True], ["NodeGroupScalingConfig", True]]


def test_a_second_up_and_a_refresh_find_nothing(project: Project) -> None:
    project.up("--expect-no-changes")
    done = project.pulumi("refresh", *QUIET, "--expect-no-changes")
    assert done.returncode == 0, done.stdout


def test_add_ons_follow_what_aws_released_unless_their_builds_are_pinned(
    project: Project, account: Account
) -> None:
    account.tell(addons={name: {"mostRecent": "v9.0.0-eksbuild.1"} for name in ("vpc-cni", "kube-proxy")})
    both = {"aws:eks/addon:Addon::own-vpc-cni": "update", "aws:eks/addon:Addon::own-kube-proxy": "update"}
    assert project.plan() == both
    builds = [item["inputs"]["addonVersion"] for item in of_type(project, "aws:eks/addon:Addon").values()]
    project.config(
        cluster={
            "vpc_cni_options": {"addon_version": builds[1]},
            "kube_proxy_addon_options": {"version": builds[0]},
        }
    )
    assert set(project.plan()) <= set(both)
    project.config(cluster={})


def test_a_new_subnet_of_the_default_vpc_replaces_the_node_group(project: Project, account: Account) -> None:
    ec2 = account.client("ec2")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.96.0/20")["Subnet"]["SubnetId"]
    try:
        plan = project.plan()
    finally:
        ec2.delete_subnet(SubnetId=subnet)
    assert plan["aws:eks/cluster:Cluster::own-eksCluster"] == "update"
    assert plan[f"{GROUP}::group"] == "replace"


def test_an_autoscaled_group_goes_back_only_after_a_refresh_or_with_another_size(
    project: Project, account: Account, cluster: FakeNodes
) -> None:
    (group,) = groups(account).values()
    account.client("eks").update_nodegroup_config(
        clusterName=group["clusterName"],
        nodegroupName=group["nodegroupName"],
        scalingConfig={"desiredSize": 3},
    )
    project.up("--expect-no-changes")
    assert project.plan() == {}
    project.config(group={"labels": {"pool": "two"}})
    project.up()
    (group,) = groups(account).values()
    assert (group["scalingConfig"]["desiredSize"], group["labels"]) == (3, {"pool": "two"})
    project.up("--refresh")
    (group,) = groups(account).values()
    assert group["scalingConfig"]["desiredSize"] == len(names_of_nodes(cluster)) == 2


def test_a_replaced_group_is_there_before_the_old_one_goes(
    project: Project, account: Account, cluster: FakeNodes
) -> None:
    before, old = set(groups(account)), names_of_nodes(cluster)
    project.config(group={"instance_types": ["m7g.large"], "labels": {"pool": "two"}})
    done = project.up()
    assert done.index("created replacement") < done.index("deleted original")
    (name,) = groups(account)
    assert name not in before
    assert len(names_of_nodes(cluster)) == 2
    assert not names_of_nodes(cluster) & old
    assert of_type(project, GROUP)["group"]["inputs"]["amiType"] == "AL2023_ARM_64_STANDARD"


def test_a_larger_disk_rolls_the_nodes_within_the_group(
    project: Project, account: Account, cluster: FakeNodes
) -> None:
    before, old = set(groups(account)), names_of_nodes(cluster)
    project.config(group={"instance_types": ["m7g.large"], "labels": {"pool": "two"}, "disk_size": 60})
    plan = project.plan()
    assert plan[f"{GROUP}::group"] == "update"
    project.up()
    assert set(groups(account)) == before
    assert len(names_of_nodes(cluster)) == 2
    assert not names_of_nodes(cluster) & old
    template = of_type(project, "aws:ec2/launchTemplate:LaunchTemplate")["group-launchTemplate"]
    assert template["outputs"]["latestVersion"] == 2
    project.up("--expect-no-changes")


def test_transforms_reach_what_the_components_make(project: Project) -> None:
    project.config(transform="yes")
    project.up()
    for token in ("aws:eks/cluster:Cluster", "aws:ec2/launchTemplate:LaunchTemplate", GROUP):
        (made,) = of_type(project, token).values()
        assert made["inputs"]["tags"] == {"seen": "yes"}, token


def test_a_core_dns_add_on_waits_for_a_node_that_takes_pods(project: Project, account: Account) -> None:
    account.tell(addonSeconds=1)
    project.config(cluster={"coredns_addon_options": {"enabled": True}})
    done = project.pulumi("up", *QUIET)
    assert done.returncode != 0
    assert "last state: 'DEGRADED'" in done.stdout
    project.config(cluster={})
    project.up()


def test_a_forbidden_function_is_denied(project: Project, account: Account) -> None:
    account.tell(forbidden=["aws:ec2/getVpc:*"])
    done = project.pulumi("preview", "--non-interactive")
    assert done.returncode != 0
    assert "AccessDenied" in done.stdout


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (
            {"ami_type": "AL2023_ARM_64_NVIDIA"},
            "Cannot determine OS of unknown AMI type: AL2023_ARM_64_NVIDIA",
        ),
        ({"instance_types": ["m6i.large", "m7g.large"]}, "do not share a common architecture"),
        ({"launch_template": {"id": "lt-1", "version": "1"}}, "If you provide a custom launch template"),
        ({"gpu": True, "instance_types": ["g5g.xlarge"]}, "No AMI type found for OS: AL2023"),
    ],
)
def test_what_the_component_refuses(project: Project, group: dict[str, Any], words: str) -> None:
    project.config(group=group)
    done = project.pulumi("preview", "--non-interactive")
    project.config(group={})
    assert done.returncode != 0
    assert words in done.stdout
