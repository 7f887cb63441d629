"""The edited configuration, judged by real containerd daemons of both families."""

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import containerd_config, detect, install
from agent.errors import InstallError
from agent.host import Host
from fake_node import REPOSITORY, run_here

sys.path.insert(0, str(REPOSITORY / "scripts" / "lab"))

V1, V2 = "containerd-1.7", "containerd-2.3"
CASES = {
    "schema 2 on 1.7": (V1, "version = 2\n"),
    "empty on 1.7": (V1, ""),
    "empty on 2.3": (V2, ""),
    "schema 3 on 2.3": (V2, "version = 3\n"),
    "schema 4 on 2.3": (V2, "version = 4\n"),
    "schema 2 on 2.3": (V2, "version = 2\n"),
    "schema 2 with a CRI section on 2.3": (
        V2,
        'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "example.org/pause:1"\n',
    ),
    "schema 2 with runtimes on 2.3": (
        V2,
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n'
        'runtime_type = "io.containerd.runc.v2"\n'
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\nSystemdCgroup = true\n',
    ),
    "odd formatting on 1.7": (
        V1,
        "version=2\n  [ plugins . 'io.containerd.grpc.v1.cri' ]\n\tsandbox_image='example.org/pause:1'\n"
        '\tcontainerd.default_runtime_name = "runc"\n',
    ),
    "odd formatting on 2.3": (
        V2,
        "version=3\n  [ plugins . 'io.containerd.cri.v1.images' ]\n\tdiscard_unpacked_layers=true # EKS\n",
    ),
}


def containerd(name: str) -> Path:
    binaries = pytest.importorskip("binaries", reason="the lab's build of containerd")
    return Path(binaries.build(name)) / "containerd"


def facts_of(binary: Path) -> detect.Facts:
    version = detect.parse_version(run_here([str(binary), "--version"]).output)
    return detect.Facts(containerd_command=(str(binary),), containerd_version=version)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A place for a configuration outside /tmp: a tmpfs hides that in the judging mount namespace."""
    folder = Path("/var/tmp") / f"soci-cluster-{tmp_path.name}"
    folder.mkdir(exist_ok=True)
    yield folder / "config.toml"
    shutil.rmtree(folder)


def candidate(binary: Path, file: Path, text: str) -> tuple[str, dict, dict]:
    host = Host(Path("/"), run_here)
    facts = facts_of(binary)
    if text:
        file.write_text(text)
    schema = containerd_config.schema_of(text, str(file), facts.containerd_version[0])
    before = install.dump(host, facts, str(file), text or f"version = {schema}\n")
    new_text = install.candidate(host, facts, str(file), text, before)
    after = install.dump(host, facts, str(file), new_text)
    flatten = containerd_config.flatten
    return new_text, flatten(tomllib.loads(before)), flatten(tomllib.loads(after))


@pytest.mark.parametrize("name", CASES)
def test_only_the_wanted_keys_take_effect(name: str, file: Path) -> None:
    """Keys land where the daemon reads them, SystemdCgroup and sandbox image keep their values.

    nydus#1810, gpu-operator#2060, nvidia-container-toolkit#1040, aicr#1688, containerd#12891.
    """
    version, text = CASES[name]
    new_text, before, after = candidate(containerd(version), file, text)
    table = containerd_config.image_table(after)
    changed = containerd_config.difference(before, after)
    assert after[*table, "snapshotter"] == "soci"
    assert after[*table, "disable_snapshot_annotations"] is False
    assert {key for key in changed if key[:2] != containerd_config.proxy()} == {
        (*table, "snapshotter"),
        (*table, "disable_snapshot_annotations"),
    }
    declared = tomllib.loads(text).get("version")
    assert tomllib.loads(new_text)["version"] == (declared or (2 if version == V1 else 3))


def test_import_that_replaces_the_section_is_refused(file: Path) -> None:
    """On 1.7 an import replaces the whole CRI section, so the root file's keys are lost (containerd#5837)."""
    (file.parent / "other.toml").write_text(
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "nvidia"\n'
    )
    with pytest.raises(InstallError, match="snapshotter would be"):
        candidate(containerd(V1), file, 'version = 2\nimports = ["other.toml"]\n')


def test_import_of_other_settings_stays_in_effect(file: Path) -> None:
    """A user's imports are neither replaced nor disturbed (gpu-operator#301); relative ones mean the same."""
    (file.parent / "other.toml").write_text(
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux = true\n"
    )
    _, before, after = candidate(containerd(V2), file, 'version = 3\nimports = ["other.toml"]\n')
    key = ("plugins", "io.containerd.cri.v1.runtime", "enable_selinux")
    assert before[key] is True
    assert after[key] is True


def test_unparsable_candidate_is_refused(file: Path) -> None:
    with pytest.raises(InstallError, match="containerd refuses"):
        install.dump(Host(Path("/"), run_here), facts_of(containerd(V1)), str(file), "version = 3\n")
