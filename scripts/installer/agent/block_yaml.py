"""The YAML that Kubernetes' own files are written in: JSON, and plain block mappings, lists and scalars.

Python brings no reader of YAML, and the agent has no dependencies. What is not understood (anchors, tags,
text over several lines, flow style but for what is JSON) is refused, never guessed. Scalars: YAML 1.2, core
schema.
"""

import json
import re
from typing import Any

_DOUBLE, _SINGLE = r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'"
# A plain text: no indicator begins it, and neither ": " nor " #" is in it.
_PLAIN = r"(?:[^\s\-?:,\[\]{}#&*!|>'\"%@`]|[-?:](?=\S))(?:[^:#\s]|:(?=\S)|(?<=\S)#|[ \t]+(?=[^\s#]))*"
_SCALAR = rf"{_DOUBLE}|{_SINGLE}|{_PLAIN}"
_COMMENT = r"(?:\s+#.*)?\s*"
_ENTRY = re.compile(rf"({_SCALAR})\s*:(?:\s+(\S.*?))?\s*$")
_ITEM = re.compile(r"-(?:(\s+)(\S.*?))?\s*$")
_WHOLE = re.compile(rf"({_SCALAR}|\[.*\]|\{{.*\}}){_COMMENT}$")
_WORDS: dict[str, Any] = {"~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?\d+")

Line = tuple[int, str]  # indentation, and what follows it


def load(text: str) -> Any:
    """What the text says: dict, list, str, int, bool or None.

    Raises:
        ValueError: it is neither JSON nor in the subset that is understood.
    """
    if text.lstrip().startswith(("{", "[")):
        return json.loads(text)
    raw = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if raw and raw[0].rstrip() == "---":
        del raw[0]
    lines = [(len(line) - len(line.lstrip(" ")), line.lstrip(" ")) for line in raw]
    value, rest = _block(lines, 0)
    if rest:
        raise _error(rest[0])
    return value


def _error(line: Line) -> ValueError:
    key = line[1].partition(":")[0]  # what follows may be a secret
    return ValueError(f"it is written in a way that is not understood, at {key[:40]!r}")


def _block(lines: list[Line], least: int) -> tuple[Any, list[Line]]:
    """The value that the lines begin with, if it is indented by ``least`` or more; and the lines after it."""
    if not lines or lines[0][0] < least:
        return None, lines
    if _ITEM.match(lines[0][1]):
        return _list(lines)
    if _entry(lines[0]):
        return _mapping(lines)
    return _scalar(lines[0], lines[0][1]), lines[1:]


def _entry(line: Line) -> re.Match[str] | None:
    return _ENTRY.match(line[1])


def _list(lines: list[Line]) -> tuple[list[Any], list[Line]]:
    indent, found = lines[0][0], []
    while lines and lines[0][0] == indent and (item := _ITEM.match(lines[0][1])):
        if item[2] and not item[2].startswith("#"):
            # What follows the dash stands where it stands: more of the same may be below it.
            lines = [(indent + 1 + len(item[1]), item[2]), *lines[1:]]
        else:
            lines = lines[1:]
        value, lines = _block(lines, indent + 1)
        found.append(value)
    return found, lines


def _mapping(lines: list[Line]) -> tuple[dict[str, Any], list[Line]]:
    indent, found = lines[0][0], {}
    while lines and lines[0][0] == indent and (entry := _entry(lines[0])):
        line, lines = lines[0], lines[1:]
        key = str(_scalar(line, entry[1]))
        if key in found:
            raise _error(line)
        if entry[2] and not entry[2].startswith("#"):
            found[key] = _scalar(line, entry[2])
        else:
            # A list may stand below its key without being indented.
            is_list = bool(lines) and lines[0][0] == indent and bool(_ITEM.match(lines[0][1]))
            found[key], lines = _block(lines, indent if is_list else indent + 1)
    return found, lines


def _scalar(line: Line, text: str) -> Any:
    whole = _WHOLE.match(text)
    if not whole:
        raise _error(line)
    word = whole[1]
    try:
        if word[0] in '"[{':
            return json.loads(word)
    except ValueError:
        raise _error(line) from None
    if word[0] == "'":
        return word[1:-1].replace("''", "'")
    if _INTEGER.fullmatch(word):
        return int(word)
    return _WORDS.get(word, word)
