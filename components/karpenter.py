"""A NodePool and an EC2NodeClass of Karpenter whose nodes get SOCI.

Both take Karpenter's own `spec`, as its documentation writes it, and lay it over what SOCI needs: every field
of Karpenter's can be set, and none is declared here again. Values may be outputs. Made for karpenter.sh/v1
and karpenter.k8s.aws/v1, so for Karpenter 1.0 and newer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from . import eks_checks
from .names import STARTUP_TAINT
from .operating_systems import DEFAULT, OPERATING_SYSTEMS, SERVED
from .own_nodes import STARTUP, Taint, pool_labels
from .problems import SociConfigError
from .settings import Settings

Manifest = dict[str, Any]
"""An object of Kubernetes, with `apiVersion`, `kind`, `metadata` and `spec`, as YAML would hold it."""

_AWS_GROUP = "karpenter.k8s.aws"
_FAMILIES = (*SERVED, "custom")
_NEWEST = {"alias": f"{DEFAULT}@latest"}
_OS_LABEL = "kubernetes.io/os"
_LINUX = {"key": _OS_LABEL, "operator": "In", "values": ["linux"]}
_SELECTORS = ("subnetSelectorTerms", "securityGroupSelectorTerms")


def startup_taints(own: Sequence[Taint] = ()) -> list[dict[str, str]]:
    """The startup taint, behind `own`, as `startupTaints` of a NodePool's template.

    Karpenter puts them on the node, and counts with the node meanwhile: it knows that they pass.
    """
    return [dict(taint) for taint in (*(taint for taint in own if not _is_startup(taint)), STARTUP)]


def node_pool(
    name: str, spec: Mapping[str, Any] | None = None, *, node_class: str = "", pool: str = "soci"
) -> Manifest:
    """A NodePool whose nodes start with the startup taint and the label of `pool_labels(pool)`.

    `spec` is Karpenter's own. Where it says nothing, `nodeClassRef` is the EC2NodeClass `node_class` (empty:
    of the pool's own name), and the `requirements` ask for Linux.

    Raises:
        SociConfigError: a pool whose nodes would never be started or never serve.
    """
    chosen = dict(spec or {})
    template = dict(chosen.pop("template", {}))
    metadata, inner = dict(template.pop("metadata", {})), dict(template.pop("spec", {}))
    requirements = _list(inner.pop("requirements", ()))
    _refuse(f"NodePool {name}", [*_wrong_taints(inner), *_other_systems(requirements)])
    if not any(_of(requirement, "key") == _OS_LABEL for requirement in requirements):
        requirements = [_LINUX, *requirements]
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            **chosen,
            "template": {
                **template,
                "metadata": {**metadata, "labels": {**pool_labels(pool), **metadata.get("labels", {})}},
                "spec": {
                    "nodeClassRef": {
                        "group": _AWS_GROUP,
                        "kind": "EC2NodeClass",
                        "name": node_class or name,
                    },
                    **inner,
                    "requirements": requirements,
                    "startupTaints": startup_taints(_list(inner.get("startupTaints", ()))),
                },
            },
        },
    }


def ec2_node_class(
    name: str,
    spec: Mapping[str, Any],
    *,
    volume_gib: int = Settings.volume_gib,
    volume_iops: int = 3000,
    volume_throughput: int = Settings.volume_throughput,
    hop_limit: int = Settings.metadata_hop_limit,
    instance_store: bool = False,
) -> Manifest:
    """An EC2NodeClass of AL2023 nodes with a disk that suits the loading of images.

    `spec` is Karpenter's own and needs `role` (or `instanceProfile`), `subnetSelectorTerms` and
    `securityGroupSelectorTerms`; its keys go before what this makes of the other arguments:

    * the root disk: gp3, encrypted, `volume_gib` GiB, `volume_iops` per second, `volume_throughput` MiB/s;
    * `hop_limit`, how far the instance's metadata may travel: 1 keeps them, and the node's role, from pods;
    * `instance_store`: the directories of containerd, kubelet and SOCI lie on the instance's own NVMe disks,
      as RAID 0, on types that have them (of SOCI since AL2023's AMI v20251217).

    Without `amiSelectorTerms` it is the newest AL2023 AMI, and Karpenter replaces the nodes by and by when
    AWS releases one; `[{"alias": "al2023@v20260120"}]` holds them still.

    Raises:
        SociConfigError: nodes that Karpenter cannot start, or on which SOCI cannot be installed.
    """
    chosen: dict[str, Any] = {
        "amiSelectorTerms": [dict(_NEWEST)],
        "blockDeviceMappings": [
            {
                "deviceName": SERVED[DEFAULT].root,
                "rootVolume": True,
                "ebs": {
                    "volumeType": "gp3",
                    "volumeSize": f"{volume_gib}Gi",
                    "iops": volume_iops,
                    "throughput": volume_throughput,
                    "encrypted": True,
                    "deleteOnTermination": True,
                },
            }
        ],
        "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": hop_limit},
        **({"instanceStorePolicy": "RAID0"} if instance_store else {}),
        **spec,
    }
    _refuse(f"EC2NodeClass {name}", [*_missing(chosen), *_other_families(chosen), *_second_soci(chosen)])
    return {
        "apiVersion": f"{_AWS_GROUP}/v1",
        "kind": "EC2NodeClass",
        "metadata": {"name": name},
        "spec": chosen,
    }


def _refuse(subject: str, problems: list[str]) -> None:
    if problems:
        raise SociConfigError("\n".join(f"{subject}: {problem}" for problem in problems))


def _wrong_taints(template: Mapping[str, Any]) -> list[str]:
    if any(_is_startup(taint) for taint in _list(template.get("taints", ()))):
        return [
            f"spec.template.spec.taints holds {STARTUP_TAINT}, and Karpenter, which takes these for lasting, "
            "would start no node. Remedy: leave it out, it stands in startupTaints already"
        ]
    return []


def _other_systems(requirements: Sequence[Any]) -> list[str]:
    """What keeps Linux out of a pool."""
    for requirement in requirements:
        values, operator = _list(_of(requirement, "values") or ()), _of(requirement, "operator")
        excluded = {"In": "linux" not in values, "NotIn": "linux" in values, "DoesNotExist": True}
        # A value that is an output cannot be judged yet.
        are_known = all(isinstance(value, str) for value in values)
        if _of(requirement, "key") == _OS_LABEL and are_known and excluded.get(operator, False):
            return [
                f"its requirements leave out {_OS_LABEL} linux, and SOCI runs on nothing else. "
                "Remedy: drop that requirement"
            ]
    return []


def _missing(spec: Mapping[str, Any]) -> list[str]:
    problems = [
        f"spec.{key} is missing. Remedy: {key}=[{{'tags': {{'karpenter.sh/discovery': CLUSTER}}}}], or ids"
        for key in _SELECTORS
        if not spec.get(key)
    ]
    if ("role" in spec) == ("instanceProfile" in spec):
        problems.append(
            "spec needs either role or instanceProfile. Remedy: role, the name of the nodes' IAM role"
        )
    return problems


def _other_families(spec: Mapping[str, Any]) -> list[str]:
    """AMI families on which the installer refuses to work, wherever they are named."""
    named = {"spec.amiFamily": spec.get("amiFamily")}
    for term in _list(spec["amiSelectorTerms"]):
        named["spec.amiSelectorTerms"] = _of(term, "alias")
    problems = []
    for key, value in named.items():
        family = value.split("@")[0].lower() if isinstance(value, str) else ""
        if family and family not in _FAMILIES:
            known = OPERATING_SYSTEMS.get(family)
            cause = known.refusal if known else "SOCI is installed on Linux with systemd and containerd only"
            problems.append(f"{key} {value}: {cause}. Remedy: amiSelectorTerms=[{_NEWEST}]")
    return problems


def _second_soci(spec: Mapping[str, Any]) -> list[str]:
    if eks_checks.turns_on_second_soci(spec.get("userData")):
        return [f"spec.userData: {eks_checks.SECOND_SOCI}. Remedy: {eks_checks.WITHOUT_SECOND_SOCI}"]
    return []


def _is_startup(taint: Any) -> bool:
    return _of(taint, "key") == STARTUP_TAINT


def _of(value: Any, key: str) -> Any:
    """An entry of a mapping; None of an output, which is not known yet."""
    return value.get(key) if isinstance(value, Mapping) else None


def _list(value: Any) -> list[Any]:
    """A list as it is; empty for an output, which is not known yet."""
    return list(value) if isinstance(value, list | tuple) else []
