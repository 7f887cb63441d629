"""The names in the host script's text: its journal states, and whose its variables are."""

import re
from collections.abc import Iterator

from agent import transaction, uninstall

from tests.fakes.node import INSTALLER

SCRIPT = transaction.host_script(INSTALLER).decode()
COMMANDS = re.sub(r"(^|\s)#.*", "", SCRIPT, flags=re.MULTILINE)
NO_INSTALL = "none"  # of an uninstall alone, never written

FUNCTION = re.compile(r"^(\w+)\(\) ([{(])\n(.*?)^[})]", re.MULTILINE | re.DOTALL)
ASSIGNED = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else)\b)[ \t]*([a-z_]\w*)=|\bfor ([a-z_]\w*) in\b|\bread -r ([a-z_ ]+)",
    re.MULTILINE,
)


def compared_states() -> set[str]:
    cases = re.findall(r"case \$JOURNAL in(.*?)\besac", COMMANDS, re.DOTALL)
    patterns = [found for case in cases for found in re.findall(r"(?:^|;;)\s*([^()\n;]+)\)", case)]
    tests = re.findall(r'"\$JOURNAL" !?= ([a-z-]+)', COMMANDS)
    return {word.strip() for pattern in patterns for word in pattern.split("|")} - {"*"} | set(tests)


def test_every_journal_state_that_is_compared_is_in_the_table_of_the_head() -> None:
    head = SCRIPT[SCRIPT.index("# The journal has") : SCRIPT.index("# Functions have")]
    listed = set(re.findall(r"^#   ([a-z-]+) {2,}", head, re.MULTILINE))
    assert compared_states() == listed | {NO_INSTALL}
    assert set(uninstall.REMOVING) < listed


def leaks(script: str) -> Iterator[str]:
    """Variables that a function gives its caller, and neither declares nor names in the comment above it.

    What runs in a subshell gives nothing.
    """
    for function in FUNCTION.finditer(script):
        name, bracket, text = function.groups()
        if bracket == "(":
            continue
        comment = script[: function.start()].rpartition("\n\n")[2]
        body = re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE)
        local = {
            word.partition("=")[0]
            for line in re.findall(r"\blocal ([^;&|\n]+)", body)
            for word in line.split()
        }
        for found in ASSIGNED.finditer(body):
            for variable in " ".join(filter(None, found.groups())).split():
                if variable not in local | {"_"} and f"`{variable}` of the caller" not in comment:
                    yield f"{name}: {variable}"


def test_what_a_function_assigns_is_local_or_in_capitals_or_declared_as_its_callers() -> None:
    assert len(FUNCTION.findall(SCRIPT)) > 100
    assert list(leaks(SCRIPT)) == []


def test_a_variable_that_leaks_is_found() -> None:
    assert list(leaks("a() {\n  local x\n  x=1 Z=2\n  y=3\n  for w in 1; do v=1; done\n}\n")) == [
        "a: y",
        "a: w",
        "a: v",
    ]
