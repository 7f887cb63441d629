"""The node's images at a switch of the snapshotter: the sandbox image has to start under the new one.

The kubelet takes an image for present although its layers are unpacked for the old snapshotter only.
containerd then unpacks them again from its content store, unless they were discarded or never loaded into it:
those images the host script lets containerd forget, so that the kubelet pulls them again.
"""

from dataclasses import dataclass

from .errors import InstallError
from .host import Host

EKS_PAUSE_ARCHIVE = "/etc/eks/pause.tar"


@dataclass(frozen=True)
class Ctr:
    """containerd's own client on the host, at the socket of the node's containerd."""

    host: Host
    address: str
    search_path: str

    def run(self, *arguments: str, timeout: float = 60) -> str:
        """Run ctr in the kubelet's namespace; its output, empty when it failed."""
        result = self._run(*arguments, timeout=timeout)
        return result.output if result.code == 0 else ""

    def succeeds(self, *arguments: str, timeout: float = 60) -> bool:
        """Run ctr in the kubelet's namespace; whether it succeeded."""
        return self._run(*arguments, timeout=timeout).code == 0

    def _run(self, *arguments: str, timeout: float):
        environment = ("env", f"PATH={self.search_path}", f"CONTAINERD_ADDRESS={self.address}")
        return self.host.run(*environment, "ctr", "--namespace", "k8s.io", *arguments, timeout=timeout)


@dataclass(frozen=True)
class ImagePlan:
    """What the switch does about images."""

    pause: str
    pause_archive: str = ""


def parse_check(output: str) -> dict[str, bool]:
    """Image name to whether its content is complete, from ``ctr images check``."""
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: "complete" in words[3:] for words in lines if len(words) > 3 and words[0] != "REF"}


def with_tag(image: str) -> str:
    """The name under which containerd stores an image: with its tag, even if the configuration has none."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else image + ":latest"


def plan(ctr: Ctr, pause: str, registry_directories: list[str], is_switch: bool) -> ImagePlan:
    """Make sure that the sandbox image can be unpacked for another snapshotter.

    Raises:
        InstallError: the sandbox image's content is nowhere to be had; no pod could start after the switch.
    """
    name = with_tag(pause)
    if not is_switch or parse_check(ctr.run("images", "check")).get(name):
        return ImagePlan(name)
    if ctr.host.exists(EKS_PAUSE_ARCHIVE):
        return ImagePlan(name, EKS_PAUSE_ARCHIVE)
    hosts = ("--hosts-dir", registry_directories[0]) if registry_directories else ()
    if not ctr.succeeds("content", "fetch", *hosts, name, timeout=120):
        raise InstallError(
            "pause-image",
            f"the content of the sandbox image {name} is neither on the node nor to be fetched",
            "make the image reachable without credentials, or discard_unpacked_layers = false on new nodes",
        )
    ctr.run("images", "label", name, "io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned")
    return ImagePlan(name)


def workload_containers(ctr: Ctr, own_namespace: str) -> list[str]:
    """Running containers of pods that are neither the cluster's own nor the installer's."""
    label = 'labels."io.kubernetes.pod.namespace"'
    is_container = 'labels."io.cri-containerd.kind"==container'  # a pod's sandbox is one, too, for containerd
    query = ",".join([is_container, label, f"{label}!=kube-system", f"{label}!={own_namespace}"])
    of_workloads = set(ctr.run("containers", "ls", "-q", query).split())
    if not of_workloads:
        return []
    tasks = [line.split() for line in ctr.run("tasks", "ls").splitlines()]
    running = {words[0] for words in tasks if words and words[-1] == "RUNNING"}
    return sorted(of_workloads & running)
