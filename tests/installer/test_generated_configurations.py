"""The text editor of containerd's configuration on thousands of generated files; tomllib is the judge."""

import random
import tomllib
from collections.abc import Iterator, Mapping

import pytest
from agent import containerd_config as config
from agent.errors import InstallError

from tests.installer.configurations import lines_lost

PATH = "/etc/containerd/config.toml"
BATCHES, BATCH = 20, 100

Table = dict[str, object]

# What a file may hold beside the keys of our own: every type, every name that has to be quoted.
STRINGS = (
    "runc",
    "",
    "/etc/containerd/certs.d",
    "a # no comment",
    "[plugins]",
    "back\\slash",
    'q"uote',
    "tab\there",
)
LONG_STRINGS = (
    "[proxy_plugins.soci]\nsnapshotter = 'no'\n",
    "# no comment\nversion = 9",
    'two "" quotes',
    "ö = [",
)
NUMBERS = ("-999", "0", "0xff", "1_000", "1e3", "-0.5", "inf", "0o644", "2020-01-01T00:00:00Z", "07:32:00")
COMMENTS = ("# plain", '# "quoted [', "#", "# [proxy_plugins.soci]", "# snapshotter = 'x'", "# ö ]]")
TABLES: tuple[config.Path, ...] = (
    (),
    ("grpc",),
    ("debug",),
    ("plugins",),
    config.CRI_1[:-1],
    config.CRI_1,
    (*config.CRI_1, "runtimes", "runc"),
    (*config.CRI_1, "runtimes", "runc", "options"),
    (*config.CRI_1[:-1], "registry"),
    config.CRI_2,
    (*config.CRI_2, "pinned_images"),
    (*config.CRI_2, "registry", "a b.c"),
    ("plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes", "nvidia"),
    ("proxy_plugins",),
    ("proxy_plugins", "nydus"),
    config.proxy(),
    (*config.proxy(), "exports"),
)


class Writer:
    """Writes one random file; remembers which tables it wrote inline, for those cannot be edited."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.newline = self.random.choice(("\n", "\n", "\r\n"))
        self.indent = self.random.choice(("", "", "  ", "\t"))
        self.inline: list[config.Path] = []
        self.sections: list[str] = []

    def file(self) -> str:
        model: Table = {"version": str(self.random.choice((2, 3, 4)))}
        for path in self.random.sample(TABLES, self.random.randint(0, 8)):
            self._fill(model, path)
        body = self._section(model, (), 0)
        self.random.shuffle(self.sections)
        text = self._noise() + body + "".join(self.sections)
        text = text.replace("\n", self.newline)
        return text.rstrip("\r\n") if self.random.random() < 0.2 else text

    def _fill(self, model: Table, path: config.Path) -> None:
        table: object = model
        for part in path:
            assert isinstance(table, dict)
            table = table.setdefault(part, {})
        assert isinstance(table, dict)
        for _ in range(self.random.randint(0, 3)):
            table[self.random.choice(("max_size", "x-1", "a.b", "ö", "no_pivot", "1", "max"))] = self._value()
        for key, value in config.wanted(config.CRI_1 if path == config.CRI_1 else config.CRI_2).items():
            if key[:-1] == path and self.random.random() < 0.5:
                table[key[-1]] = self.random.choice((self._literal(value), "'other'", "true", "7"))

    def _section(self, table: Mapping[str, object], path: config.Path, depth: int) -> str:
        """The statements of one table; tables below it become further sections, dotted keys or inline."""
        lines = list(self._statements(table, path, (), depth))
        self.random.shuffle(lines)
        return "".join(lines)

    def _statements(
        self, table: Mapping[str, object], host: config.Path, prefix: config.Path, depth: int
    ) -> Iterator[str]:
        for name, value in table.items():
            key = (*prefix, name)
            if not isinstance(value, dict):
                yield self._line(f"{self._key(key)}{self._equals()}{value}", depth)
                continue
            style = self.random.choices(("header", "dotted", "inline"), (8, 2, 1))[0]
            if style == "dotted":
                yield from self._statements(value, host, key, depth)
            elif style == "inline":
                self.inline.append((*host, *key))
                yield self._line(f"{self._key(key)}{self._equals()}{self._inline(value)}", depth)
            else:
                self._header(value, (*host, *key), depth + 1)

    def _header(self, table: Mapping[str, object], path: config.Path, depth: int) -> None:
        body = self._section(table, path, depth)
        # A table of tables alone needs no header of its own.
        if body or not table or self.random.random() < 0.3:
            space = self.random.choice(("", "", " "))
            self.sections.append(self._line(f"[{space}{self._key(path)}{space}]", depth - 1) + body)

    def _inline(self, table: Mapping[str, object]) -> str:
        entries = (
            f"{self._key((name,))} = {self._inline(value) if isinstance(value, dict) else value}"
            for name, value in table.items()
        )
        return "{ " + ", ".join(entries) + " }"

    def _line(self, statement: str, depth: int) -> str:
        comment = f" {self.random.choice(COMMENTS)}" if self.random.random() < 0.2 else ""
        trailing = self.random.choice(("", "", "", " ", "\t"))
        return f"{self.indent * depth}{statement}{comment}{trailing}\n{self._noise()}"

    def _noise(self) -> str:
        return self.random.choice(("", "", "", "", "\n", "  \n", f"{self.random.choice(COMMENTS)}\n"))

    def _equals(self) -> str:
        return self.random.choice((" = ", " = ", "=", "  =\t"))

    def _key(self, path: config.Path) -> str:
        dot = self.random.choice((".", ".", " . "))
        return dot.join(self._name(part) for part in path)

    def _name(self, part: str) -> str:
        styles = [f'"{part}"', f"'{part}'", '"' + part.replace("o", "\\u006f") + '"']
        if part.replace("_", "a").replace("-", "a").isalnum() and part.isascii():
            styles += [part] * 4
        return self.random.choice(styles)

    def _literal(self, value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else f"'{value}'"

    def _value(self) -> str:
        kind = self.random.choice(("number", "number", "string", "long", "array", "boolean", "table"))
        if kind == "number":
            return self.random.choice(NUMBERS)
        if kind == "boolean":
            return self.random.choice(("true", "false"))
        if kind == "string":
            text = self.random.choice(STRINGS)
            escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
            return self.random.choice((f"'{text}'", f'"{escaped}"'))
        if kind == "long":
            text = self.random.choice(LONG_STRINGS)
            ends = f"'''{text}''''", f'"""{text}\\""""""'
            return self.random.choice((f"'''\n{text}'''", f'"""{text} \\\n  ""\\""""', *ends))
        if kind == "table":
            return f"{{ a = {self._value_on_one_line()}, 'b.c' = {self._value_on_one_line()} }}"
        elements = [self._value_on_one_line() for _ in range(self.random.randint(0, 3))]
        if not elements or self.random.random() < 0.5:
            return f"[{', '.join(elements)}]"
        return "[\n" + "".join(f"  {element}, # ] [x]\n" for element in elements) + "]"

    def _value_on_one_line(self) -> str:
        return self.random.choice((self.random.choice(NUMBERS), "'a]b'", '"}\\""', "[1, [2]]", "{}", "true"))


def cannot_be_edited(writer: Writer, changed: set[config.Path]) -> bool:
    return any(key[: len(table)] == table for key in changed for table in writer.inline)


def check(seed: int) -> bool:
    """Edit the file of that seed and compare; False when it had to be refused."""
    writer = Writer(seed)
    text = writer.file()
    before = config.flatten(tomllib.loads(text))
    table = writer.random.choice((config.CRI_1, config.CRI_2))
    wanted = config.wanted(table)
    changed = config.difference(before, before | wanted)
    if cannot_be_edited(writer, changed):
        with pytest.raises(InstallError, match="cannot be edited safely"):
            config.edit(text, PATH, 2, table)
        return False
    edited = config.edit(text, PATH, 2, table)
    after = config.flatten(tomllib.loads(edited))
    assert after.keys() == before.keys() | wanted.keys()
    assert {key: (type(after[key]), repr(after[key])) for key in after} == {
        key: (type(value), repr(value)) for key, value in (before | wanted).items()
    }
    assert config.edit(edited, PATH, 2, table) == edited
    assert lines_lost(text, edited) <= len(changed & before.keys()), "other lines than the replaced ones"
    assert edited.count("\r\n") == (edited.count("\n") if "\r\n" in text else 0)
    return True


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.failure_mode(4)
def test_exactly_the_wanted_values_change(batch: int) -> None:
    """Numbers, booleans and floats keep their type, and each other line its bytes.

    coco-operator#305, kata-containers#8678.
    """
    edited = sum(check(seed) for seed in range(batch * BATCH, (batch + 1) * BATCH))
    assert edited > BATCH / 2, "most files can be edited"
