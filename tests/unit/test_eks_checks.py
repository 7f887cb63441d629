"""Each guard of EKS: its exact sentence, and its silence beside it."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pytest

from components import eks_checks
from components.configuration import from_arguments, from_config
from components.guards import GUARDS, Answers, Guard, Plan
from components.problems import Finding, SociConfigError, of_finding
from components.settings import INSTALLER_SCOPES, SampleSettings, Settings
from tests.unit.mocks import TODAY

IGW = {"cidrBlock": "0.0.0.0/0", "gatewayId": "igw-1", "natGatewayId": ""}
NAT = {"cidrBlock": "0.0.0.0/0", "gatewayId": "", "natGatewayId": "nat-1"}
LOCAL = {"cidrBlock": "10.0.0.0/16", "gatewayId": "local", "natGatewayId": ""}
S3 = {"cidrBlock": "", "gatewayId": "vpce-1", "natGatewayId": ""}
PEER = {"cidrBlock": "10.1.0.0/16", "gatewayId": "", "transitGatewayId": "tgw-1"}


def subnet(zone: str = "euw1-az1", *, public: bool = False, vpc: str = "vpc-1") -> dict[str, Any]:
    return {"vpcId": vpc, "availabilityZoneId": zone, "mapPublicIpOnLaunch": public, "region": "eu-west-1"}


OURS = {"vpc_id": "vpc-1", "subnet_ids": ("subnet-a", "subnet-b")}
TWO_ZONES = {"subnet-a": subnet(), "subnet-b": subnet("euw1-az2")}
ISOLATED = {"subnets": TWO_ZONES, "routes": {"subnet-a": [LOCAL, S3], "subnet-b": [NAT]}}
PRIVATE_API = {"eks_cluster_options": {"endpointPrivateAccess": True}}
LAZY_GATE = (
    "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  featureGates: {FastImagePull: true}\n"
)
MIRROR = {
    "release_url": "https://mirror.internal/soci",
    "installer_image": "1.dkr.ecr.eu-west-1.amazonaws.com/python:3.13",
    "sample_workload": SampleSettings(image="mirror.internal/sample:1"),
}
M5_XLARGE = {"ebsPerformanceMaximumThroughput": 593.75, "supportedArchitectures": ["x86_64"]}


NO_NODE = (
    "nodeCount: without a node SOCI is nowhere installed, and CoreDNS, for which pulumi up waits, does not "
    "start. Remedy: pulumi config set soci:nodeCount 1"
)
OVERRIDDEN = (
    "eksNodeGroup: the kubelet takes the last register-with-taints only, and the nodes would start without "
    "the taint that keeps workloads away until SOCI is there. "
    "Remedy: pulumi config set --path 'soci:nodeTaints[0]' KEY=VALUE:NoSchedule"
)


def unselected(label: str, *, is_free: bool = False) -> str:
    return (
        f"nodeSelector: the nodes of the group nodes do not have {label}, so that no installer comes to lift "
        "the taint that they start with. "
        "Remedy: pulumi config rm soci:nodeSelector"
        + (", or that label for the group in soci:nodeLabels" if is_free else "")
    )


@dataclass(frozen=True)
class Case:
    """What a guard says of some settings and answers: its findings as `key: reason. Remedy: …`."""

    guard: str
    settings: Mapping[str, Any]
    said: tuple[str, ...] = ()
    aws: Mapping[str, Any] = field(default_factory=dict)


CASES = [
    # The nodes
    Case(
        "type_without_ami",
        {"instance_types": ("m6i.xlarge", "g4ad.xlarge")},
        (
            "instanceTypes: no AMI of EKS has a driver for the accelerator of g4ad.xlarge. Remedy: "
            "take a type "
            "with a driver, such as g5.xlarge or inf2.xlarge, or set soci:amiType to "
            "AL2023_x86_64_STANDARD and "
            "bring the driver",
        ),
    ),
    Case(
        "type_without_ami",
        {"instance_types": ("m6i",)},
        (
            "instanceTypes: m6i is not named as EC2 instance types are, such as m6i.xlarge. "
            "Remedy: pulumi config set --path 'soci:instanceTypes[0]' m6i.xlarge",
        ),
    ),
    Case("type_without_ami", {"instance_types": ("g5.xlarge", "trn1.2xlarge")}),
    Case("type_without_ami", {"instance_types": ("g4ad.xlarge",), "ami_type": "AL2023_x86_64_STANDARD"}),
    Case(
        "type_without_ami",
        {"instance_types": ("g4ad.xlarge",), "eks_node_group_options": {"amiId": "ami-1"}},
    ),
    Case(
        "types_with_different_amis",
        {"instance_types": ("m6i.xlarge", "m7g.xlarge")},
        (
            "instanceTypes: m6i.xlarge needs the AMI AL2023_x86_64_STANDARD and m7g.xlarge needs "
            "AL2023_ARM_64_STANDARD, and the nodes of a group have one. Remedy: keep the types like "
            "m6i.xlarge, "
            "and make those like m7g.xlarge a group of their own in soci:nodeGroups",
        ),
    ),
    Case("types_with_different_amis", {"instance_types": ("m6i.xlarge", "r7a.large")}),
    Case("types_with_different_amis", {"instance_types": ("m6i.xlarge", "g4ad.xlarge")}),
    Case(
        "ami_of_another_architecture",
        {"instance_types": ("m7g.xlarge",), "ami_type": "AL2023_x86_64_STANDARD"},
        (
            "amiType: AL2023_x86_64_STANDARD is for amd64, and m7g.xlarge is arm64. "
            "Remedy: pulumi config rm soci:amiType",
        ),
    ),
    Case(
        "ami_of_another_architecture",
        {"instance_types": ("m7g.xlarge",), "ami_type": "AL2023_ARM_64_STANDARD"},
    ),
    Case(
        "ami_without_driver",
        {"instance_types": ("g5.xlarge",), "ami_type": "AL2023_x86_64_STANDARD"},
        (
            "amiType: AL2023_x86_64_STANDARD has no driver for the accelerator of g5.xlarge. "
            "Remedy: pulumi config rm soci:amiType",
        ),
    ),
    Case(
        "ami_without_driver",
        {"instance_types": ("g4ad.xlarge",), "ami_type": "AL2023_x86_64_STANDARD"},
        (
            "amiType: AL2023_x86_64_STANDARD has no driver for the accelerator of g4ad.xlarge. "
            "Remedy: bring the driver in a DaemonSet",
        ),
    ),
    Case(
        "ami_without_driver",
        {"instance_types": ("g5.xlarge", "inf2.xlarge"), "ami_type": "AL2023_x86_64_NVIDIA"},
        (
            "amiType: AL2023_x86_64_NVIDIA has no driver for the accelerator of inf2.xlarge. "
            "Remedy: pulumi config rm soci:amiType",
        ),
    ),
    Case(
        "ami_without_driver",
        {"instance_types": ("g5.xlarge",), "ami_type": "AL2023_x86_64_NEURON"},
        (
            "amiType: AL2023_x86_64_NEURON has no driver for the accelerator of g5.xlarge. "
            "Remedy: pulumi config rm soci:amiType",
        ),
    ),
    Case("ami_without_driver", {"instance_types": ("g5.xlarge",), "ami_type": "AL2023_x86_64_NVIDIA"}),
    Case("ami_without_driver", {"instance_types": ("trn1.2xlarge",), "ami_type": "AL2023_x86_64_NEURON"}),
    Case("ami_without_driver", {"instance_types": ("m6i.xlarge",), "ami_type": "AL2023_x86_64_NVIDIA"}),
    Case("ami_without_driver", {"instance_types": ("g5.xlarge",), "ami_type": "AL2023_x86_64_NEWER"}),
    Case("ami_without_driver", {"instance_types": ("m6i.xlarge",), "ami_type": "AL2023_x86_64_STANDARD"}),
    Case(
        "too_little_memory",
        {"instance_types": ("t3.micro",)},
        (
            "instanceTypes: t3.micro has 1 GiB of memory and room for 4 pods, too little for the "
            "cluster's own "
            "pods and SOCI (at least 2 GiB). Remedy: pulumi config set --path "
            "'soci:instanceTypes[0]' m6i.xlarge",
        ),
    ),
    Case("too_little_memory", {"instance_types": ("t3.small", "m6i.metal")}),
    Case(
        "less_memory_than_named",
        {"instance_types": ("m1.small", "t3.small")},
        (
            "instanceTypes: m1.small has 1.7 GiB of memory, too little for the cluster's own pods and "
            "SOCI (at least 2 GiB). Remedy: pulumi config set --path 'soci:instanceTypes[0]' m6i.xlarge",
        ),
        {"instance_types": {"m1.small": {"memorySize": 1740}, "t3.small": {"memorySize": 2048}}},
    ),
    Case(
        "less_memory_than_named",
        {"instance_types": ("t3.micro", "m1.small", "m6i.xlarge")},
        aws={"instance_types": {"t3.micro": {"memorySize": 1024}, "m1.small": {}}},
    ),
    Case(
        "too_few_processors",
        {"instance_types": ("m6i.large",), "mode": "lazy-or-parallel"},
        (
            "instanceTypes: with 2 processors, m6i.large pulls in parallel no faster than containerd "
            "does alone "
            "(at least 4). Remedy: pulumi config set soci:mode lazy, or larger instances",
        ),
    ),
    Case("too_few_processors", {"instance_types": ("m6i.xlarge", "m6i.metal"), "mode": "parallel"}),
    Case("too_few_processors", {"instance_types": ("m6i.large",)}),
    Case(
        "second_soci",
        {"eks_node_group_options": {"nodeadmExtraOptions": [{"contentType": "x", "content": LAZY_GATE}]}},
        (
            "eksNodeGroup: nodeadm's FastImagePull turns on the AMI's own SOCI, and both write the "
            "same files. "
            "Remedy: take FastImagePull out of the NodeConfig",
        ),
    ),
    Case(
        "second_soci",
        {"eks_node_group_options": {"userData": base64.b64encode(LAZY_GATE.encode()).decode()}},
        (
            "eksNodeGroup: nodeadm's FastImagePull turns on the AMI's own SOCI, and both write the "
            "same files. "
            "Remedy: take FastImagePull out of the NodeConfig",
        ),
    ),
    Case(
        "second_soci",
        {"eks_node_group_options": {"featureGates": {"FastImagePull": False}, "userData": "#!/bin/sh"}},
    ),
    Case(
        "no_node",
        {"node_count": 0},
        (NO_NODE,),
    ),
    Case("no_node", {"node_count": 1}),
    Case("no_node", {"node_count": 0, "require_nodes": False}, (NO_NODE,)),
    Case(
        "no_node",
        {"node_groups": {"a": {}, "b": {}}, "node_count": 0},
        (NO_NODE.replace("nodeCount:", "nodeGroups.nodes.nodeCount:"),),
    ),
    Case(
        "no_open_node",
        {"node_taints": ("gpu=yes:NoSchedule",)},
        (
            "nodeTaints: CoreDNS's pods tolerate none of these taints, and pulumi up waits for them. "
            "Remedy: pulumi config rm soci:nodeTaints, or a further group without taints in soci:nodeGroups",
        ),
    ),
    # CoreDNS is also there without SOCI.
    Case(
        "no_open_node",
        {"node_taints": ("gpu=yes:NoExecute",), "state": "absent"},
        (
            "nodeTaints: CoreDNS's pods tolerate none of these taints, and pulumi up waits for them. "
            "Remedy: pulumi config rm soci:nodeTaints, or a further group without taints in soci:nodeGroups",
        ),
    ),
    Case(
        "no_open_node",
        {"node_taints": ("CriticalAddonsOnly=true:NoSchedule",)},
        (
            "sampleWorkload: its pod tolerates none of the taints that each node has. "
            "Remedy: pulumi config set --path soci:sampleWorkload.enabled false",
        ),
    ),
    Case("no_open_node", {"node_taints": ("CriticalAddonsOnly:NoSchedule",), "state": "absent"}),
    Case("no_open_node", {"node_taints": ("gpu=yes:PreferNoSchedule",)}),
    # The guard before it says that.
    Case("no_open_node", {"node_taints": ("gpu=yes:NoSchedule",), "node_count": 0}),
    Case(
        "unselected_group",
        {"node_selector": {"soci-cluster.io/pool": "other", "kubernetes.io/os": "windows"}},
        (
            unselected("soci-cluster.io/pool=other"),
            unselected("kubernetes.io/os=windows"),
        ),
    ),
    Case(
        "unselected_group",
        {
            "node_selector": {"kubernetes.io/arch": "arm64", "team": "b", "gpu": "yes"},
            "node_labels": {"team": "a"},
        },
        (
            unselected("kubernetes.io/arch=arm64"),
            unselected("team=b", is_free=True),
            unselected("gpu=yes", is_free=True),
        ),
    ),
    Case(
        "unselected_group",
        {
            "node_selector": {
                "soci-cluster.io/pool": "soci",
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": "some",
                "team": "a",
                "eks.amazonaws.com/capacityType": "SPOT",
                "topology.kubernetes.io/zone": "eu-west-1a",
            },
            "node_labels": {"team": "a"},
        },
    ),
    # Its NodeConfig may give the label.
    Case(
        "unselected_group",
        {
            "node_selector": {"gpu": "yes"},
            "eks_node_group_options": {"kubeletExtraArgs": "--node-labels=gpu=yes"},
        },
    ),
    Case(
        "overridden_taint",
        {"eks_node_group_options": {"kubeletExtraArgs": "--register-with-taints=a=b:NoSchedule"}},
        (OVERRIDDEN,),
    ),
    Case(
        "overridden_taint",
        {"eks_node_group_options": {"nodeadmExtraOptions": [{"content": "registerWithTaints: []"}]}},
        (OVERRIDDEN,),
    ),
    Case("overridden_taint", {"eks_node_group_options": {"kubeletExtraArgs": "--max-pods=20"}}),
    Case(
        "voided_budgets",
        {"eks_node_group_options": {"forceUpdateVersion": True}},
        (
            "eksNodeGroup: with forceUpdateVersion EKS replaces nodes against the PodDisruptionBudgets. "
            "Remedy: pulumi config rm --path soci:eksNodeGroup.forceUpdateVersion",
        ),
    ),
    Case("voided_budgets", {"eks_node_group_options": {"forceUpdateVersion": "false"}}),
    # Their volumes
    Case(
        "impossible_volume",
        {"volume_throughput": 1000, "volume_iops": 3000},
        ("volumeIops: 1000 MiB/s need 4000 operations per second. Remedy: pulumi config rm soci:volumeIops",),
    ),
    Case(
        "impossible_volume",
        {"volume_gib": 200, "volume_iops": 90000},
        (
            "volumeIops: gp3 has at most 80000 operations per second. "
            "Remedy: pulumi config set soci:volumeIops 80000",
        ),
    ),
    Case(
        "impossible_volume",
        {"volume_gib": 30, "volume_iops": 16000},
        (
            "volumeGiB: 16000 operations per second need 32 GiB of gp3. "
            "Remedy: pulumi config set soci:volumeGiB 32",
        ),
    ),
    Case("impossible_volume", {"volume_throughput": 2000}),
    Case("impossible_volume", {"volume_type": "io2", "volume_iops": 90000}),
    Case(
        "slow_volume",
        {"volume_throughput": 125},
        (
            "volumeThroughput: images are written and read at 125 MiB/s at most. "
            "Remedy: pulumi config set soci:volumeThroughput 600",
        ),
    ),
    Case("slow_volume", {"volume_throughput": 200}),
    Case(
        "slow_volume", {"volume_throughput": 125, "instance_types": ("m6id.xlarge",), "instance_store": True}
    ),
    Case(
        "volume_beyond_instance",
        {"instance_types": ("m5.xlarge",)},
        (
            "volumeThroughput: m5.xlarge reaches its volumes at 566 MiB/s at most, and 600 MiB/s are "
            "paid for. "
            "Remedy: pulumi config set soci:volumeThroughput 566",
        ),
        {"instance_types": {"m5.xlarge": M5_XLARGE}},
    ),
    Case(
        "volume_beyond_instance",
        {"instance_types": ("m5.xlarge",), "volume_throughput": 566},
        aws={"instance_types": {"m5.xlarge": M5_XLARGE}},
    ),
    Case(
        "sample_larger_than_volume",
        {"volume_gib": 20},
        (
            "volumeGiB: the sample's image takes 9.6 GiB, and 20 GiB are for the system, too. "
            "Remedy: pulumi config set soci:volumeGiB 21",
        ),
    ),
    Case("sample_larger_than_volume", {"volume_gib": 21}),
    Case("sample_larger_than_volume", {"volume_gib": 20, "sample_workload": SampleSettings(enabled=False)}),
    Case("sample_larger_than_volume", {"volume_gib": 20, "sample_workload": SampleSettings(image="mine:1")}),
    # The cluster
    Case(
        "impossible_tags",
        {"tags": {"AWS:team": "a", "b" * 129: "", "c#": "d", "e": "aws:f"}},
        (
            "tags: AWS:team: the prefix aws: is AWS's own. Remedy: pulumi config rm --path "
            "'soci:tags[\"AWS:team\"]'",
            "tags: bbbbbbbbbbbbbbbbbbbb: AWS takes names of 1 to 128 characters, and values of at most 256. "
            f"Remedy: pulumi config rm --path 'soci:tags[\"{'b' * 129}\"]'",
            "tags: c#: AWS takes letters, digits, blanks and _ . : / = + - @. "
            "Remedy: pulumi config rm --path 'soci:tags[\"c#\"]'",
            "tags: e: the prefix aws: is AWS's own. Remedy: pulumi config rm --path 'soci:tags[\"e\"]'",
        ),
    ),
    Case(
        "impossible_tags",
        {"tags": {f"tag-{number}": "" for number in range(51)}},
        ("tags: AWS takes 50 tags, and these are 51. Remedy: pulumi config rm --path soci:tags.NAME",),
    ),
    Case(
        "impossible_tags", {"tags": {"team": "größe, no".replace(",", ""), "cost:center/1": "a=b+c@d.e_f-g"}}
    ),
    Case(
        "unsupported_version",
        {"kubernetes_version": "1.29"},
        (
            "kubernetesVersion: EKS no longer carries Kubernetes 1.29. Remedy: pulumi config set "
            "soci:kubernetesVersion 1.32, one release at a time up to 1.36",
        ),
    ),
    Case("unsupported_version", {"kubernetes_version": "1.32"}),
    Case(
        "dear_version",
        {"kubernetes_version": "1.33"},
        (
            "kubernetesVersion: Kubernetes 1.33 has been in extended support since 2026-07-29: the "
            "cluster costs "
            "$0.60 an hour instead of $0.10, and from 2027-07-29 on EKS upgrades it by itself. "
            "Remedy: pulumi config set soci:kubernetesVersion 1.34, one release at a time up to 1.36",
        ),
    ),
    Case("dear_version", {"kubernetes_version": "1.35"}),
    Case("dear_version", {"kubernetes_version": "1.29"}),
    Case(
        "version_not_carried",
        {"kubernetes_version": "1.37"},
        ("kubernetesVersion: EKS carries 1.35, 1.36. Remedy: pulumi config set soci:kubernetesVersion 1.36",),
        {"versions": {"1.36": "STANDARD_SUPPORT", "1.35": "STANDARD_SUPPORT", "1.29": "UNSUPPORTED"}},
    ),
    Case(
        "version_not_carried",
        {"kubernetes_version": "1.33"},
        (
            "kubernetesVersion: EKS carries 1.35, 1.36. "
            "Remedy: pulumi config set soci:kubernetesVersion 1.35, one release at a time up to 1.36",
        ),
        {"versions": {"1.36": "STANDARD_SUPPORT", "1.35": "STANDARD_SUPPORT"}},
    ),
    Case("version_not_carried", {}, aws={"versions": {"1.36": "EXTENDED_SUPPORT"}}),
    # Its network
    Case(
        "no_default_vpc",
        {},
        (
            "vpcId: this account has no default VPC in the region. "
            "Remedy: pulumi config set soci:vpcId vpc-…, or aws ec2 create-default-vpc",
        ),
        {"default_vpc": ""},
    ),
    Case("no_default_vpc", {}, aws={"default_vpc": "vpc-1"}),
    Case(
        "strange_subnet",
        OURS,
        (
            "subnetIds: subnet-a does not exist in this account and region. "
            "Remedy: pulumi config set --path 'soci:subnetIds[0]' subnet-…",
            "subnetIds: subnet-b is in vpc-2, and not in vpc-1. "
            "Remedy: pulumi config set --path 'soci:subnetIds[1]' subnet-…",
        ),
        {"subnets": {"subnet-a": {}, "subnet-b": subnet(vpc="vpc-2")}},
    ),
    # The control plane is in the default VPC, and the nodes must be there, too.
    Case(
        "strange_subnet",
        {"node_subnet_ids": ("subnet-a", "subnet-b")},
        (
            "nodeSubnetIds: subnet-b is in vpc-2, and not in vpc-1. "
            "Remedy: pulumi config set --path 'soci:nodeSubnetIds[1]' subnet-…",
        ),
        {"default_vpc": "vpc-1", "subnets": {"subnet-a": subnet(), "subnet-b": subnet(vpc="vpc-2")}},
    ),
    Case("strange_subnet", OURS, aws={"subnets": TWO_ZONES}),
    Case(
        "refused_zone",
        OURS,
        (
            "subnetIds: subnet-a is in the zone use1-az3, where EKS makes no control plane. "
            "Remedy: pulumi config set --path 'soci:subnetIds[0]' subnet-…",
        ),
        {"subnets": {"subnet-a": subnet("use1-az3"), "subnet-b": subnet("use1-az1")}},
    ),
    # Nodes may be there.
    Case(
        "refused_zone",
        {**OURS, "node_subnet_ids": ("subnet-c",)},
        aws={"subnets": {**TWO_ZONES, "subnet-c": subnet("use1-az3")}},
    ),
    Case(
        "one_zone",
        OURS,
        (
            "subnetIds: all subnets are in the zone euw1-az1, and EKS needs two zones. "
            "Remedy: pulumi config set --path 'soci:subnetIds[1]' subnet-…",
        ),
        {"subnets": {"subnet-a": subnet(), "subnet-b": subnet()}},
    ),
    # Of the default VPC those are left out that EKS refuses.
    Case(
        "one_zone",
        {},
        (
            "vpcId: all subnets are in the zone use1-az1, and EKS needs two zones. "
            "Remedy: pulumi config set soci:vpcId vpc-…, with soci:subnetIds in two zones",
        ),
        {
            "default_vpc": "vpc-1",
            "default_subnets": ["subnet-a", "subnet-b", "subnet-c"],
            "subnets": {
                "subnet-a": subnet("use1-az1"),
                "subnet-b": subnet("use1-az3"),
                # A local zone.
                "subnet-c": subnet("use1-bos1-az1"),
            },
        },
    ),
    Case(
        "one_zone",
        {},
        (
            "vpcId: the default VPC vpc-1 has no subnet in a zone where EKS makes a control plane. "
            "Remedy: pulumi config set soci:vpcId vpc-…, with soci:subnetIds in two zones",
        ),
        {
            "default_vpc": "vpc-1",
            "default_subnets": ["subnet-b"],
            "subnets": {"subnet-b": subnet("use1-az3")},
        },
    ),
    Case(
        "one_zone",
        {"vpc_id": "vpc-1", "private_subnet_ids": ("subnet-a", "subnet-b")},
        (
            "privateSubnetIds: all subnets are in the zone euw1-az1, and EKS needs two zones. "
            "Remedy: pulumi config set --path 'soci:privateSubnetIds[1]' subnet-…",
        ),
        {"subnets": {"subnet-a": subnet(), "subnet-b": subnet()}},
    ),
    Case("one_zone", {}, aws={"default_vpc": "vpc-1"}),
    Case("one_zone", OURS, aws={"subnets": TWO_ZONES}),
    Case("one_zone", OURS, aws={"subnets": {"subnet-a": subnet()}}),
    Case(
        "public_without_address",
        OURS,
        (
            "subnetIds: subnet-a is public but gives its nodes no public address, so that they reach "
            "nothing. Remedy: aws ec2 modify-subnet-attribute --subnet-id subnet-a "
            "--map-public-ip-on-launch, or "
            "private subnets",
        ),
        {"subnets": TWO_ZONES, "routes": {"subnet-a": [LOCAL, IGW], "subnet-b": [LOCAL, NAT]}},
    ),
    Case(
        "public_without_address",
        OURS,
        aws={"subnets": {"subnet-a": subnet(public=True)}, "routes": {"subnet-a": [IGW], "subnet-b": [IGW]}},
    ),
    # Only the control plane is there.
    Case(
        "public_without_address",
        {**OURS, "node_subnet_ids": ("subnet-b",)},
        aws={"subnets": TWO_ZONES, "routes": {"subnet-a": [IGW], "subnet-b": [NAT]}},
    ),
    Case(
        "no_endpoints",
        OURS,
        (
            "subnetIds: subnet-a has no way out, and its VPC has no endpoint for ec2, s3. "
            "Remedy: make a NAT gateway or these endpoints",
        ),
        {**ISOLATED, "endpoints": {"ec2": False, "ecr.api": True, "s3": False}},
    ),
    Case(
        "no_endpoints", OURS, aws={**ISOLATED, "endpoints": dict.fromkeys(eks_checks.NEEDED_ENDPOINTS, True)}
    ),
    # The way to a shared VPC may lead to its endpoints, and a NodeConfig may name a proxy.
    Case("no_endpoints", OURS, aws={"routes": {"subnet-a": [LOCAL, PEER]}, "endpoints": {"ec2": False}}),
    Case(
        "no_endpoints",
        {**OURS, "eks_node_group_options": {"nodeadmExtraOptions": []}},
        aws={**ISOLATED, "endpoints": {"ec2": False}},
    ),
    Case(
        "no_private_api",
        OURS,
        (
            "subnetIds: subnet-a has no way out, and the API server has no address in the VPC. "
            "Remedy: pulumi config set --path soci:eksCluster.endpointPrivateAccess true",
        ),
        ISOLATED,
    ),
    Case("no_private_api", {**OURS, **PRIVATE_API}, aws=ISOLATED),
    Case("no_private_api", OURS, aws={"routes": {"subnet-a": [NAT], "subnet-b": [NAT]}}),
    Case(
        "no_mirror",
        OURS,
        (
            "installerImage: the nodes in subnet-a have no way out to public.ecr.aws. Remedy: pulumi "
            "config set "
            "soci:installerImage MIRROR, in the VPC or in your ECR",
            "releaseUrl: the nodes in subnet-a have no way out to github.com. Remedy: pulumi config set "
            "soci:releaseUrl MIRROR, in the VPC or in your ECR",
            "sampleWorkload: the nodes in subnet-a have no way out to public.ecr.aws. Remedy: pulumi "
            "config set "
            "--path soci:sampleWorkload.image MIRROR, in the VPC or in your ECR",
        ),
        ISOLATED,
    ),
    Case(
        "no_mirror",
        {**OURS, "state": "absent"},
        (
            "installerImage: the nodes in subnet-a have no way out to public.ecr.aws. Remedy: pulumi "
            "config set soci:installerImage MIRROR, in the VPC or in your ECR",
        ),
        ISOLATED,
    ),
    Case("no_mirror", {**OURS, **MIRROR}, aws=ISOLATED),
    Case(
        "type_not_offered",
        {"instance_types": ("p9.xlarge",)},
        (
            "instanceTypes: EC2 has no p9.xlarge in this region. "
            "Remedy: pulumi config set --path 'soci:instanceTypes[0]' TYPE",
        ),
        {"zones": {"p9.xlarge": []}},
    ),
    Case(
        "type_not_offered",
        {**OURS, "instance_types": ("p5.48xlarge",)},
        (
            "instanceTypes: EC2 has p5.48xlarge only in euw1-az3, and the group is elsewhere. "
            "Remedy: pulumi config set --path 'soci:instanceTypes[0]' TYPE, or subnets there",
        ),
        {"subnets": TWO_ZONES, "zones": {"p5.48xlarge": ["euw1-az3"]}},
    ),
    Case("type_not_offered", OURS, aws={"subnets": TWO_ZONES, "zones": {"m6i.xlarge": ["euw1-az2"]}}),
    Case("type_not_offered", OURS, aws={"zones": {"m6i.xlarge": ["euw1-az3"]}}),
    Case(
        "misread_type",
        {"instance_types": ("m20x.xlarge",)},
        (
            "instanceTypes: m20x.xlarge is arm64, which its name does not show. "
            "Remedy: pulumi config set soci:amiType TYPE",
        ),
        {"instance_types": {"m20x.xlarge": {"supportedArchitectures": ["arm64"]}}},
    ),
    Case(
        "misread_type", {"instance_types": ("m5.xlarge",)}, aws={"instance_types": {"m5.xlarge": M5_XLARGE}}
    ),
]


def guard(name: str) -> Guard:
    return next(one for one in GUARDS if one.check is getattr(eks_checks, name))


def said(name: str, settings: Any, groups: Mapping[str, Any], aws: Answers) -> tuple[str, ...]:
    found = guard(name).check(Plan(settings, groups, TODAY, aws))
    return tuple(f"{one.key}: {one.reason}. Remedy: {one.remedy}" for one in found)


@pytest.mark.failure_mode(50)
@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{one.guard}" for number, one in enumerate(CASES)])
def test_a_guard_says_what_is_wrong_and_nothing_else(case: Case) -> None:
    shape = Settings(**case.settings)
    assert said(case.guard, shape, {"nodes": shape}, Answers(**case.aws)) == case.said


@pytest.mark.parametrize("case", [one for one in CASES if one.aws and one.said], ids=lambda one: one.guard)
def test_a_guard_that_asks_aws_is_silent_without_an_answer(case: Case) -> None:
    shape = Settings(**case.settings)
    assert said(case.guard, shape, {"nodes": shape}, Answers()) == ()
    assert guard(case.guard).rights


def test_every_guard_has_a_case_in_which_it_speaks_and_one_in_which_it_does_not() -> None:
    checks = [one.check for one in GUARDS]
    names = {name for name, item in vars(eks_checks).items() if item in checks}
    assert {one.guard for one in CASES if one.said} == names
    assert {one.guard for one in CASES if not one.said} == names


def test_the_defaults_are_refused_by_none_and_warned_of_by_none() -> None:
    shape = Settings()
    assert eks_checks.refusals(shape, {"nodes": shape}) == []
    assert eks_checks.warnings(shape, {"nodes": shape}) == []


def test_what_is_wrong_with_one_of_several_groups_has_the_path_to_it() -> None:
    cpu = Settings(node_groups={"cpu": {}, "gpu": {}})
    gpu = replace(cpu, volume_iops=3000, volume_throughput=1000, instance_types=("g5.xlarge",))
    assert eks_checks.refusals(cpu, {"cpu": cpu, "gpu": gpu}) == [
        (
            "nodeGroups.gpu.volumeIops",
            "1000 MiB/s need 4000 operations per second",
            "pulumi config rm soci:volumeIops",
        )
    ]


def test_a_group_that_the_selector_leaves_out_is_named() -> None:
    both = Settings(node_groups={"cpu": {}, "gpu": {}}, node_selector={"pool": "gpu"})
    gpu = replace(both, node_labels={"pool": "gpu"})
    (told,) = said("unselected_group", both, {"cpu": both, "gpu": gpu}, Answers())
    assert "the nodes of the group cpu do not have pool=gpu" in told


def test_one_group_without_taints_beside_another_is_right() -> None:
    tainted = Settings(node_groups={"one": {}, "two": {}}, node_taints=("gpu=yes:NoSchedule",))
    plain = replace(tainted, node_taints=())
    assert said("no_open_node", tainted, {"one": tainted, "two": plain}, Answers()) == ()
    empty = replace(plain, node_count=0)
    (told,) = said("no_open_node", tainted, {"one": tainted, "two": empty}, Answers())
    assert told.startswith("nodeGroups.one.nodeTaints: CoreDNS's pods tolerate none")


def test_nodes_are_in_the_subnets_of_their_group_else_in_the_private_ones_else_in_all() -> None:
    both = Settings(public_subnet_ids=("subnet-a",), private_subnet_ids=("subnet-b",))
    own = replace(both, node_groups={"one": {}}, node_subnet_ids=("subnet-c",))
    public = Settings(public_subnet_ids=("subnet-a",))
    found = [
        eks_checks.node_subnets(plan, next(plan.shapes()))
        for plan in (
            Plan(both, {"nodes": both}, TODAY),
            Plan(own, {"one": own}, TODAY),
            Plan(public, {"nodes": public}, TODAY),
        )
    ]
    assert found == [
        {"subnet-b": "privateSubnetIds"},
        {"subnet-c": "nodeGroups.one.nodeSubnetIds"},
        {"subnet-a": "publicSubnetIds"},
    ]


def test_one_group_without_nodes_beside_another_is_right() -> None:
    empty = Settings(node_groups={"one": {}, "two": {}}, node_count=0)
    full = replace(empty, node_count=1)
    assert said("no_node", empty, {"one": full, "two": empty}, Answers()) == ()


def test_what_aws_answers_is_refused_and_warned_of_apart() -> None:
    shape = Settings(instance_types=("m5.xlarge",))
    answers = Answers(default_vpc="", instance_types={"m5.xlarge": M5_XLARGE})
    groups = {"nodes": shape}
    assert [one.key for one in eks_checks.refusals_by_aws(shape, groups, answers)] == ["vpcId"]
    assert [one.key for one in eks_checks.warnings_by_aws(shape, groups, answers)] == ["volumeThroughput"]


def told(**config: Any) -> list[str]:
    raw = {
        f"soci:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()
    }
    with pytest.raises(SociConfigError) as refused:
        from_config(raw)
    return [line.partition(": ")[2].partition(" Remedy: ")[2] for line in str(refused.value).splitlines()]


def test_what_a_group_takes_from_the_flat_key_is_removed_there() -> None:
    graviton = {"instanceTypes": ["m7g.large"]}
    ami = "AL2023_x86_64_STANDARD"
    assert told(amiType=ami, nodeGroups={"a": graviton}) == ["pulumi config rm soci:amiType"]
    assert told(nodeGroups={"a": {**graviton, "amiType": ami}}) == [
        "pulumi config rm --path soci:nodeGroups.a.amiType"
    ]


def test_an_entry_of_a_list_is_replaced_where_the_list_is() -> None:
    """In a group without the list, Pulumi would refuse a second entry without a first."""
    groups = {"a": {}, "b": {"node_subnet_ids": ["subnet-a", "subnet-b"]}}
    chosen = Settings(node_groups=groups, node_subnet_ids=("subnet-c", "subnet-b"))
    replaced = "pulumi config set --path 'soci:nodeSubnetIds[1]' subnet-…"
    found = [Finding(f"nodeGroups.{name}.nodeSubnetIds", "no", replaced) for name in groups]
    lines = [of_finding(chosen, one) for one in found]
    assert [line.partition(" Remedy: ")[2] for line in lines] == [
        replaced,
        "pulumi config set --path 'soci:nodeGroups.b.nodeSubnetIds[1]' subnet-…",
    ]


def test_of_the_installer_alone_no_cluster_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cluster is another one's: any release, any labels."""
    monkeypatch.setattr(eks_checks, "_today", lambda: date(2040, 1, 1))
    chosen = from_arguments({"node_selector": {"pool": "gpu"}}, INSTALLER_SCOPES)
    assert chosen.node_selector == {"pool": "gpu"}
