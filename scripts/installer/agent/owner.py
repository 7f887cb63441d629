"""Whose node it is: which installer keeps it, and whether that installer was deleted."""

import time
from collections.abc import Callable

from .api import Api, ApiError, retry
from .host import Host
from .transaction import STATE

OWNER = f"{STATE}/owner"
ANSWER_SECONDS = 20.0
CONFIRMATIONS = 3
CONFIRM_SECONDS = 1.0


def claim(host: Host, daemonset: str) -> None:
    """Write down whose installer (namespace/name of its DaemonSet) keeps this node; the last one wins."""
    if host.read_text(OWNER).strip() != daemonset:
        host.write(OWNER, f"{daemonset}\n".encode(), 0o600)


def is_claimed_by_another(host: Host, daemonset: str) -> bool:
    """Whether another DaemonSet took the node over: its predecessor's end must not remove its work."""
    return host.read_text(OWNER).strip() not in ("", daemonset)


def is_deleted(api: Api, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether this pod ends because the installer was deleted, not for a rollout, a drain or a scale-down.

    A yes must hold for a moment: an API server that is just starting up may answer 401 or 403 to anything.

    Raises:
        ApiError: the API server does not answer, so nobody can know.
    """
    for _ in range(CONFIRMATIONS):
        if not retry(lambda: _is_deleted_now(api), ANSWER_SECONDS, sleep):
            return False
        sleep(CONFIRM_SECONDS)
    return True


def _is_deleted_now(api: Api) -> bool:
    """Whether the DaemonSet is gone or going, its namespace is, or the rights to ask are gone."""
    try:
        daemonset = api.get(api.daemonset_path)
    except ApiError as error:
        if error.status == 403:
            # Its rights are gone; unless the API server, just started, does not know any yet.
            api.get("/version")
            return True
        if error.status == 404:
            return True
        raise  # 401, too: a pod that was deleted by force has no valid token any more
    if daemonset["metadata"].get("deletionTimestamp"):
        return True
    try:
        # A namespace that goes takes the pods first, and only then their owners.
        namespace = api.get(f"/api/v1/namespaces/{api.namespace}")
    except ApiError as error:
        if error.status == 403:  # rights of an earlier version
            return False
        if error.status == 404:
            return True
        raise
    return bool(namespace["metadata"].get("deletionTimestamp"))
