"""The resource types of the aws stand-in, with the replacement rules of terraform-provider-aws.

Roles and their policies, security groups, launch templates, EKS clusters and node groups are made in moto;
what moto has no place for (add-ons, access entries, a launch template's content, the version and tags that a
group was updated to) and ANY OTHER TYPE stands in the Pulumi state only.

The rules were read in terraform-provider-aws' source (internal/service/eks, ec2, iam), never observed.
"""

import json
import re
from typing import Any

import eks_nodes
import eks_objects
from aws_refusals import RefusedError, check_control_plane, check_nodes, public_without_addresses, subnets_of
from aws_world import await_made, client, dns_suffix, partition, region
from botocore.exceptions import ClientError
from eks_nodes import NodesError, lab_kubeconfig
from kubernetes_api import named
from plugin import UNKNOWN, InitializationError, differences

Properties = dict[str, Any]
# Add-ons without a Deployment: they are active with no node at all.
DAEMON_SET_ADDONS = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent", "eks-node-monitoring-agent")


class Echo:
    """A resource that exists in the state only."""

    name_property: str | None = None
    """Gets a generated name when the program gives none."""
    replacing: tuple[str, ...] = ()
    """What no update can change (ForceNew): a property or, with dots, a part of one."""
    lasting: tuple[str, ...] = ()
    """What keeps its value when the program stops giving it (Optional and Computed)."""
    sets: tuple[str, ...] = ()
    """Lists whose order means nothing, at any depth."""
    computed: tuple[str, ...] = ()
    """Outputs that nobody knows before the resource is there."""

    def create(self, identifier: str, inputs: Properties) -> Properties:
        """Make it and return its outputs; "id" among them replaces the identifier."""
        return {**inputs, "arn": arn("stand-in", identifier)}

    def found(self, identifier: str) -> Properties:
        """Return the inputs of one that is to be imported; raise ClientError or LookupError when there is
        none."""
        raise LookupError(identifier)

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

    def recomputed(self, changes: dict[str, str]) -> tuple[str, ...]:
        """Return the outputs that such an update changes to values nobody knows before."""
        return ()

    def changes(self, old: Properties, new: Properties) -> dict[str, str]:
        """Return {path: kind of change} between two versions of the inputs."""
        kept = {key: value for key, value in old.items() if key in new or key not in self.lasting}
        return differences(in_order(kept, self.sets), in_order(new, self.sets))

    def replaces(self, changes: dict[str, str]) -> set[str]:
        """Return those of the changed paths that no update can change."""
        plain = {path: re.sub(r"\[[^]]*]", "", path) for path in changes}
        return {
            path
            for path, name in plain.items()
            if any(name == rule or name.startswith(f"{rule}.") for rule in self.replacing)
        }


class Role(Echo):
    name_property = "name"
    replacing = ("name", "namePrefix", "path")
    computed = ("arn", "uniqueId")

    def create(self, identifier, inputs):
        client("iam").create_role(
            RoleName=identifier,
            AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
            Tags=tag_list(inputs.get("tags")),
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


class InstanceProfile(Echo):
    name_property = "name"
    replacing = ("name", "namePrefix", "path")


class SecurityGroup(Echo):
    name_property = "name"
    replacing = ("name", "namePrefix", "description", "vpcId")
    sets = ("ingress", "egress")
    computed = ("arn", "ownerId")

    def create(self, identifier, inputs):
        description = inputs.get("description", "Managed by Pulumi")
        made = client("ec2").create_security_group(
            GroupName=inputs["name"], Description=description, VpcId=inputs["vpcId"]
        )
        group = made["GroupId"]
        name = arn("ec2", f"security-group/{group}")
        return {**inputs, "id": group, "arn": name, "description": description}

    def read(self, identifier, state):
        client("ec2").describe_security_groups(GroupIds=[identifier])
        return state

    def delete(self, identifier, state):
        client("ec2").delete_security_group(GroupId=identifier)


class SecurityGroupRule(Echo):
    replacing = (
        "type",
        "fromPort",
        "toPort",
        "protocol",
        "cidrBlocks",
        "ipv6CidrBlocks",
        "prefixListIds",
        "securityGroupId",
        "sourceSecurityGroupId",
        "self",
    )
    computed = ("securityGroupRuleId",)

    def create(self, identifier, inputs):
        return {**inputs, "securityGroupRuleId": f"sgr-{identifier}"}


class LaunchTemplate(Echo):
    """moto knows the template and how many versions it has; their content stands in the Pulumi state."""

    NOT_CONTENT = ("name", "namePrefix", "description", "defaultVersion", "updateDefaultVersion", "tags")
    name_property = "name"
    replacing = ("name", "namePrefix")
    sets = ("vpcSecurityGroupIds", "securityGroupNames")
    computed = ("arn", "latestVersion", "defaultVersion")

    def create(self, identifier, inputs):
        made = client("ec2").create_launch_template(
            LaunchTemplateName=inputs["name"], LaunchTemplateData={"EbsOptimized": False}
        )
        template = made["LaunchTemplate"]["LaunchTemplateId"]
        name = arn("ec2", f"launch-template/{template}")
        return {**inputs, "id": template, "arn": name, "latestVersion": 1, "defaultVersion": 1}

    def read(self, identifier, state):
        found = client("ec2").describe_launch_templates(LaunchTemplateIds=[identifier])["LaunchTemplates"]
        if not found:
            raise LookupError(identifier)
        return {**state, "latestVersion": found[0]["LatestVersionNumber"]}

    def update(self, identifier, state, inputs):
        # A version is new for a change of content only; a change of tags just looks so in the preview.
        old, new = ({k: v for k, v in x.items() if k not in self.NOT_CONTENT} for x in (state, inputs))
        if any(old.get(key) != value for key, value in new.items()) or self.gone(old, new):
            client("ec2").create_launch_template_version(
                LaunchTemplateId=identifier, LaunchTemplateData={"EbsOptimized": False}
            )
        return self.read(identifier, {**without(state, self.gone(state, inputs)), **inputs})

    def delete(self, identifier, state):
        client("ec2").delete_launch_template(LaunchTemplateId=identifier)

    def recomputed(self, changes):
        tops = {re.split(r"[.\[]", path)[0] for path in changes}
        still = {"name", "namePrefix", "description", "defaultVersion", "updateDefaultVersion"}
        return ("latestVersion",) if tops - still else ()

    def gone(self, state, inputs):
        """Return what the template had and is to have no more."""
        return set(state) - set(inputs) - {"id", *self.computed}


class Cluster(Echo):
    name_property = "name"
    replacing = (
        "name",
        "roleArn",
        "bootstrapSelfManagedAddons",
        "accessConfig.bootstrapClusterCreatorAdminPermissions",
        "kubernetesNetworkConfig.ipFamily",
        "kubernetesNetworkConfig.serviceIpv4Cidr",
        "remoteNetworkConfig",
        "outpostConfig",
    )
    lasting = ("accessConfig", "kubernetesNetworkConfig", "upgradePolicy", "version")
    sets = ("subnetIds", "securityGroupIds", "publicAccessCidrs", "enabledClusterLogTypes")
    computed = ("arn", "certificateAuthority", "endpoint", "identities", "platformVersion", "status")

    def create(self, identifier, inputs):
        check_control_plane(subnets_of(inputs["vpcConfig"]["subnetIds"]))
        client("eks").create_cluster(
            name=identifier,
            roleArn=inputs["roleArn"],
            resourcesVpcConfig={"subnetIds": inputs["vpcConfig"]["subnetIds"]},
            tags=inputs.get("tags") or {},
            **({"version": inputs["version"]} if inputs.get("version") else {}),
        )
        outputs = self.read(identifier, inputs)
        await_making("clusterSeconds", f"EKS Cluster ({identifier})", identifier, outputs, inputs)
        return outputs

    def found(self, identifier):
        cluster = client("eks").describe_cluster(name=identifier)["cluster"]
        return {
            "name": identifier,
            "roleArn": cluster["roleArn"],
            "tags": cluster.get("tags") or {},
            "version": cluster["version"],
            "vpcConfig": {"subnetIds": cluster["resourcesVpcConfig"]["subnetIds"]},
        }

    def read(self, identifier, state):
        cluster = client("eks").describe_cluster(name=identifier)["cluster"]
        endpoint, authority = cluster["endpoint"], cluster["certificateAuthority"]["data"]
        if kubeconfig := lab_kubeconfig():
            section = named(kubeconfig, "cluster", kubeconfig["clusters"][0]["name"])
            endpoint, authority = section["server"], section["certificate-authority-data"]
        issuer = f"https://oidc.eks.{region()}.{dns_suffix()}/id/STANDIN"
        usual = {
            "accessConfig": {
                "authenticationMode": "CONFIG_MAP",
                "bootstrapClusterCreatorAdminPermissions": True,
            },
            "kubernetesNetworkConfig": {"ipFamily": "ipv4", "serviceIpv4Cidr": "10.100.0.0/16"},
            "upgradePolicy": {"supportType": "EXTENDED"},
            "version": cluster["version"],
        }
        network = {
            "clusterSecurityGroupId": f"sg-{identifier}",
            "endpointPrivateAccess": False,
            "endpointPublicAccess": True,
            "publicAccessCidrs": ["0.0.0.0/0"],
            "vpcId": subnets_of(state["vpcConfig"]["subnetIds"])[0]["VpcId"],
        }
        return {
            **usual,
            **state,
            "arn": cluster["arn"],
            "certificateAuthority": {"data": authority},
            "endpoint": endpoint,
            "identities": [{"oidcs": [{"issuer": issuer}]}],
            "platformVersion": "eks.1",
            "status": cluster["status"],
            "vpcConfig": {**network, **state["vpcConfig"]},
        }

    def update(self, identifier, state, inputs):
        check_control_plane(subnets_of(inputs["vpcConfig"]["subnetIds"]))
        return self.read(identifier, {**state, **inputs})

    def delete(self, identifier, state):
        client("eks").delete_cluster(name=identifier)
        eks_objects.end()


class NodeGroup(Echo):
    """An EKS managed node group, and its nodes."""

    name_property = "nodeGroupName"
    replacing = (
        "amiType",
        "capacityType",
        "clusterName",
        "diskSize",
        "instanceTypes",
        "launchTemplate.id",
        "launchTemplate.name",
        "nodeGroupName",
        "nodeGroupNamePrefix",
        "nodeRoleArn",
        "remoteAccess",
        "subnetIds",
    )
    lasting = (
        "amiType",
        "capacityType",
        "diskSize",
        "instanceTypes",
        "nodeRepairConfig",
        "releaseVersion",
        "updateConfig",
        "version",
    )
    sets = ("subnetIds", "taints")
    computed = ("arn", "resources", "status")

    def identifier(self, name, inputs):
        return f"{inputs['clusterName']}:{inputs['nodeGroupName']}"

    def create(self, identifier, inputs):
        cluster, _, name = identifier.partition(":")
        check_nodes(inputs)
        taken = (
            "amiType",
            "capacityType",
            "diskSize",
            "instanceTypes",
            "labels",
            "launchTemplate",
            "taints",
            "tags",
            "version",
        )
        group = client("eks").create_nodegroup(
            clusterName=cluster,
            nodegroupName=name,
            nodeRole=inputs["nodeRoleArn"],
            subnets=inputs["subnetIds"],
            scalingConfig=inputs["scalingConfig"],
            **{key: inputs[key] for key in taken if inputs.get(key)},
        )["nodegroup"]
        given = ("amiType", "capacityType", "diskSize", "instanceTypes", "releaseVersion", "version")
        usual = {key: group[key] for key in given if key in group}
        groups = [{"name": item["name"]} for item in group["resources"]["autoScalingGroups"]]
        outputs = {
            **usual,
            **inputs,
            "arn": group["nodegroupArn"],
            "resources": [{"autoscalingGroups": groups}],
            "status": group["status"],
        }
        if wrong := public_without_addresses(inputs["subnetIds"]):
            raise InitializationError(
                f"waiting for EKS Node Group ({identifier}) create: unexpected state 'CREATE_FAILED', wanted "
                "target 'ACTIVE'. last error: Ec2SubnetInvalidConfiguration: One or more Amazon EC2 Subnets "
                f"of {wrong} for node group {name} does not automatically assign public IP addresses to "
                "instances launched into it.",
                identifier,
                {**outputs, "status": "CREATE_FAILED"},
                inputs,
            )
        eks_nodes.scale(group)
        await_making("groupSeconds", f"EKS Node Group ({identifier})", identifier, outputs, inputs)
        return outputs

    def found(self, identifier):
        cluster, _, name = identifier.partition(":")
        group = described(identifier)
        sizes = {key: group["scalingConfig"][key] for key in ("desiredSize", "maxSize", "minSize")}
        # The name is computed where there is an ID.
        template = {key: value for key, value in (group.get("launchTemplate") or {}).items() if key != "name"}
        known = ("amiType", "capacityType", "diskSize", "instanceTypes", "labels", "taints", "version")
        return {
            **{key: group[key] for key in known if group.get(key)},
            "clusterName": cluster,
            "nodeGroupName": name,
            "nodeRoleArn": group["nodeRole"],
            "scalingConfig": sizes,
            "subnetIds": group["subnets"],
            **({"launchTemplate": template} if template else {}),
        }

    def read(self, identifier, state):
        group = described(identifier)
        live = {
            "labels": group.get("labels") or {},
            "scalingConfig": {
                key: group["scalingConfig"][key] for key in ("desiredSize", "maxSize", "minSize")
            },
            "taints": group.get("taints") or [],
        }
        return {**state, **{key: value for key, value in live.items() if differs(state.get(key), value)}}

    def update(self, identifier, state, inputs):
        cluster, _, name = identifier.partition(":")
        changed = {key for key in inputs if key in state and inputs[key] != state[key]}
        if changed & {"launchTemplate", "releaseVersion", "version"}:
            try:
                eks_nodes.roll(described(identifier), by_force=bool(inputs.get("forceUpdateVersion")))
            except NodesError as error:
                raise RefusedError(
                    f"waiting for EKS Node Group ({identifier}) version update: unexpected state 'Failed', "
                    f"wanted target 'Successful'. last error: {error}"
                ) from error
        labels = map_change(state.get("labels") or {}, inputs.get("labels") or {})
        taints = taint_change(state.get("taints") or [], inputs.get("taints") or [])
        # The sizes are sent whole, but only when one of them changed: else those of an autoscaler stay.
        sizes = inputs["scalingConfig"] if inputs["scalingConfig"] != state["scalingConfig"] else {}
        sent = {"labels": labels, "taints": taints, "scalingConfig": sizes}
        if any(sent.values()):
            client("eks").update_nodegroup_config(
                clusterName=cluster,
                nodegroupName=name,
                **{key: value for key, value in sent.items() if value},
            )
            eks_nodes.relabel(described(identifier), labels, taints)
        if sizes:
            eks_nodes.scale(described(identifier))
        gone = {key for key in ("labels", "taints", "tags") if key not in inputs}
        return {**without(state, gone), **inputs}

    def delete(self, identifier, state):
        cluster, _, name = identifier.partition(":")
        eks_nodes.end(described(identifier))
        client("eks").delete_nodegroup(clusterName=cluster, nodegroupName=name)


class Addon(Echo):
    replacing = ("addonName", "clusterName")
    lasting = ("addonVersion", "configurationValues")
    computed = ("arn", "createdAt", "modifiedAt")

    def identifier(self, name, inputs):
        return f"{inputs['clusterName']}:{inputs['addonName']}"

    def create(self, identifier, inputs):
        outputs = super().create(identifier, inputs)
        if inputs["addonName"] not in DAEMON_SET_ADDONS and not eks_nodes.await_room():
            raise InitializationError(
                f"waiting for EKS Add-On ({identifier}) create: timeout while waiting for state to become "
                "'ACTIVE' (last state: 'DEGRADED'): InsufficientNumberOfReplicas: The add-on is unhealthy "
                "because it doesn't have the desired number of replicas",
                identifier,
                outputs,
                inputs,
            )
        return outputs


class AccessEntry(Echo):
    replacing = ("clusterName", "principalArn", "type")
    lasting = ("kubernetesGroups", "userName")
    sets = ("kubernetesGroups",)

    def identifier(self, name, inputs):
        return f"{inputs['clusterName']}:{inputs['principalArn']}"


class AccessPolicyAssociation(Echo):
    replacing = ("accessScope", "clusterName", "policyArn", "principalArn")


class PodIdentityAssociation(Echo):
    replacing = ("clusterName", "namespace", "serviceAccount")


TYPES = {
    "aws:ec2/launchTemplate:LaunchTemplate": LaunchTemplate(),
    "aws:ec2/securityGroup:SecurityGroup": SecurityGroup(),
    "aws:ec2/securityGroupRule:SecurityGroupRule": SecurityGroupRule(),
    "aws:eks/accessEntry:AccessEntry": AccessEntry(),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": AccessPolicyAssociation(),
    "aws:eks/addon:Addon": Addon(),
    "aws:eks/cluster:Cluster": Cluster(),
    "aws:eks/nodeGroup:NodeGroup": NodeGroup(),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": PodIdentityAssociation(),
    "aws:iam/instanceProfile:InstanceProfile": InstanceProfile(),
    "aws:iam/role:Role": Role(),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": RolePolicyAttachment(),
}


def kind_of(token: str) -> Echo:
    """Return what the stand-in knows of a resource type."""
    return TYPES.get(token) or Echo()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def in_order(value: Any, sets: tuple[str, ...]) -> Any:
    """Return the value with every list that is a set in one and the same order."""
    if isinstance(value, list):
        return [in_order(item, sets) for item in value]
    if not isinstance(value, dict):
        return value
    ordered = {key: in_order(item, sets) for key, item in value.items()}
    return {
        key: sorted(item, key=_text) if key in sets and isinstance(item, list) else item
        for key, item in ordered.items()
    }


def unknown(outputs: Properties, names: tuple[str, ...]) -> Properties:
    """Return the outputs with these as unknown."""
    return {**outputs, **dict.fromkeys(names, UNKNOWN)}


def without(properties: Properties, keys: set[str]) -> Properties:
    """Return the properties but for some."""
    return {key: value for key, value in properties.items() if key not in keys}


def differs(known: Any, live: Any) -> bool:
    """Say whether AWS has something else than the state; nothing equals empty, and lists here are sets."""
    return bool(known or live) and in_order({"": known}, ("",)) != in_order({"": live}, ("",))


def map_change(old: dict[str, str], new: dict[str, str]) -> dict[str, Any]:
    """Return what to send to turn one set of labels into the other."""
    added = {key: value for key, value in new.items() if old.get(key) != value}
    removed = sorted(set(old) - set(new))
    change = {"addOrUpdateLabels": added, "removeLabels": removed}
    return {key: value for key, value in change.items() if value}


def taint_change(old: list[dict[str, str]], new: list[dict[str, str]]) -> dict[str, Any]:
    """Return what to send to turn one list of taints into the other; those that stay are not sent again."""
    marks = {(taint["key"], taint["effect"]) for taint in new}
    change = {
        "addOrUpdateTaints": [taint for taint in new if taint not in old],
        "removeTaints": [taint for taint in old if (taint["key"], taint["effect"]) not in marks],
    }
    return {key: value for key, value in change.items() if value}


def await_making(setting: str, what: str, identifier: str, outputs: Properties, inputs: Properties) -> None:
    """Wait as long as EKS makes it; raise InitializationError when the wait ends early. It has an ID by then,
    which the true provider hands over, too."""
    try:
        await_made(setting, f"waiting for {what} create")
    except RefusedError as error:
        raise InitializationError(str(error), identifier, outputs, inputs) from error


def described(identifier: str) -> Properties:
    """Return a node group as EKS describes it."""
    cluster, _, name = identifier.partition(":")
    return client("eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]


def tag_list(tags: dict[str, str] | None) -> list[dict[str, str]]:
    """Return tags as IAM and EC2 take them."""
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def arn(service: str, resource: str) -> str:
    """Return the ARN of a resource."""
    return f"arn:{partition()}:{service}:{region()}:123456789012:{resource}"


GONE = (ClientError, LookupError)
