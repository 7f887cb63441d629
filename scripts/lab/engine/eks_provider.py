"""Stand-in for the pulumi-eks plugin (`pulumi-resource-eks`): Cluster, ManagedNodeGroup and Addon.

Never compared with the true one: the components' children are a sketch (roles, cluster, node group; no
security group rules, network plug-in, OIDC provider or launch template), and several outputs are missing. A
green test shows that the program and the engine agree, not that pulumi-eks would.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks  #  registers the classes that references to clusters become
from engine import required_plugins
from parent import end_with_parent
from pulumi.provider import ConstructResult, Provider
from pulumi.provider.server import main

Inputs = Mapping[str, Any]
SERVICE_POLICY = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
# The true component looks subnets up; here nothing depends on which they are.
SUBNETS = ["subnet-00000000000000001", "subnet-00000000000000002"]


class Cluster(pulumi.ComponentResource):
    """The control plane, its role, and a kubeconfig that asks `aws eks get-token` for a token."""

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:Cluster", name, {}, options)
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            f"{name}-eksRole-role",
            assume_role_policy=trust("eks.amazonaws.com"),
            tags=inputs.get("tags"),
            opts=child,
        )
        attached = aws.iam.RolePolicyAttachment(
            f"{name}-eksRole-policy", role=role.name, policy_arn=SERVICE_POLICY, opts=child
        )
        cluster = aws.eks.Cluster(
            f"{name}-eksCluster",
            role_arn=role.arn,
            version=inputs.get("version"),
            access_config={"authentication_mode": inputs.get("authenticationMode") or "CONFIG_MAP"},
            vpc_config={"subnet_ids": inputs.get("subnetIds") or SUBNETS},
            tags=inputs.get("tags"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[attached]),
        )
        self.outputs = {
            "eksCluster": cluster,
            "kubeconfig": kubeconfig(cluster, inputs.get("providerCredentialOpts") or {}),
            "kubeconfigJson": kubeconfig(cluster, {}).apply(json.dumps),
        }
        self.register_outputs(self.outputs)


class ManagedNodeGroup(pulumi.ComponentResource):
    """An EKS node group of a Cluster."""

    PASSED_ON = ("instanceTypes", "labels", "scalingConfig", "taints", "tags", "diskSize", "version")

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:ManagedNodeGroup", name, {}, options)
        cluster: eks.Cluster = inputs["cluster"]
        node_group = NodeGroup(
            f"{name}-nodeGroup",
            {
                "clusterName": cluster.eks_cluster.name,
                "nodeRoleArn": inputs["nodeRoleArn"],
                "subnetIds": inputs.get("subnetIds") or SUBNETS,
                **{key: inputs[key] for key in self.PASSED_ON if key in inputs},
            },
            pulumi.ResourceOptions(parent=self),
        )
        self.outputs = {"nodeGroup": node_group}
        self.register_outputs(self.outputs)


class NodeGroup(pulumi.CustomResource):
    """`aws.eks.NodeGroup` with the schema's own property names, in which a component's inputs come."""

    def __init__(self, name: str, properties: dict[str, Any], options: pulumi.ResourceOptions) -> None:
        super().__init__("aws:eks/nodeGroup:NodeGroup", name, properties, options)


class Addon(pulumi.ComponentResource):
    """An EKS add-on."""

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:Addon", name, {}, options)
        addon = aws.eks.Addon(
            f"{name}-addon",
            cluster_name=inputs["cluster"].eks_cluster.name,
            addon_name=inputs["addonName"],
            addon_version=inputs.get("addonVersion"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.outputs = {"addon": addon}
        self.register_outputs(self.outputs)


def trust(service: str) -> str:
    """Return the policy that lets an AWS service take a role on."""
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def kubeconfig(cluster: aws.eks.Cluster, credentials: Inputs) -> pulumi.Output[dict[str, Any]]:
    """Return the cluster's kubeconfig as data; credentials may name an AWS profile and a role."""

    def content(values: list[Any]) -> dict[str, Any]:
        name, endpoint, authority = values
        arguments = ["eks", "get-token", "--cluster-name", name, "--output", "json"]
        if role := credentials.get("roleArn"):
            arguments += ["--role", role]
        plugin: dict[str, Any] = {
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "command": "aws",
            "args": arguments,
            "interactiveMode": "Never",
        }
        if profile := credentials.get("profileName"):
            plugin["env"] = [{"name": "AWS_PROFILE", "value": profile}]
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "aws",
            "clusters": [
                {
                    "name": "kubernetes",
                    "cluster": {"server": endpoint, "certificate-authority-data": authority},
                }
            ],
            "contexts": [{"name": "aws", "context": {"cluster": "kubernetes", "user": "aws"}}],
            "users": [{"name": "aws", "user": {"exec": plugin}}],
        }

    authority = cluster.certificate_authority.apply(lambda value: value.data)
    return pulumi.Output.all(cluster.name, cluster.endpoint, authority).apply(content)


COMPONENTS = {
    "eks:index:Addon": Addon,
    "eks:index:Cluster": Cluster,
    "eks:index:ManagedNodeGroup": ManagedNodeGroup,
}


class Eks(Provider):
    """Constructs the components that there are."""

    def construct(
        self, name: str, resource_type: str, inputs: Inputs, options: Any = None
    ) -> ConstructResult:
        if resource_type not in COMPONENTS:
            raise NotImplementedError(
                f"the eks stand-in has no {resource_type}; it has {', '.join(COMPONENTS)}"
            )
        component = COMPONENTS[resource_type](name, inputs, options or pulumi.ResourceOptions())
        return ConstructResult(component.urn, component.outputs)


if __name__ == "__main__":
    end_with_parent()
    main(Eks(required_plugins()["eks"]), sys.argv[1:])
