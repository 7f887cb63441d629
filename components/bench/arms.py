"""How an image is loaded, and on which node: what is compared with each other."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..doctor import CannotLookError, Kubectl
from ..names import INSTALLER, VERSION_LABEL
from .node_session import installer_pods

OVERLAYFS, TUNED, LAZY, LAZY_1MIB, LAZY_PREFETCH, PARALLEL, ADVISED = (
    "overlayfs",
    "tuned",
    "lazy",
    "lazy-1mib",
    "lazy-prefetch",
    "parallel",
    "advised",
)
LABELS = {
    OVERLAYFS: "overlayfs",
    TUNED: "containerd, tuned",
    LAZY: "SOCI, lazy",
    LAZY_1MIB: "SOCI, lazy, 1 MiB spans",
    LAZY_PREFETCH: "SOCI, lazy, prefetch",
    PARALLEL: "SOCI, parallel",
    ADVISED: "as advised",
}
REFERENCES = (OVERLAYFS, TUNED)
NODE_MODES = [mode for mode in LABELS if mode != ADVISED]  # what a node can be set to; advice is per image
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
MACHINE_LABELS = ("kubernetes.io/os", "kubernetes.io/arch")  # of nodes that can be compared
MODE_OF_NODE = {"lazy": LAZY, "lazy-or-parallel": LAZY, "parallel": PARALLEL}


@dataclass(frozen=True)
class Arm:
    """One way to load images, and the node that does it."""

    mode: str
    node: str

    @property
    def label(self) -> str:
        return LABELS[self.mode]


def offered(kubectl: Kubectl, namespace: str, soci_node: str = "", reference_node: str = "") -> list[Arm]:
    """The arms that a cluster's nodes offer: one node without SOCI, and one with it, as it is there.

    Args:
        kubectl: the cluster.
        namespace: the installer's.
        soci_node: the one with SOCI; empty for the first.
        reference_node: the one without; empty for the first.

    Raises:
        CannotLookError: there is no node with SOCI, no such one, or the one that should be without has it.
    """
    nodes = ready_nodes(kubectl)
    for name in filter(None, (soci_node, reference_node)):
        if name not in nodes:
            known = ", ".join(sorted(nodes)) or "none"
            raise CannotLookError(f"no node {name} is ready. Remedy: take one of these: {known}")
    installed = installer_pods(kubectl, namespace)
    with_soci = [
        name for name in sorted(nodes) if VERSION_LABEL in labels_of(nodes[name]) and name in installed
    ]
    if soci_node:
        with_soci = [name for name in with_soci if name == soci_node]
    if not with_soci:
        who = f"node {soci_node} has no" if soci_node else "no node has"
        remedy = "pulumi up, or --installer-namespace"
        raise CannotLookError(f"{who} SOCI from namespace {namespace}. Remedy: {remedy}")
    without = [name for name in sorted(nodes) if VERSION_LABEL not in labels_of(nodes[name])]
    measured = labels_of(nodes[with_soci[0]])
    alike = [
        name
        for name in without
        if CONTROL_PLANE not in (labels := labels_of(nodes[name]))
        and all(labels.get(key) == measured.get(key) for key in MACHINE_LABELS)
    ]
    if reference_node and reference_node not in without:
        remedy = f"--reference-node with one of these: {', '.join(without)}" if without else "leave it out"
        raise CannotLookError(f"node {reference_node} has SOCI, so it is no reference. Remedy: {remedy}")
    references = [reference_node] if reference_node else alike[:1]
    mode = mode_of(kubectl, namespace)
    return [*(Arm(OVERLAYFS, name) for name in references), Arm(mode, with_soci[0])]


def named(kubectl: Kubectl, chosen: Iterable[str]) -> list[Arm]:
    """The arms of `MODE=NODE` texts; what a node is set to do is its user's to know.

    Raises:
        CannotLookError: there is no such mode, or no such node is ready.
    """
    ready = sorted(ready_nodes(kubectl))
    arms = []
    for text in chosen:
        mode, _, node = text.partition("=")
        if mode not in NODE_MODES or node not in ready:
            nodes = ", ".join(ready) or "none that is ready"
            known = f"MODE=NODE, MODE of {', '.join(NODE_MODES)}; NODE of {nodes}"
            raise CannotLookError(f"--arm {text!r} is none. Remedy: {known}")
        if mode in {arm.mode for arm in arms}:
            raise CannotLookError(f"--arm {text!r}: {mode} is named twice. Remedy: one node for each mode")
        arms.append(Arm(mode, node))
    return arms


def mode_of(kubectl: Kubectl, namespace: str) -> str:
    """The arm that an installer's settings make of its nodes (components/program.py: settings.json)."""
    daemon_set = kubectl.get("daemonset", INSTALLER, "--namespace", namespace)
    volumes = daemon_set["spec"]["template"]["spec"]["volumes"]
    program = next(volume["configMap"]["name"] for volume in volumes if "configMap" in volume)
    config_map = kubectl.get("configmap", program, "--namespace", namespace)
    return MODE_OF_NODE[json.loads(config_map["data"]["settings.json"])["mode"]]


def ready_nodes(kubectl: Kubectl) -> dict[str, Mapping[str, Any]]:
    """A cluster's ready nodes, by name."""
    return {node["metadata"]["name"]: node for node in kubectl.get("nodes")["items"] if is_ready(node)}


def is_ready(node: Mapping[str, Any]) -> bool:
    conditions: Iterable[Mapping[str, Any]] = node.get("status", {}).get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def labels_of(node: Mapping[str, Any]) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}
