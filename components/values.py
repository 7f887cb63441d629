"""How a value is written: what the user set, as YAML, JSON or a program gives it, becomes a value of its
type.

A value means what the user wrote, or it is refused where it shows that YAML changed it: a fraction or a date
may have been written otherwise (`0.10` becomes 0.1). A whole number as text does not show it: `0042` becomes
34 before this program reads it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What Pulumi makes of an unquoted date in a stack's file: Go's text of a time.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ [+-][0-9]{4} \S+")
_QUOTE = "quote it in YAML"


class RefusedError(ValueError):
    """One value that cannot work: the reason, and the remedy to show with it.

    For an object it may be about some of its entries: then each has a refusal of its own, with the entry's
    name and value.
    """

    def __init__(
        self,
        reason: str,
        remedy: str = "",
        entry: str = "",
        value: Any = None,
        entries: "Sequence[RefusedError]" = (),
    ) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.entry, self.value, self.entries = reason, remedy, entry, value, entries


@dataclass(frozen=True)
class Kind:
    """One type of setting: its name in Pulumi.yaml, its annotation as a component's argument, its reader."""

    name: str
    annotation: str
    read: Callable[[Any], Any]


def text(value: Any) -> str:
    """A text without the blanks around it; whole numbers are the text that was written.

    Raises:
        RefusedError: anything else. What YAML calls a fraction or a date is not what was written any more.
    """
    if isinstance(value, str):
        stripped = value.strip()
        if _DATE.fullmatch(stripped):
            raise RefusedError(f"must be text, and this is a date: {_QUOTE}")
        return stripped
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise RefusedError(f"must be text, and this is a number (YAML reads 0.10 as 0.1): {_QUOTE}")
    raise RefusedError(f"must be text, not {kind_in_words(value)}")


def boolean(value: Any) -> bool:
    """true or false, in any case.

    Raises:
        RefusedError: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (lower := value.strip().lower()) in ("true", "false"):
        return lower == "true"
    raise RefusedError("must be true or false")


def integer(value: Any) -> int:
    """A whole number, in plain decimal digits.

    Raises:
        RefusedError: anything else; also `010`, which YAML takes for 8.
    """
    digits = str(value).strip() if isinstance(value, int | float | str) else ""  # True is no digit either
    if match := re.fullmatch(r"(-?(?:0|[1-9][0-9]{0,17}))(\.0)?", digits):
        return int(match[1])
    raise RefusedError("must be a whole number in decimal digits")


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts; a program may give a tuple, Pulumi's configuration gives JSON.

    Raises:
        RefusedError: anything else, and a list with an empty entry.
    """
    entries = tuple(_entry(f"entry {number}", item) for number, item in enumerate(items(value)))
    if "" in entries:
        raise RefusedError("must be a list of non-empty strings")
    return entries


def items(value: Any) -> tuple[Any, ...]:
    """A list whose entries have types of their own, yet to be read.

    Raises:
        RefusedError: anything else.
    """
    found = _structure(value)
    if not isinstance(found, list | tuple):
        raise RefusedError(f"must be a list, not {kind_in_words(found)}")
    return tuple(found)


def mapping(value: Any) -> dict[str, str]:
    """An object of texts; a program gives a mapping, Pulumi's configuration gives JSON.

    Raises:
        RefusedError: anything else.
    """
    found = _object(value, "an object of strings")
    return {text(key): _entry(str(key), item) for key, item in found.items()}


def entries(value: Any) -> dict[str, Any]:
    """An object whose entries have types of their own, yet to be read.

    Raises:
        RefusedError: anything else.
    """
    return {str(key): item for key, item in _object(value, "an object").items()}


def _object(value: Any, wanted: str) -> Mapping[Any, Any]:
    found = _structure(value)
    if not isinstance(found, Mapping):
        raise RefusedError(f"must be {wanted}, not {kind_in_words(found)}")
    return found


def _entry(name: str, value: Any) -> str:
    """One text of a list or an object. YAML's bare true is the text that Kubernetes and AWS want."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return text(value)
    except RefusedError as refused:
        raise RefusedError(f"{name}: {refused.reason}") from None


def _structure(value: Any) -> Any:
    """Lists and objects reach the program as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def kind_in_words(value: Any) -> str:
    """What a value is, in the words of YAML, without showing it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else f"a value of the type {type(value).__name__}"


TEXT = Kind("string", "str", text)
BOOLEAN = Kind("boolean", "bool", boolean)
INTEGER = Kind("integer", "int", integer)
TEXTS = Kind("array", "list[str]", texts)
ITEMS = Kind("array", "list[Any]", items)
MAPPING = Kind("object", "dict[str, str]", mapping)
OBJECT = Kind("object", "dict[str, Any]", entries)
NODE_GROUPS = Kind("object", "dict[str, NodeGroupArgs]", entries)
KINDS: Mapping[Any, Kind] = {
    str: TEXT,
    bool: BOOLEAN,
    int: INTEGER,
    tuple[str, ...]: TEXTS,
    tuple[Any, ...]: ITEMS,
    Mapping[str, str]: MAPPING,
    Mapping[str, Any]: OBJECT,
    Mapping[str, Mapping[str, Any]]: NODE_GROUPS,
}
