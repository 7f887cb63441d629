"""Guards: what is checked before anything is made, and how a guard is written.

A guard is a function that reads a plan (the settings, the node groups, what AWS answered) and yields what it
found. What AWS was not asked, or did not answer, is not known, and a guard that needs it is silent: a wrong
refusal would be worse than a late one. The guards of EKS are in eks_checks.py.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from .problems import Finding
from .settings import Settings


@dataclass(frozen=True)
class Answers:
    """What AWS said. A key that is missing, or a field left at its default, is not known."""

    default_vpc: str | None = None
    """The account's default VPC in the region; empty when it has none."""
    default_subnets: Sequence[str] | None = None
    """The ids of its subnets."""
    subnets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Subnets by id, as aws:ec2/getSubnet gives them; an empty one does not exist."""
    routes: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """The routes of a subnet by its id, as aws:ec2/getRouteTable gives them."""
    endpoints: Mapping[str, bool] = field(default_factory=dict)
    """Whether the VPC has an endpoint for a service, such as ecr.api; of a VPC of another account's it is not
    known."""
    zones: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The ids of the zones in which an instance type is offered."""
    instance_types: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Instance types by name, as aws:ec2/getInstanceType gives them."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The status of each Kubernetes release, as aws:eks/getClusterVersions gives it."""


@dataclass(frozen=True)
class Shape:
    """A node group's settings, and what comes before their keys: nothing, or the path of the group."""

    place: str
    group: Settings

    def finding(self, key: str, reason: str, remedy: str) -> Finding:
        """A finding about one of this group's keys."""
        return Finding(self.place + key, reason, remedy)


@dataclass(frozen=True)
class Plan:
    """Everything that a guard may look at."""

    settings: Settings
    groups: Mapping[str, Settings]
    today: date
    aws: Answers = Answers()

    def shapes(self) -> Iterator[Shape]:
        """The node groups."""
        for name, group in self.groups.items():
            yield Shape(f"nodeGroups.{name}." if self.settings.node_groups else "", group)


Check = Callable[[Plan], Iterable[Finding]]


@dataclass(frozen=True)
class Guard:
    """One guard: what it finds, whether it refuses or warns, which rights in AWS its questions need."""

    finds: str
    refuses: bool
    rights: tuple[str, ...]
    check: Check


GUARDS: list[Guard] = []


def refuse(finds: str, *rights: str) -> Callable[[Check], Check]:
    """Make a guard that refuses of a function."""
    return _guard(finds, True, rights)


def warn(finds: str, *rights: str) -> Callable[[Check], Check]:
    """Make a guard that warns of a function."""
    return _guard(finds, False, rights)


def _guard(finds: str, refuses: bool, rights: tuple[str, ...]) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        GUARDS.append(Guard(finds, refuses, rights, check))
        return check

    return register
