"""Stand-in for pulumi-eks' Cluster.

`core` lacks two references that the true one has, to the component's own provider and to its VpcCniAddon:
whoever reads `core` would load pulumi_kubernetes for them.
"""

import hashlib
import os
from typing import Any

import pulumi
from eks_common import VERSIONS, Inputs, Made, compact, in_order, kubeconfig, refuse_unknown

TRUST_IN_EKS = {
    "Action": ["sts:AssumeRole", "sts:TagSession"],
    "Effect": "Allow",
    "Principal": {"Service": ["eks.amazonaws.com"]},
}
EVERYTHING = {"fromPort": 0, "toPort": 0, "protocol": "-1"}
EVERYTHING_OUT = {
    "description": "Allow internet access.",
    "type": "egress",
    **EVERYTHING,
    "cidrBlocks": ["0.0.0.0/0"],
}
FROM_NODES = {
    "description": "Allow nodes to communicate with each other",
    "type": "ingress",
    **EVERYTHING,
    "self": True,
}
FROM_CLUSTER = {
    "description": "Allow worker Kubelets and pods to receive communication from the cluster control plane",
    "type": "ingress",
    "fromPort": 1025,
    "toPort": 65535,
    "protocol": "tcp",
}
FROM_API_SERVER = {
    "description": "Allow pods running extension API servers on port 443 to receive communication from "
    "cluster control plane",
    "type": "ingress",
    "fromPort": 443,
    "toPort": 443,
    "protocol": "tcp",
}
TO_API_SERVER = {**FROM_API_SERVER, "description": "Allow pods to communicate with the cluster API Server"}


class ServiceRole(pulumi.ComponentResource):
    """The IAM role that EKS takes on, with AWS's policy for it."""

    def __init__(
        self, name: str, partition: pulumi.Output[str], tags: Any, options: pulumi.ResourceOptions
    ) -> None:
        super().__init__("eks:index:ServiceRole", name, {}, options)
        child = pulumi.ResourceOptions(parent=self)
        properties = {
            "description": "Allows EKS to manage clusters on your behalf.",
            "assumeRolePolicy": compact({"Version": "2012-10-17", "Statement": [TRUST_IN_EKS]}),
            "tags": tags,
        }
        self.role = Made("aws:iam/role:Role", f"{name}-role", properties, child, "arn name")
        self.attachments = [
            Made(
                "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
                f"{name}-{short_hash(f'arn:aws:iam::aws:policy/{policy}')}",
                {
                    "policyArn": partition.apply(lambda found, policy=policy: policy_arn(found, policy)),
                    "role": self.role.name,
                },
                child,
            )
            for policy in ("AmazonEKSClusterPolicy",)
        ]
        self.register_outputs({"directRole": self.role, "resolvedRole": self.role})


class Cluster(pulumi.ComponentResource):
    """The control plane, its role, security groups and network add-ons, and a provider of its own."""

    NOT_HERE = (
        "autoMode",
        "createInstanceRole",
        "createOidcProvider",
        "creationRoleProvider",
        "fargate",
        "instanceRole",
        "instanceRoles",
        "roleMappings",
        "storageClasses",
        "userMappings",
    )

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:Cluster", name, {}, options)
        refuse_unknown("Cluster", inputs, self.NOT_HERE)
        if not inputs.get("skipDefaultNodeGroup"):
            raise NotImplementedError("the eks stand-in has no default node group: skipDefaultNodeGroup")
        self._name, self._inputs = name, inputs
        self._child = pulumi.ResourceOptions(parent=self)
        self._subnets()
        groups = self._cluster_security_group()
        self._control_plane(groups)
        self._kube_proxy()
        provider = self._own_provider()
        self._vpc_cni(provider)
        self._access_entries()
        self._coredns()
        node_group, rule = self._node_security_group(groups)
        shown = kubeconfig(self.cluster, inputs.get("providerCredentialOpts"), with_profile=False)
        issuer = self.cluster.identities.apply(lambda found: found[0]["oidcs"][0]["issuer"])
        own_group = self.cluster.vpcConfig.apply(lambda found: found.get("clusterSecurityGroupId"))
        core = {
            "accessEntries": list((inputs.get("accessEntries") or {}).values()),
            "autoModeNodeRoleName": "",
            "cluster": self.cluster,
            "clusterIamRole": self._role,
            "clusterSecurityGroup": groups,
            "endpoint": self.cluster.endpoint,
            "instanceRoles": [],
            "kubeconfig": shown,
            "nodeGroupOptions": {"nodeSecurityGroup": node_group, "clusterIngressRule": rule},
            "privateSubnetIds": inputs.get("privateSubnetIds"),
            "publicSubnetIds": inputs.get("publicSubnetIds"),
            "storageClasses": {},
            "subnetIds": self._subnet_ids,
            "tags": inputs.get("tags"),
            "vpcId": self._vpc_id,
        }
        self.outputs = {
            "autoModeNodeRoleName": "",
            "clusterIngressRuleId": rule.securityGroupRuleId if rule else "",
            "clusterSecurityGroup": groups,
            "clusterSecurityGroupId": groups.id if groups else own_group,
            "core": core,
            "defaultNodeGroupAsgName": "",
            "eksCluster": self.cluster,
            "eksClusterIngressRule": rule,
            "fargateProfileId": "",
            "fargateProfileStatus": "",
            "instanceRoles": [],
            "kubeconfig": shown,
            "kubeconfigJson": shown.apply(compact),
            "nodeSecurityGroup": node_group,
            "nodeSecurityGroupId": node_group.id if node_group else own_group,
            "oidcIssuer": issuer.apply(lambda url: url.removeprefix("https://")),
            "oidcProviderArn": "",
            "oidcProviderUrl": issuer,
        }
        self.register_outputs(self.outputs)

    def _ask(self, token: str, arguments: dict[str, Any]) -> pulumi.Output[Any]:
        """Ask AWS, at each run."""
        options = pulumi.InvokeOutputOptions(parent=self, version=VERSIONS["aws"])
        return pulumi.runtime.invoke_output(token, arguments, options)

    def _subnets(self) -> None:
        """Choose VPC and subnets: those of the arguments, or all of the account's default VPC."""
        inputs = self._inputs
        found: Any = []
        if inputs.get("vpcId") is not None:
            self._vpc_id = pulumi.Output.from_input(inputs["vpcId"])
        else:
            vpc = self._ask("aws:ec2/getVpc:getVpc", {"default": True})
            self._vpc_id = vpc.apply(lambda answer: answer["id"])
            filters = [{"name": "vpc-id", "values": [self._vpc_id]}]
            answer = self._ask("aws:ec2/getSubnets:getSubnets", {"filters": filters})
            found = answer.apply(lambda subnets: subnets["ids"])
        public, private = inputs.get("publicSubnetIds"), inputs.get("privateSubnetIds")
        if public is not None or private is not None:
            found = pulumi.Output.all(public, private).apply(
                lambda both: [subnet for subnets in both for subnet in subnets or []]
            )
        named = inputs.get("subnetIds")
        self._subnet_ids = pulumi.Output.from_input(found if named is None else named)

    def _cluster_security_group(self) -> Made | None:
        given = self._inputs.get("clusterSecurityGroup")
        if given or self._inputs.get("skipDefaultSecurityGroups"):
            return given
        group = self._security_group("eksClusterSecurityGroup", self._inputs.get("clusterSecurityGroupTags"))
        self._rule("eksClusterInternetEgressRule", EVERYTHING_OUT, group)
        return group

    def _security_group(self, name: str, tags: Any, more: Any = None) -> Made:
        properties = {
            "description": "Managed by Pulumi",
            "vpcId": self._vpc_id,
            "revokeRulesOnDelete": True,
            "tags": joined({"Name": f"{self._name}-{name}"}, more, tags, self._inputs.get("tags")),
        }
        return Made("aws:ec2/securityGroup:SecurityGroup", f"{self._name}-{name}", properties, self._child)

    def _rule(self, name: str, rule: Inputs, group: Any, source: Any = None) -> Made:
        properties = {**rule, "securityGroupId": group.id, "sourceSecurityGroupId": source and source.id}
        return Made(
            "aws:ec2/securityGroupRule:SecurityGroupRule",
            f"{self._name}-{name}",
            properties,
            self._child,
            "securityGroupRuleId",
        )

    def _control_plane(self, group: Made | None) -> None:
        inputs, name = self._inputs, self._name
        partition = self._ask("aws:index/getPartition:getPartition", {}).apply(
            lambda found: found["partition"]
        )
        role = None
        self._role = inputs.get("serviceRole")
        if not self._role:
            role = ServiceRole(f"{name}-eksRole", partition, inputs.get("tags"), self._child)
            self._role = role.role
        mode, key = inputs.get("authenticationMode"), inputs.get("encryptionConfigKeyArn")
        addresses, family = inputs.get("kubernetesServiceIpAddressRange"), inputs.get("ipFamily")
        network = {"ipFamily": family or "ipv4", "serviceIpv4Cidr": addresses}
        self.cluster = Made(
            "aws:eks/cluster:Cluster",
            f"{name}-eksCluster",
            {
                "name": inputs.get("name"),
                "roleArn": self._role.arn,
                "kubernetesNetworkConfig": given(network) if addresses or family else None,
                "bootstrapSelfManagedAddons": inputs.get("bootstrapSelfManagedAddons", True),
                "vpcConfig": given(
                    {
                        "securityGroupIds": [group.id] if group else None,
                        "subnetIds": self._subnet_ids,
                        **{
                            key: inputs.get(key)
                            for key in ("endpointPrivateAccess", "endpointPublicAccess", "publicAccessCidrs")
                        },
                    }
                ),
                "version": inputs.get("version"),
                "enabledClusterLogTypes": inputs.get("enabledClusterLogTypes"),
                "tags": joined({"Name": f"{name}-eksCluster"}, inputs.get("clusterTags"), inputs.get("tags")),
                "encryptionConfig": {"provider": {"keyArn": key}, "resources": ["secrets"]} if key else None,
                "accessConfig": {
                    "authenticationMode": mode,
                    "bootstrapClusterCreatorAdminPermissions": True,
                }
                if mode
                else None,
                "upgradePolicy": inputs.get("upgradePolicy"),
                "deletionProtection": inputs.get("deletionProtection"),
            },
            pulumi.ResourceOptions(
                parent=self,
                depends_on=role.attachments if role else [],
                ignore_changes=[
                    "accessConfig.bootstrapClusterCreatorAdminPermissions",
                    "bootstrapSelfManagedAddons",
                ],
            ),
            "arn certificateAuthority endpoint identities name version vpcConfig",
        )

    def _newest(self, addon: str) -> pulumi.Output[str]:
        """Return an add-on's most recent build: whatever AWS has by then, at each run."""
        arguments = {"addonName": addon, "kubernetesVersion": self.cluster.version, "mostRecent": True}
        return self._ask("aws:eks/getAddonVersion:getAddonVersion", arguments).apply(
            lambda found: found["version"]
        )

    def _addon(self, addon: str, options: Inputs, version: Any, child: pulumi.ResourceOptions) -> Made:
        values = options.get("configurationValues")
        return Made(
            "aws:eks/addon:Addon",
            f"{self._name}-{addon}",
            {
                "addonName": addon,
                "addonVersion": version or self._newest(addon),
                "clusterName": self.cluster.name,
                "configurationValues": pulumi.Output.from_input(values).apply(in_order) if values else None,
                "preserve": True,
                "resolveConflictsOnCreate": options.get("resolveConflictsOnCreate") or "OVERWRITE",
                "resolveConflictsOnUpdate": options.get("resolveConflictsOnUpdate") or "OVERWRITE",
                "serviceAccountRoleArn": options.get("serviceAccountRoleArn"),
                "tags": self._inputs.get("tags"),
            },
            child,
        )

    def _kube_proxy(self) -> None:
        options = self._inputs.get("kubeProxyAddonOptions") or {}
        if options.get("enabled", True):
            self._addon("kube-proxy", options, options.get("version"), self._child)

    def _vpc_cni(self, provider: pulumi.ProviderResource) -> None:
        if self._inputs.get("useDefaultVpcCni"):
            return
        options = self._inputs.get("vpcCniOptions") or {}
        component = pulumi.ComponentResource(
            "eks:index:VpcCniAddon",
            f"{self._name}-vpc-cni",
            {},
            pulumi.ResourceOptions(parent=self, providers=[provider]),
        )
        values = vpc_cni_values(options)
        addon = self._addon(
            "vpc-cni",
            {**options, "configurationValues": values},
            options.get("addonVersion"),
            pulumi.ResourceOptions(parent=component),
        )
        component.register_outputs({"addon": addon})

    def _coredns(self) -> None:
        """Make CoreDNS an add-on when the program says so; without a default node group it is none else."""
        options = self._inputs.get("corednsAddonOptions") or {}
        if options.get("enabled") or options.get("configurationValues"):
            self._addon("coredns", options, options.get("version"), self._child)

    def _access_entries(self) -> None:
        for key, entry in (self._inputs.get("accessEntries") or {}).items():
            name = f"{self._name}-{key}"
            made = Made(
                "aws:eks/accessEntry:AccessEntry",
                name,
                {
                    "clusterName": self.cluster.name,
                    "principalArn": entry["principalArn"],
                    "userName": entry.get("username"),
                    **{part: entry.get(part) for part in ("kubernetesGroups", "tags", "type")},
                },
                pulumi.ResourceOptions(parent=self, depends_on=[self.cluster]),
            )
            for policy, association in (entry.get("accessPolicies") or {}).items():
                Made(
                    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
                    f"{name}-{policy}",
                    {
                        "accessScope": association["accessScope"],
                        "clusterName": self.cluster.name,
                        "policyArn": association["policyArn"],
                        "principalArn": entry["principalArn"],
                    },
                    pulumi.ResourceOptions(parent=made, depends_on=[made]),
                )

    def _own_provider(self) -> pulumi.ProviderResource:
        """Make the provider that the component itself uses; it alone gets the profile."""
        profile = os.environ.get("AWS_PROFILE") or pulumi.Config("aws").get("profile")
        usual = {"profileName": profile} if profile else None
        credentials = self._inputs.get("providerCredentialOpts") or usual
        content = kubeconfig(self.cluster, credentials, with_profile=True).apply(compact)
        return pulumi.ProviderResource(
            "kubernetes",
            f"{self._name}-eks-k8s",
            {"kubeconfig": content},
            pulumi.ResourceOptions(parent=self, version=VERSIONS["kubernetes"]),
        )

    def _node_security_group(self, cluster_group: Made | None) -> tuple[Made | None, Made | None]:
        """Make the group for self-managed nodes; managed ones never use it."""
        if self._inputs.get("skipDefaultSecurityGroups"):
            return None, None
        owned = self.cluster.name.apply(lambda name: {f"kubernetes.io/cluster/{name}": "owned"})
        group = self._security_group(
            "nodeSecurityGroup", self._inputs.get("nodeSecurityGroupTags"), more=owned
        )
        self._rule("eksNodeIngressRule", FROM_NODES, group)
        self._rule("eksNodeClusterIngressRule", FROM_CLUSTER, group, cluster_group)
        self._rule("eksExtApiServerClusterIngressRule", FROM_API_SERVER, group, cluster_group)
        self._rule("eksNodeInternetEgressRule", EVERYTHING_OUT, group)
        rule = self._rule("eksClusterIngressRule", TO_API_SERVER, cluster_group, group)
        return group, rule


def vpc_cni_values(options: Inputs) -> dict[str, Any]:
    """Return the network plug-in's configuration: the component's defaults under the program's own values."""
    own = options.get("configurationValues") or {}
    env = {
        "WARM_ENI_TARGET": str(options.get("warmEniTarget") or 1),
        "AWS_VPC_K8S_CNI_LOGLEVEL": options.get("logLevel") or "DEBUG",
        "AWS_VPC_K8S_CNI_LOG_FILE": options.get("logFile") or "/host/var/log/aws-routed-eni/ipamd.log",
        "AWS_VPC_K8S_CNI_VETHPREFIX": options.get("vethPrefix") or "eni",
        "AWS_VPC_ENI_MTU": str(options.get("eniMtu") or 9001),
        "AWS_VPC_K8S_PLUGIN_LOG_LEVEL": options.get("pluginLogLevel") or "DEBUG",
        "AWS_VPC_K8S_PLUGIN_LOG_FILE": options.get("pluginLogFile") or "/var/log/aws-routed-eni/plugin.log",
        "ENABLE_POD_ENI": flag(options.get("enablePodEni")),
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": flag(options.get("cniCustomNetworkCfg")),
        "AWS_VPC_K8S_CNI_EXTERNALSNAT": flag(options.get("externalSnat") or options.get("cniExternalSnat")),
    }
    more = {"WARM_IP_TARGET": "warmIpTarget", "WARM_PREFIX_TARGET": "warmPrefixTarget"}
    env |= {name: str(options[key]) for name, key in more.items() if options.get(key)}
    if options.get("enablePrefixDelegation"):
        env["ENABLE_PREFIX_DELEGATION"] = "true"
    init = {"DISABLE_TCP_EARLY_DEMUX": flag(options.get("disableTcpEarlyDemux"))}
    policy = {}
    if options.get("enableNetworkPolicy") is not None:
        policy = {"enableNetworkPolicy": flag(options["enableNetworkPolicy"])}
    own_init = own.get("init") or {}
    return {
        **policy,
        **own,
        "env": {**env, **(own.get("env") or {})},
        "init": {**own_init, "env": {**init, **(own_init.get("env") or {})}},
    }


def flag(value: object) -> str:
    """Return a truth value as Kubernetes' environment variables write it."""
    return "true" if value else "false"


def policy_arn(partition: str, policy: str) -> str:
    """Return the ARN of one of AWS's own policies."""
    return f"arn:{partition}:iam::aws:policy/{policy}"


def short_hash(text: str) -> str:
    """Return the piece of a hash that stands in the names of a role's attachments."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def joined(*maps: Any) -> pulumi.Output[dict[str, str]]:
    """Return maps in one; later ones win."""
    return pulumi.Output.all(*maps).apply(
        lambda known: {key: value for each in known for key, value in (each or {}).items()}
    )


def given(properties: Inputs) -> dict[str, Any]:
    """Return the properties that have a value."""
    return {key: value for key, value in properties.items() if value is not None}
