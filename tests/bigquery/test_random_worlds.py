"""The marts that BigQuery's statements give are those of the definition, run by run, and those of a full refresh."""

import secrets

import pytest

from tests.bigquery.googlesql import GoogleSQL
from tests.bigquery.warehouse import BigQueryProject
from tests.dbt_project.exact.check import check_random_worlds
from tests.dbt_project.exact.examples import examples
from tests.dbt_project.exact.test_random_worlds import EVERYTHING_ELSE
from tests.dbt_project.exact.warehouse import ROOT
from tests.oracle import Settings

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(3600)]

WORLDS = 5
RUNS = 2
"""The first and an incremental one: a build takes half a minute."""


@pytest.fixture(scope="module")
def project(google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory) -> BigQueryProject:
    return BigQueryProject(ROOT / "dbt_project", tmp_path_factory.mktemp("worlds"), google_sql)


def test_random_worlds_and_all_examples(project: BigQueryProject) -> None:
    check_random_worlds(project, Settings(), WORLDS, secrets.randbelow(2**31), examples(first_number=WORLDS), RUNS)


@pytest.mark.exact
def test_random_worlds_with_other_settings(project: BigQueryProject) -> None:
    check_random_worlds(project, EVERYTHING_ELSE, 3 * WORLDS, secrets.randbelow(2**31), runs=RUNS)
