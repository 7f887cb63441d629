"""The nodes: systemd as PID 1 in a systemd-nspawn container, with containerd, kubelet and kube-proxy.

A node's root is an overlay on the shared base (instant to make, survives reboots), except for the directories
in which containerd, kubelet and SOCI make overlays of their own: an overlay cannot lie on an overlay.
"""

import hashlib
import json
import re
import shutil
import signal
import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import processes
from control_plane import ControlPlane, link_exists, run
from processes import Processes
from settings import ADDRESS, BRIDGE, HERE, REGISTRY, REGISTRY_NAMES, VERSIONS, LabError

STARTUP_TAINT = {"key": "soci-cluster.io/not-ready", "effect": "NoSchedule"}
REAL_DIRECTORIES = ("containerd", "kubelet", "soci-snapshotter-grpc", "soci-snapshotter-grpc-b")
UNITS = {
    "lab-cgroup": "sysinit.target",
    "lab-network": "multi-user.target",
    "containerd": "multi-user.target",
    "kubelet": "multi-user.target",
    "kube-proxy": "multi-user.target",
}
CREDENTIAL_PROVIDERS = "kubernetes/image-credential-provider"  # below /etc
# Those of EKS's AMI (amazon-eks-ami, nodeadm's image-credential-provider.go), and the lab's own.
PROVIDED_IMAGES = (
    "*.dkr.ecr.*.amazonaws.com",
    "*.dkr-ecr.*.on.aws",
    "*.dkr.ecr.*.amazonaws.com.cn",
    "*.dkr.ecr-fips.*.amazonaws.com",
    "public.ecr.aws",
    "*.registry.lab",
)
NAMESPACES = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
# Signals that systemd as PID 1 understands (systemd(1)): clean power-off.
POWER_OFF = signal.SIGRTMIN + 4
CGROUPS = Path("/sys/fs/cgroup")
# The shell joins the groups first, so that every process of the node is born in them. By exit code 133
# nspawn says that the node asked for a reboot (`systemctl reboot` in it).
SUPERVISOR = """
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done
shift
while true; do "$@"; [ $? -eq 133 ] || exit; done
"""


@dataclass
class Spec:
    """What a node is; from the number come its address and its pods' range.

    rate limits what it receives, in tc's notation; empty means no limit.
    """

    name: str
    number: int
    containerd: str
    labels: list[str] = field(default_factory=list)
    taint: bool = True
    rate: str = ""

    @property
    def address(self) -> str:
        return f"10.77.0.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def interface(self) -> str:
        """The machine's end of the node's cable (systemd-nspawn(1), --network-bridge)."""
        return f"vb-{self.name}"


def check_name(name: str) -> None:
    """Raise LabError unless the name can be a host's, a Kubernetes node's and a network interface's."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", name):
        raise LabError(
            f"{name!r} cannot be a node's name: at most 12 lower-case letters, digits and '-', a letter first"
        )


def kubelet_configuration(spec: Spec) -> dict:
    """Return the node's KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
        "failCgroupV1": False,  # the machine may have that, and nodes have what the machine has
        "enforceNodeAllocatable": [],
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "2s",  # a heartbeat tells soon that a rebooted node is back
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "oomScoreAdj": 0,  # lowering it needs CAP_SYS_RESOURCE
        "registerWithTaints": [STARTUP_TAINT] if spec.taint else [],
    }


def credential_provider_configuration() -> dict:
    """Return every node's CredentialProviderConfig (kubelet.config.k8s.io/v1), as EKS's nodes have it."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [
            {
                "name": "ecr-credential-provider",
                "matchImages": list(PROVIDED_IMAGES),
                "defaultCacheDuration": "12h0m0s",
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            }
        ],
    }


def hosts_file(spec: Spec) -> str:
    """Return the node's /etc/hosts: itself, and the registries that tests start."""
    known = {"127.0.0.1": ("localhost",), spec.address: (spec.name,), **REGISTRY_NAMES}
    return "".join(f"{address} {' '.join(names)}\n" for address, names in known.items())


def network_configuration(spec: Spec) -> dict:
    """Return the node's CNI configuration: pods on a bridge of the node, addresses out of its own range."""
    return {
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": spec.pod_range}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def containerd_configuration(version: str) -> str:
    """Return config.toml for that containerd: schema 2 for 1.x, schema 3 for 2.x."""
    text = (HERE / f"node/containerd-{version.partition('.')[0]}.toml").read_text()
    return text.replace("@REGISTRY@", REGISTRY).replace("@PAUSE@", VERSIONS["pause"])


class Node:
    """One node of the lab; `state` is the lab's state directory."""

    def __init__(self, state: Path, spec: Spec) -> None:
        self.state = state
        self.spec = spec
        self.directory = state / "nodes" / spec.name
        self.root = self.directory / "root"
        self.processes = Processes(state)
        lab = hashlib.sha256(str(state).encode()).hexdigest()[:6]
        self.cgroup = f"soci-lab-{lab}-{spec.name}"

    @classmethod
    def load(cls, state: Path, name: str) -> "Node":
        """Return the recorded node; raise LabError when there is none of that name."""
        try:
            recorded = json.loads((state / "nodes" / name / "node.json").read_text())
        except OSError:
            known = ", ".join(node.spec.name for node in cls.all(state)) or "none yet; run `lab up`"
            raise LabError(f"no node named {name!r}; there are: {known}") from None
        return cls(state, Spec(**recorded))

    @classmethod
    def all(cls, state: Path) -> "list[Node]":
        """Return the recorded nodes, by number."""
        nodes = [cls.load(state, path.parent.name) for path in (state / "nodes").glob("*/node.json")]
        return sorted(nodes, key=lambda node: node.spec.number)

    def save(self) -> None:
        """Record what the node is."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "node.json").write_text(json.dumps(asdict(self.spec), indent=1))

    @property
    def supervisor(self) -> int | None:
        """The pid of the shell that keeps systemd-nspawn running; None when the node is off."""
        return self.processes.pid(self.spec.name)

    @property
    def leader(self) -> int | None:
        """The pid, on the machine, of the node's PID 1; None when the node is off."""
        for container in processes.children(self.supervisor or 0):
            for child in processes.children(container):
                if processes.is_init(child):
                    return child
        return None

    def up(self, base: Path, containerd: Path, control_plane: ControlPlane) -> None:
        """Boot the node unless it is on; its files are made on the first boot and kept after that."""
        if self.supervisor:
            return
        self._clear_leftovers()
        self._mount(base)
        if not (self.directory / "made").exists():
            self._make(containerd, control_plane)
            (self.directory / "made").touch()
        self._join_cgroups()
        self._boot(control_plane.programs)
        run(["ip", "route", "replace", self.spec.pod_range, "via", self.spec.address])

    def power_cut(self) -> None:
        """End every process of the node at once, as pulling the plug does."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        # With its PID 1 the kernel ends all of a PID namespace; nspawn then ends by itself.
        doomed = [self.leader] if self.leader else [*processes.children(supervisor), supervisor]
        for pid in doomed:
            processes.kill(pid, signal.SIGKILL)
        self._await_off(10)

    def shut_down(self, grace_s: float = 20) -> None:
        """Power off through the node's systemd; cut the power when that takes longer than grace_s seconds."""
        if self.leader:
            processes.kill(self.leader, POWER_OFF)
            try:
                self._await_off(grace_s)
            except LabError:
                self.power_cut()

    def release(self) -> None:
        """Give back what a node that is off holds on the machine: mount, cgroups and cable."""
        self._clear_leftovers()
        if self.root.is_mount():
            run(["umount", "--lazy", str(self.root)])

    def shape(self, rate: str) -> None:
        """Limit what the node receives to the rate (tc notation: 100mbit, 10mbit); empty lifts the limit."""
        self.spec.rate = rate
        self.save()
        if not link_exists(self.spec.interface):
            return
        run(["tc", "qdisc", "delete", "dev", self.spec.interface, "root"], check=False)
        if rate:
            bucket = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "200ms"]
            run(["tc", "qdisc", "replace", "dev", self.spec.interface, *bucket])

    def command(self, arguments: list[str]) -> list[str]:
        """Return the command that runs the arguments on the node as root; raise LabError when it is off."""
        if not self.leader:
            raise LabError(f"{self.spec.name} is off; start it with `lab up`")
        environment = ["env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        leader = str(self.leader)
        enter = ["nsenter", "--target", leader, *NAMESPACES, "--root", f"--wd=/proc/{leader}/root"]
        return [*enter, "--", *environment, path, *arguments]

    def last_words(self) -> str:
        """Return what a node that is on says about itself: failed units, the end of the kubelet's log."""
        failed = run(self.command(["systemctl", "--failed", "--no-legend", "--plain"]), check=False)
        log = ["journalctl", "-u", "kubelet", "-u", "containerd", "-n", "12", "--no-pager", "-o", "cat"]
        return failed + run(self.command(log), check=False)

    def _mount(self, base: Path) -> None:
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name in REAL_DIRECTORIES:
            (self.directory / "data" / name).mkdir(parents=True, exist_ok=True)
        if not self.root.is_mount():
            layers = f"lowerdir={base},upperdir={self.directory}/upper,workdir={self.directory}/work"
            run(["mount", "-t", "overlay", "-o", layers, f"lab-{self.spec.name}", str(self.root)])

    def _make(self, containerd: Path, control_plane: ControlPlane) -> None:
        spec, etc = self.spec, self.root / "etc"
        authority = control_plane.authority
        environment = {
            "NODE_NAME": spec.name,
            "NODE_IP": spec.address,
            "GATEWAY": ADDRESS,
            "NODE_LABELS": ",".join(spec.labels),
        }
        kubelet = authority.kubeconfig(spec.name, f"system:node:{spec.name}", "system:nodes")
        kube_proxy = authority.kubeconfig("kube-proxy", "system:kube-proxy", "lab")
        registry_hosts = f'server = "http://{REGISTRY}"\n\n[host."http://{REGISTRY}"]\n'
        registry_hosts += '  capabilities = ["pull", "resolve"]\n'
        files = {
            "hostname": f"{spec.name}\n",
            "hosts": hosts_file(spec),
            "machine-id": uuid.uuid5(uuid.NAMESPACE_DNS, spec.name).hex + "\n",
            "resolv.conf": "# the lab has no name server\n",
            "systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=3s\n",
            # The kernel's log is the machine's, and every node would repeat it.
            "systemd/journald.conf.d/lab.conf": "[Journal]\nReadKMsg=no\n",
            "kubernetes/node.env": "".join(f"{key}={value}\n" for key, value in environment.items()),
            "kubernetes/ca.crt": authority.certificate.read_text(),
            "kubernetes/kubelet.yaml": json.dumps(kubelet_configuration(spec), indent=1),
            "kubernetes/kubelet.kubeconfig": kubelet,
            "kubernetes/kube-proxy.kubeconfig": kube_proxy,
            f"{CREDENTIAL_PROVIDERS}/config.json": json.dumps(credential_provider_configuration(), indent=1),
            "cni/net.d/10-lab.conflist": json.dumps(network_configuration(spec), indent=1),
            "containerd/config.toml": containerd_configuration(spec.containerd),
            f"containerd/certs.d/{REGISTRY}/hosts.toml": registry_hosts,
        }
        if not spec.containerd.startswith("1."):
            files["containerd/conf.d/50-metrics.toml"] = (HERE / "node/50-metrics.toml").read_text()
        for unit in UNITS:
            files[f"systemd/system/{unit}.service"] = (HERE / f"node/{unit}.service").read_text()
        for name, text in files.items():
            path = etc / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(text)
        for unit, wanted_by in UNITS.items():
            wants = etc / f"systemd/system/{wanted_by}.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / f"{unit}.service").unlink(missing_ok=True)
            (wants / f"{unit}.service").symlink_to(f"../{unit}.service")
        (self.root / "var/log/journal").mkdir(parents=True, exist_ok=True)  # so that logs outlive a reboot
        bundle = etc / "ssl/certs/ca-certificates.crt"
        bundle.write_text(bundle.read_text() + control_plane.registry_authority.certificate.read_text())
        provider = "ecr-credential-provider"
        shutil.copy2(HERE / "node" / provider, etc / CREDENTIAL_PROVIDERS / provider)
        for program in containerd.iterdir():
            shutil.copy2(program, self.root / "usr/local/bin" / program.name)

    def _join_cgroups(self) -> None:
        """Make a group of the node's own in every hierarchy: else two nodes would share one /kubepods."""
        for group in self._cgroup_directories():
            group.mkdir(exist_ok=True)
            # Version 1: both are empty in a new group, and then nothing can join it.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / "cgroup.clone_children").exists() and (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
                    (group / "cgroup.clone_children").write_text("1")

    def _cgroup_directories(self) -> list[Path]:
        if (CGROUPS / "cgroup.controllers").exists():
            return [CGROUPS / self.cgroup]
        return [hierarchy / self.cgroup for hierarchy in CGROUPS.iterdir() if not hierarchy.is_symlink()]

    def _boot(self, kubernetes: Path) -> None:
        binds = [f"--bind={self.directory}/data/{name}:/var/lib/{name}" for name in REAL_DIRECTORIES]
        nspawn = [
            "systemd-nspawn",
            f"--directory={self.root}",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--machine={self.spec.name}",
            f"--network-bridge={BRIDGE}",
            "--capability=all",
            "--system-call-filter=@keyring bpf",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            "--bind=/dev/fuse",
            "--bind=/dev/kmsg",
            f"--bind-ro={kubernetes}:/usr/lib/kubernetes",
            *binds,
        ]
        groups = [str(group) for group in self._cgroup_directories()]
        environment = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes", "SYSTEMD_SECCOMP": "0"}
        self.processes.start(
            self.spec.name, ["sh", "-c", SUPERVISOR, "sh", *groups, "--", *nspawn], environment
        )
        deadline = time.monotonic() + 20
        while not (self.leader and link_exists(self.spec.interface)):
            if not self.supervisor or time.monotonic() > deadline:
                raise LabError(f"{self.spec.name} does not boot; its console:\n{self._console()}")
            time.sleep(0.05)
        if self.spec.rate:
            self.shape(self.spec.rate)

    def _console(self) -> str:
        return self.processes.last_words(self.spec.name)

    def _await_off(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while self.supervisor:
            if time.monotonic() > deadline:
                console = self._console()
                raise LabError(
                    f"{self.spec.name} is still on after {patience_s:.0f} s; its console:\n{console}"
                )
            time.sleep(0.05)
        self.processes.forget(self.spec.name)

    def _clear_leftovers(self) -> None:
        run(["ip", "link", "delete", self.spec.interface], check=False)
        for group in self._cgroup_directories():
            # Deepest first; the kernel removes only groups without processes.
            inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
            for directory in [*inner, group]:
                try:
                    directory.rmdir()
                except OSError:
                    continue


def await_ready(plane: ControlPlane, wanted: list[Node], since: float = 0, patience_s: float = 90) -> None:
    """Return when the API server calls all the nodes Ready, by a heartbeat later than `since` (time.time()).

    Raises LabError naming those that are not after patience_s seconds.
    """
    deadline = time.monotonic() + patience_s
    while True:
        known = plane.nodes()
        late = [node for node in wanted if not is_ready(known.get(node.spec.name), since)]
        if not late:
            return
        if time.monotonic() > deadline:
            names = ", ".join(node.spec.name for node in late)
            words = late[0].last_words() if late[0].leader else "it is off"
            raise LabError(f"not Ready after {patience_s:.0f} s: {names}; {late[0].spec.name} says:\n{words}")
        time.sleep(0.3)


def is_ready(item: dict | None, since: float = 0) -> bool:
    """Return whether a node object says Ready=True, as reported after `since` (seconds of time.time())."""
    for entry in (item or {}).get("status", {}).get("conditions", []):
        if entry["type"] == "Ready" and entry["status"] == "True":
            # Heartbeats have whole seconds: one of the same second may still be from before.
            return datetime.fromisoformat(entry["lastHeartbeatTime"]).timestamp() > int(since)
    return False
