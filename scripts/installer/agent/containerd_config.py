"""containerd's configuration: the few keys that SOCI needs, set in the node's own text.

The file is the operating system's, so it is edited as text: comments, order and every other byte stay.
Afterwards the parsed values before and after are compared, and then containerd's own view of them.
Key names per schema: soci-snapshotter's docs, and `containerd config dump` of 1.7 and 2.3.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import InstallError
from .slots import FIRST, Slot

Path = tuple[str, ...]

DEFAULT_FILE = "/etc/containerd/config.toml"  # which containerd reads where its command names none

SECRET = re.compile("auth|passw|token|header|secret", re.IGNORECASE)
CRI_1: Path = ("plugins", "io.containerd.grpc.v1.cri", "containerd")
CRI_2: Path = ("plugins", "io.containerd.cri.v1.images")


def proxy(slot: Slot = FIRST) -> Path:
    """The table by which containerd knows the slot's daemon."""
    return ("proxy_plugins", slot.name)


def wanted(table: Path, slot: Slot = FIRST, *, maps_ids: bool = False) -> dict[Path, object]:
    """Every key to set, when the image keys live in ``table``. The other slot's table is left as it is.

    ``maps_ids``: for a containerd that runs pods in user namespaces (2.0 and newer).
    """
    # SOCI maps the ids of a layer whenever it is asked to; containerd does it, too, unless told, and ids that
    # are mapped twice are an error: soci-snapshotter's snapshot.go, containerd's snapshotter_opts_unix.go.
    mapping: dict[Path, object] = {(*proxy(slot), "capabilities"): ["remap-ids"]} if maps_ids else {}
    return {
        (*table, "snapshotter"): slot.name,
        # Lazy loading needs the annotations that name the image; containerd leaves them out unless told.
        (*table, "disable_snapshot_annotations"): False,
        (*proxy(slot), "type"): "snapshot",
        (*proxy(slot), "address"): slot.socket,
        **mapping,
        # Without it the kubelet sees no disk use of the snapshotter and collects no garbage.
        (*proxy(slot), "exports", "root"): slot.data,
    }


def tables_for(schema: int, major: int) -> tuple[Path, ...]:
    """Tables that may hold the image keys, the usual one first.

    containerd 2 loses the keys of the old table when it migrates a schema 2 file that names no runtimes.
    The new table is the second choice there; which one took effect is read from the daemon's own dump.
    """
    if schema >= 3:
        return (CRI_2,)
    return (CRI_1, CRI_2) if major >= 2 else (CRI_1,)


def decode(content: bytes | None, path: str) -> str:
    """The text of a configuration file; empty when there is no file.

    Raises:
        InstallError: the file is not UTF-8, as TOML has to be.
    """
    try:
        return (content or b"").decode()
    except UnicodeDecodeError as error:
        raise InstallError("containerd-config", f"{path} is not UTF-8: {error}", "repair the file") from error


def parse(text: str, path: str) -> dict:
    """Parse a configuration.

    Raises:
        InstallError: the file is no valid TOML; containerd could not start again with it either.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InstallError(
            "containerd-config", f"{path} is not valid TOML: {error}", "repair the file"
        ) from error


def schema_of(text: str, path: str, containerd_major: int) -> int:
    """The schema that the file declares; for a file without settings, one that its containerd surely reads.

    Raises:
        InstallError: the file is in schema 1, whose plugin names differ; or declares no number.
    """
    data = parse(text, path)
    if not data:
        return 2 if containerd_major < 2 else 3
    schema = data.get("version", 1)
    if not isinstance(schema, int) or schema not in (2, 3, 4):
        raise InstallError(
            "containerd-config",
            f"{path} is in schema {schema}",
            "run `containerd config migrate`, or write schema 2",
        )
    return schema


def edit(
    text: str, path: str, schema: int, table: Path, slot: Slot = FIRST, *, maps_ids: bool = False
) -> str:
    """Return ``text`` with the wanted keys set and nothing else changed.

    Raises:
        InstallError: the file is written in a way that this editor cannot change safely (inline tables).
    """
    data = parse(text, path)
    before = flatten(data)
    keys = wanted(table, slot, maps_ids=maps_ids)
    expected = before | keys
    result = text
    if not data:
        expected["version",] = schema
        result = _with_first_line(result, f"version = {schema}")
    changed = difference(before, expected)
    for key, value in keys.items():
        if key in changed:
            result = _set(result, key, value)
    try:
        after = tomllib.loads(result)
    except tomllib.TOMLDecodeError as error:
        raise InstallError(
            "containerd-config", f"{path} cannot be edited safely: {error}", _INLINE
        ) from error
    if difference(expected, flatten(after)):
        raise InstallError("containerd-config", f"{path} cannot be edited safely", _INLINE)
    return result


_INLINE = "write the tables of plugins and proxy_plugins as [headers], not inline"


def flatten(data: Mapping, prefix: Path = ()) -> dict[Path, object]:
    """Nested tables as one mapping from key path to value. Arrays are values, empty tables are nothing."""
    flat: dict[Path, object] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= flatten(value, (*prefix, key))
        else:
            flat[*prefix, key] = value
    return flat


def difference(before: Mapping[Path, object], after: Mapping[Path, object]) -> set[Path]:
    """Paths whose value, type included, is not the same in both."""
    return {
        key
        for key in before.keys() | after.keys()
        if key not in before
        or key not in after
        or before[key] != after[key]
        or type(before[key]) is not type(after[key])
    }


def check_effect(before: str, after: str, slot: Slot = FIRST) -> list[str]:
    """Compare containerd's own dumps before and after; no problem means exactly the wanted effect."""
    old, new = (flatten(tomllib.loads(without_imports(text))) for text in (before, after))
    problems = []
    keys = wanted(image_table(new), slot, maps_ids=image_table(new) == CRI_2)
    for key, value in keys.items():
        if new.get(key) != value:
            problems.append(f"{'.'.join(key)} would be {new.get(key)!r}, not {value!r}")
    for key in sorted(difference(old, new)):
        if key not in keys and key[:2] != proxy(slot):
            shown = "" if SECRET.search(".".join(key)) else f" from {old.get(key)!r} to {new.get(key)!r}"
            problems.append(f"{'.'.join(key)} would change{shown}")
    runtimes = runtime_table(new)
    default = new.get((*runtimes, "default_runtime_name"), "runc")
    override = new.get((*runtimes, "runtimes", str(default), "snapshotter"))
    if override not in (None, "", slot.name):
        problems.append(f"the default runtime {default} has its own snapshotter {override!r}")
    return problems


def snapshotter(dump: Mapping[Path, object]) -> object:
    """The snapshotter in effect."""
    return dump.get((*image_table(dump), "snapshotter"))


def imports(text: str, path: str, dump: Mapping[Path, object]) -> list[str]:
    """What the root file ``text`` at ``path`` imports, as absolute patterns.

    containerd 2 dumps the patterns, 1.7 the files that it found.
    """
    listed = [*strings(parse(text, path).get("imports")), *strings(dump.get(("imports",)))]
    folder = path.rpartition("/")[0]
    absolute = (entry if entry.startswith("/") else f"{folder}/{entry}" for entry in listed)
    return list(dict.fromkeys(absolute))


def strings(value: object) -> list[str]:
    """The entries of a list as text; none of anything else."""
    return [str(entry) for entry in value] if isinstance(value, list) else []


def without_imports(dump: str) -> str:
    """The dump without its list of files, which containerd 1.7 prints in another order each time."""
    return "".join(line for line in dump.splitlines(keepends=True) if not line.startswith("imports = "))


def image_table(dump: Mapping[Path, object]) -> Path:
    """The table of the image keys in a flattened dump; containerd 2 prints the new one for every schema."""
    return CRI_2 if any(key[:2] == CRI_2 for key in dump) else CRI_1


def runtime_table(dump: Mapping[Path, object]) -> Path:
    """The table of the runtimes in a flattened dump."""
    return ("plugins", "io.containerd.cri.v1.runtime", "containerd") if image_table(dump) == CRI_2 else CRI_1


def pause_image(dump: Mapping[Path, object]) -> str:
    """The sandbox image in effect."""
    return str(
        dump.get((*CRI_2, "pinned_images", "sandbox"))
        or dump.get(("plugins", "io.containerd.grpc.v1.cri", "sandbox_image"))
        or ""
    )


def server_address(dump: Mapping[Path, object]) -> str:
    """containerd's socket; 2.3 prints it below the plugin that serves it."""
    found = dump.get(("grpc", "address")) or dump.get(("plugins", "io.containerd.server.v1.grpc", "address"))
    return str(found or "/run/containerd/containerd.sock")


def root(dump: Mapping[Path, object]) -> str:
    """containerd's own directory, which has the unpacked layers of overlayfs."""
    return str(dump.get(("root",)) or "/var/lib/containerd")


def names(dump: Mapping[Path, object], key: str) -> frozenset[str]:
    """A top-level list of names, such as ``required_plugins``."""
    return frozenset(strings(dump.get((key,))))


def verifiers(dump: Mapping[Path, object]) -> str:
    """The directory of image verifiers, which only pulls by the transfer service ask (containerd's
    docs/image-verification.md); empty where containerd knows none, or its CRI plugin pulls by itself."""
    if dump.get((*CRI_2, "use_local_image_pull")) is not False:
        return ""
    return str(dump.get(("plugins", "io.containerd.image-verifier.v1.bindir", "bin_dir")) or "")


def registry_directories(dump: Mapping[Path, object]) -> list[str]:
    """The certs.d directories in effect; containerd separates several by colons."""
    value = dump.get((*CRI_2, "registry", "config_path")) or dump.get(
        ("plugins", "io.containerd.grpc.v1.cri", "registry", "config_path")
    )
    return [part for part in str(value or "").split(":") if part]


# --- the text editor --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """One header or one key of a TOML text, with its place in it."""

    table: Path  # of the header above, or of this header
    key: Path  # dotted key below the table; empty for a header
    start: int  # of the line
    value: int  # where the value begins; for a header as ``end``
    end: int  # behind the value or header, before any comment
    array: bool = False  # [[header]]

    @property
    def path(self) -> Path:
        return (*self.table, *self.key)


_KEY_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")


def _key(text: str, at: int) -> tuple[Path, int]:
    """Read a dotted key at ``at``; the key and where it ends."""
    parts: list[str] = []
    while match := _KEY_PART.match(text, at):
        basic, literal, bare = match.groups()
        if basic is not None:
            parts.append(tomllib.loads(f'k = "{basic}"')["k"])
        else:
            parts.append(literal if literal is not None else bare)
        at = match.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return tuple(parts), at


def _value_end(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends; strings, arrays and inline tables may span lines."""
    depth = 0
    end = at
    while at < len(text):
        for quote in ('"""', "'''", '"', "'"):
            if text.startswith(quote, at):
                at = _string_end(text, at, quote)
                end = at
                break
        else:
            character = text[at]
            if character == "#":
                if depth == 0:
                    return end
                at = _line_end(text, at)
                continue
            if character in "[{":
                depth += 1
            elif character in "]}":
                depth -= 1
            elif character == "\n" and depth == 0:
                return end
            at += 1
            if not character.isspace():
                end = at
    return end


def _string_end(text: str, at: int, quote: str) -> int:
    at += len(quote)
    while not text.startswith(quote, at):
        at += 2 if quote[0] == '"' and text[at] == "\\" else 1
    at += len(quote)
    while len(quote) == 3 and text[at : at + 1] == quote[0]:  # up to two more quotes belong to the string
        at += 1
    return at


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def statements(text: str) -> Iterator[Statement]:
    """The statements of a valid TOML text, in order."""
    table: Path = ()
    at = 0
    while at < len(text):
        start = at
        while at < len(text) and text[at] in " \t\r":
            at += 1
        if at >= len(text):
            return
        if text[at] in "#\n":
            at = _line_end(text, at) + 1
            continue
        if text[at] == "[":
            array = text.startswith("[[", at)
            table, end = _key(text, at + (2 if array else 1))
            end += 2 if array else 1
            yield Statement(table, (), start, end, end, array)
        else:
            key, end = _key(text, at)
            value = end + 1
            while text[value] in " \t":
                value += 1
            end = _value_end(text, value)
            yield Statement(table, key, start, value, end)
        at = _line_end(text, end) + 1


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return f'"{value}"'


def _quoted(path: Path) -> str:
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in path)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _with_first_line(text: str, line: str) -> str:
    return line + _newline(text) + text


def _set(text: str, path: Path, value: object) -> str:
    """Set one key: in its place if it is there, else in its table, else in a new table at the end."""
    found = list(statements(text))
    for statement in found:
        if statement.path == path and statement.key:
            return text[: statement.value] + _literal(value) + text[statement.end :]
    table, name = path[:-1], path[-1]
    after: Statement | None = None
    key: Path = (name,)
    for statement in found:
        if statement.table == table and not statement.array:
            after, key = statement, (name,)
        elif (
            statement.key
            and len(statement.table) < len(table)
            and _is_within(statement, table)
            and after is None
        ):
            after, key = statement, (*table[len(statement.table) :], name)
    if after is None:
        newline = _newline(text)
        gap = "" if not text or text.endswith("\n\n") else newline if text.endswith("\n") else newline * 2
        return f"{text}{gap}[{_quoted(table)}]{newline}{_quoted(key)} = {_literal(value)}{newline}"
    line = f"{_indent(text, after)}{_quoted(key)} = {_literal(value)}"
    end = _line_end(text, after.end)
    newline = _newline(text)
    if end == len(text):
        return text + newline + line
    return text[: end + 1] + line + newline + text[end + 1 :]


def _is_within(statement: Statement, table: Path) -> bool:
    """Whether a dotted key (``containerd.x = 1`` below its parent's header) defines ``table``."""
    return len(statement.path) > len(table) and statement.path[: len(table)] == table


def _indent(text: str, statement: Statement) -> str:
    line = text[statement.start : statement.end]
    indent = line[: len(line) - len(line.lstrip())]
    return indent if statement.key or not indent else indent + "  "
