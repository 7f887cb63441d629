"""The programs in examples/, each previewed by the engine with the package as it is installed.

A preview needs no API server: AWS is moto, and a cluster that exists already does not answer. Which resources
a program makes, with which types, names and parents, is held by golden files: a change of any of these
replaces what users have. `--rewrite-golden` writes them anew.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.eks_checks import NEEDED_ENDPOINTS
from tests.engine.conftest import Account
from tests.engine.project_stack import PATIENCE_S, REPOSITORY

FOLDER = REPOSITORY / "examples"
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = sorted(path.parent.name for path in FOLDER.glob("*/Pulumi.yaml"))
STACK = "dev"
RELEASES = "https://github.com/awslabs/soci-snapshotter/releases/download"
# Of a cluster that exists. Nothing listens there.
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "there",
    "clusters": [
        {
            "name": "there",
            "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": ""},
        }
    ],
    "contexts": [{"name": "there", "context": {"cluster": "there", "user": "somebody"}}],
    "users": [{"name": "somebody", "user": {"token": "stand-in"}}],
}

State = dict[str, Any]
Preview = Callable[[str], list[State]]


@pytest.fixture(scope="module")
def installed(package: Path, release_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, for which releases are on the tests' server: those of the examples are on the internet."""
    copy = shutil.copytree(package, tmp_path_factory.mktemp("installed") / "site")
    settings = copy / "soci_cluster/settings.py"
    text = settings.read_text()
    assert text.count(f'"{RELEASES}"') == 1
    settings.write_text(text.replace(RELEASES, release_url))
    return copy


@pytest.fixture(scope="module")
def preview(
    installed: Path, moto_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Preview]:
    """Previews an example, once, and returns the resources that it would make."""
    home = tmp_path_factory.mktemp("home")
    kubeconfig = home / ".kube/config"
    kubeconfig.parent.mkdir()
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    environment = {
        **moto_environment,
        "HOME": str(home),
        "PYTHONPATH": f"{installed}{os.pathsep}{moto_environment.get('PYTHONPATH', '')}",
        "SOCI_LAB_EKS": str(kubeconfig),
    }

    account = Account(moto_environment["AWS_ENDPOINT_URL"], Path(moto_environment["SOCI_LAB_AWS"]))

    @cache
    def resources(example: str) -> list[State]:
        directory = tmp_path_factory.mktemp("example") / example
        shutil.copytree(FOLDER / example, directory)
        have_what_it_names(directory / f"Pulumi.{STACK}.yaml", account)

        def pulumi(*arguments: str) -> str:
            done = subprocess.run(
                ["pulumi", *arguments, "--non-interactive"],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S * 3,  # of a machine that does much else
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        pulumi("stack", "init", STACK)
        steps = json.loads(pulumi("preview", "--json"))["steps"]
        assert {step["op"] for step in steps} == {"create"}
        return [step["newState"] for step in steps]

    yield resources
    client = account.client("eks")
    for cluster in client.list_clusters()["clusters"]:
        client.delete_cluster(name=cluster)


def have_what_it_names(stack_file: Path, account: Account) -> None:
    """Make in moto what an example takes for granted: its EKS cluster, and its VPC, whose IDs AWS chooses."""
    stack = yaml.safe_load(stack_file.read_text())
    names = {key.partition(":")[2]: key for key in stack["config"]}
    client = account.client("eks")
    cluster = stack["config"].get(names.get("clusterName"))
    if cluster and cluster not in client.list_clusters()["clusters"]:
        role = "arn:aws:iam::123456789012:role/any"
        network = {"subnetIds": closed_vpc(account)["privateSubnetIds"]}
        client.create_cluster(name=cluster, roleArn=role, resourcesVpcConfig=network)
    if "vpcId" in names:
        stack["config"] |= {names[name]: made for name, made in closed_vpc(account).items()}
        stack_file.write_text(yaml.safe_dump(stack))


def closed_vpc(account: Account) -> dict[str, Any]:
    """Make a VPC with two subnets and no way out but AWS's endpoints; what an example calls its parts."""
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = []
    for number, zone in enumerate(("eu-west-1a", "eu-west-1b")):
        network = f"10.0.{number}.0/24"
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=network, AvailabilityZone=zone)["Subnet"]
        subnets.append(made["SubnetId"])
    for service in NEEDED_ENDPOINTS:
        ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.eu-west-1.{service}")
    return {"vpcId": vpc, "privateSubnetIds": subnets}


def graph(resources: list[State]) -> str:
    """A line for each resource, its type and name, below its parent.

    Left out is what a component of pulumi-eks makes of itself: its names are not ours. So are the engine's
    default providers, which are called after the versions of the packages.
    """
    parents = {resource["urn"]: resource.get("parent", "") for resource in resources}
    below: dict[str, list[str]] = defaultdict(list)
    for urn, parent in parents.items():
        below[parent].append(urn)

    def lines(parent: str, depth: int) -> list[str]:
        found = []
        for urn in sorted(below[parent], key=title):
            if title(urn).startswith("pulumi:providers:") and "default" in title(urn):
                continue
            inner = [] if title(urn).startswith("eks:index:") else lines(urn, depth + 1)
            found += ["  " * depth + title(urn), *inner]
        return found

    return "\n".join(lines("", 0)) + "\n"


def title(urn: str) -> str:
    """The type and the name in a URN."""
    _, _, kinds, name = urn.split("::", 3)
    return f"{kinds.rpartition('$')[2]} {name}"


def inputs_of(resources: list[State], kind: str) -> State:
    """The inputs of the one resource of a type."""
    (found,) = [resource["inputs"] for resource in resources if resource["type"] == kind]
    return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_makes_the_resources_of_its_golden_file(
    example: str, preview: Preview, request: pytest.FixtureRequest
) -> None:
    made = graph(preview(example))
    golden = GOLDEN / f"{example}.txt"
    if request.config.getoption("--rewrite-golden"):
        golden.write_text(made)
    assert made == golden.read_text()


def test_each_golden_file_has_its_example() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == EXAMPLES


def test_there_are_examples_and_the_readme_links_each() -> None:
    assert len(EXAMPLES) >= 8
    text = (REPOSITORY / "README.md").read_text()
    assert [name for name in EXAMPLES if f"](examples/{name}/__main__.py)" not in text] == []


def test_examples_take_the_partition_from_aws() -> None:
    """In China and GovCloud ARNs begin otherwise, and registries have another domain."""
    fixed = re.compile(r"arn:aws:|\.dkr\.ecr\..*amazonaws\.com")
    programs = {path.parent.name: path.read_text() for path in FOLDER.glob("*/__main__.py")}
    assert [name for name, text in programs.items() if fixed.search(text)] == []


def test_examples_use_the_package_with_its_types(package: Path) -> None:
    check = [
        sys.executable,
        "-m",
        "ty",
        "check",
        "--output-format",
        "concise",
        "--extra-search-path",
        str(package),
        str(FOLDER),
    ]
    done = subprocess.run(check, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installer_of_an_own_cluster_waits_for_other_nodes_and_goes_with_the_cluster(
    preview: Preview,
) -> None:
    made = preview("own-eks-cluster")
    (daemon_set,) = [one for one in made if one["type"] == "kubernetes:apps/v1:DaemonSet"]
    assert "soci-cluster.io/nodes" in daemon_set["inputs"]["metadata"]["annotations"]
    (cluster,) = [one["urn"] for one in made if one["type"] == "eks:index:Cluster"]
    inside = [one for one in made if one["type"].startswith(("soci:", "kubernetes:"))]
    assert {one.get("deletedWith") for one in inside} == {cluster}


def test_transforms_reach_what_pulumi_eks_makes(preview: Preview) -> None:
    made = preview("transforms")
    assert inputs_of(made, "aws:ec2/launchTemplate:LaunchTemplate")["monitoring"] == {"enabled": True}
    cluster = inputs_of(made, "aws:eks/cluster:Cluster")
    assert cluster["deletionProtection"] is True
    assert cluster["enabledClusterLogTypes"] == ["audit", "authenticator"]


def test_group_that_is_filled_from_no_node_starts_tainted_and_the_autoscaler_knows(preview: Preview) -> None:
    made = preview("autoscaled-from-zero")
    groups = [resource["inputs"] for resource in made if resource["type"] == "aws:eks/nodeGroup:NodeGroup"]
    (batch,) = [group for group in groups if group["scalingConfig"]["desiredSize"] == 0]
    (taint,) = batch["taints"]
    autoscaler = inputs_of(made, "kubernetes:helm.sh/v3:Release")
    assert autoscaler["values"]["extraArgs"] == {"startup-taint": taint["key"]}
