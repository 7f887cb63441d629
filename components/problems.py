"""What is wrong with a setting, and how the user is told: key or path, value, reason and remedy, in one line.

What may hold credentials is not shown. A path leads into a value: `nodeGroups.gpu.nodeCount`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from os import PathLike
from typing import Any, NamedTuple, get_origin

import pulumi

from . import kubeconfig, redaction
from .settings import (
    FIELDS,
    GROUP_FIELDS,
    KEYS,
    Settings,
    config_key,
    declaration,
    default_of,
    node_groups_of,
    plain,
)
from .values import RefusedError

PROXIES = ("httpProxy", "httpsProxy")
WITH_COLONS = re.compile(r"(?:^|\.)\w*(?:[iI]mages?|[tT]aints)(?:[.\[]|$)")
"""Paths of values with a colon that are no user and password."""


class SociConfigError(pulumi.RunError):
    """Settings that cannot work. Every line of the message names key, value, reason and remedy."""


class Finding(NamedTuple):
    """Something that is wrong with settings that were read."""

    key: str
    """The setting's, without `soci:`; in a group of soci:nodeGroups the path to it."""
    reason: str
    remedy: str
    """For the flat key; `of_finding` turns it to the group's own."""


def line(path: str, value: Any, reason: str, remedy: str) -> str:
    """The line about a value, whatever it is."""
    told = f"{reason}. Remedy: {remedy}"
    top = path.partition(".")[0]
    item = FIELDS.get(top)
    if redaction.is_config_secret(top):
        # What is told of a setting that is made for credentials holds none.
        told = told if item and declaration(item).is_secret else redaction.without_secret(told, value)
        return f"soci:{path} [secret]: {told}"
    credentials = redaction.credentials_in(value)
    if credentials or _may_be_secret(top, value):
        return f"soci:{path} [not shown]: {redaction.without_secret(told, credentials)}"
    # What a setting of ours is called says nothing of its value.
    names = path.removeprefix(_group_of(path))
    names = names.partition(".")[2] if names.partition(".")[0] in FIELDS else names
    if redaction.may_hold_secret(names, value) or _is_pair(path, value):
        return f"soci:{path} [not shown]: {redaction.without_secret(told, value)}"
    if not _is_of_known_shape(path, value):
        return f"soci:{path} [not shown]: {told}"
    return f"soci:{path} '{redaction.shortened(plain(value))}': {told}"


def of_finding(settings: Settings, finding: Finding, written: Mapping[str, Any] | None = None) -> str:
    """The line about settings that were read.

    Args:
        settings: what they were read as.
        finding: what is wrong with them.
        written: their values as the user wrote them, by key; what is missing is shown as it was read.
    """
    path = finding.key
    value = (written or {}).get(path, _value_at(settings, path))
    return line(path, value, finding.reason, _in_group(finding.remedy, path, settings))


def of_refusal(path: str, value: Any, refused: RefusedError) -> list[str]:
    """The lines about a value that was refused: the whole of it, or those entries that the refusal names."""
    lines = []
    for entry in refused.entries or [refused]:
        at = f"{path}.{entry.entry}" if entry.entry else path
        own_remedy = removal(at) if entry.entry else remedy_for(_field_at(path))
        remedy = _in_group(entry.remedy or own_remedy, path)
        lines.append(line(at, entry.value if entry.entry else value, entry.reason, remedy))
    return lines


def of_unknown(path: str, key: str, value: Any, known: Mapping[str, "Field[Any]"]) -> str:
    """The line about a key that is none of the known ones at this path."""
    closest = _closest(key, known)
    reason = "there is no such setting"
    if path:
        reason += " of a node group" + (f" (soci:{key} is one of the cluster)" if key in FIELDS else "")
    hint = f"did you mean soci:{path}{closest}? " if closest and key not in FIELDS else ""
    return line(path + key, value, reason, hint + removal(path + key))


def remedy_for(item: "Field[Any]") -> str:
    """The command that mends a bad value: the setting's own, else one back to the default."""
    default = default_of(item)
    if remedy := declaration(item).remedy:
        return f"pulumi config {remedy}"
    if not default:
        return removal(config_key(item))
    return f"pulumi config set soci:{config_key(item)} {'true' if default is True else default}"


def removal(path: str) -> str:
    """The command that takes away what the user wrote at a path."""
    return f"pulumi config rm {'--path ' if '.' in path else ''}soci:{path}"


def in_words(names: Iterable[str]) -> str:
    """Several names as one says them: a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _group_of(path: str) -> str:
    """What comes before the keys of the node group that a path leads to; empty outside of groups."""
    group = re.match(r"nodeGroups\.[^.]*\.", path)
    return group[0] if group else ""


def _field_at(path: str) -> "Field[Any]":
    """The setting that a path leads to, or into."""
    return FIELDS[path.removeprefix(_group_of(path)).partition(".")[0]]


def _value_at(settings: Settings, path: str) -> Any:
    group = _group_of(path)
    of = node_groups_of(settings)[group.split(".")[1]] if group else settings
    return getattr(of, _field_at(path).name)


def _in_group(remedy: str, path: str, settings: Settings | None = None) -> str:
    """A remedy for the value at this path: that for a flat key, turned to the group's own.

    With the settings, only where that is possible: what is removed, or an entry that comes after others, is
    the flat key's when the group has its value from there.
    """
    group = _group_of(path)
    own = settings.node_groups[group.split(".")[1]] if settings and group else KEYS

    def turned(command: "re.Match[str]") -> str:
        verb, quote, key, entry = command.groups()
        item = GROUP_FIELDS.get(key)
        must_be_there = verb == "rm" or entry not in ("", "[0]")
        if not item or (must_be_there and item.name not in own):
            return command[0]
        return f"config {verb} --path {quote}soci:{group}{key}{entry}"

    pattern = r"config (set|rm) (?:--path )?('?)soci:(\w+)((?:\[\d+\])?)"
    return re.sub(pattern, turned, remedy) if group else remedy


def _is_pair(path: str, value: Any) -> bool:
    """Whether a value is a user and a password, in the place of what belongs at this path."""
    if path.partition(".")[0] in PROXIES:
        return redaction.is_pair(value)
    return not WITH_COLONS.search(path) and redaction.is_pair_of_no_host(value)


def _may_be_secret(key: str, value: Any) -> bool:
    """Whether a value is that of a setting made for credentials, and no path."""
    item = FIELDS.get(key)
    if not item or not declaration(item).is_secret or not value:
        return False
    return item.type is not str or not kubeconfig.is_path(str(value))


def _is_of_known_shape(path: str, value: Any) -> bool:
    """Whether a value is a plain one of a setting that we declare, or a list of such. What an unknown key, an
    entry of the user's own naming or a command holds may be anything, and so a secret."""
    value = redaction.decoded(value)
    key, *entries = re.sub(r"\[\d+\]", "", path.removeprefix(_group_of(path))).split(".")
    item = FIELDS.get(key)
    holds_list = item is not None and get_origin(item.type) is tuple
    if item and is_dataclass(item.type) and entries:
        declared = {config_key(each): each for each in fields(item.type)}
        item = declared.get(entries.pop(0))
    is_object = item is not None and (get_origin(item.type) is Mapping or is_dataclass(item.type))
    if entries or not item or is_object:
        return False
    is_list = isinstance(value, list | tuple) and (holds_list or not value)
    return all(map(_is_scalar, value if is_list else [value]))


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return not kubeconfig.is_content(value)
    return isinstance(value, int | float | PathLike)


def _closest(key: str, among: Mapping[str, "Field[Any]"]) -> str:
    """The setting that a misspelt key means; empty when there is none that is near."""
    by_lower_case = {known.lower(): known for known in among}
    found = difflib.get_close_matches(key.lower(), by_lower_case, n=1)
    return by_lower_case[found[0]] if found else ""
