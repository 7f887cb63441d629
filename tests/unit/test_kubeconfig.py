"""A kubeconfig as people have it: what kubectl accepts is accepted and means the same; no piece of it is
told."""

import base64
import contextlib
import http.server
import json
import os
import ssl
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pulumi
import pytest
import yaml

from components import SociInstaller
from components.configuration import from_arguments, from_config, kubeconfig_content
from components.kubeconfig import cluster_server, current_context, parse, read_kubeconfig
from components.live_cluster import LiveCluster, UnreachableError, UnreadableError
from components.problems import SociConfigError
from tests.fakes.tls import server_context
from tests.unit.mocks import Recorder

SERVER = "https://10.0.0.9:6443"
SECRET = "eyJ-very-secret"
V1 = "client.authentication.k8s.io/v1"
PROGRAM = {"apiVersion": V1, "command": "/bin/false", "interactiveMode": "Never"}


def kubeconfig(**changes: Any) -> dict[str, Any]:
    """A kubeconfig of one context, as an object."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": SERVER}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
        "users": [{"name": "u", "user": {"token": SECRET}}],
    } | changes


def accepted(given: object, context: str = "") -> str:
    """The content that is used for a kubeconfig given as configuration, or as an argument."""
    settings = (
        from_config({"soci:cluster": "existing", "soci:kubeconfig": given, "soci:context": context})
        if isinstance(given, str)
        else from_arguments({"cluster": "existing", "kubeconfig": given, "context": context})
    )
    return settings.kubeconfig


def refused(given: object, context: str = "") -> str:
    """What is told of a kubeconfig that is refused; it holds no piece of the secret."""
    with pytest.raises(SociConfigError) as raised:
        accepted(given, context)
    told = str(raised.value)
    assert "eyJ" not in told
    assert raised.value.__cause__ is None
    return told


BLOCK = yaml.safe_dump(kubeconfig())
CONTENTS = {
    "JSON in one line": json.dumps(kubeconfig()),
    "JSON in several lines": json.dumps(kubeconfig(), indent=2),
    "JSON indented by tabs": json.dumps(kubeconfig(), indent="\t"),
    "JSON with blanks around it": f"\n  {json.dumps(kubeconfig())}\n\n",
    "YAML": BLOCK,
    "YAML in one line": yaml.safe_dump(kubeconfig(), default_flow_style=True, width=10_000).strip(),
    "YAML with a document marker": f"---\n{BLOCK}",
    "YAML in one line with a document marker": "--- " + json.dumps(kubeconfig()),
    "YAML with a directive": f"%YAML 1.1\n---\n{BLOCK}",
    "YAML with comments": f"# my cluster\n\n{BLOCK}# the end\n",
    "YAML that ends with a marker": f"{BLOCK}...\n",
    "the first of several YAML documents": f"{BLOCK}---\nkind: Secret\n",
    "Windows line ends": BLOCK.replace("\n", "\r\n"),
    "a byte order mark": f"\ufeff{BLOCK}",
    "JSON with a byte order mark": "\ufeff" + json.dumps(kubeconfig()),
    "no apiVersion and kind": yaml.safe_dump(
        {key: value for key, value in kubeconfig().items() if key not in ("apiVersion", "kind")}
    ),
    "anchors": BLOCK.replace("server: ", "server: &server "),
    "no users": yaml.safe_dump(kubeconfig(users=None, contexts=[{"name": "x", "context": {"cluster": "c"}}])),
    "a context without a user": yaml.safe_dump(
        kubeconfig(contexts=[{"name": "x", "context": {"cluster": "c"}}])
    ),
    "names that look like dates": BLOCK.replace("name: u", "name: 2026-01-02").replace(
        "user: u", "user: 2026-01-02"
    ),
    "tabs after a key, a value and before a comment": BLOCK.replace(
        "current-context: x", "current-context:\tx\t"
    ).replace("kind: Config", "kind: Config\t# mine"),
    "an empty entry": BLOCK.replace("users:\n", "users:\n-\n"),
    "keys that kubectl ignores": yaml.safe_dump(kubeconfig(preferences={}, extensions=[], more="x")),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_content_is_accepted_and_means_the_same(content: str) -> None:
    used = accepted(content)
    assert (cluster_server(used, ""), current_context(used)) == (SERVER, "x")
    assert parse(used) == parse(content)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_with_such_content_is_accepted(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content.encode())
    assert cluster_server(accepted(str(tmp_path / "file")), "") == SERVER


def test_the_object_that_another_stack_hands_out_is_accepted() -> None:
    """pulumi_eks gives its kubeconfig as an object, this product as JSON (pulumi-eks#359)."""
    assert json.loads(accepted(kubeconfig())) == kubeconfig()
    assert accepted(json.dumps(kubeconfig())) == json.dumps(kubeconfig())


def test_an_object_from_yamls_reader_may_hold_a_date() -> None:
    found = yaml.safe_load(BLOCK + "extensions: [{name: e, extension: {updated: 2026-01-02}}]\n")
    assert json.loads(accepted(found))["extensions"][0]["extension"] == {"updated": "2026-01-02"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_as_powershell_writes_it_is_accepted(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BLOCK.replace("\n", "\r\n").encode(encoding))
    assert parse(accepted(str(tmp_path / "file"))) == kubeconfig()


@pytest.mark.parametrize(
    "path",
    [
        "~/.kube/config",
        "$HOME/.kube/config",
        "${HOME}/.kube/config",
        "kube/../.kube/config",
        " .kube/config\n",
    ],
)
def test_a_path_is_read_as_it_is_typed(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".kube").mkdir()
    (tmp_path / "kube").mkdir()
    (tmp_path / ".kube/config").write_text(BLOCK)
    assert accepted(path) == BLOCK


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """What was checked is what is used, also when the path is a pipe, as of `<(…)`."""
    reading, writing = os.pipe()
    os.write(writing, BLOCK.encode())
    os.close(writing)
    assert accepted(f"/dev/fd/{reading}") == BLOCK
    os.close(reading)


FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def test_files_beside_the_kubeconfig_are_found_from_everywhere(tmp_path: Path) -> None:
    """kubectl reads them relative to the kubeconfig; the provider, which gets its content, cannot."""
    for name in FILES:
        (tmp_path / name).write_text("x")
    absolute = str(tmp_path / "elsewhere")
    content = kubeconfig(
        clusters=[
            {"name": "c", "cluster": {"server": SERVER, "certificate-authority": "certificate-authority"}}
        ],
        users=[
            {
                "name": "u",
                "user": {"client-certificate": "./client-certificate", "client-key": "sub/../client-key"}
                | {"tokenFile": "tokenFile", "exec": PROGRAM | {"command": "bin/get-token", "args": ["a/b"]}},
            },
            {"name": "v", "user": {"client-key": absolute, "exec": {"command": "aws"}}},
        ],
    )
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    used = parse(accepted(str(tmp_path / "kubeconfig")))
    assert used["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path / FILES[0])
    user, other = (entry["user"] for entry in used["users"])
    assert [user[name] for name in FILES[1:]] == [str(tmp_path / name) for name in FILES[1:]]
    assert user["exec"] == PROGRAM | {"command": str(tmp_path / "bin/get-token"), "args": ["a/b"]}
    assert other == {"client-key": absolute, "exec": {"command": "aws"}}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_told(name: str, tmp_path: Path) -> None:
    content = kubeconfig()
    entry = content["clusters"][0]["cluster"] if name == FILES[0] else content["users"][0]["user"]
    entry[name] = "gone"
    if name == "client-certificate":
        entry["client-key"] = "/dev/null"
    if name == "tokenFile":
        del entry["token"]  # beside one, kubectl does without the file
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    assert f"its context x needs the file of {name}, which cannot be read" in refused(
        str(tmp_path / "kubeconfig")
    )


def test_several_files_are_one_as_in_the_variable_kubeconfig(tmp_path: Path) -> None:
    """client-go: of two entries of one name the first, of two current contexts the first; missing files do
    not matter."""
    second = kubeconfig(
        clusters=[
            {"name": "c", "cluster": {"server": "https://other"}},
            {"name": "d", "cluster": {"server": "https://d"}},
        ],
        contexts=[{"name": "y", "context": {"cluster": "d"}}],
    )
    second["current-context"] = "y"
    (tmp_path / "one").write_text(BLOCK)
    (tmp_path / "two").write_text(json.dumps(second))
    given = os.pathsep.join(str(tmp_path / name) for name in ("one", "gone", "two"))
    assert cluster_server(accepted(given), "") == SERVER
    assert cluster_server(accepted(given, "y"), "y") == "https://d"


def test_an_empty_file_among_several_does_not_matter(tmp_path: Path) -> None:
    """client-go reads it as a kubeconfig without entries."""
    (tmp_path / "one").write_text("")
    (tmp_path / "two").write_text("\ufeff \n")
    (tmp_path / "three").write_text(BLOCK)
    (tmp_path / "ca").write_text("x")
    given = os.pathsep.join(str(tmp_path / name) for name in ("one", "two", "three"))
    assert accepted(given) == BLOCK
    assert "this is not a kubeconfig" in refused(os.pathsep.join([str(tmp_path / "one")] * 2))
    assert "this is not a kubeconfig" in refused(str(tmp_path / "one"))


def test_a_path_may_be_an_object_of_pythons_pathlib(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(BLOCK)
    assert accepted(tmp_path / "kubeconfig") == BLOCK
    assert refused(tmp_path / "gone").startswith(f"soci:kubeconfig '{tmp_path}/gone': {tmp_path}/gone cannot")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"current-context": ["x"]}, "its current-context is a list, which kubectl refuses"),
        ({"current-context": False}, "its current-context is true or false, which kubectl refuses"),
        (
            {"contexts": [{"name": "x", "context": {"cluster": ["c"]}}]},
            "its contexts[0].context.cluster is a list",
        ),
        (
            {"contexts": [{"name": "x", "context": {"cluster": "c", "user": {"u": SECRET}}}]},
            "its contexts[0].context.user is an object",
        ),
        (
            {"clusters": [{"name": "c", "cluster": {"server": SERVER, "certificate-authority": 5}}]},
            "its clusters[0].cluster.certificate-authority is a number, which kubectl refuses. "
            "Remedy: write a text there, in quotes",
        ),
        (
            {"clusters": [{"name": "c", "cluster": {"server": SERVER, "insecure-skip-tls-verify": "no"}}]},
            "its clusters[0].cluster.insecure-skip-tls-verify is a text, which kubectl refuses. "
            "Remedy: write true or false there",
        ),
        ({"users": [{"name": "u", "user": {"client-key": [SECRET]}}]}, "its users[0].user.client-key is a"),
        ({"users": [{"name": "u", "user": {"as-groups": SECRET}}]}, "its users[0].user.as-groups is a text"),
        (
            {"users": [{"name": "u", "user": {"as-user-extra": {"a": SECRET}}}]},
            "its users[0].user.as-user-extra.a is a text",
        ),
        (
            {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "gone"}}]},
            "its context x has the user gone, which it does not hold. "
            "Remedy: kubectl config set-context x --user=USER",
        ),
        (
            {"contexts": None},
            "soci:kubeconfig [not shown]: this is not a kubeconfig with contexts and clusters",
        ),
        (
            {"clusters": []},
            "soci:kubeconfig [not shown]: this is not a kubeconfig with contexts and clusters",
        ),
        ({"kind": "Secret"}, "this is not a kubeconfig"),
        ({"contexts": {"x": "c"}}, "its contexts is an object"),
        ({"contexts": ["x"]}, "its contexts[0] is a text"),
        ({"contexts": [{"name": 1, "context": {}}]}, "its contexts[0].name is a number"),
        (
            {"contexts": [{"name": "x", "context": None}]},
            "its context x leads to the cluster , which it does not",
        ),
        ({"clusters": [{"name": "c", "cluster": {}}]}, "its cluster c has no server"),
        ({"clusters": [{"name": "c", "cluster": {"server": 1}}]}, "its clusters[0].cluster.server is a num"),
        (
            {"clusters": 2 * [{"name": "c", "cluster": {"server": SERVER}}]},
            "its clusters hold c twice, which kubectl refuses",
        ),
        (
            {"users": 2 * [{"name": "u", "user": {"token": SECRET}}]},
            "its users hold u twice, which kubectl refuses",
        ),
        (
            {"current-context": ""},
            "the kubeconfig has no current-context, so one must be chosen (there are: x). "
            "Remedy: pulumi config set soci:context x",
        ),
        (
            {"current-context": "gone"},
            "the kubeconfig's own context (current-context) is not in it (there are: x). "
            "Remedy: pulumi config set soci:context x",
        ),
    ],
)
def test_what_leads_nowhere_is_refused_in_words(changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(kubeconfig(**changes))


# Each was tried with kubectl: what Go's YAML takes for a number, and what it leaves as text.
NUMBERS = ("123", "0123", "089", "0x1F", "1_000", "0o17", "0b11", "+1", "1e5", ".5", "5.", "-0x1f", "6.8e+5")
TEXTS = ("12:30", "2026-01-02", "1.2.3", "'123'", "123abc", "1e", "0x", "0b2", "0o9", "_1", ".e5")


@pytest.mark.parametrize("password", [*NUMBERS, "true", "y", "N", "[a]", "{a: b}"])
def test_a_credential_that_is_no_text_to_kubectl_is_refused(password: str) -> None:
    assert "its users[0].user.token is " in refused(BLOCK.replace(SECRET, password))


@pytest.mark.parametrize("password", TEXTS)
def test_what_looks_like_a_number_and_is_none_is_text(password: str) -> None:
    assert parse(BLOCK.replace(SECRET, password))["users"][0]["user"]["token"] == password.strip("'")


@pytest.mark.parametrize(
    ("written", "means"), [("y", True), ("Y", True), ("n", False), ("N", False), ("no", False), ("ON", True)]
)
def test_y_and_n_are_true_and_false(written: str, means: bool) -> None:
    content = BLOCK.replace("server:", f"insecure-skip-tls-verify: {written}\n    server:")
    assert parse(content)["clusters"][0]["cluster"]["insecure-skip-tls-verify"] is means


FILE_AND_DATA = {"client-certificate": "/dev/null", "client-key": "/dev/null"}
SKIP = {"insecure-skip-tls-verify": True}


@pytest.mark.parametrize(
    ("user", "cluster", "expected"),
    [
        ({"token": SECRET, "username": "a"}, {}, "both a token and a username or password"),
        ({"token": SECRET, "password": SECRET}, {}, "both a token and a username or password"),
        (
            FILE_AND_DATA | {"client-certificate-data": SECRET},
            {},
            "both client-certificate and client-certificate-data",
        ),
        (FILE_AND_DATA | {"client-key-data": SECRET}, {}, "both client-key and client-key-data"),
        ({"client-certificate-data": SECRET}, {}, "a client-certificate without a client-key"),
        (
            {},
            {"certificate-authority": "/dev/null", "certificate-authority-data": "eyJ"},
            "both certificate-authority and certificate-authority-data",
        ),
        (
            {},
            SKIP | {"certificate-authority-data": "eyJ"},
            "both insecure-skip-tls-verify and a certificate-authority",
        ),
        ({"auth-provider": {"name": "gcp"}}, {}, "an auth-provider other than oidc"),
        ({"auth-provider": {}}, {}, "an auth-provider other than oidc"),
        ({"exec": {}}, {}, "an exec without a command"),
        ({"exec": PROGRAM | {"command": ""}}, {}, "an exec without a command"),
        ({"exec": PROGRAM | {"interactiveMode": None}}, {}, "an exec without a known interactiveMode"),
        ({"exec": PROGRAM | {"interactiveMode": "never"}}, {}, "an exec without a known interactiveMode"),
        ({"exec": PROGRAM | {"apiVersion": f"{V1}alpha1"}}, {}, "an exec of an apiVersion other than v1"),
    ],
)
def test_what_contradicts_itself_is_refused_as_kubectl_does(
    user: dict[str, Any], cluster: dict[str, Any], expected: str
) -> None:
    clusters = [{"name": "c", "cluster": {"server": SERVER} | cluster}]
    told = refused(kubeconfig(clusters=clusters, users=[{"name": "u", "user": user}]))
    assert f"its context x has {expected}" in told
    assert "which kubectl refuses. Remedy: " in told


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"apiVersion": f"{V1}beta1", "command": "/bin/false"}},
        {"exec": PROGRAM},
        {"exec": None, "auth-provider": None},
        {"auth-provider": {"name": "oidc"}},
        {"token": SECRET, "username": "", "password": ""},
    ],
)
def test_what_kubectl_accepts_of_a_user_is_accepted(user: dict[str, Any]) -> None:
    assert accepted(kubeconfig(users=[{"name": "u", "user": user}]))


def test_over_http_nothing_is_asked_of_credentials_that_are_not_sent() -> None:
    cluster = {"server": "http://10.0.0.9", "certificate-authority-data": "eyJ"} | SKIP
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "gone"}}]
    assert accepted(kubeconfig(clusters=[{"name": "c", "cluster": cluster}], contexts=contexts))


def test_a_context_that_is_missing_is_the_contexts_problem_not_the_kubeconfigs() -> None:
    assert refused(kubeconfig(), "two").startswith("soci:context 'two': there is no such context")
    assert refused("a: 1\nb: 2\n").startswith("soci:kubeconfig [not shown]: this is not a kubeconfig")


def test_text_in_base64_is_text_beside_a_relative_path(tmp_path: Path) -> None:
    """YAML's own tag for it, which kubectl reads, too."""
    text = BLOCK.replace("server:", "certificate-authority: ca\n    server:")
    text = text.replace(f"token: {SECRET}", "token: !!binary aHVudGVyMg==")
    (tmp_path / "kubeconfig").write_text(text)
    read = parse(read_kubeconfig(str(tmp_path / "kubeconfig")))
    assert read["users"][0]["user"]["token"] == "hunter2"


@pytest.mark.parametrize(
    "given",
    [
        f"token: {SECRET}\nx: {{? a}}\ny: !!set {{a, b}}\n",
        f"token: {SECRET}\nx: [\n",
        f"token: {SECRET}",
        SECRET,
        f"{{token: {SECRET}",
        f'{{"token": "{SECRET}",',
        f"- {SECRET}\n- x\n",
        f"{SECRET}\n\tx: 1\n",
        f"x: !vault {SECRET}\ny: 1\n",
        f"x: &a {SECRET}\ny: *b\n",
        f"{SECRET}\x00",
        SECRET * 1000,
        f"token: {SECRET * 1000}",
        f"token: {SECRET * 1000}{os.pathsep}x",
        [SECRET],
        {"token": SECRET},
        {"token": object(), "x": SECRET},
        {SECRET},
        SECRET.encode(),
        5,
        True,
    ],
)
def test_a_kubeconfig_that_is_none_is_refused_without_any_piece_of_it(given: object) -> None:
    assert "soci:kubeconfig [not shown]: " in refused(given)


def test_an_output_is_refused_where_it_would_be_known_too_late(run: Callable[..., None]) -> None:
    def program() -> dict[str, pulumi.Output[str]]:
        told = refused(pulumi.Output.from_input(SECRET))
        assert "must be known before anything is made, which an output is not. Remedy: use Soci" in told
        return {}

    run(program)


def test_the_installer_takes_a_kubeconfig_in_every_form_also_as_an_output(
    recorder: Recorder, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "kubeconfig").write_text(BLOCK)

    def program() -> dict[str, pulumi.Output[str]]:
        return {
            "none": kubeconfig_content(None),
            "path": kubeconfig_content(str(tmp_path / "kubeconfig")),
            "object": kubeconfig_content(kubeconfig()),
            "output": kubeconfig_content(pulumi.Output.from_input(kubeconfig())),
        }

    content = json.dumps(kubeconfig())
    assert run(program) == {"none": "", "path": BLOCK, "object": content, "output": content}
    with pytest.raises(SociConfigError, match="cannot be read"):
        SociInstaller("soci", {"version": "0.16.1", "kubeconfig": str(tmp_path / "gone")})
    assert recorder.resources == {}


def test_a_path_that_leads_nowhere_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = "gone/kubeconfig"  # a long one would be cut
    assert refused(path) == (
        f"soci:kubeconfig '{path}': {path} cannot be read (No such file or directory). "
        "Remedy: pulumi config set soci:kubeconfig PATH, the file that kubectl uses"
    )
    assert "cannot be read (Is a directory)" in refused(str(tmp_path))


def test_an_address_with_credentials_that_does_not_answer_is_not_shown() -> None:
    cluster = {"server": f"http://user:{SECRET}@127.0.0.1:1"}
    live = LiveCluster(json.dumps(kubeconfig(clusters=[{"name": "c", "cluster": cluster}])))
    with pytest.raises(UnreachableError, match=r"^the API server does not answer: ") as raised:
        live.get("/api")
    assert SECRET not in str(raised.value)


class Asked(http.server.BaseHTTPRequestHandler):
    """An API server that keeps who asked."""

    headers_seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.headers_seen.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"kind": "NodeList", "items": []}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Say nothing."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[str]:
    """An API server's `host:port`, over HTTPS where a context is given."""
    Asked.headers_seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked) as served:
        if context:
            served.socket = context.wrap_socket(served.socket, server_side=True)
        threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with serving(server_context(tmp_path / "pki")) as address:
        yield f"https://{address}"


def asking(server: str, **user: Any) -> LiveCluster:
    """The cluster at an address, as this user."""
    clusters = [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}]
    content = kubeconfig(clusters=clusters, users=[{"name": "u", "user": user}])
    return LiveCluster(json.dumps(content))


def test_a_token_file_is_read_without_its_line_break_and_before_a_token(server: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    asking(server, tokenFile=str(tmp_path / "token"), token="another").get("/api")
    asking(server, tokenFile=str(tmp_path / "gone"), token="another").get("/api")
    (tmp_path / "empty").write_text("\n")
    asking(server, tokenFile=str(tmp_path / "empty"), token="another").get("/api")
    assert Asked.headers_seen == [f"Bearer {SECRET}", "Bearer another", "Bearer another"]


@pytest.mark.parametrize("scheme", ["http://", "HTTP://", ""])
def test_over_http_no_credentials_are_sent(scheme: str) -> None:
    """kubectl sends none either, nor does it act as another user then; without a scheme it is HTTP."""
    with serving() as address:
        asking(f"{scheme}{address}", token=SECRET, **{"as": "admin"}).get("/api")
    assert Asked.headers_seen == [None]


@pytest.mark.parametrize(
    "user",
    [
        {"as": {"name": SECRET}},
        {"as": f"{SECRET}\n x"},
        {"as": "admin", "as-groups": SECRET},
        {"as-groups": [SECRET]},
        {"as": "admin", "as-user-extra": [SECRET]},
    ],
)
def test_another_user_that_no_header_can_name_is_refused_and_not_told(server: str, user: dict) -> None:
    with pytest.raises(UnreadableError, match=r"^the kubeconfig is refused: ") as raised:
        asking(server, token="t", **user)
    assert "eyJ" not in str(raised.value)
    assert Asked.headers_seen == []


def test_a_token_that_cannot_be_sent_is_not_told(server: str) -> None:
    with pytest.raises(UnreadableError, match="has a line break in it") as raised:
        asking(server, token=f"{SECRET}\n").get("/api")
    assert "eyJ" not in "".join(traceback.format_exception(raised.value))


def test_nobody_is_asked_without_the_credentials_that_a_program_did_not_give(server: str) -> None:
    """A lack of rights would be told, with a remedy for that."""
    with pytest.raises(
        UnreadableError, match=r"^/bin/false, which the kubeconfig names, gave no credentials"
    ):
        asking(server, exec=PROGRAM)
    assert Asked.headers_seen == []


def test_why_a_program_gave_no_credentials_is_in_the_error_and_not_on_standard_error(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho the session has expired >&2\necho log in >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(
        UnreadableError, match=r"gave no credentials: .*returned 3\. the session has expired$"
    ):
        asking(server, exec=PROGRAM | {"command": str(program)})
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ({"username": "a"}, basic("a:")),
        ({"username": "zoë", "password": "grün€"}, basic("zoë:grün€")),
        ({"username": "a", "password": "b", "exec": PROGRAM}, basic("a:b")),
        ({"token": "grün", "username": None}, "Bearer grün".encode().decode("latin-1")),
        ({"token": "t", "exec": PROGRAM}, "Bearer t"),
    ],
)
def test_who_has_credentials_sends_them_as_kubectl_does(server: str, user: dict, sent: str) -> None:
    asking(server, **user).get("/api")
    assert Asked.headers_seen == [sent]


def test_a_program_is_not_asked_beside_a_client_certificate(server: str, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    certificate = {"client-certificate": str(pki / "server.crt"), "client-key": str(pki / "server.key")}
    asking(server, **certificate, exec=PROGRAM).get("/api")
    assert Asked.headers_seen == [None]


@pytest.mark.parametrize("scheme", ["https://", "HTTPS://"])
def test_the_authority_is_used_however_the_scheme_is_written(
    server: str, scheme: str, tmp_path: Path
) -> None:
    cluster = {
        "server": server.replace("https://", scheme),
        "certificate-authority": str(tmp_path / "pki/ca.crt"),
        "certificate-authority-data": "",
        "insecure-skip-tls-verify": None,
        "proxy-url": None,
    }
    LiveCluster(json.dumps(kubeconfig(clusters=[{"name": "c", "cluster": cluster}]))).get("/api")
    assert Asked.headers_seen == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("written", ["n", "no", "null"])
def test_an_unverified_server_gets_no_token_where_it_is_to_be_verified(server: str, written: str) -> None:
    content = BLOCK.replace(SERVER, f"{server}\n    insecure-skip-tls-verify: {written}")
    with pytest.raises(UnreadableError):
        LiveCluster(content).get("/api")
    assert Asked.headers_seen == []


def test_an_unverified_server_is_no_warning_at_each_request(
    server: str, recwarn: pytest.WarningsRecorder
) -> None:
    asking(server, token=SECRET).get("/api")
    assert not recwarn.list


def test_reading_again_what_was_read_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("x")
    cluster = {"server": SERVER, "certificate-authority": "ca"}
    (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig(clusters=[{"name": "c", "cluster": cluster}])))
    used = accepted(str(tmp_path / "config"))
    assert read_kubeconfig(used) == used
