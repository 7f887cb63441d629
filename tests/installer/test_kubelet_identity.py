"""The node's identity: as the kubelet is known to the API server, so is the installer's second process."""

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.kubelet_identity import IdentityError, KubeletIdentity

from tests.fakes.api_server import NODE, ApiServer
from tests.fakes.kubelet_node import CERTIFICATE, KUBECONFIG, KubeletNode, status_of

PODS = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}"
USER = f"system:node:{NODE}"
TOKEN = "k8s-aws-v1.topsecret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api"))
    yield server
    server.stop()


@pytest.fixture
def node(server: ApiServer, tmp_path: Path) -> KubeletNode:
    server.tokens.clear()
    return KubeletNode(tmp_path / "root", server)


def status(identity: KubeletIdentity) -> int:
    """What the API server says to a list of the node's pods."""
    return status_of(identity, PODS)


def refused(node: KubeletNode) -> str:
    with pytest.raises(IdentityError) as caught:
        KubeletIdentity(node).connect(1)
    return str(caught.value)


def test_a_certificate_that_rotates_is_read_anew(node: KubeletNode, server: ApiServer) -> None:
    identity = KubeletIdentity(node)
    assert status(identity) == 200
    node.identify("somebody-else", "system:node:other")
    assert status(identity) == 403
    node.identify("rotated", USER)
    assert status(identity) == 200
    assert server.requests[-1][2] == USER


def test_the_flag_may_stand_apart_and_the_bootstrap_is_another(node: KubeletNode) -> None:
    node.run_kubelet("--bootstrap-kubeconfig", "/etc/bootstrap", "--kubeconfig", KUBECONFIG)
    assert status(KubeletIdentity(node)) == 200
    node.run_kubelet("--bootstrap-kubeconfig=/etc/bootstrap")
    assert refused(node) == "the kubelet's --kubeconfig is none"


def test_data_in_the_kubeconfig_never_lies_on_a_disk(node: KubeletNode, server: ApiServer) -> None:
    certificate, key = server.authority.sign("node", USER, "system:nodes")
    encoded = {
        name: base64.b64encode(path.read_bytes()).decode()
        for name, path in {"client-certificate-data": certificate, "client-key-data": key}.items()
    }
    authority = base64.b64encode(server.authority.certificate.read_bytes()).decode()
    node.configure(encoded, **{"certificate-authority-data": authority})
    files = sorted(node.root.rglob("*"))
    assert status(KubeletIdentity(node)) == 200
    assert sorted(node.root.rglob("*")) == files
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [link for link in links if "identity" in str(link)]


def test_a_file_with_a_token_is_read_for_each_connection(node: KubeletNode, server: ApiServer) -> None:
    node.configure({"tokenFile": "token"})  # beside the kubeconfig
    identity = KubeletIdentity(node)
    server.tokens["second"] = USER
    node.put("/var/lib/kubelet/token", "first\n")
    assert status(identity) == 401
    node.put("/var/lib/kubelet/token", "second\n")
    assert status(identity) == 200


def test_the_nodes_own_hosts_file_and_the_name_of_the_certificate(node: KubeletNode) -> None:
    user = {"client-certificate": CERTIFICATE, "client-key": CERTIFICATE}
    node.put("/etc/hosts", "# comment\n127.0.0.1 localhost api.corp # more\n")
    url = f"https://api.corp:{node.server.port}"
    node.configure(user, server=url, **{"tls-server-name": "kubernetes.default", "proxy-url": "http://p:1"})
    identity = KubeletIdentity(node)
    assert status(identity) == 200
    assert identity.ignored == {"proxy-url"}
    node.configure(user, server=url)  # the certificate is not for that name
    with pytest.raises(OSError, match=r"api\.corp"):
        status(KubeletIdentity(node))


# The exec plugin


def test_the_plugin_of_eks(node: KubeletNode, server: ApiServer) -> None:
    """It is asked as the kubelet asks it, and not more often than its answer wants."""
    plugin = node.use_plugin(
        'echo "$*|$AWS_STS|$AWS_REGION|$ODD|$KUBERNETES_EXEC_INFO|$HOME" >>"$0.calls"\n'
        f'echo \'{{"kind":"ExecCredential","status":{{"token":"{TOKEN}",'
        '"expirationTimestamp":"2026-11-27T12:00:00Z"}}\''
    )
    server.tokens[TOKEN] = USER
    now = [1795780000.0]  # 2026-11-27T11:46:40Z
    identity = KubeletIdentity(node, lambda: now[0])
    assert [status(identity), status(identity)] == [200, 200]
    (call,) = Path(f"{plugin}.calls").read_text().splitlines()
    assert call == (
        "eks get-token --cluster-name my cluster --region eu-west-1|regional endpoint|eu-west-1|"
        'a b "c" $d|{"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", '
        '"spec": {"interactive": false}}|'
    )
    now[0] += 790  # nearly its end
    assert status(identity) == 200
    now[0] -= 790
    # Refused before its end, as after a jump of the clock; two followers see it, one after the other.
    refused = identity.connect(1).proof
    identity.forget(refused)
    assert status(identity) == 200
    identity.forget(refused)
    assert status(identity) == 200
    assert len(Path(f"{plugin}.calls").read_text().splitlines()) == 3


def test_what_the_plugin_is_told_is_in_no_process_list(node: KubeletNode, server: ApiServer) -> None:
    server.tokens[TOKEN] = USER
    node.use_plugin(f'echo \'{{"status":{{"token":"{TOKEN}"}}}}\'')
    assert status(KubeletIdentity(node)) == 200
    (command,) = node.commands
    assert not [word for word in command if "regional endpoint" in word or TOKEN in word]
    assert "AWS_STS=regional endpoint\n" in node.texts[0]


def test_a_plugin_may_give_a_certificate(node: KubeletNode, server: ApiServer) -> None:
    certificate, key = server.authority.sign("node", USER, "system:nodes")
    (node.root / "cert").write_bytes(certificate.read_bytes())
    (node.root / "key").write_bytes(key.read_bytes())
    node.use_plugin(
        f'one() {{ sed "s/$/\\\\\\\\n/" "{node.root}/$1" | tr -d "\\n"; }}\n'
        'printf \'{"status":{"clientCertificateData":"%s","clientKeyData":"%s"}}\' "$(one cert)" "$(one key)"'
    )
    assert status(KubeletIdentity(node)) == 200


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("echo rubbish", "printed no ExecCredential"),
        ("echo '{\"status\":null}'", "printed no ExecCredential"),
        ("echo '{\"status\":{}}'", "gave neither token nor certificate"),
        ('echo \'{"status":{"token":"t","expirationTimestamp":"soon"}}\'', "printed no ExecCredential"),
        (
            "echo 'could not reach https://u:topsecret@sts/?X-Sig=topsecret' >&2; exit 254",
            "failed with status 254",
        ),
    ],
)
def test_a_plugin_that_fails_is_named_without_what_it_knows(node: KubeletNode, body: str, cause: str) -> None:
    node.use_plugin(body)
    said = refused(node)
    assert cause in said
    assert "topsecret" not in said
    assert "could not" not in said


def test_a_plugin_that_failed_is_not_run_again_by_each_who_follows(
    node: KubeletNode, server: ApiServer
) -> None:
    plugin = node.use_plugin('echo x >>"$0.calls"; exit 1')
    now = [1795780000.0]
    identity = KubeletIdentity(node, lambda: now[0])
    for _ in range(20):
        with pytest.raises(IdentityError, match="failed with status 1"):
            identity.connect(1)
    assert Path(f"{plugin}.calls").read_text() == "x\n"
    server.tokens[TOKEN] = USER
    plugin.write_text(f'#!/bin/sh\necho \'{{"status":{{"token":"{TOKEN}"}}}}\'\n')
    now[0] += 16
    assert status(identity) == 200


# What cannot be used


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("users: [topsecret", "is not understood"),
        ("kind: Config\n", "has no context"),
        ("topsecret", "has no context"),
    ],
)
def test_a_kubeconfig_that_cannot_be_read_is_told_without_its_text(
    node: KubeletNode, text: str, cause: str
) -> None:
    node.put(KUBECONFIG, text)
    said = refused(node)
    assert cause in said
    assert "topsecret" not in said


def test_a_kubelet_that_is_being_set_up(node: KubeletNode) -> None:
    node.path(KUBECONFIG).unlink()
    assert "is not there yet" in refused(node)
    node.put(f"/proc/{6}/comm", "other\n")
    assert "no kubelet" in refused(node)


@pytest.mark.parametrize(
    ("user", "cluster", "cause"),
    [
        ({}, {}, "no certificate with key, token or exec plugin"),
        ({"client-certificate": "gone.pem", "client-key": "gone.pem"}, {}, "gone.pem is missing"),
        ({"client-certificate-data": "%"}, {}, "no base64"),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"token": "t"}, {"server": "http://127.0.0.1:1"}, "is not https"),
        ({"token": "t"}, {"server": "https://h:port"}, "port"),
        ({"token": "t"}, {"certificate-authority-data": "dG9wc2VjcmV0"}, "cannot be used"),
    ],
)
def test_an_identity_that_is_none_is_said(node: KubeletNode, user: dict, cluster: dict, cause: str) -> None:
    node.configure(user, **cluster)
    assert cause in refused(node)


def test_a_server_of_another_authority_gets_nothing(
    node: KubeletNode, server: ApiServer, tmp_path: Path
) -> None:
    foreign = tmp_path / "ca.crt"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {tmp_path}/k -subj /CN=x -out {foreign}"
    subprocess.run(command.split(), check=True, capture_output=True)
    node.put("/etc/kubernetes/pki/ca.crt", foreign.read_text())
    seen = len(server.requests)
    with pytest.raises(OSError, match="certificate verify failed"):
        status(KubeletIdentity(node))
    assert len(server.requests) == seen
