"""Kubeconfigs as people have them: where they are, what they hold, which cluster they lead to.

What kubectl accepts is accepted and means the same; client-go (tools/clientcmd: loader.go, client_config.go,
api/v1/conversion.go) is the model. A kubeconfig may hold credentials, so no text here shows a piece of it
except names of contexts, clusters and users; errors of the YAML reader quote what they read and are never
passed on.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pulumi
import yaml

from . import redaction
from .values import RefusedError, kind_in_words

REMEDY = "pulumi config set soci:kubeconfig PATH, the file that kubectl uses"
# What names a file relative to the kubeconfig's own directory (client-go's GetClusterFileReferences and
# GetAuthInfoFileReferences), by the list that it stands in.
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key", "tokenFile")
# What kubectl reads, by an example of each type (client-go's tools/clientcmd/api/v1/types.go); "" is any key.
_SHAPE = {
    "current-context": "",
    "clusters": [
        {
            "name": "",
            "cluster": {
                **dict.fromkeys(("server", "proxy-url", "tls-server-name"), ""),
                **dict.fromkeys(("certificate-authority", "certificate-authority-data"), ""),
                **dict.fromkeys(("insecure-skip-tls-verify", "disable-compression"), False),
            },
        }
    ],
    "contexts": [{"name": "", "context": {"cluster": "", "user": "", "namespace": ""}}],
    "users": [
        {
            "name": "",
            "user": {
                **dict.fromkeys(("token", "tokenFile", "username", "password", "as", "as-uid"), ""),
                **dict.fromkeys(("client-certificate", "client-certificate-data"), ""),
                **dict.fromkeys(("client-key", "client-key-data"), ""),
                "as-groups": [""],
                "as-user-extra": {"": [""]},
                "auth-provider": {"name": ""},
                "exec": {
                    **dict.fromkeys(("apiVersion", "command", "interactiveMode"), ""),
                    "args": [""],
                    "env": [{"name": "", "value": ""}],
                    "provideClusterInfo": False,
                },
            },
        }
    ],
}
_PROGRAM_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
# Tabs after a key, at the end of a line, and before a comment there.
_TABS = re.compile(r"(?<=:)\t+|\t++(?=[ \t]*(?:#.*)?$)", re.MULTILINE)


class NoContextError(RefusedError):
    """The chosen context is missing, or none is chosen."""


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: dates and 12:30 are text, y and n are true and false."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.bool_values = yaml.SafeLoader.bool_values | {"y": True, "n": False}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0b[01][01_]*|0o?[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]|[0-9][0-9_]*\.?)[0-9_]*([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor(
    "tag:yaml.org,2002:binary", lambda loader, node: loader.construct_yaml_binary(node).decode()
)


def as_text(value: Any) -> str:
    """A kubeconfig as it may be given: a path (of pathlib, too), content, or the object that another stack or
    pulumi_eks hands out (which becomes JSON).

    Raises:
        RefusedError: anything else.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value if is_content(value) else value.strip()
    if isinstance(value, Mapping):
        try:
            return json.dumps(value, default=_date)
        except (TypeError, ValueError):
            pass
    if isinstance(value, pulumi.Output):
        raise RefusedError(
            "must be known before anything is made, which an output is not",
            "use SociInstaller with a Kubernetes provider of that cluster",
        )
    raise RefusedError("must be a path, or a kubeconfig's content as text or as an object", REMEDY)


def _date(value: object) -> str:
    if isinstance(value, date):  # what PyYAML makes of one
        return value.isoformat()
    raise TypeError


def is_content(value: str) -> bool:
    """Whether a text is a kubeconfig's content rather than its path."""
    text = value.strip("\ufeff \t\r\n")
    return len(text.splitlines()) > 1 or text.startswith(("{", "---", "%YAML"))


def is_path(value: str) -> bool:
    """Whether a text is beyond doubt a path, and so no secret: it can be shown."""
    if is_content(value) or redaction.credentials_in(value):
        return False
    looks_like_one = re.search(r"^[~/.]|config$|\.(ya?ml|json|conf)$", value)
    return bool(looks_like_one) or os.path.exists(value)


def read_kubeconfig(value: str) -> str:
    """The content of a kubeconfig given as content, as the path of a file (`~` and `$HOME` allowed, relative
    to the project) or as a list of them, as in the variable KUBECONFIG.

    Files that it refers to get absolute paths, since the content is used where the file is not.

    Raises:
        RefusedError: it cannot be read, or is no kubeconfig.
    """
    if is_content(value):
        return _with_absolute_paths(value.lstrip("\ufeff"), Path.cwd())
    files = [_expanded(value)]
    if os.pathsep in value and not os.path.exists(files[0]):
        # As for KUBECONFIG: what is not there is left out. (Path.exists raises, with the text in its message,
        # when a text is too long for a path; os.path answers.)
        parts = map(_expanded, value.split(os.pathsep))
        files = [file for file in parts if os.path.isfile(file)] or files
    texts = {file: _read(file, value) for file in files}
    # An empty one is a kubeconfig without entries.
    filled = {file: text for file, text in texts.items() if text.strip("\ufeff \t\r\n")} or texts
    contents = [
        _with_absolute_paths(text, Path(os.path.abspath(file)).parent) for file, text in filled.items()
    ]
    return (
        contents[0] if len(contents) == 1 else json.dumps(_merged([parse(content) for content in contents]))
    )


def parse(content: str) -> dict[str, Any]:
    """The object that a kubeconfig's content holds; of several YAML documents, the first.

    Raises:
        RefusedError: it is not one of contexts and clusters, or a value is of a type that kubectl refuses.
    """
    found = _load(content)
    if not isinstance(found, dict) or found.get("kind") not in (None, "", "Config"):
        raise RefusedError("this is not a kubeconfig with contexts and clusters", REMEDY)
    _require_shape(found, _SHAPE, "")
    return found


def _require_shape(value: Any, shape: Any, path: str) -> None:
    """Refuse what is not of the type of an example. Null is the same as nothing, and a key without an example
    is none that kubectl reads."""
    if value is None or shape is None:
        return
    if not isinstance(value, type(shape)):
        wanted = kind_in_words(shape)
        raise RefusedError(
            f"its {path} is {kind_in_words(value)}, which kubectl refuses",
            f"write {wanted} there{', in quotes' if isinstance(shape, str) else ''}",
        )
    if isinstance(value, dict):
        for key, item in value.items():
            _require_shape(item, shape.get(key, shape.get("")), f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _require_shape(item, shape[0], f"{path}[{number}]")


def current_context(content: str) -> str:
    """The name of the context that a kubeconfig selects itself; empty when it selects none."""
    return parse(content).get("current-context") or ""


def cluster_server(content: str, context: str) -> str:
    """The API server's address that a kubeconfig's context (empty: its current one) leads to.

    Raises:
        NoContextError: there is no such context, or none is chosen.
        RefusedError: no kubeconfig, a context that leads nowhere, or one that kubectl refuses.
    """
    return cluster_and_user(parse(content), context)[0]["server"]


def cluster_and_user(found: Mapping[str, Any], context: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of a context, of the current one when it is empty. The user is empty where
    the context names none.

    Raises:
        NoContextError: there is no such context, or none is chosen.
        RefusedError: the context leads nowhere, or kubectl refuses it.
    """
    contexts, clusters = _named(found, "contexts", "context"), _named(found, "clusters", "cluster")
    users = _named(found, "users", "user")
    if not contexts or not clusters:
        raise RefusedError("this is not a kubeconfig with contexts and clusters", REMEDY)
    name = context or found.get("current-context") or ""
    if name not in contexts:
        known = ", ".join(sorted(contexts))
        reason = (
            f"there is no such context in the kubeconfig (there are: {known})"
            if context
            else f"the kubeconfig's own context (current-context) is not in it (there are: {known})"
            if name
            else f"the kubeconfig has no current-context, so one must be chosen (there are: {known})"
        )
        raise NoContextError(reason, f"pulumi config set soci:context {min(contexts)}")
    cluster_name, user_name = contexts[name].get("cluster") or "", contexts[name].get("user") or ""
    if cluster_name not in clusters:
        raise RefusedError(
            f"its context {name} leads to the cluster {cluster_name}, which it does not hold", REMEDY
        )
    cluster, user = clusters[cluster_name], users.get(user_name, {})
    if not cluster.get("server"):
        raise RefusedError(f"its cluster {cluster_name} has no server", REMEDY)
    if user_name and user_name not in users and _sends_credentials(cluster):
        raise RefusedError(
            f"its context {name} has the user {user_name}, which it does not hold",
            f"kubectl config set-context {name} --user=USER, with one that it holds",
        )
    for reason, remedy in _refusals(cluster, user):
        raise RefusedError(f"its context {name} has {reason}, which kubectl refuses", remedy)
    for entry, keys in ((cluster, _CLUSTER_FILES), (user, _USER_FILES)):
        for key in keys:
            if key == "tokenFile" and entry.get("token"):
                continue  # kubectl takes the token when the file cannot be read
            if entry.get(key) and not _is_readable(entry[key]):
                raise RefusedError(
                    f"its context {name} needs the file of {key}, which cannot be read", REMEDY
                )
    return cluster, user


def _sends_credentials(cluster: Mapping[str, Any]) -> bool:
    """Whether kubectl sends credentials to a cluster; over HTTP, and without a scheme, it sends none
    (client-go's clientcmd, ClientConfig)."""
    return cluster["server"].lower().startswith("https://")


def _refusals(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What kubectl refuses in a cluster and its user, each with the remedy (client-go's clientcmd,
    validation.go; the rest, only where credentials are sent, its rest and transport)."""
    one, anew = "remove one of the two", "have the cluster's own tool write the kubeconfig anew"
    for entry, key in (
        (cluster, "certificate-authority"),
        (user, "client-certificate"),
        (user, "client-key"),
    ):
        if entry.get(key) and entry.get(f"{key}-data"):
            yield f"both {key} and {key}-data", one
    if (user.get("token") or user.get("tokenFile")) and (user.get("username") or user.get("password")):
        yield "both a token and a username or password", one
    if _has(user, "client-certificate") and not _has(user, "client-key"):
        yield "a client-certificate without a client-key", anew
    program, provider = user.get("exec"), user.get("auth-provider")
    if program is not None:
        version, mode = program.get("apiVersion"), program.get("interactiveMode")
        if not program.get("command"):
            yield "an exec without a command", anew
        if version not in _PROGRAM_VERSIONS:
            yield "an exec of an apiVersion other than v1 or v1beta1", anew
        if mode not in ("Never", "IfAvailable", "Always") and (mode or version == _PROGRAM_VERSIONS[0]):
            yield "an exec without a known interactiveMode", "add interactiveMode: IfAvailable to it"
    if not _sends_credentials(cluster):
        return
    if cluster.get("insecure-skip-tls-verify") and _has(cluster, "certificate-authority"):
        yield "both insecure-skip-tls-verify and a certificate-authority", one
    if provider is not None and (program is not None or provider.get("name") != "oidc"):
        yield "an auth-provider other than oidc or beside an exec", anew


def _has(entry: Mapping[str, Any], key: str) -> bool:
    """Whether there is a certificate, or a key, as a file or itself."""
    return bool(entry.get(key) or entry.get(f"{key}-data"))


def as_kubectl_means(
    cluster: Mapping[str, Any], user: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cluster and its user with what kubectl makes of them written out.

    A server without a scheme has HTTP. A SOCKS proxy resolves names itself (Go's net/http).
    """
    is_trusted = _sends_credentials(cluster)
    # To Go an empty value is none.
    cluster = {key: value for key, value in cluster.items() if value}
    user = {key: value for key, value in user.items() if value and is_trusted}
    server = cluster["server"]
    scheme, _, rest = (server if "://" in server else f"http://{server}").partition("://")
    cluster["server"] = f"{scheme.lower()}://{rest}"
    if "proxy-url" in cluster:
        cluster["proxy-url"] = re.sub(r"(?i)^socks5://", "socks5h://", cluster["proxy-url"])
    if "username" in user:
        user.setdefault("password", "")
    # A program is not asked where there are other credentials (client-go's plugin/pkg/client/auth/exec).
    if user.keys() & {"token", "tokenFile", "username"} or _has(user, "client-certificate"):
        user.pop("exec", None)
    user |= {key: _as_sent(user[key]) for key in ("username", "password", "token") if key in user}
    return cluster, user


def of_one(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """A kubeconfig that holds nothing else."""
    return {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": user}],
    }


def _as_sent(text: str) -> str:
    """A text of a header so that Python's client, which sends Latin-1, sends the UTF-8 that Go's does."""
    return text.encode().decode("latin-1")


def impersonation_headers(user: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The headers by which a user acts as another one; some come several times (client-go's
    transport/round_trippers.go).

    Raises:
        RefusedError: it is said in a way that kubectl refuses, or that no header can hold.
    """
    groups, extra = user.get("as-groups") or [], user.get("as-user-extra") or {}
    headers = [
        ("Impersonate-User", user.get("as")),
        ("Impersonate-Uid", user.get("as-uid")),
        *(("Impersonate-Group", group) for group in groups),
        *(
            (f"Impersonate-Extra-{_in_header(key)}", item)
            for key, items in extra.items()
            for item in items or []
        ),
    ]
    said = [(name, value) for name, value in headers if value]
    if said and not user.get("as"):
        raise RefusedError("the kubeconfig has groups, or more, of another user, and no user (as)", REMEDY)
    if not all(value.isprintable() for _, value in said):
        raise RefusedError("the kubeconfig's other user (as) is no plain text", REMEDY)
    return [(name, _as_sent(value)) for name, value in said]


def _in_header(key: str) -> str:
    """A key as a part of a header's name, where not every letter may stand."""
    return quote(key, safe="!#$&'*+^`|~")


def take_token(user: dict[str, Any]) -> None:
    """Give a user the token of his token file, as kubectl reads it: without the blanks around it, and before
    a token that stands beside. A file that cannot be read stays named."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        if token := Path(user["tokenFile"]).read_text(encoding="utf-8").strip():
            user["token"] = token
            del user["tokenFile"]


def _is_readable(file: str) -> bool:
    """Whether there is a file that can be read."""
    try:
        return os.access(file, os.R_OK)
    except ValueError:  # a null byte
        return False


def _expanded(path: str) -> Path:
    """The path itself if it exists, else with `~` and variables expanded."""
    if os.path.exists(path):
        return Path(path)
    return Path(os.path.expandvars(os.path.expanduser(path.strip())))


def _read(file: Path, given: str) -> str:
    """A file's text, UTF-8 or, as PowerShell writes it, UTF-16 with a byte order mark."""
    try:
        data = file.read_bytes()
        is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
    shown = file if is_path(given) else "this is no kubeconfig, and as a path it"
    raise RefusedError(f"{shown} cannot be read ({reason})", REMEDY)


def _load(content: str) -> Any:
    """JSON, which YAML's reader would refuse for its tabs, or YAML."""
    try:
        return json.loads(content)
    except ValueError:
        pass
    # Of the tabs outside of texts kubectl's reader thinks as of blanks.
    for text in (content, _TABS.sub(" ", content)):
        with contextlib.suppress(yaml.YAMLError, ValueError, TypeError, RecursionError):
            found = next(yaml.load_all(text, _Loader), None)
            json.dumps(found)  # a set, or bytes, is nothing that a kubeconfig holds
            return found
    return None


def _named(found: Mapping[str, Any], key: str, inner: str) -> dict[str, dict[str, Any]]:
    """One list of a kubeconfig as a mapping from its names."""
    entries = found.get(key) or []
    named: dict[str, dict[str, Any]] = {}
    for entry in filter(None, entries):
        name = entry.get("name") or ""
        if name in named:
            raise RefusedError(f"its {key} hold {name} twice, which kubectl refuses", REMEDY)
        named[name] = entry.get(inner) or {}
    return named


def _with_absolute_paths(content: str, base: Path) -> str:
    """The content, unchanged if it refers to no file by a relative path."""
    found = parse(content)
    changed = False
    for key, inner, names in (("clusters", "cluster", _CLUSTER_FILES), ("users", "user", _USER_FILES)):
        for entry in _named(found, key, inner).values():
            changed |= _make_absolute(entry, names, base)
            program = entry.get("exec") or {}
            # A command without a slash is looked for in PATH.
            if os.sep in (program.get("command") or ""):
                changed |= _make_absolute(program, ("command",), base)
    return json.dumps(found) if changed else content


def _make_absolute(entry: dict[str, Any], keys: tuple[str, ...], base: Path) -> bool:
    relative = [key for key in keys if entry.get(key) and not os.path.isabs(entry[key])]
    for key in relative:
        entry[key] = os.path.normpath(base / entry[key])
    return bool(relative)


def _merged(kubeconfigs: list[dict[str, Any]]) -> dict[str, Any]:
    """Several files as one, as client-go does it: of two entries or values of one name, the first."""
    merged: dict[str, Any] = {}
    for found in kubeconfigs:
        for key, value in found.items():
            if key not in ("clusters", "contexts", "users"):
                merged[key] = merged.get(key) or value
    for key, inner in (("clusters", "cluster"), ("contexts", "context"), ("users", "user")):
        entries: dict[str, Any] = {}
        for found in kubeconfigs:
            entries = _named(found, key, inner) | entries
        merged[key] = [{"name": name, inner: entry} for name, entry in entries.items()]
    return merged
