"""Nodes of other people: what can be found out before the restart is, and then nothing is changed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from agent import containerd_config, detect, install, slots
from agent.errors import InstallError
from agent.host import Host, Result

from tests.fakes.node import CONFIG, INSTALLER, FakeNode, tree
from tests.installer.test_install import IN_SERVICE, machine, never, task  # noqa: F401

OTHER = "/etc/containerd/other.toml"


def start_by(machine: FakeNode, line: str) -> None:  # noqa: F811
    """The unit's command line as systemd shows it."""
    path = line.split(maxsplit=1)[0]
    machine.exec_start = f"{{ path={path} ; argv[]={line} ; ignore_errors=no ; pid=5 }}"


def assert_refused(machine: FakeNode, *words: str) -> InstallError:  # noqa: F811
    before = tree(machine.root)
    with pytest.raises(InstallError) as caught:
        install.install(task(machine), never)
    assert caught.value.step == "preflight"
    assert caught.value.remedy
    assert all(word in caught.value.cause for word in words), caught.value.cause
    assert tree(machine.root) == before
    assert not any(command[0] == "systemd-run" for command in machine.commands)
    return caught.value


@pytest.mark.parametrize(
    ("unit", "running", "config"),
    [
        ("/usr/bin/containerd --config ${CONTAINERD_CONFIG}", ("--config", OTHER), OTHER),
        ("/usr/bin/containerd $OPTIONS", ("-c", OTHER), OTHER),
        ("/usr/bin/containerd -config /etc/containerd/other.toml", ("-config", OTHER), OTHER),
        ("/usr/bin/containerd --c=/etc/containerd/other.toml", (f"--c={OTHER}",), OTHER),
        ("/usr/bin/env PATH=/opt/bin /usr/bin/containerd --config=" + OTHER, (f"--config={OTHER}",), OTHER),
        ("/usr/bin/taskset -c 0-1 /usr/bin/containerd", (), "/etc/containerd/config.toml"),
        ("/usr/bin/nice -n -5 /usr/bin/containerd", (), "/etc/containerd/config.toml"),
        ("/bin/sh -c exec containerd -config " + OTHER, ("-config", OTHER), OTHER),
    ],
)
def test_containerd_and_its_file_are_those_that_run(
    machine: FakeNode,  # noqa: F811
    unit: str,
    running: tuple[str, ...],
    config: str,
) -> None:
    """Flatcar#566, kops#12177: the unit's own words are variables or another program's."""
    machine.write(OTHER, CONFIG.encode())
    start_by(machine, unit)
    machine.run_containerd("/usr/bin/containerd", *running)
    install.install(task(machine), never)
    assert 'snapshotter = "soci"' in machine.read_text(config)
    plan = machine.plan()
    assert (plan["containerd_program"], plan["containerd_config"]) == ("/usr/bin/containerd", config)


def test_wrapper_that_stays_is_refused(machine: FakeNode) -> None:  # noqa: F811
    start_by(machine, "/bin/sh -c containerd -c /x; echo ended")
    machine.run_containerd("/bin/sh", "-c", "containerd -c /x; echo ended", program="/usr/bin/dash")
    assert_refused(machine, "containerd.service", "/usr/bin/dash")


def test_unit_that_was_changed_since_containerd_started_is_refused(machine: FakeNode) -> None:  # noqa: F811
    machine.write(OTHER, CONFIG.encode())
    start_by(machine, f"/usr/bin/containerd --config {OTHER}")
    assert_refused(machine, OTHER, "/etc/containerd/config.toml")


@pytest.mark.parametrize("version", ["1.7.0", "1.7.12", "1.7.15", "1.6.36"])
def test_containerd_whose_garbage_collection_does_not_see_the_snapshotter(
    machine: FakeNode,  # noqa: F811
    version: str,
) -> None:
    """containerd#10095: the disk fills up and no image is collected."""
    machine.answers["/usr/bin/containerd"] = lambda command, text: Result(0, f"containerd x v{version} y", "")
    assert_refused(machine, version, "1.7.16")


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/kubelet.service", "kubelet.service"),
        ("/system.slice/snap.kubelet-eks.daemon.service", "snap.kubelet-eks.daemon.service"),
        ("/../../../runtime.slice/my-kubelet.service", "my-kubelet.service"),
    ],
)
def test_kubelet_is_known_by_the_unit_that_runs_it(machine: FakeNode, cgroup: str, unit: str) -> None:  # noqa: F811
    """sysbox#430: the uninstall has to stop it."""
    machine.run_kubelet(cgroup=cgroup)
    install.install(task(machine), never)
    assert machine.plan()["kubelet_unit"] == unit


def test_kubelet_that_is_not_to_be_found_or_stopped_is_refused(machine: FakeNode) -> None:  # noqa: F811
    machine.run_kubelet(cgroup="/system.slice/docker-0a1b.scope")
    assert_refused(machine, "kubelet")
    machine.path("/proc/6/comm").write_text("bash\n")
    assert_refused(machine, "kubelet")


KUBELET_FILES = {
    "kubeadm's YAML": "kind: K\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock # it\n",
    "JSON": '{"kind": "KubeletConfiguration", "containerRuntimeEndpoint": "unix:///run/crio/crio.sock"}',
}


@pytest.mark.parametrize("name", KUBELET_FILES)
def test_containerd_that_is_not_the_kubelets_is_refused(machine: FakeNode, name: str) -> None:  # noqa: F811
    """Docker's, beside another runtime (nvidia-container-toolkit#982)."""
    machine.write("/var/lib/kubelet/config.yaml", KUBELET_FILES[name].encode())
    machine.run_kubelet("--config", "/var/lib/kubelet/config.yaml")
    assert_refused(machine, "/run/crio/crio.sock", "/run/containerd/containerd.sock")
    machine.run_kubelet(
        "--config=/var/lib/kubelet/config.yaml", "--container-runtime-endpoint=/var/run/d.sock"
    )
    assert_refused(machine, "/var/run/d.sock")


def test_kubelet_finds_containerd_through_a_link(machine: FakeNode) -> None:  # noqa: F811
    machine.path("/run").mkdir(exist_ok=True)
    machine.path("/var/run").symlink_to("../run")
    machine.run_kubelet("--container-runtime-endpoint", "unix:///var/run/containerd/containerd.sock")
    assert install.install(task(machine), never).changed


def test_kubelets_configuration_that_cannot_be_read_is_no_answer(machine: FakeNode) -> None:  # noqa: F811
    machine.run_kubelet("--config=/etc/gone.yaml")
    assert_refused(machine, "/etc/gone.yaml")


IMAGE_SERVICE = f"unix://{slots.FIRST.socket}"


@pytest.mark.parametrize("how", ["flag", "drop-in", "file"])
def test_kubelet_that_pulls_through_soci_itself_is_refused(machine: FakeNode, how: str) -> None:  # noqa: F811
    """EKS FastImagePull, upstream's eks.md: our file has no [cri_keychain], so no pull would succeed."""
    text = f'{{"kind": "KubeletConfiguration",\n "imageServiceEndpoint": "{IMAGE_SERVICE}"}}\n'
    machine.write("/etc/kubernetes/kubelet/config.json", text.encode() if how == "file" else b"{}")
    machine.write("/etc/kubernetes/kubelet/config.json.d/00-first.conf", b"{}")
    if how == "drop-in":
        machine.write("/etc/kubernetes/kubelet/config.json.d/90-image.conf", text.encode())
    options = [
        "--config=/etc/kubernetes/kubelet/config.json",
        "--config-dir=/etc/kubernetes/kubelet/config.json.d",
    ]
    if how == "flag":
        options += ["--image-service-endpoint", IMAGE_SERVICE]
    machine.run_kubelet(*options)
    error = assert_refused(machine, slots.FIRST.socket)
    assert "FastImagePull" in error.remedy


def test_containerd_that_requires_the_daemon_is_refused(machine: FakeNode) -> None:  # noqa: F811
    """Each restart of the daemon would be an unannounced one of containerd."""
    machine.containerd_unit = "Requires=sysinit.target soci-snapshotter.service\nBindsTo=\nPartOf=\n"
    assert_refused(machine, "soci-snapshotter.service")


def with_mounts(machine: FakeNode, *lines: str) -> None:  # noqa: F811
    machine.write("/proc/1/mountinfo", "".join(f"{line}\n" for line in lines).encode())


ROOT_MOUNT = "21 1 0:5 / / rw,relatime shared:1 - ext4 /dev/sda rw"


def test_noexec_below_our_programs_is_refused(machine: FakeNode) -> None:  # noqa: F811
    """k3s#7372: the program could not start."""
    opt = "30 21 0:6 / /opt rw,nosuid,noexec,relatime shared:2 - xfs /dev/sdb rw"
    with_mounts(machine, ROOT_MOUNT, opt)
    assert_refused(machine, "/opt", "noexec")
    with_mounts(machine, ROOT_MOUNT, opt, "31 30 0:7 / /opt rw,relatime shared:3 - ext4 /dev/sdc rw")
    assert install.install(task(machine), never).changed


@pytest.mark.parametrize("folder", ["/opt/soci-cluster", "/var/lib/soci-cluster"])
def test_directory_of_ours_that_is_a_mount_or_a_link_is_refused(machine: FakeNode, folder: str) -> None:  # noqa: F811
    """The uninstall renames and deletes it."""
    with_mounts(machine, ROOT_MOUNT, f"30 21 0:6 / {folder} rw,relatime - xfs /dev/sdb rw")
    assert_refused(machine, folder, "mount point")
    with_mounts(machine, ROOT_MOUNT)
    machine.path(folder).symlink_to("/mnt/elsewhere")
    assert_refused(machine, folder, "link")


def test_image_verifiers_that_soci_would_bypass_are_refused(machine: FakeNode) -> None:  # noqa: F811
    """containerd#8493: only the transfer service asks them, and SOCI's keys keep pulls from it."""
    text = "[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = false\n"
    text += "[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = '/opt/verify'\n"
    machine.write("/opt/verify/deny", b"#!/bin/sh\nexit 1\n", 0o755)
    machine.write("/etc/containerd/config.toml", (CONFIG + text).encode())
    assert_refused(machine, "/opt/verify")


def test_empty_directory_of_verifiers_refuses_nobody(root: Path) -> None:
    (root / "opt/verify").mkdir(parents=True)
    key = ("plugins", "io.containerd.image-verifier.v1.bindir", "bin_dir")
    effective: dict[containerd_config.Path, object] = {
        (*containerd_config.CRI_2, "use_local_image_pull"): False,
        key: "/opt/verify",
    }
    detect.check_effective(Host(root), detect.Facts(), effective)


def test_plugin_that_is_both_required_and_disabled_is_refused(machine: FakeNode) -> None:  # noqa: F811
    """`config dump` accepts it, a start does not."""
    text = 'required_plugins = ["io.containerd.x"]\ndisabled_plugins = ["io.containerd.x"]\n'
    machine.write(
        "/etc/containerd/config.toml", CONFIG.replace("version = 2\n", "version = 2\n" + text).encode()
    )
    assert_refused(machine, "io.containerd.x")


def test_systemctl_that_fails_is_no_answer(machine: FakeNode) -> None:  # noqa: F811
    """It would have been taken for: there is no unit of the operating system, so ours may be written."""
    working = machine.answers["systemctl"]

    def fail(command: Sequence[str], text: str) -> Result:
        is_asked = slots.FIRST.unit in command
        return Result(1, "", "Failed to connect to bus\n") if is_asked else working(command, text)

    machine.answers["systemctl"] = fail
    assert_refused(machine, "Failed to connect to bus")


@pytest.mark.parametrize("call", ["containers ls", "tasks ls"])
def test_list_of_containers_that_fails_is_no_empty_list(machine: FakeNode, call: str) -> None:  # noqa: F811
    """A node in service would have been changed."""
    machine.ctr.answers |= {"containers ls": "c1\n", "tasks ls": "c1 7 RUNNING\n"}
    machine.ctr.fails.add(call)
    before = tree(machine.root)
    with pytest.raises(InstallError, match=f"ctr {call}: no"):
        install.install(task(machine, IN_SERVICE), never)
    assert tree(machine.root) == before


def test_unit_of_the_daemon_that_is_masked_is_refused(machine: FakeNode) -> None:  # noqa: F811
    machine.unit_load = "masked"
    assert_refused(machine, "masked")


def test_tools_that_the_host_script_needs_and_the_node_has_not(machine: FakeNode) -> None:  # noqa: F811
    script = machine.answers["sh"]
    missing = Result(0, "flock\nawk\n", "")
    machine.answers["sh"] = lambda command, text: missing if command[1] == "-c" else script(command, text)
    assert_refused(machine, "flock", "awk")


@pytest.mark.parametrize("name", ["soci-snapshotter.service", "soci-snapshotter-adopt.conf"])
def test_daemon_is_as_hard_to_kill_as_containerd(name: str) -> None:
    """soci#1850: its death breaks every lazily loaded container for good."""
    lines = (INSTALLER / name).read_text().splitlines()
    for line in ("OOMScoreAdjust=-999", "LimitNOFILE=infinity", "LimitNPROC=infinity", "TasksMax=infinity"):
        assert line in lines
    assert "OOMPolicy=continue" in lines  # a helper of it that is killed is not its end
