"""Where the tests on real nodes kill the host script: found however it is laid out, and reached."""

import pytest

from tests.fakes.script_node import ScriptNode
from tests.faults.script_points import HOST_SCRIPT, POINTS, find, statements, with_hooks

WORDS = [
    ("local", "x"),
    ("enter", "one"),
    ("x=$(a; b)",),
    ("if",),
    ("c", "'d; e'"),
    ("f", '"$(g ")")"'),
    ("for",),
    ("case",),
    ("h", "${i# }"),
    ("j",),
    ("k",),
    ("enter", "two"),
    ("l",),
    ("{",),
    ("m",),
    ("done_with", "n"),
]
WIDE = """
other() { z; }
apply() {
  local x # a comment; no statement
  enter one
  x=$(a; b)
  if [ -e x ] && y; then
    c 'd; e'
  elif z; then
    f "$(g ")")"
  fi
  for x in 1 2; do
    case $x in
      1 | 2) h ${i# } ;;
      *)
        j
        k
        ;;
    esac
  done
  enter two
  l \\
    --and || m |
    n
  {
    m
  } >o 2>&1
  done_with n
}
after() { z; }
"""
NARROW = """
other() { z; }
  apply () { local x; enter one; x=$(a; b)
if [ -e x ] && y
then c 'd; e'; elif z; then f "$(g ")")"; fi
  for x in 1 2
  do case $x in (1 | 2) h ${i# };; *) j; k; esac; done
enter two; l --and || m | n; { m; } >o 2>&1
    done_with n; }
after() { z; }
"""


@pytest.mark.parametrize("script", [WIDE, NARROW], ids=["wide", "narrow"])
def test_statements_are_found_whatever_the_layout(script: str) -> None:
    found = statements(script, "apply")
    begins = [one.words[: len(words)] for one, words in zip(found, WORDS, strict=True)]
    assert begins == WORDS
    assert [one.step for one in found] == [""] * 2 + ["one"] * 10 + ["two"] * 4
    assert find(found, "c").within[0].startswith("if [ -e x ] && y")


def test_a_point_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(LookupError, match="'enter one'"):
        find(statements(WIDE, "apply"), "renamed")


def test_a_first_install_comes_to_every_point(node: ScriptNode) -> None:
    """Else a test on a real node would wait for a kill that never comes."""
    hooks = {point: f'echo {number} >>"$FAKE/points"' for number, point in enumerate(POINTS)}
    node.script = with_hooks(HOST_SCRIPT, hooks).encode()
    node.install()
    reached = {int(number) for number in (node.fake / "points").read_text().split()}
    assert [point.words for number, point in enumerate(POINTS) if number not in reached] == []
    assert {point.step for point in POINTS} >= {"journal", "snapshotter", "swap", "restart", "commit"}
