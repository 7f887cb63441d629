"""What a registry does to pods that read lazily: what they read is right, or it is an error, and never wrong.

One pod hashes each file of its image, again and again; another image for each test, since what is on a node
is read from there. The daemon is slowed down, or its background fetch would have everything at once.
"""

import hashlib
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from awkward_registry import Away, AwkwardRegistry, Fault
from settings import REGISTRY
from soci_index.assemble import MANIFEST_DIGEST

from tests.cluster import lazy_images, registries
from tests.cluster.looks import SOCI_NODES, doctor
from tests.cluster.registries import PUBLIC, SLOW_BYTES_PER_SECOND
from tests.waiting import wait_for

NODE, OTHER_NODE = SOCI_NODES
OF_LAYERS: dict[str, Any] = {"kinds": ("blobs", "store"), "agent": "soci"}
pytestmark = pytest.mark.slow
SLOW_LAYERS = Fault(bytes_per_second=SLOW_BYTES_PER_SECOND, agent="soci", kinds=("blobs", "store"))
SHORT = 1 << 20  # bytes: the first span
READ_SECONDS = 180
HASH_ALL = """
pass=0
while :; do
  for file in /data/*; do
    echo "$pass $(sha256sum "$file" 2>&1)"
    usleep 50000
  done
  pass=$((pass + 1))
done
"""


@dataclass(frozen=True)
class Reads:
    """Which files were read rightly in each pass over them, and how many reads were errors."""

    right: dict[int, set[str]]
    errors: int

    @property
    def passes(self) -> int:
        return max(self.right, default=0)


class Pod:
    """A pod that hashes what it reads."""

    def __init__(self, api: Any, name: str, repository: str, file_bytes: int) -> None:
        self.api = api
        self.name = name
        self.expected = {
            f"/{path}": hashlib.sha256(content).hexdigest()
            for path, content in lazy_images.contents(repository, file_bytes)
        }

    def read(self) -> Reads:
        """A file that was read wrongly fails the test, and so does a line that says neither."""
        right: dict[int, set[str]] = {}
        errors = 0
        for line in self.api.read_namespaced_pod_log(self.name, "default").splitlines():
            number, _, words = line.partition(" ")
            of_pass = right.setdefault(int(number), set())
            if found := re.fullmatch(r"([0-9a-f]{64})  (/data/\d+)", words):
                assert found[1] == self.expected[found[2]], f"{found[2]} was read wrongly"
                of_pass.add(found[2])
            else:
                assert "Input/output error" in words, line
                errors += 1
        return Reads(right, errors)

    def must_read_everything(self) -> None:
        """From now on, each file without an error: in the pass after the one that is under way."""
        reads = self.read()
        begun = reads.passes

        def has_passed() -> bool:
            nonlocal reads
            reads = self.read()
            return reads.passes > begun + 1

        wait_for(has_passed, READ_SECONDS, f"{self.name} reads every file")
        assert reads.right[begun + 1] == self.expected.keys()


@pytest.fixture(scope="module")
def registry(api) -> Iterator[AwkwardRegistry]:
    made = registries.trusted_registry()
    yield made
    made.close()


@pytest.fixture
def start(api, registry: AwkwardRegistry, run_pod) -> Iterator[Callable[..., Pod]]:
    """Start a pod of the image on a node; afterwards the node knows nothing of it."""
    started: list[tuple[str, str, str]] = []

    def run(
        repository: str, node: str = NODE, file_bytes: int = lazy_images.SMALL, script: str = HASH_ALL
    ) -> Pod:
        lazy_images.push(repository, file_bytes)
        name = run_pod(image_of(repository), node, ["sh", "-c", script])
        started.append((name, node, repository))
        return Pod(api, name, repository, file_bytes)

    registry.behave()
    yield run
    registry.behave()
    for name, _, _ in started:
        api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    for _, node, repository in started:
        registries.forget(node, repository)


def image_of(repository: str) -> str:
    return f"{PUBLIC}/{repository}:1"


def findings(node: str, repository: str) -> dict[str, dict]:
    """What the doctor finds of the image: id to finding."""
    (report,) = doctor(node)[1]["nodes"]
    return {found["id"]: found for found in report["findings"] if found["subject"] == image_of(repository)}


def served(node: str, repository: str) -> dict:
    """How the doctor says that the image is served."""
    (report,) = doctor(node)[1]["nodes"]
    return next(image for image in report["images"] if image_of(repository) in image["names"])


WOBBLES = [
    pytest.param({"faults": [Fault(404, **OF_LAYERS)]}, "has the layer no more", id="deleted"),
    pytest.param(
        {"faults": [Fault(inverted=True, **OF_LAYERS)]},
        "gives other bytes",
        id="replaced",
    ),
    pytest.param(
        {"faults": [Fault(length=SHORT, **OF_LAYERS)]},
        "gives other bytes",
        id="truncated",
    ),
    pytest.param({"faults": [Fault(cut_after=50_000, **OF_LAYERS)]}, "is away", id="cut-short"),
    pytest.param({"ranges": False, "faults": []}, "gives other bytes", id="without-ranges"),
    pytest.param({"faults": [Fault(429, **OF_LAYERS)]}, "too many requests", id="429"),
    pytest.param({"faults": [Fault(503, **OF_LAYERS)]}, "too many requests", id="503"),
]


@pytest.mark.parametrize(("wobble", "remedy"), WOBBLES)
def test_reads_fail_loudly_and_are_named_and_go_on_when_the_registry_is_mended(
    registry: AwkwardRegistry,
    start: Callable[..., Pod],
    request: pytest.FixtureRequest,
    wobble: dict[str, Any],
    remedy: str,
) -> None:
    repository = f"wobble/{request.node.callspec.id}"
    registry.faults = [SLOW_LAYERS]
    pod = start(repository)
    wait_for(lambda: any(pod.read().right.values()), READ_SECONDS, "a first file is read")
    for habit, value in wobble.items():
        setattr(registry, habit, value)
    wait_for(lambda: pod.read().errors > 0, READ_SECONDS, "a read fails")
    finding = findings(NODE, repository)["reads-failed"]
    assert remedy in finding["remedy"], finding
    registry.behave()
    pod.must_read_everything()


def test_redirects_that_begin_while_a_pod_reads_are_followed(
    registry: AwkwardRegistry, start: Callable[..., Pod]
) -> None:
    repository = "wobble/redirects"
    registry.faults = [SLOW_LAYERS]
    pod = start(repository)
    wait_for(lambda: any(pod.read().right.values()), READ_SECONDS, "a first file is read")
    registry.redirects = True
    pod.must_read_everything()
    assert pod.read().errors == 0
    assert registry.count(kind="store", agent="soci") > 0
    assert findings(NODE, repository) == {}


def test_too_many_requests_that_pass_are_no_error(
    registry: AwkwardRegistry, start: Callable[..., Pod]
) -> None:
    repository = "wobble/429-passes"
    registry.faults = [SLOW_LAYERS]
    pod = start(repository)
    wait_for(lambda: any(pod.read().right.values()), READ_SECONDS, "a first file is read")
    refused = Fault(429, times=4, **OF_LAYERS)
    registry.faults = [refused, SLOW_LAYERS]
    wait_for(lambda: refused.times == 0, READ_SECONDS, "the registry has refused")
    registry.behave()
    pod.must_read_everything()
    assert pod.read().errors == 0
    assert findings(NODE, repository) == {}


def test_an_index_that_is_deleted_disturbs_no_pod_that_reads_and_the_next_node_names_it(
    registry: AwkwardRegistry, start: Callable[..., Pod]
) -> None:
    repository = "wobble/index-deleted"
    pod = start(repository, file_bytes=lazy_images.LARGE)
    registry.faults = [Fault(404, kinds=("manifests", "referrers"), agent="soci")]
    other = start(repository, OTHER_NODE, lazy_images.LARGE)
    pod.must_read_everything()
    other.must_read_everything()
    assert (pod.read().errors, other.read().errors) == (0, 0)
    assert (served(NODE, repository)["served"], served(OTHER_NODE, repository)["served"]) == ("lazy", "whole")
    assert set(findings(OTHER_NODE, repository)) == {"index-missing"}


def parts_of_index(repository: str) -> dict[str, str]:
    """The digests of an image's SOCI index, and of the zTOC of its last layer."""

    def manifest(reference: str) -> dict[str, Any]:
        url = f"http://{REGISTRY}/v2/{repository}/manifests/{reference}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    descriptors = manifest("1")["manifests"]
    # The copy to the registry does not keep the type of the index.
    (index,) = [found["digest"] for found in descriptors if MANIFEST_DIGEST in found.get("annotations", {})]
    return {"index": index, "ztoc": manifest(index)["layers"][-1]["digest"]}


@pytest.mark.parametrize(
    ("part", "damage"),
    [("index", {"inverted": True}), ("ztoc", {"inverted": True}), ("ztoc", {"length": 100})],
    ids=["index-replaced", "ztoc-replaced", "ztoc-truncated"],
)
def test_an_index_or_a_ztoc_that_is_damaged_makes_no_read_wrong_and_is_named(
    registry: AwkwardRegistry,
    start: Callable[..., Pod],
    part: str,
    damage: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    repository = f"wobble/{request.node.callspec.id}"
    lazy_images.push(repository, lazy_images.LARGE)
    registry.faults = [Fault(**damage, agent="soci", path=parts_of_index(repository)[part])]
    pod = start(repository, file_bytes=lazy_images.LARGE)
    pod.must_read_everything()
    assert pod.read().errors == 0
    assert served(NODE, repository)["served"] == "whole"
    assert findings(NODE, repository)


def test_an_image_that_is_wholly_local_is_read_without_its_registry(
    registry: AwkwardRegistry, start: Callable[..., Pod]
) -> None:
    """Nothing of it was read before the registry went away: it is the background fetch that brought it."""
    repository = "wobble/wholly-local"
    start(repository, script="sleep 3600")

    def is_local() -> bool:
        image = served(NODE, repository)
        return image["lazyBytes"] > 0 and image["localBytes"] == image["lazyBytes"]

    wait_for(is_local, READ_SECONDS, "the background fetch has brought the image")
    with registry.front.away(Away.REFUSED), registry.store.away(Away.REFUSED):
        pod = start(repository)
        pod.must_read_everything()
        assert pod.read().errors == 0
        assert findings(NODE, repository) == {}
