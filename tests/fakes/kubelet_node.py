"""A node whose kubelet has a kubeconfig for the API server of the tests, and memory at /run."""

import contextlib
import json
from pathlib import Path
from typing import Any, Protocol

from agent.host import Host
from agent.kubelet_identity import KubeletIdentity
from agent.transaction import STATE
from pki import Authority

from tests.fakes.api_server import NODE
from tests.fakes.node import FakeHost, process, run_here

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
PID = 6
MOUNTS = "1 0 8:1 / / rw - ext4 /dev/sda rw\n20 1 0:20 / /run rw,nosuid - tmpfs tmpfs rw,mode=755\n"

AWS = """\
apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster:
    certificate-authority: /etc/kubernetes/pki/ca.crt
    server: @SERVER@
current-context: kubelet
contexts:
- name: kubelet
  context:
    cluster: kubernetes
    user: kubelet
users:
- name: kubelet
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: @COMMAND@
      args:
        - "eks"
        - "get-token"
        - "--cluster-name"
        - "my cluster"
        - "--region"
        - "eu-west-1"
      env:
      - name: AWS_STS
        value: "regional endpoint"
"""


class Server(Protocol):
    """An API server on this machine, and who signs for it."""

    authority: Authority
    port: int


class KubeletNode(FakeHost):
    """It is installed; commands run on this machine."""

    def __init__(self, root: Path, server: Server, name: str = NODE) -> None:
        super().__init__(root)
        self.server = server
        self.texts: list[str] = []  # on the standard inputs of commands
        self.answers = {"env": lambda command, text: (self.texts.append(text), run_here(command, text))[1]}
        self.put("/proc/1/mountinfo", MOUNTS)
        self.put("/proc/1/comm", "systemd\n")
        self.put(f"{STATE}/current/files", "")
        self.path("/run").mkdir()
        self.run_kubelet(f"--kubeconfig={KUBECONFIG}", "--bootstrap-kubeconfig=/etc/bootstrap")
        self.put("/etc/kubernetes/pki/ca.crt", server.authority.certificate.read_text())
        self.identify("node", f"system:node:{name}")
        self.configure({"client-certificate": CERTIFICATE, "client-key": CERTIFICATE})

    def put(self, path: str, text: str) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run_kubelet(self, *options: str) -> None:
        command = ("/usr/bin/kubelet", *options)
        for path, text in process(PID, command, "/system.slice/kubelet.service").items():
            self.put(path, text)
        self.put(f"/proc/{PID}/environ", 'AWS_REGION=eu-west-1\0PATH=/usr/bin:/bin\0ODD=a b "c" $d\0')

    def identify(self, name: str, user: str) -> None:
        """The kubelet's certificate is of this user; rotated as the kubelet does it, by a symbolic link."""
        certificate, key = self.server.authority.sign(name, user, "system:nodes")
        dated = CERTIFICATE.replace("current", name)
        self.put(dated, certificate.read_text() + key.read_text())
        link = self.path(CERTIFICATE)
        link.unlink(missing_ok=True)
        link.symlink_to(dated)  # absolute, as on the node

    def configure(self, user: dict[str, Any], **cluster: Any) -> None:
        """The kubelet's kubeconfig, with this user."""
        found = {"server": f"https://127.0.0.1:{self.server.port}"} | cluster
        if "certificate-authority-data" not in found:
            found = {"certificate-authority": "/etc/kubernetes/pki/ca.crt"} | found
        content = {
            "current-context": "node",
            "contexts": [{"name": "node", "context": {"cluster": "here", "user": "kubelet"}}],
            "clusters": [{"name": "here", "cluster": found}],
            "users": [{"name": "other", "user": {"token": "wrong"}}, {"name": "kubelet", "user": user}],
        }
        self.put(KUBECONFIG, json.dumps(content))

    def use_plugin(self, body: str) -> Path:
        """The kubeconfig of EKS, with a plugin of this text (sh) in place of the AWS CLI."""
        plugin = self.root / "aws"
        plugin.write_text(f"#!/bin/sh\n{body}\n")
        plugin.chmod(0o755)
        text = AWS.replace("@COMMAND@", str(plugin))
        self.put(KUBECONFIG, text.replace("@SERVER@", f"https://127.0.0.1:{self.server.port}"))
        return plugin


def kept_credentials(host: Host) -> dict[str, str]:
    """What the credential helper would find, by host."""
    found = {}
    for path in sorted(host.path("/run/soci-cluster/pull-secrets").glob("*")):
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            found[path.name] = path.read_text()
    return found


def status_of(identity: KubeletIdentity, path: str) -> int:
    """The status with which the API server answers a question of the node's."""
    connection = identity.connect(10)
    try:
        response = connection.ask("GET", path)
        response.read()
        return response.status
    finally:
        connection.close()
