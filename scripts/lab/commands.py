"""A real Kubernetes cluster on this machine: its nodes are systemd containers with containerd and a kubelet.

`lab up` makes it or completes it, `lab reset` takes all of it away. State and logs are in .lab of the
repository (LAB_DIR overrides), built programs and images in ~/.cache/soci-cluster.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import base
import binaries
import images
import preflight
import release
from control_plane import START_ORDER, ControlPlane, network_down
from nodes import Node, Spec, await_ready, check_name, is_ready
from processes import Processes
from settings import (
    ADDRESS,
    HERE,
    REGISTRY,
    RELEASE_PORT,
    REPOSITORY,
    VERSIONS,
    LabError,
    cache_directory,
    state_directory,
)

# What `lab reset` deletes, and nothing else: LAB_DIR may name a directory with other things in it. The Pulumi
# state goes along since what it describes is gone.
OWN_FILES = (
    "Pulumi.local.yaml",
    "etcd",
    "kubeconfig",
    "lock",
    "log",
    "nodes",
    "pki",
    "pki-registries",
    "pulumi",
    "registry",
    "run",
)
TEST_PROGRAMS = ("karpenter", "distribution", "oras")  # which `lab build` makes, too, though no lab runs them
STARTED = time.monotonic()
PRINTING = threading.Lock()


def say(text: str) -> None:
    """Print a line of progress with the seconds since the start."""
    with PRINTING:
        print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


@contextlib.contextmanager
def only_one(state: Path) -> Generator[None]:
    """Hold the lab's lock: two commands that change it wait for each other."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another lab command to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Lab:
    """The lab of one state directory."""

    def __init__(self) -> None:
        self.state = state_directory()
        self.processes = Processes(self.state)

    @property
    def control_plane(self) -> ControlPlane:
        return ControlPlane(self.state, binaries.build("kubernetes"))

    def nodes(self) -> list[Node]:
        return Node.all(self.state)

    def build(self, _: argparse.Namespace) -> None:
        """Build what the cache lacks, and start nothing."""
        versions = {node["containerd"] for node in VERSIONS["nodes"].values()}
        self._check_machine(versions, set(preflight.PORTS), TEST_PROGRAMS)
        self._make_ingredients(versions, TEST_PROGRAMS)

    def up(self, _: argparse.Namespace) -> None:
        """Start everything that does not run yet."""
        with only_one(self.state):
            self._record_standard_nodes()
            versions = {node.spec.containerd for node in self.nodes()}
            running = {port for port, name in preflight.PORTS.items() if self.processes.pid(name)}
            if len(running) < len(preflight.PORTS):
                self._check_machine(versions, running)
            self._make_ingredients(versions)
            control_plane = self.control_plane
            if not all(self.processes.pid(name) for name in START_ORDER):
                say("control plane: starting")
            control_plane.up()
            say(f"control plane: ready, Kubernetes {VERSIONS['kubernetes']}")
            self._start_servers()
            self._start_nodes(self.nodes())
            say(f"the lab is up; kubeconfig: {control_plane.kubeconfig}")

    def down(self, _: argparse.Namespace) -> None:
        """Stop everything and keep its state."""
        with only_one(self.state):
            self._stop()

    def reset(self, _: argparse.Namespace) -> None:
        """Stop everything and delete the state; the cache of built programs and images stays."""
        with only_one(self.state):
            self._stop()
            for path in (self.state / name for name in OWN_FILES):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files are in it
            self.state.rmdir()
        say(f"the lab's files in {self.state} are removed; {cache_directory()} is kept")

    def status(self, _: argparse.Namespace) -> None:
        """Print what runs; exit with 1 when something does not."""
        complete = bool(self.nodes())
        for name in (*START_ORDER, "registry", "releases"):
            pid = self.processes.pid(name)
            complete = complete and pid is not None
            print(f"{name:24} {f'pid {pid}' if pid else 'not running'}")
        known = {}
        if self.processes.pid("kube-apiserver"):
            with contextlib.suppress(LabError):  # it does not answer: then no node is called Ready
                known = self.control_plane.nodes()
        for node in self.nodes():
            ready = bool(node.leader) and is_ready(known.get(node.spec.name))
            complete = complete and ready
            state = f"{'Ready' if ready else 'NotReady'}, pid {node.leader}" if node.leader else "off"
            rate = f", shaped to {node.spec.rate}" if node.spec.rate else ""
            print(
                f"{node.spec.name:24} {state}, containerd {node.spec.containerd}, {node.spec.address}{rate}"
            )
        sys.exit(not complete)

    def kubeconfig(self, _: argparse.Namespace) -> None:
        """Print the path of the administrator's kubeconfig; its context is `lab`."""
        path = self.state / "kubeconfig"
        if not path.exists():
            raise LabError("there is no lab yet; run `lab up`")
        print(path)

    def exec(self, arguments: argparse.Namespace) -> None:
        """Run a command on a node as root; its exit code is this command's."""
        command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
        if not command:
            raise LabError("nothing to run; say `lab exec NODE -- COMMAND`")
        line = Node.load(self.state, arguments.node).command(command)
        os.execvp(line[0], line)

    def kubectl(self, arguments: argparse.Namespace) -> None:
        """Run kubectl against the lab; `lab kubectl get pods -A`."""
        kubectl = str(binaries.build("kubernetes") / "kubectl")
        os.execv(kubectl, [kubectl, "--kubeconfig", str(self.state / "kubeconfig"), *arguments.arguments])

    def pulumi(self, arguments: argparse.Namespace) -> None:
        """Run the Pulumi CLI on the lab's stack; `lab pulumi config set soci:version 0.16.0`."""
        if not self.processes.pid("kube-apiserver"):
            raise LabError("the lab is not running; run `make up`, which deploys the stack, too")
        # With the project's packages: they name the plugins, and the program needs them.
        python = str(REPOSITORY / ".venv" / "bin" / "python")
        if not os.path.exists(python):
            raise LabError("the project's Python packages are not installed; run `make setup`")
        os.execv(python, [python, str(HERE / "engine" / "local_stack.py"), *arguments.arguments])

    def add_node(self, arguments: argparse.Namespace) -> None:
        """Start one more node."""
        check_name(arguments.name)
        with only_one(self.state):
            if not self.processes.pid("kube-apiserver"):
                raise LabError("the lab is not running; run `lab up` first")
            if any(node.spec.name == arguments.name for node in self.nodes()):
                raise LabError(f"there is a node named {arguments.name} already; see `lab status`")
            if binaries.missing([f"containerd-{arguments.containerd}"]):
                say(f"containerd {arguments.containerd}: from source unless cached (1 to 2 minutes)")
            binaries.build(f"containerd-{arguments.containerd}")
            number = max([node.spec.number for node in self.nodes()], default=0) + 1
            labels = arguments.label or ["soci-cluster.io/install=true"]
            node = Node(
                self.state, Spec(arguments.name, number, arguments.containerd, labels, not arguments.no_taint)
            )
            node.save()
            self._start_nodes([node])

    def remove_node(self, arguments: argparse.Namespace) -> None:
        """Switch a node off and forget it, in the cluster too."""
        with only_one(self.state):
            node = Node.load(self.state, arguments.node)
            node.power_cut()
            node.release()
            if self.processes.pid("kube-apiserver"):
                self.control_plane.kubectl(
                    "delete", "node", node.spec.name, "--ignore-not-found", "--wait=false"
                )
            shutil.rmtree(node.directory)
            say(f"{node.spec.name} is removed")

    def reboot(self, arguments: argparse.Namespace) -> None:
        """Shut a node down cleanly and boot it again; return when it is Ready."""
        self._restart(arguments.node, Node.shut_down, "shut down")

    def power_cut(self, arguments: argparse.Namespace) -> None:
        """Kill every process of a node at once and boot it again; return when it is Ready."""
        self._restart(arguments.node, Node.power_cut, "cut off")

    def shape(self, arguments: argparse.Namespace) -> None:
        """Limit what a node receives, or lift the limit."""
        with only_one(self.state):
            Node.load(self.state, arguments.node).shape("" if arguments.rate == "off" else arguments.rate)

    def _restart(self, name: str, stop, done: str) -> None:
        with only_one(self.state):
            node = Node.load(self.state, name)
            stop(node)
            say(f"{name}: {done}")
            self._start_nodes([node])

    def _record_standard_nodes(self) -> None:
        for number, (name, wanted) in enumerate(VERSIONS["nodes"].items(), start=1):
            node = Node(self.state, Spec(name, number, **wanted))
            if not (node.directory / "node.json").exists():
                node.save()

    def _targets(self, containerd_versions: set[str]) -> list[str]:
        return [
            "kubernetes",
            "soci",
            "registry",
            *(f"containerd-{version}" for version in sorted(containerd_versions)),
            *([] if shutil.which("pulumi") else ["pulumi"]),
        ]

    def _check_machine(
        self, containerd_versions: set[str], own_ports: set[int], further: Sequence[str] = ()
    ) -> None:
        machine = preflight.observe(cache_directory(), own_ports)
        # Of pinned versions only: to name another version's sources takes Go itself.
        pinned = containerd_versions & set(VERSIONS["containerd"].values())
        needs_go = bool(binaries.missing([*self._targets(pinned), *further]))
        found = preflight.problems(machine, needs_go=needs_go)
        if found:
            raise LabError(
                "this machine cannot run the lab:\n" + "\n".join(f"  - {problem}" for problem in found)
            )
        if machine.missing_packages:
            say(f"Debian packages: installing {' '.join(machine.missing_packages)}")
            preflight.install_packages(list(machine.missing_packages))

    def _make_ingredients(self, containerd_versions: set[str], further: Sequence[str] = ()) -> None:
        """Build what the cache lacks, side by side: compiler and debootstrap wait for different things.

        ``further`` are programs that the lab itself does not run.
        """
        targets = [*self._targets(containerd_versions), *further]
        busy: set[str] = set()

        def make(what: str, function, *arguments) -> None:
            started = time.monotonic()
            busy.add(what)
            try:
                function(*arguments)
            except LabError:
                say(f"{what}: failed; what else is being built is finished first, for the next try")
                raise
            finally:
                busy.discard(what)
            if time.monotonic() - started > 1:
                say(f"{what}: made in {time.monotonic() - started:.0f} s")

        for name in binaries.missing(targets):
            minutes = {"kubernetes": " (7 minutes on 2 cores)", "pulumi": " (4 minutes on 2 cores)"}
            say(f"{name}: to be built from source{minutes.get(name, '')}")

        def programs() -> None:
            for name in targets:
                make(name, binaries.build, name)

        def images_and_release() -> None:
            make("soci release", release.release_directory)
            make("images", images.registry_data)

        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(make, "node root", base.node_root),
                pool.submit(programs),
                pool.submit(images_and_release),
            ]
            while wait(jobs, timeout=30).not_done:
                say(f"still at it: {', '.join(sorted(busy))}")
        for job in jobs:
            job.result()

    def _start_servers(self) -> None:
        data = images.link_registry_data(self.state)
        registry = [str(binaries.build("registry") / "registry"), "-addr", REGISTRY, "-dir", str(data)]
        self.processes.start("registry", registry)
        server = [sys.executable, "-m", "http.server", str(RELEASE_PORT), "--bind", ADDRESS]
        self.processes.start("releases", [*server, "--directory", str(release.release_directory())])
        images.await_registry(REGISTRY)
        say(f"registry: http://{REGISTRY}; releases: http://{ADDRESS}:{RELEASE_PORT}/releases")

    def _start_nodes(self, nodes: list[Node]) -> None:
        control_plane, root = self.control_plane, base.node_root()
        off = [node for node in nodes if not node.supervisor]
        since = time.time() if off else 0
        for node in off:
            node.up(root, binaries.build(f"containerd-{node.spec.containerd}"), control_plane)
            say(f"{node.spec.name}: booting, containerd {node.spec.containerd}")
        await_ready(control_plane, off, since)
        await_ready(control_plane, nodes)
        say(f"Ready: {', '.join(node.spec.name for node in nodes)}")

    def _stop(self) -> None:
        for node in self.nodes():
            was_on = node.supervisor is not None
            node.power_cut()
            node.release()
            if was_on:
                say(f"{node.spec.name}: stopped")
        for name in ("registry", "releases"):
            self.processes.stop(name)
        for name in reversed(START_ORDER):
            self.processes.stop(name)
        network_down()
        say("the lab is down")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, method, **options) -> argparse.ArgumentParser:
        help_text = method.__doc__.splitlines()[0].rstrip(".")
        command = commands.add_parser(name, help=help_text, description=method.__doc__, **options)
        command.set_defaults(method=method)
        return command

    def add_foreign(name: str, method) -> None:
        """A command of another program: whatever stands behind its name is for that, also --help."""
        command = add(name, method, prefix_chars="\0", add_help=False)
        command.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER)

    add("build", Lab.build)
    add("up", Lab.up)
    add("status", Lab.status)
    add("down", Lab.down)
    add("reset", Lab.reset)
    add("kubeconfig", Lab.kubeconfig)
    add_foreign("kubectl", Lab.kubectl)
    add_foreign("pulumi", Lab.pulumi)
    execute = add("exec", Lab.exec)
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER)
    join = add("add-node", Lab.add_node)
    join.add_argument("name", metavar="NAME")
    usual = list(VERSIONS["nodes"].values())[-1]["containerd"]
    join.add_argument("--containerd", metavar="VERSION", default=usual, help=f"default {usual}")
    join.add_argument("--no-taint", action="store_true", help="register without the startup taint")
    join.add_argument(
        "--label", metavar="KEY=VALUE", action="append", help="default soci-cluster.io/install=true"
    )
    add("remove-node", Lab.remove_node).add_argument("node", metavar="NODE")
    add("reboot", Lab.reboot).add_argument("node", metavar="NODE")
    add("power-cut", Lab.power_cut).add_argument("node", metavar="NODE")
    shape = add("shape", Lab.shape)
    shape.add_argument("node", metavar="NODE")
    shape.add_argument("rate", metavar="RATE", help="as tc(8) writes it, e.g. 100mbit; `off` lifts the limit")
    return top


def main() -> None:
    arguments = parser().parse_args()
    try:
        arguments.method(Lab(), arguments)
    except LabError as error:
        sys.exit(f"lab: {error}")
    except KeyboardInterrupt:
        sys.exit("lab: interrupted; `lab up` goes on from here, `lab down` stops what runs")


if __name__ == "__main__":
    main()
