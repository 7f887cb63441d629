"""The lab's pure parts: pins, image layouts, releases, configurations and the check of the machine."""

import argparse
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import tomllib
from pathlib import Path

import binaries
import commands
import images
import nodes
import preflight
import processes
import pytest
import release
from settings import ECR, REGISTRY_NAMES, VERSIONS, LabError
from settings import HERE as LAB


@pytest.mark.parametrize(
    ("module", "package", "version"),
    [
        ("kubernetes", "k8s.io/kubernetes", VERSIONS["kubernetes"]),
        ("kubernetes", "go.etcd.io/etcd/server/v3", VERSIONS["etcd"]),
        ("soci", "github.com/awslabs/soci-snapshotter", VERSIONS["soci"]),
        ("registry", "github.com/google/go-containerregistry", VERSIONS["registry"]),
        ("distribution", "github.com/distribution/distribution/v3", VERSIONS["distribution"]),
        ("oras", "oras.land/oras", VERSIONS["oras"]),
        ("pulumi", "github.com/pulumi/pulumi/pkg/v3", VERSIONS["pulumi"]),
        ("karpenter", "sigs.k8s.io/karpenter", VERSIONS["karpenter"]),
        ("karpenter", "github.com/aws/karpenter-provider-aws", VERSIONS["karpenter"]),
        *(
            (f"containerd-{series}", f"github.com/containerd/containerd{major}", version)
            for series, version in VERSIONS["containerd"].items()
            for major in ["" if series.startswith("1.") else "/v2"]
        ),
    ],
)
def test_go_modules_carry_the_pinned_versions(module: str, package: str, version: str) -> None:
    text = (LAB / "go" / module / "go.mod").read_text()
    assert re.search(
        rf"^(?:require )?\s*{re.escape(package)} v{re.escape(version)}(?: // indirect)?$", text, re.M
    )


def test_every_node_runs_a_pinned_containerd() -> None:
    assert {node["containerd"] for node in VERSIONS["nodes"].values()} <= set(VERSIONS["containerd"].values())


def test_key_of_a_build_follows_sources_and_flags(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module a\n")
    one = binaries.Target(tmp_path, {"a": "."})
    before = one.key()
    assert one.key() == before
    assert binaries.Target(tmp_path, {"a": "."}, flags=("-tags", "b")).key() != before
    (tmp_path / "go.mod").write_text("module b\n")
    assert one.key() != before


def test_containerd_is_named_by_version_or_by_pinned_series() -> None:
    assert binaries.target("containerd-1.7") == binaries.target("containerd-1.7.35")
    with pytest.raises(LabError, match="is no containerd version"):
        binaries.target("containerd-1.6")


def test_unknown_program_is_refused_in_words() -> None:
    with pytest.raises(LabError, match="no program named 'docker'"):
        binaries.build("docker")


def _layers() -> list[images.Layer]:
    programs = images.programs_layer(b"busybox", ["sh", "cat"], {"opt/sample/run": b"#!/bin/sh\n"})
    return [programs, lambda archive: images.add_file(archive, "data", b"x" * 5000)]


def test_image_layout_is_reproducible_and_whole(tmp_path: Path) -> None:
    first = images.write_layout(tmp_path / "a", _layers(), {"Cmd": ["sh"]})
    second = images.write_layout(tmp_path / "b", _layers(), {"Cmd": ["sh"]})
    assert first == second
    blobs = tmp_path / "a/blobs/sha256"
    for blob in blobs.iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    manifest = json.loads((blobs / first.removeprefix("sha256:")).read_text())
    configuration = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    for layer, diff_id in zip(manifest["layers"], configuration["rootfs"]["diff_ids"], strict=True):
        packed = (blobs / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert len(packed) == layer["size"]
        assert f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}" == diff_id


def test_sample_is_large_and_its_program_reads_a_small_part() -> None:
    layers = range(1, images.SAMPLE_LAYERS + 1)
    sizes = {f"/{name}": size for layer in layers for name, size in images.sample_files(layer)}
    chosen = images.working_set()
    assert sum(sizes.values()) >= 290e6
    assert len(sizes) >= 2000
    assert 0.05 <= sum(sizes[name] for name in chosen) / sum(sizes.values()) <= 0.07
    assert chosen == sorted(chosen)  # the order of the image
    assert {name.split("/")[4] for name in chosen} == {"2"}


def test_release_has_the_layout_of_the_true_one() -> None:
    packed = release.archive("0.16.0", b"program")
    assert packed == release.archive("0.16.0", b"program")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["NOTICE.md", "THIRD_PARTY_LICENSES", "soci", "soci-snapshotter-grpc"]
        assert archive.getmember("soci").mode == 0o755
        notice = archive.extractfile("NOTICE.md")
        assert notice
        assert b"0.16.0" in notice.read()


@pytest.mark.parametrize(("version", "schema"), [("1.7.35", 2), ("2.3.7", 3)])
def test_containerd_configuration_has_the_schema_of_its_version(version: str, schema: int) -> None:
    configuration = tomllib.loads(nodes.containerd_configuration(version))
    assert configuration["version"] == schema
    assert f"/pause:{VERSIONS['pause']}" in str(configuration)


def test_startup_taint_only_where_asked() -> None:
    tainted = nodes.kubelet_configuration(nodes.Spec("a", 1, "2.3.7", taint=True))
    assert tainted["registerWithTaints"] == [{"key": "soci-cluster.io/not-ready", "effect": "NoSchedule"}]
    assert nodes.kubelet_configuration(nodes.Spec("a", 1, "2.3.7", taint=False))["registerWithTaints"] == []


def test_nodes_know_the_registries_of_tests_by_name() -> None:
    lines = dict(line.split(" ", 1) for line in nodes.hosts_file(nodes.Spec("a", 1, "2.3.7")).splitlines())
    assert lines["10.77.0.11"] == "a"
    assert ECR in lines["10.77.0.2"].split()
    assert len({name for line in lines.values() for name in line.split()}) == 2 + sum(
        map(len, REGISTRY_NAMES.values())
    )


@pytest.mark.parametrize("name", ["", "-a", "Node", "a_b", "a" * 13, "1a", "a-"])
def test_bad_node_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be a node's name"):
        nodes.check_name(name)


def test_readiness_wants_a_heartbeat_from_after_the_reboot() -> None:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:10Z"}
    item = {"status": {"conditions": [ready]}}
    heartbeat = 1767225610
    assert nodes.is_ready(item)
    assert nodes.is_ready(item, since=heartbeat - 1)
    assert not nodes.is_ready(item, since=heartbeat + 0.5)
    assert not nodes.is_ready(None)


def test_check_of_the_machine_names_all_problems_at_once_each_with_a_remedy() -> None:
    bad = preflight.Machine(
        system="Darwin",
        root=False,
        free_disk_gb=3,
        memory_gb=1,
        ports_in_use=(5000,),
        kernel_features=frozenset({"overlay"}),
        go="1.19.8",
        apt=False,
        missing_packages=("skopeo",),
    )
    found = preflight.problems(bad)
    expected = ["Darwin", "CAP_SYS_ADMIN", "3.0 GB of disk", "1.0 GB of memory", "port 5000", "no bridge"]
    expected += ["no fuse", "Go is 1.19.8", "skopeo"]
    assert len(found) == len(expected)
    for problem, part in zip(found, expected, strict=True):
        assert part in problem
        assert "Remedy: " in problem


def test_nothing_is_said_about_a_good_machine_or_about_go_where_all_is_built() -> None:
    assert preflight.problems(preflight.Machine()) == []
    assert preflight.problems(preflight.Machine(go=""), needs_go=False) == []


def test_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    running = processes.Processes(tmp_path)
    pid = running.start("sleep", ["sleep", "60"])
    assert running.start("sleep", ["sleep", "60"]) == pid
    record = tmp_path / "run/sleep.json"
    text = record.read_text()
    record.write_text(json.dumps({**json.loads(text), "start": 1}))
    assert running.pid("sleep") is None  # another process with a reused pid
    record.write_text(text)
    replaced = running.start("sleep", ["sleep", "61"])
    assert replaced != pid
    running.stop("sleep")
    assert running.pid("sleep") is None
    assert running.names() == []


@pytest.mark.parametrize("command", ["kubectl", "pulumi"])
@pytest.mark.parametrize(
    "words",
    [
        ["up", "--yes"],
        ["--version"],
        ["-h"],
        ["config", "set", "soci:sampleWorkload.enabled", "--", "-1"],
        [],
    ],
)
def test_what_stands_behind_the_name_of_another_program_is_for_that(command: str, words: list[str]) -> None:
    assert commands.parser().parse_args([command, *words]).arguments == words


def test_pulumi_is_refused_while_the_lab_is_not_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setattr(sys, "argv", ["lab", "pulumi", "up"])
    with pytest.raises(SystemExit, match="the lab is not running; run `make up`"):
        commands.main()
    assert not (tmp_path / "lab").exists()


def test_a_build_asks_for_go_also_for_the_programs_that_only_tests_run(monkeypatch, tmp_path: Path) -> None:
    """It began, and ended in the middle of the compiling without a compiler."""
    asked: list[bool] = []

    def problems(_: preflight.Machine, needs_go: bool) -> list[str]:
        asked.append(needs_go)
        return ["stop"]

    monkeypatch.setenv("LAB_DIR", str(tmp_path))
    monkeypatch.setattr(commands.preflight, "observe", lambda *_: None)
    monkeypatch.setattr(commands.preflight, "problems", problems)
    monkeypatch.setattr(
        commands.binaries, "missing", lambda names: [name for name in names if name == "oras"]
    )
    with pytest.raises(LabError, match="cannot run the lab"):
        commands.Lab().build(argparse.Namespace())
    assert asked == [True]
