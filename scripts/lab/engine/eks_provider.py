"""Stand-in for the pulumi-eks plugin (`pulumi-resource-eks`): Cluster, ManagedNodeGroup and Addon.

Compared with the true component (its source of August 2026, after v4.3.0, run by Node.js under the same
engine with the same aws stand-in; AWS itself was never asked): a cluster and a managed node group with a
launch template come to the same resources, with the same names, parents, inputs and outputs, and a second
update changes nothing; what transforms reach and which AMI types are refused is the same. What still differs:

- the true one brings older aws and kubernetes plugins beside the program's (7.25.0 and 4.19.0);
- `core` lacks two references (eks_cluster.py), and dependencies name the component beside its resources;
- user data says the same in YAML with other line breaks;
- only what NOT_HERE does not name is there, of three components; a program that asks for more is told so.
"""

import os
import signal
import sys
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
from eks_cluster import Cluster
from eks_common import VERSIONS, Inputs, Made, compact, kubeconfig
from eks_node_group import ManagedNodeGroup
from parent import end_with_parent
from pulumi.provider import CallResult, ConstructResult, Provider
from pulumi.provider.server import main

__all__ = ["aws", "eks"]  # imported for the classes that references to resources become
GET_KUBECONFIG = "eks:index:Cluster/getKubeconfig"


class Addon(pulumi.ComponentResource):
    """An EKS add-on."""

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:Addon", name, {}, options)
        values = inputs.get("configurationValues")
        passed = {key: value for key, value in inputs.items() if key != "cluster"}
        addon = Made(
            "aws:eks/addon:Addon",
            name,
            {
                **passed,
                "clusterName": inputs["cluster"].eks_cluster.name,
                "configurationValues": pulumi.Output.from_input(values).apply(compact) if values else None,
            },
            pulumi.ResourceOptions(parent=self),
        )
        self.outputs = {"addon": addon}
        self.register_outputs({})


COMPONENTS = {
    "eks:index:Addon": Addon,
    "eks:index:Cluster": Cluster,
    "eks:index:ManagedNodeGroup": ManagedNodeGroup,
}


class Eks(Provider):
    """Constructs the components that there are, and answers their one method."""

    def construct(
        self, name: str, resource_type: str, inputs: Inputs, options: Any = None
    ) -> ConstructResult:
        if resource_type not in COMPONENTS:
            raise NotImplementedError(
                f"the eks stand-in has no {resource_type}; it has {', '.join(COMPONENTS)}"
            )
        component = COMPONENTS[resource_type](name, inputs, options or pulumi.ResourceOptions())
        return ConstructResult(component.urn, component.outputs)

    def call(self, token: str, args: Inputs) -> CallResult:
        if token != GET_KUBECONFIG:
            raise NotImplementedError(f"the eks stand-in has no {token}; it has {GET_KUBECONFIG}")
        credentials = {key: args.get(key) for key in ("profileName", "roleArn")}
        content = kubeconfig(args["__self__"].eks_cluster, credentials, with_profile=True)
        return CallResult({"result": content.apply(compact)})


if __name__ == "__main__":
    end_with_parent()
    # Python takes seconds to end by itself on a busy machine; the engine has 5 s for all of its plugins.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    main(Eks(VERSIONS["eks"]), sys.argv[1:])
