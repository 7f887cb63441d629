"""What is said of a Kubernetes release on EKS, and from which day on."""

from dataclasses import fields
from datetime import date

import pytest

from components.kubernetes_versions import RELEASES, check, number, remedy
from components.settings import Settings, default_of
from components.values import RefusedError


@pytest.mark.parametrize(
    ("version", "today", "said"),
    [
        ("1.36", date(2026, 11, 26), ""),
        ("1.34", date(2026, 10, 2), ""),
        (
            "1.34",
            date(2026, 10, 3),
            "the standard support of Kubernetes 1.34 ends on 2026-12-02: from then on the cluster "
            "costs $0.60 an "
            "hour instead of $0.10",
        ),
        (
            "1.34",
            date(2026, 12, 2),
            "Kubernetes 1.34 has been in extended support since 2026-12-02: the cluster costs $0.60 an hour "
            "instead of $0.10, and from 2027-12-02 on EKS upgrades it by itself",
        ),
        (
            "1.37",
            date(2026, 11, 26),
            "EKS did not carry Kubernetes 1.37 on 2026-11-26, when this program's list was read",
        ),
    ],
)
def test_the_end_of_a_support_and_its_price_are_said(version: str, today: date, said: str) -> None:
    assert check(version, today) == said


@pytest.mark.parametrize(
    ("version", "today", "reason", "next_one"),
    [
        ("1.31", date(2026, 11, 26), "EKS no longer carries Kubernetes 1.31 (since 2026-11-26)", "1.32"),
        ("1.22", date(2026, 11, 26), "EKS no longer carries Kubernetes 1.22", "1.32"),
        ("1.22", date(2027, 3, 23), "EKS no longer carries Kubernetes 1.22", "1.33"),
    ],
)
def test_a_release_without_any_support_is_refused(
    version: str, today: date, reason: str, next_one: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        check(version, today)
    assert refused.value.reason == reason
    assert refused.value.remedy == (
        f"pulumi config set soci:kubernetesVersion {next_one}, one release at a time up to 1.36"
    )


@pytest.mark.parametrize(
    ("version", "carried", "said"),
    [
        (
            "1.33",
            ["1.33", "1.34", "1.35"],
            "pulumi config set soci:kubernetesVersion 1.34, one release at a time up to 1.35",
        ),
        ("1.34", ["1.34", "1.35"], "pulumi config set soci:kubernetesVersion 1.35"),
        # What is newer than any that is carried cannot be.
        ("1.40", ["1.34", "1.35"], "pulumi config set soci:kubernetesVersion 1.35"),
        ("1.35", ["1.34", "1.35"], "take a newer release that aws eks describe-cluster-versions lists"),
        ("1.35", [], "take a newer release that aws eks describe-cluster-versions lists"),
    ],
)
def test_the_remedy_is_the_next_release(version: str, carried: list[str], said: str) -> None:
    """A cluster takes one minor release at a time."""
    assert remedy(version, carried) == said


def test_a_release_is_carried_until_the_day_before() -> None:
    assert "extended support" in check("1.31", date(2026, 11, 25))


def test_the_rows_are_in_order() -> None:
    assert list(RELEASES) == sorted(RELEASES, key=lambda row: number(row.version))
    assert list(RELEASES) == sorted(RELEASES, key=lambda row: row.standard_ends)
    assert all(row.standard_ends < row.extended_ends for row in RELEASES)


def test_the_default_release_is_the_newest_known_one() -> None:
    default = next(default_of(item) for item in fields(Settings) if item.name == "kubernetes_version")
    assert default == RELEASES[-1].version
