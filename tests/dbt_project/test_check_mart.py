"""`make check-mart` passes exact marts, and fails others with the few messages that show why."""

import re
from pathlib import Path

import pytest

from common.errors import UserError
from dbt_project import check_mart
from dbt_project.exactness.checker import Checker
from dbt_project.exactness.lineage import marts_of
from dbt_project.warm import WarmProject
from tests.checkout import copy_project
from tests.command_line import run_main
from tests.conftest import Shared
from tools import ROOT

WINDOWS = (60, 3600)
MARTS = {
    # a window over event time
    "last_days": """
{{ config(materialized='incremental', unique_key=['event_date', 'stream']) }}
select event_date, stream, count(*) as events
from {{ ref('fct_events') }}
where {{ is_in_build() }}
{% if is_incremental() %}
    and event_date >= (select coalesce(max(event_date), date '2000-01-01') - 3 from {{ this }})
{% endif %}
group by event_date, stream
""",
    # only events later than its newest one
    "newest": """
{{ config(materialized='incremental', unique_key='event_key') }}
select event_key, event_at, event_type
from {{ ref('fct_events') }}
{% if is_incremental() %}
where event_at > (select coalesce(max(event_at), timestamp '2000-01-01') from {{ this }})
{% endif %}
""",
    "of_last_days": "select stream, sum(events) as events from {{ ref('last_days') }} group by stream",
    "clicks_by_day": """
{{ config(materialized='incremental', unique_key=['event_date', 'user_id']) }}
{%- set dates = new_event_dates(ref('stg_clicks'), where='reject_reason is null') %}
select event_date, user_id, count(*) as clicks
from {{ ref('fct_events') }}
where event_type = 'click' and {{ is_in_build() }}
{% if is_incremental() %}
    and {{ in_dates('event_date', dates) }}
{% endif %}
group by event_date, user_id
""",
    # the same bug, visible only with a text and a date that the SQL names
    "newest_of_team": """
{{ config(materialized='incremental', unique_key='event_key') }}
select event_key, event_at
from {{ ref('fct_events') }}
where browser = 'o''team'
{% if is_incremental() %}
    and event_at > (select coalesce(max(event_at), timestamp '2000-01-01') from {{ this }})
{% endif %}
""",
    "newest_of_late_years": """
{{ config(materialized='incremental', unique_key='event_key') }}
select event_key, event_at
from {{ ref('fct_events') }}
where event_date >= date '2024-01-01' and {{ is_in_build() }}
{% if is_incremental() %}
    and event_at > (select coalesce(max(event_at), timestamp '2000-01-01') from {{ this }})
{% endif %}
""",
    "of_nothing": "select event_key from {{ ref('fct_events') }} where browser = 'o' || 'team'",
    # changes daily, which builds within a check do not show
    "ages": "select event_key, current_date - event_date as age_days from {{ ref('fct_events') }}",
    "of_ages": "select max(age_days) as age_days from {{ ref('ages') }}",
    # an error that only an incremental build compiles
    "misspelt": """
{{ config(materialized='incremental') }}
select event_date from {{ ref('fct_events') }} {% if is_incremental() %} where evet_date is null {% endif %}
""",
}


@pytest.fixture(scope="module")
def project(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> WarmProject:
    """A copy of the project with these marts."""

    def copy(folder: Path) -> None:
        copy_project(folder, ("dbt_project", "snapshots", "analyses"))
        own = folder / "dbt_project" / "models" / "own"
        own.mkdir()
        for name, sql in MARTS.items():
            (own / f"{name}.sql").write_text(sql)

    return WarmProject(shared("own_marts", copy) / "dbt_project", tmp_path_factory.mktemp("work"))


def check(
    project: WarmProject, mart: str, capsys: pytest.CaptureFixture[str], worlds: int = 8, shrink_seconds: float = 0
) -> tuple[int, str]:
    code = check_mart.check(project, [mart], worlds, 1, shrink_seconds, WINDOWS)
    return code, capsys.readouterr().out


def test_a_mart_that_is_exact_passes(project: WarmProject, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(project, "clicks_by_day", capsys)
    assert code == 0, said
    assert re.match(r"clicks_by_day equals a full refresh after each run: 8 worlds, \d+ messages of .*clicks", said)


@pytest.mark.parametrize(
    ("mart", "streams"),
    [
        ("agg_product_events_hourly", {"ecom_events", "web_events"}),  # by the measures of its macro
        ("agg_post_metrics_daily", {"post_events"}),  # by its own SQL
        ("fct_sessions", {"page_views"}),  # by the staging model that the model behind this view reads
    ],
)
def test_most_messages_are_of_the_streams_that_a_mart_names(
    project: WarmProject, mart: str, streams: set[str], tmp_path: Path
) -> None:
    checker = Checker(project, [mart], tmp_path)
    checker.build_empty()
    assert {stream.name for stream in checker.named_streams} == streams


def test_a_look_back_window_fails_with_the_smallest_case(
    project: WarmProject, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = check(project, "last_days", capsys, shrink_seconds=240)
    assert code == 1, said
    found = re.match(r"last_days differs from a full refresh. The smallest case found, (\d+) messages?:", said)
    assert found, said
    messages = re.findall(r"^  \w+ w\d+\.\d+ published .*: \{", said, re.MULTILINE)
    assert len(messages) == int(found[1]) <= 3
    assert "run 2 lands\n" in said
    assert "  only after a full refresh: " in said or "; after a full refresh events=" in said
    assert said.endswith("to see it again: make check-mart MART=last_days SEED=1 WORLDS=8\n")


def test_reading_only_events_later_than_the_newest_one_fails(
    project: WarmProject, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = check(project, "newest", capsys)
    assert code == 1, said
    assert said.startswith("newest differs from a full refresh.")
    assert "  only after a full refresh: event_key=" in said


@pytest.mark.parametrize("mart", ["newest_of_team", "newest_of_late_years"])
def test_the_values_that_the_sql_names_are_drawn(
    project: WarmProject, capsys: pytest.CaptureFixture[str], mart: str
) -> None:
    code, said = check(project, mart, capsys, worlds=100)
    assert code == 1, said
    assert said.startswith(f"{mart} differs from a full refresh.")


def test_a_mart_without_a_row_fails(project: WarmProject, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(project, "of_nothing", capsys)
    assert code == 1, said
    assert said.startswith("of_nothing never had a row in 8 worlds: nothing was compared.")


def test_a_mart_that_reads_the_clock_fails(project: WarmProject, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(project, "ages", capsys)
    assert (code, said.partition(", so")[0]) == (1, "ages uses current_date")
    code, said = check(project, "of_ages", capsys)
    assert (code, said.partition(", so")[0]) == (1, "ages, which of_ages reads, uses current_date")


@pytest.mark.slow
def test_the_model_that_differs_first_is_named(project: WarmProject, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(project, "of_last_days", capsys)
    assert code == 1
    assert said.startswith("last_days, which of_last_days reads, differs from a full refresh.")


def test_a_mart_that_dbt_cannot_build_is_one_line(project: WarmProject, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^dbt cannot build misspelt: .*evet_date.*$"):
        check(project, "misspelt", capsys)


def test_an_unknown_mart_and_one_of_no_stream_are_one_line(
    project: WarmProject, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^there is no model last_day: did you mean last_days\?$"):
        check(project, "last_day", capsys)
    assert check(project, "dim_dates", capsys) == (0, "dim_dates reads no stream: nothing that arrives can change it\n")


def test_the_command_ends_with_2_for_an_unknown_mart() -> None:
    done = run_main(check_mart.command, ["agg_events_dayly"], {})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no model agg_events_dayly: did you mean agg_events_daily?\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_mart_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = WarmProject(ROOT / "dbt_project", tmp_path)
    marts = marts_of(project)
    assert {"fct_events", "dim_users_history", "landing_reconciliation", "fct_sessions"} <= {*marts}
    assert not {"dim_dates", "dim_countries"} & {*marts}
    code = check_mart.check(project, marts, 300, 1, 120, WINDOWS)
    said = capsys.readouterr().out
    assert code == 0, said
