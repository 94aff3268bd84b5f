"""Every rule broken on purpose, in a copy of the project: a hundred random worlds must notice."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dbt_project.exact.check import first_failure, together
from tests.dbt_project.exact.warehouse import ROOT, Project
from tests.dbt_project.exact.worlds import draw_worlds, place
from tests.oracle import Settings

WORLDS = 100
UTC = Settings()
NEW_YORK = Settings(reporting_time_zone="America/New_York")


@dataclass(frozen=True, slots=True)
class Breakage:
    """A piece of a file of dbt_project, and what is put in its place."""

    file: str
    right: str
    wrong: str
    settings: Settings = UTC


PAGE_VIEWS = "models/analytics/fct_page_views.sql"
FIRST_CLICKS = "models/intermediate/int_checkout_first_clicks.sql"
BREAKAGES = {
    "a gap of exactly the limit splits": Breakage(
        PAGE_VIEWS, "event_at > key_previous_at + interval", "event_at >= key_previous_at + interval"
    ),
    "sessions near a late page view on another day are not touched": Breakage(
        PAGE_VIEWS, "before=gap, after=gap", "before=0, after=0"
    ),
    "sessions near a late page view are not touched": Breakage(
        PAGE_VIEWS, "interval {{ gap }} second\n", "interval 0 second\n"
    ),
    "what is new goes by event time": Breakage(
        "models/analytics/fct_events.sql",
        "where {{ is_new() }}",
        "where {{ is_in_build() }} {% if is_incremental() %} "
        "and event_at > (select max(event_at) from {{ this }}) {% endif %}",
    ),
    "one watermark for all streams": Breakage(
        "macros/watermarks.sql",
        "on own.node = '{{ model.name }}' and own.stream = parents.stream",
        "on own.node = '{{ model.name }}'",
    ),
    "a model takes for read what its slowest parent has not read": Breakage(
        "macros/watermarks.sql", "{{ timestamp_text('min(latest.upto)') }}", "{{ timestamp_text('max(latest.upto)') }}"
    ),
    "the last copy of an event wins": Breakage(
        "models/analytics/fct_events.sql", "order by landed_at, message_id", "order by landed_at desc, message_id desc"
    ),
    "the last copy of a version wins": Breakage(
        "models/analytics/dim_users_history.sql",
        "order by landed_at, message_id",
        "order by landed_at desc, message_id desc",
    ),
    "a page view touches its own day only": Breakage(
        "models/analytics/agg_user_metrics_daily.sql",
        "(reporting_dates_of_new_events(ref('int_accepted_events')) + session_dates)",
        "reporting_dates_of_new_events(ref('int_accepted_events'))",
    ),
    "a late version is put in order among new ones only": Breakage(
        "models/analytics/dim_posts_history.sql",
        "where post_id in (select new_versions.post_id from new_versions)",
        "where false",
    ),
    "a click at the edge of the window does not count": Breakage(
        FIRST_CLICKS,
        "interval {{ window_seconds }} second\n",
        "interval {{ window_seconds }} second + interval 1 microsecond\n",
    ),
    "a late click touches its own day only": Breakage(FIRST_CLICKS, "after=window_seconds, ", ""),
    "a store event touches its own day only": Breakage(
        "models/analytics/fct_session_event_sequence.sql",
        "from ' ~ this ~ ' where",
        "from ' ~ this ~ ' where false and",
    ),
    "a local day is read from one UTC day": Breakage(
        "macros/touched.sql",
        "for shift in (-1, 0, 1)",
        "for shift in (0,)",
        NEW_YORK,
    ),
    "a local day is a UTC day": Breakage(
        "macros/engine/times.sql",
        "cast({{ to_local(time) }} as date)",
        "cast({{ time }} as date)",
        NEW_YORK,
    ),
}


@pytest.mark.exact
@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_rule_is_noticed(breakage: Breakage, tmp_path: Path, seed: int) -> None:
    project = broken_project(breakage, tmp_path)
    placed = place(draw_worlds(WORLDS, breakage.settings, seed), breakage.settings, seed)
    failure = first_failure(project, breakage.settings, seed, together(placed))
    assert failure is not None, f"EXACT_SEED={seed}"
    assert failure.error is None


def broken_project(breakage: Breakage, folder: Path) -> Project:
    copy = shutil.copytree(
        ROOT / "dbt_project", folder / "dbt_project", ignore=shutil.ignore_patterns("target", "logs")
    )
    shutil.copytree(ROOT / "snapshots", folder / "snapshots")
    file = copy / breakage.file
    assert breakage.right in file.read_text(), "the rule is not there any more: say anew how to break it"
    file.write_text(file.read_text().replace(breakage.right, breakage.wrong))
    return Project(copy, folder)
