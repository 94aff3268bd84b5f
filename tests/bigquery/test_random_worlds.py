"""The marts that BigQuery's statements give are those of the definition, run by run, and those of a full refresh."""

import secrets

import pytest

from tests.bigquery.googlesql import GoogleSQL
from tests.bigquery.warehouse import BigQueryProject
from tests.dbt_project.exact.check import check_random_worlds, described, first_failure, together
from tests.dbt_project.exact.test_random_worlds import EVERYTHING_ELSE
from tests.dbt_project.exact.test_regressions import EXAMPLES, example
from tests.dbt_project.exact.warehouse import ROOT
from tests.oracle import Settings

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(3600)]

WORLDS = 15


@pytest.fixture(scope="module")
def project(google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory) -> BigQueryProject:
    return BigQueryProject(ROOT / "dbt_project", tmp_path_factory.mktemp("worlds"), google_sql)


@pytest.mark.parametrize("settings", [Settings(), EVERYTHING_ELSE], ids=["default", "everything else"])
def test_random_worlds(project: BigQueryProject, settings: Settings) -> None:
    check_random_worlds(project, settings, WORLDS, secrets.randbelow(2**31))


def test_examples(project: BigQueryProject) -> None:
    arrivals = together([example(number, *messages) for number, messages in enumerate(EXAMPLES.values())])
    failure = first_failure(project, Settings(), 0, arrivals)
    assert failure is None, f"\n{dict(enumerate(EXAMPLES))}\n{described(arrivals)}\n{failure}"
