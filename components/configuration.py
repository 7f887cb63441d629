"""How the settings are read: from raw values to a validated `Settings`, or a refusal.

The same rules serve the Pulumi project (`from_config`: the `soci:*` keys) and the library (`from_arguments`:
the arguments of the components). All problems are collected and raised at once (problems.py).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

import pulumi

from . import eks_checks, eks_rules, index_rules, kubeconfig, problems, rules
from .problems import Finding, SociConfigError
from .settings import (
    ECR_PARTS,
    ECR_SHARED,
    FIELDS,
    GROUP_FIELDS,
    INDEX_SHARED,
    KEYS,
    MODES,
    IndexSettings,
    SampleSettings,
    Scope,
    Settings,
    config_key,
    declaration,
    default_of,
    node_groups_of,
    plain,
)
from .values import KINDS, RefusedError, entries


def from_config(config: Mapping[str, str]) -> Settings:
    """Read the settings from Pulumi's configuration as `pulumi.runtime.get_config_env()` gives it (other
    projects' keys ignored).

    Raises:
        SociConfigError: unknown keys, bad values, impossible combinations; all of them at once.
    """
    raw = {key.removeprefix("soci:"): value for key, value in config.items() if key.startswith("soci:")}
    return _validate(raw)


def from_arguments(arguments: Mapping[str, Any], scopes: Collection[Scope] = tuple(Scope)) -> Settings:
    """Read the settings from the arguments of a component that takes those of these scopes (by the field
    names of `Settings`). Raises as `from_config` does."""
    given = _without_none(arguments)
    foreign = [item.name for item in fields(Settings) if declaration(item).scope not in scopes]
    lines = [
        _no_argument(name, given[name], "take it away, or use SociCluster")
        for name in foreign
        if name in given
    ]
    return _validate(_with_keys(given), lines, makes_cluster=Scope.EKS in scopes)


def _with_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a program under the configuration's keys; those of the node groups, too."""
    raw = {KEYS.get(name, name): value for name, value in given.items()}
    groups = raw.get("nodeGroups")
    if isinstance(groups, Mapping):
        raw["nodeGroups"] = {
            name: _with_keys(group) if isinstance(group, Mapping) else group for name, group in groups.items()
        }
    return raw


def from_sample_arguments(arguments: Mapping[str, Any]) -> Settings:
    """Read the settings from the arguments of SampleWorkload, which takes the fields of `SampleSettings` but
    `enabled`, and calls the limit `timeout_seconds`. Raises as `from_config` does."""
    keys = {
        "version": "version",
        "timeout_seconds": "rolloutTimeoutSeconds",
        "image_pull_secrets": "imagePullSecrets",
    }
    parts = [item.name for item in fields(SampleSettings) if item.name != "enabled"]
    return _from_parts(arguments, keys, "sampleWorkload", parts)


def from_index_arguments(arguments: Mapping[str, Any]) -> Settings:
    """Read the settings from the arguments of ImageIndex, which takes the fields of `IndexSettings`
    beside those of `INDEX_SHARED`. Raises as `from_config` does."""
    keys = {name: KEYS[name] for name in INDEX_SHARED}
    return _from_parts(arguments, keys, "index", [item.name for item in fields(IndexSettings)])


def from_ecr_index_arguments(arguments: Mapping[str, Any], own: Collection[str]) -> Settings:
    """Read the settings from the arguments of EcrImageIndex, which takes those of `ECR_SHARED` and
    `ECR_PARTS` beside its `own`. Raises as `from_config` does."""
    keys = {name: KEYS[name] for name in ECR_SHARED}
    settings = _from_parts(arguments, keys, "index", ECR_PARTS, own)
    if found := _index(settings):
        raise SociConfigError("\n".join(problems.of_finding(settings, finding) for finding in found))
    return settings


def _from_parts(
    arguments: Mapping[str, Any],
    keys: Mapping[str, str],
    whole: str,
    parts: Collection[str],
    others: Collection[str] = ("kubeconfig", "context"),
) -> Settings:
    """Read the settings from arguments.

    Args:
        arguments: their values by name.
        keys: the names of those that are settings, and their keys.
        whole: the key of the setting of which the others are parts.
        parts: their names.
        others: the component's arguments that are read elsewhere.
    """
    given = _without_none(arguments)
    known = problems.in_words([*keys, *parts, *others])
    lines = [
        _no_argument(name, value, f"the arguments are {known}")
        for name, value in given.items()
        if name not in (*keys, *parts)
    ]
    raw = {key: given[name] for name, key in keys.items() if name in given}
    own = {name: given[name] for name in parts if name in given}
    return _validate(raw | {whole: own}, lines, makes_cluster=False)


def missing(path: str, reason: str) -> SociConfigError:
    """The refusal of a program that leaves out what a component cannot do without."""
    return SociConfigError(
        problems.line(path, [], reason, problems.remedy_for(FIELDS[path.partition(".")[0]]))
    )


def _without_none(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _no_argument(name: str, value: Any, remedy: str) -> str:
    return problems.line(KEYS.get(name, name), value, "is no argument of this component", remedy)


def kubeconfig_content(given: Any) -> pulumi.Output[str]:
    """The content of a kubeconfig given as a component's argument: an output, or what soci:kubeconfig may be;
    empty for none.

    Raises:
        SociConfigError: it is no kubeconfig; of an output, when it is known.
    """
    if isinstance(given, pulumi.Output):
        return given.apply(_content)
    return pulumi.Output.from_input(_content(given))


def _content(given: Any) -> str:
    try:
        return kubeconfig.read_kubeconfig(kubeconfig.as_text(given)) if given else ""
    except RefusedError as refused:
        told = problems.line("kubeconfig", given, refused.reason, refused.remedy)
    raise SociConfigError(told)


class _Reading:
    """Raw values being read: the lines about what is wrong so far, and the paths of what was refused."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        self.refused: set[str] = set()

    def fields(
        self, raw: Mapping[str, Any], known: Mapping[str, "Field[Any]"], path: str = ""
    ) -> dict[str, Any]:
        """The values that are good, by field name; `path` is what comes before their keys."""
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key not in known:
                self.lines.append(problems.of_unknown(path, key, value, known))
                continue
            try:
                values[known[key].name] = self._read(known[key], value, path + key)
            except RefusedError as refused:
                self.refuse(path + key, value, refused)
        return values

    def _read(self, item: "Field[Any]", value: Any, path: str) -> Any:
        if item.name != "node_groups":
            return _read(item, value)
        return {name: self._group(name, own, f"{path}.{name}") for name, own in entries(value).items()}

    def _group(self, name: str, own: Any, path: str) -> dict[str, Any]:
        try:
            rules.group_name(name)
            return self.fields(entries(own), GROUP_FIELDS, f"{path}.")
        except RefusedError as refused:
            self.refuse(path, own, refused)
            return {}

    def refuse(self, path: str, value: Any, refused: RefusedError) -> None:
        """Note a value that cannot be."""
        self.refused.add(path)
        self.lines += problems.of_refusal(path, value, refused)


def _validate(raw: Mapping[str, Any], lines: Iterable[str] = (), *, makes_cluster: bool = True) -> Settings:
    """The settings of raw values by key.

    Args:
        raw: the values.
        lines: those about what is wrong already.
        makes_cluster: whether they are those of SociCluster. The installer alone may be on any cluster, of
            which nothing is known here.

    Raises:
        SociConfigError: something is wrong.
    """
    reading = _Reading(lines)
    values = reading.fields(raw, FIELDS)
    if values.get("cluster") == "existing" and values.get("kubeconfig"):
        try:
            values["kubeconfig"] = kubeconfig.read_kubeconfig(values["kubeconfig"])
        except RefusedError as refused:
            reading.refuse("kubeconfig", raw["kubeconfig"], refused)
            del values["kubeconfig"]
    settings = Settings(**values)
    for finding in _combinations(settings) if makes_cluster else _any_cluster(settings):
        # Report each value once; what a group takes from a flat key is that key's.
        if not reading.refused & {finding.key, finding.key.rpartition(".")[2], "cluster"}:
            reading.lines.append(problems.of_finding(settings, finding, raw))
    if reading.lines:
        raise SociConfigError("\n".join(reading.lines))
    return settings


def _read(item: "Field[Any]", value: Any) -> Any:
    """The value of a field, read by the field's rule, else by its type."""
    if isinstance(item.type, type) and is_dataclass(item.type):
        return _parts(item, item.type, value)
    rule = declaration(item).rule or KINDS[item.type].read
    return rule(value)


def _parts(item: "Field[Any]", kind: type[Any], value: Any) -> Any:
    """The value of a field that has settings of its own as its parts: by their keys, or, as a program writes
    them, by their names."""
    names = {part.name: part for part in fields(kind)}
    known = {config_key(part): part for part in names.values()}
    chosen: dict[str, Any] = {}
    for key, own in entries(plain(value)).items():
        part = known.get(key) or names.get(key)
        if not part:
            raise RefusedError(
                f"'{key}' is not one of {problems.in_words(known)}",
                problems.removal(f"{config_key(item)}.{key}"),
            )
        try:
            chosen[part.name] = _read(part, own)
        except RefusedError as refused:
            remedy = refused.remedy or problems.remedy_for(part)
            raise RefusedError(f"{config_key(part)}: {refused.reason}", remedy) from None
    return kind(**chosen)


def _combinations(settings: Settings) -> list[Finding]:
    """What is wrong between values that are each good alone."""
    rules_of_cluster = _existing_cluster if settings.cluster == "existing" else _eks_cluster
    return [*_any_cluster(settings), *rules_of_cluster(settings)]


def _any_cluster(settings: Settings) -> list[Finding]:
    oldest = MODES.get(settings.mode, rules.OLDEST_VERSION)
    return [*_too_old(settings, "mode", oldest), *_image_index(settings)]


def _too_old(settings: Settings, key: str, oldest: tuple[int, ...]) -> list[Finding]:
    if tuple(map(int, settings.version.split("."))) >= oldest:
        return []
    version = ".".join(map(str, oldest))
    return [Finding(key, f"needs SOCI {version} or newer", f"pulumi config set soci:version {version}")]


def _image_index(settings: Settings) -> list[Finding]:
    """What is wrong between the settings of ImageIndex, when there is one."""
    return _index(settings) if settings.index.images else []


def _index(settings: Settings) -> list[Finding]:
    index = settings.index
    found = _too_old(settings, "index", index_rules.OLDEST_VERSION)
    found += [
        Finding("index", reason, remedy)
        for reason, remedy in index_rules.contradictions(
            index.images, index.suffix, index.repository, index.replace, index.index_version
        )
    ]
    if index.namespace == settings.namespace:
        reason = (
            f"namespace: {index.namespace} is the installer's, whose pods may do everything on their nodes"
        )
        found.append(Finding("index", reason, "pulumi config rm --path soci:index.namespace"))
    return found


def _meaningless(settings: Settings, scopes: Collection[Scope], cluster: str) -> list[Finding]:
    """Settings of these scopes that were set although the cluster is of the other kind."""
    return [
        Finding(key, f"has a meaning only with soci:cluster {cluster}", problems.removal(key))
        for key, item in FIELDS.items()
        if declaration(item).scope in scopes and getattr(settings, item.name) != default_of(item)
    ]


def _existing_cluster(settings: Settings) -> list[Finding]:
    found = _meaningless(settings, (Scope.EKS, Scope.NODE_GROUP), "eks")
    if not settings.kubeconfig:
        reason = "soci:cluster existing needs the kubeconfig of that cluster"
        remedy = "pulumi config set soci:kubeconfig ~/.kube/config"
        return [*found, Finding("kubeconfig", reason, remedy)]
    try:
        kubeconfig.cluster_server(settings.kubeconfig, settings.context)
    except RefusedError as refused:
        key = "context" if isinstance(refused, kubeconfig.NoContextError) else "kubeconfig"
        found.append(Finding(key, refused.reason, refused.remedy))
    return found


def _eks_cluster(settings: Settings) -> list[Finding]:
    found = _meaningless(settings, (Scope.EXISTING,), "existing")
    groups = node_groups_of(settings)
    for name, group in groups.items():
        path = f"nodeGroups.{name}." if settings.node_groups else ""
        found += [one._replace(key=path + one.key) for one in eks_rules.node_group(group)]
    return [*found, *eks_rules.subnets(settings), *eks_checks.refusals(settings, groups)]
