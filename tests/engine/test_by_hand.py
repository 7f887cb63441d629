"""What the measurement of `pulumi preview` compares the `dev` stack with is made of the same resources."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.engine.project_stack import REPOSITORY, Project, Stack

BY_HAND = REPOSITORY / "scripts/bench/by_hand.py"
STACK = REPOSITORY / "stacks/Pulumi.dev.yaml"
DIGESTS = {"amd64": "a" * 64, "arm64": "b" * 64}
# Components of our own, and where SociCluster keeps what it read.
LEFT_OUT = ("soci:index:", "pulumi:index:Stash", "pulumi:pulumi:Stack", "pulumi:providers:")


def types(preview: str) -> Counter[str]:
    """How many resources of each type a preview would make, below components as well."""
    made: list[dict[str, Any]] = [step["newState"] for step in json.loads(preview)["steps"]]
    return Counter(one["type"] for one in made if not one["type"].startswith(LEFT_OUT))


def test_the_program_by_hand_makes_what_the_dev_stack_makes(
    moto_environment: dict[str, str], tmp_path: Path
) -> None:
    config = {**yaml.safe_load(STACK.read_text())["config"], "soci:sha256": DIGESTS}
    ours = Stack(tmp_path / "soci", moto_environment, "byhand", config)
    installer = {"SOCI_BENCH_INSTALLER": str(REPOSITORY / "scripts/installer")}
    (tmp_path / "hand").mkdir()
    by_hand = Project(tmp_path / "hand", {**moto_environment, **installer}, BY_HAND.read_text())
    by_hand.config(**{"aws:region": config["aws:region"]})
    theirs = by_hand.pulumi("preview", "--json")
    assert theirs.returncode == 0, theirs.stdout
    assert types(theirs.stdout[theirs.stdout.index("{") :]) == types(ours.run("preview", "--json"))
