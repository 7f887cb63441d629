"""Configurations of containerd as nodes have them, in each schema."""

from collections.abc import Callable
from dataclasses import dataclass

SCHEMAS = {"1.7": (2,), "2.0": (2, 3), "2.1": (2, 3), "2.2": (2, 3), "2.3": (2, 3, 4), "2.4": (2, 3, 4)}

Files = dict[str, str]  # name below the configuration's directory (@DIR@ in texts) to text

OLD = "plugins.'io.containerd.grpc.v1.cri'"
IMAGES = "plugins.'io.containerd.cri.v1.images'"
RUNTIME = "plugins.'io.containerd.cri.v1.runtime'"


@dataclass(frozen=True)
class Case:
    """A configuration; ``refusal`` is a pattern of the cause where it cannot be changed safely."""

    files: Callable[[int], Files]
    refusal: Callable[[str, int], str] = lambda series, schema: ""


def lines_lost(text: str, edited: str) -> int:
    """How many lines of ``text`` are not in ``edited``, in the same order (longest common subsequence)."""
    lines, candidates = text.splitlines(), edited.splitlines()
    row = [0] * (len(candidates) + 1)
    for line in lines:
        above = 0
        for index, candidate in enumerate(candidates, start=1):
            above, row[index] = (
                row[index],
                above + 1 if line == candidate else max(row[index], row[index - 1]),
            )
    return len(lines) - row[-1]


def root(schema: int, text: str = "", first: str = "") -> str:
    return f"version = {schema}\n{first}{text}"


def images(schema: int) -> str:
    """The table of the image keys."""
    return f"{OLD}.containerd" if schema == 2 else IMAGES


def runtimes(schema: int) -> str:
    """The table of the runtimes."""
    return f"{OLD}.containerd" if schema == 2 else f"{RUNTIME}.containerd"


def runc(schema: int, extra: str = "") -> str:
    table = f"{runtimes(schema)}.runtimes.runc"
    return (
        f'[{table}]\nruntime_type = "io.containerd.runc.v2"\n{extra}[{table}.options]\nSystemdCgroup = true\n'
    )


def sandbox(schema: int, image: str = "example.org/pause:3.10") -> str:
    if schema == 2:
        return f'[{OLD}]\nsandbox_image = "{image}"\n'
    return f'[{IMAGES}.pinned_images]\nsandbox = "{image}"\n'


def nodeadm(schema: int) -> Files:
    """What nodeadm of EKS AL2023 writes: schema 2 for containerd 1.7, 3 for 2.x."""
    cri = OLD if schema == 2 else RUNTIME
    grpc = "grpc" if schema < 4 else "plugins.'io.containerd.server.v1.grpc'"
    text = f"""\
root = "/var/lib/containerd"
state = "/run/containerd"

[{grpc}]
address = "/run/containerd/containerd.sock"

{sandbox(schema, "localhost/kubernetes/pause")}
[{images(schema).removesuffix(".containerd")}.registry]
config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"

[{images(schema)}]
discard_unpacked_layers = true
{"" if schema == 2 else f"[{runtimes(schema)}]"}
default_runtime_name = "runc"

[{runtimes(schema)}.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "/etc/containerd/base-runtime-spec.json"

[{runtimes(schema)}.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
SystemdCgroup = true

[{cri}.cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
"""
    enable_cdi = "enable_cdi = true\n"
    if schema == 2:
        text = text.replace("sandbox_image", f"{enable_cdi}sandbox_image")
    else:
        text += f"\n[{RUNTIME}]\n{enable_cdi}"
    return {"config.toml": root(schema, text)}


def nvidia(schema: int) -> str:
    """What NVIDIA's container toolkit sets: a runtime of its own, and it as the default."""
    table = runtimes(schema)
    return f"""\
[{table}]
  default_runtime_name = "nvidia"
  [{table}.runtimes]
    [{table}.runtimes.nvidia]
      privileged_without_host_devices = false
      runtime_type = "io.containerd.runc.v2"
      [{table}.runtimes.nvidia.options]
        BinaryName = "/usr/bin/nvidia-container-runtime"
        SystemdCgroup = true
"""


def with_import(pattern: str, text: Callable[[int], str], name: str = "conf.d/50-other.toml") -> Case:
    """A root file that imports ``pattern``, and a file of another tool below it that has ``text``."""
    return Case(
        lambda schema: {
            "config.toml": root(schema, sandbox(schema), f'imports = ["{pattern}"]\n'),
            name: root(schema, text(schema)),
        }
    )


def debug(schema: int) -> str:
    """Settings far from the CRI plugin."""
    if schema < 4:
        return '[debug]\nlevel = "info"\n'
    return "[plugins.'io.containerd.server.v1.debug']\nlevel = \"info\"\n"


def replaced_on_1(series: str, schema: int) -> str:
    """containerd 1 replaces the root's whole CRI section by the imported one (containerd#5837)."""
    return "snapshotter would be 'overlayfs'" if series == "1.7" else ""


def odd_formatting(schema: int) -> Files:
    cri, key = (
        ("io.containerd.grpc.v1.cri", "containerd.") if schema == 2 else ("io.containerd.cri.v1.images", "")
    )
    text = (
        f"version={schema}\n# [proxy_plugins.soci]\n  [ plugins . '{cri}' ] # here\n"
        f"\t{key}discard_unpacked_layers=true # EKS\n"
        f"\t{key}'snapshotter'   =\t'''overlayfs'''#\n"
        '\n\n[proxy_plugins]\n  [proxy_plugins."stargz"]\n\ttype=\'snapshot\'\n\taddress="/s.sock" # last'
    )
    return {"config.toml": text}


def merged(*parts: Callable[[int], str]) -> Callable[[int], Files]:
    return lambda schema: {"config.toml": root(schema, "".join(part(schema) for part in parts))}


CASES: dict[str, Case] = {
    "bare": Case(merged()),
    "empty": Case(lambda schema: {"config.toml": ""}),
    "missing": Case(lambda schema: {}),
    "comments only": Case(lambda schema: {"config.toml": "# nothing\n\n# version = 1"}),
    "sandbox image": Case(merged(sandbox)),
    "runc with systemd cgroups": Case(merged(runc)),
    "nodeadm": Case(nodeadm),
    "nodeadm, windows line ends": Case(
        lambda schema: {name: text.replace("\n", "\r\n") for name, text in nodeadm(schema).items()}
    ),
    "odd formatting": Case(odd_formatting),
    "types": Case(
        lambda schema: {
            "config.toml": root(
                schema,
                f"[{images(schema)}]\nsnapshotter = 'native'\n"
                "[plugins.'io.containerd.gc.v1.scheduler']\n"
                "pause_threshold = 0.05\nmutation_threshold = 120\n"
                f"[plugins.'io.containerd.metadata.v1.bolt']\ncontent_sharing_policy = 'isolated'\n",
                "oom_score = -999\nrequired_plugins = ['io.containerd.grpc.v1.cri']\n",
            )
        }
    ),
    "dotted keys without headers": Case(
        lambda schema: {
            "config.toml": root(
                schema, f"{images(schema)}.discard_unpacked_layers = true\n{images(schema)}.x = 1\n"
            )
        }
    ),
    "inline tables": Case(
        lambda schema: {
            "config.toml": root(schema, f"{images(schema)} = {{ discard_unpacked_layers = true }}\n")
        },
        lambda series, schema: "cannot be edited safely",
    ),
    "another snapshotter as proxy plugin": Case(
        merged(
            lambda schema: "[proxy_plugins]\n[proxy_plugins.nydus]\ntype = 'snapshot'\naddress = '/n.sock'\n",
            lambda schema: (
                f"[{images(schema)}]\nsnapshotter = 'nydus'\ndisable_snapshot_annotations = false\n"
            ),
        )
    ),
    "another default runtime": Case(
        merged(
            runc,
            lambda schema: (
                f"[{runtimes(schema)}]\ndefault_runtime_name = 'kata'\n"
                f"[{runtimes(schema)}.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n"
            ),
        )
    ),
    "a runtime with its own snapshotter": Case(
        merged(
            runc,
            lambda schema: (
                f"[{runtimes(schema)}.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n"
                "snapshotter = 'nydus'\n"
            ),
        )
    ),
    "the default runtime with its own snapshotter": Case(
        merged(lambda schema: runc(schema, "snapshotter = 'nydus'\n")),
        lambda series, schema: "the default runtime runc has its own snapshotter 'nydus'",
    ),
    "imports, absolute": with_import("@DIR@/conf.d/50-other.toml", debug),
    "imports, relative": with_import("conf.d/50-other.toml", debug),
    "imports, glob": with_import("@DIR@/conf.d/*.toml", debug),
    "imports, relative glob of nothing": with_import("conf.d/*.toml", debug, "conf.e/other.toml"),
    "imports, two files": Case(
        lambda schema: {
            "config.toml": root(schema, sandbox(schema), 'imports = ["one.toml", "two.toml"]\n'),
            "one.toml": root(schema, debug(schema)),
            "two.toml": root(schema, "[timeouts]\n'io.containerd.timeout.shim.load' = '7s'\n"),
        }
    ),
    "imports, and their list over lines": Case(
        lambda schema: {
            "config.toml": f"imports = [\n  'conf.d/*.toml', # [a]\n]\nversion = {schema}\n",
            "conf.d/a.toml": root(schema, debug(schema)),
        }
    ),
    "nvidia in the root file": Case(merged(runc, nvidia)),
    "nvidia in conf.d": Case(
        with_import("conf.d/*.toml", nvidia, "conf.d/99-nvidia.toml").files, replaced_on_1
    ),
    "a drop-in sets another snapshotter": Case(
        with_import(
            "conf.d/*.toml",
            lambda schema: runc(schema) + f"[{images(schema)}]\nsnapshotter = 'native'\n",
            "conf.d/zz.toml",
        ).files,
        lambda series, schema: "snapshotter would be 'native', not 'soci'",
    ),
    "a drop-in has another soci": Case(
        with_import(
            "conf.d/*.toml",
            lambda schema: "[proxy_plugins.soci]\ntype = 'snapshot'\naddress = '/other.sock'\n",
        ).files,
        lambda series, schema: "proxy_plugins.soci.address would be '/other.sock'",
    ),
    "a drop-in in another schema": Case(
        lambda schema: {
            "config.toml": root(schema, runc(schema), 'imports = ["conf.d/*.toml"]\n'),
            "conf.d/other.toml": root(5 - schema if schema < 4 else 3, debug(3)),
        },
        lambda series, schema: "containerd refuses" if series == "1.7" else "",
    ),
    "a drop-in that nothing imports": Case(
        lambda schema: {
            "config.toml": root(schema, runc(schema)),
            "conf.d/zz.toml": root(schema, f"[{images(schema)}]\nsnapshotter = 'native'\n"),
        }
    ),
    "schema 1": Case(lambda schema: {"config.toml": "oom_score = 0\n"}, lambda series, schema: "in schema 1"),
}
