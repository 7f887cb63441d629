"""The pure parts of soci-index, and what its package promises."""

import ast
import hashlib
import http.server
import io
import json
import platform
import re
import shlex
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from settings import VERSIONS
from soci_index import (
    assemble,
    index,
    layers,
    oci,
    options,
    outcome,
    references,
    registry,
    sources,
    tools,
    ztocs,
)
from soci_index.credentials import Credentials
from soci_index.errors import SociIndexError, UsageError
from soci_index.processes import Children
from soci_index.progress import Progress

from components.settings import Settings

PACKAGE = Path(tools.__file__).parent
CI = PACKAGE.parent / "ci"
DIGEST = f"sha256:{'ab' * 32}"


# The package


def test_it_needs_nothing_but_the_standard_library() -> None:
    """A Job runs it in a stock Python image. YAML is read where PyYAML is there, and refused elsewhere."""
    named = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                named.add(str(node.module).partition(".")[0])
    assert named - sys.stdlib_module_names == set()


def test_every_module_is_in_the_list_of_rooms() -> None:
    listed = set(re.findall(r"[a-z_]+", (PACKAGE / "__init__.py").read_text()))
    assert {path.stem for path in PACKAGE.glob("[!_]*.py")} - listed == set()


def test_its_programs_are_those_of_the_project() -> None:
    assert Settings().version == tools.SOCI_VERSION
    assert VERSIONS["oras"] == tools.ORAS_VERSION


# References


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.13", "docker.io/library/python:3.13"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/team/app:1", "docker.io/team/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry.example:5000/team/app:1", "registry.example:5000/team/app:1"),
        (f"registry.example/app:1@{DIGEST}", f"registry.example/app@{DIGEST}"),
        (f"registry.example/app@{DIGEST}", f"registry.example/app@{DIGEST}"),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(name: str, pinned: str) -> None:
    assert references.parse(name).pinned == pinned


@pytest.mark.parametrize(
    "name",
    ["", "Team/App", "registry.example/app:", "registry.example/app@sha256:12", "a b", "-x", "app:1:2"],
)
def test_what_is_no_reference_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no image reference"):
        references.parse(name)


@pytest.mark.parametrize(
    ("name", "options", "target"),
    [
        ("r.example/app:1", {}, "r.example/app:1-soci"),
        ("r.example/app:1", {"suffix": ".lazy"}, "r.example/app:1.lazy"),
        ("r.example/app:1", {"tag": "2"}, "r.example/app:2"),
        ("r.example/app:1", {"in_place": True}, "r.example/app:1"),
        (f"r.example/app@{DIGEST}", {}, f"r.example/app:{DIGEST.replace(':', '-')}-soci"),
        (f"r.example/app:1@{DIGEST}", {}, "r.example/app:1-soci"),
        ("python:3.13", {"repository": "r.example/mirror/"}, "r.example/mirror/library/python:3.13-soci"),
        ("python:3.13", {"repository": "r.example/py"}, "r.example/py:3.13-soci"),
        ("python:3.13", {"repository": "r.example:5000/py"}, "r.example:5000/py:3.13-soci"),
    ],
)
def test_the_indexed_image_goes_where_it_is_wanted(name: str, options: dict, target: str) -> None:
    assert references.target_of(references.parse(name), **options).name == target


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (f"r.example/app@{DIGEST}", {"in_place": True}, "has no tag that could be moved"),
        ("r.example/app:1", {"tag": "a b"}, "'a b', for r.example/app:1, is no tag"),
        ("r.example/app:1", {"repository": "r.example/app:2"}, "is no repository"),
    ],
)
def test_where_it_cannot_go_is_refused(name: str, options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        references.target_of(references.parse(name), **options)


# Which images

MANIFESTS = """# Source: chart/templates/all.yaml
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      initContainers: [{name: init, image: busybox:1}]
      containers:
        - name: app
          image: "r.example/app:1"
        - {name: twin, image: r.example/app:1}
      volumes:
        - {name: model, image: {reference: r.example/model:2, pullPolicy: Always}}
        - {name: none, emptyDir: {}}
---
---
apiVersion: batch/v1
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: job, image: r.example/job:3}]}}}}}
---
apiVersion: v1
kind: ConfigMap
data: {image: not-an-image}
"""


def test_images_are_found_wherever_kubernetes_objects_name_them() -> None:
    expected = ["busybox:1", "r.example/app:1", "r.example/model:2", "r.example/job:3"]
    assert sorted(sources.of_text(MANIFESTS, "all.yaml")) == sorted(expected)
    as_json = json.dumps({"kind": "List", "items": list(yaml.safe_load_all(MANIFESTS))})
    assert sorted(sources.of_text(as_json, "all.json")) == sorted(expected)


def test_a_bare_equals_sign_and_a_date_that_is_none_are_text_as_kubernetes_reads_them() -> None:
    definition = """apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  matchType: {enum: [=, "=~"], since: 2026-13-45}
  schema: {properties: {container: {properties: {image: {type: string}}}}}
---
"""
    found = sources.of_text(definition + MANIFESTS, "chart.yaml")
    assert sorted(found) == sorted(sources.of_text(MANIFESTS, "all.yaml"))


WORKFLOWS = """apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
spec:
  workflowSpec:
    templates:
      - {name: one, container: {image: r.example/container:1}, sidecars: [{image: r.example/beside:1}]}
      - {name: two, script: {image: r.example/script:1, source: "print('image')"}}
      - {name: all, steps: [[{name: a, template: one}], [{name: b, template: two}]]}
---
apiVersion: tekton.dev/v1
kind: Pipeline
spec:
  tasks:
    - name: build
      taskSpec:
        stepTemplate: {image: r.example/template:1}
        sidecars: [{name: store, image: r.example/store:1}]
        steps:
          - {name: build, image: r.example/step:1, script: "echo image"}
          - {ref: {name: elsewhere}}
"""


def test_images_of_argos_and_tektons_workflows_are_found() -> None:
    names = ("container", "beside", "script", "template", "store", "step")
    assert sorted(sources.of_text(WORKFLOWS, "all.yaml")) == sorted(f"r.example/{name}:1" for name in names)


@pytest.mark.parametrize(
    "kind",
    [
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application",
        "apiVersion: v1\nkind: Custom",
    ],
)
def test_an_image_of_a_charts_values_is_none_of_a_container(kind: str) -> None:
    values = "{image: app, container: {image: app}, script: {image: app}, sidecars: [{image: app}]}"
    assert sources.of_text(f"{kind}\nspec: {{values: {values}}}\n", "release.yaml") == []


def test_a_list_has_one_image_a_line() -> None:
    assert sources.of_text("# mine\nr.example/app:1\n\n  python:3.13 # base\nr.example/app:1\n", "list") == [
        "r.example/app:1",
        "python:3.13",
    ]


def test_manifests_that_are_no_yaml_are_refused_with_their_place() -> None:
    with pytest.raises(UsageError, match=r"chart\.yaml is no YAML .*line 2.*helm template"):
        sources.of_text("kind: Pod\nimage: {{ .Values.image }}\n", "chart.yaml")


def test_yaml_without_pyyaml_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match="this Python has no PyYAML"):
        sources.of_text(MANIFESTS, "all.yaml")


def test_a_cluster_is_asked_by_kubectl(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    pods = {"items": [{"spec": {"containers": [{"image": "r.example/app:1"}]}}]}
    kubectl.write_text(f"#!/bin/sh\necho \"$*\" > {tmp_path}/asked\necho '{json.dumps(pods)}'\n")
    kubectl.chmod(0o755)
    assert sources.of_cluster([str(kubectl)], "prod") == ["r.example/app:1"]
    asked = (tmp_path / "asked").read_text()
    assert asked == "--context=prod get pods --all-namespaces --output json\n"
    asks_again = kubectl.read_text().replace(" > ", " >> ")
    (tmp_path / "asked").unlink()
    kubectl.write_text(asks_again)
    assert sources.of_cluster([str(kubectl)], "", ["web", "jobs"]) == ["r.example/app:1"]
    asked = (tmp_path / "asked").read_text()
    assert asked.splitlines() == [f"get pods --namespace={name} --output json" for name in ("web", "jobs")]
    kubectl.write_text("#!/bin/sh\necho 'Error: forbidden' >&2\nexit 1\n")
    with pytest.raises(SociIndexError, match="kubectl get pods: Error: forbidden"):
        sources.of_cluster([str(kubectl)], "")


# Layers and documents


@pytest.mark.parametrize(
    ("media_type", "size", "kind"),
    [
        ("application/vnd.oci.image.layer.v1.tar+gzip", 100, layers.Kind.INDEXABLE),
        ("application/vnd.oci.image.layer.v1.tar", 100, layers.Kind.INDEXABLE),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", 100, layers.Kind.INDEXABLE),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", 99, layers.Kind.SMALL),
        ("application/vnd.oci.image.layer.v1.tar+zstd", 100, layers.Kind.ZSTD),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", 100, layers.Kind.ZSTD),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", 100, layers.Kind.ENCRYPTED),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 100, layers.Kind.FOREIGN),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", 100, layers.Kind.FOREIGN),
        ("application/vnd.in-toto+json", 100, layers.Kind.OTHER),
    ],
)
def test_a_layer_is_indexed_when_soci_can_read_it(media_type: str, size: int, kind: layers.Kind) -> None:
    assert layers.kind_of({"mediaType": media_type, "size": size}, 100) is kind


def test_json_is_written_as_go_writes_it() -> None:
    manifest = {
        "annotations": {"b": "<&>\u2028é\x01", "a": "1"},
        "unknown": 1,
        "config": {"size": 2, "digest": DIGEST},
        "layers": [],
    }
    assert oci.manifest_bytes(manifest).decode() == (
        '{"schemaVersion":0,"config":{"mediaType":"","digest":"' + DIGEST + '","size":2},"layers":[],'
        '"annotations":{"a":"1","b":"\\u003c\\u0026\\u003e\\u2028é\\u0001"}}'
    )
    assert oci.index_bytes({"schemaVersion": 2}).decode() == '{"schemaVersion":2,"manifests":null}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
            {"os": "linux", "architecture": "aarch64"},
        ),
        ({"os": "linux", "architecture": "arm"}, {"os": "linux", "architecture": "arm", "variant": "v7"}),
        (
            {"os": "Linux", "architecture": "x86_64"},
            {"os": "linux", "architecture": "amd64", "variant": "v1"},
        ),
    ],
)
def test_platforms_are_compared_as_containerd_compares_them(one: dict, other: dict) -> None:
    assert assemble.normal_platform(one) == assemble.normal_platform(other)


@pytest.mark.parametrize(
    ("errors", "kind", "remedy"),
    [
        ("Error: r.example/app:1: not found", registry.NotFoundError, "check the name"),
        (
            "Error response from registry: unauthorized: authentication required",
            registry.DeniedError,
            "docker login",
        ),
        (
            "Error: 403 denied: requested access is denied",
            registry.DeniedError,
            "the right to read and write",
        ),
        ("Error: r.example:4031/app: status code 500", registry.RegistryError, "see to the registry"),
        ("Error: tls: failed to verify certificate: x509", registry.RegistryError, "--ca-file"),
        (
            "Error: http: server gave HTTP response to HTTPS client",
            registry.RegistryError,
            "--plain-http r.example",
        ),
        ("Error: 429 toomanyrequests", registry.RegistryError, "registries let known users do more"),
        ("Error: basic credential not found", registry.DeniedError, "docker login"),
        ("", registry.RegistryError, "oras ended without a word"),
    ],
)
def test_a_refusal_of_a_registry_has_its_remedy(errors: str, kind: type, remedy: str) -> None:
    made = registry.refusal(references.parse("r.example/app:1"), errors)
    assert type(made) is kind
    assert remedy in str(made)


def test_the_exit_status_says_whether_some_failed() -> None:
    done = [outcome.Outcome("a", outcome.Status.INDEXED), outcome.Outcome("b", outcome.Status.NOTHING)]
    assert outcome.exit_status(done) == 0
    assert outcome.exit_status([*done, outcome.Outcome("c")]) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_bars_and_a_log_a_line_for_each_layer() -> None:
    for stream, bars in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream)
        with progress.layer("r.example/app:1", DIGEST, 1 << 20) as moved:
            moved(1 << 19)
        assert (
            "[############            ]  50% 1 MiB  r.example/app:1 abababababab" in stream.getvalue()
        ) is bars
        [line] = [line for line in stream.getvalue().splitlines() if "zTOC made in" in line]
        assert "soci-index: r.example/app:1 abababababab  1 MiB" in line


def test_who_wants_more_disk_than_is_left_waits_for_it() -> None:
    budget = ztocs.DiskBudget(10)
    order = []

    def second() -> None:
        with budget.taken(6, "second"):
            order.append("second")

    with budget.taken(6, "first"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    with pytest.raises(SociIndexError, match="--disk with more"), budget.taken(11, "third"):
        pass


def test_ztocs_of_other_spans_media_types_and_releases_are_others(tmp_path: Path) -> None:
    file = tmp_path / "made"
    file.write_bytes(b"a zTOC")
    index = json.dumps({"layers": [{"digest": oci.digest_of(b"a zTOC"), "size": 6}]}).encode()
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST}
    cache = ztocs.Cache(tmp_path, "0.16.1", 4 << 20)
    cache.put(layer, index, file)
    again = ztocs.Cache(tmp_path, "0.16.1", 4 << 20).get(layer)
    assert again is not None
    assert again.file.read_bytes() == b"a zTOC"
    assert ztocs.Cache(tmp_path, "0.16.1", 1 << 20).get(layer) is None
    assert ztocs.Cache(tmp_path, "0.15.0", 4 << 20).get(layer) is None
    assert cache.get(layer | {"mediaType": "application/vnd.oci.image.layer.v1.tar"}) is None


def test_a_cache_whose_entry_is_no_object_has_nothing(tmp_path: Path) -> None:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST}
    cache = ztocs.Cache(tmp_path, "0.16.1", 4 << 20)
    for damaged in (b"[]", b"null"):
        place = cache.place(layer)
        place.mkdir(parents=True)
        (place / "ztoc").touch()
        (place / "index.json").write_bytes(damaged)
        assert cache.get(layer) is None


# The command line


def test_options_are_handed_to_another_subcommand_as_they_were() -> None:
    words = ["--plain-http=a", "--plain-http=b:5000", "--ca-file=ca.pem", "--soci-version=0.15.0"]
    words += ["--soci-sha256=amd64=aa", "--soci-sha256=arm64=bb", "--oras-releases=https://m.example"]
    parsed = index.parse([*words, "app:1"])
    assert vars(index.parse([*options.repeated(parsed), "app:1"])) == vars(parsed)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--context", "prod", "app:1"],
        ["--namespace", "web", "app:1"],
        ["--replace", "--to-tag", "2", "app:1"],
        ["--index-version", "v1", "--replace", "app:1"],
        ["--span-size", "4 parsecs", "app:1"],
        ["--jobs", "0", "app:1"],
    ],
)
def test_a_wrong_command_line_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        index.parse(words)
    assert ended.value.code == 2
    assert "usage: soci-index" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["App"], "is no image reference"),
        (["a:1", "b:1", "--to-tag", "2"], "are for one image; there are 2"),
        (["a:1", "--platform", "amd64"], "is no platform"),
        (["--file", "/nowhere/list"], "/nowhere/list cannot be read"),
        (["a:1", "--prefetch", "/nowhere/list"], "Remedy: check --prefetch"),
    ],
)
def test_what_cannot_be_is_told_with_a_remedy(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index.main([*words, "--cache", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Remedy: " in said


@pytest.mark.parametrize(
    ("name", "schema"), [("github-actions.yaml", "github-workflows"), ("gitlab-ci.yaml", "gitlab-ci")]
)
def test_the_jobs_for_ci_have_the_shape_that_their_makers_ask_for(name: str, schema: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*check, str(CI / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_job_for_github_may_push_packages_and_no_more_and_shows_its_token_to_nobody() -> None:
    workflow = yaml.load((CI / "github-actions.yaml").read_text(), yaml.BaseLoader)  # `on` stays a word
    assert list(workflow["on"]) == ["workflow_dispatch"]
    assert workflow["on"]["workflow_dispatch"]["inputs"]["image"]["required"] == "true"
    (job,) = workflow["jobs"].values()
    assert "permissions" not in workflow
    assert job["permissions"] == {"contents": "read", "packages": "write"}
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", name)] == []
    # What a run's starter gives is never part of a script, and the token never an argument.
    assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []
    (login,) = [step for step in job["steps"] if "docker login" in step.get("run", "")]
    assert login["env"] == {"TOKEN": "${{ secrets.GITHUB_TOKEN }}"}
    assert login["run"].startswith('echo "$TOKEN" | docker login ghcr.io ')
    assert login["run"].endswith(" --password-stdin")
    (index_step,) = [step for step in job["steps"] if "soci_index" in step.get("run", "")]
    assert job["steps"].index(login) < job["steps"].index(index_step)


@pytest.mark.parametrize("name", ["github-actions.yaml", "gitlab-ci.yaml"])
def test_the_jobs_for_ci_run_a_command_that_there_is(name: str) -> None:
    job = yaml.safe_load((CI / name).read_text())
    steps = (
        job["jobs"]["index"]["steps"]
        if "jobs" in job
        else [{"run": line} for line in job["soci-index"]["script"]]
    )
    [command] = [step["run"] for step in steps if "soci_index" in step.get("run", "")]
    words = shlex.split(command.replace("$IMAGE", "r.example/app:1"))
    assert words[:4] == ["python3", "-B", "-m", "soci_index"]
    assert index.parse(words[4:]).images == ["r.example/app:1"]


# Programs


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mirror of releases: its URL, and its directory."""
    directory = tmp_path / "releases"
    directory.mkdir()

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(directory))  # type: ignore

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", directory
        server.shutdown()


def archive(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def publish(directory: Path, program: bytes) -> tuple[Path, Path]:
    """A release of each program; their archives."""
    machine = tools.ARCHITECTURES[platform.machine().lower()]
    soci = directory / "v0.16.1" / f"soci-snapshotter-0.16.1-linux-{machine}-static.tar.gz"
    oras = directory / f"v{tools.ORAS_VERSION}" / f"oras_{tools.ORAS_VERSION}_linux_{machine}.tar.gz"
    for path, name in ((soci, "soci"), (oras, "oras")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(archive(name, program))
    digest = hashlib.sha256(soci.read_bytes()).hexdigest()
    Path(f"{soci}.sha256sum").write_text(f"{digest}  {soci.name}\n")
    return soci, oras


def no_registry(oras: Path) -> registry.Registry:
    nowhere = oras.parent / "nowhere"
    return registry.Registry(oras, Children(), nowhere, Credentials(nowhere))


SOCI = b"#!/bin/sh\necho soci version v0.16.1 abc\n"


def test_programs_are_fetched_once_and_checked(
    releases: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, directory = releases
    soci, oras = publish(directory, SOCI)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    machine = tools.architecture()
    monkeypatch.setitem(tools.ORAS_SHA256, machine, hashlib.sha256(oras.read_bytes()).hexdigest())
    wanted = tools.Wanted(soci_releases=url, oras_releases=f"{url}/")
    said: list[str] = []
    found = tools.get(wanted, tmp_path / "cache", no_registry, said.append)
    assert found.soci.read_bytes() == found.oras.read_bytes() == SOCI
    assert found.soci_version == "0.16.1"
    assert len(said) == 2
    soci.unlink()
    oras.unlink()
    assert tools.get(wanted, tmp_path / "cache", no_registry) == found


@pytest.mark.parametrize("damaged", ["soci", "oras"])
def test_an_archive_with_other_bytes_is_refused_and_nothing_of_it_is_kept(
    releases: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    url, directory = releases
    soci, oras = publish(directory, SOCI)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if damaged == "soci":
        right = hashlib.sha256(oras.read_bytes()).hexdigest()
        monkeypatch.setitem(tools.ORAS_SHA256, tools.architecture(), right)
        soci.write_bytes(archive("soci", b"#!/bin/sh\necho soci version v0.16.1 other\n"))
    with pytest.raises(SociIndexError, match=rf"{damaged}.*has sha256 .*never skip this check"):
        tools.get(tools.Wanted(soci_releases=url, oras_releases=url), tmp_path / "cache", no_registry)
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == (["oras"] if damaged == "soci" else [])


def program_on_path(directory: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = directory / "bin" / "soci"
    place.parent.mkdir()
    place.write_bytes(content)
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.parent}:/usr/bin:/bin")
    return place


def test_a_release_that_is_asked_for_comes_before_another_one_on_path(
    releases: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, directory = releases
    publish(directory, SOCI)
    on_path = program_on_path(tmp_path, SOCI.replace(b"0.16.1", b"0.15.0"), monkeypatch)
    oras = str(on_path)
    found = tools.get(tools.Wanted(oras=oras, soci_releases=url), tmp_path / "cache", no_registry)
    assert (found.soci, found.soci_version) == (on_path, "0.15.0")
    asked = tools.Wanted(oras=oras, soci_releases=url, soci_version="0.15.0")
    assert tools.get(asked, tmp_path / "cache", no_registry).soci == on_path
    asked = tools.Wanted(oras=oras, soci_releases=url, soci_version="0.16.1")
    assert tools.get(asked, tmp_path / "cache", no_registry).soci_version == "0.16.1"


def test_a_program_in_the_cache_is_of_the_archive_that_is_asked_for(
    releases: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, directory = releases
    soci, _ = publish(directory, SOCI)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    wanted = tools.Wanted(oras="/bin/true", soci_releases=url)
    tools.get(wanted, tmp_path / "cache", no_registry)
    right = hashlib.sha256(soci.read_bytes()).hexdigest()
    with pytest.raises(SociIndexError, match=f"has sha256 {right}, not {'a' * 64}"):
        tools.get(replace(wanted, soci_sha256="a" * 64), tmp_path / "cache", no_registry)
    checked = tools.get(replace(wanted, soci_sha256=right), tmp_path / "cache", no_registry)
    soci.unlink()
    assert tools.get(replace(wanted, soci_sha256=right), tmp_path / "cache", no_registry) == checked


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("soci version v0.12.1", "works without containerd since 0.13"),
        ("hello", "says no version"),
    ],
)
def test_a_soci_that_is_too_old_is_refused(tmp_path: Path, says: str, told: str) -> None:
    program = tmp_path / "soci"
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    with pytest.raises(SociIndexError, match=told):
        tools.soci_version(program)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [([], ""), (["a"], "a"), (["amd64=a", "arm64=b"], "b"), (["b", "amd64=a"], "b")],
)
def test_a_digest_is_that_of_this_architecture(
    given: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "architecture", lambda: "arm64")
    assert options.chosen_digest(given) == chosen


def test_digests_of_other_architectures_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are given so that nothing is fetched without its check."""
    monkeypatch.setattr(tools, "architecture", lambda: "arm64")
    with pytest.raises(UsageError, match="there is no --soci-sha256 for arm64"):
        options.chosen_digest(["amd64=a"])


def test_a_machine_that_soci_is_not_for_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(SociIndexError, match=r"for Linux only; this is Darwin.*in a container or CI job"):
        tools.architecture()


@pytest.mark.parametrize("digest", ["sha256:{}", "sha256:../../{}", "{}", "sha512:" + "a" * 64, None, 7])
def test_a_digest_that_is_a_path_leads_nowhere(tmp_path: Path, digest: object) -> None:
    """A manifest gave the way to a directory as a layer's digest, and the directory was removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    digest = digest.format(precious) if isinstance(digest, str) else digest
    cache = ztocs.Cache(tmp_path / "a" / "cache", "0.16.1", 4 << 20)
    with pytest.raises(SociIndexError, match=r"is no SHA-256 digest\. Remedy: push the image again"):
        cache.get({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 1})
    assert precious.exists()


def test_words_of_others_do_nothing_in_a_log() -> None:
    """A registry's line end began a command of a CI, and the query of an address is a signature."""
    said = "denied\n::add-mask::x\x1b[2J at https://store.example/blob?X-Amz-Signature=abc, twice"
    error = SociIndexError(said, "log in")
    assert str(error) == "denied ::add-mask::x [2J at https://store.example/blob?… twice. Remedy: log in"
