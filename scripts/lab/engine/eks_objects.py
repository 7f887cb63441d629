"""What is in an EKS cluster goes with it: here, in the API server that plays its control plane."""

import contextlib

from eks_nodes import lab_api, wait_until
from kubernetes_api import Api, ApiError

RBAC = "/apis/rbac.authorization.k8s.io/v1"
BUILT_IN = "kubernetes.io/bootstrapping"  # the label of what the API server makes for itself
AT_ONCE = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}


def end() -> None:
    """Take away all that programs made: namespaces with what is in them, and objects of the default one.

    Raises TimeoutError when it does not go.
    """
    api = lab_api()
    if not api:
        return
    gone = made(api)
    for path in gone:
        api.call("DELETE", path, AT_ONCE)
    for path in gone:
        if path.startswith("/api/v1/namespaces/"):
            finish(api, path)
    if not wait_until(lambda: not made(api), "endSeconds", 30):
        raise TimeoutError(f"what was in the cluster does not go: {', '.join(made(api))}")


def finish(api: Api, namespace: str) -> None:
    """Empty a deleted namespace and let it go: the namespace controller begins after five seconds only."""
    name = namespace.rpartition("/")[2]
    left = [f"{group}/namespaces/{name}/{kind}" for group, kind in namespaced(api)]

    def is_empty() -> bool:
        # An object with finalizers goes when its controller has seen to it.
        left[:] = [path for path in left if api.call("DELETE", path, AT_ONCE)["items"]]
        return not left

    if wait_until(is_empty, "endSeconds", 30):
        with contextlib.suppress(ApiError):  # the controller was faster
            live = api.call("GET", namespace)
            api.call("PUT", f"{namespace}/finalize", {**live, "spec": {"finalizers": []}})


def namespaced(api: Api) -> list[tuple[str, str]]:
    """Return what can be in a namespace: the path of a group, and the name of a kind in it."""
    versions = [group["preferredVersion"]["groupVersion"] for group in api.call("GET", "/apis")["groups"]]
    return [
        (group, kind["name"])
        for group in ("/api/v1", *(f"/apis/{version}" for version in versions))
        for kind in api.call("GET", group)["resources"]
        if kind["namespaced"] and "deletecollection" in kind["verbs"]
    ]


def made(api: Api) -> list[str]:
    """Return the paths of what programs made."""
    paths = ["/api/v1/namespaces", f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"]
    paths += [f"{RBAC}/namespaces/default/{kind}" for kind in ("roles", "rolebindings")]
    paths.append("/apis/batch/v1/namespaces/default/jobs")
    return [
        f"{path}/{item['metadata']['name']}"
        for path in paths
        for item in api.call("GET", path)["items"]
        if BUILT_IN not in item["metadata"].get("labels", {})
        and not item["metadata"]["name"].startswith(("default", "kube-", "system:"))
    ]
