"""Streams with random contracts on BigQuery are as the specification reads the contracts."""

import os
import secrets
from pathlib import Path

import pytest

from tests.dbt_project.exact.contracts import Draw
from tests.dbt_project.exact.test_random_contracts import check, check_cloudevents_without_data
from tools.googlesql.engine import GoogleSQL
from tools.warehouses.bigquery import BigQueryProject, in_order_of_names

pytestmark = [pytest.mark.bigquery, pytest.mark.exact, pytest.mark.timeout(3600)]


def test_a_few_contracts(google_sql: GoogleSQL, tmp_path: Path) -> None:
    draw = Draw(int(os.environ.get("EXACT_SEED") or secrets.randbelow(2**31)), on_bigquery=True)

    def project_of(folder: Path, work: Path) -> BigQueryProject:
        return BigQueryProject(folder, work, google_sql)

    check(tmp_path, draw, streams=5, messages=50, runs=2, project_of=project_of, comparable=in_order_of_names)


def test_a_cloudevent_in_binary_mode_may_have_no_data(google_sql: GoogleSQL, tmp_path: Path) -> None:
    def project_of(folder: Path, work: Path) -> BigQueryProject:
        return BigQueryProject(folder, work, google_sql)

    check_cloudevents_without_data(tmp_path, project_of, in_order_of_names)
