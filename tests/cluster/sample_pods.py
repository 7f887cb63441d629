"""Pods of the sample image: a cold start, the ready line, and what SOCI serves of it."""

import time
from datetime import datetime

from lab_client import on_node
from pod_start import COMMAND, IMAGE, REGISTRY

POLL_SECONDS = 1.0  # each question costs processor time beside the start; the stamp is the node's

__all__ = [
    "COMMAND",
    "IMAGE",
    "delete_sample",
    "forget_image",
    "fuse_mount_points",
    "fuse_mounts",
    "wait_for_ready_line",
    "wait_until_gone",
]


def delete_sample(api) -> None:
    """Delete the pod of the stack's own sample, which has ended: it holds the image where it ran."""
    api.delete_collection_namespaced_pod("default", label_selector="app.kubernetes.io/name=soci-sample")


def forget_image(node: str) -> None:
    """Make the node's next pull of the image a cold one, SOCI's caches included.

    What `make bench` left there has the same layers.
    """
    on_node(
        node,
        f"""
        # Layers stay unpacked, and would not be pulled again, while a container of the last sample exists.
        while ctr -n k8s.io containers ls | grep -qE '{REGISTRY}/(sample|bench-)'; do sleep 0.1; done
        digests=$(ctr -n k8s.io images ls | awk '$1 ~ "^{REGISTRY}/(sample|bench-)" {{print $3}}' | sort -u)
        for digest in $digests; do
            for image in $(ctr -n k8s.io images ls | awk -v digest="$digest" '$3 == digest {{print $1}}'); do
                ctr -n k8s.io images rm --sync "$image" >/dev/null
            done
        done
        if systemctl is-active --quiet soci-snapshotter; then
            systemctl stop soci-snapshotter
            rm -rf /var/lib/soci-snapshotter-grpc/content /var/lib/soci-snapshotter-grpc/soci
            systemctl start soci-snapshotter
        fi
        """,
    )


def fuse_mount_points(node: str) -> set[str]:
    """Where lazily loaded layers are mounted; a number that was used is not used again."""
    return set(on_node(node, "awk '/^soci .*fuse/ { print $2 }' /proc/1/mounts").split())


def fuse_mounts(node: str) -> int:
    return len(fuse_mount_points(node))


def wait_for_ready_line(api, name: str, deadline: float) -> float:
    """Return when the pod printed `ready` (seconds since the epoch, by the node's clock)."""
    from kubernetes.client.exceptions import ApiException

    while time.time() < deadline:
        try:
            log = api.read_namespaced_pod_log(name, "default", timestamps=True)
        except ApiException as error:
            if error.status not in (400, 404):  # the container has not started yet
                raise
            log = ""
        for line in log.splitlines():
            stamp, _, text = line.partition(" ")
            if text.startswith("ready"):
                return datetime.fromisoformat(stamp[:26] + "+00:00").timestamp()
        time.sleep(POLL_SECONDS)
    status = api.read_namespaced_pod(name, "default").status
    raise TimeoutError(
        f"pod {name} printed no ready line in time: {status.phase}, {status.container_statuses}"
    )


def wait_until_gone(api, name: str, deadline: float) -> None:
    from kubernetes.client.exceptions import ApiException

    while time.time() < deadline:
        try:
            api.read_namespaced_pod(name, "default")
        except ApiException as error:
            if error.status == 404:
                return
            raise
        time.sleep(0.1)
    raise TimeoutError(f"pod {name} is still there")
