"""containerd's own client on the node."""

from dataclasses import dataclass

from .errors import InstallError
from .host import Host, Result


@dataclass(frozen=True)
class Image:
    """One name in containerd's image store."""

    digest: str
    is_complete: bool  # every blob is in the content store
    is_unpacked: bool  # for the snapshotter that was asked about


@dataclass(frozen=True)
class Ctr:
    """ctr on the host, at the node's containerd, whose own directory is ``root``."""

    host: Host
    address: str
    search_path: str
    root: str = "/var/lib/containerd"

    def run(self, *arguments: str, timeout: float = 60) -> str:
        """Run ctr in the kubelet's namespace; its output, empty when it failed."""
        result = self._run(*arguments, timeout=timeout)
        return result.output if result.code == 0 else ""

    def ask(self, *arguments: str, timeout: float = 60) -> str:
        """The output of ctr in the kubelet's namespace.

        Raises:
            InstallError: it failed, which is no answer.
        """
        result = self._run(*arguments, timeout=timeout)
        if result.code != 0:
            raise InstallError(
                "preflight", f"ctr {' '.join(arguments[:2])}: {result.last_error}", "repair containerd"
            )
        return result.output

    def succeeds(self, *arguments: str, timeout: float = 60) -> bool:
        """Run ctr in the kubelet's namespace; whether it succeeded."""
        return self._run(*arguments, timeout=timeout).code == 0

    def images(self, snapshotter: str) -> dict[str, Image]:
        """Every image by name. One that cannot be checked is an incomplete one and hides no other.

        Raises:
            InstallError: containerd lists nothing at all.
        """
        result = self._run("images", "check", "--snapshotter", snapshotter)
        found = parse_check(result.output)
        if result.code != 0 and not found:
            raise InstallError(
                "images", f"ctr images check: {result.error.strip()[-200:]}", "repair containerd"
            )
        return found

    def _run(self, *arguments: str, timeout: float = 60) -> Result:
        environment = ("env", f"PATH={self.search_path}", f"CONTAINERD_ADDRESS={self.address}")
        return self.host.run(*environment, "ctr", "--namespace", "k8s.io", *arguments, timeout=timeout)


def parse_check(output: str) -> dict[str, Image]:
    """Image name to its state, from ``ctr images check``."""
    lines = [line.split() for line in output.splitlines()]
    return {
        words[0]: Image(words[2], "complete" in words[3:], words[-1] == "true")
        for words in lines
        if len(words) > 3 and words[0] != "REF"
    }
