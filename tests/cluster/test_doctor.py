"""soci-doctor on real nodes: a node that was made ill in each of these ways is told, with the cause."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import lab_client
import pytest
from awkward_registry import AwkwardRegistry, Fault
from lab_client import REPOSITORY
from settings import ADDRESS, REGISTRY

from tests.cluster import lazy_images, whole_images
from tests.cluster.looks import SOCI_NODES, condition, doctor, installer_pod
from tests.waiting import wait_for

# It makes a node of its own ill in many ways, which takes longer than `make test` may.
pytestmark = pytest.mark.full
PATIENT = "patient"
IMAGE = "10.77.0.1:5000/sample:1-soci"
SOCI_FILE = "/etc/soci-snapshotter-grpc/config.toml"
ROOT_FILE = "/etc/containerd/config.toml"
SOCKET = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"
PARALLEL = "/parallel_pull_unpack/,/enable/s/enable = false/enable = true/"
OTHER_STORE = '/content_store/,/type/s/type = "soci"/type = "containerd"/'  # without it no parallel pull
OLD_TABLE = 's/^.plugins..io.containerd.cri.v1.images.]$/[plugins."io.containerd.grpc.v1.cri".containerd]/'
PLAIN = "plain"  # a repository with the sample's images and without any index
RESULTS = lab_client.LAB_DIRECTORY / "doctor.json"
TOLD: dict[str, float] = {}  # finding to the most seconds after which it was told
LOADS: list[float] = []  # of the machine, at each look
# systemd-nspawn binds the device, so that it cannot be renamed; the daemon holds it.
MOVE_DEVICE = """
touch {target} && mount --bind {source} {target} && umount --lazy {source} && rm {source}
"""


def found(target: str = PATIENT) -> dict[str, str]:
    """What is found on a node: id to subject."""
    started = time.monotonic()
    _, answer = doctor(target)
    (report,) = answer["nodes"]
    return noted(report, started)


def noted(report: dict, started: float) -> dict[str, str]:
    """What is found in a report, id to subject, once its time is noted."""
    took = round(time.monotonic() - started, 1)
    LOADS.append(os.getloadavg()[0])
    subjects = {finding["id"]: finding["subject"] for finding in report["findings"]}
    TOLD.update({name: max(took, TOLD.get(name, 0)) for name in subjects})
    return subjects


def make_doctor() -> str:
    """What `make doctor` prints."""
    done = subprocess.run(["make", "doctor"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "NODE" in done.stdout, done.stderr
    return done.stdout


def of_image(name: str) -> dict:
    """What the doctor says of an image of the patient's."""
    (report,) = doctor(PATIENT)[1]["nodes"]
    return next(entry for entry in report["images"] if entry["image"] == name)


def is_ready(pod) -> bool:
    conditions = pod.status.conditions if pod else None
    return any(entry.type == "Ready" and entry.status == "True" for entry in conditions or [])


def on_patient(script: str) -> str:
    return lab_client.on_node(PATIENT, script)


def restart_daemon() -> None:
    on_patient("systemctl restart soci-snapshotter")


def forget_samples() -> None:
    """Remove the sample under all of its names: layers that stay would be those of its next pull."""
    containers = "ctr -n k8s.io containers ls | grep -cE '(sample|plain)[:@]' || :"
    wait_for(lambda: on_patient(containers).strip() == "0", 120, "no container of the sample")
    listed = on_patient("ctr -n k8s.io images ls | awk '/(sample|plain)[:@]/ { print $3 }' | sort -u")
    for digest in listed.split():
        names = f"ctr -n k8s.io images ls -q target.digest=={digest}"
        on_patient(f"{names} | xargs -r ctr -n k8s.io images rm --sync")


@pytest.fixture(scope="module", autouse=True)
def results() -> Iterator[None]:
    """The limit, 10 s for each, is for whoever reads them."""
    yield
    if not TOLD:
        return
    slowest = max(TOLD, key=TOLD.__getitem__)
    figures = {
        "seconds": TOLD,
        "slowest": {"finding": slowest, "seconds": TOLD[slowest]},
        "median_seconds": statistics.median(TOLD.values()),
        "load": [min(LOADS), max(LOADS)],
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


@pytest.fixture(scope="module")
def patient(api, deployed) -> Iterator[str]:
    """A node of its own, whose installer does not mend what is done to it."""
    lab_client.lab("add-node", PATIENT, "--containerd", "2.3.7")
    wait_for(lambda: condition(api, PATIENT).get("status") == "True", 120, f"{PATIENT} verified")
    # Ready is what its watcher makes it: stopped before, the pod would never be.
    wait_for(lambda: is_ready(installer_pod(api, PATIENT)), 60, f"the installer's pod of {PATIENT} is ready")
    stop = "pkill -STOP -f [a]gent/watch.py && echo stopped || :"
    wait_for(lambda: "stopped" in on_patient(stop), 30, "its installer watches, and is stopped")
    yield PATIENT
    lab_client.lab("remove-node", PATIENT)


@pytest.fixture
def edit(patient) -> Iterator[Callable[[str, str], None]]:
    """Change a file of the node with sed; afterwards it is as it was."""
    files: list[str] = []

    def change(path: str, expression: str) -> None:
        files.append(path)
        before = on_patient(f"cp -pn {path} {path}.before; cat {path}")
        on_patient(f"sed -i '{expression}' {path}")
        assert on_patient(f"cat {path}") != before

    yield change
    for path in dict.fromkeys(files):
        on_patient(f"mv -f {path}.before {path}")
    if SOCI_FILE in files:
        restart_daemon()


@pytest.fixture
def awkward_registry(patient, edit) -> Iterator[AwkwardRegistry]:
    """One that the node knows as it knows the lab's; its images are forgotten afterwards."""
    registry = AwkwardRegistry(f"http://{REGISTRY}", ADDRESS)
    registry.aliases, registry.without_index = {PLAIN: "sample"}, (PLAIN,)
    hosts = f'server = \\"http://{registry.name}\\"\\n'
    on_patient(
        f"mkdir -p /etc/containerd/certs.d/{registry.name} && "
        f'printf "{hosts}" >/etc/containerd/certs.d/{registry.name}/hosts.toml'
    )
    mirror = (
        f'[[resolver.host."{registry.name}".mirrors]]\\nhost = "http://{registry.name}"\\ninsecure = true'
    )
    edit(SOCI_FILE, f"$a {mirror}")
    restart_daemon()
    forget_samples()
    yield registry
    forget_samples()
    on_patient(f"rm -r /etc/containerd/certs.d/{registry.name}")
    registry.close()


def test_a_good_node_and_the_fleet_have_no_finding(patient, run_pod):
    run_pod(IMAGE, PATIENT)
    for target in (PATIENT, *SOCI_NODES):
        status, answer = doctor(target)
        assert (status, answer["nodes"][0]["findings"]) == (0, []), answer
    image = of_image(IMAGE)
    assert (image["served"], image["lazyLayers"], image["layers"]) == ("lazy", 6, 7)
    assert image["lazyBytes"] > 290e6
    assert 0 < image["wholeBytes"] < 2e6


@pytest.mark.full
def test_no_false_alarm_in_fifty_runs(patient, run_pod):
    run_pod(IMAGE, PATIENT)
    for _ in range(50):
        status, answer = doctor("--all")
        assert (status, answer["verdict"]) == (0, "good"), answer


@pytest.mark.parametrize(
    ("path", "expression", "finding", "subject"),
    [
        (ROOT_FILE, 's/snapshotter = "soci"/snapshotter = "nydus"/', "other-snapshotter", ROOT_FILE),
        (
            ROOT_FILE,
            OLD_TABLE,
            "keys-unread",
            ROOT_FILE,
        ),
        (
            ROOT_FILE,
            "s/snapshot_annotations = false/snapshot_annotations = true/",
            "annotations-off",
            ROOT_FILE,
        ),
        (ROOT_FILE, "$a # by another tool", "drift", ROOT_FILE),
        (SOCI_FILE, 's#"http://10.77.0.1:5000"#"10.77.0.1:5000"#', "mirror-without-scheme", SOCI_FILE),
        (SOCI_FILE, PARALLEL, "parallel-again", SOCI_FILE),
        (
            "/etc/containerd/certs.d/10.77.0.1:5000/hosts.toml",
            '$a ca = ["/x.pem"]',
            "hosts-not-carried",
            "10.77.0.1:5000",
        ),
        (
            "/etc/containerd/certs.d/10.77.0.1:5000/hosts.toml",
            "s/0.1:5000/0.2:5000/",
            "mirrors-differ",
            SOCI_FILE,
        ),
        (
            "/etc/kubernetes/kubelet.yaml",
            f's#^{{$#{{ "imageServiceEndpoint": "unix://{SOCKET}",#',
            "kubelet-cannot-pull",
            "kubelet",
        ),
    ],
    ids=lambda value: value if value.islower() and "/" not in value else "",
)
def test_a_wrong_configuration_is_told(edit, path, expression, finding, subject):
    edit(path, expression)
    assert found()[finding] == subject


def test_make_doctor_names_what_is_wrong(edit):
    edit(ROOT_FILE, "$a # by another tool")
    table, _, told = make_doctor().partition("\n\n")
    (row,) = (line.split() for line in table.splitlines() if line.startswith(PATIENT))
    assert (row[1], row[-1]) == ("warning", "drift")
    (finding,) = doctor(PATIENT)[1]["nodes"][0]["findings"]
    words = f"warning {PATIENT}: {ROOT_FILE}: {finding['cause']} (drift). Remedy: {finding['remedy']}."
    assert words in " ".join(told.split())


def test_a_node_without_fuse(patient):
    on_patient(MOVE_DEVICE.format(source="/dev/fuse", target="/dev/fuse.away"))
    try:
        assert found()["no-fuse"] == "/dev/fuse"
    finally:
        on_patient(MOVE_DEVICE.format(source="/dev/fuse.away", target="/dev/fuse"))
    assert "no-fuse" not in found()


def test_a_daemon_that_is_away_and_left_its_socket(patient):
    program = "/opt/soci-cluster/versions/*/soci-snapshotter-grpc"
    on_patient(f"chmod -x {program}; systemctl kill --signal=KILL soci-snapshotter")
    try:
        wait_for(lambda: "daemon-away" in found(), 30, "the daemon is away")
        assert found()["stale-socket"] == SOCKET
    finally:
        on_patient(f"chmod +x {program}; systemctl restart soci-snapshotter")


def test_containerd_that_is_away_is_a_finding_and_not_a_failure(patient):
    """Without containerd no command runs in a pod, so the program is run as the pod would."""
    status = on_patient("systemctl kill --signal=STOP --kill-whom=main containerd; echo stopped")
    assert status == "stopped\n"
    try:
        pid = on_patient("pgrep -of [a]gent/watch.py").strip()
        inside = f"nsenter -t {pid} -m -u -i -n sh -c 'cd /opt/soci-cluster && python3 -B -m agent doctor'"
        started = time.monotonic()
        assert noted(json.loads(on_patient(inside)), started)["containerd-away"] == "containerd.service"
    finally:
        on_patient("systemctl kill --signal=CONT --kill-whom=main containerd")
    wait_for(lambda: "containerd-away" not in found(), 60, "containerd answers")


def test_dead_mounts_are_told_with_their_pod(patient, run_pod):
    name = run_pod(IMAGE, PATIENT)
    on_patient("systemctl kill --signal=KILL soci-snapshotter")
    wait_for(lambda: found().get("dead-mounts") == f"default/{name}", 60, "the pod is told")
    _, answer = doctor(f"pod/{name}")
    (finding,) = answer["nodes"][0]["findings"]
    assert finding["id"] == "dead-mounts"
    other = run_pod(IMAGE, PATIENT)
    _, answer = doctor(f"pod/{other}")
    assert answer["verdict"] == "good"


def test_an_image_that_did_not_come_back_is_told(patient, run_pod):
    """facts: the registry is away at the daemon's start, and the layers are never tried again."""
    forget_samples()
    restart_daemon()  # it remembers of which images it found no index
    run_pod(IMAGE, PATIENT)
    refuse = "OUTPUT -d 10.77.0.1 -p tcp --dport 5000 -j REJECT --reject-with tcp-reset"
    on_patient(f"iptables -I {refuse}")
    try:
        restart_daemon()
        # A pair, so that a failure shows what was found in its place.
        assert ("poisoned-image", IMAGE) in found().items()
    finally:
        on_patient(f"iptables -D {refuse}")
        restart_daemon()
    wait_for(lambda: "poisoned-image" not in found(), 60, "the layers are mounted again")


@pytest.mark.failure_mode(28)
@pytest.mark.parametrize(
    ("repository", "answer", "finding"),
    [
        (f"{PLAIN}:1", 0, "no-index"),
        ("sample:1-soci", 401, "no-credentials"),
        ("sample:1-soci", 403, "forbidden"),
        ("sample:1-soci", 404, "index-missing"),
    ],
)
def test_why_an_image_was_pulled_whole(awkward_registry, run_pod, repository, answer, finding):
    challenge = {"Www-Authenticate": 'Basic realm="lab"'} if answer == 401 else {}
    awkward_registry.faults = [Fault(answer, challenge, agent="soci")]
    image = f"{awkward_registry.name}/{repository}"
    run_pod(image, PATIENT, ["/opt/sample/read-working-set"], 120)
    assert found()[finding] == image


@pytest.mark.failure_mode(28)
@pytest.mark.parametrize("reason", whole_images.MAKERS)
def test_why_an_image_of_this_make_was_pulled_whole(patient, run_pod, reason):
    image = whole_images.push(reason)
    run_pod(image, PATIENT)
    assert found()[reason] == image


def test_an_image_that_soci_pulled_in_parallel(edit, run_pod):
    lazy_images.push("doctor-parallel")
    edit(SOCI_FILE, PARALLEL)
    edit(SOCI_FILE, OTHER_STORE)
    restart_daemon()
    image = f"{REGISTRY}/doctor-parallel:1"
    run_pod(image, PATIENT)
    assert of_image(image)["served"] == "parallel"


@pytest.mark.failure_mode(28)
def test_an_index_version_that_is_switched_off(awkward_registry, edit, run_pod):
    edit(SOCI_FILE, "/pull_modes.soci_v2/,/enable/s/enable = true/enable = false/")
    restart_daemon()
    image = f"{awkward_registry.name}/sample:1-soci"
    run_pod(image, PATIENT)
    assert found()["index-version-off"] == image


def test_a_node_without_installer_is_said_to_be_without(deployed):
    status, answer = doctor("node3")
    assert (status, answer["verdict"]) == (3, "unknown")
    assert "no installer's pod" in answer["nodes"][0]["problem"]


def test_make_doctor_shows_a_table(deployed):
    shown = make_doctor()
    assert all(node in shown for node in SOCI_NODES)
    assert "\x1b" not in shown
    assert os.fspath(REPOSITORY) not in shown
