"""The text editor of containerd's configuration: only the wanted keys, every other byte kept."""

import tomllib

import pytest
from agent import containerd_config as config
from agent.errors import InstallError
from agent.slots import FIRST, SECOND

PATH = "/etc/containerd/config.toml"

EDITABLE = {
    "minimal schema 2": (2, "version = 2\n"),
    "minimal schema 3": (3, "version = 3\n"),
    "minimal schema 4": (4, "version = 4\n"),
    "no newline at the end": (2, "version = 2"),
    "windows line ends": (2, "version = 2\r\n[plugins]\r\n"),
    "nodeadm, containerd 1.7": (
        2,
        """version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/kubernetes/pause"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
discard_unpacked_layers = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "/etc/containerd/base-runtime-spec.json"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
SystemdCgroup = true
""",
    ),
    "nodeadm, containerd 2": (
        3,
        """version = 3
root = '/var/lib/containerd'

[plugins.'io.containerd.cri.v1.images']
discard_unpacked_layers = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'localhost/kubernetes/pause'
""",
    ),
    "indented, values already there": (
        2,
        """version = 2
[plugins]
  # the CRI
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "overlayfs"   # the default
      disable_snapshot_annotations = true
""",
    ),
    "literal quotes": (
        2,
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nno_pivot = false\n",
    ),
    "spaces in the header": (
        2,
        'version = 2\n[ plugins . "io.containerd.grpc.v1.cri" . containerd ] # here\n',
    ),
    "dotted below the parent": (
        2,
        'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\ncontainerd.snapshotter = "overlayfs"\nx = 1\n',
    ),
    "dotted without any header": (
        2,
        'version = 2\nplugins."io.containerd.grpc.v1.cri".containerd.no_pivot = true\n',
    ),
    "only a child table": (
        2,
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\nruntime_type = "r"\n',
    ),
    "other proxy plugins": (
        2,
        'version = 2\n[proxy_plugins]\n  [proxy_plugins.nydus]\n    type = "snapshot"\n',
    ),
    "an older soci": (
        2,
        'version = 2\n[proxy_plugins.soci]\ntype = "snapshot"\naddress = "/old.sock"\n',
    ),
    "arrays and strings over lines": (
        3,
        'version = 3\nimports = [\n  "/a]/*.toml", # [not a header]\n  "/b.toml",\n]\n'
        'x = """\n[plugins.\'io.containerd.cri.v1.images\']\nsnapshotter = "no"\n"""\n'
        "y = '''\nversion = 9\n'''\n[plugins]\n",
    ),
    "numbers, floats, dates": (
        2,
        "version = 2\noom_score = -999\nf = 1e3\nd = 2020-01-01T00:00:00Z\nb = true\nh = 0xff\n",
    ),
    "comment that looks like a table": (2, "version = 2\n#[proxy_plugins.soci]\n#type = 1\n"),
    "a byte that is not ASCII": (2, "version = 2 # ö\n"),
}


def table_of(schema: int) -> config.Path:
    return config.tables_for(schema, 2 if schema >= 3 else 1)[0]


@pytest.mark.failure_mode(4)
@pytest.mark.parametrize("name", EDITABLE)
def test_sets_the_wanted_keys_and_no_other(name: str) -> None:
    """Types and values of all other keys stay (coco-operator#305, kata-containers#8678)."""
    schema, text = EDITABLE[name]
    edited = config.edit(text, PATH, schema, table_of(schema))
    before, after = config.flatten(tomllib.loads(text)), config.flatten(tomllib.loads(edited))
    wanted = config.wanted(table_of(schema))
    assert {key: after[key] for key in wanted} == wanted
    assert config.difference(before, after) <= set(wanted)


@pytest.mark.parametrize("name", EDITABLE)
def test_keeps_every_other_line(name: str) -> None:
    schema, text = EDITABLE[name]
    edited = config.edit(text, PATH, schema, table_of(schema)).splitlines()
    kept = [line for line in text.splitlines() if "snapshot" not in line and "/old.sock" not in line]
    remaining = iter(edited)
    assert all(line in remaining for line in kept), "lines lost or in another order"


@pytest.mark.parametrize("name", EDITABLE)
def test_second_edit_changes_nothing(name: str) -> None:
    """No change, no restart (gpu-operator#594, #712; dragonfly-charts#294)."""
    schema, text = EDITABLE[name]
    once = config.edit(text, PATH, schema, table_of(schema))
    assert config.edit(once, PATH, schema, table_of(schema)) == once


def test_keeps_a_trailing_comment() -> None:
    _, text = EDITABLE["indented, values already there"]
    edited = config.edit(text, PATH, 2, config.CRI_1)
    assert '      snapshotter = "soci"   # the default\n' in edited


def test_keeps_windows_line_ends() -> None:
    _, text = EDITABLE["windows line ends"]
    edited = config.edit(text, PATH, 2, config.CRI_1)
    assert edited.count("\n") == edited.count("\r\n")


@pytest.mark.failure_mode(1)
@pytest.mark.parametrize("text", ["", "\n", "# nothing here\n# version = 1\n"])
@pytest.mark.parametrize(("major", "schema"), [(1, 2), (2, 3)])
def test_empty_file_gets_a_version(text: str, major: int, schema: int) -> None:
    """An empty or missing configuration ends in a valid one (kata-containers#3229)."""
    assert config.schema_of(text, PATH, major) == schema
    edited = config.edit(text, PATH, schema, table_of(schema))
    assert tomllib.loads(edited)["version"] == schema
    assert edited.endswith("\n")


@pytest.mark.parametrize("schema", [2, 3, 4])
def test_writes_the_schema_of_the_file(schema: int) -> None:
    """Another schema than the root file's keeps containerd from starting (aicr#1688, gpu-operator#2646)."""
    text = f"version = {schema}\n"
    assert config.schema_of(text, PATH, 2) == schema
    assert tomllib.loads(config.edit(text, PATH, schema, table_of(schema)))["version"] == schema


@pytest.mark.parametrize(
    "text",
    ['disabled_plugins = ["cri"]\n', "version = 1\n", "version = 9\n", 'version = "2"\n', "version = 2.0\n"],
)
def test_refuses_unknown_schemas(text: str) -> None:
    with pytest.raises(InstallError, match="schema"):
        config.schema_of(text, PATH, 2)


@pytest.mark.parametrize(
    "text",
    [
        'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\ncontainerd = { snapshotter = "overlayfs" }\n',
        "version = 2\nproxy_plugins = { }\n",
        'version = 2\nplugins = { "io.containerd.grpc.v1.cri" = { } }\n',
    ],
)
def test_refuses_inline_tables(text: str) -> None:
    with pytest.raises(InstallError, match="cannot be edited safely"):
        config.edit(text, PATH, 2, config.CRI_1)


def test_refuses_invalid_toml() -> None:
    with pytest.raises(InstallError, match="not valid TOML"):
        config.schema_of("version = \n", PATH, 2)


@pytest.mark.failure_mode(3)
def test_effect_must_be_exact() -> None:
    """Lost keys are found in the merged dump; containerd only warns (nydus#1810, shim-spin#386)."""
    table = "[plugins.'io.containerd.cri.v1.images']\n"
    before = table + "snapshotter = 'overlayfs'\nx = 1\n"
    good = (
        f"{table}snapshotter = 'soci'\ndisable_snapshot_annotations = false\nx = 1\n"
        f"[proxy_plugins.soci]\ntype = 'snapshot'\naddress = '{FIRST.socket}'\n"
        f"exports.root = '{FIRST.data}'\ncapabilities = ['remap-ids']\n"
    )
    assert config.check_effect(before, good) == []
    assert "would be 'overlayfs'" in config.check_effect(before, good.replace("'soci'", "'overlayfs'"))[0]
    assert "x would change from 1 to 1.0" in config.check_effect(before, good.replace("x = 1", "x = 1.0"))[0]


@pytest.mark.parametrize("name", EDITABLE)
def test_second_daemon_is_added_and_the_first_stays_known(name: str) -> None:
    """Containers that were created under it could not be deleted otherwise."""
    schema, text = EDITABLE[name]
    table = table_of(schema)
    first = config.edit(text, PATH, schema, table)
    both = config.edit(first, PATH, schema, table, SECOND)
    before, after = (config.flatten(tomllib.loads(edited)) for edited in (first, both))
    added = {key for key in config.wanted(table, SECOND) if key[:2] == config.proxy(SECOND)}
    assert config.difference(before, after) == {(*table, "snapshotter"), *added}
    assert after[*table, "snapshotter"] == "soci-b"
    back = config.flatten(tomllib.loads(config.edit(both, PATH, schema, table, FIRST)))
    assert config.difference(after, back) == {(*table, "snapshotter")}


def test_order_of_the_loaded_files_is_no_effect() -> None:
    """containerd 1.7 prints them in another order each time."""
    soci = (
        f'[{".".join(config.proxy())}]\ntype = "snapshot"\naddress = "{FIRST.socket}"\n'
        f'exports.root = "{FIRST.data}"\ncapabilities = ["remap-ids"]\n'
        '[plugins."io.containerd.cri.v1.images"]\n'
        'snapshotter = "soci"\ndisable_snapshot_annotations = false\n'
    )
    assert config.check_effect(f'imports = ["a", "b"]\n{soci}', f'imports = ["b", "a"]\n{soci}') == []


@pytest.mark.parametrize("content", [b"version = 2 # \xff\n", "version = 2\n".encode("utf-16")])
def test_refuses_other_encodings(content: bytes) -> None:
    with pytest.raises(InstallError, match="not UTF-8"):
        config.decode(content, PATH)
