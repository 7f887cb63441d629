"""A recorder in the engine's place."""

from collections.abc import Iterable
from datetime import date
from typing import Any, cast

import pulumi
import pulumi_kubernetes as k8s

from components import SociInstaller

# Of the tests: what is known of a Kubernetes release depends on the day.
TODAY = date(2026, 11, 26)
DIGESTS = {"amd64": "a" * 64, "arm64": "b" * 64}


# What AWS is asked.
ANSWERS: dict[str, dict[str, Any]] = {
    "aws:index/getPartition:getPartition": {"partition": "aws"},
    "aws:index/getAvailabilityZones:getAvailabilityZones": {"zoneIds": ["euw1-az1", "euw1-az2"]},
    "aws:ec2/getVpc:getVpc": {"id": "vpc-0"},
    "aws:ec2/getSubnets:getSubnets": {"ids": ["subnet-1", "subnet-2"]},
}


def transformed(
    type_: str, name: str, props: dict[str, Any], transforms: Iterable[pulumi.ResourceTransform]
) -> tuple[dict[str, Any], pulumi.ResourceOptions]:
    """What the engine makes of a resource's properties and options by the transforms that it or its parents
    have."""
    options = pulumi.ResourceOptions()
    for transform in transforms:
        args = pulumi.ResourceTransformArgs(True, type_, name, props, options)
        if result := cast("pulumi.ResourceTransformResult | None", transform(args)):
            props, options = dict(result.props), result.opts
    return props, options


class Recorder(pulumi.runtime.Mocks):
    """Plays the engine: remembers each resource, answers what the components ask for."""

    def __init__(self) -> None:
        self.resources: dict[str, pulumi.runtime.MockResourceArgs] = {}
        self.desired_nodes = 2
        self.newest_build = 1
        self.node_group_status = "ACTIVE"

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        if args.typ.startswith("eks:"):
            args.inputs = transformed(args.typ, args.name, args.inputs, args.transforms)[0]
        self.resources[args.name] = args
        outputs = dict(args.inputs)
        if args.typ.startswith("kubernetes:"):
            outputs["metadata"] = {"name": f"{args.name}-1", "namespace": "default"} | outputs.get(
                "metadata", {}
            )
        if args.typ.endswith(":DaemonSet"):
            outputs["status"] = {"desiredNumberScheduled": self.desired_nodes}
        if args.typ == "eks:index:Cluster":
            # The true component's are both without profile and role.
            outputs |= {"kubeconfigJson": '{"plain": true}', "kubeconfig": {"plain": True}}
        if args.typ == "pulumi:index:Stash":
            outputs["output"] = outputs["input"]
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        if args.token == "aws:eks/getAddonVersion:getAddonVersion":
            name, release = args.args["addonName"], args.args["kubernetesVersion"]
            return {"version": f"{name} for {release}, build {self.newest_build}"}, []
        return ANSWERS.get(args.token, {}), []

    def inputs(self, name: str) -> dict[str, Any]:
        return dict(self.resources[name].inputs)

    def of_type(self, suffix: str) -> list[str]:
        return [name for name, resource in self.resources.items() if resource.typ.endswith(suffix)]


def install(**args):
    """A program with a SociInstaller of these arguments, for the fixture `run`."""

    def program():
        provider = k8s.Provider("cluster", kubeconfig="{}")
        options = pulumi.ResourceOptions(providers=[provider])
        installer = SociInstaller("soci", {"version": "0.16.1", "sha256": DIGESTS, **args}, options)
        return {
            "version": installer.version,
            "daemon_set": installer.daemon_set,
            "namespace": installer.namespace,
        }

    return program
