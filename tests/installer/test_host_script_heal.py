"""After a start of the daemon: what does not start any more is forgotten, what is broken is named."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.slots import FIRST

from tests.fakes.script_node import DATA, LAZY, ScriptNode

CHAIN, IMAGE = "sha256:c4a1", "registry.example/app:1"
LABEL = "containerd.io/gc.ref.snapshot.soci"
MANIFEST = (
    "sha256:d1 1kB 1min containerd.io/gc.ref.content.config=sha256:c0f1,containerd.io/gc.ref.content.l.0=x\n"
)
NAMES = (IMAGE, "registry.example/app@sha256:d1", "sha256:c0f1")


@pytest.fixture
def node(tmp_path: Path) -> ScriptNode:
    return node_with_image(tmp_path)


def node_with_image(path: Path) -> ScriptNode:
    """An installed node with one image, unpacked under soci, in which two containers were made."""
    made = ScriptNode(path)
    made.install()
    write(made, "content", f"sha256:c0f1 1kB 1min containerd.io/distribution=x,{LABEL}={CHAIN}\n{MANIFEST}")
    write(made, "names", "".join(f"{name} index sha256:d1\n" for name in NAMES) + "other:1 index sha256:d2\n")
    write(made, "snapshots-soci", f"{CHAIN} Committed\nended {CHAIN} Active\n")
    write(made, "tasks", "TASK PID STATUS\nended 1 STOPPED\n")
    write(made, "calls", "")
    return made


def write(node: ScriptNode, name: str, text: str) -> None:
    (node.fake / name).write_text(text)


def heal(node: ScriptNode, *arguments: str) -> list[str]:
    done = node.run("heal", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def forgotten(node: ScriptNode) -> list[list[str]]:
    return [call.split("--sync ")[1].split() for call in node.calls("ctr --namespace k8s.io images rm")]


def test_an_image_that_starts_stays(node: ScriptNode) -> None:
    assert heal(node) == []
    assert forgotten(node) == []


@pytest.mark.failure_mode(30)
def test_an_image_whose_layers_did_not_come_back_is_forgotten_by_all_its_names(node: ScriptNode) -> None:
    """Its next pull would find the layers there and fetch nothing: nothing starts on them for good."""
    write(node, "unavailable", f"{CHAIN}\n")
    assert sorted(heal(node)) == sorted(f"forgotten {name}" for name in NAMES)
    assert [sorted(names) for names in forgotten(node)] == [sorted(NAMES)]
    # A daemon that found no index remembers that, and would have the image pulled whole.
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1


def test_an_ended_container_keeps_its_record_and_loses_its_hold(node: ScriptNode) -> None:
    """By the record the kubelet finds the log; the snapshot would keep the broken layers."""
    with (node.fake / "snapshots-soci").open("a") as snapshots:
        snapshots.write(f"extract-1 x {CHAIN} Active\n")
    write(node, "unavailable", f"{CHAIN}\n")
    heal(node)
    assert node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm ended")
    assert not node.calls("ctr --namespace k8s.io containers rm", "ctr --namespace k8s.io tasks rm")
    assert not node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm extract")


def test_what_a_heal_that_was_killed_at_any_call_left_is_done_by_the_next_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An image that is forgotten while its daemon still remembers that it has no index would come whole."""
    for call in range(2, 60, 1 if request.config.getoption("--full") else 4):
        node = node_with_image(tmp_path / str(call))
        write(node, "unavailable", f"{CHAIN}\n")
        node.run("heal", cut_at_call=call)
        is_over = len(node.calls("")) < call
        done = node.run("heal")
        assert (done.returncode, done.stderr) == (0, ""), call
        assert not (node.fake / "unavailable").exists(), call
        calls = node.calls("ctr --namespace k8s.io images rm", f"systemctl restart {FIRST.unit}")
        assert calls[-1].startswith("systemctl restart"), call
        assert heal(node) == [], call
        if is_over:
            return
    raise AssertionError("the last call is not among these")


def test_each_start_of_a_daemon_is_seen_to_once(node: ScriptNode) -> None:
    """Later the daemon says the same of layers whose registry is away for a moment."""
    assert heal(node) == []
    write(node, "unavailable", f"{CHAIN}\n")
    assert heal(node) == []
    assert sorted(heal(node, "--again")) == sorted(f"forgotten {name}" for name in NAMES)


def test_an_answer_that_is_no_word_on_a_layer_forgets_nothing(node: ScriptNode) -> None:
    write(node, "refuses-call", f" {CHAIN}")
    assert node.run("heal").returncode != 0, "nobody looked"
    assert forgotten(node) == []
    write(node, "refuses-call", "")
    write(node, "unavailable", f"{CHAIN}\n")
    assert sorted(heal(node)) == sorted(f"forgotten {name}" for name in NAMES), "it is looked at again"


def test_every_image_with_the_same_configuration_is_forgotten(node: ScriptNode) -> None:
    """A tag beside its `soci convert` has the same layers; the kubelet's own name knows one of the two."""
    more = "sha256:d5 1kB 1min containerd.io/gc.ref.content.config=sha256:c0f1\n"
    index = "sha256:d6 1kB 1min containerd.io/gc.ref.content.m.0=sha256:d5\n"
    write(node, "content", (node.fake / "content").read_text() + more + index)
    write(node, "names", (node.fake / "names").read_text() + "registry.example/app:1-soci index sha256:d6\n")
    write(node, "unavailable", f"{CHAIN}\n")
    assert "forgotten registry.example/app:1-soci" in heal(node)


def test_a_container_that_the_kernel_knows_keeps_its_snapshot(node: ScriptNode) -> None:
    """It was started after containerd had listed what runs."""
    write(node, "snapshots-soci", f"{CHAIN} Committed\njust {CHAIN} Active\n")
    write(node, "unavailable", f"{CHAIN}\n")
    node.mount_table.write_text("41 21 0:41 / /run/k8s.io/just/rootfs rw - overlay overlay rw\n")
    heal(node)
    assert not node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm just")


def test_the_daemon_is_not_restarted_below_a_pull(node: ScriptNode) -> None:
    write(node, "snapshots-soci", f"{CHAIN} Committed\nextract-1 x {CHAIN} Active\n")
    write(node, "unavailable", f"{CHAIN}\n")
    assert heal(node)
    assert not node.calls(f"systemctl restart {FIRST.unit}")


def test_what_a_look_that_was_cut_short_left_is_cleared(node: ScriptNode) -> None:
    """Its key keeps the layers for good."""
    write(node, "snapshots-soci", f"{CHAIN} Committed\nsoci-cluster-look-1-1 {CHAIN} Active\n")
    heal(node)
    assert node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm soci-cluster-look-1-1")


def test_a_full_disk_does_not_keep_the_daemon_from_its_next_restart(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    (node.root / "var/lib/soci-cluster/restarted-for-held").write_text("")
    heal(node)
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1


@pytest.mark.parametrize(
    "question", ["tasks ls", "content ls", "images ls", "snapshots --snapshotter soci ls"]
)
def test_a_list_that_fails_is_no_empty_one(node: ScriptNode, question: str) -> None:
    """What runs was taken for ended, its snapshot removed, and the start remembered as healed."""
    write(node, "snapshots-soci", f"{CHAIN} Committed\nrunning {CHAIN} Active\n")
    write(node, "tasks", "TASK PID STATUS\nrunning 1 RUNNING\n")
    write(node, "unavailable", f"{CHAIN}\n")
    write(node, "refuses-call", question)
    assert node.run("heal").returncode != 0
    assert not node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm running")
    assert forgotten(node) == []
    write(node, "refuses-call", "")
    write(node, "tasks", "TASK PID STATUS\n")
    assert sorted(heal(node)) == sorted(f"forgotten {name}" for name in NAMES)


@pytest.fixture
def older_and_newer() -> Iterator[tuple[int, int]]:
    """Two processes, of which one was started before the other."""
    with subprocess.Popen(["sleep", "600"]) as older:
        time.sleep(2 / os.sysconf("SC_CLK_TCK") + 0.02)
        with subprocess.Popen(["sleep", "600"]) as newer:
            yield older.pid, newer.pid
            newer.kill()
        older.kill()


def run_on(node: ScriptNode, container: int, daemon: int) -> None:
    write(node, "snapshots-soci", f"{CHAIN} Committed\nrunning {CHAIN} Active\n")
    write(node, "tasks", f"TASK PID STATUS\nrunning {container} RUNNING\n")
    write(node, f"pid-{FIRST.unit}", f"{daemon}\n")
    write(node, "lower", f"mount -t overlay overlay / -o workdir=w,lowerdir={DATA}/6/fs:{DATA}/5/fs\n")


def test_a_container_from_before_the_daemons_start_is_named(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    node.mount_table.write_text(LAZY)
    assert heal(node) == ["broken running"]
    assert heal(node) == ["broken running"]
    write(node, "tasks", "TASK PID STATUS\n")
    assert heal(node) == []


def test_a_container_without_lazily_loaded_layers_is_not_broken(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    write(node, "lower", f"mount -t overlay overlay / -o workdir=w,lowerdir={DATA}/5/fs\n")
    node.mount_table.write_text(LAZY)
    assert heal(node) == []


def test_a_container_from_after_the_daemons_start_is_alive(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *reversed(older_and_newer))
    node.mount_table.write_text(LAZY)
    assert heal(node) == []


def test_an_image_on_which_something_runs_is_held_until_its_registry_answers(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    node.set("no-registry")
    assert set(heal(node)) == {"broken running", *(f"held {name} running" for name in NAMES)}
    assert forgotten(node) == []
    assert not node.calls(f"systemctl restart {FIRST.unit}")
    node.clear("no-registry")
    heal(node)
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1
    heal(node)
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1, "a registry that refuses answers, too"


def test_the_pause_between_two_restarts_for_a_held_image_grows_and_is_forgotten_with_it(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    """A daemon that was refused once was restarted after five minutes only, whatever came meanwhile."""
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    state = node.root / "var/lib/soci-cluster/restarted-for-held"
    for number, seconds in enumerate((20, 40, 80, 160, 300, 300), 1):
        heal(node)
        assert len(node.calls(f"systemctl restart {FIRST.unit}")) == number
        then, pause = map(int, state.read_text().split())
        assert pause == seconds * 1000
        heal(node)
        assert len(node.calls(f"systemctl restart {FIRST.unit}")) == number, "it is too early"
        state.write_text(f"{then - pause} {pause}\n")
    write(node, "unavailable", "")
    heal(node)
    assert not state.exists()


def test_an_image_without_a_name_asks_no_registry(node: ScriptNode, older_and_newer: tuple[int, int]) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    write(node, "names", "sha256:c0f1 index sha256:d1\n")
    assert "held sha256:c0f1 running" in heal(node)
    assert not node.calls(f"systemctl restart {FIRST.unit}")


def test_the_daemon_is_not_restarted_below_a_living_mount(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    node.mount_table.write_text(LAZY)  # of containers that run and are not among the older ones
    heal(node)
    assert not node.calls(f"systemctl restart {FIRST.unit}")


def test_nothing_is_healed_while_a_change_is_at_work(node: ScriptNode) -> None:
    write(node, "unavailable", f"{CHAIN}\n")
    journal = node.root / "var/lib/soci-cluster/journal"
    journal.write_text(journal.read_text().replace("state=committed", "state=restarting"))
    assert heal(node) == []
    assert forgotten(node) == []


# After a boot, which empties the memory of pull secrets

HOST = IMAGE.partition("/")[0]
HEALED = "unavailable"  # a flag of the fake daemon; its next start may take it away


def boot_without_secrets(node: ScriptNode, *hosts: str, seconds: int = 45) -> None:
    """The layers did not come back, and the agent has not read again what opens these registries."""
    write(node, HEALED, f"{CHAIN}\n")
    (node.root / "var/lib/soci-cluster/pull-secret-hosts").write_text("".join(f"{host}\n" for host in hosts))
    script = node.root / "opt/soci-cluster/soci-host.sh"
    text = script.read_text()
    assert "SECRETS_SECONDS=45" in text
    script.write_text(text.replace("SECRETS_SECONDS=45", f"SECRETS_SECONDS={seconds}"))


def bring_secret(node: ScriptNode, host: str = HOST) -> None:
    place = node.root / "run/soci-cluster/pull-secrets" / host
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}\n")


def restart_brings_layers(node: ScriptNode) -> None:
    (node.fake / f"on-restart-{FIRST.unit}").write_text(f'rm -f "$FAKE/{HEALED}"\n')


def is_waiting(process: subprocess.Popen[str]) -> bool:
    assert process.stderr
    return "are awaited" in process.stderr.readline()


def test_layers_that_a_pull_secret_opens_come_back_with_it(node: ScriptNode) -> None:
    """The image was forgotten, and its next pull came before the secret, too: it was whole from then on."""
    boot_without_secrets(node, "other.example", HOST)
    restart_brings_layers(node)
    process = node.start("heal")
    assert is_waiting(process)
    bring_secret(node)
    assert (process.communicate(timeout=20)[0], process.returncode) == ("", 0)
    assert forgotten(node) == []
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1


def test_layers_that_stay_away_with_their_secret_are_forgotten(node: ScriptNode) -> None:
    boot_without_secrets(node, HOST)
    process = node.start("heal")
    assert is_waiting(process)
    bring_secret(node)
    assert sorted(process.communicate(timeout=20)[0].splitlines()) == sorted(
        f"forgotten {name}" for name in NAMES
    )
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 2, "for the secret, and to forget"


def test_a_pull_secret_that_does_not_come_is_awaited_only_so_long(node: ScriptNode) -> None:
    boot_without_secrets(node, HOST, seconds=0)
    assert sorted(heal(node)) == sorted(f"forgotten {name}" for name in NAMES)
    assert len(node.calls(f"systemctl restart {FIRST.unit}")) == 1, "which could bring nothing back"


@pytest.mark.parametrize("hosts", [(), ("other.example", f"x{HOST}", f"{HOST}x")])
def test_no_pull_secret_is_awaited_for_a_registry_that_never_had_one(
    node: ScriptNode, hosts: tuple[str, ...]
) -> None:
    boot_without_secrets(node, *hosts)
    done = node.run("heal")
    assert "awaited" not in done.stderr
    assert len(forgotten(node)) == 1


def test_a_pull_secret_is_awaited_only_while_something_waits_for_it(node: ScriptNode) -> None:
    boot_without_secrets(node, HOST)
    write(node, HEALED, "")
    done = node.run("heal")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_whoever_changes_the_node_is_not_kept_waiting_for_a_pull_secret(node: ScriptNode) -> None:
    """An install, an uninstall, and each start of containerd, which the agent's own pod needs."""
    boot_without_secrets(node, HOST)
    process = node.start("heal")
    assert is_waiting(process)
    lock = node.root / "var/lib/soci-cluster/lock"
    assert subprocess.run(["flock", "-w", "0", lock, "true"], check=False).returncode == 0
    (node.root / "var/lib/soci-cluster/current").unlink()
    bring_secret(node)
    assert (process.communicate(timeout=20)[0], process.returncode) == ("", 0), "it was uninstalled meanwhile"
    assert forgotten(node) == []


def test_the_daemon_is_not_restarted_for_a_pull_secret_below_a_living_mount(node: ScriptNode) -> None:
    boot_without_secrets(node, HOST)
    node.mount_table.write_text(LAZY)
    process = node.start("heal")
    assert is_waiting(process)
    bring_secret(node)
    process.communicate(timeout=20)
    assert not node.calls(f"systemctl restart {FIRST.unit}")
    assert len(forgotten(node)) == 1
