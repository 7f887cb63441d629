"""Nodes as clouds and distributions have them: each with the sources of what is said of it.

What stands here are the keys and values of those sources, not their text. A node's files are enough for the
agent to judge it; docs/nodes.md shows what it says (scripts/docs/nodes_table.py).
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent import containerd_config, detect
from agent.host import Result

from tests.fakes.node import CONTAINERD_PID, KUBELET_PID, REPOSITORY, FakeHost, process
from tests.installer import configurations

CONFIG = "/etc/containerd/config.toml"
SOCKET = "unix:///run/containerd/containerd.sock"
PROVIDER_API = "credentialprovider.kubelet.k8s.io/v1"
QUICK = {"1": "1.7", "2": "2.3"}  # the series whose daemon judges the files, by major; --full: the node's own
LAB = REPOSITORY / "scripts" / "lab" / "node"


@dataclass(frozen=True)
class CredentialProvider:
    """The kubelet's credential provider plugins: its two flags, the file, the programs in the folder."""

    config: str
    folder: str
    text: str
    plugins: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            f"--image-credential-provider-config={self.config}",
            f"--image-credential-provider-bin-dir={self.folder}",
        )


@dataclass(frozen=True, kw_only=True)
class CloudNode:
    """One node. ``refusal`` is a part of the cause where SOCI is not installed on it.

    ``command`` starts containerd by its unit, ``running`` is its process where the unit has a variable.
    """

    name: str
    kind: str = "plain"
    os_release: str
    init: str = "systemd"
    series: str = ""  # of containerd, such as 2.3; empty when it is not asked
    version: str = ""  # the exact one, where the series says too little
    unit: str = "containerd.service"
    command: tuple[str, ...] = ("/usr/bin/containerd",)  # empty: there is no such unit
    running: tuple[str, ...] = ()
    config_path: str = CONFIG
    config: str = ""
    files: dict[str, str] = field(default_factory=dict)  # further ones
    kubelet: tuple[str, ...] = ()  # its command line; empty when it is no process of its own
    kubelet_unit: str = "kubelet.service"
    provider: CredentialProvider | None = None  # of the cloud's or distribution's own
    read_only: tuple[str, ...] = ()  # mount points
    refusal: str = ""
    note: str = ""  # what the reader of the table has to know beside the verdict
    in_lab: bool = False  # whether real nodes of this kind run in the lab
    sources: tuple[str, ...]

    @property
    def program(self) -> str:
        """The containerd that runs."""
        return (self.running or self.command or ("",))[0]


@dataclass(frozen=True, kw_only=True)
class UnpublishedNode:
    """A node whose files nobody publishes: what is known of it, and the sources of that."""

    name: str
    known: str
    sources: tuple[str, ...]


class CloudHost(FakeHost):
    """The host of a `CloudNode`, its files below ``root``."""

    def __init__(self, root: Path, node: CloudNode) -> None:
        super().__init__(root)
        self.node = node
        for path, text in files_of(node).items():
            self.write(path, text.encode())
        if node.provider:
            for name in node.provider.plugins:
                self.write(f"{node.provider.folder}/{name}", b"#!/bin/sh\n", 0o755)
        self.answers = {"systemctl": self._systemctl, "readlink": self._readlink}
        if node.init == "systemd":
            self.answers["sh"] = lambda command, text: Result(0, "", "")  # no tool is missing
        if node.program:
            self.answers[node.program] = self._version

    def is_read_only(self, path: str) -> bool:
        place = self.resolve(path)
        return any(f"{place}/".startswith(f"{point.rstrip('/')}/") for point in self.node.read_only)

    def free_bytes(self, path: str, kept: float = 0.0) -> int:
        return 1 << 40

    def _systemctl(self, command: Sequence[str], text: str) -> Result:
        if command[2] != self.node.unit or not self.node.command:
            return Result(0, "LoadState=not-found\nActiveState=inactive\nMainPID=0\n", "")
        words = " ".join(self.node.command)
        start = f"{{ path={self.node.command[0]} ; argv[]={words} ; ignore_errors=no }}"
        shown = f"LoadState=loaded\nActiveState=active\nExecStart={start}\nMainPID={CONTAINERD_PID}\n"
        return Result(0, shown, "")

    def _readlink(self, command: Sequence[str], text: str) -> Result:
        is_containerd = command[1] == f"/proc/{CONTAINERD_PID}/exe"
        return Result(0, self.node.program, "") if is_containerd else Result(1, "", "no such process")

    def _version(self, command: Sequence[str], text: str) -> Result:
        return Result(0, f"containerd x v{self.node.version or f'{self.node.series}.99'} y\n", "")


def files_of(node: CloudNode) -> dict[str, str]:
    """The node's files, by path."""
    files = {
        "/etc/os-release": node.os_release,
        "/proc/1/comm": f"{node.init}\n",
        "/proc/filesystems": "nodev\toverlay\nnodev\tfuse\n",
        "/dev/fuse": "",
        "/opt/x": "",
        "/var/lib/x": "",
        node.config_path: node.config,
        **node.files,
    }
    processes: dict[str, str] = {}
    if node.command:
        words = node.running or node.command
        processes |= process(CONTAINERD_PID, words, f"/system.slice/{node.unit}")
    if node.kubelet:
        flags = node.provider.flags if node.provider else ()
        processes |= process(KUBELET_PID, (*node.kubelet, *flags), f"/system.slice/{node.kubelet_unit}")
    files |= {f"/{path}": text for path, text in processes.items()}
    if node.provider:
        files[node.provider.config] = node.provider.text
    return {path: text for path, text in files.items() if path}


def judge(host: CloudHost) -> detect.Facts:
    """What the agent says of the node before it asks containerd.

    Raises:
        InstallError: it is refused.
    """
    facts = detect.read_facts(host, "x86_64")
    detect.check(facts, "lazy", {"amd64": "0" * 64})
    text = containerd_config.decode(host.read(facts.config_path), facts.config_path)
    containerd_config.schema_of(text, facts.config_path, facts.containerd_version[0])
    return facts


def _os(identity: str, version: str = "", *more: str) -> str:
    return "\n".join((f"ID={identity}", f'VERSION_ID="{version}"', *more, ""))


def _text(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def _lab(name: str) -> str:
    return (LAB / name).read_text().replace("@REGISTRY@", "example.org").replace("@PAUSE@", "3.10")


# --- Azure ------------------------------------------------------------------------------------------------

AGENT_BAKER = "https://github.com/Azure/AgentBaker/blob/06836ee2301e"
AKS_SOURCES = (
    f"{AGENT_BAKER}/aks-node-controller/parser/templates/containerd_v2_no_GPU.toml.gtpl",
    f"{AGENT_BAKER}/parts/linux/cloud-init/artifacts/cse_config.sh",
    f"{AGENT_BAKER}/parts/linux/cloud-init/artifacts/kubelet.service",
    f"{AGENT_BAKER}/parts/common/components.json",
)
AKS_1 = _text("""
    version = 2
    oom_score = -999
    [plugins."io.containerd.grpc.v1.cri"]
      sandbox_image = "mcr.microsoft.com/oss/v2/kubernetes/pause:3.10.2"
      [plugins."io.containerd.grpc.v1.cri".containerd]
        default_runtime_name = "runc"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          BinaryName = "/usr/bin/runc"
          SystemdCgroup = true
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted]
          runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untrusted.options]
          BinaryName = "/usr/bin/runc"
      [plugins."io.containerd.grpc.v1.cri".registry]
        config_path = "/etc/containerd/certs.d"
      [plugins."io.containerd.grpc.v1.cri".registry.headers]
        X-Meta-Source-Client = ["azure/aks"]
    [metrics]
      address = "0.0.0.0:10257"
""")
# containerd 2 with the tables of schema 3 in a file that says it is of schema 2.
AKS_2 = _text("""
    version = 2
    oom_score = -999
    [plugins."io.containerd.cri.v1.images"]
      [plugins."io.containerd.cri.v1.images".pinned_images]
        sandbox = "mcr.microsoft.com/oss/v2/kubernetes/pause:3.10.2"
      [plugins."io.containerd.cri.v1.images".registry]
        config_path = "/etc/containerd/certs.d"
      [plugins."io.containerd.cri.v1.images".registry.headers]
        X-Meta-Source-Client = ["azure/aks"]
    [plugins."io.containerd.cri.v1.runtime".containerd]
      default_runtime_name = "runc"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "/usr/bin/runc"
        SystemdCgroup = true
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.untrusted]
        runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.untrusted.options]
        BinaryName = "/usr/bin/runc"
    [metrics]
      address = "0.0.0.0:10257"
""")
AKS_2_NVIDIA = AKS_2.replace(
    'default_runtime_name = "runc"', 'default_runtime_name = "nvidia-container-runtime"'
)
AKS_2_NVIDIA += _text("""
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia-container-runtime]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia-container-runtime.options]
      BinaryName = "/usr/bin/nvidia-container-runtime"
      SystemdCgroup = true
""")
AKS_STREAMING = AKS_2.replace(
    '[plugins."io.containerd.cri.v1.images"]\n',
    '[plugins."io.containerd.cri.v1.images"]\n'
    '  snapshotter = "overlaybd"\n  disable_snapshot_annotations = false\n',
)
AKS_STREAMING += _text("""
    [proxy_plugins]
      [proxy_plugins.overlaybd]
        type = "snapshot"
        address = "/run/overlaybd-snapshotter/overlaybd.sock"
""")
AKS_KUBELET = (
    "/opt/bin/kubelet",
    "--enable-server",
    "--config",
    "/etc/default/kubeletconfig.json",
    "--runtime-request-timeout=15m",
    f"--container-runtime-endpoint={SOCKET}",
    "--runtime-cgroups=/system.slice/containerd.service",
)
AKS_KUBELET_FILES = {
    "/etc/default/kubeletconfig.json": '{"kind": "KubeletConfiguration", '
    '"apiVersion": "kubelet.config.k8s.io/v1beta1", "cgroupDriver": "systemd"}\n'
}
ACR_REGISTRIES = tuple(
    f"{prefix}azurecr.{end}" for prefix in ("*.", "*.*.geo.") for end in ("io", "cn", "de", "us")
)


def _acr(images: Sequence[str] = (), arguments: Sequence[str] = (), token: str = "") -> CredentialProvider:
    """AKS's own; ``images`` and ``arguments`` of an isolated cluster, ``token`` of identity binding."""
    match = "".join(f'      - "{image}"\n' for image in (*ACR_REGISTRIES, *images))
    args = "".join(f"      - {argument}\n" for argument in ("/etc/kubernetes/azure.json", *arguments))
    text = (
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
        f"  - name: acr-credential-provider\n    matchImages:\n{match}"
        f'    defaultCacheDuration: "10m"\n    apiVersion: {PROVIDER_API}\n{token}    args:\n{args}'
    )
    folder = "/var/lib/kubelet/credential-provider"
    return CredentialProvider(
        "/var/lib/kubelet/credential-provider-config.yaml", folder, text, ("acr-credential-provider",)
    )


ACR = _acr()
ACR_MIRROR = _acr(["mcr.microsoft.com"], ["--registry-mirror=mcr.microsoft.com:example.azurecr.io"])
# The plugin then needs a token of the pod's service account, which only the kubelet has (KEP-4412).
ACR_IDENTITY_BINDING = _acr(
    arguments=["--ib-sni-name=binding.example.org", "--ib-apiserver-ip=10.0.0.1"],
    token=(
        "    tokenAttributes:\n"
        "      serviceAccountTokenAudience: api://AKSIdentityBinding\n"
        "      requireServiceAccount: false\n"
        "      cacheType: ServiceAccount\n"
        "      optionalServiceAccountAnnotationKeys:\n"
        "        - kubernetes.azure.com/acr-client-id\n"
    ),
)

# --- Flatcar ----------------------------------------------------------------------------------------------

FLATCAR_SOURCES = (
    "https://github.com/flatcar/scripts/tree/ab6d76d957b8/sdk_container/src/"
    "third_party/coreos-overlay/coreos/sysext/containerd/usr",
)
FLATCAR_CONFIG = _text("""
    version = 2
    root = "/var/lib/containerd"
    state = "/run/containerd"
    subreaper = true
    oom_score = -999
    disabled_plugins = []
    [grpc]
    address = "/run/containerd/containerd.sock"
    uid = 0
    gid = 0
    [plugins."io.containerd.runtime.v1.linux"]
    shim = "containerd-shim"
    runtime = "runc"
    no_shim = false
    [plugins."io.containerd.grpc.v1.cri"]
    enable_selinux = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
""")
FLATCAR_COMMAND = ("/usr/bin/containerd", "--config", "${CONTAINERD_CONFIG}")
FLATCAR_DEFAULT = "/usr/share/containerd/config.toml"
KUBEADM_KUBELET = (
    "/usr/bin/kubelet",
    "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
    "--kubeconfig=/etc/kubernetes/kubelet.conf",
    "--config=/var/lib/kubelet/config.yaml",
)
KUBEADM_FILES = {
    "/var/lib/kubelet/config.yaml": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
    f"cgroupDriver: systemd\ncontainerRuntimeEndpoint: {SOCKET}\n"
}

# --- kubeadm ----------------------------------------------------------------------------------------------

IMAGE_BUILDER = "https://github.com/kubernetes-sigs/image-builder/tree/ae63061efb15/images/capi/ansible/roles"
CAPI_CONFIG = _text("""
    version = 3
    imports = ["/etc/containerd/conf.d/*.toml"]
    [plugins]
      [plugins.'io.containerd.cri.v1.images'.pinned_images]
        sandbox = "registry.k8s.io/pause:3.10.1"
      [plugins.'io.containerd.cri.v1.images'.registry]
        config_path = '/etc/containerd/certs.d'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
        runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = true
""")
CAPI_ECR = CredentialProvider(
    "/var/usr/ecr-credential-provider/ecr-credential-provider-config",
    "/opt/bin",
    _text(f"""
        apiVersion: kubelet.config.k8s.io/v1
        kind: CredentialProviderConfig
        providers:
          - name: ecr-credential-provider
            matchImages: ["*.dkr.ecr.*.amazonaws.com", "public.ecr.aws"]
            defaultCacheDuration: "12h"
            apiVersion: {PROVIDER_API}
            env:
              - name: AWS_PROFILE
                value: "default"
    """),
    ("ecr-credential-provider",),
)
# Read in the package of Debian 12, containerd 1.6.20~ds1-1+deb12u3.
DEBIAN_CONFIG = _text("""
    version = 2

    [plugins]
      [plugins."io.containerd.grpc.v1.cri"]
        [plugins."io.containerd.grpc.v1.cri".cni]
          bin_dir = "/usr/lib/cni"
          conf_dir = "/etc/cni/net.d"
      [plugins."io.containerd.internal.v1.opt"]
        path = "/var/lib/containerd/opt"
""")
DEBIAN_SOURCES = ("https://packages.debian.org/bookworm/containerd",)

# --- Amazon, Google, Oracle -------------------------------------------------------------------------------

EKS_ECR = CredentialProvider(
    "/etc/eks/image-credential-provider/config.json",
    "/etc/eks/image-credential-provider",
    _text("""
        {
          "apiVersion": "kubelet.config.k8s.io/v1",
          "kind": "CredentialProviderConfig",
          "providers": [
            {
              "name": "ecr-credential-provider",
              "matchImages": ["*.dkr.ecr.*.amazonaws.com", "*.dkr-ecr.*.on.aws", "public.ecr.aws"],
              "defaultCacheDuration": "12h0m0s",
              "apiVersion": "credentialprovider.kubelet.k8s.io/v1"
            }
          ]
        }
    """),
    ("ecr-credential-provider",),
)
GKE_GCR = CredentialProvider(
    "/etc/srv/kubernetes/cri_auth_config.yaml",
    "/home/kubernetes/bin",
    _text(f"""
        kind: CredentialProviderConfig
        apiVersion: kubelet.config.k8s.io/v1
        providers:
          - name: auth-provider-gcp
            apiVersion: {PROVIDER_API}
            matchImages:
            - "container.cloud.google.com"
            - "gcr.io"
            - "*.gcr.io"
            - "*.pkg.dev"
            args:
            - get-credentials
            - --v=3
            defaultCacheDuration: 1m
    """),
    ("auth-provider-gcp",),
)
GKE_SOURCES = (
    "https://github.com/kubernetes/kubernetes/blob/3f6ebef96a18/cluster/gce/gci/node.yaml",
    "https://cloud.google.com/kubernetes-engine/docs/how-to/customize-containerd-configuration",
)
# Not on OKE by itself: its users put it there. The environment has a boolean where Kubernetes wants text.
OKE_OCIR = CredentialProvider(
    "/etc/kubernetes/credential-provider-config.yaml",
    "/usr/local/bin/",
    _text(f"""
        apiVersion: kubelet.config.k8s.io/v1
        kind: CredentialProviderConfig
        providers:
        - name: credential-provider-oke
          apiVersion: {PROVIDER_API}
          matchImages:
          - "*.ocir.io"
          defaultCacheDuration: 55m
          env:
          - name: REGISTRY_TOKEN_PATH
            value: /20180419/docker/token
          - name: OCIR_AUTH_METHOD
            value: INSTANCE_PRINCIPAL
          - name: VERIFY_TOKEN_AUTH
            value: false
    """),
    ("credential-provider-oke",),
)

# --- the lab ----------------------------------------------------------------------------------------------

LAB_KUBELET = ("/usr/lib/kubernetes/kubelet", "--config=/var/lib/kubelet/config.yaml")
LAB_SOURCES: tuple[str, ...] = ("scripts/lab/node",)

# --- distributions with a containerd of their own -----------------------------------------------------------

K3S_CONFIG = _text("""
    version = 3
    root = "/var/lib/rancher/{0}/agent/containerd"
    state = "/run/k3s/containerd"
    imports = ["/var/lib/rancher/{0}/agent/etc/containerd/config-v3.toml.d/*.toml"]
    [grpc]
      address = "/run/k3s/containerd/containerd.sock"
    [plugins.'io.containerd.internal.v1.opt']
      path = "/var/lib/rancher/{0}/agent/containerd"
    [plugins.'io.containerd.cri.v1.images']
      snapshotter = "overlayfs"
      disable_snapshot_annotations = true
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = "rancher/mirrored-pause:3.6"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = true
""")
K3S_PROVIDER = CredentialProvider(
    "/var/lib/rancher/credentialprovider/config.yaml",
    "/var/lib/rancher/credentialprovider/bin",
    CAPI_ECR.text,
    ("ecr-credential-provider",),
)
K3S_SOURCES = (
    "https://github.com/k3s-io/k3s/blob/main/pkg/agent/templates/templates.go",
    "https://docs.k3s.io/advanced#configuring-containerd",
    "https://docs.k3s.io/cli/agent",
)
K0S = "https://github.com/k0sproject/k0s/blob/dff90cee9a6e"
K0S_CONFIG = _text("""
    # k0s_managed=true
    imports = ["/etc/k0s/containerd.d/*.toml"]
    version = 3
    [plugins]
      [plugins."io.containerd.cri.v1.images"]
        [plugins."io.containerd.cri.v1.images".pinned_images]
          sandbox = "registry.k8s.io/pause:3.10.1"
""")
MICROK8S = "https://github.com/canonical/microk8s/blob/d099c907d364"
MICROK8S_CONFIG = _text("""
    version = 2
    oom_score = 0
    [grpc]
      uid = 0
      gid = 0
    [metrics]
      address = "127.0.0.1:1338"
    [plugins."io.containerd.grpc.v1.cri"]
      stream_server_address = "127.0.0.1"
      stream_server_port = "0"
      sandbox_image = "registry.k8s.io/pause:3.10"
      [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "overlayfs"
        default_runtime_name = "runc"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".cni]
        bin_dir = "/var/snap/microk8s/8000/opt/cni/bin"
        conf_dir = "/var/snap/microk8s/8000/args/cni-network"
      [plugins."io.containerd.grpc.v1.cri".registry]
        config_path = "/var/snap/microk8s/8000/args/certs.d"
""")
TALOS = "https://github.com/siderolabs/talos/blob/ad8823176e75"

NODES = (
    CloudNode(
        name="Debian with containerd 1.7 (the lab)",
        os_release=_os("debian", "12"),
        series="1.7",
        command=("/usr/local/bin/containerd",),
        config=_lab("containerd-1.toml"),
        files=KUBEADM_FILES,
        kubelet=LAB_KUBELET,
        in_lab=True,
        sources=LAB_SOURCES,
    ),
    CloudNode(
        name="Debian with containerd 2.3 (the lab)",
        os_release=_os("debian", "12"),
        series="2.3",
        command=("/usr/local/bin/containerd",),
        config=_lab("containerd-2.toml"),
        files=KUBEADM_FILES,
        kubelet=LAB_KUBELET,
        in_lab=True,
        sources=LAB_SOURCES,
    ),
    CloudNode(
        name="EKS, Amazon Linux 2023",
        kind="Amazon Linux 2023 on EKS",
        os_release=_os("amzn", "2023"),
        series="2.2",
        config=configurations.nodeadm(3)["config.toml"],
        files={"/etc/eks/x": "", "/usr/bin/nodeadm": ""},
        kubelet=("/usr/bin/kubelet", f"--container-runtime-endpoint={SOCKET}"),
        provider=EKS_ECR,
        sources=("https://github.com/awslabs/amazon-eks-ami/tree/main/nodeadm",),
    ),
    CloudNode(
        name="EKS, Bottlerocket (EKS Auto Mode, too)",
        kind="Bottlerocket",
        os_release=_os("bottlerocket", "1.50.0"),
        config_path="",
        unit="containerd.service",
        read_only=("/",),
        refusal="Bottlerocket's root is read-only",
        sources=("https://github.com/bottlerocket-os/bottlerocket-core-kit/pull/576",),
    ),
    CloudNode(
        name="AKS, Ubuntu 22.04",
        os_release=_os("ubuntu", "22.04"),
        series="1.7",
        config=AKS_1,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR,
        sources=(AKS_SOURCES[0].replace("_v2", ""), *AKS_SOURCES[1:]),
    ),
    CloudNode(
        name="AKS, Ubuntu 24.04",
        os_release=_os("ubuntu", "24.04"),
        series="2.3",
        config=AKS_2,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR_IDENTITY_BINDING,
        sources=AKS_SOURCES,
    ),
    CloudNode(
        name="AKS, Ubuntu 24.04 with NVIDIA GPU",
        os_release=_os("ubuntu", "24.04"),
        series="2.3",
        config=AKS_2_NVIDIA,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR,
        sources=(AKS_SOURCES[0].replace("_no_GPU", ""), *AKS_SOURCES[1:]),
    ),
    CloudNode(
        name="AKS, Ubuntu 24.04 with Artifact Streaming",
        os_release=_os("ubuntu", "24.04"),
        series="2.3",
        config=AKS_STREAMING,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR,
        note="refused when images are on the node that only overlaybd has: fresh nodes, or a pool without it",
        sources=AKS_SOURCES,
    ),
    CloudNode(
        name="AKS, Azure Linux 3",
        os_release=_os("azurelinux", "3.0"),
        series="2.2",
        config=AKS_2,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR_MIRROR,
        sources=(*AKS_SOURCES, f"{AGENT_BAKER}/parts/linux/cloud-init/artifacts/containerd.service"),
    ),
    CloudNode(
        name="AKS, Flatcar and Azure Container Linux",
        os_release=_os("flatcar", "4593.0.0"),
        series="2.2",
        command=FLATCAR_COMMAND,
        running=("/usr/bin/containerd", "--config", CONFIG),
        config=AKS_2,
        files=AKS_KUBELET_FILES,
        kubelet=AKS_KUBELET,
        provider=ACR,
        read_only=("/usr",),
        sources=(*AKS_SOURCES, f"{AGENT_BAKER}/vhdbuilder/packer/flatcar-customdata.yaml"),
    ),
    CloudNode(
        name="GKE, Container-Optimized OS",
        kind="Google Kubernetes Engine",
        os_release=_os("cos", "121"),
        config_path="",
        kubelet=("/home/kubernetes/bin/kubelet", f"--container-runtime-endpoint={SOCKET}"),
        provider=GKE_GCR,
        read_only=("/",),
        refusal="GKE writes containerd's configuration anew at each boot",
        sources=GKE_SOURCES,
    ),
    CloudNode(
        name="GKE, Ubuntu",
        kind="Google Kubernetes Engine",
        os_release=_os("ubuntu", "24.04"),
        config_path="",
        files={"/etc/systemd/system/kube-node-configuration.service": "[Service]\n"},
        kubelet=("/home/kubernetes/bin/kubelet", f"--container-runtime-endpoint={SOCKET}"),
        provider=GKE_GCR,
        refusal="GKE writes containerd's configuration anew at each boot",
        sources=GKE_SOURCES,
    ),
    CloudNode(
        name="OKE (Oracle)",
        os_release=_os("ol", "8.10"),
        command=(),
        config_path="",
        kubelet=("/usr/bin/kubelet", "--container-runtime-endpoint=unix:///var/run/crio/crio.sock"),
        provider=OKE_OCIR,
        refusal="there is no containerd.service; the kubelet uses /var/run/crio/crio.sock",
        note="the credential provider is the one that users add",
        sources=(
            "https://docs.oracle.com/en-us/iaas/Content/ContEng/Concepts/contengaboutk8sversions.htm",
            "https://github.com/DataDog/documentation/pull/24427",
            "https://github.com/oracle-devrel/oke-credential-provider-for-ocir",
        ),
    ),
    CloudNode(
        name="kubeadm, Debian's containerd package from 1.7.16 on",
        os_release=_os("debian", "13"),
        series="1.7",
        config=DEBIAN_CONFIG,
        files=KUBEADM_FILES,
        kubelet=KUBEADM_KUBELET,
        sources=DEBIAN_SOURCES,
    ),
    CloudNode(
        name="kubeadm, Debian 12's own containerd package",
        os_release=_os("debian", "12"),
        series="1.6",
        version="1.6.20~ds1",
        config=DEBIAN_CONFIG,
        files=KUBEADM_FILES,
        kubelet=KUBEADM_KUBELET,
        refusal="containerd is 1.6.20, older than 1.7.16",
        sources=DEBIAN_SOURCES,
    ),
    CloudNode(
        name="Docker's containerd.io package, its file as it came",
        os_release=_os("ubuntu", "24.04"),
        series="1.7",
        config='disabled_plugins = ["cri"]\n',
        files=KUBEADM_FILES,
        kubelet=KUBEADM_KUBELET,
        refusal="is in schema 1",
        note="no kubelet can use it either before it has a file such as `containerd config default` prints",
        sources=("https://kubernetes.io/docs/setup/production-environment/container-runtimes/",),
    ),
    CloudNode(
        name="Cluster API (image-builder), Ubuntu",
        os_release=_os("ubuntu", "24.04"),
        series="2.3",
        command=("/usr/local/bin/containerd",),
        config=CAPI_CONFIG,
        files=KUBEADM_FILES,
        kubelet=KUBEADM_KUBELET,
        provider=CAPI_ECR,
        note="the credential provider where the image was built with it",
        sources=(f"{IMAGE_BUILDER}/containerd", f"{IMAGE_BUILDER}/ecr_credential_provider"),
    ),
    CloudNode(
        name="Cluster API (image-builder), Flatcar",
        os_release=_os("flatcar", "4593.0.0"),
        series="2.3",
        command=("/opt/bin/containerd", "--config", CONFIG),
        config=CAPI_CONFIG,
        files=KUBEADM_FILES,
        kubelet=("/opt/bin/kubelet", *KUBEADM_KUBELET[1:]),
        provider=CAPI_ECR,
        read_only=("/usr",),
        sources=(f"{IMAGE_BUILDER}/containerd/templates/etc/systemd/system/containerd-flatcar.conf",),
    ),
    CloudNode(
        name="Flatcar, containerd's file named in /etc",
        os_release=_os("flatcar", "4593.0.0"),
        series="2.3",
        command=FLATCAR_COMMAND,
        running=("/usr/bin/containerd", "--config", CONFIG),
        config=FLATCAR_CONFIG,
        files=KUBEADM_FILES,
        kubelet=("/opt/bin/kubelet", *KUBEADM_KUBELET[1:]),
        read_only=("/usr",),
        note="its containerd asks for SELinux labels; SELinux in enforcing mode was not tried",
        sources=FLATCAR_SOURCES,
    ),
    CloudNode(
        name="Flatcar as it came",
        os_release=_os("flatcar", "4593.0.0"),
        series="2.3",
        command=FLATCAR_COMMAND,
        running=("/usr/bin/containerd", "--config", FLATCAR_DEFAULT),
        config_path=FLATCAR_DEFAULT,
        config=FLATCAR_CONFIG,
        files=KUBEADM_FILES,
        kubelet=("/opt/bin/kubelet", *KUBEADM_KUBELET[1:]),
        read_only=("/usr",),
        refusal="/usr/share/containerd is mounted read-only (flatcar)",
        sources=FLATCAR_SOURCES,
    ),
    CloudNode(
        name="Talos",
        kind="Talos",
        os_release=_os("talos", "v1.14.0"),
        init="init",
        command=(),
        config_path="/etc/cri/containerd.toml",
        config='version = 3\nimports = ["/etc/cri/conf.d/cri.toml"]\n',
        read_only=("/",),
        refusal="Talos has no systemd",
        sources=(
            f"{TALOS}/hack/cri-containerd.toml",
            f"{TALOS}/pkg/machinery/constants/constants.go",
            f"{TALOS}/internal/app/machined/pkg/controllers/k8s/kubelet_spec.go",
        ),
    ),
    CloudNode(
        name="k3s",
        kind="k3s",
        os_release=_os("ubuntu", "24.04"),
        unit="k3s.service",
        command=("/usr/local/bin/k3s", "server"),
        config_path="/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        config=K3S_CONFIG.format("k3s"),
        refusal="k3s brings its own containerd",
        sources=K3S_SOURCES,
    ),
    CloudNode(
        name="RKE2",
        kind="rke2",
        os_release=_os("sles", "15.6"),
        unit="rke2-agent.service",
        command=("/usr/local/bin/rke2", "agent"),
        config_path="/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        config=K3S_CONFIG.format("rke2"),
        kubelet=(
            "/var/lib/rancher/rke2/bin/kubelet",
            "--container-runtime-endpoint=unix:///run/k3s/containerd/containerd.sock",
        ),
        kubelet_unit="rke2-agent.service",
        provider=K3S_PROVIDER,
        refusal="rke2 brings its own containerd",
        note="the credential provider where its folder and file were made",
        sources=(K3S_SOURCES[0], "https://docs.rke2.io/advanced#configuring-containerd"),
    ),
    CloudNode(
        name="k0s",
        kind="k0s",
        os_release=_os("debian", "13"),
        unit="k0sworker.service",
        command=("/usr/local/bin/k0s", "worker"),
        config_path="/etc/k0s/containerd.toml",
        config=K0S_CONFIG,
        kubelet=("/var/lib/k0s/bin/kubelet", "--config=/run/k0s/kubelet-config.yaml"),
        kubelet_unit="k0sworker.service",
        files={"/run/k0s/kubelet-config.yaml": "containerRuntimeEndpoint: unix:///run/k0s/containerd.sock\n"},
        refusal="k0s brings its own containerd",
        sources=(f"{K0S}/docs/runtime.md", f"{K0S}/pkg/component/worker/containerd/component.go"),
    ),
    CloudNode(
        name="MicroK8s",
        kind="MicroK8s",
        os_release=_os("ubuntu", "24.04"),
        unit="snap.microk8s.daemon-containerd.service",
        command=("/usr/bin/snap", "run", "microk8s.daemon-containerd"),
        running=(
            "/snap/microk8s/8000/bin/containerd",
            "--config",
            "/var/snap/microk8s/8000/args/containerd.toml",
            "--root",
            "/var/snap/microk8s/common/var/lib/containerd",
        ),
        config_path="/var/snap/microk8s/8000/args/containerd.toml",
        config=MICROK8S_CONFIG,
        files={"/etc/systemd/system/snap.microk8s.daemon-containerd.service": "[Service]\n"},
        refusal="MicroK8s writes containerd's configuration anew at each start of it",
        sources=(
            f"{MICROK8S}/microk8s-resources/wrappers/run-containerd-with-args",
            f"{MICROK8S}/microk8s-resources/default-args/containerd-template.toml",
        ),
    ),
)


def node_named(name: str) -> CloudNode:
    """The node of that name."""
    return next(node for node in NODES if node.name == name)


UNPUBLISHED = (
    UnpublishedNode(
        name="DigitalOcean (DOKS)",
        known="Debian, with containerd since 1.20.2-do.0",
        sources=("https://github.com/digitalocean/doks-debug/pull/28",),
    ),
    UnpublishedNode(
        name="Linode (LKE)",
        known="nothing but Kubernetes and kernel versions in its release notes",
        sources=("https://github.com/linode/docs/pull/6859",),
    ),
    UnpublishedNode(
        name="EKS, Ubuntu's image",
        known="the kubelet is a snap, `kubelet-eks`, by whose unit it is recognized",
        sources=("https://github.com/nestybox/sysbox/issues/430",),
    ),
)
