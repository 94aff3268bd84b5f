"""Every statement that dbt sends to BigQuery is read by Google's analyzer and executed by its reference implementation.

Two builds of a few worlds, with tests, unit tests, snapshots and seeds: the second sends the incremental statements.
"""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bigquery.googlesql import GoogleSQL
from tests.bigquery.warehouse import PROJECT, BigQueryProject
from tests.dbt_project.exact.check import commits, together
from tests.dbt_project.exact.warehouse import ROOT, BuildError
from tests.dbt_project.exact.worlds import draw_worlds, place
from tests.oracle import Settings

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]

SEED = 1
WORLDS = 5
STATEMENT = re.compile(
    rf"^\s*(create or replace table|create or replace view|merge into|insert into) `{PROJECT}`\.`(\w+)`\.`(\w+)`",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Builds:
    project: BigQueryProject
    first: list[str]
    """Statements of the first build."""
    second: list[str]


@pytest.fixture(scope="module")
def builds(google_sql: GoogleSQL, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    settings = Settings()
    project = BigQueryProject(ROOT / "dbt_project", tmp_path_factory.mktemp("bigquery"), google_sql)
    warehouse = project.warehouse(Path(), settings)
    arrivals = together(place(draw_worlds(WORLDS, settings, SEED), settings, SEED))
    ends = []
    for runs in (0, 1), (2, 3, 4):
        for run in runs:
            for landing_time, commit in commits([one for one in arrivals if one.run == run], run, SEED):
                warehouse.land(commit, landing_time)
        warehouse.run("build")
        ends.append(len(project.client.statements))
    return Builds(project, project.client.statements[: ends[0]], project.client.statements[ends[0] :])


def sent(statements: list[str]) -> dict[str, set[str]]:
    """Table to the first words of the statements that were sent for it."""
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


def test_a_merge_names_the_partitions_that_it_rewrites(builds: Builds) -> None:
    """As literals, which alone prune; as NULL where a batch is empty."""
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
    """Of the compiled code, as the message shows it."""


CLICKS = "models/staging/website/stg_clicks.sql"
MISTAKES = {
    "a misspelt column": Mistake(
        CLICKS, "    product_name,", "    product_nam,", "Unrecognized name: product_nam", "    product_nam,"
    ),
    "a text compared with a number": Mistake(
        CLICKS,
        "when event_id is null then",
        "when event_id = 0 then",
        "No matching signature for operator = for argument types: STRING, INT64",
        "            when event_id = 0 then 'missing:click_id'",
    ),
    "a function of DuckDB": Mistake(
        "models/analytics/fct_sessions.sql",
        "    session_key,",
        "    strlen(session_key) as session_key,",
        "Function not found: strlen",
        "    strlen(session_key) as session_key,",
    ),
    "a column that the contract calls otherwise": Mistake(
        "models/analytics/fct_sessions.sql",
        "session_page_views as page_views",
        "session_page_views as pages",
        "missing in definition",
        "",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_model_line_and_column(
    builds: Builds, google_sql: GoogleSQL, tmp_path: Path, mistake: Mistake
) -> None:
    shutil.copytree(
        ROOT / "dbt_project", tmp_path / "dbt_project", ignore=shutil.ignore_patterns("compiled", "run", "logs")
    )
    shutil.copytree(ROOT / "snapshots", tmp_path / "snapshots")
    path = tmp_path / "dbt_project" / mistake.file
    text = path.read_text()
    assert text.count(mistake.right) == 1
    path.write_text(text.replace(mistake.right, mistake.wrong))
    project = BigQueryProject(tmp_path / "dbt_project", tmp_path, google_sql)
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


def test_a_project_of_another_time_zone_is_refused(builds: Builds, google_sql: GoogleSQL) -> None:
    google_sql.set_time_zone("Europe/London")
    try:
        with pytest.raises(BuildError, match=r"ALTER PROJECT `project` SET OPTIONS \(`region-us\.default_time_zone`"):
            builds.project.run(Path(), "run", "--select", "dim_dates")
    finally:
        google_sql.set_time_zone("UTC")
