"""After a start of the daemon: what does not start any more is forgotten, what is broken is named."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import heal as heal_of_agent
from agent.slots import FIRST
from agent.transaction import SCRIPT

from tests.fakes.script_node import CONFIG, DATA, LAZY, NEW_CONFIG, ScriptNode

CHAIN, IMAGE = "sha256:c4a1", "registry.example/app:1"
LABEL = "containerd.io/gc.ref.snapshot.soci"
MANIFEST = (
    "sha256:d1 1kB 1min containerd.io/gc.ref.content.config=sha256:c0f1,containerd.io/gc.ref.content.l.0=x\n"
)
NAMES = (IMAGE, "registry.example/app@sha256:d1", "sha256:c0f1")
FORGOTTEN = sorted(f"forgotten {name}" for name in NAMES)


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


def restarts(node: ScriptNode) -> int:
    """Of the daemon."""
    return len(node.calls(f"systemctl restart {FIRST.unit}"))


def test_an_image_that_starts_stays(node: ScriptNode) -> None:
    assert heal(node) == []
    assert forgotten(node) == []


@pytest.mark.failure_mode(30)
def test_an_image_whose_layers_did_not_come_back_is_forgotten_by_all_its_names(node: ScriptNode) -> None:
    """Its next pull would find the layers there and fetch nothing: nothing starts on them for good."""
    write(node, "unavailable", f"{CHAIN}\n")
    assert sorted(heal(node)) == FORGOTTEN
    assert [sorted(names) for names in forgotten(node)] == [sorted(NAMES)]
    # A daemon that found no index remembers that, and would have the image pulled whole.
    assert restarts(node) == 1


def test_an_ended_container_keeps_its_record_and_loses_its_hold(node: ScriptNode) -> None:
    """By the record the kubelet finds the log; the snapshot would keep the broken layers."""
    with (node.fake / "snapshots-soci").open("a") as snapshots:
        snapshots.write(f"extract-1 x {CHAIN} Active\n")
    write(node, "unavailable", f"{CHAIN}\n")
    heal(node)
    assert node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm ended")
    assert not node.calls("ctr --namespace k8s.io containers rm", "ctr --namespace k8s.io tasks rm")
    assert not node.calls("ctr --namespace k8s.io snapshots --snapshotter soci rm extract")


@pytest.mark.failure_mode(30)
@pytest.mark.parametrize("state", ["complete", "incomplete"])
def test_layers_that_the_daemon_lost_are_unpacked_or_pulled_anew(node: ScriptNode, state: str) -> None:
    """Its store may lie on a disk that a stop of the machine wipes; containerd's records of it stay.

    They are in the way of each pull.
    """
    write(node, "images", "".join(f"{name} t d {state} (1/1) 1 KiB/1 KiB false\n" for name in NAMES))
    write(node, "snapshots-soci", "")
    write(node, "containers", "ended soci\n")
    write(node, "records-soci", f"{CHAIN}\nended {CHAIN}\nvolume-of-ended {CHAIN}\n")
    assert sorted(heal(node)) == ([] if state == "complete" else FORGOTTEN)
    assert (node.fake / "records-soci").read_text() == ""
    if state == "complete":
        assert f"{LABEL}={CHAIN}" not in (node.fake / "content").read_text()


@pytest.mark.slow
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
    assert sorted(heal(node, "--again")) == FORGOTTEN


def test_an_answer_that_is_no_word_on_a_layer_forgets_nothing(node: ScriptNode) -> None:
    write(node, "refuses-call", f" {CHAIN}")
    assert node.run("heal").returncode != 0, "nobody looked"
    assert forgotten(node) == []
    write(node, "refuses-call", "")
    write(node, "unavailable", f"{CHAIN}\n")
    assert sorted(heal(node)) == FORGOTTEN, "it is looked at again"


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
    assert restarts(node) == 0


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
    assert restarts(node) == 1


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
    assert sorted(heal(node)) == FORGOTTEN


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
    assert restarts(node) == 0
    node.clear("no-registry")
    heal(node)
    assert restarts(node) == 1
    heal(node)
    assert restarts(node) == 1, "a registry that refuses answers, too"


def test_the_pause_between_two_restarts_for_a_held_image_grows_and_is_forgotten_with_it(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    """A daemon that was refused once was restarted after five minutes only, whatever came meanwhile."""
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    state = node.root / "var/lib/soci-cluster/restarted-for-held"
    for number, seconds in enumerate((20, 40, 80, 160, 300, 300), 1):
        heal(node)
        assert restarts(node) == number
        then, pause = map(int, state.read_text().split())
        assert pause == seconds * 1000
        heal(node)
        assert restarts(node) == number, "it is too early"
        state.write_text(f"{then - pause} {pause}\n")
    write(node, "unavailable", "")
    heal(node)
    assert not state.exists()


def test_an_image_without_a_name_asks_no_registry(node: ScriptNode, older_and_newer: tuple[int, int]) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    write(node, "names", "sha256:c0f1 index sha256:d1\n")
    assert "held sha256:c0f1 running" in heal(node)
    assert restarts(node) == 0


def test_the_daemon_is_not_restarted_below_a_living_mount(
    node: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    run_on(node, *older_and_newer)
    write(node, "unavailable", f"{CHAIN}\n")
    node.mount_table.write_text(LAZY)  # of containers that run and are not among the older ones
    heal(node)
    assert restarts(node) == 0


def test_nothing_is_healed_while_a_change_is_at_work(node: ScriptNode) -> None:
    write(node, "unavailable", f"{CHAIN}\n")
    journal = node.root / "var/lib/soci-cluster/journal"
    journal.write_text(journal.read_text().replace("state=committed", "state=restarting"))
    assert heal(node) == []
    assert forgotten(node) == []


# After a boot, which empties the memory of pull secrets

HOST = IMAGE.partition("/")[0]
OTHER_HOST = "other.example"
AWAITED = "pull secrets are awaited"


@pytest.fixture
def booted(node: ScriptNode) -> ScriptNode:
    """A node whose daemon has started, and whose layers did not come back: the agent has not read again what
    opens these registries."""
    write(node, "unavailable", f"{CHAIN}\n")
    write(node, f"pid-{FIRST.unit}", f"{os.getpid()}\n")
    remember(node, OTHER_HOST, HOST)
    return node


def remember(node: ScriptNode, *hosts: str) -> None:
    (node.root / "var/lib/soci-cluster/pull-secret-hosts").write_text("".join(f"{host}\n" for host in hosts))


def wait_only(node: ScriptNode, seconds: int) -> None:
    script = node.root / "opt/soci-cluster/soci-host.sh"
    text = script.read_text()
    assert "SECRETS_SECONDS=45" in text
    script.write_text(text.replace("SECRETS_SECONDS=45", f"SECRETS_SECONDS={seconds}"))


def bring_secrets(node: ScriptNode, *hosts: str) -> None:
    """As the agent does: the files first, then the word that all were read."""
    folder = node.root / "run/soci-cluster/pull-secrets"
    folder.mkdir(parents=True, exist_ok=True)
    for host in hosts:
        (folder / host).write_text("{}\n")
    hundredths = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 100)
    folder.with_suffix(".read").write_text(f"{hundredths}\n")


def restart_brings_layers(node: ScriptNode) -> None:
    (node.fake / f"on-restart-{FIRST.unit}").write_text('rm -f "$FAKE/unavailable"\n')


def start_heal(node: ScriptNode) -> subprocess.Popen[str]:
    """A heal that waits."""
    process = node.start("heal")
    assert process.stderr
    assert AWAITED in process.stderr.readline()
    return process


def heal_until_secrets(node: ScriptNode, *hosts: str) -> list[str]:
    """The words of a heal that waits, and goes on once these registries' secrets are there."""
    process = start_heal(node)
    bring_secrets(node, *hosts)
    return words(process)


def words(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return sorted(output.splitlines())


def test_layers_that_a_pull_secret_opens_come_back_with_it(booted: ScriptNode) -> None:
    """The image was forgotten, and its next pull came before the secret, too: it was whole from then on."""
    restart_brings_layers(booted)
    assert heal_until_secrets(booted, HOST) == []
    assert (forgotten(booted), restarts(booted)) == ([], 1)


def test_a_secret_that_is_gone_for_good_does_not_keep_the_others_waiting(booted: ScriptNode) -> None:
    """Its name stays on the list of registries after its pod has gone."""
    restart_brings_layers(booted)
    with (booted.fake / "names").open("a") as names:
        names.write(f"{OTHER_HOST}/app:1 index sha256:d1\n")
    assert heal_until_secrets(booted, HOST) == []
    assert (forgotten(booted), restarts(booted)) == ([], 1)


def test_of_two_heals_that_wait_one_brings_the_layers_back(booted: ScriptNode) -> None:
    """That of the daemon's unit, and the agent's."""
    restart_brings_layers(booted)
    processes = [start_heal(booted), start_heal(booted)]
    bring_secrets(booted, HOST)
    assert [words(process) for process in processes] == [[], []]
    assert (forgotten(booted), restarts(booted)) == ([], 1)


def test_a_heal_that_comes_after_the_secrets_brings_the_layers_back(booted: ScriptNode) -> None:
    """They were read after the daemon's start; the heal that waited for them was killed, say."""
    restart_brings_layers(booted)
    start_heal(booted).kill()
    bring_secrets(booted, HOST)
    assert heal(booted) == []
    assert (forgotten(booted), restarts(booted)) == ([], 1)


def test_layers_that_stay_away_with_their_secret_are_forgotten(booted: ScriptNode) -> None:
    process = start_heal(booted)
    bring_secrets(booted, HOST)
    write(booted, f"pid-{FIRST.unit}", f"{os.getpid()}\n")
    assert words(process) == FORGOTTEN
    assert restarts(booted) == 2, "for the secret, and to forget"


def test_a_daemon_that_started_after_the_secrets_were_read_is_not_restarted_for_them(
    booted: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    bring_secrets(booted, HOST)
    hundredths = booted.root / "run/soci-cluster/pull-secrets.read"
    with subprocess.Popen(["sleep", "600"]) as daemon:
        write(booted, f"pid-{FIRST.unit}", f"{daemon.pid}\n")
        hundredths.write_text(f"{int(hundredths.read_text()) - 100}\n")
        assert sorted(heal(booted)) == FORGOTTEN
        daemon.kill()
    assert restarts(booted) == 1, "to forget"


def test_pull_secrets_that_do_not_come_are_awaited_once_for_each_start_of_the_daemon(
    booted: ScriptNode, older_and_newer: tuple[int, int]
) -> None:
    """While an image is held a heal follows the other, and nobody hears of broken pods meanwhile."""
    wait_only(booted, 1)
    run_on(booted, *older_and_newer)
    booted.set("no-registry")
    done = [booted.run("heal") for _ in range(2)]
    assert [AWAITED in one.stderr for one in done] == [True, False]
    assert "broken running" in done[0].stdout
    assert forgotten(booted) == []


def test_what_pull_secrets_would_have_opened_is_forgotten_when_they_do_not_come(booted: ScriptNode) -> None:
    wait_only(booted, 1)
    done = booted.run("heal")
    assert AWAITED in done.stderr
    assert sorted(done.stdout.splitlines()) == FORGOTTEN
    assert restarts(booted) == 1, "to forget: it could bring nothing back"


@pytest.mark.parametrize("hosts", [(), (OTHER_HOST, f"x{HOST}", f"{HOST}x")])
def test_no_pull_secret_is_awaited_for_a_registry_that_never_had_one(
    booted: ScriptNode, hosts: tuple[str, ...]
) -> None:
    remember(booted, *hosts)
    done = booted.run("heal")
    assert AWAITED not in done.stderr
    assert len(forgotten(booted)) == 1


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("docker.io/library/app:1", "index.docker.io"),
        ("registry-1.docker.io/library/app:1", "index.docker.io"),
        ("Registry.Example:5000/app:1", "registry.example:5000"),
    ],
)
def test_a_registry_is_known_by_the_name_that_the_agent_has_for_it(
    booted: ScriptNode, image: str, host: str
) -> None:
    remember(booted, host)
    write(booted, "names", f"{image} index sha256:d1\n")
    restart_brings_layers(booted)
    assert heal_until_secrets(booted, host) == []
    assert (forgotten(booted), restarts(booted)) == ([], 1)


def test_no_pull_secret_is_awaited_while_everything_starts(booted: ScriptNode) -> None:
    write(booted, "unavailable", "")
    done = booted.run("heal")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_whoever_changes_the_node_is_not_kept_waiting_for_a_pull_secret(booted: ScriptNode) -> None:
    """An install, an uninstall, and each start of containerd, which the agent's own pod needs."""
    process = start_heal(booted)
    lock = booted.root / "var/lib/soci-cluster/lock"
    assert subprocess.run(["flock", "-w", "0", lock, "true"], check=False).returncode == 0
    (booted.root / "var/lib/soci-cluster/current").unlink()
    bring_secrets(booted, HOST)
    assert words(process) == [], "it was uninstalled meanwhile"
    assert forgotten(booted) == []


def test_the_daemon_is_not_restarted_for_a_pull_secret_below_a_living_mount(booted: ScriptNode) -> None:
    write(booted, f"pid-{FIRST.unit}", "1\n")  # whatever runs was started after it
    booted.mount_table.write_text(LAZY)
    assert heal_until_secrets(booted, HOST) == FORGOTTEN
    assert restarts(booted) == 0


INGEST = "var/lib/containerd/io.containerd.content.v1.content/ingest"


def ingest(node: ScriptNode, name: str, ref: str, namespace: str = "k8s.io") -> Path:
    """What a pull has written of a layer so far."""
    folder = node.root / INGEST / name
    folder.mkdir(parents=True)
    (folder / "ref").write_text(f"{namespace}/1/{ref}")
    (folder / "data").write_text("a part")
    node.host.path(CONFIG).write_bytes(b'root = "/var/lib/containerd"\n' + NEW_CONFIG)
    return folder


def test_what_a_pull_that_was_cut_short_left_of_a_layer_is_removed(node: ScriptNode) -> None:
    """A daemon that pulls in parallel appends to it: for a day no pull of the image ended well."""
    left = ingest(node, "1", "sha256:aa")
    at_work = ingest(node, "2", "sha256:bb")
    of_containerd = ingest(node, "3", "layer-sha256:cc")
    of_others = ingest(node, "4", "sha256:dd", namespace="default")
    begun = ingest(node, "5", "sha256:ee")
    (begun / "data").unlink()
    with (at_work / "data").open():
        done = node.run("heal")
    assert not left.exists()
    assert all(folder.exists() for folder in (at_work, of_containerd, of_others, begun))
    assert "sha256:aa" in done.stderr


def test_what_a_failed_pull_left_of_a_layer_is_removed_while_the_daemon_runs(node: ScriptNode) -> None:
    look = heal_of_agent.clear_cut_pulls(f"{node.root}/var/lib/containerd")[-1]
    assert SCRIPT in look
    command = ["sh", "-c", look.replace(SCRIPT, f"{node.root}{SCRIPT}")]
    node.run_command(command)
    assert node.calls("") == [], "nothing is there to be looked at"
    left = ingest(node, "1", "sha256:aa")
    done = node.run_command(command)
    assert (done.returncode, done.stdout) == (1, ""), "nobody is called back"
    assert not left.exists()


def test_no_daemon_is_restarted_while_it_pulls_in_parallel(node: ScriptNode) -> None:
    """Of such a pull containerd lists no snapshot."""
    write(node, "unavailable", f"{CHAIN}\n")
    at_work = ingest(node, "1", "sha256:bb")
    with (at_work / "data").open():
        assert sorted(heal(node)) == FORGOTTEN
    assert restarts(node) == 0


def test_no_daemon_is_restarted_while_it_pulls_in_parallel_and_keeps_no_blob(node: ScriptNode) -> None:
    """The layer is nowhere in containerd's content store then: the restart cut the pull short."""
    write(node, "unavailable", f"{CHAIN}\n")
    layer = node.host.path(f"{FIRST.data}/unpack/1/ingest")
    layer.parent.mkdir(parents=True)
    layer.write_text("a part")
    with layer.open():
        assert sorted(heal(node)) == FORGOTTEN
    assert restarts(node) == 0
