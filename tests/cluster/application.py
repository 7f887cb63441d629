"""A user's application: pods of a controller that read lazily, and their disruption budget."""

import contextlib
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.cluster.looks import is_ready
from tests.cluster.readers import READER
from tests.cluster.sample_pods import IMAGE
from tests.waiting import wait_for

NAME = "application"
LABELS = {"app": NAME}
REPLICAS = 2


class Application:
    """Two pods that read in loops, on two nodes with SOCI if these take them."""

    def __init__(self, api) -> None:
        """Start it, with a budget that allows no disruption, and wait for its pods."""
        self.api = api
        self._apps: Any = client.AppsV1Api()
        self._policy: Any = client.PolicyV1Api()
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": LABELS},
        }
        pod = {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"soci-cluster.io/install": "true"},
            "topologySpreadConstraints": [spread],
            "containers": [{"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", READER]}],
        }
        spec = {
            "replicas": REPLICAS,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
        }
        self._apps.create_namespaced_replica_set("default", {"metadata": {"name": NAME}, "spec": spec})
        budget = {"minAvailable": REPLICAS, "selector": {"matchLabels": LABELS}}
        self._policy.create_namespaced_pod_disruption_budget(
            "default", {"metadata": {"name": NAME}, "spec": budget}
        )
        self.await_ready()

    def await_ready(self) -> None:
        """Wait for as many ready pods as it is to have; its controller counts late."""
        wait_for(lambda: [is_ready(pod) for pod in self.pods()] == [True] * REPLICAS, 120, "its pods")

    def pods(self, node: str = "") -> list[Any]:
        """Its pods, those of one node if there is one."""
        found = self.api.list_namespaced_pod("default", label_selector=f"app={NAME}").items
        return [pod for pod in found if not node or pod.spec.node_name == node]

    def allow_a_disruption(self) -> None:
        """Let its budget spare one pod."""
        relaxed = {"spec": {"minAvailable": REPLICAS - 1}}
        self._policy.patch_namespaced_pod_disruption_budget(NAME, "default", relaxed)

    def delete(self) -> None:
        self._apps.delete_namespaced_replica_set(NAME, "default", propagation_policy="Foreground")
        with contextlib.suppress(ApiException):
            self._policy.delete_namespaced_pod_disruption_budget(NAME, "default")
        wait_for(lambda: not self.pods(), 60, "the application's end")
