"""What the components of the eks stand-in share: resources by their schema's names, JSON, kubeconfigs."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pulumi
from engine import required_plugins

Inputs = Mapping[str, Any]
VERSIONS = required_plugins()


class Made(pulumi.CustomResource):
    """A resource with the schema's own property names, in which a component's inputs come.

    outputs are those that the component reads, as attributes.
    """

    def __init__(
        self, kind: str, name: str, properties: Inputs, options: pulumi.ResourceOptions, outputs: str = ""
    ) -> None:
        known = {key: value for key, value in properties.items() if value is not None}
        options = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(version=VERSIONS["aws"]))
        super().__init__(kind, name, {**dict.fromkeys(outputs.split()), **known}, options)

    def __getattr__(self, name: str) -> pulumi.Output[Any]:
        raise AttributeError(f"{name} was not among the outputs to be read")


def kubeconfig(
    cluster: Any, credentials: Inputs | None, *, with_profile: bool
) -> pulumi.Output[dict[str, Any]]:
    """Return the cluster's kubeconfig as data; credentials may name a role and, where wanted, a profile."""

    def content(values: list[Any]) -> dict[str, Any]:
        arn, name, endpoint, authority, chosen = values
        region = arn.split(":")[3]
        command = ["--region", region, "eks", "get-token", "--cluster-name", name, "--output", "json"]
        if role := (chosen or {}).get("roleArn"):
            command += ["--role", role]
        profile = (chosen or {}).get("profileName")
        if profile and with_profile:
            command += ["--profile", profile]
        protocol = "client.authentication.k8s.io/v1beta1"
        variable = {"name": "KUBERNETES_EXEC_INFO", "value": json.dumps({"apiVersion": protocol})}
        plugin = {"apiVersion": protocol, "command": "aws", "args": command, "env": [variable]}
        server = {"server": endpoint, "certificate-authority-data": authority["data"]}
        return {
            "apiVersion": "v1",
            "clusters": [{"cluster": server, "name": "kubernetes"}],
            "contexts": [{"context": {"cluster": "kubernetes", "user": "aws"}, "name": "aws"}],
            "current-context": "aws",
            "kind": "Config",
            "users": [{"name": "aws", "user": {"exec": plugin}}],
        }

    authority = getattr(cluster, "certificate_authority", None) or cluster.certificateAuthority
    known = pulumi.Output.all(cluster.arn, cluster.name, cluster.endpoint, authority, credentials)
    return known.apply(content)


def compact(value: Any) -> str:
    """Return JSON as JavaScript writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def in_order(value: Any) -> str:
    """Return JSON with its keys in order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def base64_of(text: str) -> str:
    """Return text in base64."""
    return base64.b64encode(text.encode()).decode()


def refuse_unknown(component: str, inputs: Inputs, names: tuple[str, ...]) -> None:
    """Raise NotImplementedError for an argument that the stand-in would drop in silence."""
    if dropped := [name for name in names if inputs.get(name)]:
        raise NotImplementedError(f"the eks stand-in's {component} has no {', '.join(dropped)}")
