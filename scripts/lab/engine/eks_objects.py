"""What is in an EKS cluster goes with it: here, in the API server that plays its control plane."""

from eks_nodes import lab_api, wait_until
from kubernetes_api import Api

RBAC = "/apis/rbac.authorization.k8s.io/v1"
BUILT_IN = "kubernetes.io/bootstrapping"  # the label of what the API server makes for itself


def end() -> None:
    """Take away all that programs made: namespaces with what is in them, and objects of the default one.

    Raises TimeoutError when it does not go.
    """
    api = lab_api()
    if not api:
        return
    for path in made(api):
        api.call("DELETE", path, {"propagationPolicy": "Background"})
    if not wait_until(lambda: not made(api), "endSeconds", 30):
        raise TimeoutError(f"what was in the cluster does not go: {', '.join(made(api))}")


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
