"""The pod's log, for machines and for people."""

import json

from agent import transaction
from agent.errors import InstallError, clean
from agent.log import Log, in_words


def test_every_line_is_an_object_with_node_step_and_message() -> None:
    lines: list[str] = []
    log = Log("node-1", lines.append)
    log.begin("download")
    log("https://example.org/a: 3 MiB")
    found = [json.loads(line) for line in lines]
    assert [(line["node"], line["step"], line["message"]) for line in found] == [
        ("node-1", "download", "begins"),
        ("node-1", "download", "https://example.org/a: 3 MiB"),
    ]
    assert all(line["time"].endswith("+00:00") for line in found)


def test_seconds_of_the_agents_and_of_the_host_scripts_steps() -> None:
    now = iter([0.0, 1.5, 1.5, 4.0])
    lines: list[str] = []
    log = Log("node-1", lines.append, lambda: next(now))
    log.begin("preflight")
    log.begin("commit")
    result = transaction.parse_result("outcome=committed\nsteps= lock:1000 restart:1200 end:1500\n")
    log.add(result.steps)
    assert in_words(log.seconds()) == "preflight 1.50 s, lock 0.20 s, restart 0.30 s"
    assert [json.loads(line)["step"] for line in lines] == ["preflight", "commit", "lock", "restart"]


def test_a_result_without_steps_is_read() -> None:
    assert transaction.parse_result("outcome=rolled-back\nstep=interrupted\n").steps == ()


def test_what_is_told_holds_no_credentials_and_no_control_characters() -> None:
    """Journals and errors hold signed layer addresses and proxies' passwords."""
    words = "get https://s3.example/l?X-Amz-Signature=abc&x=1: via http://user:word@proxy:3128\x1b[2J"
    assert clean(words) == "get https://s3.example/l?… via http://proxy:3128 [2J"
    assert InstallError("download", words, "-").cause == clean(words)
