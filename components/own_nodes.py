"""What node groups need that SociCluster did not make: the startup taint and the pool's label, in the words
of each kind of group, what cluster-autoscaler has to know of them, and a kubeconfig by a cluster's name.

Karpenter's part is in karpenter.py.
"""

import json
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws  # aws.ec2 is never touched: it would add half of the program's start time
import pulumi_eks as eks
import yaml

from .names import DOMAIN, STARTUP_TAINT

Taint = Mapping[str, str]
"""A taint as Kubernetes writes it: `{"key": ..., "value": ..., "effect": "NoSchedule"}`."""

STARTUP: Taint = {"key": STARTUP_TAINT, "value": "true", "effect": "NoSchedule"}
NODE_CONFIG_TYPE = "application/node.eks.aws"
_HINT = "k8s.io/cluster-autoscaler/node-template"


def pool_labels(pool: str = "soci") -> dict[str, str]:
    """The label of the nodes that get SOCI, and the `node_selector` of the SociInstaller that serves them."""
    return {f"{DOMAIN}/pool": pool}


def managed_group_taints() -> "list[aws.eks.NodeGroupTaintArgsDict]":
    """The startup taint as `taints` of a `pulumi_eks.ManagedNodeGroup` or `aws.eks.NodeGroup`.

    EKS hands it to the kubelet, unless the group's launch template has an AMI of its own: then the template's
    user data must hold it, too, see `node_config`.
    """
    return [{"key": STARTUP_TAINT, "value": "true", "effect": "NO_SCHEDULE"}]


def self_managed_group_taints() -> dict[str, eks.TaintArgsDict]:
    """The startup taint as `taints` of a `pulumi_eks.NodeGroupV2` or `pulumi_eks.NodeGroup`."""
    return {STARTUP_TAINT: {"value": "true", "effect": "NoSchedule"}}


def node_config(
    labels: Mapping[str, str] | None = None, taints: Sequence[Taint] = ()
) -> eks.NodeadmOptionsArgsDict:
    """A part of the user data of an AL2023 node, `content` (a NodeConfig) and `content_type`, which registers
    the node with the startup taint, further `taints`, and `labels` (None: those of `pool_labels`).

    For launch templates of one's own. The cluster's name, endpoint, certificate and network stand in another
    NodeConfig; nodeadm merges all of them (its documentation, "Merging multiple configuration objects").
    All taints belong here. Where the kubelet also has a flag `--register-with-taints`, as EKS and pulumi-eks
    write it for the `taints` of a group, that flag wins: give such a group the startup taint by its `taints`.
    """
    kubelet = {
        "config": {"registerWithTaints": [dict(taint) for taint in (*taints, STARTUP)]},
        "flags": [_labels_flag(labels)],
    }
    part = {"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": {"kubelet": kubelet}}
    return {"content": yaml.safe_dump(part, sort_keys=False), "content_type": NODE_CONFIG_TYPE}


def kubelet_flags(labels: Mapping[str, str] | None = None, taints: Sequence[Taint] = ()) -> list[str]:
    """The same as flags of the kubelet, for nodes that nodeadm does not configure: `--node-labels` and
    `--register-with-taints`. Of several `--register-with-taints` the kubelet takes the last alone."""
    registered = ",".join(
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for taint in (*taints, STARTUP)
    )
    return [_labels_flag(labels), f"--register-with-taints={registered}"]


def _labels_flag(labels: Mapping[str, str] | None) -> str:
    chosen = pool_labels() if labels is None else labels
    return "--node-labels=" + ",".join(f"{key}={value}" for key, value in chosen.items())


def autoscaler_flag() -> str:
    """The argument of cluster-autoscaler (1.29 or newer) that makes the startup taint one which passes.

    Without it a tainted node counts as one on which nothing will ever run: a group of no node is not scaled
    up, and a new node is followed by one too many.
    """
    return f"--startup-taint={STARTUP_TAINT}"


def autoscaler_tags(
    cluster_name: str, labels: Mapping[str, str] | None = None, taints: Sequence[Taint] = ()
) -> dict[str, str]:
    """The tags of an Auto Scaling group by which cluster-autoscaler finds it, and knows the labels and taints
    of its nodes before there is one.

    For self-managed groups; the tags need not reach the instances. A managed group needs none: EKS tags its
    Auto Scaling group, and cluster-autoscaler asks EKS for labels and taints (right `eks:DescribeNodegroup`).
    """
    chosen = pool_labels() if labels is None else labels
    return {
        "k8s.io/cluster-autoscaler/enabled": "true",
        f"k8s.io/cluster-autoscaler/{cluster_name}": "owned",
        **{f"{_HINT}/label/{key}": value for key, value in chosen.items()},
        **{
            f"{_HINT}/taint/{taint['key']}": f"{taint.get('value', '')}:{taint['effect']}"
            for taint in (*taints, STARTUP)
        },
    }


def eks_kubeconfig(
    name: pulumi.Input[str],
    region: str = "",
    *,
    role_arn: pulumi.Input[str] = "",
    profile: str = "",
    opts: pulumi.InvokeOutputOptions | None = None,
) -> pulumi.Output[str]:
    """A kubeconfig, as JSON, of the EKS cluster of that name; it gets its tokens by `aws eks get-token`.

    It holds no credentials. `region` empty means the AWS provider's. `role_arn` and `profile` are those that
    the cluster lets in; empty means the caller's own. Asks AWS (right `eks:DescribeCluster`) through the
    provider of `opts`; a cluster that does not exist is that provider's error.
    """
    found = aws.eks.get_cluster_output(name=name, region=region or None, opts=opts)
    authority = found.certificate_authorities.apply(lambda authorities: authorities[0].data)
    known = pulumi.Output.all(
        name=found.name, arn=found.arn, endpoint=found.endpoint, authority=authority, role_arn=role_arn
    )
    return known.apply(lambda values: _kubeconfig(**values, profile=profile))


def _kubeconfig(*, name: str, arn: str, endpoint: str, authority: str, role_arn: str, profile: str) -> str:
    region = arn.split(":")[3]  # arn:PARTITION:eks:REGION:ACCOUNT:cluster/NAME
    arguments = ["--region", region, "eks", "get-token", "--cluster-name", name, "--output", "json"]
    arguments += ["--role-arn", role_arn] if role_arn else []
    arguments += ["--profile", profile] if profile else []
    command = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": arguments,
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": arn, "cluster": {"server": endpoint, "certificate-authority-data": authority}}
            ],
            "contexts": [{"name": arn, "context": {"cluster": arn, "user": arn}}],
            "current-context": arn,
            "users": [{"name": arn, "user": {"exec": command}}],
        }
    )
