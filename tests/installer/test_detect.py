"""Which nodes are refused, and that each refusal says what to do. Nothing may be changed by then."""

import dataclasses

import pytest
from agent import detect, kinds
from agent.errors import InstallError
from agent.host import Result

from tests.fakes.node import FakeHost, tree

DIGESTS = {"amd64": "0" * 64}
GOOD = detect.Facts()
K3S = "/var/lib/rancher/k3s/agent/etc/containerd"
REFUSED = {
    "Bottlerocket (zeropod#109)": ({"kind": kinds.BOTTLEROCKET}, "Bottlerocket"),
    "read-only system": ({"os_id": "flatcar", "read_only": "/opt"}, "read-only"),
    "k3s": ({"kind": kinds.kind_of(kinds.Signs("", frozenset({K3S})))}, "k3s brings its own containerd"),
    "no systemd (dragonfly-charts#209)": ({"init": "openrc-init"}, "not systemd"),
    "host processes not visible (aicr#1237)": ({"init": ""}, "not visible"),
    "containerd 1.6": ({"containerd_version": (1, 6, 36)}, "older than 1.7.16"),
    "containerd of unknown version": ({"containerd_version": ()}, "unknown version"),
    "no containerd unit": ({"containerd_load": "not-found"}, "no containerd.service"),
    "containerd down": ({"containerd_active": "failed"}, "is failed"),
    "riscv": ({"machine": "riscv64"}, "no release for riscv64"),
    "arm64 without a digest": ({"machine": "aarch64"}, "no digest is configured for arm64"),
    "no overlay": ({"file_systems": frozenset({"fuse"})}, "overlay"),
    "no fuse": ({"has_dev_fuse": False}, "FUSE"),
    "disk full (stargz#1349)": ({"free_bytes": 1 << 20}, "are free"),
}


@pytest.mark.failure_mode(20)
@pytest.mark.failure_mode(49)
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_cause_and_remedy(name: str) -> None:
    changes, cause = REFUSED[name]
    with pytest.raises(InstallError) as caught:
        detect.check(dataclasses.replace(GOOD, **changes), "lazy", DIGESTS)
    assert cause in caught.value.cause
    assert caught.value.remedy
    assert caught.value.step == "preflight"


def test_a_good_node_is_taken() -> None:
    detect.check(GOOD, "lazy", DIGESTS)


def test_parallel_mode_needs_no_fuse() -> None:
    detect.check(dataclasses.replace(GOOD, has_dev_fuse=False), "parallel", DIGESTS)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        (
            "containerd github.com/containerd/containerd v1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da",
            (1, 7, 27),
        ),
        ("containerd github.com/containerd/containerd/v2 v2.3.7 ", (2, 3, 7)),
        ("containerd containerd.io 1.7.29 442cb34bda9a6a0fed82a2ca7cade05c5c749582", (1, 7, 29)),
        ("containerd github.com/containerd/containerd 1.7.24~ds1 ", (1, 7, 24)),
        ("", ()),
    ],
)
def test_containerd_version(output: str, version: tuple[int, ...]) -> None:
    assert detect.parse_version(output) == version


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("/usr/bin/containerd",), "/etc/containerd/config.toml"),
        (("/usr/bin/containerd", "--config", "/a.toml"), "/a.toml"),
        (("/usr/bin/containerd", "-c", "/a.toml", "-l", "debug"), "/a.toml"),
        (("/usr/bin/containerd", "--config=/a.toml"), "/a.toml"),
    ],
)
def test_config_path_comes_from_the_unit(command: tuple[str, ...], path: str) -> None:
    assert dataclasses.replace(GOOD, containerd_start=command).config_path == path


def test_exec_start_of_an_overriding_drop_in() -> None:
    text = "{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd --config /x ; ignore_errors=no ; pid=1 }"
    assert detect.parse_exec_start(text) == ("/usr/bin/containerd", "--config", "/x")


def test_reading_facts_changes_nothing(fake_host: FakeHost) -> None:
    root = fake_host.root
    for path, text in {
        "etc/os-release": 'ID="amzn"\n',
        "proc/1/comm": "systemd\n",
        "proc/filesystems": "nodev\toverlay\n\text4\n",
        "opt/x": "",
        "var/lib/x": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    exec_start = "{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd ; ignore_errors=no }"
    shown = f"LoadState=loaded\nActiveState=active\nExecStart={exec_start}\n"
    fake_host.answers["systemctl"] = lambda command, text: Result(0, shown, "")
    fake_host.answers["/usr/bin/containerd"] = lambda command, text: Result(0, "containerd x v2.1.4 y", "")
    before = tree(root)
    facts = detect.read_facts(fake_host, "x86_64")
    assert (facts.os_id, facts.init, facts.containerd_version) == ("amzn", "systemd", (2, 1, 4))
    assert "overlay" in facts.file_systems
    assert tree(root) == before


def test_mount_points_are_unescaped() -> None:
    table = (
        "21 1 0:5 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"
        "60 21 0:5 /a /etc/containerd/config.toml rw - ext4 /dev/sda rw\n"
        "61 21 0:5 /b /mnt/with\\040space\\134 rw - ext4 /dev/sda rw\n"
    )
    expected = {"/", "/etc/containerd/config.toml", "/mnt/with space\\"}
    assert detect.mount_points(table) == expected
    assert detect.mount_points("") == frozenset()
