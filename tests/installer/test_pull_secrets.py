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
from agent import pull_secret_files, pull_secrets
from agent.follow import read_list
from agent.node_identity import NodeIdentity
from agent.pull_secret_files import CONFLICTS, PROBLEMS
from agent.pull_secrets import Keeper
from agent.registry_auth import Credential
from agent.registry_choice import Question

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

    def __call__(self, question: Question) -> bool | None:
        image, credential = question
        self.asked.append((image.name, credential.secret))
        return self.readable.get((image.name, credential.secret), False)


class Machine:
    """The process on a node: started, ended, looked at."""

    def __init__(self, root: Path, server: ApiServer) -> None:
        self.node = KubeletNode(root, server)
        self.registries = Registries()
        self.log: list[str] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ended.clear()
        keeper = Keeper(
            self.node,
            NODE,
            identity=NodeIdentity(self.node),
            log=self.log.append,
            ask=self.registries,
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
def machine(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Not started yet; it is less patient than the true one."""
    monkeypatch.setattr(pull_secrets, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(pull_secrets, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(pull_secrets, "AGAIN_SECONDS", 0.3)
    machine = Machine(tmp_path / "root", server)
    yield machine
    machine.stop()


def run_one(machine: Machine, server: ApiServer) -> None:
    """One pod with a secret, whose credential is on the node."""
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


# Life of a credential


def test_a_secret_is_there_for_as_long_as_a_pod_names_it(machine: Machine, server: ApiServer) -> None:
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
    machine: Machine, server: ApiServer
) -> None:
    run_one(machine, server)
    for number in range(3):
        server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", f"new{number}")}))
        machine.holds(harbor_corp=line(HARBOR, "robot", f"new{number}"))
    assert server.count("secrets") == 2, "a list and a watch"
    assert server.count("pods") == 2


def test_files_are_roots_alone_and_only_in_memory(machine: Machine, server: ApiServer) -> None:
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
    machine: Machine, server: ApiServer, mounts: str
) -> None:
    machine.node.put("/proc/1/mountinfo", mounts)
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "not in memory")
    assert machine.files == {}
    assert server.count("secrets") == 0


def test_a_folder_that_is_a_link_is_not_written_through(
    machine: Machine, server: ApiServer, tmp_path: Path
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
    machine: Machine, server: ApiServer
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


def test_an_uninstall_by_hand_while_the_process_runs(machine: Machine, server: ApiServer) -> None:
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


def test_a_process_that_starts_anew_takes_over_what_is_there(machine: Machine, server: ApiServer) -> None:
    run_one(machine, server)
    machine.stop()
    place = machine.node.path(f"{pull_secret_files.FOLDER}/{HARBOR}")
    before = place.stat().st_ino
    machine.node.put(f"{pull_secret_files.FOLDER}/gone.corp", line("gone.corp", "u", "p"))
    machine.node.put(f"{pull_secret_files.FOLDER}/rubbish", "{")
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    assert place.stat().st_ino == before


def test_with_credentials_of_the_node_alone_they_are_taken_away(machine: Machine, server: ApiServer) -> None:
    run_one(machine, server)
    machine.stop()
    machine.node.put(PROBLEMS, "a\tb\tc\n")
    pull_secret_files.remove(machine.node)
    assert machine.files == {}
    assert not machine.node.exists(PROBLEMS)
    pull_secret_files.remove(machine.node)


# The API server


def test_an_api_server_that_is_away_at_boot(
    machine: Machine, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.follow.LAST_PAUSE", 1.0)
    server.stop()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "pods", "Connection refused")
    assert len(machine.log) == 1, "once, however often it is tried"
    server.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")


def test_what_was_missed_while_it_was_away_is_made_up_for(machine: Machine, server: ApiServer) -> None:
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
def test_a_watch_that_ends_goes_on(machine: Machine, server: ApiServer, end: bytes | None) -> None:
    run_one(machine, server)
    server.cut(end)
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    server.put("pods", pod("shop/b", "docker.io/x/y", secrets=("pull",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", "rotated"))


def test_a_place_that_the_server_has_forgotten_begins_anew(machine: Machine, server: ApiServer) -> None:
    run_one(machine, server)
    server.stop()
    server.delete("pods", "shop/a")
    server.put("secrets", secret("shop/new", {"new.corp": auth("u", "p")}))
    server.put("pods", pod("shop/b", "new.corp/x", secrets=("new",)))
    server.forget_the_past()
    server.start()
    machine.holds(new_corp=line("new.corp", "u", "p"))


def test_a_server_that_refuses_is_not_stormed(machine: Machine, server: ApiServer) -> None:
    server.statuses["/api/v1/pods"] = 429
    machine.start()
    machine.says("pods", "429 Too Many Requests")
    assert server.count("pods") <= 5
    server.statuses.clear()
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))


def test_a_token_that_has_expired_is_made_anew(machine: Machine, server: ApiServer) -> None:
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


def test_a_certificate_that_rotates(machine: Machine, server: ApiServer) -> None:
    run_one(machine, server)
    machine.node.identify("expired", "nobody")
    server.cut()
    wait_for(lambda: server.requests[-1][2] == "nobody", SOON, "the refusal")
    assert machine.files, "what is known stays"
    machine.node.identify("rotated", f"system:node:{NODE}")
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", "rotated")}))
    machine.holds(harbor_corp=line(HARBOR, "robot", "rotated"))


def test_a_problem_that_comes_back_is_said_again(machine: Machine, server: ApiServer) -> None:
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
    machine: Machine, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(
        machine.node, NODE, identity=NodeIdentity(machine.node), log=print, ask=machine.registries
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


def test_a_right_that_comes_a_moment_after_the_pod(machine: Machine, server: ApiServer) -> None:
    server.statuses["secrets"] = 403
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "secret shop/pull", "403 Forbidden", "shop/a")
    server.statuses.clear()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    wait_for(lambda: not machine.node.exists(PROBLEMS), SOON, "nothing is wrong any more")


def test_a_secret_that_is_missing_is_named_and_taken_when_it_comes(
    machine: Machine, server: ApiServer
) -> None:
    server.put("pods", pod("shop/a", f"{HARBOR}/shop/app:1", secrets=("pull", "good")))
    server.put("pods", pod("shop/b", "docker.io/library/alpine"))
    server.put("secrets", secret("shop/good", {"good.corp": auth("u", "p")}))
    machine.start()
    machine.says("secret shop/pull", "no such secret")
    machine.holds(good_corp=line("good.corp", "u", "p"))
    server.put("secrets", secret("shop/pull", {HARBOR: auth("robot", SECRET)}))
    machine.holds(good_corp=line("good.corp", "u", "p"), harbor_corp=line(HARBOR, "robot", SECRET))


def test_a_pod_outlives_its_secret(machine: Machine, server: ApiServer) -> None:
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


def test_a_registry_that_leaves_a_secret_is_forgotten(machine: Machine, server: ApiServer) -> None:
    run_one(machine, server)
    server.put("secrets", secret("shop/pull", {"other.corp": auth("robot", SECRET)}))
    machine.holds(other_corp=line("other.corp", "robot", SECRET))


def test_keys_as_people_have_them(machine: Machine, server: ApiServer) -> None:
    auths = {
        "https://index.docker.io/v1/": auth("hub", "1"),
        "https://quay.io/v2/": {"username": "quay", "password": "2"},
        "harbor.corp/project": auth("harbor", "3"),
        "registry.corp:5000": {"identitytoken": "refresh", "auth": auth("x", "y")["auth"]},
        "*.globs.io": auth("glob", "4"),
        "Upper.Corp": auth("upper", "5"),
        "http://plain:8080": auth("plain", "6"),
    }
    images = ("a.globs.io/x", "a.b.globs.io/x", "globs.io/x", "b.globs.io:5000/x", "nginx")
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


def test_the_older_kind_of_secret(machine: Machine, server: ApiServer) -> None:
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
def test_no_key_names_a_file_elsewhere(machine: Machine, server: ApiServer, key: str) -> None:
    server.put("secrets", secret("shop/pull", {key: auth("robot", SECRET), "good.corp": auth("u", "p")}))
    server.put("pods", pod("shop/a", "../../x/y", "[::1]:5000/x/y", "good.corp/x", secrets=("pull",)))
    machine.start()
    wait_for(lambda: "good.corp" in machine.files, SOON, "the good key")
    names = set(machine.files) - {"good.corp", "a", "harbor.corp"}
    assert names == set()
    folder = machine.node.path("/run/soci-cluster")
    assert {path.name for path in folder.iterdir()} <= {"pull-secrets", "pull-secrets.problems"}
    if "harbor.corp" not in machine.files and "a" not in machine.files:
        machine.says("pull-secrets-unread", "secret shop/pull", "names no registry")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("{", "dockerconfigjson", "no JSON"),
        ("[]", "dockerconfigjson", "no JSON"),
        ('{"auths": 5}', "dockerconfigjson", "no JSON"),
        ('{"auths": {"x.io": {}}}', "dockerconfigjson", "'x.io' has no user with password"),
        ('{"auths": {"x.io": {"auth": "%%"}}}', "dockerconfigjson", "'x.io' has no user with password"),
        ('{"auths": {"x.io": 7}}', "dockerconfigjson", "'x.io' has no user with password"),
        ("{}", "tls", "kubernetes.io/tls, none of a registry's"),
        ("[" * 100_000, "dockerconfigjson", "no JSON"),
    ],
)
def test_a_secret_that_is_none_is_named(
    machine: Machine, server: ApiServer, content: str, kind: str, said: str
) -> None:
    server.put("secrets", secret("shop/pull", content, kind=kind))
    server.put("pods", pod("shop/a", "x.io/y", secrets=("pull",)))
    machine.start()
    machine.says("pull-secrets-unread", "secret shop/pull", said)
    assert machine.files == {}


def test_a_giant_secret(machine: Machine, server: ApiServer) -> None:
    auths = {f"r{number}.corp": auth("u", f"p{number}") for number in range(9000)}  # about a MiB
    server.put("secrets", secret("shop/pull", auths))
    server.put("pods", pod("shop/a", "r7.corp/y", secrets=("pull",)))
    machine.start()
    wait_for(lambda: "r7.corp" in machine.files, SOON, "the registry that is in use")
    assert len(machine.files) == 51, "others may be mirrors, but not that many"
    server.delete("pods", "shop/a")
    wait_for(lambda: not list(machine.node.path(pull_secret_files.FOLDER).iterdir()), SOON, "none is left")


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


def test_the_one_that_reads_most_is_kept_and_the_rest_is_named(machine: Machine, server: ApiServer) -> None:
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


def test_a_credential_that_reads_everything_is_no_problem(machine: Machine, server: ApiServer) -> None:
    machine.registries.readable = readable(one="one two", two="two", both="one two")
    two_shops(server)
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot-two", "of-two"))
    assert pull_secret_files.problems(machine.node) == []
    asked = len(machine.registries.asked)
    assert asked == len(set(machine.registries.asked)) == 6, "each question once"


def test_the_same_credential_in_many_namespaces_is_one(machine: Machine, server: ApiServer) -> None:
    for number in range(5):
        server.put("secrets", secret(f"n{number}/pull", {HARBOR: auth("robot", SECRET)}))
        server.put("pods", pod(f"n{number}/a", f"{HARBOR}/p/app:{number}", secrets=("pull",)))
    machine.start()
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET))
    assert machine.registries.asked == []


def test_a_registry_that_does_not_answer_decides_nothing(machine: Machine, server: ApiServer) -> None:
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


def test_a_credential_for_which_no_image_runs_is_no_rival(machine: Machine, server: ApiServer) -> None:
    """A path in the key, an ended pod, a list of all the company's registries."""
    run_one(machine, server)
    server.put("secrets", secret("other/path", {f"{HARBOR}/elsewhere": auth("robot", "path")}))
    server.put("pods", pod("other/a", f"{HARBOR}/shop/app:1", secrets=("path",)))
    server.put("secrets", secret("other/ended", {HARBOR: auth("robot", "ended")}))
    server.put("pods", pod("other/b", f"{HARBOR}/x:1", secrets=("ended",), phase="Failed"))
    server.put("secrets", secret("other/list", {HARBOR: auth("a", "list"), "last.corp": auth("u", "p")}))
    server.put("pods", pod("other/c", "docker.io/x/y", secrets=("list",)))
    machine.holds(harbor_corp=line(HARBOR, "robot", SECRET), last_corp=line("last.corp", "u", "p"))
    assert machine.registries.asked == []


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
    monkeypatch.setattr(sys, "argv", ["agent", "credentials"])
    with pytest.raises(SystemExit):
        program.main()
    module = (sys.executable, "-B", "-m", pull_secrets.__name__)
    assert became == [("nsenter", ("nsenter", "-t", "1", "-n", "--", *module))]


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
