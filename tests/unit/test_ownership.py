"""Whose an object in the cluster is, and which cluster it is."""

from types import SimpleNamespace
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest

from components import SociInstaller, SociInstallerArgs, cluster_identity, ownership
from components.live_cluster import UnreachableError, UnreadableError
from tests.unit.mocks import DIGESTS, Recorder

URN = "urn:pulumi:dev::soci::soci:index:SociCluster$soci:index:SociInstaller::soci-installer"
OWNER = f"{URN} 11111111"
KUBECONFIG = """
clusters: [{name: one, cluster: {server: "https://192.0.2.1"}}]
contexts: [{name: one, context: {cluster: one}}]
current-context: one
"""


def live(
    kind: str = "DaemonSet", owner: str = "", namespace: str = "soci-system", **labels: str
) -> dict[str, Any]:
    annotations = {ownership.ANNOTATION: owner} if owner else {}
    metadata = {"name": "soci-installer", "namespace": namespace, "labels": labels}
    if kind == "Namespace":
        metadata = {"name": namespace, "labels": labels}
    return {"kind": kind, "metadata": metadata | {"annotations": annotations}}


def test_an_object_of_another_stack_is_foreign_and_told_with_its_stack() -> None:
    assert ownership.is_foreign(live(owner=OWNER), f"{URN} 22222222".replace("dev", "prod"))
    assert ownership.describe([live(owner=OWNER)], "prod", "soci") == (
        "the DaemonSet soci-system/soci-installer is there already, made by another stack (dev of the "
        "project soci)"
    )


def test_two_stacks_on_default_providers_are_not_the_same() -> None:
    """A default provider has no ID that the program knows."""
    assert ownership.is_foreign(live(owner=f"{URN} "), f"{URN} ".replace("dev", "prod"))


def test_an_object_of_a_stack_of_the_same_name_is_not_said_to_be_of_another_one() -> None:
    """Its component was renamed, or its provider made anew; or it is of somebody else's stack `dev`."""
    assert ownership.is_foreign(live(owner=OWNER), f"{URN} 22222222")
    assert ownership.is_foreign(live(owner=OWNER), ""), "a new stack, whose provider is still to be made"
    assert ownership.describe([live(owner=OWNER)], "dev", "soci") == (
        "the DaemonSet soci-system/soci-installer is there already, made by soci-installer of this stack, "
        "or of another one of its name"
    )
    assert "after a rename, give it `aliases`" in ownership.remedy(live(owner=OWNER), f"{URN} 22222222")


def test_a_secret_is_deleted_only_where_it_is_this_owners() -> None:
    secret = live(owner=OWNER) | {"kind": "Secret"}
    assert ownership.remedy(secret, OWNER).startswith("kubectl -n soci-system delete secret")
    assert "delete" not in ownership.remedy(secret, f"{URN} 22222222"), "another stack reads it"


def test_what_is_being_deleted_is_waited_for_whoever_made_it() -> None:
    """A first `up` was killed, and somebody deleted the namespace: in the state it would stay for good."""
    own, others = live("Namespace", owner=OWNER), live("Namespace")
    assert ownership.is_importable(own, OWNER)
    assert not ownership.is_in_the_way(own, OWNER)
    for going in (own, others):
        going["metadata"]["deletionTimestamp"] = "2026-11-28T10:00:00Z"
        assert not ownership.is_importable(going, OWNER)
        assert ownership.is_in_the_way(going, OWNER)
        assert ownership.remedy(going, OWNER) == "it is being deleted: wait until it is gone, then pulumi up"


def test_an_annotation_that_is_no_owner_is_told_as_somebody_elses() -> None:
    """Anybody may write it."""
    assert ownership.describe([live(owner="x")], "dev", "soci") == (
        "the DaemonSet soci-system/soci-installer is there already, made by somebody else"
    )


def test_an_object_of_this_stack_is_not_foreign_whatever_it_was_called() -> None:
    assert not ownership.is_foreign(live(owner=OWNER.replace(":dev:", ":before:")), OWNER)
    assert not ownership.is_foreign(live(owner=OWNER), OWNER)


def test_an_object_without_an_owner_is_an_older_versions_or_foreign() -> None:
    older = live(**{"app.kubernetes.io/name": "soci-installer"})
    assert not ownership.is_foreign(older, OWNER)
    assert ownership.describe([older], "dev", "soci").endswith("made by an older version of this program")
    assert ownership.is_foreign(live("Namespace"), OWNER)
    assert ownership.describe([live("Namespace")], "dev", "soci") == (
        "the Namespace soci-system is there already, and not of this program"
    )


def test_only_the_creation_of_what_exists_is_a_refused_one() -> None:
    def hook(operation: str, *errors: str) -> pulumi.ErrorHookArgs:
        return pulumi.ErrorHookArgs("", "", "", "", failed_operation=operation, errors=list(errors))

    assert ownership.is_refused_creation(hook("create", 'daemonsets.apps "soci-installer" already exists'))
    assert not ownership.is_refused_creation(hook("create", "timed out waiting for the condition"))
    assert not ownership.is_refused_creation(hook("update", "already exists"))


def test_a_cluster_is_known_by_the_uid_of_its_system_namespace() -> None:
    system = {"metadata": {"uid": "one"}}
    role = {"metadata": {"annotations": {ownership.ANNOTATION: OWNER}}}
    assert cluster_identity.of_cluster(system, None) == cluster_identity.Identity("one")
    assert cluster_identity.of_cluster(system, role) == cluster_identity.Identity("one")


def test_a_cluster_in_which_an_older_version_installed_is_known_by_its_kubeconfig_once_more() -> None:
    role = {"metadata": {"labels": {}}}
    assert cluster_identity.of_cluster({"metadata": {"uid": "one"}}, role) == cluster_identity.Identity(None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is warned of."""
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: lines.append(message))
    return lines


def test_a_preview_names_all_that_is_in_the_way_in_one_warning(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder, run, told: list[str]
) -> None:
    """It named the namespace alone, and not the DaemonSet in it."""
    there = {
        "/api/v1/namespaces/taken": live("Namespace", namespace="taken"),
        "/api/v1/namespaces/taken/serviceaccounts/soci-installer": live("ServiceAccount", namespace="taken"),
        "/apis/apps/v1/namespaces/taken/daemonsets/soci-installer": live(
            owner=OWNER.replace(":dev:", ":prod:"), namespace="taken"
        ),
    }
    monkeypatch.setattr(
        ownership, "connect", lambda *_: SimpleNamespace(get=there.get, items=lambda *_, **__: [])
    )
    pulumi.runtime.set_mocks(recorder, project="soci", stack="test", preview=True)

    def program() -> dict[str, Any]:
        provider = k8s.Provider("cluster", kubeconfig=KUBECONFIG)
        options = pulumi.ResourceOptions(providers=[provider])
        arguments = SociInstallerArgs(version="0.16.1", sha256=DIGESTS, namespace="taken")
        owned = SociInstaller("soci", arguments, options)._ownership
        seen = [
            pulumi.ResourceTransformArgs(True, kind, "x", {"metadata": metadata}, pulumi.ResourceOptions())
            for kind, metadata in (
                ("kubernetes:core/v1:Namespace", {"name": "taken"}),
                ("kubernetes:apps/v1:DaemonSet", {"name": "soci-installer", "namespace": "taken"}),
            )
        ]
        return {
            "all": pulumi.Output.all(*(pulumi.Output.from_input(owned.import_own(args)) for args in seen))
        }

    run(program)
    assert told == [
        "the Namespace taken and the ServiceAccount taken/soci-installer are there already, and not of this "
        "program; the DaemonSet taken/soci-installer is there already, made by another stack (prod of the "
        "project soci); pulumi up will be refused, unless this stack's state has them. Remedy: pulumi config "
        "set soci:namespace NAME, one that is not there yet; a second SociInstaller takes a namespace and "
        "nodes of its own (soci:namespace, soci:nodeSelector), or destroy the other one; after a rename, "
        "give it `aliases`; when the stack's state is lost, see docs/operations.md, An interrupted pulumi up"
    ]


class Cluster:
    """A cluster in which each path has an answer, or an error."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"kube-system": {"metadata": {"uid": "one"}}, "soci-installer": None, **answers}

    def get(self, path: str) -> Any:
        answer = self.answers[path.rpartition("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def identify(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> cluster_identity.Identity:
    component: Any = None
    monkeypatch.setattr(cluster_identity, "connect", lambda *_: Cluster(**answers))
    return cluster_identity.identify("", "", component)


def test_a_cluster_that_does_not_answer_keeps_its_identity(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """The provider may reach it all the same: through a SOCKS proxy, say."""
    unreachable = UnreachableError("https://a does not answer: Connection refused")
    identity = identify(monkeypatch, **{"kube-system": unreachable})
    assert identity.ignored_changes() == ["clusterIdentifier"]
    assert told == [
        "cannot verify which cluster this is; assuming the same as before: https://a does not answer: "
        "Connection refused. Remedy: check the network, and soci:kubeconfig and soci:context"
    ]


def test_who_may_not_read_the_system_namespace_does_not_change_the_cluster(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    forbidden = UnreadableError('namespaces "kube-system" is forbidden')
    assert identify(monkeypatch, **{"kube-system": forbidden}).ignored_changes() == ["clusterIdentifier"]
    assert told == [
        'cannot verify which cluster this is; assuming the same as before: namespaces "kube-system" is '
        "forbidden. Remedy: let the user of soci:kubeconfig `get` the namespace kube-system and the "
        "ClusterRole soci-installer"
    ]


def test_where_the_cause_is_known_its_own_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """Of a certificate or a password that ended, a role was asked for."""
    identify(monkeypatch, **{"kube-system": UnreadableError("Unauthorized", "log in anew")})
    assert told[0].endswith(": Unauthorized. Remedy: log in anew")


def test_who_may_not_read_the_cluster_role_alone_keeps_the_identity_without_a_word(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """Kubernetes' own role `view` lets one read namespaces, but no ClusterRole."""
    forbidden = UnreadableError('clusterroles "soci-installer" is forbidden')
    identity = identify(monkeypatch, **{"soci-installer": forbidden})
    assert identity.ignored_changes() == ["clusterIdentifier"]
    assert identity.value == "one", "for a new stack"
    assert told == []
