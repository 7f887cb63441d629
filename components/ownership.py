"""Which objects in the cluster are this stack's, although its state may not know them yet.

The Kubernetes provider never takes over an object that exists: creating it fails. An engine that is killed
after an object was created and before it was recorded would leave a stack that no `pulumi up` gets past.
Therefore each object with a fixed name carries its owner in an annotation. An object with exactly this owner
is imported; every other one is left alone and reported.

The owner is the component's URN and the ID of its Kubernetes provider, a random one that only this stack's
state holds. With the URN alone, two people with a stack of the same name would take each other's objects
over; with the ID alone, a renamed component would import what the deletion of its old name then deletes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from .live_cluster import LiveCluster, Object, UnreadableError, connect
from .names import DOMAIN, IMAGE_INDEX, INSTALLER
from .problems import in_words

ANNOTATION = f"{DOMAIN}/owner"
PATHS = {
    "kubernetes:core/v1:Namespace": "/api/v1/namespaces/{name}",
    "kubernetes:core/v1:ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "kubernetes:core/v1:Secret": "/api/v1/namespaces/{namespace}/secrets/{name}",
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


@dataclass(frozen=True)
class Maker:
    """A component that makes objects with fixed names.

    Attributes:
        app: the label app.kubernetes.io/name of its objects.
        namespace: the setting of its namespace.
        second: what a second one of it on the same cluster needs.
    """

    app: str
    namespace: str
    second: str


OF_INSTALLER = Maker(
    INSTALLER,
    "pulumi config set soci:namespace NAME",
    "a second SociInstaller takes a namespace and nodes of its own (soci:namespace, soci:nodeSelector)",
)
OF_IMAGE_INDEX = Maker(
    IMAGE_INDEX,
    "pulumi config set --path soci:index.namespace NAME",
    "a second ImageIndex takes a namespace of its own (soci:index.namespace)",
)


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
        namespace: str,
        maker: Maker = OF_INSTALLER,
    ) -> None:
        """
        Args:
            name: the component's.
            component: whose objects they are.
            access: kubeconfig and context, both text and maybe empty: then nothing is known of the cluster.
            namespace: of those objects that are in one.
            maker: which component it is.
        """
        self._maker = maker
        self._component = component
        self._access = access
        self._namespace = namespace
        self._objects: list[tuple[str, str]] = []  # kind and name
        self._told: set[str] = set()  # remedies
        self._has_warned = False
        self._connection: asyncio.Task[LiveCluster | None] | None = None
        provider = component.get_provider("kubernetes:core/v1:Namespace")
        self._can_import = provider is not None
        # Without this, the children would depend on the component, which waits for its children.
        urn = pulumi.Output.from_input(component.urn.future())
        # In a component provider's preview, a new Kubernetes provider's ID is the SDK's mark of an unknown
        # value and counts as known: the annotation shown there is a wrong one, and nothing else is.
        self.owner = pulumi.Output.format("{0} {1}", urn, provider.id if provider else "")
        self.refusal_hook = pulumi.ErrorHook(f"{name}-already-there", self._explain_refusal)

    def remember(self, args: pulumi.ResourceTransformationArgs) -> None:
        """The transformation of an object with a fixed name: it keeps kind and name, and changes nothing.

        A program's declarations run before the engine calls any transform. So a preview that finds one object
        in the way knows of all.
        """
        props: dict[str, Any] = dict(args.props)
        self._objects.append((args.type_, props["metadata"]["name"]))

    async def import_own(self, args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        """The transform of an object with a fixed name: import it when it is this owner's already; warn in a
        preview when it is somebody else's."""
        # In a preview some of it may be unknown, the owner for one, but name and namespace are not.
        metadata = await pulumi.Output.from_input(args.props["metadata"]).future(with_unknowns=True)
        if not isinstance(metadata, dict):
            return None
        name, namespace = metadata["name"], metadata.get("namespace")
        owner = await self.owner.future() or ""
        live = await self._live(args.type_, name, namespace)
        if live is None:
            return None
        # With another content the engine would have to replace it, which it refuses for what is imported.
        is_same = "data" not in args.props or await _value_of(args.props["data"]) == live.get("data")
        if self._can_import and is_same and is_importable(live, owner):
            # In a state that knows the object this changes nothing, but the engine refuses to replace it.
            # Else the engine imports it and then updates it, since the server's defaults are a difference.
            # Only the update waits for the nodes.
            args.opts.import_ = f"{namespace}/{name}" if namespace else name
            return pulumi.ResourceTransformResult(args.props, args.opts)
        if pulumi.runtime.is_dry_run() and is_in_the_way(live, owner, self._maker) and not self._has_warned:
            self._has_warned = True
            await self._warn(owner, live)
        return None

    async def _warn(self, owner: str, first: Object) -> None:
        """Say of all objects that are somebody else's what an `up` will come to; one of them is at hand."""
        others = await asyncio.gather(*(self._live(kind, name) for kind, name in self._objects))
        foreign = [live for live in others if live and is_in_the_way(live, owner, self._maker)]
        if title(first) not in map(title, foreign):  # it went meanwhile, or is called otherwise by now
            foreign.insert(0, first)
        refused = (
            f"pulumi up will be refused, unless this stack's state has {'them' if foreign[1:] else 'it'}"
        )
        remedies = dict.fromkeys(remedy(live, owner, self._maker) for live in foreign)
        pulumi.log.warn(
            f"{self._describe(foreign)}; {refused}. Remedy: {'; '.join(remedies)}", self._component
        )

    async def _explain_refusal(self, args: pulumi.ErrorHookArgs) -> bool:
        if is_refused_creation(args):
            metadata = (args.new_inputs or {}).get("metadata", {})
            live = await self._live(args.type, metadata.get("name", ""), metadata.get("namespace"))
            advice = remedy(live, await self.owner.future() or "", self._maker) if live else ""
            # Once for all objects that take the same remedy.
            if live and advice not in self._told:
                self._told.add(advice)
                pulumi.log.error(f"{self._describe([live])}. Remedy: {advice}", self._component)
        return False

    def _describe(self, foreign: Sequence[Object]) -> str:
        return describe(foreign, pulumi.get_stack(), pulumi.get_project(), self._maker)

    async def _live(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """The object in the cluster, in this namespace or the component's.

        None when there is none, or when the cluster cannot be read.
        """
        cluster = await self.cluster()
        if cluster is None:
            return None
        path = PATHS[kind].format(namespace=namespace or self._namespace, name=name)
        try:
            return await asyncio.to_thread(cluster.get, path)
        except UnreadableError:
            return None  # the provider will say so, when it cannot reach the cluster either

    async def cluster(self) -> LiveCluster | None:
        """The cluster, to be read; None when it cannot be."""
        if self._connection is None:
            self._connection = asyncio.ensure_future(self._connected())
        return await self._connection

    async def _connected(self) -> LiveCluster | None:
        kubeconfig, context = await self._access.future() or ("", "")
        if not kubeconfig:
            return None
        try:
            return await asyncio.to_thread(connect, kubeconfig, context)
        except UnreadableError:
            return None


async def _value_of(data: Any) -> Any:
    """A property's value; None while it is not known."""
    return await pulumi.Output.from_input(data).future()


def is_refused_creation(args: pulumi.ErrorHookArgs) -> bool:
    """Whether an object was not created because there is one of its name."""
    return args.failed_operation == "create" and any("already exists" in error for error in args.errors[:1])


def is_importable(live: Object, owner: str) -> bool:
    """Whether the state may take an object in: it is this owner's, and it stays."""
    return bool(owner) and owner_of(live) == owner and not is_being_deleted(live)


def is_in_the_way(live: Object, owner: str, maker: Maker = OF_INSTALLER) -> bool:
    """Whether a live object keeps this owner from making its own, unless the state has it."""
    return is_being_deleted(live) or is_foreign(live, owner, maker)


def is_being_deleted(live: Object) -> bool:
    """Whether an object is on its way out: it will go when its finalizers, or what it holds, have gone."""
    return bool(live["metadata"].get("deletionTimestamp"))


def is_foreign(live: Object, owner: str, maker: Maker = OF_INSTALLER) -> bool:
    """Whether a live object cannot be this owner's.

    What an older version of this program made carries no owner. What the same provider made under another URN
    belongs to this stack, which was renamed.
    """
    holder = owner_of(live)
    if not holder:
        return not _is_of(live, maker)
    provider = holder.rpartition(" ")[2]  # empty for a default one
    return holder != owner and (not provider or provider != owner.rpartition(" ")[2])


def describe(foreign: Sequence[Object], stack: str, project: str, maker: Maker = OF_INSTALLER) -> str:
    """That objects are in the way, and who made them, for the user of a stack."""
    titles: dict[str, list[str]] = {}
    for live in foreign:
        titles.setdefault(_origin(live, stack, project, maker), []).append(title(live))
    return "; ".join(
        f"{in_words(those)} {'are' if those[1:] else 'is'} there already, {origin}"
        for origin, those in titles.items()
    )


def _origin(live: Object, stack: str, project: str, maker: Maker) -> str:
    holder = owner_of(live)
    if not holder:
        return f"{'made by an older version' if _is_of(live, maker) else 'and not'} of this program"
    parts = holder.rpartition(" ")[0].removeprefix("urn:pulumi:").split("::", 3)
    if len(parts) < 4:  # anybody may write the annotation
        return "made by somebody else"
    made_in, made_for, _, name = parts
    if (made_in, made_for) == (stack, project):
        return f"made by {name} of this stack, or of another one of its name"
    return f"made by another stack ({made_in} of the project {made_for})"


def title(live: Object) -> str:
    """Kind and name of a live object, as one says them."""
    metadata = live["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"the {live.get('kind', 'object')} {place}{metadata['name']}"


def remedy(live: Object, owner: str, maker: Maker = OF_INSTALLER) -> str:
    """What to do about a live object that is not in this stack's state."""
    if is_being_deleted(live):
        return "it is being deleted: wait until it is gone, then pulumi up"
    if live.get("kind") == "Secret" and owner_of(live) == owner:  # with other content it cannot be imported
        metadata = live["metadata"]
        return f"kubectl -n {metadata['namespace']} delete secret {metadata['name']}, then pulumi up"
    if live.get("kind") == "Namespace" and not owner_of(live):
        return f"{maker.namespace}, one that is not there yet"
    return (
        f"{maker.second}, or destroy the other one; after a rename, give it `aliases`; when the stack's "
        "state is lost, see docs/operations.md, An interrupted pulumi up"
    )


def _is_of(live: Object, maker: Maker) -> bool:
    return (live["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == maker.app


def owner_of(live: Object) -> str:
    """The owner that a live object names; empty for none."""
    return (live["metadata"].get("annotations") or {}).get(ANNOTATION, "")
