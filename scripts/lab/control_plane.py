"""etcd, API server, controller manager and scheduler on the machine, and the bridge the nodes hang on."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from pki import API_NAMES, Authority
from processes import Processes
from settings import ADDRESS, API_PORT, BRIDGE, REGISTRY_NAMES, LabError

SERVICE_RANGE = "10.96.0.0/16"
ETCD = "http://127.0.0.1:12379"
START_ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
FORWARD_RULE = ["FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"]


def run(command: list[str], check: bool = True) -> str:
    """Run a command of the machine and return its output; raise LabError with its words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed (exit {done.returncode}): {done.stderr.strip()}")
    return done.stdout


class ControlPlane:
    """The Kubernetes control plane of one lab; `programs` is what binaries.build("kubernetes") returned."""

    def __init__(self, state: Path, programs: Path) -> None:
        self.state = state
        self.programs = programs
        self.processes = Processes(state)
        self.authority = Authority(state / "pki")
        self.registry_authority = Authority(state / "pki-registries")  # which nodes trust
        self.kubeconfig = state / "kubeconfig"

    def up(self) -> None:
        """Make what is missing of network, certificates and processes; return when the API is ready."""
        network_up()
        self.authority.create()
        self.registry_authority.create()
        self._write_kubeconfigs()
        if not self.processes.pid("etcd"):
            # Clients of an etcd that died come back slowly (a minute was seen): they start afresh with it.
            for name in reversed(START_ORDER):
                self.processes.stop(name)
        for name, arguments in self._arguments().items():
            self.processes.start(name, [str(self.programs / name), *arguments])
            if name == "kube-apiserver":
                self._await_ready()

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl as the cluster's administrator and return its output; raise LabError when it fails."""
        access = ["--kubeconfig", str(self.kubeconfig), "--request-timeout=5s"]
        return run([str(self.programs / "kubectl"), *access, *arguments], check)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the cluster's node objects by name."""
        items = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def _write_kubeconfigs(self) -> None:
        for path, user, group in (
            (self.kubeconfig, "admin", "system:masters"),
            (self.state / "pki/kube-controller-manager.kubeconfig", "system:kube-controller-manager", "lab"),
            (self.state / "pki/kube-scheduler.kubeconfig", "system:kube-scheduler", "lab"),
        ):
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(self.authority.kubeconfig(user.rpartition(":")[2], user, group))

    def _await_ready(self, patience_s: float = 60) -> None:
        deadline = time.monotonic() + patience_s
        while "ok" not in self.kubectl("get", "--raw", "/readyz", check=False):
            if not self.processes.pid("kube-apiserver") or time.monotonic() > deadline:
                words = self.processes.last_words("kube-apiserver")
                raise LabError(f"the API server is not ready; the end of its log:\n{words}")
            time.sleep(0.2)

    def _arguments(self) -> dict[str, list[str]]:
        pki = self.state / "pki"
        server = self.authority.sign("kube-apiserver", "kube-apiserver", "lab", API_NAMES)
        kubelet_client = self.authority.sign("kubelet-client", "apiserver-kubelet-client", "system:masters")
        scheduler = f"{pki}/kube-scheduler.kubeconfig"
        return {
            "etcd": [
                f"--data-dir={self.state}/etcd",
                f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}",
                "--listen-peer-urls=http://127.0.0.1:12380",
                "--unsafe-no-fsync=true",  # a lab's cluster state is not worth a slow disk
                "--log-level=warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={ETCD}",
                "--bind-address=0.0.0.0",
                f"--advertise-address={ADDRESS}",
                f"--secure-port={API_PORT}",
                f"--tls-cert-file={server[0]}",
                f"--tls-private-key-file={server[1]}",
                f"--client-ca-file={self.authority.certificate}",
                f"--kubelet-client-certificate={kubelet_client[0]}",
                f"--kubelet-client-key={kubelet_client[1]}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-account-key-file={self.authority.service_account_key}",
                f"--service-account-signing-key-file={self.authority.service_account_key}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-cluster-ip-range={SERVICE_RANGE}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
            ],
            "kube-controller-manager": [
                f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
                "--use-service-account-credentials=true",
                f"--root-ca-file={self.authority.certificate}",
                f"--service-account-private-key-file={self.authority.service_account_key}",
                "--allocate-node-cidrs=false",  # pod subnets are fixed: 10.244.<number>.0/24
                f"--service-cluster-ip-range={SERVICE_RANGE}",
                "--leader-elect=false",
            ],
            "kube-scheduler": [
                f"--kubeconfig={scheduler}",
                f"--authentication-kubeconfig={scheduler}",
                f"--authorization-kubeconfig={scheduler}",
                "--leader-elect=false",
            ],
        }


def link_exists(name: str) -> bool:
    """Return whether there is such an interface in the caller's own network, which /sys does not show."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return any(line.partition(":")[0].strip() == name for line in lines)


def network_up() -> None:
    """Make the bridge with the machine's address on it and let traffic between nodes pass; idempotent.

    Two settings of the machine are raised and stay so: net.ipv4.ip_forward, fs.inotify.max_user_instances.
    """
    if not link_exists(BRIDGE):
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])
    for address in REGISTRY_NAMES:
        run(["ip", "address", "replace", f"{address}/24", "dev", BRIDGE])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    # Every systemd, kubelet and containerd watches files: half a dozen nodes use up the usual 128.
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    instances.write_text(f"{max(1024, int(instances.read_text()))}\n")
    # Where a container engine has set the chain's policy to DROP, nodes could not reach each other's pods.
    if subprocess.run(["iptables", "-C", *FORWARD_RULE], capture_output=True, check=False).returncode != 0:
        run(["iptables", "-I", *FORWARD_RULE])


def network_down() -> None:
    """Remove bridge, its routes and the forwarding rule; what is not there is no error."""
    if link_exists(BRIDGE):
        run(["ip", "link", "delete", BRIDGE])
    run(["iptables", "-D", *FORWARD_RULE], check=False)
