"""What happens to the nodes in the matrix of a node's life, which life.py has."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lab_client
from awkward_registry import Auth, AwkwardRegistry, Fault, User
from lab_client import on_node
from settings import ADDRESS, REGISTRY

from tests.cluster.lab_stack import LabStack
from tests.cluster.life_pods import Pod
from tests.cluster.looks import slot_in_use
from tests.cluster.registries import ANN, PRIVATE, PUBLIC, REMOVED_SECONDS
from tests.waiting import wait_for

SAMPLE = "sample:1-soci"
OTHER_VERSION = {"version": "0.16.0"}
FILES = "/opt/sample/data/*/*"
START_SECONDS = 60  # for a new pod
AWAY_SECONDS = 15
MINUTES = 130  # seconds
COLLECTED_SECONDS, USED_SECONDS = 240, 40
CONFIG = "/etc/containerd/config.toml"
STATE = "/var/lib/soci-cluster"
AGAIN = "for i in $(seq 120); do systemctl -q is-active {unit} && exit; sleep 0.5; done; exit 1"
WITHOUT_KEYS = f"{{ cat {STATE}/originals/etc.containerd.config.toml; echo '# by others'; }} >{CONFIG}"
# For sed: what turns parallel pulls on.
PARALLEL = '-e "/parallel_pull_unpack/,/enable/s/false/true/" -e "/content_store/,/type/s/soci/containerd/"'
# By all its names: containerd has one for its configuration, too.
FORGET = """
    names() { ctr -n k8s.io images ls | awk "$@"; }
    for digest in $(names '$1 ~ "/sample" { print $3 }' | sort -u); do
        ctr -n k8s.io images rm --sync $(names -v digest="$digest" '$3 == digest { print $1 }')
    done >/dev/null
"""
# The kubelet looks once a minute for containers of pods that have gone. And what it removes while containerd
# does not know the snapshotter stays in containerd's records; docs/reliability.md. One that runs is refused.
REMOVE_ENDED = """
    for container in $(ctr -n k8s.io containers ls | awk '/sample/ { print $1 }'); do
        ctr -n k8s.io containers rm $container || :
    done >/dev/null 2>&1
"""
NO_REGISTRY = f"OUTPUT -p tcp -d {ADDRESS} --dport {REGISTRY.rpartition(':')[2]} -j REJECT"  # of iptables
# The disk is full in the kubelet's eyes, and no image too young to go. It looks at its start; when its
# figures are not there yet, five minutes later, so it is started again. In the end it has not freed enough,
# and says so; it may do so before it has taken the image, which it does not if that is in use.
COLLECT = f"""
    folder=/run/systemd/system/kubelet.service.d
    flags='--image-gc-high-threshold=1 --image-gc-low-threshold=0 --minimum-image-ttl-duration=0s'
    mkdir -p $folder
    unit=/etc/systemd/system/kubelet.service
    sed -n "s/^ExecStart=.*/[Service]\\nExecStart=\\n& $flags/p" $unit >$folder/collect.conf
    systemctl daemon-reload
    has_collected() {{
        journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value kubelet) |
            grep -q 'Failed to free sufficient space'
    }}
    has_image() {{ ctr -n k8s.io images ls 2>/dev/null | grep -q /sample; }}
    for i in $(seq {COLLECTED_SECONDS}); do
        [ $((i % 10)) != 1 ] || systemctl restart kubelet
        sleep 1
        ! has_collected || has_image || break
        ! has_collected || [ $i -lt {USED_SECONDS} ] || break
    done
    has_collected
    status=$?
    rm $folder/collect.conf
    systemctl daemon-reload
    systemctl restart kubelet
    exit $status
"""


@dataclass
class Stage:
    """Where an event happens.

    registry is a front of the lab's own, which the nodes know as PRIVATE and PUBLIC; stack is the deployed
    one for events that change it, else None. other_image has no layer of the sample.
    """

    api: Any
    nodes: list[str]
    registry: AwkwardRegistry
    other_image: str
    stack: LabStack | None = None

    @property
    def deployed(self) -> LabStack:
        assert self.stack, "an event that changes the stack gets it"
        return self.stack


@dataclass(frozen=True)
class Event:
    """What happens to the nodes.

    Args:
        happens: returns when its cause has gone, or when it has happened if that is for good.
        host: the registry of the image's name.
        auth: whom that registry lets in: everybody, or ann, whose secret the pods bring.
        is_lazy: whether a new pod of the image has to be lazily loaded afterwards.
        has_happened: whether the event did what it is for. It is given the node, the seconds since then, and
            whether the kubelet knows that somebody has the image.
        is_by_kubelet: whether the kubelet's own records of containers decide what happens.
        waits: whether it waits for the end of those who read lazily, which is another test's.
        changes_stack: whether it is an update of the stack.
        is_put_right: whether the installer has to undo it.
        is_for_good: whether its cause stays: who read lazily at the time does so no more.
    """

    happens: Callable[[Stage], None]
    host: str = REGISTRY
    auth: Auth = Auth.NONE
    is_lazy: bool = True
    has_happened: Callable[[str, float, bool], bool] | None = None
    is_by_kubelet: bool = False
    waits: bool = False
    changes_stack: bool = False
    is_put_right: bool = False
    is_for_good: bool = False

    @property
    def image(self) -> str:
        return f"{self.host}/{SAMPLE}"

    @property
    def secret(self) -> tuple[str, str] | None:
        """User and password for the registry."""
        return None if self.auth is Auth.NONE else ("ann", ANN.password)

    def prepare(self, registry: AwkwardRegistry) -> None:
        registry.behave()
        registry.auth = self.auth
        registry.users = {"ann": User(ANN.password)}


def on_all(act: Callable[[str], object]) -> Callable[[Stage], None]:
    """An event that happens on all nodes at once."""

    def event(stage: Stage) -> None:
        with ThreadPoolExecutor(len(stage.nodes)) as threads:
            list(threads.map(act, stage.nodes))

    return event


def on_each(script: str) -> Callable[[Stage], None]:
    return on_all(lambda node: on_node(node, script))


def crash(node: str) -> None:
    on_node(node, f"kill -9 $(systemctl show -p MainPID --value {slot_in_use(node).unit})")


def crash_and_await(node: str, seconds: float = AWAY_SECONDS) -> None:
    """Return a while after the daemon is back."""
    crash(node)
    on_node(node, f"sleep 1; {AGAIN.format(unit=slot_in_use(node).unit)}")
    time.sleep(seconds)


@contextmanager
def registry_away(node: str) -> Generator[None]:
    """The node's packets do not reach the registry; a rule survives neither a reboot nor this."""
    on_node(node, f"iptables -I {NO_REGISTRY}")
    try:
        yield
    finally:
        on_node(node, f"iptables -D {NO_REGISTRY} 2>/dev/null || :")


def crash_with_registry_away(seconds: float) -> Callable[[str], None]:
    def event(node: str) -> None:
        with registry_away(node):
            crash_and_await(node, seconds)

    return event


def reboot(node: str) -> None:
    lab_client.lab("reboot", node)


@contextmanager
def reboot_with(node: str, command: str) -> Generator[None]:
    """A reboot in which this is run before a daemon of SOCI starts."""
    lines = [
        "[Unit]",
        "DefaultDependencies=no",
        "After=local-fs.target",
        "Before=soci-cluster-boot.service soci-snapshotter.service soci-snapshotter-b.service",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={command}",
        "[Install]",
        "WantedBy=sysinit.target",
    ]
    unit = "\\n".join([*lines, ""])
    path = "/etc/systemd/system/others.service"
    on_node(node, f"printf '{unit}' >{path} && systemctl enable -q others.service")
    try:
        reboot(node)
        yield
    finally:
        on_node(node, f"systemctl disable -q others.service; rm -f {path}")


def reboot_with_registry_away(node: str) -> None:
    """The registry is not there before the node is up, and for a while after that."""
    try:
        with reboot_with(node, f"/usr/sbin/iptables -I {NO_REGISTRY}"):
            time.sleep(AWAY_SECONDS)
    finally:
        on_node(node, f"iptables -D {NO_REGISTRY} || :")


def reboot_with_configuration_rewritten(node: str) -> None:
    """As nodeadm does it, which has a way of its own to load images."""
    with reboot_with(node, f"/usr/bin/sed -i {PARALLEL} {slot_in_use(node).config}"):
        pass


def reboot_with_store_wiped(node: str) -> None:
    """As on a machine whose fast local disk a stop takes away: containerd's own store is on another one."""
    with reboot_with(node, f"/usr/bin/find {slot_in_use(node).data} -mindepth 1 -delete"):
        pass


def crash_while(habits: Callable[[AwkwardRegistry], None]) -> Callable[[Stage], None]:
    """The daemon starts anew while the registry has these habits, which it has laid down afterwards."""

    def event(stage: Stage) -> None:
        before = stage.registry.users
        habits(stage.registry)
        on_all(crash_and_await)(stage)
        stage.registry.users, stage.registry.faults = before, []

    return event


def crash_for_good(habits: Callable[[AwkwardRegistry], None]) -> Callable[[Stage], None]:
    """The daemon starts anew, and the registry keeps these habits."""

    def event(stage: Stage) -> None:
        habits(stage.registry)
        on_all(crash_and_await)(stage)

    return event


def refuse_secret(registry: AwkwardRegistry) -> None:
    """Another password is the right one, and no token of before is good."""
    registry.users = {"ann": User("another word")}
    registry.revoke_all()


def lose_index(registry: AwkwardRegistry) -> None:
    registry.faults = [Fault(404, kinds=("manifests", "referrers"), agent="soci")]


def lose_image(registry: AwkwardRegistry) -> None:
    registry.faults = [Fault(404, repository=SAMPLE.partition(":")[0])]


def has_lost_layers(node: str, seconds: float, is_known: bool) -> bool:
    """Whether the daemon could not mount again what it had mounted."""
    journal = f"journalctl -q -u 'soci-snapshotter*' -o cat --since=-{seconds:.0f}s"
    return "lost" in on_node(
        node, f"{journal} | grep -q 'failed to restore remote snapshot' && echo lost || :"
    )


def has_forgotten_records(node: str, seconds: float, is_known: bool) -> bool:
    """Whether the node found layers that containerd has records of and the daemon has not."""
    journal = f"journalctl -q -u soci-cluster-heal -o cat --since=-{seconds:.0f}s"
    return "lost" in on_node(node, f"{journal} | grep 'lost the layers' || :")


def has_collected(node: str, seconds: float, is_known: bool) -> bool:
    """Whether the kubelet removed the image, which it does when it knows of nobody who has it."""
    return is_known or "/sample" not in on_node(node, "ctr -n k8s.io images ls")


def rewrite_configuration(node: str) -> None:
    on_node(node, f"echo '# by others' >>{slot_in_use(node).config}")


def changed_and_back(settings: dict[str, str]) -> Callable[[Stage], None]:
    """`pulumi config set --path`, `pulumi up`, a new pod on each node, and the same for the way back."""

    def event(stage: Stage) -> None:
        stack = stage.deployed
        before = stack.config_file.read_text()
        for key, value in settings.items():
            stack.set(f"soci:{key}", value, path=True)
        try:
            stack.must_go_up()
            on_all(lambda node: start_and_end(stage, node))(stage)
        finally:
            stack.config_file.write_text(before)
            stack.must_go_up()

    return event


def start_and_end(stage: Stage, node: str) -> None:
    """A new pod of the sample reads its files, and is gone when this returns."""
    pod = Pod.start(stage.api, node, f"{REGISTRY}/{SAMPLE}", ["sleep", "9999"])
    try:
        pod.await_phase("Running", START_SECONDS)
        assert pod.reads(FILES), f"{pod.name} reads its files"
        container = pod.container
    finally:
        pod.delete()
    wait_for(lambda: container not in on_node(node, "ctr -n k8s.io tasks ls"), REMOVED_SECONDS, "its end")


def side_by_side_and_back(stage: Stage) -> None:
    """A pod of another image reads from the daemon, so that a second one is started for the other version."""
    pods = [Pod.start(stage.api, node, stage.other_image, ["sleep", "9999"]) for node in stage.nodes]
    try:
        for pod in pods:
            pod.await_phase("Running", 120)
        changed_and_back(OTHER_VERSION | {"upgradePolicy": "side-by-side"})(stage)
        assert all(pod.reads("/data/*") for pod in pods), "the pods of another image read on"
    finally:
        for pod in pods:
            pod.delete()


EVENTS: dict[str, Event] = {
    "daemon killed": Event(on_all(crash)),
    "daemon killed, registry away": Event(
        on_all(crash_with_registry_away(AWAY_SECONDS)), has_happened=has_lost_layers
    ),
    "daemon killed, registry away for minutes": Event(
        on_all(crash_with_registry_away(MINUTES)), has_happened=has_lost_layers
    ),
    "daemon killed, credentials refused": Event(
        crash_while(refuse_secret), PRIVATE, Auth.BEARER, has_happened=has_lost_layers
    ),
    "daemon killed, image gone": Event(crash_while(lose_image), PUBLIC, has_happened=has_lost_layers),
    "daemon killed, index gone for good": Event(
        crash_for_good(lose_index), PUBLIC, is_lazy=False, has_happened=has_lost_layers, is_for_good=True
    ),
    "reboot": Event(on_all(reboot)),
    "reboot, registry away": Event(on_all(reboot_with_registry_away), has_happened=has_lost_layers),
    "reboot, private image": Event(on_all(reboot), PRIVATE, Auth.BEARER),
    "reboot, the daemon's disk wiped": Event(
        on_all(reboot_with_store_wiped), has_happened=has_forgotten_records
    ),
    "power cut": Event(on_all(lambda node: lab_client.lab("power-cut", node))),
    "containerd restarted": Event(on_each("systemctl restart containerd")),
    "containerd's configuration rewritten": Event(on_each(WITHOUT_KEYS), is_put_right=True),
    "containerd's configuration rewritten, and restarted": Event(
        on_each(f"{WITHOUT_KEYS}; systemctl restart containerd"), is_put_right=True
    ),
    "SOCI's configuration rewritten": Event(on_all(rewrite_configuration), is_put_right=True),
    # Until that is put right, images are pulled whole.
    "SOCI's configuration rewritten at a boot": Event(
        on_all(reboot_with_configuration_rewritten), is_lazy=False, is_put_right=True, waits=True
    ),
    "image removed": Event(on_each(FORGET)),
    "image collected by the kubelet": Event(on_each(COLLECT), has_happened=has_collected, is_by_kubelet=True),
    # What was pulled in another mode, or without its index, is whole and stays so.
    "another mode and back": Event(
        changed_and_back({"mode": "parallel"}), is_lazy=False, waits=True, changes_stack=True
    ),
    "another index version and back": Event(
        changed_and_back({"indexVersions[0]": "v1"}), is_lazy=False, waits=True, changes_stack=True
    ),
    "another version and back": Event(changed_and_back(OTHER_VERSION), waits=True, changes_stack=True),
    "another version side by side, and back": Event(side_by_side_and_back, changes_stack=True),
}
