"""The two places on a node where a SOCI daemon can run.

One slot is in use: containerd's effective ``snapshotter`` names it. The other one is empty, or holds an
earlier daemon that still serves the containers which were created under it. The host script has the same
names, see ``slot`` there.
"""

from dataclasses import dataclass

OUR_MARK = "# Written by SociCluster"  # the first words of each text file that is ours alone, outside of /opt


@dataclass(frozen=True)
class Slot:
    """Everything that a daemon has for itself; ``name`` is its proxy plugin, thus its snapshotter's name."""

    name: str

    @property
    def suffix(self) -> str:
        return self.name.removeprefix("soci")

    @property
    def unit(self) -> str:
        return f"soci-snapshotter{self.suffix}.service"

    @property
    def unit_path(self) -> str:
        return f"/etc/systemd/system/{self.unit}"

    @property
    def adoption(self) -> str:
        """The drop-in by which a unit of the operating system is adopted."""
        return f"{self.unit_path}.d/50-soci-cluster.conf"

    @property
    def configuration(self) -> str:
        """The directory of what the daemon reads."""
        return f"/etc/soci-snapshotter-grpc{self.suffix}"

    @property
    def config(self) -> str:
        return f"{self.configuration}/config.toml"

    @property
    def environment(self) -> str:
        """The file with the daemon's environment, where it has one of its own."""
        return f"{self.configuration}/environment"

    @property
    def certificates(self) -> str:
        """The directory of CAs that the daemon trusts besides the system's."""
        return f"{self.configuration}/certificates"

    @property
    def socket(self) -> str:
        return f"/run/soci-snapshotter-grpc{self.suffix}/soci-snapshotter-grpc.sock"

    @property
    def metrics(self) -> str:
        """The socket on which the daemon tells its metrics."""
        return f"/run/soci-snapshotter-grpc{self.suffix}/metrics.sock"

    @property
    def data(self) -> str:
        return f"/var/lib/soci-snapshotter-grpc{self.suffix}"

    @property
    def span_cache(self) -> str:
        """The directory of the spans that the daemon fetched (soci-snapshotter, fs/layer/layer.go)."""
        return f"{self.data}/soci/spancache"

    @property
    def other(self) -> "Slot":
        return SECOND if self == FIRST else FIRST


FIRST = Slot("soci")
SECOND = Slot("soci-b")


def in_use(snapshotter: object) -> Slot:
    """The slot of containerd's effective snapshotter; the first one as long as that is another's."""
    return SECOND if snapshotter == SECOND.name else FIRST
