"""The credential helper itself, under the shells and awks of nodes, asked as the SOCI daemon asks it."""

import base64
import contextlib
import json
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes.credential_node import ECR, SHELLS, V1, CredentialNode, response
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper answers root only")

NONE = (1, "credentials not found in native keychain\n")
HUB = "https://index.docker.io/v1/"


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> CredentialNode:
    return CredentialNode.under(request.param, tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> CredentialNode:
    """The same in one shell, for what takes long or does not depend on it."""
    return CredentialNode(tmp_path)


def given(node: CredentialNode, host: str) -> tuple[str, str]:
    """User and secret, as docker-credential-helpers reads them."""
    status, output, _ = node.run(host)
    assert status == 0, output
    found = json.loads(output.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    assert set(found) == {"ServerURL", "Username", "Secret"}
    return found["Username"], found["Secret"]


def found(node: CredentialNode, host: str = ECR) -> tuple[int, str]:
    return node.run(host)[:2]


# The kubelet's plugins


def test_a_plugin_of_the_kubelet_answers_for_its_registry(node: CredentialNode) -> None:
    node.answer(response("token"), arguments=["get-credentials", "with blank"])
    assert given(node, ECR) == ("AWS", "token")
    (asked,) = node.requests()
    request, arguments = asked.splitlines()
    assert json.loads(request) == {
        "kind": "CredentialProviderRequest",
        "apiVersion": V1,
        "image": f"{ECR}/soci-cluster",
    }
    assert arguments == "get-credentials with blank"


def test_a_plugin_has_the_environment_of_its_entry_and_nothing_that_leads_back(node: CredentialNode) -> None:
    node.lines = ["environment AWS_REGION=eu-west-1", "environment COMMON=both"]
    node.provide("false", name="other", environment={"OTHER": "1"})
    place = node.path / "environment"
    script = f"env >{place}; echo '{response('token')}'"
    node.provide(script, environment={"AWS_PROFILE": "a b=c 'd'", "COMMON": "mine"})
    assert given(node, ECR) == ("AWS", "token")
    seen = dict(line.split("=", 1) for line in place.read_text().splitlines() if "=" in line)
    assert (seen["AWS_REGION"], seen["AWS_PROFILE"], seen["COMMON"]) == ("eu-west-1", "a b=c 'd'", "mine")
    assert "DOCKER_CONFIG" not in seen
    assert "OTHER" not in seen


def test_variables_of_the_daemon_move_nothing(node: CredentialNode) -> None:
    node.pull_secret(ECR, secret(ECR, "right"))
    assert node.run(ECR, ROOT="/nowhere", HOST="other", PROVIDERS="/dev/null", ANSWER="{}")[0] == 0


@pytest.mark.parametrize(
    ("pattern", "host", "is_asked"),
    [
        ("ra.example/team", "ra.example", True),
        ("r[a-z].example", "ra.example", False),
        ("docker.io", "index.docker.io", True),
        ("*.io", HUB, True),
        ("index.docker.io", HUB, False),
    ],
)
def test_which_plugin_is_asked(node: CredentialNode, pattern: str, host: str, is_asked: bool) -> None:
    """Besides the names of test_registry_names.py."""
    key = host if host == "ra.example" else "docker.io"
    node.answer(response("token", key), match=[pattern])
    assert (node.run(host)[0] == 0) is is_asked
    assert len(node.requests()) == is_asked


@pytest.mark.parametrize(
    ("key", "is_taken"),
    [("r[a-z].example", False), ("ra.example/team", True), ("https://ra.example/v1/", True)],
)
def test_which_answer_is_taken(node: CredentialNode, key: str, is_taken: bool) -> None:
    node.answer(response("token", key), match=["ra.example"])
    assert (node.run("ra.example")[0] == 0) is is_taken
    assert len(node.requests()) == 1


def test_a_plugin_for_a_path_is_asked_for_an_image_there(node: CredentialNode) -> None:
    node.answer(response("token", "registry.example/team"), match=["other.example", "registry.example/team"])
    assert given(node, "registry.example") == ("AWS", "token")
    assert '"image":"registry.example/team/soci-cluster"' in node.requests()[0]


def test_of_several_answers_the_one_for_the_whole_host_counts_then_the_longest(node: CredentialNode) -> None:
    keys = {
        "*.dkr.ecr.*.amazonaws.com": "glob",
        f"{ECR}/team/long/path": "path",
        ECR: "exact",
        "*.dkr.ecr.eu-west-1.amazonaws.com": "longer glob",
        "registry.example": "foreign",
    }
    auth = {key: {"username": "u", "password": secret} for key, secret in keys.items()}
    answer = {"kind": "CredentialProviderResponse", "apiVersion": V1, "auth": auth}
    node.answer(json.dumps(answer, indent=2))
    assert given(node, ECR) == ("u", "exact")
    del auth[ECR]
    (node.path / "answer-0").write_text(json.dumps(answer))
    assert given(node, ECR) == ("u", "longer glob")


def test_the_next_plugin_is_asked_when_one_has_nothing(node: CredentialNode) -> None:
    node.answer(json.dumps({"kind": "CredentialProviderResponse", "auth": None}), name="first")
    node.provide("exit 3", name="second")
    node.answer(response("token"), name="third")
    assert given(node, ECR) == ("AWS", "token")
    assert node.source(ECR) == ["failed second: it ended with status 3", "provider third"]


# What a plugin may do

KIND = '{"kind":"CredentialProviderResponse",'
RUBBISH = {
    "auth-null": KIND + '"auth":null}',
    "no-auth": KIND + '"cacheDuration":"1h"}',
    "auth-empty": KIND + '"auth":{}}',
    "auth-list": KIND + '"auth":[1,2]}',
    "nobody": response("").replace('"AWS"', '""'),
    "of-others": response("token", "registry.example"),
    "numbers": KIND + f'"auth":{{"{ECR}":{{"username":1,"password":2}}}}}}',
    "empty": "",
    "blank": "\n\n",
    "words": "error: no credentials",
    "not-found": "credentials not found in native keychain",
    "half": response("token")[:-30],
    "half-string": response("token")[:-10],
    "two": response("token") * 2,
    "behind": response("token") + "}",
    "another-kind": response("token").replace("CredentialProviderResponse", "Status"),
    "control": response("to\tken"),
    "line": response("to\nken"),
    "nul": response("to\0ken"),
    "bad-escape": response("to\\xken"),
    "half-escape": response("to\\u00ken"),
    "deep": KIND + '"auth":' + "[" * 2000 + "]" * 2000 + "}",
    "status": "status 0",
    "latin": "\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("name", RUBBISH)
def test_what_is_no_answer_ends_as_none(node: CredentialNode, name: str) -> None:
    node.answer(RUBBISH[name])
    assert found(node) == NONE


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo '{response('token')}'; exit 1", "it ended with status 1"),
        (f"echo '{response('token')}'; kill -SEGV $$", "it ended with status 139"),
        ("exec 1>&-; exit 0", "its answer is not readable"),
        ("echo 'a secret'; echo 'a secret' >&2; exit 2", "it ended with status 2"),
        ("head -c 100000000 /dev/zero | tr '\\0' x", "its answer is too long"),
        ("yes '{\"a\":'", "its answer is too long"),
    ],
)
def test_a_failing_plugin_ends_as_none_and_is_named_without_its_words(
    node: CredentialNode, script: str, why: str
) -> None:
    node.provide(script)
    status, output, error = node.run(ECR)
    assert (status, output) == NONE
    assert error == f"failed ecr-credential-provider: {why}\n"
    assert node.source(ECR) == [f"failed ecr-credential-provider: {why}", "none"]


def test_a_plugin_that_is_missing_or_no_program_ends_as_none(node: CredentialNode) -> None:
    program = node.answer(response("token"))
    program.write_text("#!/no/such/interpreter\n")
    assert found(node) == NONE
    program.chmod(0o644)
    assert node.source(ECR) == [f"failed ecr-credential-provider: there is no program {program}", "none"]
    program.unlink()
    assert found(node) == NONE


def alive(node: CredentialNode) -> list[str]:
    """The command lines of the processes that have to do with this node."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(node.path) in line or "sleep 86399" in line:
            lines.append(line)
    return lines


HANGING = {
    "itself": "exec sleep 86399",
    "child": "sleep 86399",
    "orphan": f"sleep 86399 & echo '{response('token')}'",
    "orphan-of-a-session": f"(setsid sleep 86399 &) ; echo '{response('token')}'",
    "not-to-be-ended": "trap '' TERM INT HUP; while :; do sleep 86399; done",
    "without-environment": "env -i sleep 86399",
    "stopped": "kill -STOP $$",
}


def test_a_program_that_ends_at_once_leaves_no_second_word(node: CredentialNode) -> None:
    """bash ran the EXIT trap in a watchdog that was ended before it had begun: two texts were no answer."""
    functions = node.helper.read_text().rpartition("main ")[0]
    calls = (
        "look_at_clock; DEADLINE=$((NOW + 1500)); for _ in 1 2 3 4 5 6 7 8 9 10; do within_limit true; done"
    )
    script = f"{functions}\ntrap not_found EXIT\n{calls}\ntrap - EXIT\necho done\n"
    command = [*node.shell, "-c", script]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


@pytest.mark.parametrize("name", HANGING)
def test_a_hanging_plugin_is_ended_with_its_children_within_its_time(one: CredentialNode, name: str) -> None:
    if alive(one):
        pytest.fail("of another test something is left")
    one.limit(PLUGIN_SECONDS=2)
    one.provide(HANGING[name])
    status, output, error = one.run(ECR)
    assert (status, output) == NONE
    assert error == "failed ecr-credential-provider: it did not answer within 2 s\n"
    assert alive(one) == []


def test_a_slow_look_at_others_does_not_keep_the_plugin_alive(one: CredentialNode) -> None:
    """A process whose environment cannot be read soon, as one whose memory is locked."""
    grep = one.programs / "grep"
    grep.write_text("#!/bin/sh\nexec sleep 86399\n")
    grep.chmod(0o755)
    one.limit(PLUGIN_SECONDS=1, LOOK_SECONDS=1)
    one.provide("exec sleep 86399")
    assert found(one) == NONE
    assert alive(one) == []


def test_limits_are_those_that_are_documented(one: CredentialNode) -> None:
    text = one.helper.read_text()
    for line in ("KEEP_SECONDS=300 ", "PLUGIN_SECONDS=10 ", "ALL_SECONDS=15 "):
        assert f"\n{line}" in text


def test_all_plugins_together_have_a_limit(node: CredentialNode) -> None:
    node.limit(PLUGIN_SECONDS=2, ALL_SECONDS=3)
    for number in range(4):
        node.provide("exec sleep 86399", name=f"plugin-{number}")
    status, output, error = node.run(ECR)
    assert (status, output) == NONE
    assert error.endswith("failed plugin-3: there was no time left for it\n")
    assert len(node.requests()) <= 2
    assert alive(node) == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('a\\"b', 'a"b'),
        ("a\\\\b", "a\\b"),
        ("a\\/b", "a/b"),
        ("a\\u0041\\u00e9\\ud83d\\ude00", "aAé😀"),
        ("a\\n\\t\\u0000b", "a\n\t\0b"),
        ("aé😀", "aé😀"),
        ("$(id) `id` %s %d \\\\n '", "$(id) `id` %s %d \\n '"),
        ("x" * 60000, "x" * 60000),
    ],
)
def test_a_secret_arrives_as_it_is_meant(node: CredentialNode, written: str, meant: str) -> None:
    node.answer(response(written))
    assert given(node, ECR) == ("AWS", meant)
    assert given(node, ECR) == ("AWS", meant)  # out of the cache


def test_keys_may_be_written_with_escapes(node: CredentialNode) -> None:
    node.answer(response("token", ECR.replace(".", "\\u002e").replace("-", "\\u002D") + "\\/"))
    assert given(node, ECR) == ("AWS", "token")


# The cache


def test_a_token_is_kept_as_long_as_the_plugin_says_and_never_longer_than_five_minutes(
    node: CredentialNode,
) -> None:
    for keep, seconds in (
        ("6h0m0s", 300),
        ("1m30s", 90),
        ("1.5s", 1),
        ("299.9s", 299),
        ("9" * 12 + "h", 300),
    ):
        shutil.rmtree(node.answers, ignore_errors=True)
        node.lines = []
        node.answer(response("token", keep=keep))
        given(node, ECR)
        assert node.kept_seconds() == seconds, keep
        assert node.source(ECR) == ["provider ecr-credential-provider"]


@pytest.mark.failure_mode(30)
def test_within_its_time_no_plugin_is_asked_again_and_after_it_one_is(node: CredentialNode) -> None:
    node.limit(SHARE_SECONDS=50)  # also of a machine that does much else
    node.answer(response("first"))
    assert given(node, ECR) == ("AWS", "first")
    (node.path / "answer-0").write_text(response("second"))
    assert [given(node, ECR) for _ in range(3)] == [("AWS", "first")] * 3  # a pod's images, at once
    node.let_pass(60)
    assert given(node, ECR) == ("AWS", "first")
    assert len(node.requests()) == 1
    node.let_pass(300)
    assert given(node, ECR) == ("AWS", "second")


def test_who_asks_again_soon_has_been_refused_and_gets_a_new_answer(node: CredentialNode) -> None:
    """A token that the registry had revoked was given until its time was over: reads failed."""
    node.answer(response("first"))
    assert given(node, ECR) == ("AWS", "first")
    (node.path / "answer-0").write_text(response("second"))
    node.let_pass(60)
    assert given(node, ECR) == ("AWS", "first")
    assert given(node, ECR) == ("AWS", "second")


def test_a_short_life_is_not_spent_on_who_was_refused(node: CredentialNode) -> None:
    node.answer(response("first", keep="4s"))
    assert given(node, ECR) == ("AWS", "first")
    (node.path / "answer-0").write_text(response("second", keep="4s"))
    assert given(node, ECR) == ("AWS", "second")


def test_who_was_refused_while_a_plugin_is_asked_gets_what_it_says_after_that(one: CredentialNode) -> None:
    """What it says now may be what the registry has just revoked."""
    number = f"number=$(ls {one.log} | wc -l)"
    answer = response("'$number'", keep="4s")
    one.provide(f"{number}; until [ -e {one.path}/go ]; do sleep 0.05; done; echo '{answer}'")
    first = one.start(ECR)
    wait_for(lambda: len(one.requests()) == 1, 10, "the plugin is asked")
    second = one.start(ECR)
    lock = one.answers / f".lock-{ECR}"
    wait_for(lambda: has_open(second.pid, lock), 10, "the second one waits")
    (one.path / "go").touch()
    given = [json.loads(process.communicate(timeout=20)[0])["Secret"] for process in (first, second)]
    assert given == ["1", "2"]


def has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(entry.resolve() == path.resolve() for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.parametrize("keep", ["0s", "", "never", "-1h", "1h soon"])
def test_what_has_no_time_is_not_kept(node: CredentialNode, keep: str) -> None:
    node.answer(response("token", keep=keep))
    given(node, ECR)
    given(node, ECR)
    assert len(node.requests()) == 2


@pytest.mark.parametrize("said", ["", '"cacheDuration":null,'])
@pytest.mark.parametrize(("default", "seconds"), [("43200", 300), ("90", 90), ("0", 0)])
def test_an_answer_without_a_cache_duration_is_kept_for_the_kubelets_default(
    node: CredentialNode, said: str, default: str, seconds: int
) -> None:
    text = response("token").replace('"cacheDuration":"6h0m0s",', said)
    assert "6h" not in text
    node.answer(text, cache=default)
    given(node, ECR)
    assert node.kept_seconds() == seconds


def test_an_answer_that_is_not_to_be_kept_is_not_whatever_the_kubelets_default(node: CredentialNode) -> None:
    node.answer(response("token", keep="0s"), cache="43200")
    given(node, ECR)
    given(node, ECR)
    assert len(node.requests()) == 2


def test_the_default_of_a_plugin_is_not_that_of_the_next_one(node: CredentialNode) -> None:
    node.answer(response("token"), name="first", match=["registry.example"], cache="43200")
    node.answer(response("token").replace('"cacheDuration":"6h0m0s",', ""), name="second")
    given(node, ECR)
    given(node, ECR)
    assert len(node.requests()) == 2


def test_without_a_cache_duration_nothing_is_kept(node: CredentialNode) -> None:
    node.answer(response("token").replace('"cacheDuration":"6h0m0s",', ""))
    given(node, ECR)
    given(node, ECR)
    assert len(node.requests()) == 2


def test_none_is_not_kept(node: CredentialNode) -> None:
    node.provide("exit 1")
    assert found(node) == NONE
    node.lines = []
    node.answer(response("token"))
    assert given(node, ECR) == ("AWS", "token")


def test_a_plugin_that_hangs_is_not_waited_for_by_each_layer(one: CredentialNode) -> None:
    """A node that boots asks for each of an image's layers, and containerd waits for all of them."""
    one.limit(PLUGIN_SECONDS=1)
    one.provide("exec sleep 86399")
    one.docker(json.dumps({"auths": {ECR: {"auth": basic("u", "docker")}}}))
    assert given(one, ECR) == ("u", "docker")
    assert one.kept_seconds() == 60
    assert [given(one, ECR) for _ in range(5)] == [("u", "docker")] * 5
    late = "failed ecr-credential-provider: it did not answer within 1 s"
    assert one.source(ECR) == [late, f"docker {one.home}/.docker/config.json"]
    assert len(one.requests()) == 1


def test_what_nobody_may_be_given_any_more_is_removed(node: CredentialNode) -> None:
    node.answers.mkdir(parents=True)
    line = secret("x", "old")
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME)) * 100
    for host, until in {
        "old.example": now - 2100,
        "just.example": now - 500,
        "kept.example": now + 100,
    }.items():
        (node.answers / host).write_text(f"{until} 1 1 provider x\n{line}")
        (node.answers / f".lock-{host}").touch()
        (node.answers / f".given-{host}").touch()
    (node.answers / "spoilt.example").write_text("x")
    node.answer(response("token"))
    given(node, ECR)
    names = {path.name.removeprefix(".lock-").removeprefix(".given-") for path in node.answers.iterdir()}
    assert names == {"just.example", "kept.example", ECR}


@pytest.mark.parametrize("text", ["", "x", "99999999999 1 x provider p\n{}\n", "\0\1\2", "99999999999\n"])
def test_a_spoilt_cache_is_no_answer(node: CredentialNode, text: str) -> None:
    node.answers.mkdir(parents=True)
    (node.answers / ECR).write_text(text)
    node.answer(response("token"))
    assert given(node, ECR) == ("AWS", "token")


def test_only_root_can_read_what_is_kept(node: CredentialNode) -> None:
    node.answer(response("token"))
    given(node, ECR)
    for path in (node.answers, node.answers.parent, *node.answers.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert sorted(path.name for path in node.answers.iterdir()) == [f".given-{ECR}", f".lock-{ECR}", ECR]


def test_nothing_is_kept_outside_of_memory(tmp_path: Path) -> None:
    place = Path.home() / f".soci-cluster-test-{os.getpid()}"
    if not shutil.which("findmnt") or os.statvfs("/").f_fsid == os.statvfs("/dev/shm").f_fsid:
        pytest.skip("everything is in memory here")
    try:
        node = CredentialNode(place)
        node.answer(response("token"))
        assert given(node, ECR) == ("AWS", "token")
        written = [
            path for path in place.joinpath("root").rglob("*") if path.is_file() and path.stat().st_size
        ]
        assert written == []
    finally:
        shutil.rmtree(place, ignore_errors=True)


def fifty_at_once(node: CredentialNode, script: str) -> set[str]:
    """What fifty are told who all ask before the plugin's script begins."""
    node.limit(SHARE_SECONDS=300, PLUGIN_SECONDS=300, ALL_SECONDS=300)
    go = node.path / "go"
    node.provide(f"until [ -e {go} ]; do sleep 0.05; done; {script}")
    processes = [node.start(ECR) for _ in range(50)]
    lock = node.answers / f".lock-{ECR}"
    for process in processes:
        wait_for(lambda pid=process.pid: has_open(pid, lock), 60, "all fifty ask")
    wait_for(lambda: len(node.requests()) == 1, 60, "the plugin is asked")
    go.touch()
    return {process.communicate(timeout=120)[0].decode() for process in processes}


@pytest.mark.parametrize(("keep", "calls"), [("6h0m0s", 1), ("0s", 2)])
def test_fifty_who_ask_at_once_are_a_call_or_two_of_the_plugin(
    one: CredentialNode, keep: str, calls: int
) -> None:
    """An answer that may not be kept is for who asked before the plugin was: one, then all others."""
    outputs = fifty_at_once(one, f"echo '{response('token', keep=keep)}'")
    assert {json.loads(output)["Secret"] for output in outputs} == {"token"}
    assert len(one.requests()) == calls


def test_fifty_who_ask_a_failing_plugin_are_two_calls_of_it(one: CredentialNode) -> None:
    assert fifty_at_once(one, "exit 1") == {NONE[1]}
    assert len(one.requests()) == 2


def test_a_flock_that_cannot_wait_is_no_reason_for_none(one: CredentialNode) -> None:
    """BusyBox's has no -w."""
    flock = one.programs / "flock"
    flock.write_text("#!/bin/sh\necho usage >&2\nexit 1\n")
    flock.chmod(0o755)
    one.answer(response("token"))
    assert given(one, ECR) == ("AWS", "token")


def test_two_registries_do_not_wait_for_each_other(one: CredentialNode) -> None:
    other = ECR.replace("eu-west-1", "us-east-1")
    go = one.path / "go"
    wait = f"case $request in *us-east-1*) until [ -e {go} ]; do sleep 0.05; done ;; esac"
    one.provide(f"{wait}; echo '{response('token', '*.*.*.*.*.com')}'")
    slow = one.start(other)
    wait_for(lambda: len(one.requests()) == 1, 10, "the slow one is asked")
    assert given(one, ECR) == ("AWS", "token")
    assert slow.poll() is None
    go.touch()
    assert slow.communicate(timeout=20)[0]


# Pull secrets


def secret(host: str, value: str) -> str:
    return json.dumps({"ServerURL": host, "Username": "robot$x", "Secret": value}) + "\n"


def test_a_pull_secret_goes_before_a_plugin_and_is_read_at_each_look(node: CredentialNode) -> None:
    node.answer(response("token"))
    assert given(node, ECR) == ("AWS", "token")
    node.pull_secret(ECR, secret(ECR, 'a"b\\c\n'))
    assert given(node, ECR) == ("robot$x", 'a"b\\c\n')
    node.pull_secret(ECR, secret(ECR, "rotated"))
    assert given(node, ECR) == ("robot$x", "rotated")
    assert node.source(ECR) == ["pull-secret"]


def test_the_nodes_own_answer_is_without_pull_secrets(node: CredentialNode) -> None:
    node.pull_secret(ECR, secret(ECR, "of a pod"))
    assert node.run(ECR, "own")[:2] == NONE
    node.lines = []
    node.answer(response("token"))
    status, output, _ = node.run(ECR, "own")
    assert (status, json.loads(output)["Secret"]) == (0, "token")
    assert given(node, ECR) == ("robot$x", "of a pod")


def test_pull_secrets_that_nobody_keeps_any_more_are_not_used(node: CredentialNode) -> None:
    """As of an installer that went without an uninstall: nothing rotates them."""
    node.answer(response("token"))
    node.pull_secret(ECR, secret(ECR, "old"), seconds=590)
    assert given(node, ECR) == ("robot$x", "old")
    node.pull_secret(ECR, secret(ECR, "old"), seconds=601)
    assert given(node, ECR) == ("AWS", "token")
    alive = node.answers.with_name("pull-secrets.alive")
    for text in ("", "x\n", "-5\n"):
        alive.write_text(text)
        assert given(node, ECR) == ("AWS", "token")
    alive.unlink()
    assert given(node, ECR) == ("AWS", "token")


@pytest.mark.parametrize("host", ["index.docker.io", "docker.io", "registry-1.docker.io", HUB])
def test_docker_hub_has_one_file(node: CredentialNode, host: str) -> None:
    node.pull_secret("index.docker.io", secret(HUB, "hub"))
    assert given(node, host) == ("robot$x", "hub")


def test_a_port_belongs_to_the_host(node: CredentialNode) -> None:
    node.pull_secret("registry.example:5000", secret("x", "with"))
    assert given(node, "registry.example:5000") == ("robot$x", "with")
    assert found(node, "registry.example") == NONE


@pytest.mark.parametrize("text", ["", "\n", "half", '{"ServerURL":'])
def test_a_spoilt_pull_secret_is_none(node: CredentialNode, text: str) -> None:
    node.answer(response("token"))
    node.pull_secret(ECR, text)
    assert given(node, ECR) == ("AWS", "token")


@pytest.mark.parametrize(
    "host",
    ["", "\n", "../../etc/passwd", "a/../b", "a b", "a;id", "$(id)", "a\0b\x1b", "*", ".hidden", "x" * 300],
)
def test_a_host_that_is_none_has_no_credentials(node: CredentialNode, host: str) -> None:
    node.pull_secret("a", secret("a", "of a"))
    node.pull_secret(".hidden", secret("a", "of a"))
    status, output, _ = node.run(host)
    assert (status, output) in (NONE, (0, secret("a", "of a")))
    assert status or host in ("a/../b",)


# Docker configurations


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def test_auths_of_roots_own_configuration_are_not_masked(node: CredentialNode) -> None:
    node.docker(json.dumps({"auths": {"registry.example": {"auth": basic("user", "word")}}}))
    assert given(node, "registry.example") == ("user", "word")
    assert node.source("registry.example") == [f"docker {node.home}/.docker/config.json"]


@pytest.mark.parametrize(
    "key",
    [
        "registry.example",
        "https://registry.example",
        "https://registry.example/v1/",
        "http://registry.example/",
    ],
)
def test_keys_of_auths_are_hosts_in_several_spellings(node: CredentialNode, key: str) -> None:
    node.docker(
        json.dumps({"auths": {key: {"auth": basic("u", "p")}, "registry.example/team": {"auth": "x"}}})
    )
    assert given(node, "registry.example") == ("u", "p")


@pytest.mark.parametrize("key", [HUB, "docker.io", "index.docker.io", "https://index.docker.io"])
def test_docker_hub_is_found_by_its_names(node: CredentialNode, key: str) -> None:
    node.docker(json.dumps({"auths": {key: {"auth": basic("u", "p")}}}))
    assert given(node, HUB) == ("u", "p")
    assert found(node, "registry.example") == NONE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"auths":null}',
        '{"auths":{"registry.example":{}}}',
        '{"auths":{"registry.example":{"auth":"?"}}}',
    ],
)
def test_a_spoilt_configuration_is_none(node: CredentialNode, text: str) -> None:
    node.docker(text)
    assert found(node, "registry.example") == NONE


def test_base64_may_be_written_with_escapes(node: CredentialNode) -> None:
    written = basic("user", "\xff?>é").replace("=", "\\u003d").replace("/", "\\/").replace("+", "\\u002B")
    node.docker(f'{{"auths":{{"registry.example":{{"auth":"{written}"}}}}}}')
    assert given(node, "registry.example") == ("user", "\xff?>é")


def test_a_helper_for_the_host_goes_before_the_store_and_before_auths(node: CredentialNode) -> None:
    answer = '{{"ServerURL":"x","Username":"{}","Secret":"s\\\\u0041"}}'
    node.docker_helper("of-host", f"echo '{answer.format('helper')}'")
    node.docker_helper("store", f"echo '{answer.format('store')}'")
    auths = {"registry.example": {"auth": basic("u", "p")}, "other.example": {"auth": basic("o", "p")}}
    helpers = {"registry.example": "of-host"}
    node.docker(json.dumps({"auths": auths, "credHelpers": helpers, "credsStore": "store"}))
    assert given(node, "registry.example") == ("helper", "sA")
    assert given(node, "other.example")[0] == "store"
    node.docker_helper("store", f"echo '{NONE[1].strip()}'; exit 1")
    assert given(node, "other.example") == ("o", "p")


def test_a_store_is_asked_for_docker_hub_by_its_address(node: CredentialNode) -> None:
    place = node.path / "server"
    node.docker_helper("store", f'printf %s "$asked" >{place}; exit 1')
    node.docker(json.dumps({"credsStore": "store"}))
    assert found(node, HUB) == NONE
    assert place.read_text() == HUB


@pytest.mark.parametrize("name", ["soci-cluster", "../x", "a b", "", "missing", "$(id)"])
def test_a_store_that_leads_back_or_is_missing_is_none(node: CredentialNode, name: str) -> None:
    shutil.copy(node.helper, node.programs)
    node.docker(json.dumps({"credsStore": name}))
    assert found(node, "registry.example") == NONE


def test_a_plugin_that_asks_docker_does_not_lead_back(node: CredentialNode) -> None:
    script = f"printf %s {ECR} | {' '.join(node.shell)} {node.helper} get"
    node.provide(script)
    assert found(node) == NONE
    assert len(node.requests()) == 1


def test_configurations_that_the_kubelet_reads_come_after_roots_own(node: CredentialNode) -> None:
    of_kubelet = node.docker(
        json.dumps({"auths": {"registry.example": {"auth": basic("k", "p")}}}), "kubelet/config.json"
    )
    old = node.docker(json.dumps({"old.example": {"auth": basic("old", "p")}}), "kubelet/.dockercfg")
    node.lines = [f"docker {of_kubelet}", f"docker {node.path}/missing", f"dockercfg {old}"]
    node.write_list()
    assert given(node, "registry.example") == ("k", "p")
    assert given(node, "old.example") == ("old", "p")
    assert node.source("registry.example") == [f"docker {of_kubelet}"]
    node.docker(json.dumps({"auths": {"registry.example": {"auth": basic("root", "p")}}}))
    assert given(node, "registry.example") == ("root", "p")


# The protocol, and what nobody may see


def test_the_rest_of_the_protocol(node: CredentialNode) -> None:
    assert node.run("unused", "list")[:2] == (0, "{}\n")
    for verb in ("store", "erase", ""):
        status, output, _ = node.run(secret(ECR, "x"), verb)
        assert status == 1
        assert "native keychain" not in output


def test_without_anything_there_is_none(node: CredentialNode) -> None:
    assert found(node) == NONE
    assert node.source(ECR) == ["none"]


def test_nobody_but_root_is_answered(one: CredentialNode) -> None:
    one.answer(response("token"))
    id_of_nobody = one.programs / "id"
    id_of_nobody.write_text("#!/bin/sh\necho 65534\n")
    id_of_nobody.chmod(0o755)
    assert found(one) == NONE
    assert one.requests() == []


def test_an_error_of_the_helper_itself_is_none(node: CredentialNode) -> None:
    text = node.helper.read_text()
    assert "\nresolve() {\n" in text
    node.helper.write_text(text.replace("\nresolve() {\n", '\nresolve() {\n  : "$no_such_variable"\n'))
    assert found(node) == NONE


def test_neither_arguments_nor_environments_nor_traces_have_a_secret(one: CredentialNode) -> None:
    """Each program that the helper starts notes what it was given."""
    seen = one.path / "seen"
    seen.mkdir()
    tools = one.path / "noting"
    tools.mkdir()
    for name in ("awk", "cat", "grep", "head", "mv", "rm", "sed", "sleep", "tr", "mkdir", "flock", "id"):
        program = shutil.which(name)
        note = f'{{ printf "%s\\n" "$@"; env; }} >>{seen}/$$'
        (tools / name).write_text(f'#!/bin/bash\n{note}\nexec {program} "$@"\n')
        (tools / name).chmod(0o755)
    one.helper.write_text(one.helper.read_text().replace("\nSEARCH_PATH=", f"\nSEARCH_PATH={tools}:"))
    one.answer(response("the-secret"))
    one.docker(json.dumps({"auths": {"registry.example": {"auth": basic("u", "the-secret")}}}))
    one.pull_secret("third.example", secret("x", "the-secret"))
    one.shell.append("-x")
    for host in (ECR, ECR, "registry.example", "third.example"):
        path = f"{tools}:{one.search_path}"
        status, output, error = one.run(host, PATH=path)
        assert status == 0
        assert "the-secret" in output
        assert "the-secret" not in error
    noted = "".join(path.read_text() for path in seen.iterdir())
    assert "LC_ALL=C" in noted
    for word in ("the-secret", basic("u", "the-secret")):
        assert word not in noted
