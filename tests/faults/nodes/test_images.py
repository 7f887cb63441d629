"""The node's images survive the switch: every pod can be created again, also with the registry down."""

import json
import re

import pytest
from agent.errors import InstallError

from tests.faults.nodes import small_images
from tests.faults.nodes.lab_node import CONFIG, PAUSE, REGISTRY, SAMPLE_WITH_INDEX, Health, LabNode, Pods
from tests.faults.nodes.pool import CONTAINERD, is_full
from tests.waiting import wait_for

pytestmark = pytest.mark.root
WITHOUT_INDEX = f"{REGISTRY}/python:3.11"
ANSWERS = [
    "/bin/sh",
    "-c",
    "cat /etc/unique /usr/number; test ! -e /opt/sample/gone; stat -c %a /usr/number; sleep 9999",
]
DISCARD = {
    "1": ('[plugins."io.containerd.grpc.v1.cri".containerd]\n', "discard_unpacked_layers = true\n"),
    "2": ("[plugins.'io.containerd.cri.v1.images']\n", "discard_unpacked_layers = true\n"),
}


@pytest.fixture(scope="session")
def names(lab, request: pytest.FixtureRequest) -> list[str]:
    return small_images.push(20 if is_full(request.config) else 6)


@pytest.fixture
def discarding(node: LabNode, containerd: str) -> LabNode:
    """A node whose containerd drops the blobs of what it has unpacked, as on EKS."""
    discard_blobs(node, containerd)
    return node


def discard_blobs(node: LabNode, containerd: str) -> None:
    header, line = DISCARD[containerd[0]]
    node.edit(CONFIG, lambda text: text.replace(header, header + line))
    restart_without_images(node)


def restart_without_images(node: LabNode) -> None:
    node.sh("systemctl restart containerd")
    node.sh(f"ctr -n k8s.io images rm --sync $(ctr -n k8s.io images ls -q) {PAUSE} >/dev/null 2>&1 || :")
    wait_for(node.cri_answers, 60, "the CRI answers")


def incomplete(node: LabNode, name: str) -> bool:
    return "incomplete" in node.sh(f"ctr -n k8s.io images check name=={name}")


@pytest.mark.failure_mode(22)
@pytest.mark.failure_mode(23)
def test_every_pod_is_created_again_although_its_blobs_are_gone_and_the_registry_is_down(
    discarding: LabNode, pods: Pods, names: list[str]
):
    """core-kit#580, nydus-snapshotter#539, stargz#2080, amazon-eks-ami#2710: the image was called present and
    its layers were nowhere."""
    node = discarding
    running = [pods.create(node, name, ANSWERS) for name in names]
    pods.await_running(*running)
    assert all(incomplete(node, name) for name in (*names, PAUSE))
    with node.registry_down():
        assert node.install().containerd_restarts == 1
        pods.delete(*running)
        again = [pods.create(node, name, ANSWERS) for name in names]
        pods.await_running(*again)
    for number, name in enumerate(again):
        words = pods.api.read_namespaced_pod_log(name, "default").split()
        assert words == [str(number), str(number), "4751"]
    # containerd's garbage collection keeps what was carried over and frees it with the image.
    node.sh(f"ctr -n k8s.io images rm --sync {REGISTRY}/none || :")
    assert len(soci_snapshots(node)) > 2 * len(names)  # each image has two layers of its own
    pods.delete(*again)
    wait_for(lambda: not node.sh("ctr -n k8s.io tasks ls | grep RUNNING || :"), 60, "pods gone")
    node.sh("ctr -n k8s.io images rm --sync $(ctr -n k8s.io images ls -q)")
    wait_for(lambda: not soci_snapshots(node), 240, "carried layers freed")


@pytest.mark.failure_mode(22)
def test_layers_on_one_file_system_are_linked_and_take_no_space(
    discarding: LabNode, pods: Pods, names: list[str]
):
    """The lab mounts each data directory by itself; on most nodes they share a file system."""
    node = discarding
    data = "/var/lib/soci-snapshotter-grpc"
    node.sh(
        f"umount {data} && rmdir {data} && mkdir /var/lib/containerd/soci && ln -s containerd/soci {data}"
    )
    pod = pods.start(node, names[0], ANSWERS)
    with node.registry_down():
        node.install()
        pods.delete(pod)
        again = pods.start(node, names[0], ANSWERS)
    assert pods.api.read_namespaced_pod_log(again, "default").split() == ["0", "0", "4751"]
    links = node.sh(f"find {data}/snapshotter/snapshots/ -name unique -exec stat -c %h {{}} +")
    assert links.split() == ["2"]


def soci_snapshots(node: LabNode) -> list[str]:
    return node.sh("ctr -n k8s.io snapshots --snapshotter soci ls | tail -n +2").split("\n")[:-1]


@pytest.mark.failure_mode(22)
@pytest.mark.failure_mode(23)
@pytest.mark.parametrize("how", ["REJECT", pytest.param("DROP", marks=pytest.mark.full)])
def test_images_with_complete_content_start_with_the_registry_down(
    node: LabNode, pods: Pods, names: list[str], how: str
):
    """amazon-eks-ami#2710, nydus-snapshotter#631, soci#1389: also a registry that never answers."""
    running = [pods.create(node, name) for name in names[:5]]
    pods.await_running(*running)
    assert not incomplete(node, names[0])
    with node.registry_down(how):
        node.install()
        pods.delete(*running)
        pods.await_running(*[pods.create(node, name) for name in names[:5]])


@pytest.mark.failure_mode(22)
def test_layers_of_another_snapshotter_than_overlayfs_refuse_the_switch(
    discarding: LabNode, pods: Pods, names: list[str], containerd: str
):
    """core-kit#580: better no switch than pods that cannot be created again."""
    node = discarding
    header, _ = DISCARD[containerd[0]]
    node.edit(CONFIG, lambda text: text.replace(header, header + 'snapshotter = "native"\n'))
    restart_without_images(node)
    pod = pods.create(node, names[0])
    pods.await_running(pod)
    files, starts = node.files(), node.containerd_starts()
    with node.registry_down(), pytest.raises(InstallError) as caught:
        node.install()
    assert caught.value.step in ("images", "pause-image")
    assert (node.files(), node.containerd_starts()) == (files, starts)
    assert node.host.read("/var/lib/soci-cluster/journal") is None


@pytest.mark.failure_mode(22)
def test_image_that_cannot_start_before_the_switch_is_pulled_again_after_it(
    discarding: LabNode, pods: Pods, names: list[str]
):
    """nydus-snapshotter#539: neither blobs nor unpacked layers are left of it."""
    node = discarding
    node.sh(f"ctr -n k8s.io content fetch --hosts-dir /etc/containerd/certs.d {names[0]}")
    digest = node.sh(f"ctr -n k8s.io images ls name=={names[0]} | awk 'NR == 2 {{ print $3 }}'").strip()
    manifest = json.loads(node.sh(f"ctr -n k8s.io content get {digest}"))
    node.sh(f"ctr -n k8s.io content rm {manifest['layers'][0]['digest']}")
    assert incomplete(node, names[0])
    node.install()
    assert node.sh(f"ctr -n k8s.io images ls -q name=={names[0]}") == ""
    pods.start(node, names[0])


@pytest.mark.timeout(3 * 3600)
@pytest.mark.failure_mode(22)
@pytest.mark.failure_mode(43)
def test_no_sandbox_fails_over_many_installs_and_reboots(
    pool, pods: Pods, names: list[str], request, containerd: str
):
    """amazon-eks-ami#2710, nydus-snapshotter#539, kata#8407: counted by the kubelet's own journal.

    Fifty times with --full, else three times; on fresh nodes that keep no blobs, with pods created all along.
    """
    count = 50 // len(CONTAINERD) if is_full(request.config) else 3
    for _ in range(count):
        node = pool.make(containerd)
        try:
            discard_blobs(node, containerd)
            running = [pods.start(node, name) for name in (PAUSE, *names[:3])]
            node.install()
            again = [pods.create(node, name) for name in (PAUSE, *names[:3])]
            pods.await_running(*again)
            node.reboot()
            pods.await_running(*running, *again)
            pods.start(node)
            words = node.sh("journalctl -u kubelet -o cat | grep -E 'Failed.*PodSandbox' || :")
            assert failures(words) == [], node.name
            assert not node.install().changed
        finally:
            pods.close()
            pods.names.clear()
            pool.discard(node)


def failures(words: str) -> list[str]:
    """Lines of the kubelet about a sandbox that did not start; those of its own shutdown are none."""
    return [
        line for line in words.splitlines() if re.search(r"CreatePodSandbox|FailedCreatePodSandBox", line)
    ]


@pytest.mark.failure_mode(25)
def test_disk_use_of_the_snapshotter_is_the_kubelets_image_file_system(
    node: LabNode, pods: Pods, health: Health
):
    """soci's documentation (containerd before 1.7.16), stargz#1349: the kubelet saw none of it."""
    node.install()
    data = "/var/lib/soci-snapshotter-grpc"
    wait_for(
        lambda: data in node.sh("journalctl -u containerd -o cat | grep 'image filesystem path' | tail -n 1"),
        30,
        "path",
    )
    before = image_file_system(pods, node)
    pod = pods.start(node, WITHOUT_INDEX, ["python3", "-c", "import time; time.sleep(9999)"])
    grown = before + 50_000_000
    wait_for(lambda: image_file_system(pods, node) > grown, 120, "the image's size in the statistics")
    pods.delete(pod)
    node.sh(f"ctr -n k8s.io images rm --sync $(ctr -n k8s.io images ls -q | grep -v {PAUSE})")
    wait_for(lambda: image_file_system(pods, node) < grown, 180, "its space given back")


def image_file_system(pods: Pods, node: LabNode) -> int:
    """Bytes used by images, from the kubelet's own summary through the API server's proxy."""
    answer = pods.api.connect_get_node_proxy_with_path(node.name, "stats/summary")
    found = re.search(r"'imageFs':.*?'usedBytes': (\d+)", answer)
    assert found, answer
    return int(found[1])


@pytest.mark.failure_mode(26)
def test_data_directory_on_a_fast_disk_is_used_where_it_is(node: LabNode, pods: Pods, health: Health):
    """amazon-eks-ami PR#2548, PR#2588: instance storage is mounted there before the first pull."""
    data = "/var/lib/soci-snapshotter-grpc"
    node.sh(f"mount -t tmpfs -o size=1g fast {data}")
    try:
        node.install()
        pods.start(node, SAMPLE_WITH_INDEX, ["/bin/sh", "-c", "sleep 9999"])
        assert node.sh(f"stat -f -c %T {data}").strip() == "tmpfs"
        assert node.host.exists(f"{data}/snapshotter/metadata.db")
    finally:
        pods.close()
        pods.names.clear()


@pytest.mark.failure_mode(27)
def test_indexed_image_is_pulled_through_soci_and_mounted_lazily(node: LabNode, pods: Pods, health: Health):
    """core-kit#923, containerd#11195, spegel#1272: containerd 2.1 and newer pull by a transfer service."""
    node.install()
    pods.start(node, SAMPLE_WITH_INDEX, ["/bin/sh", "-c", "sleep 9999"])
    mounts = [line for line in node.sh("cat /proc/self/mountinfo").splitlines() if " fuse.rawBridge " in line]
    assert len(mounts) == 6  # one for each data layer of the sample; the first one is too small for an index
