"""Streams with random contracts on BigQuery, against the oracle's own reading of the contracts."""

import os
import secrets
from pathlib import Path

import pytest

from tests.bigquery.googlesql import GoogleSQL
from tests.bigquery.warehouse import BigQueryProject
from tests.dbt_project.exact.contracts import Draw
from tests.dbt_project.exact.test_random_contracts import check
from tests.oracle.marts import Mart
from tests.oracle.values import json_text, read_body

pytestmark = [pytest.mark.bigquery, pytest.mark.exact, pytest.mark.timeout(3600)]


def in_order_of_names(rows: Mart) -> Mart:
    """With the properties of events as BigQuery keeps them: in order of their names, and each name once."""

    def sorted_value(value: object) -> object:
        if isinstance(value, dict):
            return {name: sorted_value(value[name]) for name in sorted(value)}
        return [sorted_value(one) for one in value] if isinstance(value, list) else value

    return [
        {**row, "properties": json_text(sorted_value(read_body(row["properties"].encode())))}
        if row.get("properties")
        else row
        for row in rows
    ]


def test_a_few_contracts(google_sql: GoogleSQL, tmp_path: Path) -> None:
    draw = Draw(int(os.environ.get("EXACT_SEED") or secrets.randbelow(2**31)), on_bigquery=True)

    def project_of(folder: Path, work: Path) -> BigQueryProject:
        return BigQueryProject(folder, work, google_sql)

    check(tmp_path, draw, streams=5, messages=50, runs=2, project_of=project_of, comparable=in_order_of_names)
