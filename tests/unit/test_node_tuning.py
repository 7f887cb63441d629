"""What the preview foresees of the nodes' settings is what the agent chooses there."""

from typing import Any

import pulumi
import pytest
from agent import tuning as of_agent

from components import aws_questions, node_tuning
from components.guards import Answers
from components.settings import Settings
from tests.unit.mocks import Recorder

GIB = node_tuning.GIB
SAID = {
    "m6i.xlarge": {"defaultVcpus": 4, "memorySize": 16384},
    "m5.xlarge": {"defaultVcpus": 4, "memorySize": 16384},
    "just.enough": {"defaultVcpus": 4, "memorySize": 2048},
    "m6i.8xlarge": {"defaultVcpus": 32, "memorySize": 131072},
    "half.known": {"defaultVcpus": 2},
}


def foreseen(**groups: tuple[str, ...]) -> list[str]:
    shapes = {name: Settings(instance_types=types) for name, types in groups.items()}
    return node_tuning.foreseen(shapes, Answers(instance_types=SAID))


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 64, 192])
@pytest.mark.parametrize("memory", [GIB // 2, 2 * GIB - 1, 2 * GIB, int(3.6 * GIB), 16 * GIB, 1024 * GIB])
def test_the_agent_chooses_the_same(cores: int, memory: int) -> None:
    chosen = of_agent.choose(of_agent.Hardware(cores, memory))
    assert node_tuning.tuning(cores, memory) == chosen.in_words


def test_each_group_has_a_line_for_each_way_its_nodes_are_set() -> None:
    first, second, third = foreseen(small=("m6i.xlarge", "m5.xlarge", "m6i.8xlarge"), other=("m6i.xlarge",))
    both = "m6i.xlarge: 4 cores, 16 GiB, m5.xlarge: 4 cores, 16 GiB"
    assert first == f"SOCI on the nodes of small ({both}): {node_tuning.tuning(4, 15 * GIB)}"
    large = "m6i.8xlarge: 32 cores, 128 GiB"
    assert second == f"SOCI on the nodes of small ({large}): {node_tuning.tuning(32, 120 * GIB)}"
    assert third.startswith("SOCI on the nodes of other (m6i.xlarge: 4 cores, 16 GiB): parallel pulls: 20 ")


def test_a_node_with_just_two_gib_is_foreseen_with_what_its_kernel_will_tell() -> None:
    (line,) = foreseen(small=("just.enough",))
    assert line.endswith(node_tuning.tuning(4, 2 * GIB - 1))
    assert node_tuning.tuning(4, 2 * GIB - 1) != node_tuning.tuning(4, 2 * GIB)


def test_of_types_that_aws_did_not_describe_nothing_is_foreseen() -> None:
    assert foreseen(small=("half.known", "c7i.large")) == []


def test_a_preview_says_how_the_nodes_of_a_group_will_be_set(
    recorder: Recorder, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def answer(args: pulumi.runtime.MockCallArgs) -> tuple[Any, Any]:
        return (SAID["m6i.xlarge"] if "getInstanceType:" in args.token else {}, [])

    monkeypatch.setattr(recorder, "call", answer)
    monkeypatch.setattr(pulumi.log, "info", lambda message, *_: said.append(message))
    shape = Settings(vpc_id="vpc-1", instance_types=("m6i.xlarge",))

    def program() -> dict[str, pulumi.Output[Any]]:
        component = pulumi.ComponentResource("test:index:Component", "c")
        return {"done": aws_questions.checked(component, shape, {"nodes": shape})}

    run(program)
    assert said == node_tuning.foreseen({"nodes": shape}, Answers(instance_types=SAID))
    assert len(said) == 1
