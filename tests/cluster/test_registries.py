"""For private images: what the kubelet can pull the daemon can read, from registries as nodes have them.

`make registries` runs every case and reads for half an hour, and writes .lab/registries.json. `make test` has
some cases, `make slow` two more and a minute of reads.
"""

import dataclasses
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import firewall
import pytest
import release
from agent.slots import SECOND
from awkward_registry import Auth, Away, User
from lab_client import REPOSITORY, on_node
from settings import ECR, REGISTRY, VERSIONS

from tests.cluster import lazy_images, oci_release, registries
from tests.cluster.lab_stack import LabStack
from tests.cluster.looks import SOCI_NODES, condition, slot_in_use
from tests.cluster.registries import ANN, CASES, PRIVATE, PUBLIC, QUICK, SLOW, Case, Reader, Scene
from tests.levels import marks_of
from tests.waiting import wait_for

RESULTS = REPOSITORY / ".lab" / "registries.json"
HELPER = "/opt/soci-cluster/credentials/docker-credential-soci-cluster"
WARM_RUNS, STARTS = 20, 5
TOKEN_SECONDS = 10
LOOK_SECONDS = 60  # in which SOCI looks at a layer only once (its valid_interval), whoever starts on it
LATEST_SECONDS = 5  # from the rotation of a secret to the first read with the new one
NOTICED_SECONDS = 90  # from a change of hosts.toml to the daemon that knows it


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {"cases": []}
    yield found
    if request.config.getoption("--full"):
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


@pytest.fixture(scope="module")
def scene(api) -> Iterator[Scene]:
    """The registries; the nodes have been told of them while the installer was there."""
    made = Scene(api)
    try:
        for node in SOCI_NODES:
            made.tell(node)
            registries.forget(node, "case/")
        wait_for(
            lambda: all(registries.MIRRORED in told(node) for node in SOCI_NODES),
            NOTICED_SECONDS,
            "the daemons know of a hosts.toml that was written after the install",
        )
        for node in SOCI_NODES:
            wait_for(lambda node=node: is_ready(api, node), NOTICED_SECONDS, f"{node} SociReady")
        yield made
    finally:
        for node in SOCI_NODES:
            made.untell(node)
        made.close()


def told(node: str) -> str:
    """What the daemon of the node is told of registries."""
    return on_node(node, "cat /etc/soci-snapshotter-grpc*/config.toml")


def is_ready(api, node: str) -> bool:
    return condition(api, node).get("status") == "True"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=marks_of(case.name, QUICK, SLOW), id=case.name.replace("'", ""))
        for case in CASES
    ],
)
def test_an_image_starts_and_is_lazy_or_the_node_says_why_not(
    api, scene: Scene, results: dict[str, Any], case: Case
) -> None:
    """A private image was pulled whole, and nobody was told."""
    outcomes = registries.run(api, scene, case)
    results["cases"] += outcomes
    assert [outcome["started"] for outcome in outcomes] == [True] * len(SOCI_NODES), outcomes
    assert [outcome["read_errors"] for outcome in outcomes] == [0] * len(SOCI_NODES), outcomes
    assert [outcome["named"] for outcome in outcomes] == [True] * len(SOCI_NODES), outcomes
    if case.lazy is not None:
        assert [outcome["lazy"] for outcome in outcomes] == [case.lazy] * len(SOCI_NODES), outcomes
    if case.lazy:
        users = [case.user] if case.user else []
        assert [outcome["users"] for outcome in outcomes] == [users] * len(SOCI_NODES), outcomes


class Rotation:
    """Pods that read from fresh images, one more each minute and node, while tokens live ten seconds.

    In each fifth minute the registry is away for 20 s, once refusing, once silent. Tokens are revoked every
    seven seconds besides, but not while an image is pulled: SOCI asks for credentials once for it, and with
    a token that is revoked at that moment the image is whole.
    """

    def __init__(self, api, scene: Scene, minutes: int) -> None:
        self.scene = scene
        self.pulls = threading.Lock()
        self.cases = [Case(f"rotation {number}", ECR, during=registries.revoke) for number in range(minutes)]
        self.readers = [Reader(api, node, case) for case in self.cases for node in SOCI_NODES]

    def read(self) -> int:
        """Errors of all pods until each has read its image and the minutes are over."""
        with ThreadPoolExecutor(len(SOCI_NODES)) as threads:
            for number, case in enumerate(self.cases):
                over = time.monotonic() + 60
                readers = [reader for reader in self.readers if reader.case is case]
                with self.pulls:
                    started = list(threads.map(Reader.start, readers))
                assert all(started), [reader.words() for reader in readers]
                if number % 5 == 2:
                    registries.away(20, Away.SILENT if number % 2 else Away.REFUSED)(self.scene)
                time.sleep(max(0, over - time.monotonic()))
            errors = list(threads.map(Reader.await_pass, self.readers))
            lazy = list(threads.map(lambda reader: reader.is_lazy(self.scene), self.readers))
        assert lazy == [True] * len(self.readers)
        for case in self.cases:
            refused = self.scene.trusted.count(
                repository=case.repository, agent="soci", kind="blobs", status=403
            )
            assert refused > 0, f"{case.name} had everything before its token ended"
        return sum(errors)

    def revoke_until(self, over: threading.Event) -> None:
        """403 in mid-read, as ECR says it of a token that has expired."""
        while not over.wait(7):
            with self.pulls:
                self.scene.trusted.revoke_all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_reads_meet_no_error_while_tokens_rotate(
    api, scene: Scene, results: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    rotation = Rotation(api, scene, 30 if request.config.getoption("--full") else 1)
    for case in rotation.cases:
        lazy_images.push(case.repository)
    scene.behave()
    registries.ecr(token_seconds=TOKEN_SECONDS)(scene)
    scene.be_slow()
    over = threading.Event()
    revoker = threading.Thread(target=rotation.revoke_until, args=(over,))
    try:
        for node in SOCI_NODES:
            on_node(node, registries.provider()(scene))
        revoker.start()
        results["read_errors"] = rotation.read()
    finally:
        over.set()
        revoker.join()
        scene.behave()
        for reader in rotation.readers:
            reader.close()
    assert results["read_errors"] == 0


def test_a_node_answers_for_ecr_and_how_long_it_takes_is_recorded(
    scene: Scene, results: dict[str, Any]
) -> None:
    """The limit, 30 ms, is for whoever reads the results: the machine may be at other work."""
    scene.behave()
    registries.ecr()(scene)
    took: list[float] = []
    for node in SOCI_NODES:
        on_node(node, registries.provider()(scene))
        ask = f"echo {ECR} | {HELPER} get"
        assert '"AWS"' in on_node(node, ask)
        runs = f"for i in $(seq {WARM_RUNS}); do {ask}; done >/dev/null"
        script = f"begin=$(date +%s%N); {runs}; echo $((($(date +%s%N) - begin) / {WARM_RUNS}))"
        took.append(int(on_node(node, script)) / 1e6)
    results["helper_warm_ms"] = round(max(took), 1)


@pytest.mark.full
def test_private_and_public_images_start_in_turn_and_how_long_it_takes_is_recorded(
    api, scene: Scene, results: dict[str, Any]
) -> None:
    """The limit, 1.05 times, is for whoever reads the results."""
    seconds: dict[str, list[float]] = {PUBLIC: [], ECR: []}
    for number in range(STARTS):
        for host in (PUBLIC, ECR):
            case = Case(f"start {number} {host}", host)
            lazy_images.push(case.repository)
            scene.behave()
            if host == ECR:
                registries.ecr()(scene)
                on_node(SOCI_NODES[1], registries.provider()(scene))
                time.sleep(5)  # the kubelet is back
            reader = Reader(api, SOCI_NODES[1], case)
            begun = time.monotonic()
            assert reader.start()
            seconds[host].append(time.monotonic() - begun)
            reader.close()
    medians = {host: statistics.median(values) for host, values in seconds.items()}
    results["private_to_public"] = round(medians[ECR] / medians[PUBLIC], 3)
    results["starts_s"] = seconds


@pytest.mark.full
@pytest.mark.failure_mode(31)
@pytest.mark.parametrize("node", SOCI_NODES)
def test_an_image_of_ecr_starts_after_its_token_has_expired_and_the_daemon_was_restarted(
    api, scene: Scene, node: str
) -> None:
    case = Case("token from long ago", ECR)
    lazy_images.push(case.repository)
    scene.behave()
    registries.ecr(token_seconds=TOKEN_SECONDS)(scene)
    on_node(node, registries.provider()(scene))
    first, second = Reader(api, node, case), Reader(api, node, case)
    try:
        assert first.start()
        first.end()
        scene.trusted.revoke_all()
        on_node(node, f"systemctl restart {slot_in_use(node).unit}")
        wait_for(lambda: is_ready(api, node), 120, f"{node} SociReady")
        assert second.start()
        assert second.await_pass() == 0
        assert second.is_lazy(scene)
    finally:
        second.end()  # both hold the image
        first.close()
        second.close()


@pytest.mark.full
def test_reads_fail_loudly_where_a_registry_serves_no_parts_of_blobs(api, scene: Scene) -> None:
    """SOCI mounts such an image all the same; nothing that is read is wrong."""
    case = Case("no parts of blobs", PUBLIC)
    lazy_images.push(case.repository)
    scene.behave()
    registries.behave(ranges=False)(scene)
    readers = [Reader(api, node, case) for node in SOCI_NODES]
    try:
        for reader in readers:
            assert reader.start()
            assert reader.await_pass() > 0
            assert "Input/output error" in reader.log()
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.full
def test_what_is_local_is_read_while_the_registry_is_away_for_two_minutes(api, scene: Scene) -> None:
    case = Case("registry away for 120 s", PUBLIC)
    lazy_images.push(case.repository)
    scene.behave()
    readers = [Reader(api, node, case) for node in SOCI_NODES]
    try:
        assert all(reader.start() for reader in readers)
        assert [reader.await_pass() for reader in readers] == [0] * len(readers)
        before = [reader.counts()[1] for reader in readers]
        registries.away(120)(scene)
        after = [reader.counts() for reader in readers]
        assert [errors for _, _, errors in after] == [0] * len(readers)
        assert all(now[1] > then + 100 for now, then in zip(after, before, strict=True))
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.full
@pytest.mark.parametrize("node", SOCI_NODES)
def test_with_two_credentials_for_one_host_each_image_is_lazy_or_the_node_names_it(
    api, scene: Scene, node: str
) -> None:
    """SOCI takes one for a host: the images of the other one are whole, and who read goes on."""
    words = {"ann": "correct horse", "bob": "battery staple"}
    scene.behave()
    users = {name: User(word, (f"case/of-{name}",)) for name, word in words.items()}
    registries.behave(auth=Auth.BEARER, users=users, token_seconds=TOKEN_SECONDS)(scene)
    scene.be_slow()
    readers = [
        Reader(api, node, Case(f"of {name}", PRIVATE, secret=(name, word), during=registries.revoke))
        for name, word in words.items()
    ]
    try:
        for reader in readers:
            lazy_images.push(reader.case.repository)
            assert reader.start(), reader.words()
            scene.trusted.revoke_all()
        assert [reader.await_pass() for reader in readers] == [0, 0]
        lazy = [reader.is_lazy(scene) for reader in readers]
        assert any(lazy)
        for reader, is_lazy in zip(readers, lazy, strict=True):
            wait_for(lambda r=reader, ok=is_lazy: ok or r.is_named(), 30, f"{reader.case.name} is named")
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.full
@pytest.mark.parametrize("node", SOCI_NODES)
def test_after_a_changed_password_the_next_container_brings_all_reads_back(
    api, scene: Scene, node: str
) -> None:
    """SOCI keeps a password for the token server: with the changed one nothing was read for up to an hour."""
    scene.behave()
    registries.bearer(token_seconds=TOKEN_SECONDS)(scene)
    scene.be_slow()
    case = Case("changed password", PRIVATE, secret=("ann", ANN.password), during=registries.revoke)
    lazy_images.push(case.repository)
    first = Reader(api, node, case)
    second = Reader(api, node, dataclasses.replace(case, secret=("ann", "another word")))
    try:
        assert first.start()
        scene.trusted.users = {"ann": User("another word", ANN.repositories)}
        first.replace_secret("ann", "another word")
        wait_for(lambda: first.counts()[2] > 0, 60, "reads fail once the token has ended")
        time.sleep(LOOK_SECONDS)
        assert second.start(seconds=180), second.words()
        assert second.await_pass() == 0
        assert second.is_lazy(scene)
        _, reads, errors = first.counts()
        wait_for(lambda: first.counts()[1] > reads + 10, 60, "the first pod reads on")
        assert first.counts()[2] == errors
    finally:
        second.end()  # both hold the image
        first.close()
        second.close()


@pytest.fixture
def private(api, scene: Scene) -> Iterator[Callable[[str, tuple[str, str] | None], Reader]]:
    """Start a pod of one private image on a node, with a pull secret or without one."""
    case = Case("one private image", PRIVATE, registries.bearer())
    lazy_images.push(case.repository)
    scene.behave()
    case.habits(scene)
    scene.be_slow()
    readers: list[Reader] = []

    def make(node: str, secret: tuple[str, str] | None) -> Reader:
        readers.append(Reader(api, node, Case(case.name, PRIVATE, secret=secret, during=registries.revoke)))
        return readers[-1]

    yield make
    scene.behave()
    for reader in readers:
        reader.close()


# The kubelet asks since then (KubeletEnsureSecretPulledImages).
SINCE_1_35 = pytest.mark.skipif(
    tuple(map(int, VERSIONS["kubernetes"].split(".")[:2])) < (1, 35), reason="this kubelet asks for no secret"
)


@pytest.mark.full
@SINCE_1_35
@pytest.mark.parametrize("node", SOCI_NODES)
def test_a_private_image_that_is_on_a_node_still_needs_its_secret(private, scene: Scene, node: str) -> None:
    assert private(node, ("ann", ANN.password)).start()
    assert_nobody_else_may_use_it(private, node)
    on_node(node, f"systemctl kill --signal=KILL {slot_in_use(node).unit}")
    wait_for(lambda: is_ready(scene.api, node), 120, f"{node} SociReady")
    assert_nobody_else_may_use_it(private, node)


def assert_nobody_else_may_use_it(private, node: str) -> None:
    stranger = private(node, None)
    assert not stranger.start(seconds=20)
    assert any("pull" in word.lower() for word in stranger.words())
    stranger.end()


@pytest.mark.full
@SINCE_1_35
def test_a_private_image_still_needs_its_secret_after_an_upgrade_side_by_side_and_an_uninstall(
    api, stack: LabStack, private
) -> None:
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.set("soci:upgradePolicy", "side-by-side")
    stack.must_go_up()
    for node in SOCI_NODES:
        assert private(node, ("ann", ANN.password)).start()
    stack.set("soci:version", VERSIONS["soci_older"])
    stack.must_go_up()
    assert {slot_in_use(node) for node in SOCI_NODES} == {SECOND}
    for node in SOCI_NODES:
        assert_nobody_else_may_use_it(private, node)
    stack.set("soci:state", "absent")
    stack.set("soci:forceUninstall", "true")
    stack.must_go_up()
    for node in SOCI_NODES:
        assert_nobody_else_may_use_it(private, node)


@pytest.fixture
def closed_nodes(deployed: dict[str, str]) -> Iterator[None]:
    """The nodes reach the cluster and its registry, and nothing else."""
    for node in SOCI_NODES:
        on_node(node, firewall.close([REGISTRY]))
    yield
    for node in SOCI_NODES:
        on_node(node, firewall.open_again())


@pytest.mark.full
def test_a_node_without_internet_is_installed_from_its_registry_alone(
    api, stack: LabStack, closed_nodes, run_pod
) -> None:
    stack.set("soci:sampleWorkload.enabled", "false", path=True)
    stack.set("soci:state", "absent")
    stack.must_go_up()
    releases = release.release_directory() / "releases" / f"v{VERSIONS['soci']}"
    address = oci_release.push("air-gap/soci-snapshotter", VERSIONS["soci"], releases.glob("*.tar.gz"))
    for node in SOCI_NODES:
        assert on_node(node, "curl -sS -m 5 http://10.77.0.1:8080/ 2>&1 || :").startswith("curl:")
    stack.set("soci:releaseUrl", address)
    stack.set("soci:state", "present")
    stack.must_go_up()
    for node in SOCI_NODES:
        assert is_ready(api, node)
        lazy_images.push("case/air-gap-install")
        name = run_pod(f"{REGISTRY}/case/air-gap-install:1", node, ["sh", "-c", "sleep 3600"])
        (container,) = api.read_namespaced_pod(name, "default").status.container_statuses
        mounted = on_node(node, "/opt/soci-cluster/soci-host.sh mounts")
        assert container.container_id.rpartition("/")[2] in mounted


@pytest.mark.full
@pytest.mark.parametrize("node", SOCI_NODES)
def test_a_rotated_secret_is_used_at_once(api, private, scene: Scene, node: str) -> None:
    reader = private(node, ("ann", ANN.password))
    assert reader.start()
    users = {"ann": User("another word", ANN.repositories)}
    scene.trusted.users = users
    reader.replace_secret("ann", "another word")
    time.sleep(LATEST_SECONDS)
    scene.trusted.revoke_all()
    changed = time.monotonic()
    assert reader.await_pass() == 0
    assert scene.trusted.count(changed, agent="soci", kind="token", status=200) > 0
