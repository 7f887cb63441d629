"""Stand-in for the pulumi-aws plugin (`pulumi-resource-aws`), which talks to a moto server, never to AWS.

iam Role and RolePolicyAttachment, eks Cluster and NodeGroup are made in moto; ANY OTHER TYPE is only echoed
into the state. Never compared with the true plugin: a green test shows that the program and the engine agree,
not that AWS would.

AWS_ENDPOINT_URL    the moto server; without it the stand-in refuses to do anything
SOCI_LAB_EKS        a kubeconfig: EKS clusters get its API server as their endpoint, and node groups register
                    their nodes there, with their labels and taints
"""
# ruff: noqa: N802  (methods have the names of the gRPC protocol)

import functools
import os
import re
from typing import Any

import boto3
from botocore.exceptions import ClientError
from kubernetes_api import Api, load_kubeconfig, named
from plugin import (
    Provider,
    diff_response,
    differences,
    has_unknown,
    serve_provider,
    to_python,
    to_struct,
)
from stubs import Empty, provider_pb2

Properties = dict[str, Any]
TAINT_EFFECTS = {
    "NO_SCHEDULE": "NoSchedule",
    "NO_EXECUTE": "NoExecute",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
}


class Echo:
    """A resource that exists in the state only."""

    name_property: str | None = None
    replacing: tuple[str, ...] = ()

    def create(self, identifier: str, inputs: Properties) -> Properties:
        """Make it and return its outputs."""
        return {**inputs, "arn": f"arn:aws:stand-in::000000000000:{identifier}"}

    def read(self, identifier: str, state: Properties) -> Properties:
        """Return its present outputs; raise ClientError or LookupError when it is gone."""
        return state

    def update(self, identifier: str, state: Properties, inputs: Properties) -> Properties:
        """Change it and return its outputs."""
        return {**state, **inputs}

    def delete(self, identifier: str, state: Properties) -> None:
        """Take it away."""

    def identifier(self, name: str, inputs: Properties) -> str:
        """Return the ID it will have."""
        return inputs[self.name_property] if self.name_property else name


class Role(Echo):
    name_property = "name"
    replacing = ("name", "path")

    def create(self, identifier, inputs):
        client("iam").create_role(
            RoleName=identifier,
            AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
            Tags=[{"Key": key, "Value": value} for key, value in (inputs.get("tags") or {}).items()],
        )
        return self.read(identifier, inputs)

    def read(self, identifier, state):
        role = client("iam").get_role(RoleName=identifier)["Role"]
        return {**state, "arn": role["Arn"], "uniqueId": role["RoleId"]}

    def update(self, identifier, state, inputs):
        client("iam").update_assume_role_policy(
            RoleName=identifier, PolicyDocument=inputs["assumeRolePolicy"]
        )
        return {**state, **inputs}

    def delete(self, identifier, state):
        client("iam").delete_role(RoleName=identifier)


class RolePolicyAttachment(Echo):
    replacing = ("role", "policyArn")

    def create(self, identifier, inputs):
        client("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
        return inputs

    def read(self, identifier, state):
        attached = client("iam").list_attached_role_policies(RoleName=state["role"])["AttachedPolicies"]
        if state["policyArn"] not in [policy["PolicyArn"] for policy in attached]:
            raise LookupError(identifier)
        return state

    def delete(self, identifier, state):
        client("iam").detach_role_policy(RoleName=state["role"], PolicyArn=state["policyArn"])


class Cluster(Echo):
    name_property = "name"
    replacing = ("name", "roleArn")

    def create(self, identifier, inputs):
        client("eks").create_cluster(
            name=identifier,
            roleArn=inputs["roleArn"],
            resourcesVpcConfig={"subnetIds": inputs["vpcConfig"]["subnetIds"]},
            tags=inputs.get("tags") or {},
            **({"version": inputs["version"]} if inputs.get("version") else {}),
        )
        return self.read(identifier, inputs)

    def read(self, identifier, state):
        cluster = client("eks").describe_cluster(name=identifier)["cluster"]
        endpoint, authority = cluster["endpoint"], cluster["certificateAuthority"]["data"]
        if kubeconfig := lab_kubeconfig():
            section = named(kubeconfig, "cluster", kubeconfig["clusters"][0]["name"])
            endpoint, authority = section["server"], section["certificate-authority-data"]
        return {
            **state,
            "arn": cluster["arn"],
            "endpoint": endpoint,
            "certificateAuthority": {"data": authority},
            "status": cluster["status"],
        }

    def delete(self, identifier, state):
        client("eks").delete_cluster(name=identifier)


class NodeGroup(Echo):
    replacing = (
        "clusterName",
        "nodeGroupName",
        "instanceTypes",
        "diskSize",
        "nodeRoleArn",
        "subnetIds",
        "amiType",
    )

    def identifier(self, name, inputs):
        return f"{inputs['clusterName']}:{name}"

    def create(self, identifier, inputs):
        cluster, _, name = identifier.partition(":")
        scaling = inputs["scalingConfig"]
        group = client("eks").create_nodegroup(
            clusterName=cluster,
            nodegroupName=name,
            nodeRole=inputs["nodeRoleArn"],
            subnets=inputs["subnetIds"],
            scalingConfig={key: scaling[key] for key in ("desiredSize", "minSize", "maxSize")},
            labels=inputs.get("labels") or {},
            taints=inputs.get("taints") or [],
            tags=inputs.get("tags") or {},
        )["nodegroup"]
        join_nodes(name, inputs)
        return {**inputs, "nodeGroupName": name, "arn": group["nodegroupArn"], "status": group["status"]}

    def read(self, identifier, state):
        cluster, _, name = identifier.partition(":")
        client("eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)
        return state

    def update(self, identifier, state, inputs):
        join_nodes(state["nodeGroupName"], inputs)
        return {**state, **inputs}

    def delete(self, identifier, state):
        cluster, _, name = identifier.partition(":")
        client("eks").delete_nodegroup(clusterName=cluster, nodegroupName=name)
        join_nodes(name, {**state, "scalingConfig": {"desiredSize": 0}})


TYPES = {
    "aws:eks/cluster:Cluster": Cluster(),
    "aws:eks/nodeGroup:NodeGroup": NodeGroup(),
    "aws:iam/role:Role": Role(),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": RolePolicyAttachment(),
}


@functools.cache
def client(service: str) -> Any:
    """Return the moto server's client of an AWS service; made once, since each costs 0.2 s."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        raise RuntimeError(
            "the aws stand-in never talks to AWS: set AWS_ENDPOINT_URL to a moto server, or install the true "
            "plugin (pulumi plugin install resource aws)"
        )
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=os.environ.get("AWS_REGION", "eu-west-1"),
        aws_access_key_id="stand-in",
        aws_secret_access_key="stand-in",
    )


def lab_kubeconfig() -> dict[str, Any] | None:
    """Return the kubeconfig of the API server that plays the EKS control plane, None when there is none."""
    path = os.environ.get("SOCI_LAB_EKS")
    return load_kubeconfig(path) if path else None


def join_nodes(group: str, inputs: Properties) -> None:
    """Make the API server hold as many nodes of the group as it wants, labelled and tainted as it says."""
    kubeconfig = lab_kubeconfig()
    if not kubeconfig:
        return
    api, wanted = Api(kubeconfig), inputs["scalingConfig"]["desiredSize"]
    selector = f"eks.amazonaws.com/nodegroup={group}"
    nodes = api.call("GET", "/api/v1/nodes", labelSelector=selector)["items"]
    present = {node["metadata"]["name"] for node in nodes}
    names = [f"{group}-{number}".lower() for number in range(1, wanted + 1)]
    for name in present - set(names):
        api.call("DELETE", f"/api/v1/nodes/{name}")
    for name in (name for name in names if name not in present):
        labels = {
            "eks.amazonaws.com/nodegroup": group,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            **(inputs.get("labels") or {}),
        }
        taints = [{**taint, "effect": TAINT_EFFECTS[taint["effect"]]} for taint in inputs.get("taints") or []]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints},
        }
        api.call("POST", "/api/v1/nodes", node)


class Aws(Provider):
    """Hands each resource to its type, or to the echo."""

    def DiffConfig(self, request, context):
        changes = differences(to_python(request.old_inputs), to_python(request.news))
        return diff_response(changes, {path for path in changes if path == "region"}, False)

    def Check(self, request, context):
        kind, old, new = TYPES.get(request.type, Echo()), to_python(request.olds), to_python(request.news)
        name = kind.name_property
        if name and not new.get(name):
            new[name] = old.get(name) or f"{request.name}-{request.randomSeed[:4].hex()[:7]}"
        return provider_pb2.CheckResponse(inputs=to_struct(new))

    def Diff(self, request, context):
        kind = TYPES.get(request.type, Echo())
        changes = differences(to_python(request.old_inputs), to_python(request.news))
        return diff_response(
            changes, {path for path in changes if re.split(r"[.\[]", path)[0] in kind.replacing}, False
        )

    def Create(self, request, context):
        kind, inputs = TYPES.get(request.type, Echo()), to_python(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=to_struct(inputs))
        identifier = kind.identifier(request.name, inputs)
        outputs = kind.create(identifier, inputs)
        return provider_pb2.CreateResponse(id=identifier, properties=to_struct(outputs))

    def Update(self, request, context):
        kind, inputs, state = (
            TYPES.get(request.type, Echo()),
            to_python(request.news),
            to_python(request.olds),
        )
        if request.preview or has_unknown(inputs):
            outputs = {**state, **inputs}
        else:
            outputs = kind.update(request.id, state, inputs)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request, context):
        kind = TYPES.get(request.type, Echo())
        try:
            outputs = kind.read(request.id, to_python(request.properties))
        except (ClientError, LookupError):
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, properties=to_struct(outputs), inputs=request.inputs)

    def Delete(self, request, context):
        TYPES.get(request.type, Echo()).delete(request.id, to_python(request.properties))
        return Empty()


if __name__ == "__main__":
    serve_provider(Aws, "aws")
