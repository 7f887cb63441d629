"""The doctor on a node: each misconfiguration is named with its subject, a good node has none."""

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import (
    credential_helper,
    daemon_words,
    doctor,
    doctor_checks,
    pull_secret_files,
    release,
    remedies,
    slots,
    transaction,
)

from tests.fakes.doctor_node import (
    DAEMON_PID,
    EFFECTIVE,
    GZIP,
    KUBELET_PID,
    MIB,
    REGISTRY,
    ROOT_FILE,
    SAMPLE,
    START,
    ZSTD,
    DoctorNode,
    digest,
    doctor_node,
)
from tests.fakes.node import FakeHost, tree

PLAIN = "registry.example/plain:1"
SOCI_FILE = slots.FIRST.config


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DoctorNode]:
    with doctor_node(tmp_path) as node:
        yield node


def edit(node: DoctorNode, path: str, old: str, new: str) -> None:
    """Change a file of the installer's as its own install would have."""
    text = node.read_text(path)
    assert old in text
    node.put(path, text.replace(old, new))
    node.install(ROOT_FILE, SOCI_FILE)


def said(image: str, error: str) -> str:
    """A line of the daemon's journal (soci-snapshotter 0.16.1, with its quotes escaped)."""
    return (
        'time="2026-11-26T21:52:35Z" level=warning msg="failed to prepare remote snapshot" '
        f'error="unable to fetch SOCI artifacts for image \\"{image}\\": no valid SOCI index found: {error}" '
        'key="k8s.io/45/extract-1 sha256:d3" parent= remote-snapshot-prepared=false'
    )


def unresolved(image: str, error: str) -> str:
    """What it says when it has the index, and not the layer."""
    error = (
        f'{error} (host \\"x\\", ref:\\"{image}\\")\\nfailed to redirect: {error} (host \\"x\\", ref:\\"y\\")'
    )
    return (
        'level=warning msg="failed to prepare remote snapshot" error="failed to '
        f'resolve layer \\"sha256:e1\\" from \\"{image}\\": {error}" key="k8s.io/2/x"'
    )


def whole(node: DoctorNode, kind: str = GZIP, size: int = 60 * MIB, **index: object) -> None:
    node.add(PLAIN, [(size, kind, False)] * (300 * MIB // size), **index)  # ty: ignore[invalid-argument-type]


# A good node


def test_a_good_node_has_no_finding(node: DoctorNode) -> None:
    report = node.examine()
    assert (report["verdict"], report["findings"], report["notKnown"]) == ("good", [], [])
    assert report["versions"] == {
        "soci": "0.16.1",
        "containerd": "2.3.7",
        "kubelet": "1.34.4",
        "kernel": "6.1",
    }
    assert report["daemon"]["memoryBytes"] == 41652 << 10
    assert (report["daemon"]["oomScoreAdj"], report["daemon"]["uptimeSeconds"]) == (-999, 950)
    assert report["mounts"] == {"lazyLayers": 2, "containers": 1, "dead": 0}
    (image,) = report["images"]
    assert image == {
        "image": SAMPLE,
        "names": [SAMPLE],
        "served": "lazy",
        "layers": 3,
        "lazyLayers": 2,
        "bytes": 291 * MIB,
        "lazyBytes": 290 * MIB,
        "localBytes": None,
        "wholeBytes": MIB,
        "movedBytes": None,
        "inBackground": False,
        "why": "",
    }
    assert report["daemon"]["backgroundFetch"] == "on, progress not known"
    json.dumps(report)


class Metrics(threading.Thread):
    """The daemon's metrics, on its socket."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.text = text
        self.start()

    def run(self) -> None:
        client, _ = self.listener.accept()
        with client:
            client.recv(1 << 16)
            client.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{self.text}".encode())
        self.listener.close()


def test_how_much_of_an_image_is_here_by_now(node: DoctorNode) -> None:
    """The daemon measures the time of a layer's background fetch when its last span has come."""
    ended = digest(f"{SAMPLE} blob 1")
    name = "soci_fs_operation_duration_milliseconds"
    lines = [
        f'{name}_count{{layer="{ended}",operation_type="background_fetch"}} 1',
        f'{name}_count{{layer="{digest("of an image that is gone")}",operation_type="background_fetch"}} 1',
        f'{name}_sum{{layer="{digest(f"{SAMPLE} blob 2")}",operation_type="background_fetch"}} 1',
        f'{name}_count{{layer="{digest(f"{SAMPLE} blob 2")}",operation_type="mount"}} 1',
    ]
    metrics = Metrics(node.path(slots.FIRST.metrics), "\n".join(lines) + "\n")
    report = node.examine()
    metrics.join()
    assert report["daemon"]["backgroundFetch"] == "on, 1 of 2 layers wholly here"
    (image,) = report["images"]
    assert (image["lazyBytes"], image["localBytes"]) == (290 * MIB, 200 * MIB)
    assert image["movedBytes"] is None  # this daemon does not count what it fetches


@pytest.mark.parametrize(("spans", "in_background"), [(0, False), (7, True)])
def test_how_much_of_an_image_was_moved(node: DoctorNode, spans: int, in_background: bool) -> None:
    """Lines as SOCI 0.16.1 writes them; a layer that two images have below others has two counts."""
    first, second = (digest(f"{SAMPLE} blob {number}") for number in (1, 2))
    name = "soci_fs_layer_fetched_size_bytes"
    lines = [
        f'{name}{{digest="{first}",mountpoint="/snapshots/3/fs"}} 2.4940032e+07',
        f'{name}{{digest="{first}",mountpoint="/snapshots/8/fs"}} 4096',
        f'{name}{{digest="{second}",mountpoint="/snapshots/4/fs"}} 10',
        f'{name}{{digest="{digest("of another image")}",mountpoint="/snapshots/5/fs"}} 4096',
        f'soci_fs_layer_size_bytes{{digest="{first}",mountpoint="/snapshots/3/fs"}} 2.097152e+08',
        f'soci_fs_operation_count{{layer="{second}",operation_type="background_span_fetch_count"}} {spans}',
    ]
    metrics = Metrics(node.path(slots.FIRST.metrics), "\n".join(lines) + "\n")
    (image,) = node.examine()["images"]
    metrics.join()
    assert image["movedBytes"] == MIB + 24940032 + 10
    assert image["inBackground"] is in_background


def test_it_only_reads(node: DoctorNode) -> None:
    before = tree(node.root)
    node.examine()
    assert tree(node.root) == before
    assert {command[0] for command in node.commands} <= {
        "systemctl",
        "containerd",
        "env",
        "sh",
        "/soci",
        "/kubelet",
    }
    changing = {"start", "restart", "stop", "heal", "apply", "rm", "prepare", "label", "pull"}
    assert not changing & {word for command in node.commands for word in command}


def turn_parallel_pulls_on(node: DoctorNode) -> None:
    """In the daemon's file alone, whatever the settings say."""
    edit(
        node,
        SOCI_FILE,
        "[pull_modes.parallel_pull_unpack]\nenable = false",
        "[pull_modes.parallel_pull_unpack]\nenable = true",
    )


def test_small_images_and_those_of_a_parallel_node_are_not_spoken_of(node: DoctorNode) -> None:
    node.add("registry.example/small:1", [(60 * MIB, GZIP, False)])
    assert node.found() == {}
    settings = json.loads((node.payload / "settings.json").read_text())
    (node.payload / "settings.json").write_text(json.dumps(settings | {"mode": "parallel"}))
    turn_parallel_pulls_on(node)
    whole(node)
    assert node.found() == {}


def test_layers_that_soci_pulled_in_parallel_are_told_from_those_pulled_by_containerd(
    node: DoctorNode,
) -> None:
    whole(node)
    layer = digest(f"{PLAIN} blob 0")
    node.journal = [f'level=info msg="preparing snapshot with parallel pull/unpack" layerDigest="{layer}"']
    served = {image["image"]: image["served"] for image in node.examine()["images"]}
    assert served == {SAMPLE: "lazy", PLAIN: "parallel"}


# What is away is a finding, and no traceback


def test_containerd_away(node: DoctorNode) -> None:
    node.ctr.is_away = True
    node.units["containerd.service"] = "failed"
    assert node.found() == {"containerd-away": "containerd.service"}


def test_daemon_away_and_its_stale_socket(node: DoctorNode) -> None:
    node.units[slots.FIRST.unit] = "failed"
    node.listener.close()
    assert node.found() == {"daemon-away": slots.FIRST.unit, "stale-socket": slots.FIRST.socket}
    assert not node.was_verified, "its checks wait for the daemon, for longer than there is time"


def test_stale_socket_of_a_daemon_that_runs(node: DoctorNode) -> None:
    node.listener.close()
    assert node.found() == {"stale-socket": slots.FIRST.socket}


def test_a_remedy_names_the_units_of_this_node() -> None:
    """containerd may be a part of k3s, and a restart of the first slot's daemon breaks who reads from it."""
    look = doctor_checks.Look(
        journal="committed",
        slot=slots.SECOND,
        containerd=doctor_checks.Unit("k3s.service"),
        containerd_answers=False,
        daemon=doctor_checks.Unit(slots.SECOND.unit),
        socket="refuses",
    )
    remedies = {finding["id"]: finding["remedy"] for finding in doctor_checks.findings(look)}
    assert "journalctl -u k3s.service" in remedies["containerd-away"]
    assert f"systemctl restart {slots.SECOND.unit}" in remedies["stale-socket"]


def test_no_remedy_names_a_unit_that_a_node_may_not_have() -> None:
    for check in doctor_checks.CHECKS:
        assert not re.search(r"containerd\.service|-u containerd|restart soci-snapshotter", check.remedy), (
            check.id
        )


def test_a_node_of_which_nothing_can_be_read_is_not_said_to_lack_soci(tmp_path: Path) -> None:
    """Whether it should have it is not known either."""
    (tmp_path / "root").mkdir()
    report = doctor.examine(FakeHost(tmp_path / "root"), tmp_path, "node1", "6.1")
    assert {finding["id"] for finding in report["findings"]} == {"settings-unread", "containerd-away"}


@pytest.mark.parametrize("text", [None, "", '{"mode": "lazy"}'])
def test_settings_that_cannot_be_read_are_told_and_nothing_is_put_in_their_place(
    node: DoctorNode, text: str | None
) -> None:
    """The findings are those alone that hold whatever the settings say; no mode and no policy is assumed."""
    turn_parallel_pulls_on(node)
    whole(node)
    node.install(ROOT_FILE)
    node.put(ROOT_FILE, "changed = 1\n")
    settings = node.payload / "settings.json"
    settings.unlink()
    if text is not None:
        settings.write_text(text)
    report = node.examine()
    found = {finding["id"]: finding for finding in report["findings"]}
    assert found.keys() == {"settings-unread", "drift"}
    assert "settings.json" in found["settings-unread"]["cause"]
    assert found["settings-unread"]["remedy"] == "run pulumi up again"
    assert found["drift"]["remedy"] == next(
        check.remedy for check in doctor_checks.CHECKS if check.id == "drift"
    )
    assert report["mode"] == "unknown"
    assert report["daemon"]["backgroundFetch"] == "not known"


def test_a_daemon_that_is_away_is_told_also_without_settings(node: DoctorNode) -> None:
    """That SOCI was put on the node is in its own records."""
    (node.payload / "settings.json").unlink()
    node.units[slots.FIRST.unit] = "failed"
    assert node.found().keys() == {"settings-unread", "daemon-away"}


def test_an_install_that_was_rolled_back(node: DoctorNode) -> None:
    node.put(f"{transaction.STATE}/journal", "state=rolled-back\ntransaction=1\n")
    assert node.found() == {"not-installed": "node"}


def test_what_the_host_script_finds_beyond_that(node: DoctorNode) -> None:
    node.verified = "outcome=failed\nstep=verify-plugins\ncause=containerd runs with no snapshotters\n"
    (finding,) = node.examine()["findings"]
    assert finding["id"] == "verify"
    assert "verify-plugins: containerd runs with no snapshotters" in finding["cause"]


# Configurations


def test_no_fuse(node: DoctorNode) -> None:
    node.path("/dev/fuse").unlink()
    assert node.found() == {"no-fuse": "/dev/fuse"}


def test_keys_in_a_table_that_containerd_does_not_read(node: DoctorNode) -> None:
    """A file of schema 3 with the table of containerd 1.7: facts/soci.md 3.4, measured."""
    node.effective = EFFECTIVE.replace('"soci"', '"overlayfs"').replace("= false", "= true")
    table = '[plugins."io.containerd.grpc.v1.cri".containerd]'
    node.put(ROOT_FILE, f'version = 3\n{table}\nsnapshotter = "soci"\n')
    node.install(ROOT_FILE, SOCI_FILE)
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("keys-unread", ROOT_FILE)
    assert "io.containerd.grpc.v1.cri.containerd" in finding["cause"]


def test_another_tools_snapshotter(node: DoctorNode) -> None:
    node.effective = EFFECTIVE.replace('"soci"', '"nydus"')
    node.put(ROOT_FILE, node.effective)
    assert node.found() == {"other-snapshotter": ROOT_FILE, "drift": ROOT_FILE}


def test_snapshot_annotations_switched_off(node: DoctorNode) -> None:
    node.effective = EFFECTIVE.replace("annotations = false", "annotations = true")
    assert node.found() == {"annotations-off": ROOT_FILE}


@pytest.mark.parametrize("became", ["changed", "removed"])
def test_a_file_that_others_changed(node: DoctorNode, became: str) -> None:
    node.put("/etc/systemd/system/soci-snapshotter.service", "ours")
    node.install("/etc/systemd/system/soci-snapshotter.service")
    if became == "changed":
        node.put("/etc/systemd/system/soci-snapshotter.service", "theirs")
    else:
        node.path("/etc/systemd/system/soci-snapshotter.service").unlink()
    (finding,) = node.examine()["findings"]
    assert finding["id"] == "drift"
    when = r" at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC" if became == "changed" else ""
    assert re.fullmatch(f"it was {became}{when}", finding["cause"])


def test_a_program_that_others_replaced(node: DoctorNode) -> None:
    place = f"{release.VERSIONS}/0.16.1"
    for name in release.PROGRAMS:
        node.put(f"{place}/{name}", "ours")
    release.note_programs(node.path(place))
    assert node.found() == {}
    node.put(f"{place}/soci-snapshotter-grpc", "theirs")
    assert node.found() == {"drift": f"{place}/soci-snapshotter-grpc"}


def test_nodeadm_turned_parallel_on_again(node: DoctorNode) -> None:
    """amazon-eks-ami: nodeadm writes SOCI's configuration for FastImagePull at each boot."""
    node.put("/usr/bin/nodeadm", "")
    node.put("/etc/eks/x", "")
    turn_parallel_pulls_on(node)
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("parallel-again", SOCI_FILE)
    assert "FastImagePull" in finding["cause"]


def test_the_configuration_that_counts_is_the_one_that_the_daemon_was_started_with(node: DoctorNode) -> None:
    node.put(f"/proc/{DAEMON_PID}/cmdline", "/soci\0--config=/etc/other.toml\0")
    node.put("/etc/other.toml", "[pull_modes.parallel_pull_unpack]\nenable = true\n")
    assert node.found()["parallel-again"] == "/etc/other.toml"


def set_mode(node: DoctorNode, mode: str) -> None:
    """The settings want this mode, and the node has it."""
    path = node.payload / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mode": mode}))


ENDPOINT = f"unix://{slots.FIRST.socket}"


@pytest.mark.parametrize("mode", ["lazy", "parallel", "lazy-or-parallel"])
@pytest.mark.parametrize("how", ["flag", "drop-in", "YAML", "JSON", "link"])
def test_a_kubelet_that_pulls_through_a_daemon_without_keychain(
    node: DoctorNode, how: str, mode: str
) -> None:
    """Each pull ends in Unimplemented; it was told as a matter of credentials, and not at all of parallel."""
    set_mode(node, mode)
    if how == "flag":
        command = f"/kubelet\0--config\0/etc/kubelet.yaml\0--image-service-endpoint={ENDPOINT}\0"
    else:
        command = "/kubelet\0--config=/etc/kubelet.yaml\0--config-dir=/etc/kubelet.d\0"
        endpoint = ENDPOINT.replace("/run", "/var/run") if how == "link" else ENDPOINT
        text = f"imageServiceEndpoint: {endpoint}\n"
        text = f'{{"imageServiceEndpoint": "{endpoint}"}}' if how == "JSON" else text
        node.put("/etc/kubelet.d/90-x.conf" if how == "drop-in" else "/etc/kubelet.yaml", text)
    node.path("/var").mkdir(exist_ok=True)
    node.path("/var/run").symlink_to("../run")
    node.put(f"/proc/{KUBELET_PID}/cmdline", command)
    (finding,) = [entry for entry in node.examine()["findings"] if entry["subject"] == "kubelet"]
    assert (finding["id"], finding["severity"]) == ("kubelet-cannot-pull", "error")
    assert f"its image endpoint is {slots.FIRST.socket}" in finding["cause"]
    assert finding["remedy"] == remedies.PULLS_THROUGH_SOCI


def test_a_kubelet_whose_pulls_a_daemon_with_keychain_answers(node: DoctorNode) -> None:
    node.put("/etc/kubelet.yaml", f"imageServiceEndpoint: {ENDPOINT}\n")
    edit(node, SOCI_FILE, "[content_store]", "[cri_keychain]\nenable_keychain = true\n\n[content_store]")
    assert node.found() == {"cri-proxy-lazy": "kubelet"}
    node.put("/etc/kubelet.yaml", "kind: KubeletConfiguration\n")
    assert node.found() == {"cri-proxy-lazy": SOCI_FILE}


def test_mirror_without_scheme(node: DoctorNode) -> None:
    edit(node, SOCI_FILE, f'"http://{REGISTRY}"', f'"{REGISTRY}"')
    assert node.found()["mirror-without-scheme"] == SOCI_FILE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('server = "https://other.example"\nca = "/etc/x.pem"\n', "CA file"),
        ('[host."https://m"]\nclient = ["/etc/x.pem"]\n', "client certificate of its mirror m"),
        ("skip_verify = true\n", "skip_verify"),
        ('server = "https://m"\n', "containerd pulls them from m,"),
    ],
)
def test_hosts_toml_that_cannot_be_carried_over(node: DoctorNode, text: str, words: str) -> None:
    node.put("/etc/containerd/certs.d/other.example/hosts.toml", text)
    found = {finding["id"]: finding for finding in node.examine()["findings"]}
    assert found["hosts-not-carried"]["subject"] == "other.example"
    assert words in found["hosts-not-carried"]["cause"]


def test_each_limit_has_its_own_remedy(node: DoctorNode) -> None:
    node.put("/etc/containerd/certs.d/a.example/hosts.toml", "skip_verify = true\n")
    node.put("/etc/containerd/certs.d/b.example/client.cert", "x")
    remedies = {entry["subject"]: entry["remedy"] for entry in node.examine()["findings"]}
    assert "a certificate that the node trusts" in remedies["a.example"]
    assert "without a client certificate" in remedies["b.example"]


def test_an_image_of_a_registry_that_the_daemon_is_kept_from_misses_no_index(node: DoctorNode) -> None:
    node.put("/etc/containerd/certs.d/mtls.example/client.cert", "x")
    node.add("mtls.example/model:1", [(900 * MIB, GZIP, False)])
    report = node.examine()
    (image,) = [entry for entry in report["images"] if entry["image"].startswith("mtls")]
    assert image["why"] == "hosts-not-carried"
    assert "no-index" not in {finding["id"] for finding in report["findings"]}


def test_mirrors_that_were_changed_since(node: DoctorNode) -> None:
    hosts = f'server = "http://{REGISTRY}"\n[host."http://10.0.0.2:5000"]\n'
    node.put(f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml", hosts)
    assert node.found() == {"mirrors-differ": SOCI_FILE}


def test_much_memory(node: DoctorNode) -> None:
    node.put(f"/proc/{DAEMON_PID}/status", f"VmRSS:\t{3 << 20} kB\n")
    assert node.found() == {"daemon-memory": slots.FIRST.unit}


# Pods and images


@pytest.mark.parametrize("words", ["Transport endpoint is not connected", "Stale file handle"])
def test_dead_mounts(node: DoctorNode, words: str) -> None:
    node.dead[node.run_pod("victim")] = f"ls: reading directory '/x': {words}"
    node.dead[node.run_pod("gone")] = "ls: cannot access '/x': No such file or directory"
    assert node.found() == {"dead-mounts": "default/victim"}


def test_dead_mounts_that_the_host_script_found(node: DoctorNode) -> None:
    healed = f"{transaction.STATE}/healed-soci"
    node.put(healed, f"start {START}\nbroken reader-container\nbroken ended-container\n")
    assert node.found() == {"dead-mounts": "default/reader"}
    node.put(healed, "start an-earlier-one\nbroken reader-container\n")
    assert node.found() == {}


def test_a_poisoned_image(node: DoctorNode) -> None:
    chain = next(chain for chain, used in node.ctr.usage.items() if used == "0 0")
    error = 'could not fetch manifest: Get \\"http://registry.example/v2/\\": dial tcp: i/o timeout'
    line = said(SAMPLE, error).replace(
        "prepare remote snapshot", f"restore remote snapshot {chain}; remove it"
    )
    node.journal = node.not_restored = [line]
    assert node.found() == {}, "the layer was mounted later"
    node.put("/proc/1/mountinfo", node.mounted[1])
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("poisoned-image", SAMPLE)
    assert "1 of 3 layers" in finding["cause"]
    assert "i/o timeout" in finding["cause"]


def counted(operation: str, layer: str, times: int) -> str:
    return f'soci_fs_operation_count{{layer="{layer}",operation_type="{operation}"}} {times}\n'


def unread(layer: str, error: str, at: str = "2026-11-28T04:00:00Z") -> str:
    """What the daemon says of a file that it cannot read (soci-snapshotter 0.16.1)."""
    return (
        f'time="{at}" level=error msg="statFile error" digest="{layer}" '
        f'error="file.Read: failed to read the file: {error}" fetchedPercent=1 fetchedSize=2 size=3'
    )


def examined_with(node: DoctorNode, metrics: str) -> list[dict]:
    """The findings where the daemon's metrics say that."""
    told = Metrics(node.path(slots.FIRST.metrics), metrics)
    findings = node.examine()["findings"]
    told.join()
    return findings


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("unexpected status code on fetch: 404 Not Found", "the registry has the layer no more"),
        (
            f"expected {digest('a')} but got {digest('b')}: span digests do not match",
            "the registry gives other bytes",
        ),
        (
            "unexpected status code on fetch: 416 Requested Range Not Satisfiable",
            "the registry gives other bytes",
        ),
        ("unexpected EOF", "the registry gives other bytes"),
        ("unexpected status code on fetch: 403 Forbidden", "let the node's credentials"),
        ('GET \\"http://x/a?X-Amz=secret\\": giving up request after 10 attempt(s)', "the registry is away"),
        ("something new", "see journalctl"),
    ],
)
def test_reads_that_failed(node: DoctorNode, error: str, remedy: str) -> None:
    layer = digest(f"{SAMPLE} blob 1")
    node.unread = [unread(layer, error, "2026-11-28T04:05:06Z"), unread(digest("of another"), "404")]
    (finding,) = examined_with(node, counted("fuse_file_read_failure_count", layer, 7))
    assert (finding["id"], finding["severity"], finding["subject"]) == ("reads-failed", "error", SAMPLE)
    cause, _, said_of_it = finding["cause"].partition("; last at 2026-11-28T04:05:06Z: ")
    assert cause == "7 reads of 1 of its 3 layers failed since the daemon's start"
    assert error.rpartition(": ")[2] in said_of_it
    assert "secret" not in said_of_it
    assert finding["remedy"].startswith(remedy)


def test_of_reads_that_failed_the_latest_word_is_told_and_all_are_counted(node: DoctorNode) -> None:
    first, second = digest(f"{SAMPLE} blob 1"), digest(f"{SAMPLE} blob 2")
    node.unread = [
        unread(first, "new: 404 Not Found", "2026-11-28T05:00:00Z"),
        unread(second, "old: 429 Too Many Requests", "2026-11-28T04:00:00Z"),
    ]
    failed = "fuse_file_read_failure_count"
    (finding,) = examined_with(node, counted(failed, first, 7) + counted(failed, second, 10**6))
    assert finding["cause"].startswith("1000007 reads of 2 of its 3 layers failed")
    assert finding["cause"].endswith(
        "last at 2026-11-28T05:00:00Z: file.Read: failed to read the file: new: 404 Not Found"
    )


def test_reads_that_failed_without_a_word_in_the_journal(node: DoctorNode) -> None:
    failed = counted("fuse_file_read_failure_count", digest(f"{SAMPLE} blob 1"), 1)
    (finding,) = examined_with(node, failed)
    assert finding["cause"].endswith("failed since the daemon's start")


def test_reads_of_an_image_that_has_gone_are_not_told(node: DoctorNode) -> None:
    node.unread = [unread(digest("of an image that is gone"), "404 Not Found")]
    gone = counted("fuse_file_read_failure_count", digest("of an image that is gone"), 3)
    none = counted("fuse_file_read_failure_count", digest(f"{SAMPLE} blob 1"), 0)
    other = counted("synchronous_read_count", digest(f"{SAMPLE} blob 1"), 9)
    assert examined_with(node, gone + none + other) == []


def test_a_background_fetch_that_was_given_up(node: DoctorNode) -> None:
    layer = digest(f"{SAMPLE} blob 1")
    node.unread = [
        'time="2026-11-28T04:05:06Z" level=warning msg="error trying to resolve layer, removing it from the '
        f'queue" error="error trying to fetch span with spanId = 3 from layerDigest = {layer}: 404 Not Found"'
    ]
    (finding,) = examined_with(node, counted("background_span_fetch_failure_count", layer, 1))
    assert (finding["id"], finding["severity"], finding["subject"]) == ("fetch-failed", "warning", SAMPLE)
    assert finding["cause"].startswith(
        "1 of its 3 layers are not fetched further; last at 2026-11-28T04:05:06Z"
    )
    assert finding["cause"].endswith("404 Not Found")


def test_the_journal_is_asked_for_the_last_word_on_each_layer_alone(tmp_path: Path) -> None:
    """A pod that reads on fills the journal, and what could not be mounted at the start must not be lost."""
    layer, start = digest("a"), 'level=warning msg="failed to restore remote snapshot sha256:b"'
    lines = [start, *(unread(layer, f"no. {number}") for number in range(5000)), "level=info msg=other"]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/lines\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", daemon_words.JOURNAL, "words", "unit", START],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    present = done.stdout.partition("---\n")[2]
    assert present.splitlines() == [start, unread(layer, "no. 4999")]
    assert daemon_words.Words(done.stdout).unread[layer][1].endswith("no. 4999")


def test_layers_without_a_mount_of_which_the_journal_says_nothing(node: DoctorNode) -> None:
    node.put("/proc/1/mountinfo", node.mounted[1])
    assert node.found() == {"unmounted-layers": "node"}


@pytest.mark.parametrize(
    ("finding", "subject"),
    [("conflicting-credentials", "registry.example"), ("pull-secrets-unread", "secret shop/pull")],
)
def test_what_became_of_pull_secrets(node: DoctorNode, finding: str, subject: str) -> None:
    node.put(pull_secret_files.PROBLEMS, f"{finding}\t{subject}\twhy it is so\nrubbish\n")
    (found,) = node.examine()["findings"]
    assert (found["id"], found["severity"], found["subject"]) == (finding, "warning", subject)
    assert found["cause"] == "why it is so"


def test_no_index(node: DoctorNode) -> None:
    whole(node)
    assert node.found() == {"no-index": PLAIN}


def test_index_version_switched_off(node: DoctorNode) -> None:
    whole(node, index="v2")
    edit(node, SOCI_FILE, "[pull_modes.soci_v2]\nenable = true", "[pull_modes.soci_v2]\nenable = false")
    assert node.found() == {"index-version-off": PLAIN}


def test_layers_all_below_the_minimum(node: DoctorNode) -> None:
    whole(node, size=6 * MIB)
    assert node.found() == {"small-layers": PLAIN}


def test_zstd_layers(node: DoctorNode) -> None:
    whole(node, kind=ZSTD)
    assert node.found() == {"zstd-layers": PLAIN}


def test_wrong_platform(node: DoctorNode) -> None:
    whole(node, others_indexed=True)
    assert node.found() == {"wrong-platform": PLAIN}


def test_an_image_with_an_index_that_was_not_used(node: DoctorNode) -> None:
    whole(node, index="v2")
    assert node.found() == {"pulled-before": PLAIN}


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (
            'could not fetch manifest: GET \\"http://x/v2/a\\": response status code 401: Unauthorized',
            "no-credentials",
        ),
        (
            'could not fetch manifest: GET \\"http://x/v2/a\\": response status code 403: Forbidden',
            "forbidden",
        ),
        ('Get \\"http://x\\": giving up request after 9 attempt(s)', "registry-unreachable"),
        (
            'could not fetch manifest: Get \\"http://x\\": failed to handle challenge: failed to find',
            "no-credentials",
        ),
        ("not found", "index-missing"),
        ("could not fetch manifest: x/sample@sha256:43: not found", "index-missing"),
        ("something else", "pulled-before"),
    ],
)
def test_what_the_registry_told_the_daemon(node: DoctorNode, error: str, check: str) -> None:
    whole(node, index="v2")
    node.journal = [said(PLAIN, "earlier: 500"), said("registry.example/other:1", "404"), said(PLAIN, error)]
    assert node.found() == {check: PLAIN}


def test_what_the_registry_told_the_daemon_of_a_layer(node: DoctorNode) -> None:
    whole(node, index="v2")
    node.journal = [unresolved(PLAIN, "authorization failed: no basic auth credentials")]
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("no-credentials", PLAIN)
    said_of_it, _, _ = finding["cause"].partition("; its credentials for registry.example: ")
    assert said_of_it.endswith("failed to redirect: authorization failed: no basic auth credentials")
    assert "ref:" not in finding["cause"]


def test_what_the_daemon_said_is_told_without_secrets(node: DoctorNode) -> None:
    whole(node, index="v2")
    node.journal = [said(PLAIN, 'GET \\"https://user:secret@x/v2/a?X-Amz-Signature=topsecret\\": 403')]
    (finding,) = node.examine()["findings"]
    assert "secret" not in finding["cause"]


def test_a_manifest_that_is_rubbish_hides_no_other_image(node: DoctorNode) -> None:
    node.add("registry.example/odd:1", [(300 * MIB, GZIP, False)])
    for path in node.path(f"/var/lib/containerd/{doctor.BLOBS}").iterdir():
        if '"layers"' in path.read_text() and SAMPLE not in path.read_text() and len(path.read_text()) < 400:
            path.write_text('{"layers": 5, "annotations": []}')
    served = {image["image"]: image["served"] for image in node.examine()["images"]}
    assert served[SAMPLE] == "lazy"


# Credentials


def test_it_tells_with_which_credentials_a_registry_is_read(node: DoctorNode) -> None:
    report = node.examine()
    assert report["credentials"] == [{"registry": REGISTRY, "source": "provider ecr-credential-provider"}]
    (asked,) = [command for command in node.commands if credential_helper.SOURCES in command]
    assert asked[:2] == ("env", "-i"), "nothing of the pod's environment"
    assert asked[-3:] == (str(DAEMON_PID), credential_helper.HELPER, REGISTRY)
    assert report["notKnown"] == []


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ("PATH=/bin\0DOCKER_CONFIG=/etc/theirs\0", "DOCKER_CONFIG=/etc/theirs, not "),
        ("PATH=/bin\0", "DOCKER_CONFIG=, not "),
        ("", "cannot be seen"),
    ],
)
def test_no_source_is_told_of_a_daemon_that_asks_another_helper(
    node: DoctorNode, environment: str, cause: str
) -> None:
    """An administrator's drop-in wins over the unit."""
    node.put(f"/proc/{DAEMON_PID}/environ", environment)
    report = node.examine()
    assert report["credentials"] == []
    (words,) = report["notKnown"]
    assert words.startswith("where credentials come from: the daemon")
    assert cause in words


def test_registries_that_were_not_asked_are_counted(node: DoctorNode) -> None:
    for number in range(doctor.REGISTRIES_ASKED + 2):
        node.add(f"r{number:02}.example/a:1", [(20 * MIB, GZIP, True)], index="v2")
    assert node.examine()["notKnown"] == ["where credentials come from: 3 more registries were not asked"]


def test_a_kubelet_that_cannot_be_seen_is_no_kubelet_without_plugins(node: DoctorNode) -> None:
    node.path(f"/proc/{KUBELET_PID}/comm").unlink()
    (words,) = node.examine()["notKnown"]
    assert words.startswith("the kubelet's plugins: preflight: the process of the kubelet cannot be seen")


def test_a_daemon_from_before_the_helper_is_not_asked(node: DoctorNode) -> None:
    node.path(credential_helper.HELPER).unlink()
    assert node.examine()["credentials"] == []
    assert node.found() == {}


def test_a_plugin_that_fails_is_named(node: DoctorNode) -> None:
    node.sources = f"{REGISTRY} failed ecr: it did not answer within 10 s\n{REGISTRY} none\n"
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("provider-fails", "ecr")
    assert finding["cause"] == f"asked for {REGISTRY}, it did not answer within 10 s"


def give_plugin(node: DoctorNode, **entry: object) -> None:
    """The kubelet's list of plugins has one, whose program is missing."""
    flags = "--image-credential-provider-config=/etc/c\0--image-credential-provider-bin-dir=/etc\0"
    node.put(f"/proc/{KUBELET_PID}/cmdline", f"/kubelet\0--config=/etc/kubelet.yaml\0{flags}")
    plugin = {"name": "ecr", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", **entry}
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig"}
    node.put("/etc/c", json.dumps({**config, "providers": [plugin]}))


def test_a_plugin_that_is_missing_is_named_once(node: DoctorNode) -> None:
    give_plugin(node)
    node.sources = f"{REGISTRY} failed ecr: there is no program /etc/ecr\n{REGISTRY} none\n"
    (finding,) = node.examine()["findings"]
    assert (finding["id"], finding["subject"]) == ("provider-fails", "ecr")
    assert finding["cause"] == "there is no program /etc/ecr"


def test_a_plugin_with_a_pattern_that_is_not_matched_is_named_with_its_failures(node: DoctorNode) -> None:
    give_plugin(node, matchImages=["r[a-z].example"])
    node.put("/etc/ecr", "")
    node.sources = f"{REGISTRY} failed ecr: it ended with status 1\n{REGISTRY} none\n"
    findings = node.examine()["findings"]
    assert [(finding["id"], finding["subject"]) for finding in findings] == [("provider-fails", "ecr")] * 2
    assert "its pattern r[a-z].example has other characters" in findings[0]["cause"]
    assert findings[1]["cause"] == f"asked for {REGISTRY}, it ended with status 1"


def test_a_variable_that_plugins_are_asked_without_is_named_once_and_not_its_value(node: DoctorNode) -> None:
    environment = "AWS_SECRET_ACCESS_KEY=topsecret\0HTTPS_PROXY=http://u:topsecret@p:1\0"
    node.put(f"/proc/{KUBELET_PID}/environ", environment)
    assert node.found() == {}
    give_plugin(node)
    node.put("/etc/ecr", "")
    findings = node.examine()["findings"]
    assert {finding["id"] for finding in findings} == {"provider-without-variable"}
    assert [finding["cause"].split()[3] for finding in findings] == ["AWS_SECRET_ACCESS_KEY,", "HTTPS_PROXY,"]
    assert "topsecret" not in str(findings)


def test_a_plugin_that_needs_a_service_account_is_named(node: DoctorNode) -> None:
    give_plugin(node, tokenAttributes={"requireServiceAccount": True})
    assert node.found() == {"provider-needs-account": "ecr"}


def test_an_image_without_credentials_is_told_with_what_there_is(node: DoctorNode) -> None:
    whole(node, index="v2")
    node.journal = [said(PLAIN, 'GET \\"http://x/v2/a\\": response status code 401: Unauthorized')]
    node.sources = f"{REGISTRY} none\n"
    (finding,) = node.examine()["findings"]
    assert finding["id"] == "no-credentials"
    assert finding["cause"].endswith(f"; its credentials for {REGISTRY}: none")
    assert "image pull secret" in finding["remedy"]


def test_the_helper_is_asked_for_all_registries_in_the_daemons_environment(tmp_path: Path) -> None:
    """The script itself, with a helper that prints what it was given."""
    helper = tmp_path / "helper"
    helper.write_text(
        '#!/bin/sh\nread -r host\n[ "$1" = source ] || exit 1\n'
        'case $host in a*) echo "failed p: why"; sleep 1 ;; esac\necho "provider $HTTP_PROXY $ODD"\n'
    )
    helper.chmod(0o755)
    environment = {"HTTP_PROXY": "http://p:1", "ODD": "a $(id) 'b", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "60"], env=environment) as daemon:
        command = [
            "sh",
            "-c",
            credential_helper.SOURCES,
            "sources",
            str(daemon.pid),
            str(helper),
            "a.example",
            "b:5000",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        daemon.kill()
    found = credential_helper.parse_sources(done.stdout)
    assert found == {
        "a.example": credential_helper.Source("provider http://p:1 a $(id) 'b", ("p: why",)),
        "b:5000": credential_helper.Source("provider http://p:1 a $(id) 'b"),
    }


def test_every_check_has_a_test_that_seeds_it() -> None:
    text = Path(__file__).read_text()
    assert {check.id for check in doctor_checks.CHECKS if f'"{check.id}"' not in text} == set()
    assert len({check.id for check in doctor_checks.CHECKS}) == len(doctor_checks.CHECKS) >= 16


# Time


def test_fifty_images_are_looked_at_with_as_many_questions_as_one(node: DoctorNode) -> None:
    node.examine()
    with_one = len(node.commands)
    for number in range(50):
        node.add(f"registry.example/image{number}:1", [(20 * MIB, GZIP, True)] * 10, index="v2")
    node.commands.clear()
    assert len(node.examine()["images"]) == 51
    assert len(node.commands) == with_one
