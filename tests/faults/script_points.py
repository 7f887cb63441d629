"""Where a function of the host script can be cut: before each of its statements, however they are laid out.

It reads as much of the shell's grammar as the host script uses: lists, pipelines, if, loops, case, groups,
quotes, expansions, comments, continued lines (POSIX, "Shell Grammar"). There are no here-documents in it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from agent import transaction

from tests.fakes.node import INSTALLER

HOST_SCRIPT = transaction.host_script(INSTALLER).decode()
# In the condition of what a first install has not: a daemon to restart.
NOT_THEN = "snapshotter_action"
BLANK = re.compile(r"(?:[ \t]|\\\n)+")
OPERATOR = re.compile(r";;|&&|\|\||>>|[<>]&|>\||[;&|()<>\n]")
SEPARATORS = {"\n", ";", "&"}


@dataclass(frozen=True)
class Statement:
    """A command of a list at ``offset`` of the script, and the step that was entered last before it."""

    offset: int
    step: str
    words: tuple[str, ...]  # of a compound command its first one, as `if`
    within: tuple[str, ...]  # the compound commands around it, outermost first, each up to the body it is in

    @property
    def name(self) -> str:
        return self.words[0]


def statements(script: str, function: str) -> list[Statement]:
    """The statements of a function in their order; those in the conditions of `if` and loops are left out.

    Raises:
        LookupError: there is no such function.
        ValueError: it has something that is not understood here.
    """
    head = re.search(rf"^[ \t]*{re.escape(function)}[ \t]*\(\)\s*\{{", script, re.MULTILINE)
    if not head:
        raise LookupError(f"the script has no function {function}")
    return _Reader(script, head.end()).function()


def of_a_first_install() -> list[Statement]:
    """The statements of `apply` that a first install comes to, from its first write on."""
    found = statements(HOST_SCRIPT, "apply")
    begin = found.index(find(found, "enter", "journal"))
    return [one for one in found[begin:] if NOT_THEN not in "".join(one.within)]


def find(found: list[Statement], *words: str) -> Statement:
    """The one statement that begins with these words.

    Raises:
        LookupError: there is none, or more than one.
    """
    fitting = [one for one in found if one.words[: len(words)] == words]
    if len(fitting) != 1:
        there = sorted({" ".join(one.words[:2]) for one in found})
        raise LookupError(f"{len(fitting)} statements begin with {' '.join(words)}; there are {there}")
    return fitting[0]


def with_hooks(script: str, hooks: dict[Statement, str]) -> str:
    """The script with a command before each of these statements."""
    for statement, command in sorted(hooks.items(), key=lambda item: -item[0].offset):
        script = f"{script[: statement.offset]}{command}\n{script[statement.offset :]}"
    return script


class _Reader:
    def __init__(self, script: str, begin: int) -> None:
        self.script = script
        self.position = begin  # behind the token at work
        self.offset, self.token = begin, ""
        self.step = ""
        self.within: list[str] = []
        self.found: list[Statement] = []
        self.in_condition = 0
        self.next()

    def function(self) -> list[Statement]:
        self.list({"}"})
        return sorted(self.found, key=lambda statement: statement.offset)

    def next(self) -> None:
        """Go on to the next token: a word, an operator, or the end of a line."""
        while True:
            if blank := BLANK.match(self.script, self.position):
                self.position = blank.end()
            elif self.script.startswith("#", self.position):
                self.position = self.script.index("\n", self.position)
            else:
                break
        self.offset = self.position
        operator = OPERATOR.match(self.script, self.position)
        self.position = operator.end() if operator else _end_of_word(self.script, self.position)
        self.token = self.script[self.offset : self.position]
        if not self.token:
            raise ValueError("the script ends inside the function")

    def skip(self, tokens: Collection[str]) -> None:
        while self.token in tokens:
            self.next()

    def take(self, token: str) -> None:
        if self.token != token:
            line = self.script.count("\n", 0, self.offset) + 1
            raise ValueError(f"line {line}: {self.token!r} where {token!r} was expected")
        self.next()

    def list(self, ends: Collection[str]) -> None:
        """Statements up to one of these words, which is left to the caller."""
        self.skip(SEPARATORS)
        while self.token not in ends:
            offset, step, within = self.offset, self.step, tuple(self.within)
            words = self.and_or()
            if not self.in_condition:
                self.found.append(Statement(offset, step, words, within))
            self.skip(SEPARATORS)

    def and_or(self) -> tuple[str, ...]:
        """Pipelines that are joined; the words of the first command."""
        words = self.command()
        while self.token in {"&&", "||", "|"}:
            self.next()
            self.skip({"\n"})
            self.command()
        return words

    def command(self) -> tuple[str, ...]:
        begin, word = self.offset, self.token
        match word:
            case "!":
                self.next()
                return self.command()
            case "if":
                self.branch(begin, {"then"})
                while self.token == "elif":
                    self.branch(begin, {"then"})
                if self.token == "else":
                    self.body(begin, {"fi"})
                self.take("fi")
            case "while" | "until":
                self.condition({"do"})
                self.body(begin, {"done"})
                self.take("done")
            case "for":
                while self.token != "do":
                    self.next()
                self.body(begin, {"done"})
                self.take("done")
            case "case":
                self.case(begin)
            case "{" | "(":
                end = "}" if word == "{" else ")"
                self.body(begin, {end})
                self.take(end)
            case _:
                return self.simple()
        self.simple()  # redirections
        return (word,)

    def simple(self) -> tuple[str, ...]:
        words = []
        while self.token not in {*SEPARATORS, "&&", "||", "|", ")", ";;"}:
            words.append(self.token)
            self.next()
        if words[:1] == ["enter"] and len(words) > 1:
            self.step = words[1]
        return tuple(words)

    def branch(self, begin: int, ends: Collection[str]) -> None:
        self.condition(ends)
        self.body(begin, {"elif", "else", "fi"})

    def condition(self, ends: Collection[str]) -> None:
        self.next()
        self.in_condition += 1
        self.list(ends)
        self.in_condition -= 1

    def body(self, begin: int, ends: Collection[str]) -> None:
        """The list behind the word at work, which ends the compound command's head."""
        self.within.append(self.script[begin : self.position])
        self.next()
        self.list(ends)
        self.within.pop()

    def case(self, begin: int) -> None:
        while self.token != "in":
            self.next()
        self.next()
        self.skip({"\n"})
        while self.token != "esac":
            while self.token != ")":
                self.next()
            self.body(begin, {";;", "esac"})
            self.skip({";;", "\n"})
        self.take("esac")


def _end_of_word(script: str, position: int) -> int:
    while position < len(script) and script[position] not in " \t\n;&|()<>":
        position = _end_of_part(script, position)
    return position


def _end_of_part(script: str, position: int) -> int:
    """Behind the quoted text, the expansion or the single character that begins there."""
    if script.startswith("$(", position):
        return _end_of_nested(script, position + 2, ")")
    if script.startswith("${", position):
        return _end_of_nested(script, position + 2, "}")
    if script[position] == '"':
        return _end_of_nested(script, position + 1, '"')
    if script[position] == "'":
        return script.index("'", position + 1) + 1
    return position + (2 if script[position] == "\\" else 1)


def _end_of_nested(script: str, position: int, end: str) -> int:
    while script[position] != end:
        if script[position] == "(" and end == ")":
            position = _end_of_nested(script, position + 1, ")")
        elif script[position] == "'" and end == '"':
            position += 1  # is but a character there
        else:
            position = _end_of_part(script, position)
    return position + 1


POINTS = of_a_first_install()
