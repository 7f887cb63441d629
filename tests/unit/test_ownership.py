"""Whose an object in the cluster is, and which cluster it is."""

from typing import Any

import pulumi
import pytest

from components import cluster_identity, ownership
from components.live_cluster import UnreachableError, UnreadableError

URN = "urn:pulumi:dev::soci::soci:index:SociCluster$soci:index:SociInstaller::soci-installer"
OWNER = f"{URN} 11111111"


def live(kind: str = "DaemonSet", owner: str = "", **labels: str) -> dict[str, Any]:
    annotations = {ownership.ANNOTATION: owner} if owner else {}
    metadata = {"name": "soci-installer", "namespace": "soci-system", "labels": labels}
    return {"kind": kind, "metadata": metadata | {"annotations": annotations}}


def test_an_object_of_a_stack_of_the_same_name_is_foreign() -> None:
    """Two people with a stack `dev` of their own have the same URN, but not the same provider."""
    assert ownership.foreign(live(owner=f"{URN} 22222222"), OWNER) == (
        "the DaemonSet soci-system/soci-installer is there already, made by another stack (dev of the "
        "project soci)"
    )
    assert ownership.foreign(live(owner=OWNER), "")  # a new stack, whose provider is still to be made


def test_an_object_of_this_stack_is_not_foreign_whatever_it_was_called() -> None:
    renamed = OWNER.replace(":dev:", ":before:")
    assert ownership.foreign(live(owner=renamed), OWNER) == ""
    assert ownership.foreign(live(owner=OWNER), OWNER) == ""


def test_an_object_without_an_owner_is_an_older_versions_or_foreign() -> None:
    assert ownership.foreign(live(**{"app.kubernetes.io/name": "soci-installer"}), OWNER) == ""
    assert ownership.foreign(live("Namespace"), OWNER) == (
        "the Namespace soci-system/soci-installer is there already, and not of this program"
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


def cluster_that(monkeypatch: pytest.MonkeyPatch, error: Exception, preview: bool) -> None:
    """Let every cluster fail like this."""

    def fail(*_: str) -> None:
        raise error

    monkeypatch.setattr(cluster_identity, "LiveCluster", fail)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: preview)


def test_an_unreachable_cluster_keeps_its_identity_in_a_preview_and_is_refused_in_an_update(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    component: Any = None
    unreachable = UnreachableError("https://a does not answer: Connection refused")
    cluster_that(monkeypatch, unreachable, preview=True)
    assert cluster_identity.identify("", "", component).ignored_changes() == ["clusterIdentifier"]
    assert "https://a does not answer: Connection refused. pulumi up will be refused" in told[0]
    cluster_that(monkeypatch, unreachable, preview=False)
    with pytest.raises(pulumi.RunError, match="Nothing was changed"):
        cluster_identity.identify("", "", component)


def test_who_may_not_read_the_system_namespace_does_not_change_the_cluster(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    component: Any = None
    cluster_that(monkeypatch, UnreadableError('namespaces "kube-system" is forbidden'), preview=False)
    assert cluster_identity.identify("", "", component).is_kept
    assert '(namespaces "kube-system" is forbidden). Remedy: let the user of soci:kubeconfig get' in told[0]
