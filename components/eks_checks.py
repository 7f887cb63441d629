"""What is wrong with a cluster on EKS and can be known before anything is made: one guard for each.

A guard refuses what cannot work, and warns of what will be slow or dear; guards.py says what a guard is. To
add one, write its function here and run `make generate` for the table in docs/eks-checks.md. Pure functions.
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit

from . import instance_types, kubernetes_versions
from .guards import GUARDS, Answers, Plan, Shape, refuse, warn
from .instance_types import Accelerator
from .operating_systems import SERVED
from .own_nodes import pool_labels
from .problems import Finding
from .settings import Settings
from .values import RefusedError

# Zones without a control plane: the EKS guide, "View Amazon EKS networking requirements for VPC and subnets".
REFUSED_ZONES = ("use1-az3", "usw1-az2", "cac1-az3")
# The id of a zone that is neither a local nor a wavelength zone, such as usw2-lax1-az1.
_AVAILABILITY_ZONE = re.compile(r"[a-z0-9]+-az[0-9]+")
# Endpoints without which a node that reaches nothing else does not join or pull: the EKS guide, "Deploy
# private clusters with limited internet access".
NEEDED_ENDPOINTS = ("ec2", "ecr.api", "ecr.dkr", "s3")
# Places that no VPC endpoint leads to, those of the default settings among them.
PUBLIC_HOSTS = ("github.com", "public.ecr.aws", "docker.io", "quay.io", "ghcr.io", "registry.k8s.io")

# Before the name of a label that the kubelet, EKS or the cloud provider may set: the Kubernetes reference,
# "Well-Known Labels, Annotations and Taints", and the EKS guide.
SET_BY_OTHERS = (
    "kubernetes.io/",
    "node.kubernetes.io/",
    "topology.kubernetes.io/",
    "topology.k8s.aws/",
    "eks.amazonaws.com/",
    "beta.kubernetes.io/",
    "failure-domain.beta.kubernetes.io/",
    "k8s.io/cloud-provider-aws",
)
# The taint that the pods of CoreDNS tolerate, as EKS deploys them, whatever its value.
TOLERATED_BY_CORE_DNS = "CriticalAddonsOnly"

# Sizes with less memory take 4 pods, and the kubelet reserves 0.4 GiB of their 0.5 or 1.
LEAST_MEMORY_GIB = 2
# With fewer processors a parallel pull is no faster than containerd's own. AWS's own switch for it (nodeadm,
# FastImagePull) ignores such nodes, too.
LEAST_PROCESSORS_IN_PARALLEL = 4
# The limits of EBS: the EBS guide, "Amazon EBS volume types". A gp3 volume moves at most 0.25 MiB/s for each
# operation per second; an io2 one moves 256 KiB by one, which is the same.
MOST_IOPS = {"gp3": 80000, "io2": 256000}
MOST_IOPS_PER_GIB = {"gp3": 500, "io2": 1000}
IOPS_PER_MIB_S = 4
# MiB/s. Below the first, images wait for the volume; above the second, there is little to gain.
SLOW_THROUGHPUT, GOOD_THROUGHPUT = 200, 600
# GiB of the root volume that are not for images (an estimate), and the part that the kubelet keeps free.
SYSTEM_GIB, KEPT_FREE = 8, 0.15
# GiB of images, compressed and unpacked. Of others the size is not known here.
IMAGES_GIB = {"public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest": 3.2 + 6.4}

SECOND_SOCI = "nodeadm's FastImagePull turns on the AMI's own SOCI, and both write the same files"
WITHOUT_SECOND_SOCI = "take FastImagePull out of the NodeConfig"

_MEBI = 1.048576  # MB in a MiB
_TAG = re.compile(r"[\w .:/=+\-@]*")
_FAST_IMAGE_PULL = re.compile(r"FastImagePull[\"']?\s*[:=]\s*[\"']?true", re.IGNORECASE)
_REGISTERED_TAINTS = re.compile(r"register-?with-?taints", re.IGNORECASE)
_ACCELERATOR_OF_AMI = {
    ami: accelerator for system in SERVED.values() for (_, accelerator), ami in system.ami_types.items()
}
_M6I = "m6i.xlarge"
_OTHER_VPC = "pulumi config set soci:vpcId vpc-…, with soci:subnetIds in two zones"
# The key of each list of subnets -> its field.
_CLUSTER_SUBNETS = {
    "subnetIds": "subnet_ids",
    "publicSubnetIds": "public_subnet_ids",
    "privateSubnetIds": "private_subnet_ids",
}
_SUBNETS = {**_CLUSTER_SUBNETS, "nodeSubnetIds": "node_subnet_ids"}


def refusals(settings: Settings, groups: Mapping[str, Settings]) -> list[Finding]:
    """What cannot work, as far as the settings tell.

    Args:
        settings: those of the cluster.
        groups: the settings of each node group, by its name.
    """
    return _found(Plan(settings, groups, _today()), refuses=True, asking=False)


def warnings(settings: Settings, groups: Mapping[str, Settings]) -> list[Finding]:
    """What will be slow or dear, as far as the settings tell."""
    return _found(Plan(settings, groups, _today()), refuses=False, asking=False)


def refusals_by_aws(settings: Settings, groups: Mapping[str, Settings], answers: Answers) -> list[Finding]:
    """What cannot work, as AWS's answers show."""
    return _found(Plan(settings, groups, _today(), answers), refuses=True, asking=True)


def warnings_by_aws(settings: Settings, groups: Mapping[str, Settings], answers: Answers) -> list[Finding]:
    """What will be slow or dear, as AWS's answers show."""
    return _found(Plan(settings, groups, _today(), answers), refuses=False, asking=True)


def _found(plan: Plan, *, refuses: bool, asking: bool) -> list[Finding]:
    chosen = [guard for guard in GUARDS if guard.refuses is refuses and bool(guard.rights) is asking]
    return [finding for guard in chosen for finding in guard.check(plan)]


def _today() -> date:
    return datetime.now(UTC).date()


# The nodes


@refuse("an instance type without an AMI (Mac, the first Graviton), or without the driver of its accelerator")
def type_without_ami(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        if _takes_eks_ami(shape.group):
            yield from _without_ami(shape)


@refuse("instance types of two architectures, or with different accelerators, in one group")
def types_with_different_amis(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        if _takes_eks_ami(shape.group) and not list(_without_ami(shape)):
            yield from _refused(shape, shape.group.instance_types)


def _takes_eks_ami(group: Settings) -> bool:
    """Whether the AMI follows from the instance types."""
    return not group.ami_type and "amiId" not in group.eks_node_group_options


def _without_ami(shape: Shape) -> Iterable[Finding]:
    for one in shape.group.instance_types:
        yield from _refused(shape, [one])


def _refused(shape: Shape, types: Sequence[str]) -> Iterable[Finding]:
    try:
        SERVED[shape.group.operating_system].ami_type(types)
    except RefusedError as refused:
        yield shape.finding("instanceTypes", refused.reason, refused.remedy or _set("instanceTypes[0]", _M6I))


@refuse("an AMI of another architecture than the instance types")
def ami_of_another_architecture(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        ami = shape.group.ami_type
        wanted = "arm64" if "ARM_64" in ami else "amd64" if "x86_64" in ami else ""
        other = [one for one in _readable(shape) if wanted and instance_types.architecture(one) != wanted]
        if other:
            reason = f"{ami} is for {wanted}, and {other[0]} is {instance_types.architecture(other[0])}"
            yield shape.finding("amiType", reason, "pulumi config rm soci:amiType")


@warn("an AMI without the driver of the instances' accelerator")
def ami_without_driver(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        ami = shape.group.ami_type
        driven = _ACCELERATOR_OF_AMI.get(ami)
        accelerators = {one: instance_types.accelerator(one) for one in _readable(shape)}
        bare = [one for one, found in accelerators.items() if found not in (Accelerator.NONE, driven)]
        # Of another AMI it is not known what it has.
        if bare and driven is not None:
            reason = f"{ami} has no driver for the accelerator of {bare[0]}"
            has_driver = accelerators[bare[0]] is not Accelerator.OTHER
            remedy = "pulumi config rm soci:amiType" if has_driver else "bring the driver in a DaemonSet"
            yield shape.finding("amiType", reason, remedy)


def _readable(shape: Shape) -> list[str]:
    """The instance types whose names can be read."""
    return [one for one in shape.group.instance_types if instance_types.is_readable(one)]


@refuse("an instance too small for any mode")
def too_little_memory(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        memory = {one: instance_types.small_memory_gib(one) for one in shape.group.instance_types}
        for one, gib in memory.items():
            if _is_too_little(gib):
                yield _too_small(shape, f"{one} has {gib:g} GiB of memory and room for 4 pods")


@refuse("an instance too small for any mode, which its name does not show", "ec2:DescribeInstanceTypes")
def less_memory_than_named(plan: Plan) -> Iterable[Finding]:
    # Such as m1.small and c1.medium.
    for shape in plan.shapes():
        for one in shape.group.instance_types:
            mib = plan.aws.instance_types.get(one, {}).get("memorySize")
            gib = mib / 1024 if mib else None
            if _is_too_little(gib) and not _is_too_little(instance_types.small_memory_gib(one)):
                yield _too_small(shape, f"{one} has {gib:.2g} GiB of memory")


def _is_too_little(gib: float | None) -> bool:
    return gib is not None and gib < LEAST_MEMORY_GIB


def _too_small(shape: Shape, has: str) -> Finding:
    reason = f"{has}, too little for the cluster's own pods and SOCI (at least {LEAST_MEMORY_GIB} GiB)"
    return shape.finding("instanceTypes", reason, _set("instanceTypes[0]", _M6I))


@warn("an instance with so few processors that a parallel mode gains nothing")
def too_few_processors(plan: Plan) -> Iterable[Finding]:
    if plan.settings.mode == "lazy":
        return
    for shape in plan.shapes():
        processors = {one: instance_types.processors(one) for one in shape.group.instance_types}
        for one, number in processors.items():
            if number is not None and number < LEAST_PROCESSORS_IN_PARALLEL:
                reason = (
                    f"with {number} processors, {one} pulls in parallel no faster than containerd does alone "
                    f"(at least {LEAST_PROCESSORS_IN_PARALLEL})"
                )
                remedy = "pulumi config set soci:mode lazy, or larger instances"
                yield shape.finding("instanceTypes", reason, remedy)


@refuse("a SOCI of the AMI's own, turned on by nodeadm's feature gate FastImagePull")
def second_soci(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        if turns_on_second_soci(shape.group.eks_node_group_options):
            yield shape.finding("eksNodeGroup", SECOND_SOCI, WITHOUT_SECOND_SOCI)


def turns_on_second_soci(value: Any) -> bool:
    """Whether a value holds user data, or the options that become it, by which nodeadm starts a SOCI."""
    return any(_FAST_IMAGE_PULL.search(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """All that is written in a value, Base64 included."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{key}: {item}"
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pass


@refuse("kubelet arguments in the place of those that give the nodes their startup taint")
def overridden_taint(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        if any(_REGISTERED_TAINTS.search(text) for text in _texts(shape.group.eks_node_group_options)):
            reason = (
                "the kubelet takes the last register-with-taints only, and the nodes would start without the "
                "taint that keeps workloads away until SOCI is there"
            )
            yield shape.finding("eksNodeGroup", reason, _set("nodeTaints[0]", "KEY=VALUE:NoSchedule"))


@warn("a replacement of nodes that heeds no PodDisruptionBudget")
def voided_budgets(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        if shape.group.eks_node_group_options.get("forceUpdateVersion") in (True, "true"):
            reason = "with forceUpdateVersion EKS replaces nodes against the PodDisruptionBudgets"
            remedy = "pulumi config rm --path soci:eksNodeGroup.forceUpdateVersion"
            yield shape.finding("eksNodeGroup", reason, remedy)


@refuse("a nodeSelector that leaves out a group, whose nodes would keep their startup taint")
def unselected_group(plan: Plan) -> Iterable[Finding]:
    for key, value in plan.settings.node_selector.items():
        for name, group in plan.groups.items():
            possible = _label_values(group, key)
            if possible is not None and value not in possible:
                reason = (
                    f"the nodes of the group {name} do not have {key}={value}, so that no installer comes to "
                    "lift the taint that they start with"
                )
                is_free = key not in pool_labels() and not key.startswith(SET_BY_OTHERS)
                further = ", or that label for the group in soci:nodeLabels" if is_free else ""
                yield Finding("nodeSelector", reason, f"pulumi config rm soci:nodeSelector{further}")


def _label_values(group: Settings, key: str) -> Collection[str] | None:
    """The values that a label may have on a group's nodes; none when they do not have it, None when it is not
    known."""
    types = group.instance_types
    known = {one: [value] for one, value in {**group.node_labels, **pool_labels()}.items()}
    known["kubernetes.io/os"] = ["linux"]
    if all(map(instance_types.is_readable, types)):
        known["kubernetes.io/arch"] = [instance_types.architecture(one) for one in types]
    if key in known:
        return known[key]
    is_in_options = any(key in text for text in _texts(group.eks_node_group_options))
    return None if is_in_options or key.startswith(SET_BY_OTHERS) else ()


@refuse("no node from the start")
def no_node(plan: Plan) -> Iterable[Finding]:
    # Whatever soci:requireNodes says: CoreDNS waits for a node, and no autoscaler starts one for the sample,
    # which selects a label that only the installer sets.
    if not any(group.node_count for group in plan.groups.values()):
        reason = (
            "without a node SOCI is nowhere installed, and CoreDNS, for which pulumi up waits, does not start"
        )
        yield next(plan.shapes()).finding("nodeCount", reason, _set("nodeCount", 1))


@refuse("no node that takes the pods of CoreDNS, or of the sample, because of taints of its group")
def no_open_node(plan: Plan) -> Iterable[Finding]:
    filled = [shape for shape in plan.shapes() if shape.group.node_count]
    closed = [[taint for taint in shape.group.node_taints if _repels(taint)] for shape in filled]
    has_sample = plan.settings.sample_workload.enabled and plan.settings.state == "present"
    if not all(closed) or not filled:
        return
    if all(any(not _is_tolerated_by_core_dns(taint) for taint in taints) for taints in closed):
        reason = "CoreDNS's pods tolerate none of these taints, and pulumi up waits for them"
        remedy = "pulumi config rm soci:nodeTaints, or a further group without taints in soci:nodeGroups"
        yield filled[0].finding("nodeTaints", reason, remedy)
    elif has_sample:
        reason = "its pod tolerates none of the taints that each node has"
        remedy = "pulumi config set --path soci:sampleWorkload.enabled false"
        yield Finding("sampleWorkload", reason, remedy)


def _repels(taint: str) -> bool:
    """Whether no pod lands on a node with this taint that does not tolerate it."""
    return taint.endswith((":NoSchedule", ":NoExecute"))


def _is_tolerated_by_core_dns(taint: str) -> bool:
    return re.split("[=:]", taint)[0] == TOLERATED_BY_CORE_DNS


# Their volumes


def volume_iops(group: Settings) -> int:
    """The I/O operations per second of a group's volumes."""
    return group.volume_iops or max(3000, IOPS_PER_MIB_S * group.volume_throughput)


@refuse("a volume that EC2 refuses: more IOPS than its type or size has, or fewer than its throughput needs")
def impossible_volume(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        group = shape.group
        kind, iops = group.volume_type, volume_iops(group)
        needed = IOPS_PER_MIB_S * group.volume_throughput
        smallest = -(-iops // MOST_IOPS_PER_GIB[kind])
        if iops < needed:
            reason = f"{group.volume_throughput} MiB/s need {needed} operations per second"
            yield shape.finding("volumeIops", reason, "pulumi config rm soci:volumeIops")
        elif iops > MOST_IOPS[kind]:
            reason = f"{kind} has at most {MOST_IOPS[kind]} operations per second"
            yield shape.finding("volumeIops", reason, _set("volumeIops", MOST_IOPS[kind]))
        elif group.volume_gib < smallest:
            reason = f"{iops} operations per second need {smallest} GiB of {kind}"
            yield shape.finding("volumeGiB", reason, _set("volumeGiB", smallest))


@warn("a volume so slow that images wait for it")
def slow_volume(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        throughput = shape.group.volume_throughput
        if throughput < SLOW_THROUGHPUT and not _holds_images_elsewhere(shape.group):
            reason = f"images are written and read at {throughput} MiB/s at most"
            yield shape.finding("volumeThroughput", reason, _set("volumeThroughput", GOOD_THROUGHPUT))


@warn("a volume faster than the instance reaches its volumes", "ec2:DescribeInstanceTypes")
def volume_beyond_instance(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        paid = shape.group.volume_throughput if shape.group.volume_type == "gp3" else 0
        for one in shape.group.instance_types:
            most = plan.aws.instance_types.get(one, {}).get("ebsPerformanceMaximumThroughput")  # MB/s
            if most and paid * _MEBI > most:
                reachable = int(most / _MEBI)
                reason = (
                    f"{one} reaches its volumes at {reachable} MiB/s at most, and {paid} MiB/s are paid for"
                )
                yield shape.finding("volumeThroughput", reason, _set("volumeThroughput", reachable))


@warn("a volume too small for the sample's image")
def sample_larger_than_volume(plan: Plan) -> Iterable[Finding]:
    sample = plan.settings.sample_workload
    image = IMAGES_GIB.get(sample.image)
    if image is None or not sample.enabled or plan.settings.state == "absent":
        return
    least = int((image + SYSTEM_GIB) / (1 - KEPT_FREE)) + 1
    for shape in plan.shapes():
        gib = shape.group.volume_gib
        if gib < least and not _holds_images_elsewhere(shape.group):
            reason = f"the sample's image takes {image:.1f} GiB, and {gib} GiB are for the system, too"
            yield shape.finding("volumeGiB", reason, _set("volumeGiB", least))


def _holds_images_elsewhere(group: Settings) -> bool:
    """Whether images are on the instances' own disks."""
    return group.instance_store and all(
        instance_types.is_readable(one) and instance_types.has_instance_store(one)
        for one in group.instance_types
    )


# The cluster


@refuse("tags that AWS refuses: its own prefix, too many, too long, with other characters")
def impossible_tags(plan: Plan) -> Iterable[Finding]:
    # Source: the IAM guide, "Tags for IAM resources", the strictest of the services that get them.
    tags = plan.settings.tags
    if len(tags) > 50:
        reason = f"AWS takes 50 tags, and these are {len(tags)}"
        yield Finding("tags", reason, "pulumi config rm --path soci:tags.NAME")
    for name, value in tags.items():
        remedy = f"pulumi config rm --path 'soci:tags[\"{name}\"]'"
        if name.lower().startswith("aws:") or value.lower().startswith("aws:"):
            yield Finding("tags", f"{name}: the prefix aws: is AWS's own", remedy)
        elif not 1 <= len(name) <= 128 or len(value) > 256:
            reason = f"{name[:20]}: AWS takes names of 1 to 128 characters, and values of at most 256"
            yield Finding("tags", reason, remedy)
        elif not _TAG.fullmatch(name) or not _TAG.fullmatch(value):
            yield Finding("tags", f"{name}: AWS takes letters, digits, blanks and _ . : / = + - @", remedy)


@refuse("a Kubernetes release that EKS has given up")
def unsupported_version(plan: Plan) -> Iterable[Finding]:
    try:
        kubernetes_versions.check(plan.settings.kubernetes_version, plan.today)
    except RefusedError as refused:
        yield Finding("kubernetesVersion", refused.reason, refused.remedy)


@warn("a Kubernetes release in extended support or soon in it, with the price; one newer than this program")
def dear_version(plan: Plan) -> Iterable[Finding]:
    try:
        said = kubernetes_versions.check(plan.settings.kubernetes_version, plan.today)
    except RefusedError:
        return
    if said:
        yield _leave_release(plan, said, kubernetes_versions.carried(plan.today))


@refuse("a Kubernetes release that EKS does not carry", "eks:DescribeClusterVersions")
def version_not_carried(plan: Plan) -> Iterable[Finding]:
    carried = [one for one, status in plan.aws.versions.items() if status != "UNSUPPORTED"]
    if carried and plan.settings.kubernetes_version not in carried:
        carried.sort(key=kubernetes_versions.number)
        yield _leave_release(plan, f"EKS carries {', '.join(carried)}", carried)


def _leave_release(plan: Plan, reason: str, carried: Sequence[str]) -> Finding:
    remedy = kubernetes_versions.remedy(plan.settings.kubernetes_version, carried)
    return Finding("kubernetesVersion", reason, remedy)


# Its network


@refuse("no default VPC, and no vpcId", "ec2:DescribeVpcs")
def no_default_vpc(plan: Plan) -> Iterable[Finding]:
    if not plan.settings.vpc_id and plan.aws.default_vpc == "":
        reason = "this account has no default VPC in the region"
        yield Finding("vpcId", reason, f"{_set('vpcId', 'vpc-…')}, or aws ec2 create-default-vpc")


@refuse("a subnet that does not exist, or is in another VPC", "ec2:DescribeSubnets")
def strange_subnet(plan: Plan) -> Iterable[Finding]:
    wanted = plan.settings.vpc_id or plan.aws.default_vpc
    of_groups = {name: key for shape in plan.shapes() for name, key in node_subnets(plan, shape).items()}
    for name, key in {**of_groups, **cluster_subnets(plan)}.items():
        subnet = plan.aws.subnets.get(name)
        if subnet is not None and not subnet:
            reason = f"{name} does not exist in this account and region"
            yield Finding(key, reason, _other_subnet(plan, key, name))
        elif subnet and wanted and subnet.get("vpcId", wanted) != wanted:
            reason = f"{name} is in {subnet['vpcId']}, and not in {wanted}"
            yield Finding(key, reason, _other_subnet(plan, key, name))


@refuse("a subnet in a zone where EKS makes no control plane", "ec2:DescribeSubnets")
def refused_zone(plan: Plan) -> Iterable[Finding]:
    for name, key in cluster_subnets(plan).items():
        if _zone(plan, name) in REFUSED_ZONES:
            reason = f"{name} is in the zone {_zone(plan, name)}, where EKS makes no control plane"
            yield Finding(key, reason, _other_subnet(plan, key, name))


@refuse("no subnets in two zones", "ec2:DescribeSubnets")
def one_zone(plan: Plan) -> Iterable[Finding]:
    subnets = cluster_subnets(plan)
    zones = {_zone(plan, name) for name in subnets}
    if len(zones) == 1 and all(zones):
        reason = f"all subnets are in the zone {zones.pop()}, and EKS needs two zones"
        key = next(iter(subnets.values()))
        yield Finding(key, reason, _OTHER_VPC if key == "vpcId" else _set(f"{key}[1]", "subnet-…"))
    elif not subnets and plan.aws.default_subnets is not None:
        vpc = plan.aws.default_vpc
        reason = f"the default VPC {vpc} has no subnet in a zone where EKS makes a control plane"
        yield Finding("vpcId", reason, _OTHER_VPC)


@refuse(
    "nodes in a public subnet that gives them no public address",
    "ec2:DescribeSubnets",
    "ec2:DescribeRouteTables",
)
def public_without_address(plan: Plan) -> Iterable[Finding]:
    for name, key in _all_node_subnets(plan).items():
        gives_address = plan.aws.subnets.get(name, {}).get("mapPublicIpOnLaunch")
        if gives_address is False and _way_out_of(plan, name) == "internet gateway":
            reason = f"{name} is public but gives its nodes no public address, so that they reach nothing"
            remedy = f"aws ec2 modify-subnet-attribute --subnet-id {name} --map-public-ip-on-launch"
            yield Finding(key, reason, f"{remedy}, or private subnets")


@refuse(
    "nodes in a subnet without a way out, in a VPC without the endpoints for EC2, ECR and S3",
    "ec2:DescribeRouteTables",
    "ec2:DescribeVpcEndpoints",
)
def no_endpoints(plan: Plan) -> Iterable[Finding]:
    missing = [service for service in NEEDED_ENDPOINTS if plan.aws.endpoints.get(service) is False]
    for name, key in _isolated(plan).items():
        if missing:
            reason = f"{name} has no way out, and its VPC has no endpoint for {', '.join(missing)}"
            yield Finding(key, reason, "make a NAT gateway or these endpoints")


@refuse("nodes in a subnet without a way out, and a public API server only", "ec2:DescribeRouteTables")
def no_private_api(plan: Plan) -> Iterable[Finding]:
    if plan.settings.eks_cluster_options.get("endpointPrivateAccess") in (None, False, "false"):
        for name, key in _isolated(plan).items():
            reason = f"{name} has no way out, and the API server has no address in the VPC"
            yield Finding(key, reason, "pulumi config set --path soci:eksCluster.endpointPrivateAccess true")


@refuse(
    "nodes in a subnet without a way out, and a release, an installer or a sample from a public place",
    "ec2:DescribeRouteTables",
)
def no_mirror(plan: Plan) -> Iterable[Finding]:
    settings = plan.settings
    places = {"installerImage": (_registry(settings.installer_image), "soci:installerImage")}
    if settings.state == "present":
        places["releaseUrl"] = (urlsplit(settings.release_url).hostname or "", "soci:releaseUrl")
        if settings.sample_workload.enabled:
            sample = _registry(settings.sample_workload.image)
            places["sampleWorkload"] = (sample, "--path soci:sampleWorkload.image")
    for name in list(_isolated(plan))[:1]:
        for key, (host, path) in places.items():
            if host in PUBLIC_HOSTS and not (key == "releaseUrl" and settings.https_proxy):
                reason = f"the nodes in {name} have no way out to {host}"
                yield Finding(key, reason, f"pulumi config set {path} MIRROR, in the VPC or in your ECR")


@refuse("an instance type that is offered in no zone of its group", "ec2:DescribeInstanceTypeOfferings")
def type_not_offered(plan: Plan) -> Iterable[Finding]:
    other = _set("instanceTypes[0]", "TYPE")
    for shape in plan.shapes():
        zones = {_zone(plan, name) for name in node_subnets(plan, shape)}
        for one in shape.group.instance_types:
            offered = plan.aws.zones.get(one)
            if offered is not None and not offered:
                yield shape.finding("instanceTypes", f"EC2 has no {one} in this region", other)
            elif offered and zones and all(zones) and not zones & set(offered):
                reason = f"EC2 has {one} only in {', '.join(sorted(offered))}, and the group is elsewhere"
                yield shape.finding("instanceTypes", reason, f"{other}, or subnets there")


@refuse("an instance type of another architecture than its name says", "ec2:DescribeInstanceTypes")
def misread_type(plan: Plan) -> Iterable[Finding]:
    for shape in plan.shapes():
        for one in _readable(shape):
            found = plan.aws.instance_types.get(one, {}).get("supportedArchitectures")
            said = {"amd64": "x86_64", "arm64": "arm64"}[instance_types.architecture(one)]
            if found and said not in found and _takes_eks_ami(shape.group):
                reason = f"{one} is {' or '.join(found)}, which its name does not show"
                yield shape.finding("instanceTypes", reason, _set("amiType", "TYPE"))


def cluster_subnets(plan: Plan) -> dict[str, str]:
    """The control plane's subnets, each with the key that says so: those that were set, else the default
    VPC's in zones that EKS takes."""
    found = {name: key for key, field in _CLUSTER_SUBNETS.items() for name in getattr(plan.settings, field)}
    taken = (name for name in plan.aws.default_subnets or () if takes_control_plane(_zone(plan, name)))
    return found or dict.fromkeys(taken, "vpcId")


def takes_control_plane(zone: str | None) -> bool:
    """Whether EKS may make a control plane in a zone; of an unknown one it may."""
    return zone is None or (bool(_AVAILABILITY_ZONE.fullmatch(zone)) and zone not in REFUSED_ZONES)


def node_subnets(plan: Plan, shape: Shape) -> dict[str, str]:
    """The subnets of a group's nodes, each with the key that says so."""
    if shape.group.node_subnet_ids:
        return dict.fromkeys(shape.group.node_subnet_ids, f"{shape.place}nodeSubnetIds")
    of_cluster = cluster_subnets(plan)
    private = {name: key for name, key in of_cluster.items() if key == "privateSubnetIds"}
    return private or of_cluster


def _all_node_subnets(plan: Plan) -> dict[str, str]:
    return {name: key for shape in plan.shapes() for name, key in node_subnets(plan, shape).items()}


def _isolated(plan: Plan) -> dict[str, str]:
    """The nodes' subnets from which nothing outside the VPC is reached, each with the key that says so.

    Not those of a group with options for pulumi-eks: their NodeConfig may name a proxy.
    """
    return {
        name: key
        for shape in plan.shapes()
        if not shape.group.eks_node_group_options
        for name, key in node_subnets(plan, shape).items()
        if _way_out_of(plan, name) == "none"
    }


def _zone(plan: Plan, subnet: str) -> str | None:
    """The id of a subnet's zone; None when it is not known."""
    return plan.aws.subnets.get(subnet, {}).get("availabilityZoneId")


def _way_out_of(plan: Plan, subnet: str) -> str:
    """`way_out` of a subnet; empty when it is not known."""
    routes = plan.aws.routes.get(subnet)
    return "" if routes is None else way_out(routes)


def way_out(routes: Iterable[Mapping[str, Any]]) -> str:
    """What leads out of the VPC: `internet gateway`, `other` (NAT, transit gateway, …), or `none`."""
    gateways = {
        route.get("cidrBlock"): str(route.get("gatewayId") or "")
        for route in routes
        if not str(route.get("gatewayId") or "").startswith(("local", "vpce-"))
    }
    if gateways.get("0.0.0.0/0", "").startswith("igw-"):
        return "internet gateway"
    return "other" if gateways else "none"


def _other_subnet(plan: Plan, path: str, subnet: str) -> str:
    """The command that puts another subnet in the place of this one, of the list at this path."""
    key = path.rpartition(".")[2]
    if key not in _SUBNETS:
        return _OTHER_VPC
    group = next((one.group for one in plan.shapes() if one.place + key == path), plan.settings)
    return _set(f"{key}[{getattr(group, _SUBNETS[key]).index(subnet)}]", "subnet-…")


def _registry(image: str) -> str:
    """The registry in an image's reference."""
    first, slash, _ = image.partition("/")
    return first if slash and re.search("[.:]", first) else "docker.io"


def _set(key: str, value: object) -> str:
    """The command that sets a key, or an entry of it."""
    place = f"--path 'soci:{key}'" if "[" in key else f"soci:{key}"
    return f"pulumi config set {place} {value}"
