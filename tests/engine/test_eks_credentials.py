"""Who the cluster lets in: the profile and the role with which the AWS provider made it, while their token
lasts."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto_account import CREDENTIAL, TOKEN

from tests.engine.conftest import Account, EksStack
from tests.engine.fake_cluster import ANY_OTHER, INSTALLER, FakeNodes
from tests.engine.project_stack import Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ROLE = "arn:aws:iam::123456789012:role/deployer"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/deployer"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
DAEMON_SET = f"/apis/apps/v1/namespaces/soci-system/daemonsets/{INSTALLER}"
PATIENCE_S = 60
FOR_EVER = 600


class AwsCli:
    """An `aws` on PATH: it gives a token, when there is one, to those who name profile and role."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.credential = directory / "credential"
        script = f"""#!/bin/sh
[ "$1" = --version ] && echo aws-cli/2.31.0 && exit
case " $* " in *" --profile team "*) ;; *) echo "Unable to locate credentials" >&2; exit 253 ;; esac
case " $* " in *" --role {ROLE} "*) ;; *) echo "Unauthorized: no --role" >&2; exit 254 ;; esac
cat {self.credential} 2>/dev/null || {{ echo "ExpiredToken: the security token is expired" >&2; exit 255; }}
"""
        (directory / "aws").write_text(script)
        (directory / "aws").chmod(0o755)

    def give(self, token: str) -> None:
        """Give this token from now on."""
        self.credential.write_text(json.dumps(CREDENTIAL | {"status": {"token": token}}))

    def end(self) -> None:
        """Give none any more."""
        self.credential.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> AwsCli:
    aws = AwsCli(tmp_path_factory.mktemp("cli") / "bin")
    aws.give(TOKEN)
    return aws


@pytest.fixture(scope="module")
def stack(aws: AwsCli, eks_stack: EksStack, aws_environment: dict[str, str]) -> Stack:
    """A stack of a profile and a role, which the tests of this module take through its life."""
    settings = {
        "aws:profile": "team",
        "aws:assumeRoles": [{"roleArn": ROLE}],
        "soci:version": "0.16.0",
        "soci:rolloutTimeoutSeconds": 30,
        "soci:sampleWorkload": {"enabled": False},
    }
    path = {"PATH": f"{aws.directory}:{aws_environment['PATH']}"}
    return eks_stack("credentials", settings, path)


@pytest.fixture(autouse=True)
def _alive(cluster: FakeNodes) -> None:
    """Every test here counts only when the nodes answered."""


def test_credentials_that_expire_while_aws_makes_the_cluster_or_its_nodes_lose_nothing(
    stack: Stack, account: Account
) -> None:
    """AWS goes on with what it makes; its ID is in the state by then."""
    for setting, kind in (("clusterSeconds", "Cluster"), ("groupSeconds", "NodeGroup")):
        account.tell(**{setting: FOR_EVER})
        up = stack.begin_up()
        wait_for(lambda kind=kind: kind in made(account), PATIENCE_S, f"AWS has begun with the {kind}")
        account.tell(expired=True)
        said = up.communicate(timeout=PATIENCE_S)[0]
        assert up.returncode != 0
        words = said[said.rindex("Diagnostics:") :]
        assert "ExpiredTokenException" in words
        assert words.count("the AWS credentials expired while pulumi ran. Remedy: get new ones") == 1
        before = made(account)
        account.forget()
    stack.up()
    assert made(account) == before
    stack.up("--expect-no-changes")
    stack.destroy()


def made(account: Account) -> dict[str, list[str]]:
    """Return the names of the clusters and of their node groups that there are any of."""
    eks = account.client("eks")
    clusters = eks.list_clusters()["clusters"]
    groups = [group for name in clusters for group in eks.list_nodegroups(clusterName=name)["nodegroups"]]
    return {kind: names for kind, names in (("Cluster", clusters), ("NodeGroup", groups)) if names}


@pytest.fixture
def token_that_ends(cluster: FakeNodes, aws: AwsCli) -> Iterator[str]:
    """A token that the API server takes until its account is deleted; `aws` gives it."""
    account = {"metadata": {"name": "deployer"}}
    binding = {
        "metadata": {"name": "deployer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "default"}],
    }
    cluster.api.call("POST", ACCOUNT.rpartition("/")[0], account)
    cluster.api.call("POST", BINDING, binding)
    token = cluster.api.call("POST", f"{ACCOUNT}/token", {"spec": {}})["status"]["token"]
    aws.give(token)
    yield token
    cluster.api.call("DELETE", f"{BINDING}/deployer")


def test_the_cluster_is_asked_with_the_profile_and_the_role_that_made_it(
    stack: Stack, cluster: FakeNodes
) -> None:
    """Both kubeconfigs of pulumi-eks leave them out; the first `pulumi up` ended unauthorized."""
    stack.up()
    assert cluster.api.call("GET", DAEMON_SET)["status"]["numberReady"] == 2
    (user,) = json.loads(stack.outputs()["kubeconfig"])["users"]
    asked = " ".join(user["user"]["exec"]["args"])
    assert "--profile team" in asked
    assert f"--role {ROLE}" in asked
    stack.up("--expect-no-changes")


def test_credentials_that_end_in_the_middle_lose_nothing(
    stack: Stack, cluster: FakeNodes, aws: AwsCli, token_that_ends: str
) -> None:
    cluster.failing[ANY_OTHER] = "download: not yet. Remedy: wait"
    stack.set(version="0.16.1")
    up = stack.begin_up()
    await_version(cluster, "0.16.1")
    cluster.api.call("DELETE", ACCOUNT)
    aws.end()
    said = up.communicate(timeout=PATIENCE_S)[0]
    assert up.returncode != 0
    assert re.search("Unauthorized|timed out", said), said
    cluster.failing.clear()
    aws.give(TOKEN)
    stack.up()
    assert cluster.api.call("GET", DAEMON_SET)["status"]["numberReady"] == 2
    stack.up("--expect-no-changes")


def await_version(cluster: FakeNodes, version: str) -> None:
    """Return when the DaemonSet has this version."""
    deadline = time.monotonic() + PATIENCE_S
    while cluster.api.call("GET", DAEMON_SET)["metadata"]["labels"]["app.kubernetes.io/version"] != version:
        assert time.monotonic() < deadline, "the DaemonSet was never changed"
        time.sleep(0.1)


def test_a_cluster_that_lets_nobody_in_is_no_obstacle_to_its_end(
    stack: Stack, cluster: FakeNodes, aws: AwsCli
) -> None:
    """`configured Kubernetes cluster is unreachable` was the end of `pulumi destroy`."""
    aws.end()
    stack.destroy()
    assert cluster.api.call("GET", "/api/v1/nodes")["items"] == []
