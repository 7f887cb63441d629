"""The Kubernetes releases that EKS carries: until when, and at what price.

To add a release, add its row. Source of the dates: the release calendar in the EKS guide, "Understand the
Kubernetes version lifecycle on EKS"; those of 1.35 and 1.36 as endoflife.date has them from there. Source of
the prices: the EKS pricing page, in US dollars. Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from .values import RefusedError

READ_ON = date(2026, 11, 26)
STANDARD_DOLLARS_PER_HOUR = 0.10
EXTENDED_DOLLARS_PER_HOUR = 0.60
_PRICES = f"${EXTENDED_DOLLARS_PER_HOUR:.2f} an hour instead of ${STANDARD_DOLLARS_PER_HOUR:.2f}"
# So long before the end of a support it is said: an upgrade of a cluster takes its time.
NOTICE = timedelta(days=60)


@dataclass(frozen=True)
class Release:
    """One release: the first days, in UTC, without standard support and without any."""

    version: str
    standard_ends: date
    extended_ends: date


# Oldest first.
RELEASES: Sequence[Release] = (
    Release("1.31", date(2025, 11, 26), date(2026, 11, 26)),
    Release("1.32", date(2026, 3, 23), date(2027, 3, 23)),
    Release("1.33", date(2026, 7, 29), date(2027, 7, 29)),
    Release("1.34", date(2026, 12, 2), date(2027, 12, 2)),
    Release("1.35", date(2027, 3, 27), date(2028, 3, 27)),
    Release("1.36", date(2027, 8, 2), date(2028, 8, 2)),
)


def check(version: str, today: date) -> str:
    """What is to be said of a release on a day before clusters are made of it; empty for nothing.

    Args:
        version: such as 1.36.
        today: the day, in UTC.

    Raises:
        RefusedError: EKS makes no clusters of it any more.
    """
    if number(version) > number(RELEASES[-1].version):
        return f"EKS did not carry Kubernetes {version} on {READ_ON}, when this program's list was read"
    release = next((one for one in RELEASES if one.version == version), None)
    if release is None or release.extended_ends <= today:
        ended = f" (since {release.extended_ends})" if release else ""
        raise RefusedError(
            f"EKS no longer carries Kubernetes {version}{ended}", remedy(version, carried(today))
        )
    if release.standard_ends <= today:
        return (
            f"Kubernetes {version} has been in extended support since {release.standard_ends}: the cluster "
            f"costs {_PRICES}, and from {release.extended_ends} on EKS upgrades it by itself"
        )
    if release.standard_ends <= today + NOTICE:
        return (
            f"the standard support of Kubernetes {version} ends on {release.standard_ends}: from then on the "
            f"cluster costs {_PRICES}"
        )
    return ""


def carried(today: date) -> list[str]:
    """The releases that EKS carries on a day, in UTC; oldest first."""
    return [one.version for one in RELEASES if one.extended_ends > today]


def remedy(version: str, among: Sequence[str]) -> str:
    """How to leave a release. A cluster takes one minor release at a time, so that the next one is named.

    Args:
        version: such as 1.36.
        among: the releases that EKS carries; oldest first.
    """
    newer = [one for one in among if number(one) > number(version)]
    if newer:
        further = f", one release at a time up to {newer[-1]}" if newer[1:] else ""
        return f"pulumi config set soci:kubernetesVersion {newer[0]}{further}"
    if among and version != among[-1]:
        return f"pulumi config set soci:kubernetesVersion {among[-1]}"
    return "take a newer release that aws eks describe-cluster-versions lists"


def number(version: str) -> tuple[int, ...]:
    """A release as numbers, to compare it."""
    return tuple(map(int, version.split(".")))
