"""What a real container reads, as the installer's pod on its node records it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import lab_client
import pod_start
from images import working_set
from soci_index import recorded_reads
from soci_index.node_recording import Cluster, Wanted, record

NODE = "node1"
# A kernel that reclaims memory ahead of need (DAMON) takes pages back seconds after they were read; on a busy
# machine that is before they are looked at.
STARTS = 5


def recorded(run_pod) -> recorded_reads.Recording:
    """The reads of one start of the sample."""
    cluster = Cluster((str(lab_client.LAB), "kubectl"), "soci-system")
    waits = threading.Event()
    wanted = Wanted(pod_start.IMAGE, NODE, line="^ready", wait=120)
    with ThreadPoolExecutor(1) as threads:
        content = threads.submit(record, cluster, wanted, lambda said: waits.set())
        assert waits.wait(60)
        run_pod(pod_start.IMAGE, NODE, pod_start.COMMAND)
        return recorded_reads.parse(content.result())


def test_a_container_that_is_loaded_lazily_reads_its_working_set_and_nothing_else(run_pod) -> None:
    """The sample says which files it reads: each of them is recorded, wholly, in that order; of the other two
    thousand files none is. The node has the image as it was before its own index, too: of a container
    containerd tells that name."""
    run_pod(f"{pod_start.REGISTRY}/sample:1", NODE)
    for _ in range(STARTS):
        found = recorded(run_pod)
        assert (found.ended_by, found.is_complete) == ("line", True)
        assert found.lazy_layers > 0
        data = [file for file in found.files if file.path.startswith("/opt/sample/data/")]
        assert [file.path for file in data] == working_set()
        cut = [file for file in data if file.ranges != ((0, file.size),)]
        if not cut:
            return
    raise AssertionError(f"of {len(data)} files these are not recorded wholly: {cut}")
