"""Random worlds, built run by run, are as specified: a few in `make test`, 1,000 and more in `make test-exact`."""

import os

import pytest

from specification import Settings
from tests.dbt_project.exact.check import check_random_worlds
from tests.dbt_project.exact.examples import examples
from tools.warehouses.in_process import Project

WORLDS = int(os.environ.get("EXACT_WORLDS", "1000"))
WORLDS_TOGETHER = 250
FILTERS = Settings(customer_id_filter=("A1", "A2"), allowed_lateness_seconds=300)
VARIANTS = {
    "by user": Settings(session_key="user_id"),
    "long gap": Settings(session_gap_seconds=1800, attribution_window_seconds=90_000),
    "New York": Settings(reporting_time_zone="America/New_York"),
    "filters": FILTERS,
}
EVERYTHING_ELSE = Settings(
    session_gap_seconds=1800,
    session_key="user_id",
    attribution_window_seconds=90_000,
    reporting_time_zone="America/New_York",
    customer_id_filter=("A1", "A2"),
    allowed_lateness_seconds=3600,
)


def test_few_worlds_and_all_examples(project: Project, seed: int) -> None:
    check_random_worlds(project, Settings(), 60, seed, examples(first_number=60), runs=3)


@pytest.mark.exact
def test_few_worlds_with_other_settings(project: Project, seed: int) -> None:
    check_random_worlds(project, EVERYTHING_ELSE, 30, seed)


@pytest.mark.exact
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", range(0, WORLDS, WORLDS_TOGETHER))
def test_many_worlds(project: Project, seed: int, start: int) -> None:
    check_random_worlds(project, Settings(), min(WORLDS_TOGETHER, WORLDS - start), seed + start)


@pytest.mark.exact
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_many_worlds_with_other_settings(project: Project, seed: int, settings: Settings) -> None:
    check_random_worlds(project, settings, 100, seed)
