"""The node's marks in the API: label, annotation, condition, startup taint and cordon.

`remove` takes away exactly what `put` sets. Shapes: Kubernetes API reference, Node of core/v1.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from .api import Api, ApiError, Json, retry

DOMAIN = "soci-cluster.io"
TAINT = f"{DOMAIN}/not-ready"
LABEL = f"{DOMAIN}/version"
ANNOTATION = f"{DOMAIN}/install"
CORDONED = f"{DOMAIN}/cordoned"  # tells a cordon of ours from others', also after a kill
CONDITION = "SociReady"
UNREGISTERED = "karpenter.sh/unregistered"  # Karpenter's, on a node that it has not taken into its books yet
VERIFIED = "Verified"  # the condition's reason on a node that SOCI serves
UNCORDON_SECONDS = 20.0


class Marks:
    """One node's marks."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.last_condition = ("", "")  # reason and message that were set last

    def put(self, version: str, install: Json | None, message: str) -> None:
        """Mark the node as served by SOCI, the taint last. ``install`` None keeps an earlier annotation."""
        metadata: Json = {"labels": {LABEL: version}}
        if install is not None:
            metadata["annotations"] = {ANNOTATION: json.dumps(install, separators=(",", ":"))}
        self._api.patch_node({"metadata": metadata})
        self.set_condition(True, VERIFIED, message)
        self._lift_taint()

    def remove(self) -> Json:
        """Take every mark off the node, the taint last; what of the metadata was taken, for `restore`."""
        node = self._api.node()
        taken: Json = {}
        for kind, key in (("labels", LABEL), ("annotations", ANNOTATION)):
            if key in (node["metadata"].get(kind) or {}):
                taken[kind] = {key: node["metadata"][kind][key]}
        if taken:
            gone = {kind: dict.fromkeys(entries) for kind, entries in taken.items()}
            self._api.patch_node({"metadata": gone})
        if any(entry["type"] == CONDITION for entry in node.get("status", {}).get("conditions", [])):
            entry = {"type": CONDITION, "$patch": "delete"}
            self._api.patch_node_status({"status": {"conditions": [entry]}})
        self._lift_taint()
        return taken

    def put_label(self) -> None:
        """Give the node the label by which workloads select a node that serves, with the version that was
        installed last."""
        metadata = self._api.node()["metadata"]
        try:
            version = json.loads((metadata.get("annotations") or {}).get(ANNOTATION, ""))["version"]
        except (ValueError, LookupError, TypeError):
            return  # nothing of ours, or it was changed by others
        if (metadata.get("labels") or {}).get(LABEL) != version:
            self._api.patch_node({"metadata": {"labels": {LABEL: version}}})

    def remove_label(self) -> None:
        """Take the label away by which workloads select a node that serves."""
        if LABEL in (self._api.node()["metadata"].get("labels") or {}):
            self._api.patch_node({"metadata": {"labels": {LABEL: None}}})

    def restore(self, taken: Json) -> None:
        """Give the node its label and annotation again: SOCI was not taken off after all."""
        if taken:
            self._api.patch_node({"metadata": taken})

    def set_condition(self, ready: bool | None, reason: str, message: str) -> None:
        """Set the node's SociReady condition; with ``ready`` None its status stays, False at first."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        known = {entry["type"]: entry for entry in self._api.node().get("status", {}).get("conditions", [])}
        old = known.get(CONDITION, {})
        status = old.get("status", "False") if ready is None else str(ready)
        condition = {
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": message[:1000],
            "lastHeartbeatTime": now,
            "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == status else now,
        }
        self._api.patch_node_status({"status": {"conditions": [condition]}})
        self.last_condition = (reason, message)

    def message(self) -> str:
        """What the node's SociReady condition says; empty when it has none."""
        conditions = self._api.node().get("status", {}).get("conditions", [])
        return next((entry.get("message", "") for entry in conditions if entry["type"] == CONDITION), "")

    def cordon(self) -> None:
        """Let no further pod be scheduled to the node; a cordon of somebody else's is left to them."""
        node = self._api.node()
        if not node.get("spec", {}).get("unschedulable"):
            self._set_cordon(node, True)

    def uncordon(self) -> None:
        """Lift the cordon if it is ours, from whichever pod of the installer it came."""
        node = self._api.node()
        if CORDONED in node["metadata"].get("annotations", {}):
            self._set_cordon(node, None)

    def _set_cordon(self, node: Json, value: bool | None) -> None:
        # With the version that was read: a cordon by somebody else at this moment makes the API answer 409.
        metadata = {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {CORDONED: "true" if value else None},
        }
        self._api.patch_node({"metadata": metadata, "spec": {"unschedulable": value}})

    def _lift_taint(self) -> None:
        node = self._api.node()
        taints = node.get("spec", {}).get("taints", [])
        if any(taint["key"] == UNREGISTERED for taint in taints):
            # When it takes it, it puts our taint on the node again, and nobody would lift that one.
            raise ApiError("Karpenter has not registered the node yet")
        kept = [taint for taint in taints if taint["key"] != TAINT]
        if kept != taints:
            # A concurrent change of the taints makes the API answer 409.
            metadata = {"resourceVersion": node["metadata"]["resourceVersion"]}
            self._api.patch_node({"metadata": metadata, "spec": {"taints": kept or None}})


def has_startup_taint(node: Json) -> bool:
    """Whether the node still waits for SOCI."""
    return any(taint["key"] == TAINT for taint in node.get("spec", {}).get("taints", []))


def try_uncordon(marks: Marks, log: Callable[[str], None]) -> None:
    """Lift a cordon of ours, if the API server takes it now; else the next start of the installer does it."""
    try:
        retry(marks.uncordon, UNCORDON_SECONDS)
    except ApiError as error:
        log(f"not uncordoned: {error}")
