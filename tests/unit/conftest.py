"""Pulumi's mocks as a fixture: components run for real, resources are only recorded."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pulumi
import pulumi_eks as eks
import pytest

from components import eks_checks
from tests.unit.mocks import TODAY, Recorder


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eks_checks, "_today", lambda: TODAY)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    asyncio.set_event_loop(asyncio.new_event_loop())
    mocks = Recorder()
    pulumi.runtime.set_mocks(mocks, project="soci", stack="test")
    # The mocks read a resource's inputs in a thread of their own. A reference to a component would become a
    # resource there, whose request belongs to that thread's event loop, while the program's waits for it.
    monkeypatch.setattr(pulumi.runtime.rpc, "get_resource_module", lambda *_: None)
    # A mocked remote component cannot hand out a resource as its output.
    known = SimpleNamespace(name=pulumi.Output.from_input("demo"), arn=pulumi.Output.from_input("arn:demo"))
    monkeypatch.setattr(eks.Cluster, "eks_cluster", property(lambda _: known))

    def node_group(_: eks.ManagedNodeGroup) -> pulumi.Output[Any]:
        group = {
            "id": "g",
            "launch_template": {"version": "1"},
            "version": "1.36",
            "release_version": "1.36.1",
        }
        return pulumi.Output.from_input(SimpleNamespace(**group, status=mocks.node_group_status))

    monkeypatch.setattr(eks.ManagedNodeGroup, "node_group", property(node_group))
    scaling = SimpleNamespace(id="a", launch_template={"name": "nodes", "version": "1"})
    of_self_managed = property(lambda _: pulumi.Output.from_input(scaling))
    monkeypatch.setattr(eks.NodeGroupV2, "auto_scaling_group", of_self_managed)
    return mocks


@pytest.fixture
def run(recorder: Recorder) -> Callable[[Callable[[], dict[str, pulumi.Output[Any]]]], dict[str, Any]]:
    """Run a program and return the values of the outputs it returns, once everything is registered."""

    def run_program(program: Callable[[], dict[str, pulumi.Output[Any]]]) -> dict[str, Any]:
        values: dict[str, Any] = {}

        @pulumi.runtime.test
        def wrapped() -> pulumi.Output[Any]:
            return pulumi.Output.all(**program()).apply(values.update)

        wrapped()
        return values

    return run_program
