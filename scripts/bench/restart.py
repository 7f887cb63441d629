"""What an install costs a node: containerd's downtime and the whole time, beside what cannot be avoided.

On fresh nodes of the running lab, in turn: a bare restart of containerd, the parts that no installer can
leave out (copy, start of the daemon), our install, and a blind one (converged-computing/soci-installer).
Then the restarts that must not be. Prints medians and ratios, and writes .lab/restart.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

from lab_agent import RELEASES, VERSION, VERSIONS, AgentNode
from lab_client import LAB_DIRECTORY, lab

DOWNTIME_TARGET, INSTALL_TARGET = 2.5, 4.0
RUNS_WITHOUT_CHANGE, REBOOTS = 10, 2
ARCHIVE = f"soci-snapshotter-{VERSION}-linux-amd64-static.tar.gz"
SOCKET = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"

# As the host script measures it: from the begin of the restart until the CRI plugin says ok, in 10 ms steps.
MEASURED_RESTART = """
now() { read -r uptime _ </proc/uptime; echo "${uptime%.*}${uptime#*.}"; }
answers() { ctr plugins ls 2>/dev/null | awk '
  $1 == "io.containerd.grpc.v1" && $2 == "cri" || $1 == "io.containerd.cri.v1" { seen++; bad += $NF != "ok" }
  END { exit !seen || bad }'; }
begin=$(now)
systemctl restart containerd.service
until answers; do sleep 0.1; done
echo $(($(now) - begin))
"""
COPY = f"""
cd /tmp
curl -sSfO {RELEASES}/v{VERSION}/{ARCHIVE}
tar -xzf {ARCHIVE} -C /usr/local/bin soci-snapshotter-grpc soci
"""
START = f"""
cat >/etc/systemd/system/soci-snapshotter.service <<'END'
[Unit]
Before=containerd.service
[Service]
Type=notify
ExecStart=/usr/local/bin/soci-snapshotter-grpc
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now soci-snapshotter.service 2>/dev/null
test -S {SOCKET}
"""
# The keys go into the table of the node's own schema, unlike that installer, which knew schema 2 only.
EDIT = """
sed -i "/^ *\\[plugins.*{table}\\]$/a snapshotter = 'soci'\\ndisable_snapshot_annotations = false" {config}
cat >>{config} <<'END'
[proxy_plugins.soci]
type = "snapshot"
address = "{socket}"
END
"""
CONFIG = "/etc/containerd/config.toml"
MARK = "touch /opt/installed\nsleep 5\n"


def seconds(action: Callable[[], object]) -> float:
    """Wall time of the action."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def measured_restart(node: AgentNode) -> float:
    """Restart containerd; seconds until its CRI answers again."""
    return int(node.sh(MEASURED_RESTART).split()[-1]) / 100


def bare(node: AgentNode, containerd: str) -> dict[str, float]:
    """The unavoidable parts, each by itself, on a node that stays without SOCI."""
    parts = {"bare_restart": measured_restart(node)}
    parts["copy"] = seconds(
        lambda: node.sh(COPY + "sync /usr/local/bin/soci /usr/local/bin/soci-snapshotter-grpc")
    )
    parts["daemon_start"] = seconds(lambda: node.sh(START))
    return parts


def ours(node: AgentNode, containerd: str) -> dict[str, float]:
    begin = time.monotonic()
    done = node.install()
    return {
        "install": time.monotonic() - begin,
        "downtime": done.containerd_down_seconds,
        "restarts": done.containerd_restarts,
    }


def blind(node: AgentNode, containerd: str) -> dict[str, float]:
    """Download unchecked, unpack, edit blindly, mark as done, wait, restart; without its pip and yum."""
    table = "containerd" if containerd.startswith("1.") else "images'"
    edit = EDIT.format(table=table, config=CONFIG, socket=SOCKET)
    begin = time.monotonic()
    node.sh(COPY + START + edit + MARK)
    return {"blind_downtime": measured_restart(node), "blind_install": time.monotonic() - begin}


ARMS = (bare, ours, blind)


def with_fresh_node(containerd: str, action: Callable[[AgentNode], dict[str, float]]) -> dict[str, float]:
    """Run the action on a node of its own, removed afterwards."""
    lab(
        "add-node", "bench", "--containerd", containerd, "--no-taint", "--label", "soci-cluster.io/bench=true"
    )
    try:
        return action(AgentNode("bench"))
    finally:
        lab("remove-node", "bench")


def needless_restarts(node: AgentNode) -> dict[str, float]:
    """Restarts of containerd by ten runs of the agent without change (new pods of it), and by reboots."""
    node.install()
    starts = "journalctl -b -u containerd -o cat | grep -c '^Started containerd'"
    before = int(node.sh(starts))
    for _ in range(RUNS_WITHOUT_CHANGE):
        node.install()
    found = {"by_runs": float(int(node.sh(starts)) - before)}
    for _ in range(REBOOTS):
        lab("reboot", node.name)
        node.install()
        found["by_reboots"] = found.get("by_reboots", 0.0) + int(node.sh(starts)) - 1
    return found


def measure(containerd: str, repetitions: int) -> dict[str, list[float]]:
    """Samples by name, in seconds; the arms take turns."""
    samples: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for arm in ARMS:
            for name, value in with_fresh_node(
                containerd, lambda node, arm=arm: arm(node, containerd)
            ).items():
                samples.setdefault(name, []).append(value)
    return samples


def summary(samples: dict[str, list[float]], needless: dict[str, float]) -> dict[str, dict[str, float]]:
    """Medians, ratios and whether the targets are met."""
    median = {name: statistics.median(values) for name, values in samples.items()}
    unavoidable = median["copy"] + median["daemon_start"] + median["bare_restart"]
    ratios = {
        "downtime_by_bare_restart": median["downtime"] / median["bare_restart"],
        "install_by_unavoidable": median["install"] / unavoidable,
        "blind_downtime_by_bare_restart": median["blind_downtime"] / median["bare_restart"],
        "blind_install_by_unavoidable": median["blind_install"] / unavoidable,
    }
    met = {
        "downtime": ratios["downtime_by_bare_restart"] <= DOWNTIME_TARGET,
        "install": ratios["install_by_unavoidable"] <= INSTALL_TARGET,
        "one_restart": set(samples["restarts"]) == {1},
        "no_needless_restart": not any(needless.values()),
    }
    return {"medians_s": median | {"unavoidable": unavoidable}, "ratios": ratios, "targets_met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="nodes per arm and containerd (default 5)")
    parser.add_argument("--containerd", action="append", help="versions (default: those of the lab's nodes)")
    arguments = parser.parse_args()
    environment = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "soci": VERSION,
    }
    print(f"environment: {environment}")
    report: dict[str, object] = {"environment": environment}
    of_nodes = sorted({node["containerd"] for node in VERSIONS["nodes"].values()})
    for containerd in arguments.containerd or of_nodes:
        samples = measure(containerd, arguments.repetitions)
        needless = with_fresh_node(containerd, needless_restarts)
        result = summary(samples, needless)
        report[containerd] = {"samples_s": samples, "needless_restarts": needless, **result}
        print(f"\ncontainerd {containerd}, n = {arguments.repetitions}, medians")
        for name, value in result["medians_s"].items():
            print(f"  {name:<36}{value:8.2f}{'' if name == 'restarts' else ' s'}")
        for name, value in result["ratios"].items():
            print(f"  {name:<36}{value:8.2f}x")
        print(f"  needless restarts {needless}; targets met {result['targets_met']}")
    (LAB_DIRECTORY / "restart.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
