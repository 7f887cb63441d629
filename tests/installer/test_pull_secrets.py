"""Pull secrets of the node's own pods reach the daemon, and nothing else does."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from agent import __main__ as program
from agent import credential_helper, pull_secret_choice, pull_secret_files, pull_secrets
from agent.credential import Credential
from agent.errors import InstallError
from agent.host import Result
from agent.image_reference import Image, parse_image
from agent.kubelet_identity import KubeletIdentity
from agent.pull_secret_choice import Question
from agent.pull_secret_content import Content, Entry, Pod
from agent.pull_secret_files import CONFLICTS, PROBLEMS
from agent.pull_secrets import Keeper
from agent.reflector import Reflector, read_list

from tests.fakes.api_server import NODE, ApiServer, auth, pod, secret
from tests.fakes.kubelet_node import KubeletNode, kept_credentials
from tests.fakes.node import INSTALLER
from tests.waiting import wait_for

HARBOR = "harbor.corp"
SOON = 5.0  # seconds: a rotated secret has to be in place by then
SECRET = "t0psecret"


def line(host: str, user: str, password: str) -> str:
    server = "https://index.docker.io/v1/" if host == "index.docker.io" else host
    answer = {"ServerURL": server, "Username": user, "Secret": password}
    return json.dumps(answer, separators=(",", ":")) + "\n"


class Registries:
    """What registries would answer; stands where `pull_secrets.ask_registry` does."""

    def __init__(self) -> None:
        self.readable: dict[tuple[str, str], bool | None] = {}  # image and password
        self.asked: list[tuple[str, str]] = []
        self.own: dict[str, Credential | None] = {}  # the node's own, by host
        self.asked_for_own: list[str] = []

    def of_node(self, host: str) -> Credential | None:
        """Stands where `pull_secrets.credential_of_node` does."""
        self.asked_for_own.append(host)
        return self.own.get(host)

    def __call__(self, question: Question) -> bool | None:
        image, credential = question
        self.asked.append((image.name, credential.secret))
        return self.readable.get((image.name, credential.secret), False)


class SecretKeeper:
    """The process on a node: started, ended, looked at."""

    def __init__(self, root: Path, server: ApiServer) -> None:
        self.node = KubeletNode(root, server)
        self.registries = Registries()
        self.ask: Callable[[Question], bool | None] = self.registries
        self.log: list[str] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ended.clear()
        keeper = Keeper(
            self.node,
            NODE,
            identity=KubeletIdentity(self.node),
            log=self.log.append,
            ask=self.ask,
            ask_own=self.registries.of_node,
        )
        self._thread = threading.Thread(target=keeper.run, args=(self._ended,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join(10)
            assert not self._thread.is_alive()
            self._thread = None

    @property
    def files(self) -> dict[str, str]:
        return kept_credentials(self.node)

    def holds(self, **files: str) -> None:
        """Wait until the node has exactly these; dots of hosts as underscores."""
        wanted = {host.replace("_", "."): text for host, text in files.items()}
        self.has(wanted)

    def has(self, wanted: dict[str, str]) -> None:
        try:
            wait_for(lambda: self.files == wanted, SOON, "the files")
        except AssertionError:
            assert self.files == wanted, self.log

    def says(self, *words: str) -> None:
        """Wait until a problem has all of these words."""

        def is_said() -> bool:
            lines = ["\t".join(problem) for problem in pull_secret_files.problems(self.node)]
            return any(all(word in line for word in words) for line in lines)

        try:
            wait_for(is_said, SOON, "the problem")
        except AssertionError:
            assert pull_secret_files.problems(self.node) == " ".join(words)


@pytest.fixture
def server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api"))
    yield server
    server.stop()


@pytest.fixture
def machine(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretKeeper]:
    """Not started yet; it is less patient than the true one."""
    monkeypatch.setattr(pull_secrets, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pull_secrets, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(pull_secrets, "AGAIN_SECONDS", 0.3)
    machine = SecretKeeper(tmp_path / "root", server)
    yield machine
    machine.stop()


def run_one(machine: SecretKeeper, server: ApiServer) -> None:
    """One pod with a secret, whose credential is on the node."""
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


# Life of a credential


def test_a_secret_is_there_for_as_long_as_a_pod_names_it(machine: SecretKeeper, server: ApiServer) -> None:
    machine.start()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot$shop", "a:b:c")}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.holds(harbor_corp=line(HARBOR, "robot$shop", "a:b:c"))
    server.put("pods", pod("shop/b", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    server.delete("pods", "shop/a")
    # An ended pod's image is on the node: the next pod of the Job starts from it.
    server.put("pods", pod("shop/b", f"{HARBOR}/shop/app:1", secrets=("pull",), phase="Succeeded"))
    server.put("secrets", secret("shop/other", {"other.corp": auth("u", "p")}))
    server.put("pods", pod("shop/c", "other.corp/x", secrets=("other",)))
    machine.holds(harbor_corp=line(HARBOR, "robot$shop", "a:b:c"), other_corp=line("other.corp", "u", "p"))
    server.delete("pods", "shop/b")
    machine.holds(other_corp=line("other.corp", "u", "p"))
    server.delete("pods", "shop/c")
    machine.holds()


def test_a_rotated_secret_is_in_place_soon_and_nothing_is_asked_again_and_again(
    machine: SecretKeeper, server: ApiServer
) -> None:
    run_one(machine, server)
    for number in range(3):
        server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", f"new{number}")}))
        machine.holds(harbor_corp=line(HARBOR, "robot", f"new{number}"))
    assert server.count("secrets") == 2, "a list and a watch"
    assert server.count("pods") == 2


def test_the_node_remembers_of_which_registries_it_had_files(
    machine: SecretKeeper, server: ApiServer
) -> None:
    """For a heal after a boot; by name alone."""
    run_one(machine, server)
    place = machine.node.path(pull_secret_files.HOSTS)
    wait_for(place.exists, SOON, "the list")
    assert (place.read_text(), stat.S_IMODE(place.stat().st_mode)) == (f"{HARBOR}\n", 0o600)
    server.delete("pods", "shop/a")
    machine.holds()
    server.put("secrets", secret("shop/other", {"other.corp": auth("u", "p")}))
    server.put("pods", pod("shop/c", "other.corp/x", secrets=("other",)))
    wait_for(lambda: place.read_text() == f"other.corp\n{HARBOR}\n", SOON, "those in use first")


def test_of_too_many_registries_those_are_remembered_that_there_were_and_are(machine: SecretKeeper) -> None:
    """Whoever names many others displaces nobody who is in use."""
    most = pull_secret_files.MOST_HOSTS
    machine.node.path(pull_secret_files.HOSTS).parent.mkdir(parents=True, exist_ok=True)
    pull_secret_files.remember(machine.node, {"gone.corp", HARBOR})
    pull_secret_files.remember(machine.node, {HARBOR, *(f"a{number}.corp" for number in range(most))})
    remembered = machine.node.read_text(pull_secret_files.HOSTS).split()
    assert (len(remembered), remembered[0]) == (most, HARBOR)
    assert "gone.corp" not in remembered


def boot(machine: SecretKeeper) -> float:
    """Empty the node's memory, and start the process anew; returns when, in seconds since the boot."""
    machine.stop()
    shutil.rmtree(machine.node.path(pull_secret_files.FOLDER).parent)
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    machine.start()
    return began


def test_after_a_boot_it_is_said_when_all_secrets_have_been_read(
    machine: SecretKeeper, server: ApiServer
) -> None:
    """For a heal, which then looks for what they open. A server that is about to start refuses everything."""
    run_one(machine, server)
    server.statuses["secrets"] = 503
    began = boot(machine)
    read = machine.node.path(pull_secret_files.READ)
    machine.says("secret shop/pull", "503")
    assert not read.exists(), "the secret may come"
    del server.statuses["secrets"]
    wait_for(read.exists, SOON, "all have been read")
    assert HARBOR in machine.files
    first = read.read_text()
    assert began * 100 < int(first) <= time.clock_gettime(time.CLOCK_BOOTTIME) * 100
    server.put("secrets", secret("shop/other", {"other.corp": auth("u", "p")}))
    server.put("pods", pod("shop/c", "other.corp/x", secrets=("other",)))
    wait_for(lambda: "other.corp" in machine.files, SOON, "a later one")
    assert read.read_text() == first


def test_a_secret_that_does_not_exist_is_not_waited_for(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    server.delete("secrets", "shop/pull")
    boot(machine)
    wait_for(machine.node.path(pull_secret_files.READ).exists, SOON, "all have been read")
    assert machine.files == {}


def test_secrets_that_cannot_be_read_put_it_off_only_so_long(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever makes pods that name ever new secrets keeps everybody's images away."""
    monkeypatch.setattr(pull_secrets, "READ_SECONDS", 1.0)
    run_one(machine, server)
    server.statuses["secrets"] = 503
    boot(machine)
    wait_for(machine.node.path(pull_secret_files.READ).exists, SOON, "it is given up")
    assert machine.files == {}


def test_secrets_of_a_contested_registry_have_been_read_when_it_is_decided(
    machine: SecretKeeper, server: ApiServer
) -> None:
    """A heal that came before would find no credential for it, and forget its images."""
    machine.registries.readable = readable(one="one two", two="two", both="one two")
    is_asked, may_answer = threading.Event(), threading.Event()

    def ask(question: Question) -> bool | None:
        is_asked.set()
        may_answer.wait(30)
        return machine.registries(question)

    machine.ask = ask
    two_shops(server)
    machine.start()
    wait_for(is_asked.is_set, SOON, "the first question")
    read = machine.node.path(pull_secret_files.READ)
    assert not read.exists()
    may_answer.set()
    wait_for(read.exists, SOON, "it is decided")
    assert machine.files == {HARBOR: line(HARBOR, "robot-two", "of-two")}


def test_of_a_node_without_soci_nothing_is_remembered(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    place = machine.node.path(pull_secret_files.HOSTS)
    wait_for(place.exists, SOON, "the list")
    shutil.rmtree(machine.node.path(pull_secrets.INSTALLED))
    machine.has({})
    wait_for(lambda: not place.exists(), SOON, "the list is gone")


def test_files_are_roots_alone_and_only_in_memory(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    folder = machine.node.path(pull_secret_files.FOLDER)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / HARBOR).stat().st_mode) == 0o600
    elsewhere = [
        path
        for path in machine.node.root.rglob("*")
        if path.is_file() and folder not in path.parents and SECRET.encode() in path.read_bytes()
    ]
    assert elsewhere == []
    assert SECRET not in "".join(machine.log)


@pytest.mark.parametrize(
    "mounts",
    [
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n",
        "1 0 8:1 / / rw - ext4 d rw\n2 1 0:2 / /run r - tmpfs t r\n3 2 8:2 / /run/soci-cluster r - xfs d r\n",
        "1 0 8:1 / / rw - ext4 d rw\n2 1 0:2 / /ru rw - tmpfs t rw\n",
        "",
    ],
)
def test_without_memory_nothing_is_kept_and_that_is_said(
    machine: SecretKeeper, server: ApiServer, mounts: str
) -> None:
    machine.node.put("/proc/1/mountinfo", mounts)
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "not in memory")
    assert machine.files == {}
    assert server.count("secrets") == 0


def test_a_folder_that_is_a_link_is_not_written_through(
    machine: SecretKeeper, server: ApiServer, tmp_path: Path
) -> None:
    (tmp_path / "root/etc").mkdir(exist_ok=True)
    machine.node.path("/run/soci-cluster").mkdir()
    machine.node.path(pull_secret_files.FOLDER).symlink_to("/etc")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "not root's alone")
    assert not (tmp_path / "root/etc" / HARBOR).exists()


def test_before_the_install_and_after_the_uninstall_nothing_is_written(
    machine: SecretKeeper, server: ApiServer
) -> None:
    current = machine.node.path(f"{pull_secrets.STATE}/current")
    current.rename(current.with_name("later"))
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    wait_for(lambda: server.count("pods", "watch=1") == 1, SOON, "the pods are followed")
    assert not machine.node.path("/run/soci-cluster").exists()
    current.with_name("later").rename(current)
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    (
        machine.node.path(pull_secret_files.FOLDER) / HARBOR
    ).unlink()  # by an uninstall, after which it is installed anew
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


def test_an_uninstall_by_hand_while_the_process_runs(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    memory = machine.node.path("/run/soci-cluster")
    shutil.rmtree(machine.node.path(pull_secrets.STATE))
    shutil.rmtree(memory)
    # What it was just about to write.
    machine.node.write(f"{pull_secret_files.FOLDER}/{HARBOR}", b"{}")
    wait_for(lambda: not memory.exists(), SOON, "nothing is left")
    asked = server.count("secrets")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    server.put("secrets", secret("shop/new", {"new.corp": auth("u", "p")}))
    server.put("pods", pod("shop/b", "new.corp/x", secrets=("new",)))
    time.sleep(3 * pull_secrets.LOOK_SECONDS)
    assert not memory.exists()
    assert server.count("secrets") == asked


def test_a_process_that_starts_anew_takes_over_what_is_there(
    machine: SecretKeeper, server: ApiServer
) -> None:
    run_one(machine, server)
    machine.stop()
    place = machine.node.path(f"{pull_secret_files.FOLDER}/{HARBOR}")
    before = place.stat().st_ino
    machine.node.put(f"{pull_secret_files.FOLDER}/gone.corp", line("gone.corp", "u", "p"))
    machine.node.put(f"{pull_secret_files.FOLDER}/rubbish", "{")
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    assert place.stat().st_ino == before


def test_with_credentials_of_the_node_alone_they_are_taken_away(
    machine: SecretKeeper, server: ApiServer
) -> None:
    run_one(machine, server)
    machine.stop()
    machine.node.put(PROBLEMS, "a\tb\tc\n")
    pull_secret_files.remove(machine.node)
    assert machine.files == {}
    assert not machine.node.exists(PROBLEMS)
    pull_secret_files.remove(machine.node)


# The API server


def test_an_api_server_that_is_away_at_boot(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.reflector.LAST_PAUSE", 1.0)
    server.stop()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "pods", "Connection refused")
    assert len(machine.log) == 1, "once, however often it is tried"
    server.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")


def test_what_was_missed_while_it_was_away_is_made_up_for(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    server.put("secrets", secret("shop/second", {"other.corp": auth("u", "p")}))
    server.put("pods", pod("shop/b", "other.corp/x", secrets=("second",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET), other_corp=line("other.corp", "u", "p"))
    server.stop()
    server.delete("pods", "shop/a")
    server.put("secrets", secret("shop/second", {"other.corp": auth("u", "rotated")}))
    server.start()
    machine.holds(other_corp=line("other.corp", "u", "rotated"))


@pytest.mark.parametrize(
    "end",
    [
        None,
        b"",
        b'{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410}}\n',
        b'{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":500}}\n',
        b'{"type":"MODIFIED","object":{"meta',
        b"rubbish\n",
    ],
    ids=["reset", "end", "expired", "error", "half a line", "rubbish"],
)
def test_a_watch_that_ends_goes_on(machine: SecretKeeper, server: ApiServer, end: bytes | None) -> None:
    run_one(machine, server)
    server.cut(end)
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    server.put("pods", pod("shop/b", "docker.io/x/y", secrets=("pull",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", "rotated"))


def test_a_place_that_the_server_has_forgotten_begins_anew(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    server.stop()
    server.delete("pods", "shop/a")
    server.put("secrets", secret("shop/new", {"new.corp": auth("u", "p")}))
    server.put("pods", pod("shop/b", "new.corp/x", secrets=("new",)))
    server.forget_the_past()
    server.start()
    machine.holds(new_corp=line("new.corp", "u", "p"))


def test_a_server_that_refuses_is_not_stormed(machine: SecretKeeper, server: ApiServer) -> None:
    server.statuses["/api/v1/pods"] = 429
    machine.start()
    machine.says("pods", "429 Too Many Requests")
    assert server.count("pods") <= 5
    server.statuses.clear()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


def test_a_token_that_has_expired_is_made_anew(machine: SecretKeeper, server: ApiServer) -> None:
    """The plugin's token is refused before its end, as after a jump of the node's clock."""
    tokens = machine.node.root / "token"
    tokens.write_text("old")
    machine.node.use_plugin(f'printf \'{{"status":{{"token":"%s"}}}}\' "$(cat {tokens})"')
    server.tokens = {"old": f"system:node:{NODE}"}
    run_one(machine, server)
    tokens.write_text("new")
    server.tokens = {"new": f"system:node:{NODE}"}
    server.cut()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    machine.holds(harbor_corp=line(HARBOR, "robot", "rotated"))


def test_a_certificate_that_rotates(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    machine.node.identify("expired", "nobody")
    server.cut()
    wait_for(lambda: server.requests[-1][2] == "nobody", SOON, "the refusal")
    assert machine.files, "what is known stays"
    machine.node.identify("rotated", f"system:node:{NODE}")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    machine.holds(harbor_corp=line(HARBOR, "robot", "rotated"))


def test_a_problem_that_comes_back_is_said_again(machine: SecretKeeper, server: ApiServer) -> None:
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("secret shop/pull", "no such secret")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")
    server.delete("secrets", "shop/pull")
    machine.says("secret shop/pull", "was deleted")
    assert [message.partition(":")[0] for message in machine.log] == ["secret shop/pull"] * 2


def test_a_process_that_fails_is_a_problem_until_it_works_again(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(
        machine.node,
        NODE,
        identity=KubeletIdentity(machine.node),
        log=print,
        ask=machine.registries,
        ask_own=lambda registry: None,
    )
    monkeypatch.setattr(keeper, "_settle", lambda: {}["https://user:topsecret@x"])
    pull_secrets.attempt(keeper, machine.node, machine.log.append)
    ((finding, subject, cause),) = pull_secret_files.problems(machine.node)
    assert (finding, subject) == ("pull-secrets-unread", "process")
    assert "KeyError" in cause
    assert "topsecret" not in "".join((cause, *machine.log))
    machine.start()
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")


# Secrets as they are


def test_a_right_that_comes_a_moment_after_the_pod(machine: SecretKeeper, server: ApiServer) -> None:
    server.statuses["secrets"] = 403
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "secret shop/pull", "403 Forbidden", "shop/a")
    server.statuses.clear()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")


def test_a_secret_that_is_missing_is_named_and_taken_when_it_comes(
    machine: SecretKeeper, server: ApiServer
) -> None:
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", "good.corp/x", secrets=("pull", "good")))
    server.put("pods", pod("shop/b", "docker.io/library/alpine"))
    server.put("secrets", secret("shop/good", {"good.corp": auth("u", "p")}))
    machine.start()
    machine.says("secret shop/pull", "no such secret")
    machine.holds(good_corp=line("good.corp", "u", "p"))
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    machine.holds(good_corp=line("good.corp", "u", "p"), harbor_corp=line(HARBOR, "robot", SECRET))


def test_a_pod_outlives_its_secret(machine: SecretKeeper, server: ApiServer) -> None:
    """Also when the process starts anew; the right is taken away in the registry."""
    run_one(machine, server)
    server.delete("secrets", "shop/pull")
    machine.says("secret shop/pull", "was deleted")
    assert machine.files == {HARBOR: line(HARBOR, "robot", SECRET)}
    machine.stop()
    machine.start()
    machine.says("secret shop/pull", "no such secret")
    assert machine.files == {HARBOR: line(HARBOR, "robot", SECRET)}
    server.delete("pods", "shop/a")
    machine.holds()


def test_a_registry_that_leaves_a_secret_is_forgotten(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    server.put("secrets", secret("shop/pull", {"other.corp": auth("robot", SECRET)}))
    machine.holds()


def test_keys_as_people_have_them(machine: SecretKeeper, server: ApiServer) -> None:
    auths = {
        "https://index.docker.io/v1/": auth("hub", "1"),
        "https://quay.io/v2/": {"username": "quay", "password": "2"},
        "harbor.corp/project": auth("harbor", "3"),
        "registry.corp:5000": {"identitytoken": "refresh", "auth": auth("x", "y")["auth"]},
        "*.globs.io": auth("glob", "4"),
        "Upper.Corp": auth("upper", "5"),
        "http://plain:8080": auth("plain", "6"),
    }
    auths["unused.corp"] = auth("of no image", "7")
    images = ("a.globs.io/x", "a.b.globs.io/x", "globs.io/x", "b.globs.io:5000/x", "nginx", "quay.io/x")
    images += ("harbor.corp/project/x", "registry.corp:5000/x", "upper.corp/x", "plain:8080/x")
    server.put("secrets", secret("shop/pull", auths))
    server.put("pods", pod("shop/a", *images, secrets=("pull",)))
    machine.start()
    machine.has(
        {
            "a.globs.io": line("a.globs.io", "glob", "4"),
            "harbor.corp": line("harbor.corp", "harbor", "3"),
            "index.docker.io": line("index.docker.io", "hub", "1"),
            "plain:8080": line("plain:8080", "plain", "6"),
            "quay.io": line("quay.io", "quay", "2"),
            "registry.corp:5000": line("registry.corp:5000", "<token>", "refresh"),
            "upper.corp": line("upper.corp", "upper", "5"),
        }
    )


def test_the_older_kind_of_secret(machine: SecretKeeper, server: ApiServer) -> None:
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}, kind="dockercfg"))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/x",
        "..",
        "/etc/passwd",
        "https://../x",
        "https://..%2f..%2fetc",
        "a/../../b@c",
        "user@harbor.corp",
        "[::1]:5000",
        ".hidden",
        "harbor.corp\n",
        "h\0",
        "",
        " ",
        "host:port",
        "x" * 300,
    ],
)
def test_no_key_names_a_file_elsewhere(machine: SecretKeeper, server: ApiServer, key: str) -> None:
    server.put("secrets", secret("shop/pull", {key: auth("robot", SECRET), "good.corp": auth("u", "p")}))
    images = ("../../x/y", "[::1]:5000/x/y", "good.corp/x", "a/x", "harbor.corp/x")
    server.put("pods", pod("shop/a", *images, secrets=("pull",)))
    machine.start()
    wait_for(lambda: "good.corp" in machine.files, SOON, "the good key")
    assert set(machine.files) <= {"good.corp", "harbor.corp"}
    folder = machine.node.path("/run/soci-cluster")
    names = {path.name for path in folder.iterdir()} - {"pull-secrets.new"}  # while one is written
    marks = {"pull-secrets.problems", "pull-secrets.alive", "pull-secrets.read"}
    assert names <= {"pull-secrets", *marks}
    if key.strip() not in ("harbor.corp", "a/../../b@c"):  # which is for a, a name of Docker Hub in images
        machine.says("pull-secrets-unread", "secret shop/pull", "names no registry")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("{", "dockerconfigjson", "no JSON"),
        ("[]", "dockerconfigjson", "no JSON"),
        ('{"auths": 5}', "dockerconfigjson", "no JSON"),
        ('{"auths": {"x.io": {}}}', "dockerconfigjson", "entry 1 has no user with password"),
        ('{"auths": {"x.io": {"auth": "%%"}}}', "dockerconfigjson", "entry 1 has no user with password"),
        ('{"auths": {"x.io": {"auth": "caf\u00e9"}}}', "dockerconfigjson", "entry 1 has no user with"),
        ('{"auths": {"x.io": 7}}', "dockerconfigjson", "entry 1 has no user with password"),
        ("{}", "tls", "kubernetes.io/tls, none of a registry's"),
        ("[" * 100_000, "dockerconfigjson", "no JSON"),
    ],
)
def test_a_secret_that_is_none_is_named(
    machine: SecretKeeper, server: ApiServer, content: str, kind: str, said: str
) -> None:
    server.put("secrets", secret("shop/pull", content, kind=kind))
    server.put("pods", pod("shop/a", "x.io/y", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "secret shop/pull", said)
    assert machine.files == {}


def test_a_giant_secret(machine: SecretKeeper, server: ApiServer) -> None:
    auths = {f"r{number}.corp": auth("u", f"p{number}") for number in range(9000)}  # about a MiB
    server.put("secrets", secret("shop/pull", auths))
    server.put("pods", pod("shop/a", "r7.corp/y", secrets=("pull",)))
    machine.start()
    machine.holds(r7_corp=line("r7.corp", "u", "p7"))
    server.delete("pods", "shop/a")
    machine.holds()


# Several credentials for one registry


def two_shops(server: ApiServer) -> None:
    for shop in ("one", "two"):
        server.put("secrets", secret(f"{shop}/pull", {HARBOR: auth(f"robot-{shop}", f"of-{shop}")}))
    server.put("pods", pod("one/a", f"{HARBOR}/one/app:1", f"{HARBOR}/both/base:1", secrets=("pull",)))
    server.put("pods", pod("two/b", f"{HARBOR}/two/app:1", secrets=("pull",)))


def readable(**images: str) -> dict[tuple[str, str], bool | None]:
    """Of each project's image the shops that may read it, in one word."""
    names = {"one": "one/app:1", "two": "two/app:1", "both": "both/base:1"}
    return {
        (f"{HARBOR}/{names[image]}", f"of-{shop}"): shop in shops.split()
        for image, shops in images.items()
        for shop in ("one", "two")
    }


def test_the_one_that_reads_most_is_kept_and_the_rest_is_named(
    machine: SecretKeeper, server: ApiServer
) -> None:
    machine.registries.readable = readable(one="one", two="two", both="one")
    two_shops(server)
    machine.start()
    machine.says(
        "conflicting-credentials\tharbor.corp\t",
        "2 different credentials",
        "that of one/pull is kept, not that of two/pull, which alone reads harbor.corp/two/app:1",
    )
    assert machine.files == {HARBOR: line(HARBOR, "robot-one", "of-one")}
    wait_for(lambda: len(server.told) == 1, SOON, "the Event")
    (event,) = server.told
    assert (event["type"], event["reason"]) == ("Warning", "ConflictingCredentials")
    assert event["involvedObject"]["name"] == NODE
    assert HARBOR in event["message"]
    assert "of-one" not in json.dumps(event)
    assert pull_secret_files.conflicts(machine.node)[0].startswith(
        "registry harbor.corp: pods of this node have 2"
    )
    machine.stop()
    machine.start()
    wait_for(lambda: server.count("events") == 2, SOON, "the second start")
    assert len(server.told) == 1, "once"
    server.delete("pods", "two/b")
    wait_for(lambda: not machine.node.exists(CONFLICTS), SOON, "nothing is wrong any more")


def test_a_credential_that_reads_everything_is_no_problem(machine: SecretKeeper, server: ApiServer) -> None:
    machine.registries.readable = readable(one="one two", two="two", both="one two")
    two_shops(server)
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot-two", "of-two"))
    assert pull_secret_files.problems(machine.node) == []
    asked = len(machine.registries.asked)
    assert asked == len(set(machine.registries.asked)) == 6, "each question once"


def test_the_same_credential_in_many_namespaces_is_one(machine: SecretKeeper, server: ApiServer) -> None:
    for number in range(5):
        server.put("secrets", secret(f"n{number}/pull", {HARBOR: auth("robot", SECRET)}))
        server.put("pods", pod(f"n{number}/a", f"{HARBOR}/p/app:{number}", secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    assert machine.registries.asked == []


def test_a_registry_that_does_not_answer_decides_nothing(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    silent: dict[tuple[str, str], bool | None] = dict.fromkeys(
        [(f"{HARBOR}/shop/app:1", word) for word in (SECRET, "newer")]
    )
    machine.registries.readable = dict(silent)
    server.put("secrets", secret("shop/newer", {HARBOR: auth("robot", "newer")}))
    server.put("pods", pod("shop/b", f"{HARBOR}/shop/app:1", secrets=("newer",)))
    machine.says("conflicting-credentials", "does not say who reads harbor.corp/shop/app:1")
    assert machine.files == {HARBOR: line(HARBOR, "robot", SECRET)}
    # The present one was revoked when the copy of it in the other secret was rotated.
    machine.registries.readable = {**silent, (f"{HARBOR}/shop/app:1", "newer"): True}
    machine.registries.readable[f"{HARBOR}/shop/app:1", SECRET] = False
    machine.holds(harbor_corp=line(HARBOR, "robot", "newer"))


def test_a_credential_for_which_no_image_runs_is_no_rival(machine: SecretKeeper, server: ApiServer) -> None:
    """A path in the key, an ended pod, a list of all the company's registries."""
    run_one(machine, server)
    server.put("secrets", secret("other/path", {f"{HARBOR}/elsewhere": auth("robot", "path")}))
    server.put("pods", pod("other/a", f"{HARBOR}/shop/app:1", secrets=("path",)))
    server.put("secrets", secret("other/ended", {HARBOR: auth("robot", "ended")}))
    server.put("pods", pod("other/b", f"{HARBOR}/x:1", secrets=("ended",), phase="Failed"))
    server.put("secrets", secret("other/list", {HARBOR: auth("a", "list"), "last.corp": auth("u", "p")}))
    server.put("pods", pod("other/c", "docker.io/x/y", "last.corp/x", secrets=("list",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET), last_corp=line("last.corp", "u", "p"))
    asked = {password for _, password in machine.registries.asked}
    assert asked <= {SECRET, ""}, "the pod without one for its image has the node's own way"


# The node's own way


APP = f"{HARBOR}/shop/app:1"
ROLE = Credential("AWS", "of-role")


def read_by(machine: SecretKeeper, **images: str) -> None:
    """Which passwords read each of the shop's images; of nobody it is `nobody`."""
    for name, words in images.items():
        for word in (SECRET, "of-role", "nobody", "better"):
            machine.registries.readable[f"{HARBOR}/shop/{name}:1", word.replace("nobody", "")] = (
                word in words.split()
            )


def test_a_stale_secret_does_not_shadow_the_nodes_role(machine: SecretKeeper, server: ApiServer) -> None:
    """An ECR token of twelve hours: the kubelet goes on to the role, the daemon does not."""
    machine.registries.own[HARBOR] = ROLE
    read_by(machine, app="of-role")
    server.put("secrets", secret("old/regcred", {HARBOR: auth("AWS", SECRET)}))
    server.put("pods", pod("old/a", APP, secrets=("regcred",)))
    server.put("pods", pod("shop/b", APP))
    machine.start()
    wait_for(lambda: len(machine.registries.asked) == 2, SOON, "both ways are tried")
    machine.holds()
    assert not machine.node.exists(PROBLEMS), "nothing is lost"


def test_a_secret_that_ends_makes_room_for_the_role(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_secrets, "KNOWN_SECONDS", 0.5)
    monkeypatch.setattr(pull_secrets, "OWN_SECONDS", 0.1)
    read_by(machine, app=SECRET)
    run_one(machine, server)
    machine.registries.own[HARBOR] = ROLE
    read_by(machine, app=f"of-role {SECRET}")
    machine.holds()
    read_by(machine, app=SECRET)
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    read_by(machine, app="of-role")
    machine.holds()


def test_a_junk_secret_does_not_take_public_images_away(machine: SecretKeeper, server: ApiServer) -> None:
    read_by(machine, app="nobody", other="nobody")
    server.put("pods", pod("shop/b", APP))
    server.put("secrets", secret("evil/junk", {HARBOR: auth("x", SECRET)}))
    server.put("pods", pod("evil/a", f"{HARBOR}/shop/other:1", secrets=("junk",)))
    machine.start()
    wait_for(lambda: len(machine.registries.asked) == 4, SOON, "both ways are tried with both images")
    for number in range(3):  # nor for a moment
        server.put("secrets", secret("evil/junk", {HARBOR: auth("x", f"junk{number}")}))
        wait_for(lambda n=number: (APP, f"junk{n}") in machine.registries.asked, SOON, "it is tried")
        assert machine.files == {}
    machine.holds()


def test_the_secret_that_reads_what_the_node_does_not_is_kept_and_the_loss_is_named(
    machine: SecretKeeper, server: ApiServer
) -> None:
    machine.registries.own[HARBOR] = ROLE
    read_by(machine, app=SECRET, two=SECRET, role="of-role")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", APP, f"{HARBOR}/shop/two:1", secrets=("pull",)))
    server.put("pods", pod("role/b", f"{HARBOR}/shop/role:1"))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    machine.says(
        "conflicting-credentials",
        "that of shop/pull is kept, not the node's own credentials, which alone reads",
        "harbor.corp/shop/role:1",
    )
    server.delete("pods", "shop/a")
    server.put("pods", pod("shop/a", APP, secrets=("pull",)))
    server.put("pods", pod("role/c", f"{HARBOR}/shop/role2:1"))
    read_by(machine, role2="of-role")
    machine.holds()
    machine.says("the node's own credentials are kept, not that of shop/pull", "shop/app:1")


def test_a_silent_registry_leaves_a_secret_only_where_the_node_has_nothing(
    machine: SecretKeeper, server: ApiServer
) -> None:
    machine.registries.readable = dict.fromkeys([(APP, word) for word in (SECRET, "of-role", "")])
    server.put("pods", pod("shop/b", APP))
    run_one(machine, server)
    wait_for(lambda: len(machine.registries.asked) >= 2, SOON, "nobody is tried, too")
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    machine.stop()
    machine.registries.own[HARBOR] = ROLE
    machine.start()
    machine.holds()


def test_one_secret_that_all_pods_have_is_kept_unasked(machine: SecretKeeper, server: ApiServer) -> None:
    run_one(machine, server)
    server.put("pods", pod("shop/b", f"{HARBOR}/shop/b:1", secrets=("pull",)))
    wait_for(lambda: bool(machine.registries.asked_for_own), SOON, "the helper is asked")
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    assert (machine.registries.asked, machine.registries.asked_for_own) == ([], [HARBOR])


def test_pods_that_have_pulled_nothing_do_not_outvote_those_that_read(
    machine: SecretKeeper, server: ApiServer
) -> None:
    """Forty images that a pod merely names; and for an equal number in use, the one that waits is heard."""
    run_one(machine, server)
    names = [f"n{number}" for number in range(8)]
    read_by(machine, app=SECRET, **dict.fromkeys(names, "better"))
    server.put("secrets", secret("evil/pull", {HARBOR: auth("x", "better")}))
    waiting = pod("evil/a", *(f"{HARBOR}/shop/{name}:1" for name in names), secrets=("pull",))
    statuses = [{"name": f"c{number}", "imageID": ""} for number in range(8)]
    waiting["status"] |= {"containerStatuses": statuses}
    server.put("pods", waiting)
    machine.says("that of shop/pull is kept, not that of evil/pull")
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    read_by(machine, app=f"{SECRET} better")
    server.put("secrets", secret("evil/pull", {HARBOR: auth("y", "better")}))
    machine.holds(harbor_corp=line(HARBOR, "y", "better"))


@pytest.mark.parametrize(
    ("code", "output", "found"),
    [
        (0, '{"ServerURL":"x","Username":"AWS","Secret":"of-role"}\n', ROLE),
        (1, "credentials not found in native keychain\n", None),
    ],
)
def test_the_nodes_own_way_is_asked_without_pull_secrets(
    machine: SecretKeeper, code: int, output: str, found: Any
) -> None:
    machine.node.answers[credential_helper.HELPER] = lambda command, text: Result(code, output, "")
    assert credential_helper.get(machine.node, HARBOR, {}, is_own=True) == found
    assert machine.node.commands[-1] == (credential_helper.HELPER, "own")


@pytest.mark.parametrize(("code", "output"), [(1, ""), (127, ""), (0, "[]"), (0, '{"Username":"AWS"}')])
def test_a_helper_that_fails_does_not_say_that_there_is_nothing(
    machine: SecretKeeper, code: int, output: str
) -> None:
    machine.node.answers[credential_helper.HELPER] = lambda command, text: Result(code, output, "")
    with pytest.raises(InstallError, match="credential helper failed"):
        credential_helper.get(machine.node, HARBOR, {}, is_own=True)


# What one tenant does to others


def test_what_a_tenant_brings_is_limited_and_what_was_cut_is_named(
    machine: SecretKeeper, server: ApiServer
) -> None:
    server.put("secrets", secret("evil/glob", {"*.corp": auth("x", "junk"), "a.b": auth("x", "y" * 20_000)}))
    images = [f"r{number}.corp/x" for number in range(200)]
    names = tuple(f"s{number}" for number in range(31))
    server.put("pods", pod("evil/a", *images, secrets=("glob", *names)))
    server.put("pods", pod("evil/b", "docker.io/x/y", secrets=tuple(f"t{number}" for number in range(31))))
    server.put("secrets", secret("shop/pull", {"z.io": auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", "z.io/x", secrets=("pull",)))
    machine.start()
    wait_for(lambda: "z.io" in machine.files, SOON, "the other tenant's")
    wait_for(lambda: len(machine.files) == 65, SOON, "those of the one with a pattern")
    machine.says("limits", "namespace evil has pull secrets for more than 64 registries")
    machine.says("namespace evil", "of 63 secrets that pods name only 32 are read")
    machine.says("secret evil/glob", "its entry 2 has a credential of more than 16 KiB")
    assert server.count("namespaces/evil/secrets", "watch") <= 32
    assert threading.active_count() < 200


def test_many_credentials_for_one_registry_are_few_questions() -> None:
    claimed, _ = pull_secret_choice.claims(
        {
            f"evil/{number}": Pod(
                (f"evil/s{number}",), tuple(image(f"{HARBOR}/x/{number}-{more}") for more in range(50))
            )
            for number in range(200)
        },
        {
            f"evil/s{number}": Content((Entry(HARBOR, "", Credential("u", f"{number}")),))
            for number in range(200)
        },
    )
    choice = pull_secret_choice.choose(claimed, {}, {}, {}, {})
    assert 0 < len(choice.questions) <= 400
    assert choice.kept.keys() == {HARBOR}


def image(name: str) -> Image:
    found = parse_image(name)
    assert found
    return found


def test_a_name_that_is_too_long_for_a_file_stops_nothing(machine: SecretKeeper, server: ApiServer) -> None:
    name = ".".join(["a" * 63] * 4) + ":123"  # 259 characters
    server.put("secrets", secret("evil/pull", {name: auth("x", SECRET)}))
    server.put("pods", pod("evil/a", f"{name}/x", secrets=("pull",)))
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", APP, secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    machine.says("secret evil/pull", "its entry 1 names no registry")
    server.delete("pods", "shop/a")
    machine.holds()


def test_a_file_that_cannot_be_written_is_named_and_stops_no_other(
    machine: SecretKeeper, server: ApiServer
) -> None:
    machine.node.path(f"{pull_secrets.FOLDER}/{HARBOR}").mkdir(parents=True)
    machine.node.path("/run/soci-cluster").chmod(0o755)
    server.put("secrets", secret("shop/pull", {HARBOR: auth("u", SECRET), "z.corp": auth("u", SECRET)}))
    server.put("pods", pod("shop/a", APP, "z.corp/x", secrets=("pull",)))
    machine.start()
    place = machine.node.path(pull_secrets.FOLDER)
    wait_for((place / "z.corp").exists, SOON, "the other one")
    machine.says(
        "pull-secrets-unread", f"{pull_secrets.FOLDER}/{HARBOR}", "cannot be written: Is a directory"
    )
    wait_for(
        lambda: not machine.node.path(pull_secret_files.NEW).exists(), SOON, "no secret is left beside it"
    )
    server.delete("pods", "shop/a")
    wait_for(lambda: not (place / "z.corp").exists(), SOON, "deletions go on")


def test_a_secret_that_is_no_text_keeps_nobody_elses_in_use(machine: SecretKeeper, server: ApiServer) -> None:
    server.put("secrets", secret("evil/pull", {"x.io": {"auth": "caf\u00e9"}, "y.io": auth("u", "p")}))
    server.put("pods", pod("evil/a", "x.io/y", "y.io/y", secrets=("pull", "missing")))
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", APP, secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET), y_io=line("y.io", "u", "p"))
    server.delete("pods", "shop/a")
    machine.holds(y_io=line("y.io", "u", "p"))


def test_a_secret_that_never_answers_keeps_nobody_elses_in_use(
    machine: SecretKeeper, server: ApiServer
) -> None:
    server.statuses["namespaces/evil"] = 500
    server.put("pods", pod("evil/a", "x.io/y", secrets=("pull",)))
    run_one(machine, server)
    server.delete("pods", "shop/a")
    machine.holds()


def test_a_pod_that_names_a_missing_secret_keeps_no_other_secrets_credential(
    machine: SecretKeeper, server: ApiServer
) -> None:
    server.put("pods", pod("evil/a", APP, secrets=("missing",)))
    run_one(machine, server)
    server.delete("pods", "shop/a")
    machine.holds()


def test_passwords_in_keys_are_not_told(machine: SecretKeeper, server: ApiServer) -> None:
    auths = {f"user:{SECRET}{number}@registry.corp": auth("u", "p") for number in range(9)}
    server.put("secrets", secret("shop/pull", auths))
    server.put("pods", pod("shop/a", "x.io/y", secrets=("pull",)))
    machine.start()
    machine.says("secret shop/pull", "its entry 5 names no registry")
    machine.says("secret shop/pull", "4 more of its entries cannot be used either")
    assert SECRET not in machine.node.read_text(PROBLEMS) + "".join(machine.log)


def test_a_late_registry_does_not_stop_the_questions_to_others(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_secrets, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(pull_secrets, "AGAIN_SECONDS", 30.0)
    slow = "a-slow.corp"

    def ask(question: Question) -> bool | None:
        if question[0].host == slow:
            time.sleep(0.3)
            machine.registries.asked.append((question[0].name, "slow"))
            return None
        return Registries.__call__(machine.registries, question)

    monkeypatch.setattr(machine, "ask", ask)
    machine.registries.readable = readable(one="one", two="two", both="one")
    for shop in ("one", "two"):
        server.put("secrets", secret(f"evil/{shop}", {slow: auth("x", shop)}))
        images = [f"{slow}/{shop}/{number}" for number in range(10)]
        server.put("pods", pod(f"evil/{shop}", *images, secrets=(shop,)))
    two_shops(server)
    machine.start()
    machine.says("conflicting-credentials", HARBOR, "that of one/pull is kept")
    machine.says("conflicting-credentials", slow, "does not say who reads")
    assert machine.registries.asked.count((f"{slow}/one/0", "slow")) == 1
    assert len([name for name, word in machine.registries.asked if word == "slow"]) == 1


def test_there_is_one_event_for_all_registries_without_other_tenants_names(
    machine: SecretKeeper, server: ApiServer
) -> None:
    for shop in ("one", "two"):
        auths = {f"r{number}.corp": auth("x", f"{shop}-{number}") for number in range(7)}
        server.put("secrets", secret(f"{shop}/private-name", auths))
        images = [f"r{number}.corp/x" for number in range(7)]
        server.put("pods", pod(f"{shop}/a", *images, secrets=("private-name",)))
    machine.registries.readable = {
        (f"r{number}.corp/x", f"{shop}-{number}"): None for number in range(7) for shop in ("one", "two")
    }
    machine.start()
    machine.says("r6.corp", "private-name")
    wait_for(lambda: bool(server.told), SOON, "the Event")
    assert len(server.told) == 1
    assert "private-name" not in json.dumps(server.told)
    assert "registry r0.corp" in server.told[0]["message"]


def test_an_api_server_that_hangs_at_events_does_not_stop_the_files(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(Keeper, "_emit", lambda self, message: hangs.wait(30) or None)
    machine.registries.readable = readable(one="one", two="two", both="one")
    two_shops(server)
    machine.start()
    machine.says("conflicting-credentials", HARBOR)
    server.put("secrets", secret("new/pull", {"new.corp": auth("u", "p")}))
    server.put("pods", pod("new/a", "new.corp/x", secrets=("pull",)))
    wait_for(lambda: "new.corp" in machine.files, SOON, "the next secret")
    hangs.set()


# The end


def test_it_shows_that_it_lives_and_removes_everything_once_nothing_is_installed(
    machine: SecretKeeper, server: ApiServer
) -> None:
    run_one(machine, server)
    alive = machine.node.read_text(pull_secrets.ALIVE)
    assert abs(int(alive) / 100 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
    wait_for(lambda: machine.node.read_text(pull_secrets.ALIVE) not in ("", alive), SOON, "the next beat")
    shutil.rmtree(machine.node.path(f"{pull_secrets.STATE}/current"))
    wait_for(lambda: not machine.node.path("/run/soci-cluster").exists(), SOON, "all is removed")


def test_what_is_written_while_it_is_uninstalled_is_removed_again(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Keeper._write
    written: list[int] = []

    def uninstalled_meanwhile(self: Keeper, *words: Any) -> None:
        if not words[0].kept:
            return
        shutil.rmtree(machine.node.path(f"{pull_secrets.STATE}/current"))
        write(self, *words)
        written.append(1)

    monkeypatch.setattr(Keeper, "_write", uninstalled_meanwhile)
    monkeypatch.setattr(Keeper, "_put_questions", lambda self, choice: None)  # whose answers are news
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", APP, secrets=("pull",)))
    monkeypatch.setattr(pull_secrets, "LOOK_SECONDS", 8.0)
    machine.start()
    place = machine.node.path("/run/soci-cluster")
    wait_for(lambda: bool(written) and not place.exists(), SOON, "all is removed")


def test_an_error_in_the_program_leaves_no_follower_behind(
    machine: SecretKeeper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Keeper) -> None:
        raise RuntimeError

    run_one(machine, server)
    machine.stop()
    monkeypatch.setattr(Keeper, "_settle", fail)
    keeper = Keeper(
        machine.node, NODE, identity=KubeletIdentity(machine.node), log=print, ask=print, ask_own=print
    )
    with pytest.raises(RuntimeError):
        keeper.run()
    wait_for(lambda: not [t for t in threading.enumerate() if isinstance(t, Reflector)], SOON, "they end")


def test_after_an_error_the_process_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one, without the threads and connections of the old."""

    def fail(self: Keeper) -> None:
        raise RuntimeError

    class Become(Exception):  # noqa: N818
        pass

    def become(program: str, words: Sequence[str]) -> NoReturn:
        raise Become(program, words)

    monkeypatch.setattr(Keeper, "run", fail)
    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(pull_secrets.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(pull_secrets.signal, "signal", lambda *words: None)
    monkeypatch.setattr(pull_secrets.resource, "setrlimit", lambda *words: None)
    monkeypatch.setenv("NODE_NAME", NODE)
    with pytest.raises(Become) as became:
        pull_secrets.main()
    assert became.value.args == (sys.executable, sys.orig_argv)


# The process


def test_the_process_ends_at_once_and_leaves_no_core(tmp_path: Path) -> None:
    """A machine without a kubelet: it says so, and goes on."""
    command = [sys.executable, "-B", "-m", "agent.pull_secrets"]
    environment = {**os.environ, "NODE_NAME": "x"}
    process = subprocess.Popen(command, cwd=INSTALLER, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert json.loads(process.stderr.readline())["step"] == "credentials"
    wait_for(lambda: (Path("/proc") / str(process.pid) / "task").stat().st_nlink > 3, SOON, "its threads")
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"^Max core file size\s+1\s+1\s", limits, re.MULTILINE)
    began = time.monotonic()
    process.terminate()
    assert process.wait(10) == 0
    assert time.monotonic() - began < 1
    assert process.stderr.read() == ""


def test_the_container_becomes_that_process_in_the_nodes_network(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []

    def become(program: str, words: Sequence[str]) -> NoReturn:
        became.append((program, words))
        raise SystemExit

    monkeypatch.setattr(os, "execvp", become)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "")
    monkeypatch.setattr(sys, "argv", ["agent", "credentials"])
    with pytest.raises(SystemExit):
        program.main()
    module = (sys.executable, "-B", "-m", pull_secrets.__name__)
    assert became == [("nsenter", ("nsenter", "-t", "1", "-n", "--", *module))]
    assert os.environ["MALLOC_ARENA_MAX"] == "1"


def test_the_idle_process_has_no_more_in_memory_than_it_needs() -> None:
    """Its memory is paid for on every node; each of these is there for few nodes, or for a moment."""
    listed = f"import sys, {pull_secrets.__name__}; print(*sys.modules)"
    command = [sys.executable, "-B", "-S", "-c", listed]
    done = subprocess.run(command, cwd=INSTALLER, check=True, capture_output=True, text=True)
    heavy = {"ctypes", "logging", "urllib.request", "agent.api", "agent.detect", "agent.image_access"}
    assert heavy.isdisjoint(done.stdout.split())


# Lists


def pieces(text: bytes, size: int) -> Callable[[int], bytes]:
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    return lambda limit: parts.pop(0) if parts else b""


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_list_is_read_object_by_object_however_it_comes(size: int) -> None:
    items: list[dict[str, Any]] = [{"metadata": {"name": "ä]}{[,"}, "n": [1, {"x": None}]}, {}, {"y": '\\"'}]
    content = {
        "kind": "PodList",
        "metadata": {"resourceVersion": "7", "remainingItemCount": 12},
        "items": items,
    }
    for indent in (None, 1):
        found: list[Any] = []
        text = json.dumps(content, ensure_ascii=False, indent=indent).encode()
        assert read_list(pieces(text, size), found.append) == "7"
        assert found == items
    assert read_list(pieces(b'{"metadata":{"resourceVersion":"8"},"items":null}', size), print) == "8"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"items":[{"a":1}', b'{"items":[]}', b'{"items" []}', b"<html>", b'{"metadata":{}x'],
)
def test_a_list_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_list(pieces(text, 5), lambda item: None)


def test_credentials_are_shown_to_nobody() -> None:
    assert SECRET not in repr(Credential("user", SECRET))
