"""soci-bench on the lab: cold in truth on both kinds of nodes, and nothing of its own left behind."""

import json
from pathlib import Path

import lab_client
import pytest
from pod_start import COMMAND, IMAGE, REFERENCE_NODE

from components.bench import command
from components.bench.arms import LAZY, OVERLAYFS
from tests.cluster import sample_pods


@pytest.fixture
def measured(deployed, api, tmp_path: Path) -> dict:
    """The JSON of one sample of each arm."""
    sample_pods.delete_sample(api)
    result = tmp_path / "result.json"
    words = ["--image", IMAGE, "--ready-line", "ready", "--samples", "1", "--reference-node", REFERENCE_NODE]
    status = command.main(
        [*words, "--json", str(result), "--kubectl", f"{lab_client.LAB} kubectl", "--", *COMMAND]
    )
    assert status == 0
    return json.loads(result.read_text())


@pytest.mark.slow
def test_both_arms_start_cold_and_only_the_one_of_soci_lazily(measured, api):
    of_mode = {sample["mode"]: sample for sample in measured["samples"]}
    assert of_mode.keys() == {OVERLAYFS, LAZY}
    assert of_mode[LAZY]["fuse_mounts"] > 0 == of_mode[OVERLAYFS]["fuse_mounts"]
    assert of_mode[LAZY]["moved_bytes"] < of_mode[OVERLAYFS]["moved_bytes"] / 2
    for sample in of_mode.values():
        phases = sample["phases"]
        assert 0 <= phases["scheduled_s"] <= phases["started_s"] <= phases["ready_s"]
    assert measured["links"][0]["bytes_per_second"] > 0, "the lab's registry gives its blobs to everybody"
    left = api.list_pod_for_all_namespaces(label_selector="app.kubernetes.io/name=soci-bench").items
    assert [pod for pod in left if not pod.metadata.deletion_timestamp] == []
