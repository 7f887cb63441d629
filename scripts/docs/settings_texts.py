"""What is written about the settings elsewhere, made from their declarations in components/settings.py."""

import json
import textwrap
from collections.abc import Iterable
from dataclasses import Field, fields, is_dataclass
from typing import Any

from components.settings import (
    ECR_PARTS,
    ECR_SHARED,
    GROUP_FIELDS,
    INDEX_SHARED,
    INSTALLER_SCOPES,
    IndexSettings,
    SampleSettings,
    Scope,
    Settings,
    config_key,
    declaration,
    default_of,
    plain,
)
from components.values import KINDS

WIDTH = 110
Row = tuple[str, str, str, str]  # an argument: name, annotation, text, default
# What the arguments call the parts of a setting that has some.
PARTS = {SampleSettings: "SampleWorkloadSettings", IndexSettings: "ImageIndexSettings"}


def table() -> str:
    """The Markdown table of all settings."""
    return _table(fields(Settings), "soci:")


def index_table() -> str:
    """That of the parts of soci:index."""
    return _table(fields(IndexSettings), "")


def _table(items: "Iterable[Field[Any]]", prefix: str) -> str:
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for item in items:
        # This one's parts have a table of their own, with their defaults.
        shown = "" if item.type is IndexSettings else _shown(plain(default_of(item)))
        cell = f"`{shown}`".replace("|", "\\|") if shown else ""
        rows.append(f"| `{prefix}{config_key(item)}` | {_type(item)} | {cell} | {declaration(item).text} |")
    return "\n".join(rows)


def project_block() -> str:
    """The `config` block of Pulumi.yaml, with which Pulumi itself checks types and applies defaults."""
    lines = ["config:"]
    for item in fields(Settings):
        lines.append(f"  {config_key(item)}:")
        # A list of texts and objects has no type that Pulumi knows: the program alone checks it.
        lines += [] if item.type == tuple[Any, ...] else [f"    type: {_type(item)}"]
        lines += ["    items: {type: string}"] if item.type == tuple[str, ...] else []
        lines.append(f"    description: {_json(declaration(item).text)}")
        lines.append(f"    default: {_json(_by_keys(default_of(item)))}")
    return "\n".join(lines)


def _by_keys(value: Any) -> Any:
    """A plain value; parts of a setting by their configuration keys."""
    if not is_dataclass(value):
        return plain(value)
    return {config_key(part): plain(getattr(value, part.name)) for part in fields(value)}


def node_fields() -> str:
    """The fields of the agent's `Settings`, in scripts/installer/agent/settings.py."""
    items = [item for item in fields(Settings) if declaration(item).scope is Scope.NODE]
    return "\n".join(f"    {item.name}: {_annotation(item)}" for item in items)


def node_defaults() -> str:
    """The defaults of the same, for tests/fakes/settings.py: the agent has none, its settings come whole."""
    items = [item for item in fields(Settings) if declaration(item).scope is Scope.NODE]
    return "\n".join(f"    {item.name}={_python(plain(default_of(item)))}," for item in items)


def arguments_module() -> str:
    """components/arguments.py. Each class repeats its fields: a component's schema takes their texts from the
    source of the class itself, so a base class cannot hold them."""
    installer = _rows(item for item in fields(Settings) if declaration(item).scope in INSTALLER_SCOPES)
    classes = [
        _class("SampleWorkloadSettings", "The sample workload.", _rows(fields(SampleSettings))),
        _class("ImageIndexSettings", "Images that get their SOCI index.", _rows(fields(IndexSettings))),
        _class(
            "SampleWorkloadArgs",
            "What the sample runs, and for which SOCI version.",
            [
                ("version", "str", "SOCI version that the node must carry.", ""),
                *(row for row in _rows(fields(SampleSettings)) if row[0] != "enabled"),
                *_rows(item for item in fields(Settings) if item.name == "image_pull_secrets"),
                SAMPLE_LIMIT,
                *_access("Used to name the pod, and to show why it failed."),
            ],
            required="version",
        ),
        _class(
            "ImageIndexArgs",
            "Which images get their SOCI index, how and when.",
            [
                *_rows(fields(IndexSettings)),
                *_rows(item for item in fields(Settings) if item.name in INDEX_SHARED),
                *_access("Used to take up an interrupted `pulumi up`, and to show why it failed."),
            ],
            required="images",
        ),
        _class(
            "EcrImageIndexArgs",
            "What is indexed when it is pushed to ECR, and how.",
            [
                *ECR_INDEX,
                *_rows(item for item in fields(IndexSettings) if item.name in ECR_PARTS),
                *_rows(item for item in fields(Settings) if item.name in ECR_SHARED),
            ],
            required="repositories",
        ),
        _class(
            "SociInstallerArgs",
            "What to install on the nodes, and how.",
            [
                *installer,
                *_access(
                    "Used to take up an interrupted `pulumi up`, to warn of what is in the way, and after a "
                    "failed rollout to show each node's reason."
                ),
                NODES,
            ],
            required="version",
        ),
        _class(
            "NodeGroupArgs",
            "One node group of a new EKS cluster; what it does not say is as SociClusterArgs says.",
            _rows(GROUP_FIELDS.values()),
            has_defaults=False,
        ),
        _class(
            "SociClusterArgs",
            "The cluster and what to install on it; everything has a default.",
            [*_rows(fields(Settings)), AWS_PROFILE],
        ),
    ]
    return "\n\n\n".join([MODULE_HEAD.strip(), *classes]) + "\n"


MODULE_HEAD = '''
"""The arguments of the components: generated from components/settings.py by `make generate`."""

from typing import Any, NotRequired, TypedDict

import pulumi
'''
# Arguments that are no settings.
SAMPLE_LIMIT: Row = (
    "timeout_seconds",
    "int",
    "How long it may take, in seconds, the pull of its image included.",
    "`600`",
)
ECR_INDEX: list[Row] = [
    (
        "repositories",
        "list[str]",
        "Repositories of ECR, by their names, such as `team/app`; `team/*` for all that begin so.",
        "",
    ),
    (
        "compute_type",
        "str",
        "CodeBuild's compute type, which decides cores, memory and disk.",
        "`BUILD_GENERAL1_SMALL`",
    ),
    ("timeout_minutes", "int", "How long the build of one image may take.", "`60`"),
    ("log_retention_days", "int", "How long the builds' log is kept.", "`30`"),
]
NODES: Row = (
    "nodes",
    "pulumi.Input[Any]",
    "What the nodes are made from: anything whose change means other nodes, such as a node group's ID, "
    "launch template, version and size. A change of it is waited for, until all nodes are verified, before "
    "what it replaced is deleted.",
    "",
)
AWS_PROFILE: Row = (
    "aws_profile",
    "str",
    "With cluster `eks`, the AWS profile to put into the kubeconfig.",
    "none, the environment's credentials",
)


def _access(purpose: str) -> list[Row]:
    """How a component reads its cluster, and what for."""
    return [
        (
            "kubeconfig",
            "pulumi.Input[str]",
            f"The cluster's kubeconfig, as a path, as content or as an object (in Python). {purpose}",
            "that of the Kubernetes provider",
        ),
        ("context", "pulumi.Input[str]", "The kubeconfig's context to use for that.", "its current one"),
    ]


def _rows(items: Iterable["Field[Any]"]) -> list[Row]:
    return [(item.name, _annotation(item), declaration(item).text, _default(item)) for item in items]


def _default(item: "Field[Any]") -> str:
    """The default in words; empty where the setting's text tells what empty means, or its fields theirs."""
    shown = _shown(plain(default_of(item)))
    return "" if item.type in PARTS or shown in ("", "{}", "[]") else f"`{shown}`"


def _class(name: str, text: str, rows: Iterable[Row], required: str = "", has_defaults: bool = True) -> str:
    lines = [f"class {name}(TypedDict):", f'    """{text}"""', ""]
    for field_name, annotation, about, default in rows:
        is_required = field_name == required
        lines.append(f"    {field_name}: {annotation if is_required else f'NotRequired[{annotation}]'}")
        lines += textwrap.wrap(
            f'"""{about}"""'
            if is_required or not default or not has_defaults
            else f'"""{about} Default: {default}."""',
            WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _type(item: "Field[Any]") -> str:
    return "object" if item.type in PARTS else KINDS[item.type].name


def _annotation(item: "Field[Any]") -> str:
    return PARTS.get(item.type) or KINDS[item.type].annotation


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _python(value: Any) -> str:
    """The literal as ruff writes it."""
    return _json(value) if isinstance(value, (str, list)) else repr(value)


def _json(value: Any) -> str:
    """JSON, which is YAML, too."""
    return json.dumps(value, ensure_ascii=False)
