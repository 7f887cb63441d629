"""What the `dev` stack makes, written by hand on pulumi-eks: the other side of the measurement of preview.py.

The same resources of AWS and Kubernetes, as a person would write them: without components, settings, checks
and reports; without the Stash resources in which SociCluster keeps what it has read (each add-on's build, the
line about the sample); and without probes, limits and owners on the objects in the cluster.
tests/engine/test_by_hand.py holds it to the types that the stack makes.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as k8s

INSTALLER = Path(os.environ["SOCI_BENCH_INSTALLER"])
VERSION, KUBERNETES = "0.16.1", "1.36"
POLICIES = (
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedEC2InstanceDefaultPolicy",
)
NAME, NAMESPACE = "soci-installer", "soci-system"
LABELS: Any = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/component": "installer",
    "app.kubernetes.io/version": VERSION,
    "app.kubernetes.io/managed-by": "pulumi",
}
RBAC = "rbac.authorization.k8s.io"
EVENTS: Any = {"api_groups": [""], "resources": ["events"], "verbs": ["create"]}


def add_on(name: str) -> pulumi.Output[str]:
    return aws.eks.get_addon_version_output(
        addon_name=name, kubernetes_version=KUBERNETES, most_recent=True
    ).version


def without_argument(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """What pulumi-eks has no argument for."""
    props: Any = args.props
    if args.type_ == "aws:eks/nodeGroup:NodeGroup":
        changed: Any = {"updateConfig": {"maxUnavailable": 1}}
    elif args.type_ == "aws:ec2/launchTemplate:LaunchTemplate":
        disk = {"volumeType": "gp3", "iops": 3000, "throughput": 600}
        mappings = [
            {**mapping, "ebs": {**mapping["ebs"], **disk}} for mapping in props["blockDeviceMappings"]
        ]
        metadata = {**props["metadataOptions"], "httpPutResponseHopLimit": 1}
        changed = {"blockDeviceMappings": mappings, "metadataOptions": metadata}
    else:
        return None
    return pulumi.ResourceTransformResult({**props, **changed}, args.opts)


def container(name: str, *arguments: str) -> Any:
    return {
        "name": name,
        "image": "public.ecr.aws/docker/library/python:3.13-alpine",
        "command": ["python3", "-B", "-m", "agent", *arguments],
        "working_dir": "/opt/soci-cluster",
        "env": [{"name": "NODE_NAME", "value_from": {"field_ref": {"field_path": "spec.nodeName"}}}],
        "security_context": {"privileged": True},
        "volume_mounts": [
            {"name": "program", "mount_path": "/opt/soci-cluster", "read_only": True},
            {"name": "host", "mount_path": "/host", "mount_propagation": "HostToContainer"},
        ],
    }


trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
cluster = eks.Cluster(
    "eks",
    version=KUBERNETES,
    authentication_mode=eks.AuthenticationMode.API,
    skip_default_node_group=True,
    vpc_cni_options={"addon_version": add_on("vpc-cni")},
    kube_proxy_addon_options={"version": add_on("kube-proxy")},
    coredns_addon_options={"enabled": False},
)
role = aws.iam.Role(
    "node-role", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
)
partition = aws.get_partition_output().partition
attached = [
    aws.iam.RolePolicyAttachment(
        policy,
        role=role.name,
        policy_arn=pulumi.Output.concat("arn:", partition, ":iam::aws:policy/", policy),
    )
    for policy in POLICIES
]
nodes = eks.ManagedNodeGroup(
    "nodes",
    cluster=cluster,
    node_role_arn=role.arn,
    operating_system=eks.OperatingSystem.AL2023,
    instance_types=["m6i.xlarge"],
    disk_size=100,
    enable_imd_sv2=True,
    labels={"soci-cluster.io/pool": "soci"},
    taints=[{"key": "soci-cluster.io/not-ready", "value": "true", "effect": "NO_SCHEDULE"}],
    scaling_config={"desired_size": 2, "min_size": 1, "max_size": 4},
    opts=pulumi.ResourceOptions(depends_on=attached, transforms=[without_argument]),
)
provider = k8s.Provider(
    "kubernetes", kubeconfig=cluster.kubeconfig_json, cluster_identifier=cluster.eks_cluster.arn
)
inside = pulumi.ResourceOptions(provider=provider, depends_on=[nodes], deleted_with=cluster)
namespace = k8s.core.v1.Namespace(
    "namespace",
    metadata={
        "name": NAMESPACE,
        "labels": {**LABELS, "pod-security.kubernetes.io/enforce": "privileged"},
    },
    opts=inside,
)
home: Any = {"name": NAME, "namespace": namespace.metadata["name"], "labels": LABELS}
subject: Any = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace.metadata["name"]}
account = k8s.core.v1.ServiceAccount("account", metadata=home, opts=inside)
everywhere = k8s.rbac.v1.ClusterRole(
    "cluster-role",
    metadata={"name": NAME, "labels": LABELS},
    rules=[
        {"api_groups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
        {"api_groups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        EVENTS,
    ],
    opts=inside,
)
k8s.rbac.v1.ClusterRoleBinding(
    "cluster-role-binding",
    metadata={"name": NAME, "labels": LABELS},
    role_ref={"api_group": RBAC, "kind": "ClusterRole", "name": everywhere.metadata["name"]},
    subjects=[subject],
    opts=inside,
)
own: list[Any] = [
    {"api_groups": ["apps"], "resources": ["daemonsets"], "resource_names": [NAME], "verbs": ["get"]},
    {"api_groups": [""], "resources": ["namespaces"], "resource_names": [NAMESPACE], "verbs": ["get"]},
    {"api_groups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
]
role = k8s.rbac.v1.Role("role", metadata=home, rules=own, opts=inside)
k8s.rbac.v1.RoleBinding(
    "role-binding",
    metadata=home,
    role_ref={"api_group": RBAC, "kind": "Role", "name": role.metadata["name"]},
    subjects=[subject],
    opts=inside,
)
files = {path.name: path.read_text() for path in sorted(INSTALLER.rglob("*")) if path.is_file()}
config_map = k8s.core.v1.ConfigMap(
    "program",
    metadata={
        "namespace": namespace.metadata["name"],
        "labels": LABELS,
        "annotations": {"sha256": hashlib.sha256("".join(files.values()).encode()).hexdigest()},
    },
    data=files,
    opts=inside,
)
made = nodes.node_group
daemon_set = k8s.apps.v1.DaemonSet(
    "daemon-set",
    metadata={
        **home,
        "annotations": {"nodes": pulumi.Output.json_dumps([made.id, made.launch_template, made.version])},
    },
    spec={
        "selector": {"match_labels": {"app.kubernetes.io/name": NAME}},
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "service_account_name": NAME,
                "host_pid": True,
                "dns_policy": "Default",
                "priority_class_name": "system-node-critical",
                "tolerations": [{"operator": "Exists"}],
                "node_selector": {"kubernetes.io/os": "linux", "soci-cluster.io/pool": "soci"},
                "containers": [container("installer"), container("credentials", "credentials")],
                "volumes": [
                    {"name": "program", "config_map": {"name": config_map.metadata["name"]}},
                    {"name": "host", "host_path": {"path": "/", "type": "Directory"}},
                ],
            },
        },
    },
    opts=inside,
)
later = pulumi.ResourceOptions.merge(inside, pulumi.ResourceOptions(depends_on=[daemon_set]))
k8s.batch.v1.Job(
    "sample",
    spec={
        "backoff_limit": 0,
        "template": {
            "spec": {
                "restart_policy": "Never",
                "node_selector": {"soci-cluster.io/version": VERSION},
                "containers": [
                    {
                        "name": "sample",
                        "image": "public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest",
                        "command": ["python3", "-c", "print('ready')"],
                    }
                ],
            }
        },
    },
    opts=later,
)
aws.eks.Addon(
    "coredns",
    addon_name="coredns",
    addon_version=add_on("coredns"),
    cluster_name=cluster.eks_cluster.name,
    resolve_conflicts_on_create="OVERWRITE",
    resolve_conflicts_on_update="PRESERVE",
    opts=later,
)
pulumi.export("clusterName", cluster.eks_cluster.name)
pulumi.export("kubeconfig", pulumi.Output.secret(cluster.kubeconfig_json))
