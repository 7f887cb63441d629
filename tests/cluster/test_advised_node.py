"""A node that loads each image as it was advised: lazily, lazily after a prefetch, or in parallel."""

import contextlib
import hashlib
import threading
from collections.abc import Generator, Iterator

import lab_client
import pytest
from awkward_registry import AwkwardRegistry, Fault

from tests.cluster import lazy_images, registries
from tests.cluster.looks import SOCI_NODES, doctor
from tests.cluster.registries import PUBLIC, SLOW_BYTES_PER_SECOND
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
NODE = SOCI_NODES[0]
INDEXED, PLAIN = "advised/indexed", "advised/plain"
AHEAD = f"data/{lazy_images.FILES - 1:02}"  # the background fetch comes to it last


def image_of(repository: str) -> str:
    return f"{PUBLIC}/{repository}:1"


def served(repository: str) -> str:
    """How the doctor says that the image is served."""
    (report,) = doctor(NODE)[1]["nodes"]
    return next(image["served"] for image in report["images"] if image_of(repository) in image["names"])


@contextlib.contextmanager
def garbage_is_collected() -> Generator[None]:
    """containerd collects garbage all the time, as it does whenever an image or a container goes."""
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            lease = "ctr --namespace k8s.io leases"
            lab_client.on_node(
                NODE, f"{lease} create --id collects-garbage && {lease} rm --sync collects-garbage"
            )

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        yield
    finally:
        ended.set()
        collector.join()


@pytest.fixture
def registry(api) -> Iterator[AwkwardRegistry]:
    made = registries.trusted_registry()
    yield made
    made.close()
    for repository in (INDEXED, PLAIN):
        registries.forget(NODE, repository)


def test_an_image_is_lazy_with_its_list_fetched_ahead_and_one_without_index_is_pulled_in_parallel(
    api, stack, registry: AwkwardRegistry, run_pod
) -> None:
    lazy_images.push(INDEXED, prefetched=[AHEAD])
    lazy_images.push_without_index(PLAIN)
    stack.set("soci:mode", "lazy-or-parallel")
    stack.set("soci:prefetch", "true")
    stack.must_go_up()
    run_pod(image_of(PLAIN), NODE)
    registry.faults = [Fault(bytes_per_second=SLOW_BYTES_PER_SECOND, agent="soci", kinds=("blobs", "store"))]
    with garbage_is_collected():
        run_pod(image_of(INDEXED), NODE)
    with registry.front.away(), registry.store.away():
        hashing = run_pod(image_of(INDEXED), NODE, ["sh", "-c", f"sha256sum /{AHEAD}; sleep 3600"])
        wait_for(lambda: api.read_namespaced_pod_log(hashing, "default"), 30, "the pod has read the file")
        said = api.read_namespaced_pod_log(hashing, "default")
    expected = hashlib.sha256(dict(lazy_images.contents(INDEXED, lazy_images.SMALL))[AHEAD]).hexdigest()
    assert said == f"{expected}  /{AHEAD}\n"
    assert (served(INDEXED), served(PLAIN)) == ("lazy", "parallel")
