"""Google's analyzer accepts every statement that dbt sends to BigQuery, and its reference implementation runs them.

There are two builds with tests, unit tests, snapshots and seeds; the second sends the incremental statements. They read
the tables, partitions and bytes that docs/bigquery.md shows.
"""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.bigquery_cost.builds import STATE, UNPARTITIONED, WHOLE, Builds, two_builds
from benchmarks.bigquery_cost.document import DOCUMENT, written
from benchmarks.bigquery_cost.prices import column_bytes
from dbt_project.warm import BuildError
from tools import ROOT
from tools.warehouses.bigquery import PROJECT, BigQueryProject

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]

STATEMENT = re.compile(
    rf"^\s*(create or replace table|create or replace view|merge into|insert into) `{PROJECT}`\.`(\w+)`\.`(\w+)`",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return two_builds(tmp_path_factory.mktemp("builds"))


def sent(statements: list[str]) -> dict[str, set[str]]:
    """Table to the kinds of statements that were sent for it."""
    found = defaultdict(set)
    for statement in statements:
        for words, _, table in STATEMENT.findall(statement)[:1]:
            found[table].add(words)
    return found


def test_each_model_and_snapshot_is_created_then_merged(builds: Builds) -> None:
    assert builds.project.client.failed == []
    first, second = sent(builds.first), sent(builds.second)
    for node in builds.project.nodes:
        if node.resource_type == "snapshot" or node.config.materialized == "incremental":
            assert "create or replace table" in first[node.name], node.name
            assert second[node.name] & {"merge into", "insert into"}, node.name
        elif node.resource_type == "model":
            assert f"create or replace {node.config.materialized}" in first[node.name], node.name


def test_each_data_test_is_sent(builds: Builds) -> None:
    for node in builds.project.nodes:
        if node.resource_type == "test":
            assert any(f'"{node.unique_id}"' in statement for statement in builds.second), node.unique_id


def test_a_merge_names_its_partitions_by_literals(builds: Builds) -> None:
    """Only literals prune. Without new rows, it compares with NULL."""
    partition_by = {node.name: node.config.get("partition_by") for node in builds.project.nodes}
    partitioned = {name: config["field"] for name, config in partition_by.items() if config}
    merges = [
        (words[2], statement)
        for statement in builds.second
        for words in STATEMENT.findall(statement)[:1]
        if words[0] == "merge into" and words[2] in partitioned
    ]
    assert len(merges) > len(partitioned) / 2
    literals = 0
    for model, statement in merges:
        found = re.search(
            rf"on \(DBT_INTERNAL_DEST\.{partitioned[model]} (in \(date '|>= timestamp '|is null\))", statement
        )
        assert found, f"{model}: {statement}"
        literals += found[1] != "is null)"
    assert literals > len(merges) / 2


@dataclass(frozen=True)
class Mistake:
    file: str
    right: str
    wrong: str
    message: str
    line: str
    """The line of compiled code that the message shows."""


PAGE_VIEWS = "models/staging/stg_page_views.sql"
MISTAKES = {
    "a misspelt column": Mistake(
        PAGE_VIEWS,
        "    traffic_source,",
        "    traffic_sourc,",
        "Unrecognized name: traffic_sourc",
        "    traffic_sourc,",
    ),
    "a text compared with a number": Mistake(
        PAGE_VIEWS,
        "when page_title is null then",
        "when page_title = 0 then",
        "No matching signature for operator = for argument types: STRING, INT64",
        "            when page_title = 0 then 'missing:page_title'",
    ),
    "a function of DuckDB": Mistake(
        "models/analytics/fct_sessions.sql",
        "    session_key,",
        "    strlen(session_key) as session_key,",
        "Function not found: strlen",
        "    strlen(session_key) as session_key,",
    ),
    "a column with another name than in the model's yml": Mistake(
        "models/analytics/fct_sessions.sql",
        "session_page_views as page_views",
        "session_page_views as pages",
        "missing in definition",
        "",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_an_error_names_model_line_and_column(builds: Builds, tmp_path: Path, mistake: Mistake) -> None:
    shutil.copytree(
        ROOT / "dbt_project", tmp_path / "dbt_project", ignore=shutil.ignore_patterns("compiled", "run", "logs")
    )
    shutil.copytree(ROOT / "snapshots", tmp_path / "snapshots")
    path = tmp_path / "dbt_project" / mistake.file
    text = path.read_text()
    assert text.count(mistake.right) == 1
    path.write_text(text.replace(mistake.right, mistake.wrong))
    project = BigQueryProject(tmp_path / "dbt_project", tmp_path, builds.project.sql)
    with pytest.raises(BuildError) as error:
        project.run(tmp_path, "run", "--select", path.stem)
    message = str(error.value)
    assert path.stem in message
    assert mistake.message in message
    if mistake.line:
        found = re.search(rf"{path.name}, line (\d+), column (\d+) of target/compiled", message)
        assert found, message
        [compiled] = (tmp_path / "target" / "compiled").rglob(path.name)
        assert compiled.read_text().strip().splitlines()[int(found[1]) - 1] == mistake.line
        assert mistake.line in message


def test_a_project_with_another_default_time_zone_is_rejected(builds: Builds) -> None:
    builds.project.sql.set_time_zone("Europe/London")
    try:
        with pytest.raises(BuildError, match=r"ALTER PROJECT `project` SET OPTIONS \(`region-us\.default_time_zone`"):
            builds.project.run(Path(), "run", "--select", "dim_dates")
    finally:
        builds.project.sql.set_time_zone("UTC")


# -- what they read ---------------------------------------------------------------------------------------------------


def test_the_tables_of_the_document_are_current(builds: Builds, tmp_path: Path) -> None:
    document = DOCUMENT.read_text()
    assert document == written(document, builds.reads, column_bytes(tmp_path)), "run python -m benchmarks.bigquery_cost"


def test_only_one_model_reads_all_days(builds: Builds) -> None:
    """Apart from it, only small tables are read whole: the accounting, with one row per stream and day, and those
    without partitions (entities, dates, countries and the state of builds)."""
    assert {(read.node, read.table) for read in builds.reads if read.days == WHOLE} == {
        ("model.fct_session_event_sequence", "analytics.fct_session_event_sequence"),
        ("test.every_message_is_accounted_for", "analytics.landing_reconciliation"),
    }
    small = {read.table.split(".")[1] for read in builds.reads if read.days == UNPARTITIONED}
    entities = ("users", "products", "posts")
    assert small == {
        *STATE,
        "dim_dates",
        "dim_countries",
        *(f"dim_{entity}_history" for entity in entities),
        *(f"{dim}{entity}_snapshot" for entity in entities for dim in ("", "dim_")),
    }
