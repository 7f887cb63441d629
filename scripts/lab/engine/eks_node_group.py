"""Stand-in for pulumi-eks' ManagedNodeGroup."""

import re
from typing import Any

import pulumi
import pulumi_eks as eks
import yaml
from eks_common import VERSIONS, Inputs, Made, base64_of, refuse_unknown

# The AMI types that the component knows: operating system, GPU, architecture, and in which SSM parameter the
# newest is. Others it takes only where it need not know them.
AMI_TYPES = {
    "AL2_x86_64": ("AL2", False, "x86_64", "eks/optimized-ami/{}/amazon-linux-2/recommended"),
    "AL2_x86_64_GPU": ("AL2", True, "x86_64", "eks/optimized-ami/{}/amazon-linux-2-gpu/recommended"),
    "AL2_ARM_64": ("AL2", False, "arm64", "eks/optimized-ami/{}/amazon-linux-2-arm64/recommended"),
    "AL2023_x86_64_STANDARD": (
        "AL2023",
        False,
        "x86_64",
        "eks/optimized-ami/{}/amazon-linux-2023/x86_64/standard/recommended",
    ),
    "AL2023_ARM_64_STANDARD": (
        "AL2023",
        False,
        "arm64",
        "eks/optimized-ami/{}/amazon-linux-2023/arm64/standard/recommended",
    ),
    "AL2023_x86_64_NVIDIA": (
        "AL2023",
        True,
        "x86_64",
        "eks/optimized-ami/{}/amazon-linux-2023/x86_64/nvidia/recommended",
    ),
    "BOTTLEROCKET_ARM_64": ("Bottlerocket", False, "arm64", "bottlerocket/aws-k8s-{}/arm64/latest"),
    "BOTTLEROCKET_x86_64": ("Bottlerocket", False, "x86_64", "bottlerocket/aws-k8s-{}/x86_64/latest"),
    "BOTTLEROCKET_ARM_64_NVIDIA": (
        "Bottlerocket",
        True,
        "arm64",
        "bottlerocket/aws-k8s-{}-nvidia/arm64/latest",
    ),
    "BOTTLEROCKET_x86_64_NVIDIA": (
        "Bottlerocket",
        True,
        "x86_64",
        "bottlerocket/aws-k8s-{}-nvidia/x86_64/latest",
    ),
}
NODE_CONFIG_PARTS = ("kubeletExtraArgs", "labels", "nodeadmExtraOptions", "taints")
INSTANCE_TYPE = re.compile(r"([a-z]+)([0-9]+)([a-z])?-?([a-z]+)?\.([a-zA-Z0-9-]+)")


class ManagedNodeGroup(pulumi.ComponentResource):
    """An EKS node group, with a launch template where an argument needs one."""

    PASSED_ON = (
        "capacityType",
        "diskSize",
        "forceUpdateVersion",
        "instanceTypes",
        "labels",
        "nodeGroupName",
        "nodeGroupNamePrefix",
        "nodeRepairConfig",
        "releaseVersion",
        "remoteAccess",
        "tags",
        "taints",
        "updateConfig",
        "version",
    )
    USER_DATA = ("bootstrapExtraArgs", "kubeletExtraArgs", "bottlerocketSettings", "nodeadmExtraOptions")
    TEMPLATE = (*USER_DATA, "enableIMDSv2", "userData", "amiId", "enableEfaSupport")
    NOT_HERE = ("bootstrapExtraArgs", "bottlerocketSettings", "enableEfaSupport", "nodeRole")

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:ManagedNodeGroup", name, {}, options)
        refuse_unknown("ManagedNodeGroup", inputs, self.NOT_HERE)
        cluster: eks.Cluster = inputs["cluster"]
        own_template = inputs.get("launchTemplate")
        asked = [key for key in self.TEMPLATE if inputs.get(key) is not None]
        if own_template and asked:
            raise pulumi.InputPropertyError(
                "launchTemplate",
                "If you provide a custom launch template, you cannot provide any of "
                f"{', '.join(self.TEMPLATE)}.",
            )
        passed = {key: inputs[key] for key in self.PASSED_ON if inputs.get(key) is not None}
        if not own_template:
            passed.setdefault("version", cluster.eks_cluster.version)
        ami_type = inputs.get("amiType")
        if ami_type is None and inputs.get("operatingSystem"):
            ami_type = chosen_ami_type(inputs)
        if asked:
            own_template = self._launch_template(name, inputs, cluster)
            passed.pop("diskSize", None)
        if any(inputs.get(key) is not None for key in (*self.USER_DATA, "userData", "amiId")):
            # EKS takes neither of them with an AMI of one's own, which the launch template has then.
            ami_type = None
            passed = {key: passed[key] for key in passed if key not in ("releaseVersion", "version")}
        subnets = inputs.get("subnetIds")
        node_group = Made(
            "aws:eks/nodeGroup:NodeGroup",
            name,
            {
                **passed,
                "amiType": ami_type,
                "clusterName": inputs.get("clusterName") or cluster.eks_cluster.name,
                "launchTemplate": own_template,
                "nodeRoleArn": inputs["nodeRoleArn"],
                "scalingConfig": pulumi.Output.from_input(inputs.get("scalingConfig")).apply(sizes),
                "subnetIds": cluster.core.apply(node_subnets) if subnets is None else subnets,
            },
            pulumi.ResourceOptions(
                parent=self,
                ignore_changes=["scalingConfig.desiredSize"] if inputs.get("ignoreScalingChanges") else None,
            ),
        )
        self.outputs = {"nodeGroup": node_group, "placementGroupName": ""}
        self.register_outputs(self.outputs)

    def _launch_template(self, name: str, inputs: Inputs, cluster: eks.Cluster) -> dict[str, Any]:
        operating_system = os_of_nodes(inputs.get("amiType"), inputs.get("operatingSystem"))
        device = {"AL2": "/dev/xvda", "AL2023": "/dev/xvda", "Bottlerocket": "/dev/xvdb"}[operating_system]
        tokens = {True: "required", False: "optional"}.get(inputs.get("enableIMDSv2"))
        size = inputs.get("diskSize")
        user_data, image = None, None
        if any(inputs.get(key) is not None for key in (*self.USER_DATA, "userData", "amiId")):
            user_data = self._user_data(inputs, cluster)
            image = inputs.get("amiId") or self._recommended_ami(inputs, cluster)
        template = Made(
            "aws:ec2/launchTemplate:LaunchTemplate",
            f"{name}-launchTemplate",
            {
                "blockDeviceMappings": [{"deviceName": device, "ebs": {"volumeSize": size}}]
                if size
                else None,
                "imageId": image,
                "metadataOptions": {
                    "httpEndpoint": "enabled",
                    "httpPutResponseHopLimit": 2,
                    "httpTokens": tokens,
                }
                if tokens
                else None,
                "userData": user_data,
            },
            pulumi.ResourceOptions(parent=self),
            "latestVersion",
        )
        return {"id": template.id, "version": template.latestVersion.apply(lambda number: f"{number:.0f}")}

    def _user_data(self, inputs: Inputs, cluster: eks.Cluster) -> pulumi.Output[str]:
        if inputs.get("userData"):
            return pulumi.Output.from_input(inputs["userData"]).apply(base64_of)
        made = cluster.eks_cluster
        facts = pulumi.Output.all(
            name=made.name,
            apiServerEndpoint=made.endpoint,
            certificateAuthority=made.certificate_authority.apply(lambda found: found["data"]),
            cidr=made.kubernetes_network_config.apply(service_addresses),
        )
        given = {key: inputs.get(key) for key in NODE_CONFIG_PARTS}
        known = pulumi.Output.all(facts, given)
        return known.apply(lambda values: base64_of(node_configs(*values)))

    def _recommended_ami(self, inputs: Inputs, cluster: eks.Cluster) -> pulumi.Output[str]:
        """Look the newest AMI up, at each run."""
        ami_type = inputs.get("amiType") or chosen_ami_type(inputs)
        if ami_type not in AMI_TYPES:
            raise pulumi.InputPropertyError(
                "amiType",
                f"Cannot resolve recommended AMI for AMI type: {ami_type}. Please provide the AMI ID and "
                "userdata.",
            )
        version = pulumi.Output.from_input(inputs.get("version") or cluster.eks_cluster.version)
        options = pulumi.InvokeOutputOptions(parent=self, version=VERSIONS["aws"])
        arguments = {"name": version.apply(lambda known: ami_parameter(ami_type, known))}
        found = pulumi.runtime.invoke_output("aws:ssm/getParameter:getParameter", arguments, options)
        return found.apply(lambda answer: answer["value"])


def chosen_ami_type(inputs: Inputs) -> str:
    """Return the AMI type that operating system, gpu and instance types come to."""
    graviton = {is_graviton(name) for name in inputs.get("instanceTypes") or []}
    if len(graviton) == 2:
        raise pulumi.InputPropertyError(
            "instanceTypes",
            "Cannot determine architecture of instance types. The provided instance types do not share a "
            "common architecture",
        )
    wanted = (
        inputs.get("operatingSystem") or "AL2023",
        bool(inputs.get("gpu")),
        "arm64" if True in graviton else "x86_64",
    )
    for name, (*known, _) in AMI_TYPES.items():
        if tuple(known) == wanted:
            return name
    raise pulumi.RunError(
        f"No AMI type found for OS: {wanted[0]}, GPU support: {str(wanted[1]).lower()}, architecture: "
        f"{wanted[2]}"
    )


def is_graviton(instance_type: str) -> bool:
    """Say whether the component takes a type for an arm64 one: by the letter after the generation."""
    match = INSTANCE_TYPE.search(instance_type)
    if not match:
        raise pulumi.InputPropertyError("instanceTypes", f"Invalid EC2 instance type: {instance_type}")
    return match[3] == "g"


def os_of_nodes(ami_type: str | None, operating_system: str | None) -> str:
    """Return the operating system, on which the name of the root volume depends."""
    if not ami_type:
        return operating_system or "AL2023"
    if ami_type not in AMI_TYPES:
        raise pulumi.InputPropertyError("amiType", f"Cannot determine OS of unknown AMI type: {ami_type}")
    known = AMI_TYPES[ami_type][0]
    if operating_system and operating_system != known:
        raise pulumi.InputPropertyError(
            "operatingSystem",
            f"Operating system '{operating_system}' does not match the detected operating system '{known}' "
            f"of AMI type '{ami_type}'.",
        )
    return known


def ami_parameter(ami_type: str, kubernetes_version: str) -> str:
    """Return the SSM parameter with the newest AMI of that type."""
    return f"/aws/service/{AMI_TYPES[ami_type][3].format(kubernetes_version)}/image_id"


def service_addresses(network: Inputs) -> str:
    """Return the addresses of the cluster's services."""
    return network.get("serviceIpv4Cidr") or network.get("service_ipv4_cidr") or ""


def node_configs(facts: Inputs, given: Inputs) -> str:
    """Return AL2023 user data: the cluster, labels and taints as the kubelet's flags, and the extra parts."""
    labels, taints = given.get("labels"), given.get("taints")
    kubelet = given["kubeletExtraArgs"].split(" ") if given.get("kubeletExtraArgs") else []
    if labels:
        kubelet.append("--node-labels=" + ",".join(f"{key}={value}" for key, value in labels.items()))
    if taints:
        kubelet.append("--register-with-taints=" + ",".join(map(taint_flag, taints)))
    specs = [{"cluster": dict(facts)}, *([{"kubelet": {"flags": kubelet}}] if kubelet else [])]
    head = {"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig"}
    parts = [
        ("application/node.eks.aws", "---\n" + yaml.safe_dump({**head, "spec": spec}, sort_keys=False))
        for spec in specs
    ]
    parts += [(part["contentType"], part["content"]) for part in given.get("nodeadmExtraOptions") or []]
    text = "".join(f"--BOUNDARY\nContent-Type: {kind}\n\n{content}\n" for kind, content in parts)
    opening = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="BOUNDARY"\n\n'
    return f"{opening}{text}--BOUNDARY--\n"


def taint_flag(taint: Inputs) -> str:
    """Return an EKS taint as the kubelet's flag writes it."""
    effects = {
        "NO_SCHEDULE": "NoSchedule",
        "NO_EXECUTE": "NoExecute",
        "PREFER_NO_SCHEDULE": "PreferNoSchedule",
    }
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{effects[taint['effect']]}"


def sizes(config: Inputs | None) -> dict[str, int]:
    """Return a group's sizes with the component's defaults."""
    return {"desiredSize": 2, "minSize": 1, "maxSize": 2, **(config or {})}


def node_subnets(core: Inputs) -> list[str]:
    """Return the subnets of a group that names none: all that the control plane has."""
    return core["subnet_ids"]
