"""Which objects in the cluster are this stack's, although its state may not know them yet.

The Kubernetes provider never adopts an object that exists: creating it fails. An engine that is killed after
an object was created and before it was recorded would leave a stack that no `pulumi up` gets past. Therefore
each object with a fixed name carries its owner in an annotation, and one that carries exactly this owner is
imported. Whatever carries another owner, or none, is somebody else's: it is left alone, and the user is told.

The owner is the component's URN and the ID of its Kubernetes provider, a random one that only this stack's
state holds. With the URN alone, two people with a stack of the same name would take each other's objects
over; with the ID alone, a renamed component would import what the deletion of its old name then deletes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pulumi

from .live_cluster import LiveCluster, Object, UnreadableError

ANNOTATION = "soci-cluster.io/owner"
PATHS = {
    "kubernetes:core/v1:Namespace": "/api/v1/namespaces/{name}",
    "kubernetes:core/v1:ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "kubernetes:apps/v1:DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}",
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole": (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"
    ),
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": (
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}"
    ),
    "kubernetes:rbac.authorization.k8s.io/v1:Role": (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}"
    ),
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{name}"
    ),
}

Connect = Callable[[str, str], LiveCluster]


class Ownership:
    """The owner of a component's objects, and what is in the cluster of them."""

    owner: pulumi.Output[str]
    """The value of the annotation."""
    refusal_hook: pulumi.ErrorHook
    """For each of the objects: says whose the object is that is in the way of its creation."""

    def __init__(
        self,
        name: str,
        component: pulumi.ComponentResource,
        access: pulumi.Output[Any],
        connect: Connect = LiveCluster,
    ) -> None:
        """
        Args:
            name: the component's.
            component: whose objects they are.
            access: kubeconfig and context, both text and maybe empty: then nothing is known of the cluster.
            connect: how a cluster is reached.
        """
        self._component = component
        self._access = access
        self._connect = connect
        self._told: set[str] = set()
        self._connection: asyncio.Task[LiveCluster | None] | None = None
        provider = component.get_provider("kubernetes:core/v1:Namespace")
        self._can_adopt = provider is not None
        # Without the dependency on the component: its objects are its children, which it depends on itself.
        urn = pulumi.Output.from_input(component.urn.future())
        self.owner = pulumi.Output.format("{0} {1}", urn, provider.id if provider else "")
        self.refusal_hook = pulumi.ErrorHook(f"{name}-already-there", self._explain_refusal)

    async def adopt(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """The transform of an object with a fixed name: import it when it is this owner's already; warn in a
        preview when it is somebody else's."""
        # In a preview some of it may be unknown, the owner for one, but name and namespace are not.
        metadata = await pulumi.Output.from_input(args.props["metadata"]).future(with_unknowns=True)
        if not isinstance(metadata, dict):
            return None
        name, namespace = metadata["name"], metadata.get("namespace")
        owner = await self.owner.future()
        live = await self._live(args.type_, name, namespace or "")
        if live is None:
            return None
        if self._can_adopt and owner and _annotation(live) == owner:
            # In a state that knows the object this changes nothing; else the engine imports and updates it.
            args.opts.import_ = f"{namespace}/{name}" if namespace else name
            return pulumi.ResourceTransformResult(args.props, args.opts)
        if pulumi.runtime.is_dry_run() and (reason := foreign(live, owner or "")):
            self._tell(pulumi.log.warn, f"{reason}; pulumi up will be refused", live)
        return None

    async def _explain_refusal(self, args: pulumi.ErrorHookArgs) -> bool:
        if is_refused_creation(args):
            metadata = (args.new_inputs or {}).get("metadata", {})
            live = await self._live(args.type, metadata.get("name", ""), metadata.get("namespace", ""))
            if live is not None:
                owner = await self.owner.future() or ""
                reason = (
                    foreign(live, owner) or f"{title(live)} is there already, and not in the stack's state"
                )
                self._tell(pulumi.log.error, reason, live)
        return False

    def _tell(self, log: Callable[..., None], reason: str, live: Object) -> None:
        """Say it once for all objects that take the same remedy."""
        advice = remedy(live)
        if advice not in self._told:
            self._told.add(advice)
            log(f"{reason}. Remedy: {advice}", self._component)

    async def _live(self, kind: str, name: str, namespace: str) -> Object | None:
        """The object in the cluster; None when there is none, or when the cluster cannot be read."""
        if self._connection is None:
            self._connection = asyncio.ensure_future(self._connected())
        cluster = await self._connection
        if cluster is None:
            return None
        try:
            return await asyncio.to_thread(
                cluster.get, PATHS[kind].format(namespace=namespace or "default", name=name)
            )
        except UnreadableError:
            return None  # the provider will say so, when it cannot reach the cluster either

    async def _connected(self) -> LiveCluster | None:
        kubeconfig, context = await self._access.future() or ("", "")
        if not kubeconfig:
            return None
        try:
            return await asyncio.to_thread(self._connect, kubeconfig, context)
        except UnreadableError:
            return None


def is_refused_creation(args: pulumi.ErrorHookArgs) -> bool:
    """Whether an object was not created because there is one of its name."""
    return args.failed_operation == "create" and any("already exists" in error for error in args.errors[:1])


def foreign(live: Object, owner: str) -> str:
    """Why a live object cannot be this owner's, in words; empty when it may well be.

    What an older version of this program made carries no owner. What the same provider made under another URN
    belongs to this stack, which was renamed.
    """
    holder = _annotation(live)
    if not holder:
        labels = live["metadata"].get("labels") or {}
        of_older_version = labels.get("app.kubernetes.io/name") == "soci-installer"
        return "" if of_older_version else f"{title(live)} is there already, and not of this program"
    if holder.rpartition(" ")[2] == owner.rpartition(" ")[2]:
        return ""
    stack, _, rest = holder.removeprefix("urn:pulumi:").partition("::")
    project = rest.partition("::")[0]
    return f"{title(live)} is there already, made by another stack ({stack} of the project {project})"


def title(live: Object) -> str:
    """Kind and name of a live object, as one says them."""
    metadata = live["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"the {live.get('kind', 'object')} {place}{metadata['name']}"


def remedy(live: Object) -> str:
    """What to do about a live object that is not this stack's."""
    if live.get("kind") == "Namespace" and not _annotation(live):
        return "pulumi config set soci:namespace NAME, one that is not there yet"
    return (
        "one cluster takes one SociInstaller: destroy the other one's stack, or, when it is this one "
        "without its state, see docs/operations.md, An interrupted pulumi up"
    )


def _annotation(live: Object) -> str:
    return (live["metadata"].get("annotations") or {}).get(ANNOTATION, "")
